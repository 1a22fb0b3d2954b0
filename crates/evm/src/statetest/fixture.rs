//! The JSON form of state tests.
//!
//! A test may hold values that no transaction can have, to see it refused; so what belongs to the
//! transaction is read as text, and only becomes numbers when a case needs it.

use std::collections::BTreeMap;

use alloy_eips::eip2930::AccessList;
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, keccak256};
use revm::context::TxEnv;
use revm::context_interface::either::Either;
use revm::primitives::hardfork::SpecId;
use serde::Deserialize;

use crate::state::{Account, AccountChange, Changes};

/// One test: a state, a block, a transaction, and its outcome under each fork.
#[derive(Debug, Deserialize)]
pub(super) struct Unit {
    pub(super) env: Env,
    pre: BTreeMap<Address, PreAccount>,
    transaction: Parts,
    pub(super) post: BTreeMap<String, Vec<Case>>,
    pub(super) out: Option<Bytes>,
}

/// The block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Env {
    #[serde(rename = "currentChainID")]
    pub(super) current_chain_id: Option<U256>,
    pub(super) current_coinbase: Address,
    #[serde(default)]
    pub(super) current_difficulty: U256,
    pub(super) current_gas_limit: U256,
    pub(super) current_number: U256,
    pub(super) current_timestamp: U256,
    pub(super) current_base_fee: Option<U256>,
    pub(super) current_random: Option<B256>,
    pub(super) current_excess_blob_gas: Option<U256>,
    pub(super) slot_number: Option<U256>,
}

#[derive(Debug, Deserialize)]
struct PreAccount {
    balance: U256,
    #[serde(default)]
    code: Bytes,
    nonce: U256,
    #[serde(default)]
    storage: BTreeMap<U256, U256>,
}

/// One case: which variant of the transaction, and its outcome.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) expect_exception: Option<String>,
    pub(super) indexes: Indexes,
    pub(super) hash: B256,
    pub(super) logs: B256,
}

/// Which of the transaction's variants a case takes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Indexes {
    data: usize,
    gas: usize,
    value: usize,
}

impl Indexes {
    pub(super) fn list(self) -> [usize; 3] {
        [self.data, self.gas, self.value]
    }
}

/// The transaction and its variants.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    #[serde(rename = "type")]
    kind: Option<Text>,
    chain_id: Option<Text>,
    data: Vec<Text>,
    gas_limit: Vec<Text>,
    gas_price: Option<Text>,
    nonce: Text,
    secret_key: Option<B256>,
    sender: Option<Address>,
    to: Option<Text>,
    value: Vec<Text>,
    max_fee_per_gas: Option<Text>,
    max_priority_fee_per_gas: Option<Text>,
    #[serde(default)]
    access_lists: Vec<Option<AccessList>>,
    authorization_list: Option<Vec<AuthorizationParts>>,
    #[serde(default)]
    blob_versioned_hashes: Vec<B256>,
    max_fee_per_blob_gas: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationParts {
    chain_id: U256,
    address: Address,
    nonce: U256,
    v: Option<U256>,
    y_parity: Option<U256>,
    r: U256,
    s: U256,
}

/// What should be a number or bytes, as the file writes it: text, or a bare number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(u64),
}

/// Which rules a file's name for a fork asks for.
pub(super) enum Fork {
    Rules(SpecId),
    /// Not run, and why.
    LeftOut(String),
}

impl Fork {
    pub(super) fn named(name: &str) -> Self {
        Self::Rules(match name {
            "Frontier" => SpecId::FRONTIER,
            "Homestead" | "FrontierToHomesteadAt5" => SpecId::HOMESTEAD,
            "EIP150" | "TangerineWhistle" | "HomesteadToDaoAt5" | "HomesteadToEIP150At5" => {
                SpecId::TANGERINE
            }
            "EIP158" | "SpuriousDragon" => SpecId::SPURIOUS_DRAGON,
            "Byzantium" | "EIP158ToByzantiumAt5" => SpecId::BYZANTIUM,
            "ConstantinopleFix" | "Petersburg" | "ByzantiumToConstantinopleFixAt5" => {
                SpecId::PETERSBURG
            }
            "Istanbul" => SpecId::ISTANBUL,
            "Berlin" => SpecId::BERLIN,
            "London" | "BerlinToLondonAt5" => SpecId::LONDON,
            "Paris" | "Merge" => SpecId::MERGE,
            "Shanghai" => SpecId::SHANGHAI,
            "Cancun" => SpecId::CANCUN,
            "Prague" => SpecId::PRAGUE,
            "Osaka" => SpecId::OSAKA,
            "Amsterdam" => SpecId::AMSTERDAM,
            "Constantinople" | "ByzantiumToConstantinopleAt5" => {
                return Self::LeftOut(format!("fork {name}, which no chain ran for long"));
            }
            other => return Self::LeftOut(format!("fork {other} is not known")),
        })
    }
}

impl Unit {
    /// What writes the state before. Empty accounts are in it, whatever the fork.
    pub(super) fn changes(&self) -> Changes {
        let mut codes = BTreeMap::new();
        let mut accounts = BTreeMap::new();
        for (address, pre) in &self.pre {
            let code_hash =
                if pre.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&pre.code) };
            codes.insert(code_hash, pre.code.clone());
            let nonce = u64::try_from(pre.nonce).unwrap_or(u64::MAX);
            let account = Account { nonce, balance: pre.balance, code_hash };
            let slots = pre.storage.clone();
            accounts
                .insert(*address, AccountChange { account: Some(account), wiped: false, slots });
        }
        codes.remove(&KECCAK256_EMPTY);
        Changes { accounts, codes, keep_empty: true }
    }

    /// The transaction of a case. Fails, with the reason, where the file describes none that could
    /// be signed and sent.
    pub(super) fn transaction(&self, indexes: &Indexes) -> Result<TxEnv, String> {
        let parts = &self.transaction;
        let access_list = parts.access_lists.get(indexes.data).cloned().flatten();
        let gas_price = parts.gas_price.as_ref().or(parts.max_fee_per_gas.as_ref());
        Ok(TxEnv {
            tx_type: parts.tx_type(access_list.is_some())?,
            caller: parts.sender()?,
            gas_limit: variant(&parts.gas_limit, indexes.gas)?.number()?.saturating_to(),
            gas_price: gas_price.map_or(Ok(U256::ZERO), Text::number)?.saturating_to(),
            kind: parts.to()?.map_or(TxKind::Create, TxKind::Call),
            value: variant(&parts.value, indexes.value)?.number()?,
            data: variant(&parts.data, indexes.data)?.bytes()?,
            nonce: narrow(parts.nonce.number()?, "nonce")?,
            chain_id: Some(match &parts.chain_id {
                Some(id) => id.number()?.saturating_to(),
                None => 1,
            }),
            access_list: access_list.unwrap_or_default(),
            gas_priority_fee: match &parts.max_priority_fee_per_gas {
                Some(fee) => Some(narrow(fee.number()?, "priority fee")?),
                None => None,
            },
            blob_hashes: parts.blob_versioned_hashes.clone(),
            max_fee_per_blob_gas: match &parts.max_fee_per_blob_gas {
                Some(fee) => narrow(fee.number()?, "blob fee")?,
                None => u128::MAX,
            },
            authorization_list: parts.authorizations()?,
        })
    }
}

impl Parts {
    /// The type of transaction that the fields make.
    fn tx_type(&self, has_access_list: bool) -> Result<u8, String> {
        if let Some(kind) = &self.kind {
            return narrow(kind.number()?, "type");
        }
        let creates = self.to()?.is_none();
        let kind = if self.max_fee_per_blob_gas.is_some() {
            3
        } else if self.authorization_list.is_some() {
            4
        } else if self.max_fee_per_gas.is_some() {
            2
        } else {
            u8::from(has_access_list)
        };
        if creates && kind >= 3 {
            return Err("a transaction of this type creates no contract".into());
        }
        Ok(kind)
    }

    /// Who signed: state tests give the key in place of a signature, so that one without a key has
    /// a signature of nobody.
    fn sender(&self) -> Result<Address, String> {
        let key = self.secret_key.ok_or("no key, so no valid signature")?;
        if let Some(sender) = self.sender {
            return Ok(sender);
        }
        let key = secp256k1::SecretKey::from_secret_bytes(key.0)
            .map_err(|error| format!("key: {error}"))?;
        let public = secp256k1::PublicKey::from_secret_key(&key).serialize_uncompressed();
        Ok(Address::from_raw_public_key(&public[1..]))
    }

    fn to(&self) -> Result<Option<Address>, String> {
        match &self.to {
            None => Ok(None),
            Some(Text::Text(text)) if text.is_empty() => Ok(None),
            Some(Text::Text(text)) => {
                text.parse().map(Some).map_err(|error| format!("to: {error}"))
            }
            Some(Text::Number(number)) => Err(format!("to: {number} is no address")),
        }
    }

    fn authorizations(
        &self,
    ) -> Result<
        Vec<
            Either<
                SignedAuthorization,
                revm::context_interface::transaction::RecoveredAuthorization,
            >,
        >,
        String,
    > {
        let parts = self.authorization_list.iter().flatten();
        parts.map(|parts| parts.signed().map(Either::Left)).collect()
    }
}

impl AuthorizationParts {
    fn signed(&self) -> Result<SignedAuthorization, String> {
        let parity = self.y_parity.or(self.v).ok_or("an authorization without parity")?;
        let authorization = Authorization {
            chain_id: self.chain_id,
            address: self.address,
            nonce: narrow(self.nonce, "authorization's nonce")?,
        };
        let parity = narrow(parity, "authorization's parity")?;
        Ok(SignedAuthorization::new_unchecked(authorization, parity, self.r, self.s))
    }
}

impl Text {
    fn number(&self) -> Result<U256, String> {
        let text = match self {
            Self::Number(number) => return Ok(U256::from(*number)),
            Self::Text(text) => text.as_str(),
        };
        let parsed = match text.strip_prefix("0x") {
            Some("") => return Ok(U256::ZERO),
            Some(digits) => U256::from_str_radix(digits, 16),
            None => U256::from_str_radix(text, 10),
        };
        parsed.map_err(|error| format!("{text}: {error}"))
    }

    fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => text.parse().map_err(|error| format!("data: {error}")),
            Self::Number(number) => Err(format!("data: {number} is not bytes")),
        }
    }
}

fn variant(variants: &[Text], index: usize) -> Result<&Text, String> {
    variants.get(index).ok_or_else(|| format!("no variant {index} of {}", variants.len()))
}

fn narrow<T: TryFrom<U256>>(value: U256, name: &str) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{name} {value} is too large"))
}
