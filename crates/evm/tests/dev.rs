//! What developers ask of a chain of their own, through the port.
#![allow(clippy::unwrap_used, reason = "a failed test says where")]

mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes, Signature, U256, eip191_hash_message, hex};
use assay_evm::clock::StillClock;
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Development, Impersonated, Limits, Module, Pages, Rpc, Wallet, serve};
use assay_evm::{Genesis, Node, NodeConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NOW: u64 = 1_800_000_000;

/// A development chain on a port.
struct Desk {
    address: SocketAddr,
    signers: Vec<Signer>,
    node: Node,
    _runtime: tokio::runtime::Runtime,
}

impl Desk {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let signers = mnemonic::accounts(mnemonic::DEVELOPMENT, 3);
        let ether = U256::from(10).pow(U256::from(22));
        let funded: Vec<_> = signers.iter().map(|signer| (signer.address(), ether)).collect();
        let producer = producer::Config {
            drift_max: Duration::from_secs(1 << 20),
            ..producer::Config::default()
        };
        let genesis = Genesis::development(31_337, &funded);
        let config = NodeConfig { genesis, producer, ..NodeConfig::default() };
        let node = Node::start(config, Arc::new(StillClock::at(NOW))).unwrap();
        let (chain, mempool) = (node.chain().clone(), node.mempool().clone());
        let rpc = |modules| {
            Rpc::new(
                chain.clone(),
                mempool.clone(),
                Arc::new(StillClock::at(NOW)),
                Limits::default(),
                modules,
            )
        };
        let impersonated = Impersonated::default();
        let wallet = Wallet::new(rpc(Vec::new()), signers.clone(), impersonated.clone());
        let producer = node.producer().clone();
        let development = Development::new(
            chain.clone(),
            mempool.clone(),
            producer,
            Production::OnDemand,
            impersonated,
        );
        let modules: Vec<Arc<dyn Module>> = vec![Arc::new(wallet), Arc::new(development)];
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, rpc(modules), Pages::None, CancellationToken::new()));
        drop(_inside);
        Self { address, signers, node, _runtime: runtime }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (_, text) = wire::post(self.address, call.to_string().as_bytes());
        serde_json::from_str(&text).unwrap()
    }

    fn ask(&self, method: &str, params: Value) -> Value {
        let mut answer = self.call(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    fn refusal(&self, method: &str, params: Value) -> String {
        let answer = self.call(method, params);
        answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn receipt(&self, hash: &Value) -> Value {
        let begun = Instant::now();
        loop {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash]));
            if !receipt.is_null() {
                return receipt;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no receipt of {hash}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn height(&self) -> u64 {
        self.node.chain().head().header.number
    }
}

#[test]
fn accounts_send_without_signing_at_home() {
    let desk = Desk::new();
    let accounts = desk.ask("eth_accounts", json!([]));
    assert_eq!(accounts[0], json!(desk.signers[0].address()));
    let to = Address::repeat_byte(5);
    let sent = json!([{ "from": accounts[0], "to": to, "value": "0x7" }]);
    let hash = desk.ask("eth_sendTransaction", sent);
    let receipt = desk.receipt(&hash);
    assert_eq!((&receipt["status"], &receipt["gasUsed"]), (&json!("0x1"), &json!("0x5208")));
    assert_eq!(desk.ask("eth_getBalance", json!([to, "latest"])), "0x7");
    let stranger = json!([{ "from": to, "to": to }]);
    let said = desk.refusal("eth_sendTransaction", stranger);
    assert!(said.starts_with("unknown account"), "{said}");
    let raw = desk.ask("eth_signTransaction", json!([{ "from": accounts[1], "to": to }]));
    desk.receipt(&desk.ask("eth_sendRawTransaction", json!([raw])));
}

#[test]
fn messages_are_signed_as_wallets_sign_them() {
    let desk = Desk::new();
    let (address, message) = (desk.signers[0].address(), hex::encode_prefixed("hello"));
    let signed: Bytes =
        serde_json::from_value(desk.ask("personal_sign", json!([message, address]))).unwrap();
    let signature = Signature::try_from(signed.as_ref()).unwrap();
    let digest = eip191_hash_message("hello");
    assert_eq!(signature, desk.signers[0].sign(&digest));
    assert_eq!(desk.ask("eth_sign", json!([address, message])), json!(signed));
    let document = json!({
        "types": { "EIP712Domain": [], "Note": [{ "name": "text", "type": "string" }] },
        "primaryType": "Note", "domain": {}, "message": { "text": "hello" },
    });
    let one = desk.ask("eth_signTypedData_v4", json!([address, document]));
    let as_text = desk.ask("eth_signTypedData_v4", json!([address, document.to_string()]));
    assert_eq!(one, as_text);
    let said = desk.refusal("eth_sign", json!([Address::ZERO, message]));
    assert!(said.starts_with("unknown account"), "{said}");
}

#[test]
fn what_is_changed_is_there_and_can_be_taken_back() {
    let desk = Desk::new();
    let who = Address::repeat_byte(8);
    let snapshot = desk.ask("evm_snapshot", json!([]));
    desk.ask("hardhat_setBalance", json!([who, "0xde0b6b3a7640000"]));
    desk.ask("anvil_setNonce", json!([who, "0x7"]));
    desk.ask("anvil_setStorageAt", json!([who, "0x1", format!("0x{:064x}", 9)]));
    // Returns what stands in slot 1.
    desk.ask("anvil_setCode", json!([who, "0x60015460005260206000f3"]));
    assert_eq!(desk.ask("eth_getBalance", json!([who, "latest"])), "0xde0b6b3a7640000");
    assert_eq!(desk.ask("eth_getTransactionCount", json!([who, "latest"])), "0x7");
    let called = desk.ask("eth_call", json!([{ "to": who }, "latest"]));
    assert_eq!(called, format!("0x{:064x}", 9));
    let head = desk.node.chain().head();
    assert_eq!(head.state.root(), head.header.state_root);
    assert_eq!(desk.ask("evm_revert", json!([snapshot])), true);
    assert_eq!(desk.ask("eth_getBalance", json!([who, "latest"])), "0x0");
    assert_eq!(desk.ask("evm_revert", json!([snapshot])), false);
}

#[test]
fn anybody_can_be_impersonated() {
    let desk = Desk::new();
    let (who, to) = (Address::repeat_byte(8), Address::repeat_byte(9));
    desk.ask("anvil_setBalance", json!([who, "0xde0b6b3a7640000"]));
    let send = json!([{ "from": who, "to": to, "value": "0x1" }]);
    assert!(desk.refusal("eth_sendTransaction", send.clone()).starts_with("unknown account"));
    desk.ask("hardhat_impersonateAccount", json!([who]));
    let hash = desk.ask("eth_sendTransaction", send.clone());
    let receipt = desk.receipt(&hash);
    assert_eq!((&receipt["from"], &receipt["status"]), (&json!(who), &json!("0x1")));
    desk.ask("anvil_stopImpersonatingAccount", json!([who]));
    assert!(desk.refusal("eth_sendTransaction", send).starts_with("unknown account"));
}

#[test]
fn time_and_blocks_come_when_asked_for() {
    let desk = Desk::new();
    desk.ask("evm_increaseTime", json!([100]));
    desk.ask("evm_mine", json!([]));
    let latest = || desk.ask("eth_getBlockByNumber", json!(["latest", false]))["timestamp"].clone();
    assert_eq!(latest(), format!("{:#x}", NOW + 100));
    desk.ask("evm_setNextBlockTimestamp", json!([NOW + 500]));
    desk.ask("hardhat_mine", json!(["0x3", "0x3c"]));
    assert_eq!(latest(), format!("{:#x}", NOW + 620));
    assert_eq!(desk.height(), 4);
    let said = desk.refusal("evm_setNextBlockTimestamp", json!([5]));
    assert!(said.contains("not after"), "{said}");

    desk.ask("evm_setAutomine", json!([false]));
    let from = desk.signers[0].address();
    let hash = desk.ask("eth_sendTransaction", json!([{ "from": from, "to": from }]));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(desk.height(), 4);
    desk.ask("evm_mine", json!([{ "timestamp": NOW + 1000 }]));
    assert_eq!(desk.receipt(&hash)["blockNumber"], "0x5");
    assert_eq!(latest(), format!("{:#x}", NOW + 1000));
    let said = desk.refusal("hardhat_mine", json!(["0xffffffffffff"]));
    assert!(said.contains("at most"), "{said}");
}

#[test]
fn the_faucet_gives_a_little_to_anybody() {
    let desk = Desk::new();
    let who = Address::repeat_byte(6);
    let hash = desk.ask("faucet_drip", json!([who]));
    desk.receipt(&hash);
    assert_eq!(desk.ask("eth_getBalance", json!([who, "latest"])), "0x8ac7230489e80000");
    let said = desk.refusal("faucet_drip", json!([who, "0xffffffffffffffffffffffff"]));
    assert!(said.contains("at most"), "{said}");
}
