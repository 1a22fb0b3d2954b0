//! A chain with our contracts on it.

use alloy_primitives::Address;
use alloy_provider::Provider as _;
use assay_protocol::Key;

use crate::book::AddressBook;
use crate::client::Client;
use crate::error::ChainError;
use crate::suite::Contract;

/// A chain with our contracts on it: where they are, and a connection that reaches them.
#[derive(Clone, Debug)]
pub struct Chain {
    client: Client,
    book: AddressBook,
}

impl Chain {
    /// Connects to the chain that `book` is about; a chain of the same id with another first block is refused.
    pub async fn open(url: &str, book: AddressBook, key: Option<&Key>) -> Result<Self, ChainError> {
        let client = Client::connect(url, key).await?;
        client.expect(&book)?;
        Ok(Self { client, book })
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the contracts are.
    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// Height of the latest block.
    pub async fn height(&self) -> Result<u64, ChainError> {
        let height = self.client.provider().get_block_number().await;
        height.map_err(|error| self.client.failed(error))
    }

    /// Where `contract` is.
    pub(crate) fn at(&self, contract: Contract) -> Result<Address, ChainError> {
        Ok(self.book.get(contract)?)
    }

    /// Who signs; an error for a connection that only reads.
    pub(crate) fn account(&self) -> Result<Address, ChainError> {
        self.client.account().ok_or(ChainError::NoKey)
    }
}
