//! What clients may send, however wrong or much, and what they get for it.

#![allow(clippy::unwrap_used, reason = "a failed test says where")]

mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, TxKind};
use assay_evm::rpc::{Limits, Pages};
use serde_json::{Value, json};

use wire::{Served, foreign_chain, signed, signers, split};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(30);

/// Jumps to its own start, for ever.
const LOOP: &str = "0x5b600056";

/// Emits a log without topics, and returns nothing.
const LOGGER: &[u8] = &[0x60, 0, 0x60, 0, 0xa0];

fn working(limits: Limits) -> Served {
    Served::working(limits, Pages::All)
}

/// Deploys code that is `LOGGER`, and waits for the receipt.
fn deploy(served: &Served) -> Address {
    // PUSH5 code, PUSH1 0, MSTORE, then return its five bytes, which lie at the word's end.
    let mut init = vec![0x64];
    init.extend_from_slice(LOGGER);
    init.extend_from_slice(&[0x60, 0, 0x52, 0x60, 5, 0x60, 27, 0xf3]);
    let raw = signed(&signers()[0], 0, TxKind::Create, &init);
    let receipt = served.result("eth_sendRawTransactionSync", &json!([raw]).to_string());
    assert_eq!(receipt["status"], "0x1");
    receipt["contractAddress"].as_str().unwrap().parse().unwrap()
}

#[test]
fn what_is_no_call_is_answered_with_the_code_that_says_so() {
    let served = working(Limits { batch_max: 3, ..Limits::default() });
    for (body, code) in [
        ("", -32700),
        ("{\"jsonrpc\"", -32700),
        ("{}", -32600),
        ("[]", -32600),
        (r#"{"id":1,"method":"eth_nothing"}"#, -32601),
        (r#"{"id":1,"method":"eth_getBalance"}"#, -32602),
        (r#"{"id":1,"method":"eth_getBalance","params":{}}"#, -32602),
        (r#"{"id":1,"method":"eth_getBalance","params":["0x12"]}"#, -32602),
        (r#"{"id":1,"method":"eth_getBalance","params":[7]}"#, -32602),
        (r#"{"id":1,"method":"eth_sendRawTransaction","params":["0xc0"]}"#, -32000),
        (r#"{"id":1,"method":"eth_subscribe","params":["newHeads"]}"#, -32601),
        ("[1,2,3,4]", -32005),
    ] {
        assert_eq!(served.ask(body)["error"]["code"], code, "{body}");
    }
    assert_eq!(served.ask("[1,{}]")[1]["error"]["code"], -32600);
}

#[test]
fn depth_and_length_are_bounded() {
    let served = working(Limits { body_bytes_max: 1 << 20, ..Limits::default() });
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for method in ["eth_call", "eth_getLogs", "debug_traceCall", "eth_getBlockByNumber"] {
        assert_eq!(served.code(method, &format!("[{deep}]")), -32602);
        let object = format!("[{}{}]", r#"{"topics":"#.repeat(5_000), "}".repeat(5_000));
        assert_eq!(
            served.ask(&format!(r#"{{"id":1,"method":"{method}","params":{object}}}"#))["error"]["code"],
            -32700
        );
    }
    let (status, _) = served.post(&vec![b' '; (1 << 20) + 1]);
    assert!(status == 413 || status == 0, "{status}");
    let mut endless = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..17 {
        endless.extend_from_slice(b"10000\r\n");
        endless.extend_from_slice(&[b' '; 0x10000]);
        endless.extend_from_slice(b"\r\n");
    }
    let (status, _) = split(&served.talk(&endless));
    assert!(status == 413 || status == 0, "{status}");
    assert_eq!(served.result("eth_chainId", "[]"), "0x7a69");
}

/// A generator of the same numbers each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

#[test]
fn damaged_requests_are_answered_and_leave_the_server_whole() {
    let served = Served::still(foreign_chain(), Limits::default());
    let address = "\"0x7dcd17433742f4c0ca53122ab541d0ba67fc27df\"";
    let bodies = [
        format!(r#"{{"id":1,"method":"eth_call","params":[{{"to":{address},"input":"0x01"}},"latest",{{{address}:{{"balance":"0x1","stateDiff":{{}}}}}},{{"number":"0x1"}}]}}"#),
        r#"{"id":1,"method":"eth_getLogs","params":[{"fromBlock":"0x0","toBlock":"latest","topics":[null,[]]}]}"#.into(),
        format!(r#"[{{"id":1,"method":"eth_getProof","params":[{address},["0x0"],"0x10"]}},{{"id":2,"method":"eth_feeHistory","params":["0x4","latest",[1,50.5]]}}]"#),
        r#"{"id":1,"method":"debug_traceBlockByNumber","params":["0x3",{"tracer":"callTracer","tracerConfig":{"withLog":true}}]}"#.into(),
        format!(r#"{{"id":1,"method":"eth_estimateGas","params":[{{"from":{address},"value":"0x1","accessList":[{{"address":{address},"storageKeys":[]}}]}}]}}"#),
    ];
    let words: [&[u8]; 12] = [
        b"0x",
        b"null",
        b"-1",
        b"1e999",
        b"\"",
        b"{",
        b"]",
        b"\\u0000",
        b"\xff",
        b"[",
        b",",
        b"0xffffffffffffffffff",
    ];
    let mut noise = Noise(7);
    for round in 0..400 {
        let mut body = bodies[round % bodies.len()].clone().into_bytes();
        for _ in 0..=noise.next(3) {
            let at = noise.next(body.len());
            match noise.next(3) {
                0 => body[at] = noise.next(256) as u8,
                1 => drop(body.drain(at..(at + noise.next(9)).min(body.len()))),
                _ => drop(body.splice(at..at, words[noise.next(words.len())].iter().copied())),
            }
        }
        let (status, text) = served.post(&body);
        let told = String::from_utf8_lossy(&body);
        assert!(
            status == 204 || (status == 200 && serde_json::from_str::<Value>(&text).is_ok()),
            "{told}: {status} {text}"
        );
        assert!(!text.contains("-32603"), "{told}: {text}");
    }
    assert_eq!(served.result("eth_blockNumber", "[]"), "0x36");
}

#[test]
fn a_batch_is_answered_in_order_without_its_notifications() {
    let served = working(Limits::default());
    let signer = &signers()[0];
    let send = |id: u64, nonce| {
        let raw = signed(signer, nonce, TxKind::Call(Address::ZERO), &[]);
        json!({"id": id, "method": "eth_sendRawTransaction", "params": [raw]})
    };
    let batch = json!([
        {"id": 1, "method": "eth_chainId"},
        {"method": "eth_chainId"},
        send(2, 0), send(3, 1), send(4, 1),
        {"id": 5, "method": "eth_sendRawTransaction", "params": []},
        7,
        {"id": 6, "method": "net_version"},
    ]);
    let answers = served.ask(&batch.to_string());
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(Value::from(ids), json!([1, 2, 3, 4, 5, null, 6]));
    assert!(answers[1]["result"].is_string() && answers[2]["result"].is_string(), "{answers}");
    assert_eq!(answers[3]["error"]["code"], -32000, "known already");
    assert_eq!(answers[4]["error"]["code"], -32602);
    assert_eq!(answers[6]["result"], "31337");
    let (status, _) = served.post(br#"[{"method":"eth_chainId"}]"#);
    assert_eq!(status, 204);
}

#[test]
fn code_ends_by_gas_or_by_the_clock() {
    let limits = Limits { run_wait_max: SHORT, call_gas_max: u64::MAX / 2, ..Limits::default() };
    let served = working(limits);
    let to = "0x00000000000000000000000000000000000000aa";
    let params =
        |gas: &str| json!([{"to": to, "gas": gas}, "latest", {to: {"code": LOOP}}]).to_string();
    assert_eq!(served.code("eth_call", &params("0x10000")), -32000);
    let started = Instant::now();
    for method in ["eth_call", "eth_estimateGas", "eth_createAccessList"] {
        assert_eq!(served.code(method, &params("0xffffffffffff")), -32005, "{method}");
    }
    let simulated = json!([{"blockStateCalls": [{
        "stateOverrides": {to: {"code": LOOP}},
        "blockOverrides": {"gasLimit": "0xffffffffffff"},
        "calls": [{"to": to}],
    }]}]);
    assert_eq!(served.code("eth_simulateV1", &simulated.to_string()), -32005);
    let traced = |tracer: Value| {
        let mut options = tracer;
        options["stateOverrides"] = json!({to: {"code": LOOP}});
        json!([{"to": to, "gas": "0xffffffffffff"}, "latest", options]).to_string()
    };
    let tracers = [
        json!({}),
        json!({"enableMemory": true}),
        json!({"tracer": "callTracer"}),
        json!({"tracer": "prestateTracer"}),
        json!({"tracer": "4byteTracer"}),
    ];
    for tracer in tracers {
        assert_eq!(served.code("debug_traceCall", &traced(tracer.clone())), -32005, "{tracer}");
    }
    assert!(started.elapsed() < LONG);
}

#[test]
fn a_trace_that_would_fill_the_memory_is_stopped() {
    let served =
        working(Limits { trace_bytes_max: 1 << 20, run_wait_max: LONG, ..Limits::default() });
    let to = "0x00000000000000000000000000000000000000aa";
    let started = Instant::now();
    let options = json!({"enableMemory": true, "stateOverrides": {to: {"code": LOOP}}});
    let params = json!([{"to": to}, "latest", options]).to_string();
    let answer = served.call("debug_traceCall", &params);
    assert_eq!(answer["error"]["code"], -32005, "{answer}");
    assert!(started.elapsed() < LONG);
}

#[test]
fn who_waits_too_long_for_a_turn_hears_that_the_server_is_busy() {
    let limits = Limits {
        runs_max: 1,
        turn_wait_max: Duration::from_millis(50),
        run_wait_max: Duration::from_secs(2),
        call_gas_max: u64::MAX / 2,
        ..Limits::default()
    };
    let served = working(limits);
    let to = "0x00000000000000000000000000000000000000aa";
    let params =
        json!([{"to": to, "gas": "0xffffffffffff"}, "latest", {to: {"code": LOOP}}]).to_string();
    std::thread::scope(|scope| {
        scope.spawn(|| served.call("eth_call", &params));
        std::thread::sleep(SHORT);
        assert_eq!(served.code("eth_call", "[{}]"), -32005);
        assert_eq!(served.result("eth_chainId", "[]"), "0x7a69", "others are served");
    });
}

#[test]
fn a_call_sees_what_it_overrides() {
    let served = working(Limits::default());
    let to = "0x00000000000000000000000000000000000000aa";
    let returned = |code: &str, account: Value, block: Value| {
        // The word on the stack, stored and returned.
        let code = format!("0x{code}5f5260205ff3");
        let mut account = account;
        account["code"] = code.into();
        let params = json!([{"to": to, "from": to}, "latest", {to: account}, block]);
        let word = served.result("eth_call", &params.to_string());
        u64::from_str_radix(&word.as_str().unwrap()[50..], 16).unwrap()
    };
    assert_eq!(returned("43", json!({}), json!({"number": "0x77"})), 0x77);
    assert_eq!(returned("42", json!({}), json!({"time": "0x77777777"})), 0x7777_7777);
    assert_eq!(returned("47", json!({"balance": "0x55"}), json!({})), 0x55);
    let word = |last: &str| format!("0x{}{last}", "0".repeat(62));
    let slots = json!({word("01"): word("07")});
    assert_eq!(returned("600154", json!({"stateDiff": slots}), json!({})), 7);
    assert_eq!(returned("600154", json!({"state": slots}), json!({})), 7);
    assert_eq!(returned("600254", json!({"state": slots}), json!({})), 0);
    let both = json!([{"to": to}, "latest", {to: {"state": {}, "stateDiff": {}}}]).to_string();
    assert_eq!(served.code("eth_call", &both), -32602);
    // The identity, moved to where it usually is not.
    let elsewhere = json!([
        {"to": to, "input": "0x0102"}, "latest",
        {"0x0000000000000000000000000000000000000004": {"movePrecompileToAddress": to}},
    ]);
    assert_eq!(served.result("eth_call", &elsewhere.to_string()), "0x0102");
}

#[test]
fn a_search_for_logs_is_bounded_and_says_how_to_narrow_it() {
    let served =
        Served::still(foreign_chain(), Limits { logs_blocks_max: 10, ..Limits::default() });
    let everything = r#"[{"fromBlock":"earliest","toBlock":"latest"}]"#;
    let answer = served.call("eth_getLogs", everything);
    assert_eq!(answer["error"]["code"], -32005);
    assert!(answer["error"]["message"].as_str().unwrap().contains("fewer blocks"), "{answer}");
    let served = Served::still(foreign_chain(), Limits { logs_max: 5, ..Limits::default() });
    assert_eq!(served.code("eth_getLogs", everything), -32005);
}

#[test]
fn filters_tell_each_thing_once_and_are_bounded() {
    let served = working(Limits { filters_max: 3, ..Limits::default() });
    let logger = deploy(&served);
    let id = |method: &str, params: &str| json!([served.result(method, params)]).to_string();
    let blocks = id("eth_newBlockFilter", "[]");
    let pending = id("eth_newPendingTransactionFilter", "[]");
    let logs = id("eth_newFilter", &json!([{"address": logger}]).to_string());
    assert_eq!(served.code("eth_newBlockFilter", "[]"), -32005);
    let raw = signed(&signers()[0], 1, TxKind::Call(logger), &[]);
    let receipt = served.result("eth_sendRawTransactionSync", &json!([raw]).to_string());
    let changes = |id: &str| served.result("eth_getFilterChanges", id);
    assert_eq!(changes(&blocks), json!([receipt["blockHash"]]));
    assert_eq!(changes(&pending), json!([receipt["transactionHash"]]));
    assert_eq!(changes(&logs), receipt["logs"]);
    assert_eq!(receipt["logs"].as_array().unwrap().len(), 1);
    for id in [&blocks, &pending, &logs] {
        assert_eq!(changes(id), json!([]));
    }
    assert_eq!(served.result("eth_getFilterLogs", &logs), receipt["logs"], "of the newest block");
    assert_eq!(served.result("eth_uninstallFilter", &blocks), true);
    assert_eq!(served.result("eth_uninstallFilter", &blocks), false);
    assert_eq!(served.code("eth_getFilterChanges", &blocks), -32000);
}

/// The plainest of WebSocket clients. Its mask is zero, so what it sends is what it says.
struct Socket(TcpStream);

impl Socket {
    fn open(served: &Served) -> Self {
        let mut stream = served.connect();
        let request = "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    fn send(&mut self, text: &str) -> std::io::Result<()> {
        let mut frame = vec![0x81];
        match u16::try_from(text.len()).unwrap() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame)
    }

    /// The next message.
    fn hear(&mut self) -> std::io::Result<Value> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut length = usize::from(head[1]);
        if length >= 126 {
            let mut long = [0; 8];
            let digits = if length == 126 { &mut long[6..] } else { &mut long[..] };
            self.0.read_exact(digits)?;
            length = u64::from_be_bytes(long) as usize;
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        match head[0] {
            0x81 => Ok(serde_json::from_slice(&text).unwrap()),
            _ => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"id": 1, "method": method, "params": params}).to_string()).unwrap();
        self.hear().unwrap()
    }
}

#[test]
fn subscribers_hear_of_heads_logs_and_waiting_transactions() {
    let served = working(Limits::default());
    let logger = deploy(&served);
    let mut socket = Socket::open(&served);
    assert_eq!(socket.ask("eth_chainId", json!([]))["result"], "0x7a69");
    let mut open = |params: Value| {
        let answer = socket.ask("eth_subscribe", params);
        answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let heads = open(json!(["newHeads"]));
    let logs = open(json!(["logs", {"address": logger}]));
    let other = open(json!(["logs", {"address": Address::ZERO}]));
    let pending = open(json!(["newPendingTransactions"]));
    let whole = open(json!(["newPendingTransactions", true]));
    let raw = signed(&signers()[0], 1, TxKind::Call(logger), &[]);
    let receipt = served.result("eth_sendRawTransactionSync", &json!([raw]).to_string());
    let mut told = [false; 4];
    while told != [true; 4] {
        let notice = socket.hear().unwrap();
        assert_eq!(notice["method"], "eth_subscription");
        let (id, result) =
            (notice["params"]["subscription"].as_str().unwrap(), &notice["params"]["result"]);
        assert_ne!(id, other);
        if id == heads {
            assert_eq!(result["hash"], receipt["blockHash"]);
            told[0] = true;
        } else if id == logs {
            assert_eq!(*result, receipt["logs"][0]);
            told[1] = true;
        } else if id == pending {
            assert_eq!(*result, receipt["transactionHash"]);
            told[2] = true;
        } else if id == whole {
            // It may be mined by now, and is told all the same.
            assert_eq!(result["hash"], receipt["transactionHash"]);
            assert_eq!(result["from"], receipt["from"]);
            told[3] = true;
        }
    }
    assert_eq!(socket.ask("eth_unsubscribe", json!([heads]))["result"], true);
    assert_eq!(socket.ask("eth_unsubscribe", json!([heads]))["result"], false);
}

#[test]
fn subscriptions_are_bounded_and_end_with_their_connection() {
    let served =
        working(Limits { socket_subscriptions_max: 3, subscriptions_max: 4, ..Limits::default() });
    let open = |socket: &mut Socket| socket.ask("eth_subscribe", json!(["newHeads"]));
    let mut first = Socket::open(&served);
    for _ in 0..3 {
        assert!(open(&mut first)["result"].is_string());
    }
    assert_eq!(open(&mut first)["error"]["code"], -32005);
    let mut second = Socket::open(&served);
    assert!(open(&mut second)["result"].is_string());
    assert_eq!(open(&mut second)["error"]["code"], -32005);
    drop(first);
    let started = Instant::now();
    while !open(&mut second)["result"].is_string() {
        assert!(started.elapsed() < LONG, "the places of who left are not given back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ten_thousand_subscriptions_are_served_and_the_next_are_refused() {
    let served = working(Limits::default());
    let batch: Vec<_> = (0..256)
        .map(|id| json!({"id": id, "method": "eth_subscribe", "params": ["newHeads"]}))
        .collect();
    let batch = Value::from(batch).to_string();
    let mut opened = 0;
    let mut sockets: Vec<(Socket, usize)> = (0..40)
        .map(|_| {
            let mut socket = Socket::open(&served);
            socket.send(&batch).unwrap();
            let answers = socket.hear().unwrap();
            let count =
                answers.as_array().unwrap().iter().filter(|one| one["result"].is_string()).count();
            opened += count;
            (socket, count)
        })
        .collect();
    assert_eq!(opened, 10_000);
    let raw = signed(&signers()[0], 0, TxKind::Call(Address::ZERO), &[]);
    let receipt = served.result("eth_sendRawTransactionSync", &json!([raw]).to_string());
    for (socket, count) in &mut sockets {
        for _ in 0..*count {
            assert_eq!(socket.hear().unwrap()["params"]["result"]["hash"], receipt["blockHash"]);
        }
    }
}

#[test]
fn a_silent_socket_is_asked_and_then_closed() {
    let served = working(Limits { socket_silence_max: SHORT, ..Limits::default() });
    let mut socket = Socket::open(&served);
    let mut head = [0; 2];
    socket.0.read_exact(&mut head).unwrap();
    assert_eq!(head, [0x89, 0], "a ping");
    let mut rest = Vec::new();
    let _ = socket.0.read_to_end(&mut rest);
    assert_eq!(rest.first(), Some(&0x88), "then it is closed");
}

#[test]
fn who_does_not_read_is_dropped() {
    let served =
        Served::still(foreign_chain(), Limits { write_wait_max: SHORT, ..Limits::default() });
    let mut socket = Socket::open(&served);
    let call = r#"{"id":1,"method":"debug_traceBlockByNumber","params":["0x2"]}"#;
    let started = Instant::now();
    while socket.send(call).is_ok() {
        assert!(started.elapsed() < LONG, "the deaf are served for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(served.result("eth_blockNumber", "[]"), "0x36");
}

#[test]
fn pages_ask_only_where_they_may() {
    let request = |served: &Served, method: &str, origin: &str| {
        let body = r#"{"id":1,"method":"eth_chainId"}"#;
        let answer = served.talk(
            format!(
                "{method} / HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        String::from_utf8(answer).unwrap()
    };
    let served = working(Limits::default());
    let preflight = request(&served, "OPTIONS", "https://page.example");
    assert!(preflight.contains("access-control-allow-origin: *"), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: content-type"), "{preflight}");
    assert!(request(&served, "POST", "https://page.example").ends_with("\"0x7a69\"}"));
    assert!(request(&served, "GET", "https://page.example").contains("31337"));
    let friend = "https://friend.example";
    let served = Served::working(Limits::default(), Pages::Of(vec![friend.into()]));
    assert!(request(&served, "POST", friend).contains(friend));
    assert!(request(&served, "POST", "https://page.example").starts_with("HTTP/1.1 403"));
    assert_eq!(served.result("eth_chainId", "[]"), "0x7a69", "programs name no origin");
}

#[test]
fn gas_estimates_suffice_and_are_not_far_off() {
    let served = working(Limits::default());
    let logger = deploy(&served);
    let from = signers()[0].address();
    let gas = |call: Value| {
        let gas = served.result("eth_estimateGas", &json!([call]).to_string());
        u64::from_str_radix(&gas.as_str().unwrap()[2..], 16).unwrap()
    };
    assert_eq!(gas(json!({"from": from, "to": Address::ZERO, "value": "0x1"})), 21_000);
    let call = json!({"from": from, "to": logger});
    let least = 21_000 + 2 * 3 + 375;
    let estimate = gas(call.clone());
    assert!((least..least * 103 / 100).contains(&estimate), "{estimate}");
    let poor = json!([{
        "from": Address::repeat_byte(7), "to": logger, "value": "0x1", "maxFeePerGas": "0x2540be400",
    }]);
    assert_eq!(served.code("eth_estimateGas", &poor.to_string()), -32000);
    let list = served.result("eth_createAccessList", &json!([call]).to_string());
    assert_eq!(list["accessList"], json!([]));
}

#[test]
fn the_server_ends_with_its_shutdown() {
    let served = working(Limits::default());
    let mut socket = Socket::open(&served);
    assert!(socket.ask("eth_subscribe", json!(["newHeads"]))["result"].is_string());
    served.shutdown.cancel();
    assert!(socket.hear().is_err());
    let started = Instant::now();
    while TcpStream::connect(served.address).is_ok() {
        assert!(started.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(10));
    }
}
