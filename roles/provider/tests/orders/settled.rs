//! The same, on our own chain with the real contracts: from a deposit to the provider's purse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{
    AddressBook, AuditTerms, Beneficiaries, Chain, Client, Contract, DisputeTerms, Event,
    FirstSeat, Part, Settings, Value, deploy,
};
use assay_evm::clock::SystemClock;
use assay_evm::rpc::{Limits, Pages, Rpc, serve};
use assay_evm::{Genesis, Node, NodeConfig};
use assay_protocol::wire::{Payment as Offered, Refusal, Submission, TopUp};
use assay_protocol::{Address, Amount, B256, Channel, Grant, Key, U256, Voucher};
use assay_provider::{Collecting, Payment};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::paid::buyer;
use crate::script::{CHAIN, Disk, Script, Stage, checked, order, provider_key};

const COIN: u128 = 1_000_000_000_000_000_000;

/// A chain of one validator, and the contracts on it. Dropping it ends its service.
struct Running {
    url: String,
    book: AddressBook,
    _node: Node,
    _stop: tokio_util::sync::DropGuard,
}

impl Running {
    async fn start() -> Self {
        let admin = Key::from_bytes([7; 32]).unwrap();
        let coins = U256::from(1000) * U256::from(COIN);
        let funded = [&admin, &provider_key(), &buyer()].map(|key| (key.address(), coins));
        let config =
            NodeConfig { genesis: Genesis::development(CHAIN.0, &funded), ..NodeConfig::default() };
        let node = Node::start(config, Arc::new(SystemClock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let rpc = Rpc::new(chain, mempool, Arc::new(SystemClock), Limits::default(), Vec::new());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, rpc, Pages::All, stop.clone()));
        let client = Client::connect(&url, Some(&admin)).await.unwrap();
        let settings = settings(admin.address());
        let mut book = AddressBook::new(client.chain_id(), client.genesis(), settings);
        deploy(&client, &mut book, |_, _, _| ()).await.unwrap();
        let chain = Chain::open(&url, book.clone(), Some(&admin)).await.unwrap();
        chain.release_part(Part::Liquidity).await.unwrap();
        chain.send_asy(buyer().address(), Amount(COIN)).await.unwrap();
        Self { url, book, _node: node, _stop: stop.drop_guard() }
    }

    async fn open(&self, key: &Key) -> Chain {
        Chain::open(&self.url, self.book.clone(), Some(key)).await.unwrap()
    }

    /// How the provider is paid here.
    async fn payment(&self) -> Payment {
        let chain = self.open(&provider_key()).await;
        let owner = provider_key().address();
        let at = |contract| self.book.get(contract).unwrap();
        Payment {
            owner,
            accepts: assay_protocol::wire::Accepts {
                channels: at(Contract::Channels),
                market: at(Contract::Receipts),
                token: at(Contract::AssayToken),
                receiver: chain.till_of(owner).await.unwrap(),
                receiver_authorizer: owner,
                withdraw_delay_min: 900,
                credit_max: Amount(4),
                grants: at(Contract::Grants),
            },
            bank: Arc::new(chain),
            confirmations: 0,
            voucher_wait_max: Duration::from_secs(20),
            watch_every: Duration::from_millis(100),
            collecting: Collecting {
                every: Duration::from_millis(200),
                coin_price: Amount(0),
                parts_min: 1,
            },
        }
    }
}

fn settings(admin: Address) -> Settings {
    let socket = "127.0.0.1:1".into();
    Settings {
        admin,
        delay: 0,
        treasury: Address::repeat_byte(0xa1),
        fee_recipient: Address::repeat_byte(0xa2),
        values: BTreeMap::from([(Value::DisputeWindow, U256::from(1))]),
        start: 0,
        beneficiaries: Beneficiaries::all(admin),
        seats: vec![FirstSeat { key: B256::repeat_byte(1), owner: admin, socket }],
        disputes: DisputeTerms::default(),
        audits: AuditTerms::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_reaches_the_providers_purse() {
    let running = Running::start().await;
    let payment = running.payment().await;
    let accepts = payment.accepts.clone();
    let (buying, selling) = (running.open(&buyer()).await, running.open(&provider_key()).await);
    let channel = Channel {
        payer: buyer().address(),
        payer_authorizer: buyer().address(),
        receiver: accepts.receiver,
        receiver_authorizer: accepts.receiver_authorizer,
        token: accepts.token,
        withdraw_delay: 900,
        salt: B256::ZERO,
    };
    let channels = buying.channels().unwrap();
    let id = channel.id(&channels);
    let paid = |nonce, claimable| -> Submission {
        let mut submission = order(nonce);
        submission.order.market = accepts.market;
        submission.signature = submission.order.sign(CHAIN, &buyer());
        let word = Voucher { channel: id, claimable: Amount(claimable) };
        let signature = word.sign(&channels, &buyer());
        let voucher = TopUp { claimable: word.claimable, signature };
        submission.payment = Some(Offered { channel: channel.clone(), voucher });
        submission
    };
    let stage = Stage::paid(Script::new(5, 100), Disk::default().open(), Some(payment)).await;

    let (status, refusal) = stage.submit(&paid(1, 100)).await.err().unwrap();
    let empty = Refusal::Deposit { found: Amount(0), expected: Amount(100) };
    assert_eq!((status, refusal), (402, empty));
    buying.deposit(&channel, Amount(1000)).await.unwrap();
    for nonce in 1..=3 {
        let submission = paid(nonce, 100 * u128::from(nonce));
        checked(&submission, stage.answer(&submission).await.1);
    }

    // The payer leaves; what it bought is paid all the same, and it gets the rest some day.
    buying.start_withdrawal(&channel, Amount(1000)).await.unwrap();
    let mut paid_out = Amount(0);
    for _ in 0..200 {
        paid_out = selling.paid_out(accepts.receiver, id).await.unwrap_or_default();
        if paid_out == Amount(39) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(paid_out, Amount(39));
    let state = selling.channel(id).await.unwrap();
    assert_eq!((state.balance, state.claimed), (Amount(1000), Amount(39)));
    let owner = provider_key().address();
    assert_eq!(selling.covered(owner, id).await.unwrap(), Amount(39));
    // 39 less two and five parts of a hundred, each rounded down.
    assert_eq!(selling.asy_of(owner).await.unwrap(), Amount(38));
    let (_, refusal) = stage.submit(&paid(9, 400)).await.err().unwrap();
    let leaving = Refusal::Deposit { found: Amount(39), expected: Amount(400) };
    assert_eq!(refusal, leaving);
}

/// What agents buy with a payer's money is paid from its channels, whoever signs their vouchers; channels
/// that are spent to the last unit are claimed together, packed; and what is taken back on the chain is void.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_buys_until_its_grant_is_taken_back() {
    let running = Running::start().await;
    let mut payment = running.payment().await;
    // Both answers are collected in one round.
    payment.collecting.every = Duration::from_secs(2);
    let accepts = payment.accepts.clone();
    let (buying, selling) = (running.open(&buyer()).await, running.open(&provider_key()).await);
    let agent = Key::from_bytes([5; 32]).unwrap();
    let channels = buying.channels().unwrap();
    let channel = |signer: &Key| Channel {
        payer: buyer().address(),
        payer_authorizer: signer.address(),
        receiver: accepts.receiver,
        receiver_authorizer: accepts.receiver_authorizer,
        token: accepts.token,
        withdraw_delay: 900,
        salt: B256::ZERO,
    };
    let grant = |spend| {
        let word = Grant {
            registry: accepts.grants,
            issuer: buyer().address(),
            holder: agent.address(),
            models: Vec::new(),
            asset: Address::ZERO,
            spend: Amount(spend),
            rate: 0,
            from: 0,
            until: u64::MAX,
            parent: B256::ZERO,
            nonce: U256::ZERO,
        };
        word.sign(CHAIN, &buyer())
    };
    // An order of the agent, paid by the channel whose vouchers `signer` signs.
    let bought = |nonce, signer: &Key, spend, claimable| -> Submission {
        let (mut submission, line) = (order(nonce), grant(spend));
        submission.order.market = accepts.market;
        submission.order.buyer = agent.address();
        submission.order.max_price = Amount(103);
        submission.order.grant = line.grant.digest(CHAIN);
        submission.signature = submission.order.sign(CHAIN, &agent);
        submission.grants = vec![line];
        let channel = channel(signer);
        let word = Voucher { channel: channel.id(&channels), claimable: Amount(claimable) };
        let signature = word.sign(&channels, signer);
        let voucher = TopUp { claimable: word.claimable, signature };
        submission.payment = Some(Offered { channel, voucher });
        submission
    };
    let stage = Stage::paid(Script::new(5, 100), Disk::default().open(), Some(payment)).await;
    let signers = [buyer(), agent.clone()];
    let ids = signers.each_ref().map(|signer| channel(signer).id(&channels));
    for (nonce, signer) in [(1, &signers[0]), (2, &signers[1])] {
        buying.deposit(&channel(signer), Amount(100)).await.unwrap();
        // The voucher allows what the answer costs, and no more.
        let submission = bought(nonce, signer, 1000, 13);
        checked(&submission, stage.answer(&submission).await.1);
    }
    let mut paid_out = [Amount(0); 2];
    for _ in 0..200 {
        for (paid_out, id) in paid_out.iter_mut().zip(ids) {
            *paid_out = selling.paid_out(accepts.receiver, id).await.unwrap_or_default();
        }
        if paid_out == [Amount(13); 2] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(paid_out, [Amount(13); 2]);
    let happened = selling.events(0, selling.height().await.unwrap()).await.unwrap();
    let claims = happened.iter().filter(|one| matches!(one.event, Event::Claimed { .. }));
    // A packed claim is one log that tells of all its rows.
    let logs: Vec<_> = claims.map(|one| (one.transaction, one.index)).collect();
    assert!(logs.len() == 2 && logs[0] == logs[1], "claimed by {logs:?}");

    let taken_back = bought(3, &signers[1], 999, 50);
    let gone = taken_back.order.grant;
    buying.revoke(&[gone]).await.unwrap();
    let (status, refusal) = stage.submit(&taken_back).await.err().unwrap();
    assert_eq!((status, refusal), (403, Refusal::GrantRevoked { grant: gone }));
    let other = bought(4, &signers[1], 1000, 50);
    checked(&other, stage.answer(&other).await.1);
}
