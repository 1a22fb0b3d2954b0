//! The suite of contracts: what there is, what each needs to know of the others, and where it will
//! stand before anything is sent.
//!
//! Every contract is made by the deterministic deployer (CREATE2), so its address follows from its
//! code and its constructor's arguments alone: the same settings give the same addresses on every
//! chain, an interrupted deployment finds what it left, and nobody can put other code there.

use std::collections::BTreeMap;
use std::fmt;

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::{SolConstructor, SolValue};
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::audits::AuditTerms;
use crate::bindings::{
    Auditors, Canaries, Clerk, Disputes, Distribution, Parameters, Productions, Providers, Tills,
    Timelock,
};
use crate::book::Deployed;
use crate::disputes::DisputeTerms;

/// The deterministic deployer: takes 32 bytes of salt and creation code.
/// Source: github.com/Arachnid/deterministic-deployment-proxy.
pub const DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");

/// A contract of the suite. In the order of deployment: each knows only earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contract {
    /// Delays what its admin decides; the governor of the parameters.
    Timelock,
    /// Values and offices that the others read.
    Parameters,
    /// Holds the supply, and releases it by schedule.
    Distribution,
    /// ASY; made by the distribution.
    AssayToken,
    /// Payment channels.
    Channels,
    /// Brings deposits by EIP-3009 authorization.
    Erc3009DepositCollector,
    /// Brings deposits by EIP-2612 permit.
    PermitDepositCollector,
    /// Brings deposits by plain allowance.
    ApprovalDepositCollector,
    /// Roots of providers' receipts; the market that orders name.
    Receipts,
    /// Stake, operators, jail, and seats in the consensus.
    Providers,
    /// Published models and their terms.
    Models,
    /// Makes each provider's till.
    Tills,
    /// Which delegations were taken back.
    Grants,
    /// What judges need of each model.
    Specs,
    /// Reads what is handed in to a dispute.
    Clerk,
    /// Judges numbers of vectors.
    VectorJudge,
    /// Judges numbers of attention.
    AttentionJudge,
    /// Judges numbers of sampling.
    SamplingJudge,
    /// Receipts that are false on purpose, and their prizes.
    Canaries,
    /// Who audits, what is drawn for them, and what they said.
    Auditors,
    /// Has providers publish what they posted.
    Productions,
    /// The arbiter: disputes about receipts, and what follows from them.
    Disputes,
}

/// Shares of the supply, and who is paid each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beneficiaries {
    /// 50 %, over ten years; zero until governance names who emits.
    #[serde(default)]
    pub nodes: Address,
    /// 20 %.
    pub community: Address,
    /// 10 %.
    pub team: Address,
    /// 10 %.
    pub investors: Address,
    /// 5 %.
    pub airdrop: Address,
    /// 5 %.
    pub liquidity: Address,
}

/// A first validator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirstSeat {
    /// Ed25519 public key.
    pub key: B256,
    /// Who answers for it.
    pub owner: Address,
    /// Where it listens, `host:port`.
    pub socket: String,
}

impl FirstSeat {
    fn encoded(&self) -> Providers::Seat {
        Providers::Seat {
            key: self.key,
            owner: self.owner,
            weight: Default::default(),
            socket: self.socket.clone(),
        }
    }
}

/// What a deployment decides once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Proposes and executes through the timelock.
    pub admin: Address,
    /// Seconds between a decision and its execution.
    pub delay: u64,
    /// Who is paid governance's share.
    pub treasury: Address,
    /// Who is paid the network fee.
    pub fee_recipient: Address,
    /// Initial values that differ from the usual ones, by name.
    #[serde(default)]
    pub values: BTreeMap<Value, U256>,
    /// When vesting begins, unix seconds; zero for the time of deployment.
    #[serde(default)]
    pub start: u64,
    /// Who is paid which part of the supply.
    pub beneficiaries: Beneficiaries,
    /// First validators, at least one; they matter only on a chain whose consensus reads them.
    pub seats: Vec<FirstSeat>,
    /// What a dispute takes.
    #[serde(default)]
    pub disputes: DisputeTerms,
    /// What audits take.
    #[serde(default)]
    pub audits: AuditTerms,
}

/// A value of `Parameters`. In the order of the contract's enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "contracts/src/interfaces/IParameters.sol describes each, with its unit"
)]
pub enum Value {
    NetworkFee,
    GovernanceShare,
    SlashLeast,
    SlashMost,
    ChallengerReward,
    DisputeWindow,
    CoverWindow,
    UnbondingDelay,
    AbsenceLimit,
    JailTime,
    SeatStake,
    Seats,
    TierBronze,
    TierSilver,
    TierGold,
}

impl Value {
    /// All values, in the contract's order.
    pub const ALL: [Self; 15] = [
        Self::NetworkFee,
        Self::GovernanceShare,
        Self::SlashLeast,
        Self::SlashMost,
        Self::ChallengerReward,
        Self::DisputeWindow,
        Self::CoverWindow,
        Self::UnbondingDelay,
        Self::AbsenceLimit,
        Self::JailTime,
        Self::SeatStake,
        Self::Seats,
        Self::TierBronze,
        Self::TierSilver,
        Self::TierGold,
    ];

    /// What the contract sets where a deployment says nothing (`contracts/src/libraries/Bounds.sol`).
    pub fn usual(self) -> U256 {
        const DAY: u128 = 86_400;
        const ASY: u128 = 1_000_000_000_000_000_000;
        U256::from(match self {
            Self::NetworkFee => 200,
            Self::GovernanceShare | Self::SlashLeast => 500,
            Self::SlashMost => 2_000,
            Self::ChallengerReward => 1_000,
            Self::DisputeWindow => DAY,
            Self::CoverWindow | Self::JailTime => 7 * DAY,
            Self::UnbondingDelay => 14 * DAY,
            Self::AbsenceLimit => 3 * DAY,
            Self::Seats => 100,
            Self::SeatStake | Self::TierGold => 100_000 * ASY,
            Self::TierBronze => 1_000 * ASY,
            Self::TierSilver => 10_000 * ASY,
        })
    }
}

impl Contract {
    /// All contracts, in the order of deployment.
    pub const ALL: [Self; 22] = [
        Self::Timelock,
        Self::Parameters,
        Self::Distribution,
        Self::AssayToken,
        Self::Channels,
        Self::Erc3009DepositCollector,
        Self::PermitDepositCollector,
        Self::ApprovalDepositCollector,
        Self::Receipts,
        Self::Providers,
        Self::Models,
        Self::Tills,
        Self::Grants,
        Self::Specs,
        Self::Clerk,
        Self::VectorJudge,
        Self::AttentionJudge,
        Self::SamplingJudge,
        Self::Canaries,
        Self::Auditors,
        Self::Productions,
        Self::Disputes,
    ];

    /// Makes the address differ between contracts and between generations of the suite.
    fn salt(self) -> B256 {
        keccak256(format!("assay.v1.{self}"))
    }
}

impl fmt::Display for Contract {
    /// The contract's name in Solidity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Erc3009DepositCollector => f.pad("ERC3009DepositCollector"),
            other => f.pad(&format!("{other:?}")),
        }
    }
}

/// One contract's deployment.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it makes.
    pub contract: Contract,
    /// Where.
    pub address: Address,
    /// What is sent to [`DEPLOYER`]: salt and creation code.
    pub data: Bytes,
}

/// What is to be deployed so that the suite is whole.
#[derive(Clone, Debug)]
pub struct Plan {
    steps: Vec<Step>,
    addresses: BTreeMap<Contract, Address>,
}

impl Plan {
    /// What is missing where `standing` stands. Contracts that stand are taken as they are, also those
    /// of an older release; new ones are told of them.
    pub fn new(settings: &Settings, standing: &BTreeMap<Contract, Deployed>) -> Self {
        let mut plan = Self { steps: Vec::new(), addresses: BTreeMap::new() };
        for contract in Contract::ALL {
            let address = match standing.get(&contract) {
                Some(deployed) => deployed.address,
                None if contract == Contract::AssayToken => {
                    plan.at(Contract::Distribution).create(1)
                }
                None => plan.push(contract, settings),
            };
            plan.addresses.insert(contract, address);
        }
        plan
    }

    /// The deployments, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Where `contract` is or will be.
    pub fn at(&self, contract: Contract) -> Address {
        self.addresses[&contract]
    }

    fn push(&mut self, contract: Contract, settings: &Settings) -> Address {
        let salt = contract.salt();
        let mut creation = Artifact::of(contract).creation.to_vec();
        creation.extend(self.arguments(contract, settings));
        let address = DEPLOYER.create2_from_code(salt, &creation);
        let data = [salt.as_slice(), &creation].concat().into();
        self.steps.push(Step { contract, address, data });
        address
    }

    /// The constructor's arguments, ABI-encoded.
    fn arguments(&self, contract: Contract, settings: &Settings) -> Vec<u8> {
        let parameters = || self.at(Contract::Parameters);
        match contract {
            Contract::Timelock => Timelock::constructorCall {
                delay: U256::from(settings.delay),
                admin: settings.admin,
            }
            .abi_encode(),
            Contract::Parameters => Parameters::constructorCall {
                governor_: self.at(Contract::Timelock),
                treasury_: settings.treasury,
                feeRecipient_: settings.fee_recipient,
                values: settings.initial_values(),
            }
            .abi_encode(),
            Contract::Distribution => Distribution::constructorCall {
                parameters_: parameters(),
                start_: settings.start,
                beneficiaries: settings.beneficiaries.list(),
            }
            .abi_encode(),
            Contract::Providers => Providers::constructorCall {
                token_: self.at(Contract::AssayToken),
                parameters_: parameters(),
                genesis: settings.seats.iter().map(FirstSeat::encoded).collect(),
            }
            .abi_encode(),
            Contract::Erc3009DepositCollector
            | Contract::PermitDepositCollector
            | Contract::ApprovalDepositCollector => self.at(Contract::Channels).abi_encode(),
            Contract::Tills => Tills::constructorCall {
                channels: self.at(Contract::Channels),
                receipts: self.at(Contract::Receipts),
                parameters: parameters(),
            }
            .abi_encode(),
            Contract::Clerk => Clerk::constructorCall {
                parameters_: parameters(),
                providers_: self.at(Contract::Providers),
                receipts_: self.at(Contract::Receipts),
                specs_: self.at(Contract::Specs),
            }
            .abi_encode(),
            Contract::Canaries => Canaries::constructorCall {
                token_: self.at(Contract::AssayToken),
                parameters_: parameters(),
            }
            .abi_encode(),
            Contract::Auditors => Auditors::constructorCall {
                token_: self.at(Contract::AssayToken),
                parameters_: parameters(),
                receipts_: self.at(Contract::Receipts),
                canaries_: self.at(Contract::Canaries),
                terms: settings.audits.encoded(),
            }
            .abi_encode(),
            Contract::Productions => Productions::constructorCall {
                token_: self.at(Contract::AssayToken),
                receipts_: self.at(Contract::Receipts),
                providers_: self.at(Contract::Providers),
                auditors_: self.at(Contract::Auditors),
                bond_: U256::from(settings.audits.production_bond.0),
                clock_: U256::from(settings.audits.production_clock),
            }
            .abi_encode(),
            Contract::Disputes => Disputes::constructorCall {
                bar: self.bar(),
                bond_: U256::from(settings.disputes.bond.0),
                clock_: U256::from(settings.disputes.clock),
            }
            .abi_encode(),
            Contract::Channels
            | Contract::Receipts
            | Contract::Models
            | Contract::Grants
            | Contract::Specs
            | Contract::VectorJudge
            | Contract::AttentionJudge
            | Contract::SamplingJudge
            | Contract::AssayToken => Vec::new(),
        }
    }

    /// Whom the arbiter works with.
    fn bar(&self) -> Disputes::Bar {
        Disputes::Bar {
            token: self.at(Contract::AssayToken),
            parameters: self.at(Contract::Parameters),
            providers: self.at(Contract::Providers),
            channels: self.at(Contract::Channels),
            tills: self.at(Contract::Tills),
            clerk: self.at(Contract::Clerk),
            vectors: self.at(Contract::VectorJudge),
            attention: self.at(Contract::AttentionJudge),
            sampling: self.at(Contract::SamplingJudge),
            productions: self.at(Contract::Productions),
            canaries: self.at(Contract::Canaries),
        }
    }
}

impl Settings {
    /// All values, or none where a deployment keeps the usual ones.
    fn initial_values(&self) -> Vec<U256> {
        if self.values.is_empty() {
            return Vec::new();
        }
        let value =
            |value: &Value| self.values.get(value).copied().unwrap_or_else(|| value.usual());
        Value::ALL.iter().map(value).collect()
    }
}

impl Beneficiaries {
    /// One account for every part, to start from.
    pub fn all(account: Address) -> Self {
        Self {
            nodes: account,
            community: account,
            team: account,
            investors: account,
            airdrop: account,
            liquidity: account,
        }
    }

    /// In the order of the contract's parts.
    fn list(&self) -> [Address; 6] {
        [self.nodes, self.community, self.team, self.investors, self.airdrop, self.liquidity]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let admin = Address::repeat_byte(7);
        Settings {
            admin,
            delay: 60,
            treasury: admin,
            fee_recipient: admin,
            values: BTreeMap::new(),
            start: 1,
            beneficiaries: Beneficiaries::all(admin),
            seats: vec![FirstSeat {
                key: B256::repeat_byte(9),
                owner: admin,
                socket: "a:1".into(),
            }],
            disputes: DisputeTerms::default(),
            audits: AuditTerms::default(),
        }
    }

    #[test]
    fn equal_settings_give_equal_addresses_and_others_do_not() {
        let nothing = BTreeMap::new();
        let plan = Plan::new(&settings(), &nothing);
        let again = Plan::new(&settings(), &nothing);
        let other = Plan::new(&Settings { delay: 61, ..settings() }, &nothing);
        for contract in Contract::ALL {
            assert_eq!(plan.at(contract), again.at(contract));
            // Nothing of the settings reaches the code of these.
            let free = [
                Contract::Channels,
                Contract::Erc3009DepositCollector,
                Contract::PermitDepositCollector,
                Contract::ApprovalDepositCollector,
                Contract::Receipts,
                Contract::Models,
                Contract::Grants,
                Contract::Specs,
                Contract::VectorJudge,
                Contract::AttentionJudge,
                Contract::SamplingJudge,
            ];
            assert_eq!(
                plan.at(contract) == other.at(contract),
                free.contains(&contract),
                "{contract}"
            );
        }
    }

    #[test]
    fn what_stands_is_kept_and_newcomers_are_told_of_it() {
        let first = Plan::new(&settings(), &BTreeMap::new());
        let old = Deployed { address: Address::repeat_byte(1), code_hash: B256::ZERO };
        let standing = BTreeMap::from([(Contract::Channels, old)]);
        let plan = Plan::new(&settings(), &standing);
        assert_eq!(plan.at(Contract::Channels), old.address);
        assert_eq!(plan.steps().len(), first.steps().len() - 1);
        // The tills are made for the channels that stand, so they are others.
        assert_ne!(plan.at(Contract::Tills), first.at(Contract::Tills));
    }

    #[test]
    fn other_terms_of_disputes_move_the_arbiter_alone() {
        let plan = Plan::new(&settings(), &BTreeMap::new());
        let disputes = DisputeTerms { clock: 20, ..DisputeTerms::default() };
        let other = Plan::new(&Settings { disputes, ..settings() }, &BTreeMap::new());
        for contract in Contract::ALL {
            let same = plan.at(contract) == other.at(contract);
            assert_eq!(same, contract != Contract::Disputes, "{contract}");
        }
    }

    #[test]
    fn settings_of_a_release_without_disputes_are_read() {
        let mut text = serde_json::to_value(settings()).unwrap();
        for news in ["disputes", "audits"] {
            text.as_object_mut().unwrap().remove(news).unwrap();
        }
        assert_eq!(serde_json::from_value::<Settings>(text).unwrap(), settings());
    }

    #[test]
    fn settings_survive_json() {
        let settings = Settings { values: [(Value::Seats, U256::from(4))].into(), ..settings() };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert!(text.contains(r#""values":{"seats":"0x4"}"#), "{text}");
        assert!(serde_json::from_str::<Settings>(&text.replace("delay", "dealy")).is_err());
    }
}
