//! Tills: where providers' money waits until receipts cover it.

use alloy_primitives::Address;
use assay_protocol::{Amount, Channel, ChannelId};

use crate::bindings::{Till, Tills};
use crate::chain::Chain;
use crate::channels::config;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

impl Chain {
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
