//! Accounts for which the node itself signs: those of development chains, whose keys everybody has.
//!
//! A node that others can reach must never sign for an account that matters, so keys under a
//! password are not reachable from here: who has one signs at home and sends the result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use alloy_consensus::{SignableTransaction, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, U64, U256, eip191_hash_message};
use alloy_rpc_types_eth::TransactionRequest;

use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use super::{Module, Rpc};
use crate::block::Transaction;
use crate::keystore::{Signer, TypedData};
use crate::mempool::Head;

/// What the faucet gives when it is not told, in wei.
const DRIP: u128 = 10_000_000_000_000_000_000;

/// Most that the faucet gives at once, in wei.
const DRIP_MAX: u128 = 1_000_000_000_000_000_000_000;

/// What the producer is offered per gas when the sender does not say, in wei.
const TIP: u128 = 1_000_000_000;

/// The accounts for which anybody may send without a signature. Cheap to clone, and shared.
#[derive(Clone, Debug, Default)]
pub struct Impersonated(Arc<Mutex<(bool, BTreeSet<Address>)>>);

impl Impersonated {
    fn lock(&self) -> MutexGuard<'_, (bool, BTreeSet<Address>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on anybody may send for `account`.
    pub(super) fn begin(&self, account: Address) {
        self.lock().1.insert(account);
    }

    /// No longer.
    pub(super) fn end(&self, account: &Address) {
        self.lock().1.remove(account);
    }

    /// Whether anybody may send for everybody.
    pub(super) fn all(&self, on: bool) {
        self.lock().0 = on;
    }

    fn has(&self, account: &Address) -> bool {
        let impersonated = self.lock();
        impersonated.0 || impersonated.1.contains(account)
    }
}

/// The methods that sign, and the faucet.
#[derive(Debug)]
pub struct Wallet {
    rpc: Rpc,
    signers: BTreeMap<Address, Signer>,
    order: Vec<Address>,
    impersonated: Impersonated,
    /// Held from when a nonce is chosen until it is used.
    nonces: Mutex<()>,
}

type Method = fn(&Wallet, &Params<'_>) -> Answer;

const METHODS: &[(&str, Method)] = &[
    ("eth_accounts", Wallet::accounts),
    ("eth_requestAccounts", Wallet::accounts),
    ("eth_sendTransaction", Wallet::send),
    ("eth_signTransaction", Wallet::sign_transaction),
    ("eth_sign", Wallet::sign),
    ("personal_sign", Wallet::personal_sign),
    ("eth_signTypedData", Wallet::sign_typed),
    ("eth_signTypedData_v4", Wallet::sign_typed),
    ("faucet_drip", Wallet::drip),
];

impl Wallet {
    /// Signs with `signers` what `rpc` is then sent. The last of them is the faucet.
    pub fn new(rpc: Rpc, signers: Vec<Signer>, impersonated: Impersonated) -> Self {
        let order = signers.iter().map(Signer::address).collect();
        let signers = signers.into_iter().map(|signer| (signer.address(), signer)).collect();
        Self { rpc, signers, order, impersonated, nonces: Mutex::new(()) }
    }

    fn accounts(&self, _: &Params<'_>) -> Answer {
        answer(&self.order)
    }

    fn signer(&self, address: &Address) -> Result<&Signer, Error> {
        let unknown = || Error::Failed(format!("unknown account: no key for {address} here"));
        self.signers.get(address).ok_or_else(unknown)
    }

    /// `[transaction]`; what it leaves open is filled in.
    fn send(&self, params: &Params<'_>) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let from = sender(&request)?;
        if !self.signers.contains_key(&from) && !self.impersonated.has(&from) {
            self.signer(&from)?;
        }
        let _nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let envelope = self.fill_and_sign(request, from, params)?;
        let transaction = Transaction::new_unchecked(envelope, from);
        let added = self.rpc.mempool().add(transaction);
        answer(&added.map_err(|refused| Error::Failed(refused.to_string()))?)
    }

    /// `[transaction]`; the signed bytes, and what they say.
    fn sign_transaction(&self, params: &Params<'_>) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let from = sender(&request)?;
        self.signer(&from)?;
        let envelope = self.fill_and_sign(request, from, params)?;
        let raw: Bytes = envelope.encoded_2718().into();
        answer(&raw)
    }

    fn fill_and_sign(
        &self,
        mut request: TransactionRequest,
        from: Address,
        params: &Params<'_>,
    ) -> Result<TxEnvelope, Error> {
        let head = self.rpc.chain().head();
        let next = Head::after(&head, self.rpc.chain().executor(), head.header.gas_limit);
        request.chain_id = Some(self.rpc.chain_id());
        request.nonce.get_or_insert_with(|| self.rpc.mempool().next_nonce(&from));
        if request.gas_price.is_none() {
            let tip = *request.max_priority_fee_per_gas.get_or_insert(TIP);
            let fee = u128::from(next.base_fee).saturating_mul(2).saturating_add(tip);
            request.max_fee_per_gas.get_or_insert(fee);
        }
        if request.gas.is_none() {
            let text = self.rpc.eth_estimate_gas(params)?;
            let gas: U64 = serde_json::from_str(text.get())
                .map_err(|error| Error::Internal(error.to_string()))?;
            request.gas = Some(gas.to());
        }
        let typed = request.build_typed_tx().map_err(|request| {
            let kind = request.preferred_type();
            Error::Arguments(format!("the transaction lacks what its type {kind:?} needs"))
        })?;
        match self.signers.get(&from) {
            Some(signer) => Ok(signer.sign_transaction(typed)),
            // Nobody can sign for it; the sender stands where a signature would, so that equal
            // transactions of two senders differ, and no real signature looks like it.
            None => {
                let stand_in =
                    Signature::new(U256::from_be_slice(from.as_slice()), U256::ZERO, false);
                Ok(typed.into_signed(stand_in).into())
            }
        }
    }

    /// `[address, message]`
    fn sign(&self, params: &Params<'_>) -> Answer {
        self.sign_message(params.address(0)?, &params.bytes(1)?)
    }

    /// `[message, address]`
    fn personal_sign(&self, params: &Params<'_>) -> Answer {
        self.sign_message(params.address(1)?, &params.bytes(0)?)
    }

    fn sign_message(&self, address: Address, message: &[u8]) -> Answer {
        self.sign_digest(address, &eip191_hash_message(message))
    }

    /// `[address, document]`; the document may come as a text.
    fn sign_typed(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let document: serde_json::Value = params.required(1)?;
        let document = match document {
            serde_json::Value::String(text) => serde_json::from_str::<TypedData>(&text),
            other => serde_json::from_value(other),
        };
        let document = document.map_err(|error| argument(1, error))?;
        let digest = document.digest().map_err(|error| argument(1, error))?;
        self.sign_digest(address, &digest)
    }

    fn sign_digest(&self, address: Address, digest: &B256) -> Answer {
        answer(&Bytes::from(self.signer(&address)?.sign(digest).as_bytes()))
    }

    /// `[address, wei]`; the hash of the transaction that brings it.
    fn drip(&self, params: &Params<'_>) -> Answer {
        let to = params.address(0)?;
        let amount = params.optional::<U256>(1)?.unwrap_or(U256::from(DRIP));
        if amount > U256::from(DRIP_MAX) {
            return Err(argument(1, format!("{amount} wei, at most {DRIP_MAX}")));
        }
        let from = self.order.last().copied();
        let from = from.ok_or_else(|| Error::Failed("the faucet has no account".into()))?;
        let request = TransactionRequest {
            from: Some(from),
            to: Some(to.into()),
            value: Some(amount),
            // Enough for a wallet that is a contract.
            gas: Some(100_000),
            ..Default::default()
        };
        let _nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let envelope = self.fill_and_sign(request, from, params)?;
        let transaction = Transaction::new_unchecked(envelope, from);
        let added = self.rpc.mempool().add(transaction);
        answer(&added.map_err(|refused| Error::Failed(refused.to_string()))?)
    }
}

impl Module for Wallet {
    fn methods(&self) -> &[&'static str] {
        static NAMES: LazyLock<Vec<&str>> =
            LazyLock::new(|| METHODS.iter().map(|(name, _)| *name).collect());
        &NAMES
    }

    fn call(&self, method: &str, params: &Params<'_>) -> Answer {
        match METHODS.iter().find(|(name, _)| *name == method) {
            Some((_, run)) => run(self, params),
            None => Err(Error::Method(method.to_owned())),
        }
    }
}

fn sender(request: &TransactionRequest) -> Result<Address, Error> {
    request.from.ok_or_else(|| argument(0, "from is missing"))
}
