//! `assay channel`: the prepaid channels of an account.
//!
//! A gateway opens and fills its channels by itself; these commands look at them, add to them, and get
//! money out.

use assay_chain::{Chain, ChannelState, Mined};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{LedgerArgument, failed, parse_units, units};
use crate::terminal::{note, say, say_json};

/// Shortest delay of a withdrawal that the contract takes, in seconds.
const DELAY: u64 = 900;

/// Look at prepaid channels, fill them, and get money out
#[derive(Args, Debug)]
pub(crate) struct Channels {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Ls(Ls),
    Open(Open),
    TopUp(TopUp),
    Close(Close),
}

/// List the account's channels
#[derive(Args, Debug)]
struct Ls {
    #[command(flatten)]
    on: On,
}

/// Open a channel to a provider's till
#[derive(Args, Debug)]
struct Open {
    /// The provider: its owner's address
    provider: Address,
    /// ASY to put in, such as 2.5
    #[arg(value_parser = parse_units)]
    amount: Amount,
    /// Who may claim beside the till [default: the provider]
    #[arg(long, value_name = "ADDRESS")]
    claimer: Option<Address>,
    /// Seconds from wanting money back to having it
    #[arg(long, value_name = "S", default_value_t = DELAY)]
    delay: u64,
    #[command(flatten)]
    on: On,
}

/// Put more into a channel
#[derive(Args, Debug)]
struct TopUp {
    /// The channel
    channel: B256,
    /// ASY to add, such as 2.5
    #[arg(value_parser = parse_units)]
    amount: Amount,
    #[command(flatten)]
    on: On,
}

/// Get a channel's unspent money back
///
/// The first call starts the withdrawal. Once the channel's delay is over, the same command ends it
/// and pays out what was not claimed meanwhile.
#[derive(Args, Debug)]
struct Close {
    /// The channel
    channel: B256,
    #[command(flatten)]
    on: On,
}

#[derive(Args, Debug)]
struct On {
    #[command(flatten)]
    ledger: LedgerArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Channels {
    pub(crate) async fn run(self) -> Outcome {
        match self.what {
            What::Ls(ls) => ls.run().await,
            What::Open(open) => open.run().await,
            What::TopUp(top_up) => top_up.run().await,
            What::Close(close) => close.run().await,
        }
    }
}

impl Ls {
    async fn run(self) -> Outcome {
        let account = self.on.ledger.key()?.address();
        let chain = self.on.ledger.open(None).await?;
        let channels = chain.channels().map_err(failed)?;
        let mut rows = Vec::new();
        for channel in chain.channels_of(account).await.map_err(failed)? {
            let id = channel.id(&channels);
            rows.push((id, channel, chain.channel(id).await.map_err(failed)?));
        }
        if self.on.json {
            let rows = rows.iter().map(|(id, terms, state)| {
                json!({
                    "channel": id,
                    "terms": terms,
                    "balance": state.balance,
                    "claimed": state.claimed,
                    "withdrawal": state.withdrawal.map(|way| json!({
                        "amount": way.amount,
                        "ends": way.since + terms.withdraw_delay,
                    })),
                })
            });
            let rows: Vec<_> = rows.collect();
            say_json(&json!({ "schema": "assay.channels/1", "payer": account, "channels": rows }));
            return Ok(());
        }
        if rows.is_empty() {
            note(format_args!("{account} has no channel yet; a gateway opens them as it buys"));
        }
        for (id, terms, state) in rows {
            say(format_args!("{id}  to {}", terms.receiver));
            let (held, claimed) = (units(left(&state)), units(state.claimed));
            say(format_args!("  holds {held} ASY, {claimed} claimed{}", leaving(&terms, &state)));
        }
        Ok(())
    }
}

/// What can still be claimed or withdrawn.
fn left(state: &ChannelState) -> Amount {
    Amount(state.balance.0.saturating_sub(state.claimed.0))
}

fn leaving(terms: &Channel, state: &ChannelState) -> String {
    match state.withdrawal {
        Some(way) => {
            let (amount, ends) = (units(way.amount), way.since + terms.withdraw_delay);
            format!(", {amount} on its way out until {ends}")
        }
        None => String::new(),
    }
}

impl Open {
    async fn run(self) -> Outcome {
        let key = self.on.ledger.key()?;
        let chain = self.on.ledger.open(Some(&key)).await?;
        let token = chain.book().get(assay_chain::Contract::AssayToken);
        let mut salt = B256::ZERO;
        getrandom::fill(&mut salt[..])
            .map_err(|error| Failure::new(Exit::Failed, "no random numbers").why(error))?;
        let channel = Channel {
            payer: key.address(),
            payer_authorizer: key.address(),
            receiver: chain.till_of(self.provider).await.map_err(failed)?,
            receiver_authorizer: self.claimer.unwrap_or(self.provider),
            token: token.map_err(|error| failed(error.into()))?,
            withdraw_delay: self.delay,
            salt,
        };
        let id = channel.id(&chain.channels().map_err(failed)?);
        let mined = chain.deposit(&channel, self.amount).await.map_err(failed)?;
        self.on.told("opened", id, self.amount, mined);
        Ok(())
    }
}

impl TopUp {
    async fn run(self) -> Outcome {
        let key = self.on.ledger.key()?;
        let chain = self.on.ledger.open(Some(&key)).await?;
        let channel = find(&chain, key.address(), ChannelId(self.channel)).await?;
        let mined = chain.deposit(&channel, self.amount).await.map_err(failed)?;
        self.on.told("added to", ChannelId(self.channel), self.amount, mined);
        Ok(())
    }
}

impl Close {
    async fn run(self) -> Outcome {
        let key = self.on.ledger.key()?;
        let chain = self.on.ledger.open(Some(&key)).await?;
        let id = ChannelId(self.channel);
        let channel = find(&chain, key.address(), id).await?;
        let state = chain.channel(id).await.map_err(failed)?;
        let Some(way) = state.withdrawal else {
            let amount = left(&state);
            if amount == Amount(0) {
                return Err(Failure::new(Exit::NotFound, "nothing is left in the channel"));
            }
            let mined = chain.start_withdrawal(&channel, amount).await.map_err(failed)?;
            self.on.told("withdrawal begun:", id, amount, mined);
            note(format_args!("run the same command after {} s", channel.withdraw_delay));
            return Ok(());
        };
        let (now, ends) =
            (chain.client().time().await.map_err(failed)?, way.since + channel.withdraw_delay);
        // An idle chain's newest block may be old; the clock says when the next could be.
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.max(clock.map_or(0, |since| since.as_secs()));
        if now < ends {
            return Err(Failure::new(Exit::Conflict, "the withdrawal is not over yet")
                .why(format_args!("it ends in {} s", ends - now))
                .fix("run the same command then"));
        }
        let mined = chain.finish_withdrawal(&channel).await.map_err(failed)?;
        self.on.told("paid back from", id, way.amount.min(left(&state)), mined);
        Ok(())
    }
}

/// The terms of a channel that `payer` opened.
async fn find(chain: &Chain, payer: Address, id: ChannelId) -> Outcome<Channel> {
    let channels = chain.channels().map_err(failed)?;
    let all = chain.channels_of(payer).await.map_err(failed)?;
    all.into_iter().find(|channel| channel.id(&channels) == id).ok_or_else(|| {
        Failure::new(Exit::NotFound, format_args!("{payer} has opened no channel {id}"))
            .fix("`assay channel ls` lists those it has")
    })
}

impl On {
    fn told(&self, verb: &str, id: ChannelId, amount: Amount, mined: Mined) {
        if self.json {
            say_json(&json!({
                "schema": "assay.channel/1",
                "channel": id,
                "amount": amount,
                "transaction": mined.hash,
                "block": mined.block,
            }));
            return;
        }
        say(format_args!("{verb} {id}: {} ASY, in block {}", units(amount), mined.block));
    }
}
