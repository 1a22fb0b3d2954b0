//! How the roles of a local network pay each other: on its own chain, in ASY.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{Chain, Contract};
use assay_protocol::wire::Accepts;
use assay_protocol::{Address, Amount, Key, U256};
use assay_provider::Collecting;

use crate::embedded::Embedded;
use crate::failure::Outcome;
use crate::ledger::{WHOLE, failed};

/// What a provider delivers beyond what it has a voucher for, and may lose in a crash.
const CREDIT_MAX: Amount = Amount(WHOLE / 1_000);
/// What a gateway puts into a channel at once.
const DEPOSIT: Amount = Amount(10 * WHOLE);
/// What a provider can lose if it lies.
const STAKE: Amount = Amount(10_000 * WHOLE);
/// Channels of a gateway to one provider, and so answers that it buys there at once.
const LANES_MAX: usize = 64;
/// Longest that an answer waits for a channel.
const LANE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Most that a gateway signs ahead of delivery.
const PREPAY_MAX: Amount = Amount(WHOLE / 10);
/// Shortest delay that the channels' contract knows, in seconds: both sides are on this machine.
const WITHDRAW_DELAY: u64 = 900;
/// Longest that a paused answer waits for a voucher.
const VOUCHER_WAIT_MAX: Duration = Duration::from_secs(15);
/// How often a provider looks at the chain.
const WATCH_EVERY: Duration = Duration::from_secs(10);
/// How often a provider posts receipts and claims vouchers.
const COLLECT_EVERY: Duration = Duration::from_secs(10);

/// Coins that an operator has for the gas of its moves.
const COINS: Amount = Amount(10 * WHOLE);
/// How often a provider looks whether its answers are disputed, and what is owed there: a dispute's clock
/// is seconds here.
const DEFEND_EVERY: Duration = Duration::from_millis(250);
/// Disputed answers that a provider holds computed at once.
const TRACES_MAX: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// What both sides have to agree on.
struct Deployment {
    channels: Address,
    market: Address,
    token: Address,
    /// Zero on a network of an earlier release: orders under grants are refused there.
    grants: Address,
}

impl Deployment {
    fn of(chain: &Chain) -> Outcome<Self> {
        let at = |contract| chain.book().get(contract).map_err(|error| failed(error.into()));
        Ok(Self {
            channels: at(Contract::Channels)?,
            market: at(Contract::Receipts)?,
            token: at(Contract::AssayToken)?,
            grants: chain.book().get(Contract::Grants).unwrap_or(Address::ZERO),
        })
    }
}

/// How the provider of an owner is paid.
pub(crate) async fn sells(chain: &Embedded, key: &Key) -> Outcome<assay_provider::Payment> {
    let chain = chain.open(key).await?;
    let owner = key.address();
    let receiver = chain.till_of(owner).await.map_err(failed)?;
    let Deployment { channels, market, token, grants } = Deployment::of(&chain)?;
    Ok(assay_provider::Payment {
        owner,
        accepts: Accepts {
            channels,
            market,
            token,
            receiver,
            receiver_authorizer: owner,
            withdraw_delay_min: WITHDRAW_DELAY,
            credit_max: CREDIT_MAX,
            grants,
        },
        bank: Arc::new(chain),
        // Blocks of the local chain are final.
        confirmations: 0,
        voucher_wait_max: VOUCHER_WAIT_MAX,
        watch_every: WATCH_EVERY,
        collecting: Collecting {
            every: COLLECT_EVERY,
            // Gas is no cost where coins come from nowhere, so nothing is too little to collect.
            coin_price: Amount(0),
            parts_min: 1,
        },
    })
}

/// How a provider defends its receipts: with its operator's account, from which nothing else is sent. The
/// owner gives it the coins that moves cost.
pub(crate) async fn defends(
    chain: &Embedded,
    owner: &Key,
    operator: &Key,
) -> Outcome<assay_provider::Defence> {
    let account = operator.address();
    let purse = chain.open(owner).await?;
    if purse.client().balance(account).await.map_err(failed)? < U256::from(COINS.0 / 10) {
        purse.client().send_coins(account, U256::from(COINS.0)).await.map_err(failed)?;
    }
    Ok(assay_provider::Defence {
        owner: owner.address(),
        chain: chain.open(operator).await?,
        watch_every: DEFEND_EVERY,
        confirmations: 0,
        traces_max: TRACES_MAX,
    })
}

/// Registers an owner with the key that signs its receipts, and stakes for it, unless that was done before.
pub(crate) async fn answers_for(
    chain: &Embedded,
    owner: &Key,
    operator: &Key,
    url: &str,
) -> Outcome {
    let chain = chain.open(owner).await?;
    let found = chain.provider(owner.address()).await.map_err(failed)?;
    if found.is_none() {
        chain.register(operator, url).await.map_err(failed)?;
    }
    if found.is_none_or(|provider| provider.bonded == Amount(0)) {
        chain.stake(STAKE).await.map_err(failed)?;
    }
    Ok(())
}

/// How a gateway pays.
pub(crate) async fn buys(chain: &Embedded, key: &Key) -> Outcome<assay_gateway::Payments> {
    let chain = chain.open(key).await?;
    let Deployment { channels, market, token, grants } = Deployment::of(&chain)?;
    Ok(assay_gateway::Payments {
        bank: Arc::new(chain),
        channels,
        market,
        grants,
        token,
        deposit: DEPOSIT,
        lanes_max: LANES_MAX,
        prepay_max: PREPAY_MAX,
        lane_wait_max: LANE_WAIT_MAX,
        withdraw_delay_max: WITHDRAW_DELAY,
        standing_every: WATCH_EVERY / 10,
    })
}
