//! Disputes about receipts: what one takes, how it stands, and making its moves.

use alloy_primitives::{Address, B256, Bytes, TxHash, U256};
use alloy_provider::Provider as _;
use alloy_rpc_types_eth::TransactionTrait as _;
use alloy_sol_types::{Eip712Domain, SolCall, SolEvent, SolStruct, SolValue, eip712_domain, sol};
use assay_protocol::{Amount, Key, Phase};
use serde::{Deserialize, Serialize};

use crate::bindings::{Clerk, Disputes, word};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::moves::{Filing, Move, Proof};
use crate::suite::Contract;
use crate::token::amount;

/// What a dispute takes, decided once by a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisputeTerms {
    /// What a challenger puts in, and loses to an honest provider; base units of ASY, 1 … 100,000 ASY.
    /// At least what the longest game costs a defender: 1.1 M gas at the dearest that is expected.
    pub bond: Amount,
    /// What each side has for all its moves, seconds, 10 … 604,800. Longer than anyone can afford to keep a
    /// move off the chain, and than a provider takes to compute its trace again.
    pub clock: u64,
}

impl Default for DisputeTerms {
    /// For a public chain: 100 ASY, and four hours for each side, so that a whole game is far shorter than
    /// the time that stake takes to leave.
    fn default() -> Self {
        Self { bond: Amount(100_000_000_000_000_000_000), clock: 4 * 3_600 }
    }
}

/// Who owes a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The provider.
    Defender,
    /// Who opened the dispute.
    Challenger,
}

/// How a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// Whose turn it is, or how it ended.
    pub phase: Phase,
    /// Levels that were descended.
    pub depth: u8,
    /// The turns taken, the lowest bit the last one; 1 is right.
    pub path: u128,
    /// Levels of the tree of the op's leaves, once a step was opened.
    pub leaf_depth: Option<u8>,
    /// The least depth that the next pick has to reach.
    pub reach: u8,
    /// Lists revealed so far.
    pub rounds: u8,
    /// When the clock of the side that has to move was started, unix seconds.
    pub moved_at: u64,
    /// Seconds that the defender had left then.
    pub defender_left: u64,
    /// Seconds that the challenger had left then.
    pub challenger_left: u64,
    /// Who opened it.
    pub challenger: Address,
    /// Positions of the trace.
    pub positions: u32,
    /// Steps of the model's program.
    pub steps: u32,
    /// When it was opened, unix seconds.
    pub opened: u64,
    /// Digest of the receipt.
    pub receipt: B256,
    /// The committed root; zero before.
    pub trace: B256,
    /// The node that was picked; once a number is named, the hash of focus and rounds.
    pub point: B256,
    /// The root of the position that the descent is in; zero before.
    pub here: B256,
    /// Whether a leaf is to be shown.
    pub asked: bool,
    /// Leaves asked for so far.
    pub asks: u8,
}

impl Dispute {
    /// Who owes a move; none once it is decided.
    pub fn turn(&self) -> Option<Side> {
        match self.phase {
            Phase::Commit | Phase::Reveal | Phase::Prove => Some(Side::Defender),
            Phase::Pick | Phase::Choose => Some(Side::Challenger),
            _ => None,
        }
    }

    /// The last second, unix time, in which the side that owes a move can make it.
    pub fn last_second(&self) -> Option<u64> {
        let left = match self.turn()? {
            Side::Defender => self.defender_left,
            Side::Challenger => self.challenger_left,
        };
        Some(self.moved_at.saturating_add(left))
    }
}

/// What is known of a disputed receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Whose stake answers for it.
    pub owner: Address,
    /// It was found false.
    pub guilty: bool,
    /// The stake was slashed for it.
    pub punished: bool,
    /// It was false on purpose, which its provider showed: nobody is slashed, and all bonds go back.
    pub canary: bool,
    /// The dispute whose challenger has the reward, if it is found false.
    pub first: u64,
    /// Hash of what order, receipt and model say; zero for one that was convicted without a game.
    pub facts: B256,
}

/// What a defender signs, under its name in the contract.
mod signed {
    super::sol! {
        struct Move {
            address arbiter;
            uint256 dispute;
            bytes32 point;
            bytes32 content;
        }
    }
}

impl Chain {
    /// What a dispute takes here.
    pub async fn dispute_terms(&self) -> Result<DisputeTerms, ChainError> {
        let disputes = self.at(Contract::Disputes)?;
        let bond = self.client().view(disputes, &Disputes::bondCall {}).await?;
        let clock = self.client().view(disputes, &Disputes::clockCall {}).await?;
        Ok(DisputeTerms { bond: amount(bond), clock: clock.saturating_to() })
    }

    /// How many disputes there were; the first is number 1.
    pub async fn disputes(&self) -> Result<u64, ChainError> {
        let count = self.client().view(self.at(Contract::Disputes)?, &Disputes::countCall {});
        Ok(count.await?.saturating_to())
    }

    /// How a dispute stands; none if there is no such one.
    pub async fn dispute(&self, id: u64) -> Result<Option<Dispute>, ChainError> {
        let at = self.at(Contract::Disputes)?;
        let call = Disputes::disputeOfCall { id: U256::from(id) };
        let found = self.client().view(at, &call).await?;
        let phase = phase(found.phase)
            .ok_or_else(|| ChainError::Answer { to: at, answer: found.abi_encode().into() })?;
        Ok((phase != Phase::None).then(|| dispute(&found, phase)))
    }

    /// What is known of a receipt, by its digest; none if it was never disputed.
    pub async fn case(&self, receipt: B256) -> Result<Option<Case>, ChainError> {
        let call = Disputes::caseOfCall { receipt };
        let found = self.client().view(self.at(Contract::Disputes)?, &call).await?;
        Ok((!found.owner.is_zero()).then_some(Case {
            owner: found.owner,
            guilty: found.guilty,
            punished: found.punished,
            canary: found.canary,
            first: found.first,
            facts: found.facts,
        }))
    }

    /// Numbers of the disputes about receipts of `owner`, decided ones included, oldest first.
    pub async fn disputes_about(&self, owner: Address) -> Result<Vec<u64>, ChainError> {
        let opened = self.logs::<Disputes::Opened>(self.at(Contract::Disputes)?).await?;
        let about = opened.into_iter().filter(|event| event.owner == owner);
        Ok(about.map(|event| event.id.saturating_to()).collect())
    }

    /// ABI encoding of what order, sampler, receipt and model say, which movers bring along. Refused if the
    /// answer cannot be judged.
    pub async fn facts_of(&self, filing: &Filing) -> Result<Vec<u8>, ChainError> {
        let call = Clerk::factsOfCall { filing: word(&filing.encoded().abi_encode()) };
        Ok(self.client().view(self.at(Contract::Clerk)?, &call).await?.abi_encode())
    }

    /// Disputes a receipt with the connection's account's bond, allowing it first where needed; returns the
    /// dispute's number.
    pub async fn open_dispute(&self, filing: &Filing) -> Result<(u64, Mined), ChainError> {
        let disputes = self.at(Contract::Disputes)?;
        let bond = self.dispute_terms().await?.bond;
        self.allow(self.at(Contract::AssayToken)?, disputes, bond).await?;
        let mined = self.play(&[Move::Open(Box::new(filing.clone()))]).await?;
        Ok((self.opened_in(mined.hash).await?, mined))
    }

    /// The number of the dispute that a transaction opened; the last one's, if there are several.
    pub async fn opened_in(&self, transaction: TxHash) -> Result<u64, ChainError> {
        let disputes = self.at(Contract::Disputes)?;
        let found = self.client().provider().get_transaction_receipt(transaction).await;
        let found = found.map_err(|error| self.client().failed(error))?;
        let logs = found.iter().flat_map(|receipt| receipt.inner.logs());
        let mut opened = logs
            .filter(|log| log.address() == disputes)
            .filter_map(|log| Disputes::Opened::decode_log(&log.inner).ok());
        let last = opened.next_back();
        last.map(|event| event.id.saturating_to())
            .ok_or(ChainError::Answer { to: disputes, answer: Bytes::new() })
    }

    /// Makes moves in one transaction: all of them, or none.
    pub async fn play(&self, moves: &[Move]) -> Result<Mined, ChainError> {
        let data = match moves {
            [only] => only.encode(),
            many => {
                let data = many.iter().map(Move::encode).collect();
                Disputes::multicallCall { data }.abi_encode().into()
            }
        };
        let mined = self.client().transact(self.at(Contract::Disputes)?, data, U256::ZERO).await;
        mined.map_err(|error| match error {
            ChainError::Refused(refusal) => refusal.of_disputes().into(),
            other => other,
        })
    }

    /// A move that binds the provider, signed by `key`, its owner's or operator's, so that anyone can send it.
    /// It holds for where the dispute stands now. Other moves stay as they are.
    pub async fn signed(&self, play: Move, key: &Key) -> Result<Move, ChainError> {
        let (Some(dispute), Some(content)) = (play.dispute(), play.content()) else {
            return Ok(play);
        };
        let given = Some(key.sign(self.move_digest(dispute, content).await?));
        Ok(match play {
            Move::Commit { dispute, trace, .. } => {
                Move::Commit { dispute, trace, signature: given }
            }
            Move::List { dispute, values, .. } => Move::List { dispute, values, signature: given },
            other => other,
        })
    }

    /// What a defender signs for [`Move::content`] where a dispute stands now. Computed here, so that no
    /// server has anything else signed.
    pub async fn move_digest(&self, dispute: u64, content: B256) -> Result<B256, ChainError> {
        let arbiter = self.at(Contract::Disputes)?;
        let call = Disputes::disputeOfCall { id: U256::from(dispute) };
        let point = self.client().view(arbiter, &call).await?.point;
        let word = signed::Move { arbiter, dispute: U256::from(dispute), point, content };
        let domain: Eip712Domain =
            eip712_domain! { name: "Assay", version: "1", chain_id: self.book().chain_id, };
        Ok(word.eip712_signing_hash(&domain))
    }

    /// The proofs that a transaction sent to the disputes brought, so that a reader sees what was judged.
    pub async fn proofs_in(&self, transaction: TxHash) -> Result<Vec<Proof>, ChainError> {
        let found = self.client().provider().get_transaction_by_hash(transaction).await;
        let found = found.map_err(|error| self.client().failed(error))?;
        let input = found.map(|transaction| transaction.input().clone()).unwrap_or_default();
        let calls = match Disputes::multicallCall::abi_decode(&input) {
            Ok(many) => many.data,
            Err(_) => vec![input],
        };
        let proofs = calls
            .iter()
            .filter_map(|call| Proof::read(Disputes::proveCall::abi_decode(call).ok()?));
        Ok(proofs.collect())
    }
}

/// The contract's phase of a code.
pub(crate) fn phase(code: u8) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| *phase as u8 == code)
}

fn dispute(found: &Disputes::Dispute, phase: Phase) -> Dispute {
    /// What the contract has before a step was opened.
    const UNKNOWN: u8 = u8::MAX;
    Dispute {
        phase,
        depth: found.depth,
        path: found.path,
        leaf_depth: (found.leafDepth != UNKNOWN).then_some(found.leafDepth),
        reach: found.reach,
        rounds: found.rounds,
        moved_at: found.movedAt.to(),
        defender_left: found.defenderLeft.to(),
        challenger_left: found.challengerLeft.to(),
        challenger: found.challenger,
        positions: found.positions,
        steps: found.steps,
        opened: found.opened.into(),
        receipt: found.receipt,
        trace: found.trace,
        point: found.point,
        here: found.here,
        asked: found.askedLevels != 0,
        asks: found.asks,
    }
}
