//! Several validators of one EVM chain, on the loopback interface: they agree on transfers, on the
//! state after them, and on who sits next.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "a failed test says where")]

use std::net::TcpListener;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_eips::Encodable2718;
use alloy_evm::Evm as _;
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address};
use alloy_sol_types::{SolValue, sol};
use assay_evm::clock::SystemClock;
use assay_evm::consensus::simplex::{Cluster, Patience, Settings, public_key, start, verifier};
use assay_evm::consensus::{Application as _, Member, MemberConfig, NodeKey, Peer, Seat, VERIFIER};
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::mempool::{Head, Limits, Mempool};
use assay_evm::{Chain, Genesis, Options};

const CHAIN: u64 = 31_337;
const CONTRACT: Address = address!("0x00000000000000000000000000000000000005ea");

sol! {
    struct Listed { bytes32 key; address owner; uint96 weight; string socket; }
}

fn signer() -> Signer {
    mnemonic::accounts(mnemonic::DEVELOPMENT, 1).remove(0)
}

fn transfer(nonce: u64, to: Address, data: &[u8], value: u64) -> Vec<u8> {
    let draft = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value: U256::from(value),
        input: Bytes::copy_from_slice(data),
        ..Default::default()
    };
    signer().sign_transaction(draft).encoded_2718()
}

/// A contract that lists `few` until somebody calls it without data, and `many` from then on.
fn contract(few: &[Seat], many: &[Seat]) -> Bytes {
    let answer = |seats: &[Seat]| {
        let listed = seats.iter().map(|seat| Listed {
            key: seat.key,
            owner: seat.owner,
            weight: alloy_primitives::aliases::U96::from(1),
            socket: seat.socket.clone(),
        });
        listed.collect::<Vec<_>>().abi_encode()
    };
    let (few, many) = (answer(few), answer(many));
    let push =
        |number: usize| [&[0x61][..], &u16::try_from(number).unwrap().to_be_bytes()].concat();
    // PUSH2 length, PUSH2 offset, PUSH1 0, CODECOPY, PUSH2 length, PUSH1 0, RETURN
    let give = |length: usize, offset: usize| {
        [&push(length)[..], &push(offset), &[0x60, 0, 0x39], &push(length), &[0x60, 0, 0xf3]]
            .concat()
    };
    // CALLDATASIZE, PUSH2 view, JUMPI, PUSH1 1, PUSH1 0, SSTORE, STOP
    let set = [&[0x36][..], &push(11), &[0x57, 0x60, 1, 0x60, 0, 0x55, 0x00]].concat();
    // JUMPDEST, PUSH1 0, SLOAD, PUSH2 many, JUMPI
    let view = [&[0x5b, 0x60, 0, 0x54][..], &push(11 + 8 + 15), &[0x57]].concat();
    assert_eq!((set.len(), view.len(), give(0, 0).len()), (11, 8, 15));
    let code_length = 11 + 8 + 15 + 1 + 15;
    let give_few = give(few.len(), code_length);
    let give_many = [&[0x5b][..], &give(many.len(), code_length + few.len())].concat();
    [&set[..], &view, &give_few, &give_many, &few, &many].concat().into()
}

/// A validator, or one to be.
struct Validator {
    member: Member,
    mempool: Arc<Mempool>,
    node: Option<Cluster>,
    settings: Settings,
}

struct Network {
    validators: Vec<Validator>,
    genesis: Genesis,
    _folder: tempfile::TempDir,
}

impl Network {
    fn new(count: u8, epoch_length: u64, listed: Option<usize>) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let keys: Vec<_> =
            (1..=count).map(|node| NodeKey::from_secret(B256::repeat_byte(node))).collect();
        let listeners: Vec<_> =
            keys.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let places: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let peers: Vec<_> = keys
            .iter()
            .zip(&places)
            .map(|(key, place)| Peer { key: public_key(key).unwrap(), socket: place.to_string() })
            .collect();
        let seats: Vec<_> = peers.iter().cloned().map(Seat::from).collect();
        let mut genesis = Genesis::development(CHAIN, &[(signer().address(), U256::MAX >> 8)]);
        let code = contract(&seats[..listed.unwrap_or(1)], &seats);
        genesis.0.alloc.insert(CONTRACT, GenesisAccount::default().with_code(Some(code)));
        let epoch_length = NonZeroU64::new(epoch_length).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let validators = keys.into_iter().zip(&places).enumerate().map(|(index, (key, place))| {
            let chain =
                Chain::open(&genesis, None, [verifier(&genesis)], Options::default()).unwrap();
            let config = MemberConfig {
                contract: listed.map(|_| CONTRACT),
                epoch_length,
                idle: Duration::from_secs(1),
                ..MemberConfig::of(seats.clone())
            };
            let head = Head::after(&chain.head(), chain.executor(), config.gas_limit);
            let mempool = Mempool::new(CHAIN, Limits::default(), head);
            let clock = Arc::new(SystemClock);
            let member = Member::new(chain, mempool.clone(), clock, &genesis, config).unwrap();
            let settings = Settings {
                directory: folder.path().join(index.to_string()),
                key,
                listen: *place,
                peers: peers.clone(),
                epoch_length,
                // A busy machine is slow, not dead.
                patience: Patience {
                    leader: Duration::from_secs(3),
                    votes: Duration::from_secs(4),
                    repeat: Duration::from_secs(4),
                    silence: Duration::from_secs(6),
                    fetch: Duration::from_secs(1),
                },
                threads: 1,
            };
            Validator { member, mempool, node: None, settings }
        });
        Self { validators: validators.collect(), genesis, _folder: folder }
    }

    fn run(&mut self, index: usize) {
        let validator = &mut self.validators[index];
        validator.node = Some(start(validator.member.clone(), validator.settings.clone()).unwrap());
    }

    fn chain(&self, index: usize) -> &Chain {
        self.validators[index].member.chain()
    }

    fn nonce(&self, index: usize) -> u64 {
        let account = self.chain(index).head().state.account(&signer().address());
        account.map_or(0, |account| account.nonce)
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn four_validators_agree_on_transfers_and_on_the_state_after_them() {
    let mut network = Network::new(4, 1_000_000, None);
    (0..4).for_each(|index| network.run(index));
    let to = Address::repeat_byte(0x77);
    // All are given to one validator; the leaders hear of them.
    for nonce in 0..100 {
        network.validators[2].mempool.add_raw(&transfer(nonce, to, &[], 3)).unwrap();
    }
    (0..4).for_each(|index| until("transfers", || network.nonce(index) == 100));
    let height = (0..4).map(|index| network.chain(index).head().header.number).min().unwrap();
    for index in 0..4 {
        let chain = network.chain(index);
        let account = chain.head().state.account(&to).unwrap();
        assert_eq!(account.balance, U256::from(300));
        let ours = chain.header(height).unwrap().unwrap();
        let theirs = network.chain(0).header(height).unwrap().unwrap();
        assert_eq!((ours.hash(), ours.state_root), (theirs.hash(), theirs.state_root));
        until("an empty mempool", || network.validators[index].mempool.status().pending == 0);
    }
}

#[test]
fn a_chain_grows_from_one_validator_to_four_by_its_contract() {
    let mut network = Network::new(4, 6, Some(1));
    network.run(0);
    until("the first epoch", || network.chain(0).head().header.number >= 7);
    assert_eq!(network.validators[0].member.committee(1).unwrap().len(), 1);
    // The others follow from genesis, and one transaction seats them.
    (1..4).for_each(|index| network.run(index));
    network.validators[0].mempool.add_raw(&transfer(0, CONTRACT, &[], 0)).unwrap();
    for index in 0..4 {
        until("four seats", || {
            let node = network.validators[index].node.as_ref().unwrap();
            let position = *node.position().borrow();
            position.seats == 4 && position.seated
        });
    }
    let height = network.chain(0).head().header.number;
    (0..4).for_each(|index| {
        until("blocks of four", || network.chain(index).head().header.number > height + 3);
    });
    let hash = |index| network.chain(index).header(height + 3).unwrap().unwrap().hash();
    assert!((1..4).all(|index| hash(index) == hash(0)));
}

#[test]
fn a_contract_asks_the_chain_whether_evidence_holds() {
    let network = Network::new(1, 10, None);
    let chain = network.chain(0);
    let head = chain.head();
    let env = chain.executor().env(&head.header);
    let mut evm = chain.executor().evm(head.view(), env);
    let junk = Bytes::from_static(b"no evidence");
    let answer = evm.transact_system_call(Address::ZERO, VERIFIER, junk).unwrap();
    assert!(answer.result.is_success());
    assert_eq!(answer.result.output(), Some(&Bytes::new()));
    let plain = Chain::open(&network.genesis, None, [], Options::default()).unwrap();
    assert_eq!(plain.genesis_hash(), chain.genesis_hash());
}
