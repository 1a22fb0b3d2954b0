//! One connection to a chain: reads, and transactions that are simulated first and waited for.

use std::sync::Arc;
use std::time::Duration;

use alloy_network::{EthereumWallet, TransactionBuilder};
use alloy_primitives::{Address, B256, Bytes, TxHash, U256};
use alloy_provider::{DynProvider, Provider, ProviderBuilder};
use alloy_rpc_types_eth::{BlockNumberOrTag, TransactionRequest};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use assay_protocol::Key;
use tokio::sync::Mutex;

use crate::book::AddressBook;
use crate::error::ChainError;

/// How long one answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a transaction is waited for. A public chain under load takes minutes.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A connection to a node that speaks Ethereum's JSON-RPC, with or without a key that signs.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    provider: DynProvider,
    chain_id: u64,
    genesis: B256,
    account: Option<Address>,
    /// Held while a transaction is made and waited for: two at once would have the same number.
    turn: Arc<Mutex<()>>,
}

/// A transaction that is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Its hash.
    pub hash: TxHash,
    /// Height of its block.
    pub block: u64,
    /// Gas used.
    pub gas: u64,
}

impl Client {
    /// Connects and asks which chain it is. Without a key nothing can be sent.
    pub async fn connect(url: &str, key: Option<&Key>) -> Result<Self, ChainError> {
        let parsed = url
            .parse()
            .map_err(|error| ChainError::Url { url: url.to_owned(), reason: format!("{error}") })?;
        let account = key.map(Key::address);
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build().map_err(|error| {
            ChainError::Unreachable { url: url.to_owned(), reason: error.to_string() }
        })?;
        let provider = match key {
            Some(key) => {
                let signer = PrivateKeySigner::from_bytes(&B256::from(key.to_bytes()))
                    .expect("a key of ours is a secp256k1 key");
                let wallet = EthereumWallet::from(signer);
                // The next nonce is asked for each time: a remembered one is wrong after a refusal, and
                // for an account that others use too.
                ProviderBuilder::default()
                    .with_gas_estimation()
                    .with_simple_nonce_management()
                    .fetch_chain_id()
                    .wallet(wallet)
                    .connect_reqwest(http, parsed)
                    .erased()
            }
            None => ProviderBuilder::new().connect_reqwest(http, parsed).erased(),
        };
        provider.client().set_poll_interval(POLL_EVERY);
        let failed = |error| ChainError::from_rpc(url, error);
        let chain_id = provider.get_chain_id().await.map_err(failed)?;
        let first =
            provider.get_block_by_number(BlockNumberOrTag::Number(0)).await.map_err(failed)?;
        let first = first.ok_or_else(|| ChainError::Unreachable {
            url: url.to_owned(),
            reason: "it has no first block".to_owned(),
        })?;
        let genesis = first.header.hash;
        let turn = Arc::default();
        Ok(Self { url: url.to_owned(), provider, chain_id, genesis, account, turn })
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Hash of the first block.
    pub fn genesis(&self) -> B256 {
        self.genesis
    }

    /// Who pays for what is sent; none for a connection that only reads.
    pub fn account(&self) -> Option<Address> {
        self.account
    }

    /// Refuses a book of another chain, be it only a namesake.
    pub(crate) fn expect(&self, book: &AddressBook) -> Result<(), ChainError> {
        if (self.chain_id, self.genesis) == (book.chain_id, book.genesis) {
            return Ok(());
        }
        Err(ChainError::OtherChain {
            found_id: self.chain_id,
            found: self.genesis,
            expected_id: book.chain_id,
            expected: book.genesis,
        })
    }

    /// What `account` has of the chain's coin, in wei.
    pub async fn balance(&self, account: Address) -> Result<U256, ChainError> {
        self.provider.get_balance(account).await.map_err(|error| self.failed(error))
    }

    /// Sends `wei` of the chain's coin from the connection's account.
    pub async fn send_coins(&self, to: Address, wei: U256) -> Result<Mined, ChainError> {
        self.transact(to, Bytes::new(), wei).await
    }

    /// Wei per unit of gas, as the node suggests now.
    pub async fn gas_price(&self) -> Result<u128, ChainError> {
        self.provider.get_gas_price().await.map_err(|error| self.failed(error))
    }

    /// Time of the latest block, unix seconds.
    pub async fn time(&self) -> Result<u64, ChainError> {
        let latest = self.provider.get_block_by_number(BlockNumberOrTag::Latest).await;
        let latest = latest.map_err(|error| self.failed(error))?;
        Ok(latest.map_or(0, |block| block.header.timestamp))
    }

    pub(crate) fn provider(&self) -> &DynProvider {
        &self.provider
    }

    pub(crate) fn failed(&self, error: alloy_provider::transport::TransportError) -> ChainError {
        ChainError::from_rpc(&self.url, error)
    }

    /// The code at `address`; empty where nothing stands.
    pub async fn code(&self, address: Address) -> Result<Bytes, ChainError> {
        self.provider.get_code_at(address).await.map_err(|error| self.failed(error))
    }

    /// Asks `to`, changing nothing.
    pub(crate) async fn view<C: SolCall>(
        &self,
        to: Address,
        call: &C,
    ) -> Result<C::Return, ChainError> {
        let mut request = TransactionRequest::default().with_to(to).with_input(call.abi_encode());
        request.from = self.account;
        let answer = self.provider.call(request).await.map_err(|error| self.failed(error))?;
        C::abi_decode_returns(&answer).map_err(|_| ChainError::Answer { to, answer })
    }

    /// Refused if `to` would refuse `input` now; nothing is sent.
    pub(crate) async fn rehearse(&self, to: Address, input: Bytes) -> Result<(), ChainError> {
        let mut request = TransactionRequest::default().with_to(to).with_input(input);
        request.from = self.account;
        self.provider.call(request).await.map(drop).map_err(|error| self.failed(error))
    }

    /// Has `to` do something, and waits until it is done.
    pub(crate) async fn send<C: SolCall>(
        &self,
        to: Address,
        call: &C,
    ) -> Result<Mined, ChainError> {
        self.transact(to, call.abi_encode().into(), U256::ZERO).await
    }

    /// Sends a transaction and waits for its block. What would revert is refused before it costs anything.
    pub(crate) async fn transact(
        &self,
        to: Address,
        input: Bytes,
        value: U256,
    ) -> Result<Mined, ChainError> {
        let from = self.account.ok_or(ChainError::NoKey)?;
        let _turn = self.turn.lock().await;
        self.settled(from).await?;
        let request = TransactionRequest::default()
            .with_from(from)
            .with_to(to)
            .with_input(input)
            .with_value(value);
        let sent =
            self.provider.send_transaction(request).await.map_err(|error| self.failed(error))?;
        self.wait(*sent.tx_hash()).await
    }

    /// Waits until nothing of `account` is under way, such as what an interrupted command sent: what it
    /// does would be done twice, or refused because it is done.
    async fn settled(&self, account: Address) -> Result<(), ChainError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mined = self.provider.get_transaction_count(account).latest().await;
            let sent = self.provider.get_transaction_count(account).pending().await;
            let (mined, sent) = (
                mined.map_err(|error| self.failed(error))?,
                sent.map_err(|error| self.failed(error))?,
            );
            if sent <= mined {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ChainError::Busy { account, waiting: sent - mined });
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until `hash` is in a block. A node that does not answer for a moment may still have it.
    pub(crate) async fn wait(&self, hash: TxHash) -> Result<Mined, ChainError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.provider.get_transaction_receipt(hash).await;
            if let Ok(Some(receipt)) = found {
                if !receipt.status() {
                    return Err(ChainError::Failed { hash });
                }
                let block = receipt.block_number.unwrap_or_default();
                return Ok(Mined { hash, block, gas: receipt.gas_used });
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ChainError::Pending { hash, seconds: PATIENCE.as_secs() });
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
