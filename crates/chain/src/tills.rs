//! Tills: where providers' money waits until receipts cover it.

use alloy_primitives::{Address, TxHash};
use alloy_provider::Provider as _;
use alloy_sol_types::SolEvent;
use assay_protocol::{Amount, Channel, ChannelId};

use crate::bindings::{Channels, Till, Tills};
use crate::chain::Chain;
use crate::channels::config;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;
use crate::token::amount;

/// What a provider's till took in and gave out so far, in base units of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earnings {
    /// Claimed from channels.
    pub claimed: Amount,
    /// Of it, released: the provider's rest and both fees.
    pub released: Amount,
    /// Of what was released, the network's fee.
    pub network_fee: Amount,
    /// Of what was released, governance's share.
    pub governance_share: Amount,
    /// Went back to payers, since no receipt covered it.
    pub reclaimed: Amount,
    /// Given away by verdicts.
    pub judged: Amount,
}

impl Earnings {
    /// What the provider has got.
    pub fn earned(&self) -> Amount {
        let fees = self.network_fee.0.saturating_add(self.governance_share.0);
        Amount(self.released.0.saturating_sub(fees))
    }

    /// What waits: for receipts to cover it, or for the dispute window to end.
    pub fn waiting(&self) -> Amount {
        let gone = [self.released, self.reclaimed, self.judged];
        Amount(gone.iter().fold(self.claimed.0, |left, gone| left.saturating_sub(gone.0)))
    }
}

impl Chain {
    /// What the till of `owner` took in and gave out in `token`.
    pub async fn earnings(&self, owner: Address, token: Address) -> Result<Earnings, ChainError> {
        let till = self.till_of(owner).await?;
        let call = Channels::receiversCall { receiver: till, token };
        let claimed = self.client().view(self.at(Contract::Channels)?, &call).await?.totalClaimed;
        let mut earnings = Earnings { claimed: Amount(claimed), ..Earnings::default() };
        for released in self.logs::<Till::Released>(till).await? {
            if released.token == token {
                earnings.released.0 += released.amount;
                earnings.network_fee.0 += amount(released.networkFee).0;
                earnings.governance_share.0 += amount(released.governanceShare).0;
            }
        }
        // A till's verdicts and returns do not name their token; all its channels are in this one.
        for reclaimed in self.logs::<Till::Reclaimed>(till).await? {
            earnings.reclaimed.0 += reclaimed.amount;
        }
        for judged in self.logs::<Till::Judged>(till).await? {
            earnings.judged.0 += judged.amount;
        }
        Ok(earnings)
    }

    /// What verdicts gave away in a transaction, and to whom: paid at once as far as it was claimed, and
    /// the rest as soon as it is.
    pub async fn verdicts_in(
        &self,
        transaction: TxHash,
    ) -> Result<Vec<(Address, Amount)>, ChainError> {
        let found = self.client().provider().get_transaction_receipt(transaction).await;
        let found = found.map_err(|error| self.client().failed(error))?;
        let logs = found.iter().flat_map(|receipt| receipt.inner.logs());
        let judged = logs.filter_map(|log| Till::Judged::decode_log(&log.inner).ok());
        Ok(judged.map(|event| (event.to, Amount(event.amount))).collect())
    }

    /// Where the till of `owner` is or will be: the receiver of channels that pay it.
    pub async fn till_of(&self, owner: Address) -> Result<Address, ChainError> {
        self.client().view(self.at(Contract::Tills)?, &Tills::tillOfCall { owner }).await
    }

    /// Makes the till of `owner`, unless it exists.
    pub async fn open_till(&self, owner: Address) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Tills)?, &Tills::openCall { owner }).await
    }

    /// Divides what a channel's posted receipts have freed: fees, and the provider's rest. The dispute
    /// window of what is claimed begins with the first call after the claim, so who claims calls this at once.
    pub async fn release(&self, channel: &Channel) -> Result<Mined, ChainError> {
        let call = Till::releaseCall { config: config!(Till, channel) };
        self.client().send(channel.receiver, &call).await
    }

    /// As [`Chain::release`], for channels that all pay `till`, at less than half the gas for each.
    pub async fn release_all(
        &self,
        till: Address,
        channels: &[Channel],
    ) -> Result<Mined, ChainError> {
        let configs = channels.iter().map(|channel| config!(Till, channel)).collect();
        self.client().send(till, &Till::releaseAllCall { configs }).await
    }

    /// Asks, as the payer, for what was claimed and will not be covered in time.
    pub async fn mark(&self, channel: &Channel) -> Result<Mined, ChainError> {
        self.client()
            .send(channel.receiver, &Till::markCall { config: config!(Till, channel) })
            .await
    }

    /// Sends the payer what it asked for and no receipt covered.
    pub async fn reclaim(&self, channel: &Channel) -> Result<Mined, ChainError> {
        self.client()
            .send(channel.receiver, &Till::reclaimCall { config: config!(Till, channel) })
            .await
    }

    /// Up to which position of a channel a till has paid everything to someone.
    pub async fn paid_out(&self, till: Address, channel: ChannelId) -> Result<Amount, ChainError> {
        let call = Till::accountOfCall { channel: channel.0 };
        Ok(Amount(self.client().view(till, &call).await?.frontier))
    }
}
