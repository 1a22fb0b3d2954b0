//! Every method by its name, and where it may run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use alloy_primitives::{B256, Bytes, U64, keccak256};
use alloy_rpc_types_eth::pubsub::{Params as Topics, SubscriptionKind};

use super::Rpc;
use super::logs::LogFilter;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use super::socket::{Line, Topic};

/// Sends a signed transaction; a batch of them is taken at once.
pub(super) const SEND: &str = "eth_sendRawTransaction";

/// Answers a call.
pub(super) type Run = fn(&Rpc, &Params<'_>) -> Answer;

/// Where a method may run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weight {
    /// Anywhere: it reads memory, for some microseconds.
    Light,
    /// As light, if the parameter at this index names the newest block.
    State(usize),
    /// On a thread that may block: it may read the disk, or much memory.
    Read,
    /// On a thread that may block, few at once: it runs code.
    Code,
}

/// How a method is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Plain(Weight, Run),
    SendSync,
    Subscribe,
    Unsubscribe,
}

/// The method of this name.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    ALL.get(name)
}

static ALL: LazyLock<HashMap<&'static str, Method>> = LazyLock::new(|| {
    let tables = [ACCOUNTS, BLOCKS, TRANSACTIONS, LOGS, FEES, CALLS, DEBUG, NODE];
    let plain = tables.into_iter().flatten();
    let plain = plain.map(|(name, weight, run)| (*name, Method::Plain(*weight, *run)));
    plain
        .chain([
            ("eth_sendRawTransactionSync", Method::SendSync),
            ("eth_subscribe", Method::Subscribe),
            ("eth_unsubscribe", Method::Unsubscribe),
        ])
        .collect()
});

type Table = &'static [(&'static str, Weight, Run)];

const ACCOUNTS: Table = &[
    ("eth_getBalance", Weight::State(1), Rpc::eth_get_balance),
    ("eth_getTransactionCount", Weight::State(1), Rpc::eth_get_transaction_count),
    ("eth_getCode", Weight::State(1), Rpc::eth_get_code),
    ("eth_getStorageAt", Weight::State(2), Rpc::eth_get_storage_at),
    ("eth_getStorageValues", Weight::Read, Rpc::eth_get_storage_values),
    ("eth_getProof", Weight::Read, Rpc::eth_get_proof),
];

const BLOCKS: Table = &[
    ("eth_blockNumber", Weight::Light, Rpc::eth_block_number),
    ("eth_getBlockByHash", Weight::Read, Rpc::eth_get_block_by_hash),
    ("eth_getBlockByNumber", Weight::Read, Rpc::eth_get_block_by_number),
    ("eth_getBlockReceipts", Weight::Read, Rpc::eth_get_block_receipts),
    (
        "eth_getBlockTransactionCountByHash",
        Weight::Read,
        Rpc::eth_get_block_transaction_count_by_hash,
    ),
    (
        "eth_getBlockTransactionCountByNumber",
        Weight::Read,
        Rpc::eth_get_block_transaction_count_by_number,
    ),
    ("eth_getUncleCountByBlockHash", Weight::Read, Rpc::eth_get_uncle_count_by_block_hash),
    ("eth_getUncleCountByBlockNumber", Weight::Read, Rpc::eth_get_uncle_count_by_block_number),
    ("eth_getUncleByBlockHashAndIndex", Weight::Read, Rpc::eth_get_uncle_by_block_hash_and_index),
    (
        "eth_getUncleByBlockNumberAndIndex",
        Weight::Read,
        Rpc::eth_get_uncle_by_block_number_and_index,
    ),
];

const TRANSACTIONS: Table = &[
    (SEND, Weight::Light, Rpc::eth_send_raw_transaction),
    ("eth_getTransactionByHash", Weight::Read, Rpc::eth_get_transaction_by_hash),
    ("eth_getRawTransactionByHash", Weight::Read, Rpc::eth_get_raw_transaction_by_hash),
    ("eth_getTransactionReceipt", Weight::Read, Rpc::eth_get_transaction_receipt),
    (
        "eth_getTransactionByBlockHashAndIndex",
        Weight::Read,
        Rpc::eth_get_transaction_by_block_hash_and_index,
    ),
    (
        "eth_getTransactionByBlockNumberAndIndex",
        Weight::Read,
        Rpc::eth_get_transaction_by_block_number_and_index,
    ),
    ("txpool_status", Weight::Light, Rpc::txpool_status),
    ("txpool_content", Weight::Read, Rpc::txpool_content),
    ("txpool_contentFrom", Weight::Read, Rpc::txpool_content_from),
    ("txpool_inspect", Weight::Read, Rpc::txpool_inspect),
];

const LOGS: Table = &[
    ("eth_getLogs", Weight::Read, Rpc::eth_get_logs),
    ("eth_newFilter", Weight::Light, Rpc::eth_new_filter),
    ("eth_newBlockFilter", Weight::Light, Rpc::eth_new_block_filter),
    ("eth_newPendingTransactionFilter", Weight::Light, Rpc::eth_new_pending_transaction_filter),
    ("eth_uninstallFilter", Weight::Light, Rpc::eth_uninstall_filter),
    ("eth_getFilterLogs", Weight::Read, Rpc::eth_get_filter_logs),
    ("eth_getFilterChanges", Weight::Read, Rpc::eth_get_filter_changes),
];

const FEES: Table = &[
    ("eth_gasPrice", Weight::Read, Rpc::eth_gas_price),
    ("eth_maxPriorityFeePerGas", Weight::Read, Rpc::eth_max_priority_fee_per_gas),
    ("eth_feeHistory", Weight::Read, Rpc::eth_fee_history),
    ("eth_baseFee", Weight::Light, Rpc::eth_base_fee),
    ("eth_blobBaseFee", Weight::Light, Rpc::eth_blob_base_fee),
];

const CALLS: Table = &[
    ("eth_call", Weight::Code, Rpc::eth_call),
    ("eth_estimateGas", Weight::Code, Rpc::eth_estimate_gas),
    ("eth_simulateV1", Weight::Code, Rpc::eth_simulate_v1),
    ("eth_createAccessList", Weight::Code, Rpc::eth_create_access_list),
];

const DEBUG: Table = &[
    ("debug_getRawHeader", Weight::Read, Rpc::debug_get_raw_header),
    ("debug_getRawBlock", Weight::Read, Rpc::debug_get_raw_block),
    ("debug_getRawReceipts", Weight::Read, Rpc::debug_get_raw_receipts),
    ("debug_getRawTransaction", Weight::Read, Rpc::debug_get_raw_transaction),
    ("debug_traceTransaction", Weight::Code, Rpc::debug_trace_transaction),
    ("debug_traceBlockByNumber", Weight::Code, Rpc::debug_trace_block_by_number),
    ("debug_traceBlockByHash", Weight::Code, Rpc::debug_trace_block_by_hash),
    ("debug_traceCall", Weight::Code, Rpc::debug_trace_call),
];

const NODE: Table = &[
    ("eth_chainId", Weight::Light, Rpc::eth_chain_id),
    ("eth_syncing", Weight::Light, Rpc::eth_syncing),
    ("eth_accounts", Weight::Light, Rpc::eth_accounts),
    ("eth_config", Weight::Light, Rpc::eth_config),
    ("eth_capabilities", Weight::Read, Rpc::eth_capabilities),
    ("net_version", Weight::Light, Rpc::net_version),
    ("net_listening", Weight::Light, Rpc::net_listening),
    ("net_peerCount", Weight::Light, Rpc::net_peer_count),
    ("web3_clientVersion", Weight::Light, Rpc::web3_client_version),
    ("web3_sha3", Weight::Light, Rpc::web3_sha3),
    ("rpc_modules", Weight::Light, Rpc::rpc_modules),
];

impl Rpc {
    fn eth_chain_id(&self, _: &Params<'_>) -> Answer {
        answer(&U64::from(self.chain_id()))
    }

    fn eth_block_number(&self, _: &Params<'_>) -> Answer {
        answer(&U64::from(self.newest()))
    }

    /// A node answers only for what it has.
    fn eth_syncing(&self, _: &Params<'_>) -> Answer {
        answer(&false)
    }

    /// None, unless a module holds keys.
    fn eth_accounts(&self, _: &Params<'_>) -> Answer {
        answer(&[(); 0])
    }

    fn net_version(&self, _: &Params<'_>) -> Answer {
        answer(&self.chain_id().to_string())
    }

    fn net_listening(&self, _: &Params<'_>) -> Answer {
        answer(&true)
    }

    fn net_peer_count(&self, _: &Params<'_>) -> Answer {
        answer(&U64::ZERO)
    }

    fn web3_client_version(&self, _: &Params<'_>) -> Answer {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        answer(&format!("assay-evm/v{}/{os}-{arch}/rust", env!("CARGO_PKG_VERSION")))
    }

    /// `[bytes]`
    fn web3_sha3(&self, params: &Params<'_>) -> Answer {
        let bytes: Bytes = params.bytes(0)?;
        let hash: B256 = keccak256(&bytes);
        answer(&hash)
    }

    fn rpc_modules(&self, _: &Params<'_>) -> Answer {
        let own = ALL.keys().copied();
        let others = self.0.modules.iter().flat_map(|module| module.methods().iter().copied());
        let spaces = own.chain(others).filter_map(|name| name.split_once('_'));
        let modules: BTreeMap<&str, &str> = spaces.map(|(space, _)| (space, "1.0")).collect();
        answer(&modules)
    }

    /// `[what, more]`
    pub(super) fn eth_subscribe(&self, params: &Params<'_>, line: Option<&mut Line<'_>>) -> Answer {
        let line =
            line.ok_or_else(|| Error::Method("eth_subscribe, but over WebSocket,".into()))?;
        let topic = match params.required(0)? {
            SubscriptionKind::NewHeads => Topic::Heads,
            SubscriptionKind::Logs => {
                let filter: Option<LogFilter> = params.optional(1)?;
                Topic::Logs(Arc::new(filter.unwrap_or_default()))
            }
            SubscriptionKind::NewPendingTransactions => {
                let full = matches!(params.optional(1)?, Some(Topics::Bool(true)));
                Topic::Pending { full }
            }
            SubscriptionKind::Syncing => Topic::Syncing,
            other => return Err(argument(0, format!("no subscription is called {other:?}"))),
        };
        let id = line.subscriptions.open(topic)?;
        let told = answer(&id);
        line.opened.push(id);
        told
    }

    /// `[subscription]`
    pub(super) fn eth_unsubscribe(
        &self,
        params: &Params<'_>,
        line: Option<&mut Line<'_>>,
    ) -> Answer {
        let line =
            line.ok_or_else(|| Error::Method("eth_unsubscribe, but over WebSocket,".into()))?;
        let id: String = params.required(0)?;
        answer(&line.subscriptions.close(&id))
    }
}
