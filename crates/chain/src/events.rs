//! What happened on the chain, in our own words.

use alloy_primitives::{Address, B256, Bytes, TxHash, U256};
use alloy_provider::Provider as _;
use alloy_rpc_types_eth::{Filter, Log};
use alloy_sol_types::{SolEvent, SolEventInterface};
use assay_protocol::{Amount, ChannelId, Focus, ModelId, Phase};

use crate::bindings::{
    AssayToken, Channels, Disputes, Grants, Models, Parameters, Providers, Receipts, Specs, Tills,
};
use crate::chain::Chain;
use crate::disputes::phase;
use crate::error::ChainError;
use crate::moves::read_focus;
use crate::suite::{Contract, Value};
use crate::token::amount;

/// Blocks whose logs are asked for at once: what public nodes usually grant.
const BLOCKS_AT_ONCE: usize = 10_000;

/// Something that happened, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Height of its block.
    pub block: u64,
    /// The transaction that did it.
    pub transaction: TxHash,
    /// Its place among the block's events.
    pub index: u64,
    /// What it was.
    pub event: Event,
}

/// What can happen. Amounts are in base units of ASY or of a channel's token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are named as in the contracts' interfaces, which describe them"
)]
pub enum Event {
    /// ASY moved.
    Transferred { from: Address, to: Address, amount: Amount },
    /// A provider exists.
    Registered { owner: Address, operator: Address, endpoint: String },
    /// Another key signs for a provider.
    Rotated { owner: Address, operator: Address },
    /// Stake was added.
    Staked { owner: Address, amount: Amount, bonded: Amount },
    /// Stake is on its way out.
    Unbonded { owner: Address, amount: Amount, release: u64 },
    /// Stake was taken.
    Slashed { owner: Address, challenger: Address, amount: Amount, reward: Amount, reason: B256 },
    /// A provider may not serve.
    Jailed { owner: Address, until: u64 },
    /// A provider serves again.
    Unjailed { owner: Address },
    /// A model was published.
    Published { model: ModelId, owner: Address },
    /// A model's terms changed.
    Revised { model: ModelId, number: u64 },
    /// A channel received its first deposit.
    ChannelOpened { channel: ChannelId, payer: Address, receiver: Address, token: Address },
    /// Money arrived in a channel.
    Deposited { channel: ChannelId, amount: Amount, balance: Amount },
    /// Money of a channel became the receiver's.
    Claimed { channel: ChannelId, claimed: Amount },
    /// A payer wants its money back.
    WithdrawalStarted { channel: ChannelId, amount: Amount, finishes: u64 },
    /// A payer got it back.
    Withdrawn { channel: ChannelId, amount: Amount },
    /// A provider posted receipts.
    Posted { provider: Address, period: u64, root: B256, count: u64 },
    /// A provider's till was made.
    TillOpened { owner: Address, till: Address },
    /// An issuer took a grant back.
    GrantRevoked { issuer: Address, grant: B256 },
    /// Governance changed a value.
    ValueSet { value: Value, before: U256, present: U256 },
    /// Governance named who judges.
    ArbiterSet { present: Address },
    /// A model can be judged.
    SpecFiled { model: ModelId },
    /// A receipt is disputed.
    Disputed { dispute: u64, receipt: B256, owner: Address, challenger: Address, order: B256 },
    /// A provider committed to its trace.
    Committed { dispute: u64, trace: B256 },
    /// A challenger went down to a node.
    Picked { dispute: u64, depth: u8, path: u128, node: B256 },
    /// A provider's nodes below it.
    Revealed { dispute: u64, nodes: Vec<B256> },
    /// A challenger wants to see a leaf, and stays where it is.
    Asked { dispute: u64, depth: u8, path: u128 },
    /// A provider's leaf that was asked for.
    Shown { dispute: u64, leaf: Bytes },
    /// A dispute came down to one number.
    Named { dispute: u64, focus: Box<Focus> },
    /// A list that it follows from.
    Listed { dispute: u64, values: Bytes },
    /// The entry of it that a challenger doubts.
    Chosen { dispute: u64, entry: u32 },
    /// A dispute is over.
    Decided { dispute: u64, receipt: B256, phase: Phase },
    /// A receipt is false; the reward is the challenger's of this dispute.
    Convicted { dispute: u64, receipt: B256, owner: Address },
    /// A receipt is a canary; its prize is the challenger's of this dispute.
    Excused { dispute: u64, receipt: B256 },
    /// A bond was paid.
    Closed { dispute: u64, to: Address, bond: Amount },
}

impl Event {
    /// The dispute that it happened in.
    pub fn dispute(&self) -> Option<u64> {
        match self {
            Self::Disputed { dispute, .. }
            | Self::Committed { dispute, .. }
            | Self::Picked { dispute, .. }
            | Self::Revealed { dispute, .. }
            | Self::Asked { dispute, .. }
            | Self::Shown { dispute, .. }
            | Self::Named { dispute, .. }
            | Self::Listed { dispute, .. }
            | Self::Chosen { dispute, .. }
            | Self::Decided { dispute, .. }
            | Self::Convicted { dispute, .. }
            | Self::Excused { dispute, .. }
            | Self::Closed { dispute, .. } => Some(*dispute),
            _ => None,
        }
    }
}

impl Chain {
    /// What happened from block `from` to block `to`, both included, in order. A node may refuse too many
    /// blocks at once; ask for fewer then.
    pub async fn events(&self, from: u64, to: u64) -> Result<Vec<Happened>, ChainError> {
        let addresses: Vec<Address> =
            self.book().contracts.values().map(|deployed| deployed.address).collect();
        let filter = Filter::new().address(addresses).from_block(from).to_block(to);
        let logs = self.client().provider().get_logs(&filter).await;
        let logs = logs.map_err(|error| self.client().failed(error))?;
        Ok(logs.iter().flat_map(|log| self.read(log)).collect())
    }

    /// What happened in one dispute from block `from` on, in order: all that its sides have told each other.
    pub async fn events_of(&self, dispute: u64, from: u64) -> Result<Vec<Happened>, ChainError> {
        let (mut found, head) = (Vec::new(), self.height().await?);
        let about = B256::from(U256::from(dispute));
        for from in (from..=head).step_by(BLOCKS_AT_ONCE) {
            let to = head.min(from + BLOCKS_AT_ONCE as u64 - 1);
            let filter = Filter::new()
                .address(self.at(Contract::Disputes)?)
                .topic1(about)
                .from_block(from)
                .to_block(to);
            let logs = self.client().provider().get_logs(&filter).await;
            let logs = logs.map_err(|error| self.client().failed(error))?;
            found.extend(logs.iter().flat_map(|log| self.read(log)));
        }
        Ok(found)
    }

    /// All that the contract at `address` ever said of one kind, in order.
    pub(crate) async fn logs<E: SolEvent>(&self, address: Address) -> Result<Vec<E>, ChainError> {
        let (mut found, head) = (Vec::new(), self.height().await?);
        for from in (0..=head).step_by(BLOCKS_AT_ONCE) {
            let to = head.min(from + BLOCKS_AT_ONCE as u64 - 1);
            let filter = Filter::new()
                .address(address)
                .event_signature(E::SIGNATURE_HASH)
                .from_block(from)
                .to_block(to);
            let logs = self.client().provider().get_logs(&filter).await;
            let logs = logs.map_err(|error| self.client().failed(error))?;
            found.extend(logs.iter().filter_map(|log| Some(E::decode_log(&log.inner).ok()?.data)));
        }
        Ok(found)
    }

    /// One log in words; none for one that says nothing new, several for a packed claim.
    fn read(&self, log: &Log) -> Vec<Happened> {
        let events =
            self.contract_at(log.address()).map_or_else(Vec::new, |contract| words(contract, log));
        let place = |event| Happened {
            block: log.block_number.unwrap_or_default(),
            transaction: log.transaction_hash.unwrap_or_default(),
            index: log.log_index.unwrap_or_default(),
            event,
        };
        events.into_iter().map(place).collect()
    }

    fn contract_at(&self, address: Address) -> Option<Contract> {
        let mut contracts = self.book().contracts.iter();
        contracts.find(|(_, deployed)| deployed.address == address).map(|(contract, _)| *contract)
    }
}

/// What a contract said in `log`.
fn words(contract: Contract, log: &Log) -> Vec<Event> {
    match contract {
        Contract::AssayToken => one(log, token),
        Contract::Providers => one(log, providers),
        Contract::Models => one(log, models),
        Contract::Channels => channels(log),
        Contract::Receipts => one(log, receipts),
        Contract::Tills => one(log, tills),
        Contract::Grants => one(log, grants),
        Contract::Parameters => one(log, parameters),
        Contract::Specs => one(log, specs),
        Contract::Disputes => one(log, disputes),
        _ => Vec::new(),
    }
}

/// Reads a log of a contract; what its interface does not know, and what has no word, is left out.
fn one<E: SolEventInterface>(log: &Log, read: impl Fn(E) -> Option<Event>) -> Vec<Event> {
    let event = E::decode_log(&log.inner).ok();
    event.and_then(|event| read(event.data)).into_iter().collect()
}

fn token(event: AssayToken::AssayTokenEvents) -> Option<Event> {
    match event {
        AssayToken::AssayTokenEvents::Transfer(e) => {
            Some(Event::Transferred { from: e.from, to: e.to, amount: amount(e.value) })
        }
        _ => None,
    }
}

fn providers(event: Providers::ProvidersEvents) -> Option<Event> {
    use Providers::ProvidersEvents as E;
    Some(match event {
        E::Registered(e) => {
            Event::Registered { owner: e.owner, operator: e.operator, endpoint: e.endpoint }
        }
        E::OperatorSet(e) => Event::Rotated { owner: e.owner, operator: e.present },
        E::Staked(e) => {
            Event::Staked { owner: e.owner, amount: amount(e.amount), bonded: amount(e.bonded) }
        }
        E::Unbonded(e) => Event::Unbonded {
            owner: e.owner,
            amount: amount(e.amount),
            release: e.release.saturating_to(),
        },
        E::Slashed(e) => Event::Slashed {
            owner: e.owner,
            challenger: e.challenger,
            amount: amount(e.amount),
            reward: amount(e.reward),
            reason: e.reason,
        },
        E::Jailed(e) => Event::Jailed { owner: e.owner, until: e.until.saturating_to() },
        E::Unjailed(e) => Event::Unjailed { owner: e.owner },
        _ => return None,
    })
}

fn models(event: Models::ModelsEvents) -> Option<Event> {
    use Models::ModelsEvents as E;
    Some(match event {
        E::Published(e) => Event::Published { model: ModelId(e.id), owner: e.owner },
        E::Revised(e) => Event::Revised { model: ModelId(e.id), number: e.number.saturating_to() },
        _ => return None,
    })
}

fn channels(log: &Log) -> Vec<Event> {
    use Channels::ChannelsEvents as E;
    let Ok(event) = E::decode_log(&log.inner) else { return Vec::new() };
    vec![match event.data {
        E::ChannelCreated(e) => Event::ChannelOpened {
            channel: ChannelId(e.channelId),
            payer: e.config.payer,
            receiver: e.config.receiver,
            token: e.config.token,
        },
        E::Deposited(e) => Event::Deposited {
            channel: ChannelId(e.channelId),
            amount: Amount(e.amount),
            balance: Amount(e.newBalance),
        },
        E::Claimed(e) => {
            Event::Claimed { channel: ChannelId(e.channelId), claimed: Amount(e.newTotalClaimed) }
        }
        E::ClaimedPacked(e) => return packed(&e.claims),
        E::WithdrawInitiated(e) => Event::WithdrawalStarted {
            channel: ChannelId(e.channelId),
            amount: Amount(e.amount),
            finishes: e.finalizeAfter.to(),
        },
        E::WithdrawFinalized(e) => {
            Event::Withdrawn { channel: ChannelId(e.channelId), amount: Amount(e.amount) }
        }
        _ => return Vec::new(),
    }]
}

/// Rows of a packed claim: channel (32 bytes) and its claimed total (16 bytes, big-endian).
fn packed(rows: &[u8]) -> Vec<Event> {
    const CHANNEL: usize = 32;
    const ROW: usize = CHANNEL + 16;
    let rows = rows.chunks_exact(ROW).map(|row| {
        let (channel, total) = row.split_at(CHANNEL);
        let claimed = total.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        Event::Claimed { channel: ChannelId(B256::from_slice(channel)), claimed: Amount(claimed) }
    });
    rows.collect()
}

fn receipts(event: Receipts::ReceiptsEvents) -> Option<Event> {
    match event {
        Receipts::ReceiptsEvents::Posted(e) => Some(Event::Posted {
            provider: e.provider,
            period: e.period.saturating_to(),
            root: e.root,
            count: e.count,
        }),
        _ => None,
    }
}

fn tills(event: Tills::TillsEvents) -> Option<Event> {
    match event {
        Tills::TillsEvents::Opened(e) => Some(Event::TillOpened { owner: e.owner, till: e.till }),
    }
}

fn grants(event: Grants::GrantsEvents) -> Option<Event> {
    match event {
        Grants::GrantsEvents::Revoked(e) => {
            Some(Event::GrantRevoked { issuer: e.issuer, grant: e.grant })
        }
    }
}

fn parameters(event: Parameters::ParametersEvents) -> Option<Event> {
    use Parameters::ParametersEvents as E;
    Some(match event {
        E::ValueSet(e) => Event::ValueSet {
            value: *Value::ALL.get(usize::from(e.key))?,
            before: e.before,
            present: e.present,
        },
        E::ArbiterSet(e) => Event::ArbiterSet { present: e.present },
        _ => return None,
    })
}

fn specs(event: Specs::SpecsEvents) -> Option<Event> {
    match event {
        Specs::SpecsEvents::Filed(e) => Some(Event::SpecFiled { model: ModelId(e.model) }),
    }
}

fn disputes(event: Disputes::DisputesEvents) -> Option<Event> {
    use Disputes::DisputesEvents as E;
    let number = |id: U256| id.saturating_to();
    Some(match event {
        E::Opened(e) => Event::Disputed {
            dispute: number(e.id),
            receipt: e.receipt,
            owner: e.owner,
            challenger: e.challenger,
            order: e.order,
        },
        E::Committed(e) => Event::Committed { dispute: number(e.id), trace: e.trace },
        E::Picked(e) => Event::Picked {
            dispute: number(e.id),
            depth: e.depth.saturating_to(),
            path: e.path,
            node: e.node,
        },
        E::Revealed(e) => Event::Revealed { dispute: number(e.id), nodes: e.nodes },
        E::Asked(e) => {
            Event::Asked { dispute: number(e.id), depth: e.depth.saturating_to(), path: e.path }
        }
        E::Shown(e) => Event::Shown { dispute: number(e.id), leaf: e.leaf },
        E::Named(e) => {
            let focus = Box::new(read_focus(&e.focus)?);
            Event::Named { dispute: number(e.id), focus }
        }
        E::Listed(e) => Event::Listed { dispute: number(e.id), values: e.list },
        E::Chosen(e) => Event::Chosen { dispute: number(e.id), entry: e.entry },
        E::Decided(e) => {
            Event::Decided { dispute: number(e.id), receipt: e.receipt, phase: phase(e.phase)? }
        }
        E::Convicted(e) => {
            Event::Convicted { dispute: number(e.id), receipt: e.receipt, owner: e.owner }
        }
        E::Excused(e) => Event::Excused { dispute: number(e.id), receipt: e.receipt },
        E::Closed(e) => Event::Closed { dispute: number(e.id), to: e.to, bond: amount(e.amount) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_claim_is_one_event_a_row() {
        let mut rows = vec![1; 32];
        rows.extend(7u128.to_be_bytes());
        rows.extend([2; 32]);
        rows.extend(u128::MAX.to_be_bytes());
        let claimed = |byte, claimed| Event::Claimed {
            channel: ChannelId(B256::repeat_byte(byte)),
            claimed: Amount(claimed),
        };
        assert_eq!(packed(&rows), [claimed(1, 7), claimed(2, u128::MAX)]);
    }
}
