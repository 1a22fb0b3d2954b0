//! Auditors: the beacon by which posted receipts are drawn, and what the drawn ones say about them.
//!
//! Time is divided in epochs. What is posted in epoch n is drawn by beacon n: auditors commit to secrets in
//! epoch n and reveal them in n + 1. What was drawn is judged in n + 2, the verdicts are revealed in n + 3, and
//! paid from n + 4 on. The draw follows from beacon and roll alone ([`Draw::of`]), so nobody needs to ask the
//! contract about every receipt.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_provider::Provider as _;
use alloy_rpc_types_eth::Filter;
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use assay_protocol::Amount;
use serde::{Deserialize, Serialize};

use crate::audits::AuditTerms;
use crate::bindings::{Auditors, Productions, Receipts};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;
use crate::token::amount;

/// Where a posted receipt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostedAt {
    /// Owner of the provider that posted it.
    pub provider: Address,
    /// Which of its periods.
    pub period: u64,
    /// Which leaf of that.
    pub index: u64,
}

/// A posted receipt, shown to be at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// Where.
    pub place: PostedAt,
    /// Its digest.
    pub receipt: B256,
    /// Its siblings in the period's tree, from the leaf up.
    pub proof: Vec<B256>,
}

/// An auditor's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auditor {
    /// What it stands to lose, base units of ASY.
    pub stake: Amount,
    /// From when on it may take that out, unix seconds; none unless it is leaving.
    pub release: Option<u64>,
    /// The last epoch for whose beacon it committed; zero before the first.
    pub committed: u64,
}

/// Where an auditor's part in a beacon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VowState {
    /// It has to reveal.
    Committed,
    /// It did.
    Revealed,
    /// It did not, and has paid for that.
    Missed,
}

/// One auditor's part in one beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vow {
    /// See [`Duty::Commit`].
    pub commitment: B256,
    /// Whose.
    pub auditor: Address,
    /// How it stands.
    pub part: VowState,
}

/// What chance says about a posted receipt: who is to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// None if it is not to be checked.
    pub first: Option<Address>,
    /// None where the first is the only auditor.
    pub second: Option<Address>,
}

/// What an auditor says of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It follows from order, output and model.
    True = 1,
    /// It does not, or contradicts its order or itself.
    False,
    /// The provider gave nothing to check.
    Silent,
    /// The order lets no stranger check it, or nobody can recompute it.
    Unable,
}

/// A verdict about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// Where.
    pub place: PostedAt,
    /// What.
    pub verdict: Verdict,
}

/// What is kept of one auditor's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// None before it was revealed.
    pub verdict: Option<Verdict>,
    /// It was paid for.
    pub paid: bool,
    /// It cost a share of the bond.
    pub fined: bool,
}

/// What one auditor did about all that one epoch drew for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attendance {
    /// To its list; zero before.
    pub commitment: B256,
    /// The list was revealed.
    pub revealed: bool,
    /// It was fined for not revealing any.
    pub fined: bool,
    /// Verdicts that were paid.
    pub paid: u64,
}

/// What auditors do, as words that become calls. Several go in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Commits to a secret for the beacon of the present epoch.
    Commit {
        /// The present one.
        epoch: u64,
        /// 32 bytes of chance; only its hash is sent.
        secret: B256,
    },
    /// Reveals it, in the epoch after.
    Reveal {
        /// The one before.
        epoch: u64,
        /// The account's place in the roll.
        place: u64,
        /// What was committed to.
        secret: B256,
    },
    /// Commits to all verdicts on what the epoch drew, two epochs later.
    CommitVerdicts {
        /// Two before the present one.
        epoch: u64,
        /// Only its hash is sent.
        list: Vec<Said>,
        /// 32 bytes of chance, so that nobody can guess the list.
        salt: B256,
    },
    /// Reveals them, three epochs later.
    RevealVerdicts {
        /// Three before the present one.
        epoch: u64,
        /// As committed to.
        list: Vec<Said>,
        /// As committed to.
        salt: B256,
    },
    /// Has a verdict paid, from the fourth epoch after its draw on. Anyone may.
    Pay {
        /// Whose.
        auditor: Address,
        /// About what.
        about: Posted,
    },
    /// Burns a share of the bond of an auditor that did not reveal its secret. Anyone may.
    Miss {
        /// Two before the present one, or earlier.
        epoch: u64,
        /// In the roll.
        place: u64,
    },
    /// Fines an auditor that was drawn for something, and revealed nothing about anything. Anyone may.
    Absent {
        /// Whom.
        auditor: Address,
        /// What it was drawn for.
        place: PostedAt,
    },
    /// Fines an auditor that called a canary true. Anyone may.
    Careless {
        /// Whom.
        auditor: Address,
        /// The canary.
        about: Posted,
    },
    /// Fines an auditor that called true what the arbiter found false. Anyone may.
    Mistaken {
        /// Whom.
        auditor: Address,
        /// The receipt.
        about: Posted,
    },
}

impl Draw {
    /// Share of all, in basis points.
    const ALL: u16 = 10_000;
    /// Places that are tried by chance, as in the contract.
    const TRIES: u64 = 32;

    /// Whether a place is drawn, and for whom; what the contract says from the second epoch on.
    ///
    /// `rate`: basis points of posted receipts; `roll`: who committed, in order.
    pub fn of(beacon: B256, roll: &[Vow], rate: u16, place: &PostedAt) -> Self {
        let none = Self { first: None, second: None };
        let revealed = roll.iter().filter(|vow| vow.part == VowState::Revealed).count();
        let seed = Self::seed(beacon, place);
        let share = U256::from_be_bytes(seed.0) % U256::from(Self::ALL);
        if revealed == 0 || share >= U256::from(rate) {
            return none;
        }
        let first = choose(roll, seed, 0, None);
        let second = if revealed > 1 { choose(roll, seed, Self::TRIES, first) } else { None };
        Self { first, second }
    }

    /// What decides about a place; also an order that nobody who posts can choose.
    pub fn seed(beacon: B256, place: &PostedAt) -> B256 {
        let (period, index) = (U256::from(place.period), U256::from(place.index));
        keccak256((beacon, place.provider, period, index).abi_encode())
    }

    /// Whether `auditor` is to check it.
    pub fn names(&self, auditor: Address) -> bool {
        self.first == Some(auditor) || self.second == Some(auditor)
    }
}

/// One of those who revealed, but `other`.
fn choose(roll: &[Vow], seed: B256, from: u64, other: Option<Address>) -> Option<Address> {
    let fits = |vow: &Vow| vow.part == VowState::Revealed && Some(vow.auditor) != other;
    let mut at = 0;
    for number in from..from + Draw::TRIES {
        let hash = keccak256((seed, U256::from(number)).abi_encode());
        at = (U256::from_be_bytes(hash.0) % U256::from(roll.len())).to();
        if fits(&roll[at]) {
            return Some(roll[at].auditor);
        }
    }
    let behind = roll.iter().cycle().skip(at).take(roll.len());
    behind.copied().find(|vow| fits(vow)).map(|vow| vow.auditor)
}

impl Verdict {
    fn read(code: u8) -> Option<Self> {
        [Self::True, Self::False, Self::Silent, Self::Unable]
            .into_iter()
            .find(|verdict| *verdict as u8 == code)
    }
}

impl Duty {
    /// The call, ABI-encoded; `auditor` is who sends it.
    fn encode(&self, auditor: Address) -> Bytes {
        let number = U256::from::<u64>;
        let data = match self {
            Self::Commit { epoch, secret } => {
                let commitment = secret_hash(*secret, auditor, *epoch);
                Auditors::commitCall { epoch: number(*epoch), commitment }.abi_encode()
            }
            Self::Reveal { epoch, place, secret } => {
                let (epoch, place) = (number(*epoch), number(*place));
                Auditors::revealCall { epoch, place, secret: *secret }.abi_encode()
            }
            Self::CommitVerdicts { epoch, list, salt } => {
                let commitment = list_hash(list, *salt, auditor, *epoch);
                Auditors::commitVerdictsCall { epoch: number(*epoch), commitment }.abi_encode()
            }
            Self::RevealVerdicts { epoch, list, salt } => {
                let (epoch, list) = (number(*epoch), said(list));
                Auditors::revealVerdictsCall { epoch, list, salt: *salt }.abi_encode()
            }
            Self::Pay { auditor, about } => {
                Auditors::payCall { auditor: *auditor, place: about.encoded() }.abi_encode()
            }
            Self::Miss { epoch, place } => {
                Auditors::missCall { epoch: number(*epoch), place: number(*place) }.abi_encode()
            }
            Self::Absent { auditor, place: PostedAt { provider, period, index } } => {
                let (period, index) = (number(*period), number(*index));
                Auditors::absentCall { auditor: *auditor, provider: *provider, period, index }
                    .abi_encode()
            }
            Self::Careless { auditor, about } => {
                Auditors::carelessCall { auditor: *auditor, place: about.encoded() }.abi_encode()
            }
            Self::Mistaken { auditor, about } => {
                Auditors::mistakenCall { auditor: *auditor, place: about.encoded() }.abi_encode()
            }
        };
        data.into()
    }
}

impl Posted {
    fn encoded(&self) -> Auditors::Place {
        Auditors::Place {
            provider: self.place.provider,
            period: U256::from(self.place.period),
            index: U256::from(self.place.index),
            receipt: self.receipt,
            proof: self.proof.clone(),
        }
    }
}

/// What [`Duty::Commit`] sends.
pub fn secret_hash(secret: B256, auditor: Address, epoch: u64) -> B256 {
    keccak256((secret, auditor, U256::from(epoch)).abi_encode())
}

/// What [`Duty::CommitVerdicts`] sends.
pub fn list_hash(list: &[Said], salt: B256, auditor: Address, epoch: u64) -> B256 {
    keccak256((said(list), salt, auditor, U256::from(epoch)).abi_encode_params())
}

fn said(list: &[Said]) -> Vec<Auditors::Said> {
    let one = |said: &Said| Auditors::Said {
        provider: said.place.provider,
        period: U256::from(said.place.period),
        index: U256::from(said.place.index),
        verdict: said.verdict as u8,
    };
    list.iter().map(one).collect()
}

impl Chain {
    /// What audits take here.
    pub async fn audit_terms(&self) -> Result<AuditTerms, ChainError> {
        let (at, client) = (self.at(Contract::Auditors)?, self.client());
        let productions = self.at(Contract::Productions)?;
        let bond = client.view(productions, &Productions::bondCall {}).await?;
        let clock = client.view(productions, &Productions::clockCall {}).await?;
        Ok(AuditTerms {
            bond: amount(client.view(at, &Auditors::bondCall {}).await?),
            epoch: client.view(at, &Auditors::epochLengthCall {}).await?.saturating_to(),
            rate: client.view(at, &Auditors::rateCall {}).await?.saturating_to(),
            fee: amount(client.view(at, &Auditors::feeCall {}).await?),
            fees_most: client.view(at, &Auditors::feesMostCall {}).await?.saturating_to(),
            production_bond: amount(bond),
            production_clock: clock.saturating_to(),
        })
    }

    /// Adds to the bond of the connection's account, allowing it first where needed.
    pub async fn join_auditors(&self, value: Amount) -> Result<Mined, ChainError> {
        let at = self.at(Contract::Auditors)?;
        self.allow(self.at(Contract::AssayToken)?, at, value).await?;
        self.client().send(at, &Auditors::joinCall { amount: value.0 }).await
    }

    /// Ends the account's part: it commits no more, and may take its bond out later.
    pub async fn leave_auditors(&self) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Auditors)?, &Auditors::leaveCall {}).await
    }

    /// Takes out the bond of an account that has left.
    pub async fn withdraw_auditor(&self) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Auditors)?, &Auditors::withdrawCall {}).await
    }

    /// An auditor; nothing is at stake of one that never was one.
    pub async fn auditor(&self, auditor: Address) -> Result<Auditor, ChainError> {
        let call = Auditors::auditorOfCall { auditor };
        let found = self.client().view(self.at(Contract::Auditors)?, &call).await?;
        let release: u64 = found.release.to();
        Ok(Auditor {
            stake: Amount(found.stake),
            release: (release != 0).then_some(release),
            committed: found.committed.to(),
        })
    }

    /// Who committed for an epoch's beacon, in order.
    pub async fn roll(&self, epoch: u64) -> Result<Vec<Vow>, ChainError> {
        let at = self.at(Contract::Auditors)?;
        let call = Auditors::rollOfCall { epoch: U256::from(epoch) };
        let read = |vow: &Auditors::Vow| {
            let part = match vow.part {
                0 => VowState::Committed,
                1 => VowState::Revealed,
                _ => VowState::Missed,
            };
            Vow { commitment: vow.commitment, auditor: vow.auditor, part }
        };
        Ok(self.client().view(at, &call).await?.iter().map(read).collect())
    }

    /// The beacon of an epoch; final from the second epoch after it on.
    pub async fn beacon(&self, epoch: u64) -> Result<B256, ChainError> {
        let call = Auditors::beaconOfCall { epoch: U256::from(epoch) };
        self.client().view(self.at(Contract::Auditors)?, &call).await
    }

    /// How many revealed for an epoch's beacon. With less than two it was one party's choice.
    pub async fn revealed(&self, epoch: u64) -> Result<u64, ChainError> {
        let call = Auditors::revealedOfCall { epoch: U256::from(epoch) };
        let found = self.client().view(self.at(Contract::Auditors)?, &call).await?;
        Ok(found.count.saturating_to())
    }

    /// What the contract says about a place. Refused before that can be known.
    pub async fn draw(&self, place: &PostedAt) -> Result<Draw, ChainError> {
        let call = Auditors::drawOfCall {
            provider: place.provider,
            period: U256::from(place.period),
            index: U256::from(place.index),
        };
        let found = self.client().view(self.at(Contract::Auditors)?, &call).await?;
        let named = |address: Address| (!address.is_zero()).then_some(address);
        Ok(Draw { first: named(found.first), second: named(found.second) })
    }

    /// Does duties in one transaction: all of them, or none.
    pub async fn attend(&self, duties: &[Duty]) -> Result<Mined, ChainError> {
        let account = self.account()?;
        let data = match duties {
            [only] => only.encode(account),
            many => {
                let data = many.iter().map(|duty| duty.encode(account)).collect();
                Auditors::multicallCall { data }.abi_encode().into()
            }
        };
        self.client().transact(self.at(Contract::Auditors)?, data, U256::ZERO).await
    }

    /// Whether the contract would let a duty pass now. Nothing is sent.
    pub async fn may_attend(&self, duty: &Duty) -> Result<bool, ChainError> {
        let data = duty.encode(self.account()?);
        match self.client().rehearse(self.at(Contract::Auditors)?, data).await {
            Ok(()) => Ok(true),
            Err(ChainError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What an auditor did about what an epoch drew for it.
    pub async fn attendance(&self, auditor: Address, epoch: u64) -> Result<Attendance, ChainError> {
        let call = Auditors::attendanceOfCall { auditor, epoch: U256::from(epoch) };
        let found = self.client().view(self.at(Contract::Auditors)?, &call).await?;
        Ok(Attendance {
            commitment: found.commitment,
            revealed: found.revealed,
            fined: found.fined,
            paid: found.paid.into(),
        })
    }

    /// An auditor's verdict about a place.
    pub async fn opinion(&self, auditor: Address, place: &PostedAt) -> Result<Opinion, ChainError> {
        let call = Auditors::opinionOfCall {
            auditor,
            provider: place.provider,
            period: U256::from(place.period),
            index: U256::from(place.index),
        };
        let found = self.client().view(self.at(Contract::Auditors)?, &call).await?;
        let verdict = Verdict::read(found.verdict);
        Ok(Opinion { verdict, paid: found.paid, fined: found.fined })
    }

    /// What verdicts can be paid from, base units of ASY.
    pub async fn audit_pool(&self) -> Result<Amount, ChainError> {
        Ok(amount(self.client().view(self.at(Contract::Auditors)?, &Auditors::poolCall {}).await?))
    }

    /// Adds to it from the connection's account, allowing it first where needed.
    pub async fn fund_audits(&self, value: Amount) -> Result<Mined, ChainError> {
        let at = self.at(Contract::Auditors)?;
        self.allow(self.at(Contract::AssayToken)?, at, value).await?;
        self.client().send(at, &Auditors::fundCall { amount: U256::from(value.0) }).await
    }

    /// Periods that were posted in blocks `from` to `to`, both included: by whom, which, and how many
    /// receipts they have. A node may refuse too many blocks at once.
    pub async fn posted(&self, from: u64, to: u64) -> Result<Vec<(Address, u64, u64)>, ChainError> {
        let filter = Filter::new()
            .address(self.at(Contract::Receipts)?)
            .event_signature(Receipts::Posted::SIGNATURE_HASH)
            .from_block(from)
            .to_block(to);
        let logs = self.client().provider().get_logs(&filter).await;
        let logs = logs.map_err(|error| self.client().failed(error))?;
        let read =
            |event: Receipts::Posted| (event.provider, event.period.saturating_to(), event.count);
        let events = logs.iter().filter_map(|log| Receipts::Posted::decode_log(&log.inner).ok());
        Ok(events.map(|event| read(event.data)).collect())
    }

    /// The first block at or behind a time, unix seconds; one behind the latest if there is none.
    pub async fn block_since(&self, time: u64) -> Result<u64, ChainError> {
        let (mut low, mut high) = (0, self.height().await? + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.client().provider().get_block_by_number(middle.into()).await;
            let found = found.map_err(|error| self.client().failed(error))?;
            // A block that vanished in a reorganisation is behind any time.
            if found.is_some_and(|block| block.header.timestamp < time) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vow(byte: u8, part: VowState) -> Vow {
        Vow { commitment: B256::ZERO, auditor: Address::repeat_byte(byte), part }
    }

    fn place(index: u64) -> PostedAt {
        PostedAt { provider: Address::repeat_byte(9), period: 3, index }
    }

    #[test]
    fn both_who_are_drawn_revealed_and_differ() {
        let roll = [
            vow(1, VowState::Committed),
            vow(2, VowState::Revealed),
            vow(3, VowState::Missed),
            vow(4, VowState::Revealed),
            vow(5, VowState::Revealed),
        ];
        let mut times = [0; 6];
        for index in 0..300 {
            let draw = Draw::of(B256::repeat_byte(7), &roll, 10_000, &place(index));
            let (first, second) = (draw.first.unwrap(), draw.second.unwrap());
            assert_ne!(first, second);
            assert!(draw.names(first) && draw.names(second));
            times[usize::from(first[0])] += 1;
        }
        assert_eq!((times[1], times[3]), (0, 0));
        assert!(times[2] > 50 && times[4] > 50 && times[5] > 50, "{times:?}");
    }

    #[test]
    fn one_auditor_is_drawn_alone_and_none_draws_nothing() {
        let alone = [vow(1, VowState::Missed), vow(2, VowState::Revealed)];
        let draw = Draw::of(B256::ZERO, &alone, 10_000, &place(0));
        assert_eq!((draw.first, draw.second), (Some(Address::repeat_byte(2)), None));
        let nobody = Draw::of(B256::ZERO, &[vow(1, VowState::Committed)], 10_000, &place(0));
        assert_eq!((nobody.first, nobody.second), (None, None));
    }

    #[test]
    fn a_share_of_all_is_drawn() {
        let roll = [vow(2, VowState::Revealed)];
        let drawn = (0..2_000)
            .filter(|&index| Draw::of(B256::ZERO, &roll, 1_000, &place(index)).first.is_some());
        let drawn = drawn.count();
        assert!((130..270).contains(&drawn), "{drawn} of 2000");
    }
}
