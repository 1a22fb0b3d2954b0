//! What follows from a conviction: the slash, the bond, the refund, and what each of them moved.

use assay_chain::{Chain, ChainError, Event as OnChain, Happened, Mined, Move};
use assay_protocol::{Address, Amount, Answer, B256};

/// Blocks asked about at once.
const BLOCKS_MAX: u64 = 1_000;

/// What a conviction moved. Amounts are base units of ASY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoils {
    /// The dispute that was played; none for a conviction by signed words alone, or by others.
    pub dispute: Option<u64>,
    /// Whose stake answered.
    pub owner: Address,
    /// Taken from that stake.
    pub slashed: Amount,
    /// Of it, paid to who found the receipt false first.
    pub reward: Amount,
    /// Who that is.
    pub rewarded: Address,
    /// When the provider may leave jail, unix seconds.
    pub jailed_until: Option<u64>,
    /// Given back to the payer, at once as far as the provider had claimed it; zero where nothing was paid
    /// through a till, or the provider had been paid out before.
    pub refund: Amount,
    /// Who gets it; none if the receipt names no channel of this chain.
    pub payer: Option<Address>,
    /// The bond that came back to this account.
    pub bond: Amount,
    /// Transactions that this account sent, and the gas they took together.
    pub transactions: u32,
    /// Of all of them.
    pub gas: u64,
}

impl Spoils {
    /// What of the stake is nobody's any more.
    pub fn burned(&self) -> Amount {
        Amount(self.slashed.0.saturating_sub(self.reward.0))
    }
}

/// Transactions that were sent, and their gas.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) transactions: u32,
    pub(crate) gas: u64,
}

impl Spent {
    /// Adds one.
    pub(crate) fn add(&mut self, mined: Mined) {
        self.transactions += 1;
        self.gas = self.gas.saturating_add(mined.gas);
    }
}

/// Has everything done that follows from a conviction and was not done yet, then reads what was moved
/// since block `from`.
pub(crate) async fn collect(
    chain: &Chain,
    answer: &Answer,
    (receipt, dispute): (B256, Option<u64>),
    (from, mut spent): (u64, Spent),
) -> Result<Spoils, ChainError> {
    let Some(case) = chain.case(receipt).await? else { return Ok(Spoils::default()) };
    if !case.punished {
        attempt(chain, &mut spent, Move::Punish { receipt }).await?;
    }
    if let Some(dispute) = dispute
        && is_unpaid(chain, dispute).await?
    {
        attempt(chain, &mut spent, Move::Close { dispute }).await?;
    }
    let channel = chain.channel_terms(answer.receipt.channel).await?;
    let payer = channel.as_ref().map(|channel| channel.payer);
    let mut refund = Amount(0);
    if let Some(channel) = channel {
        let till = chain.till_of(case.owner).await?;
        // A till stands once somebody needs it.
        if channel.receiver == till && chain.client().code(till).await?.is_empty() {
            spent.add(chain.open_till(case.owner).await?);
        }
        let receipt = Box::new(answer.receipt.clone());
        let refunds = Move::Refund { receipt, channel: Box::new(channel) };
        if let Some(mined) = attempt(chain, &mut spent, refunds).await? {
            let given = chain.verdicts_in(mined.hash).await?;
            refund = Amount(given.iter().map(|(_, amount)| amount.0).sum());
        }
    }
    let (transactions, gas) = (spent.transactions, spent.gas);
    let owner = case.owner;
    let mut spoils =
        Spoils { dispute, owner, refund, payer, transactions, gas, ..Spoils::default() };
    for happened in events(chain, from).await? {
        read(&mut spoils, &happened, receipt);
    }
    Ok(spoils)
}

/// Makes a move that somebody else may make first, or that there may be nothing to make for.
async fn attempt(
    chain: &Chain,
    spent: &mut Spent,
    play: Move,
) -> Result<Option<Mined>, ChainError> {
    /// Refusals that say so: of `punish`, of `close`, of a channel that pays no till of the provider's, and
    /// of a receipt that moved nothing.
    const NOTHING: [&str; 4] = ["AlreadyPunished", "NothingDue", "WrongSigner", "EmptySpan"];
    match chain.play(&[play]).await {
        Ok(mined) => {
            spent.add(mined);
            Ok(Some(mined))
        }
        Err(ChainError::Refused(refusal))
            if NOTHING.iter().any(|name| refusal.reason.starts_with(name)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn is_unpaid(chain: &Chain, dispute: u64) -> Result<bool, ChainError> {
    use assay_protocol::Phase::{Forfeited, Returned};
    let found = chain.dispute(dispute).await?;
    Ok(found.is_some_and(|dispute| !matches!(dispute.phase, Forfeited | Returned)))
}

/// Everything since a block.
async fn events(chain: &Chain, from: u64) -> Result<Vec<Happened>, ChainError> {
    let (height, mut next, mut found) = (chain.height().await?, from, Vec::new());
    while next <= height {
        let to = height.min(next + BLOCKS_MAX - 1);
        found.extend(chain.events(next, to).await?);
        next = to + 1;
    }
    Ok(found)
}

/// Adds what one event moved.
fn read(spoils: &mut Spoils, happened: &Happened, receipt: B256) {
    match happened.event {
        OnChain::Slashed { challenger, amount, reward, reason, .. } if reason == receipt => {
            (spoils.slashed, spoils.reward, spoils.rewarded) = (amount, reward, challenger);
        }
        OnChain::Jailed { owner, until } if owner == spoils.owner => {
            spoils.jailed_until = Some(until);
        }
        OnChain::Closed { dispute, bond, .. } if Some(dispute) == spoils.dispute => {
            spoils.bond = bond;
        }
        _ => {}
    }
}
