//! Another client's chain, from Homestead to BPO2, gives the same roots here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use assay_evm::{At, Block, BlockError, Chain, Commitment, Genesis, ImportError, Options};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/execution-apis")
}

fn genesis() -> Genesis {
    Genesis::from_json(&std::fs::read(vectors().join("genesis.json")).unwrap()).unwrap()
}

fn blocks() -> Vec<u8> {
    std::fs::read(vectors().join("chain.rlp")).unwrap()
}

fn open() -> std::sync::Arc<Chain> {
    Chain::open(&genesis(), None, [], Options::default()).unwrap()
}

/// Every block is judged by every root: state, transactions, receipts (also those of before
/// Byzantium, which name a state each), requests, bloom and gas.
#[test]
fn all_blocks_of_execution_apis_give_the_same_roots() {
    let chain = open();
    let added = chain.import(blocks().as_slice(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(added, 54);
    let head: B256 =
        "0xd226371d0b1551adb03fb52b71f08e3e11247fe9b1af994768af8cdaa8e7dcd7".parse().unwrap();
    assert_eq!(chain.head().header.hash(), head);
    let transactions: usize =
        (0..=54).map(|n| chain.block(At::Number(n)).unwrap().unwrap().transactions.len()).sum();
    assert_eq!(transactions, 249);
    let again = chain.import(blocks().as_slice(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again, 0, "what is final already is passed over");
}

/// One changed field at a time, in each block: nothing is taken at its word.
#[test]
fn a_block_with_any_commitment_changed_is_refused() {
    let chain = open();
    let bytes = blocks();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let block = Block::read(&mut rest, |_| None).unwrap();
        let parent = chain.parent(block.header.parent_hash).unwrap();
        let judge = |change: &dyn Fn(&mut alloy_consensus::Header)| {
            let mut header = block.header.inner().clone();
            change(&mut header);
            let changed =
                Block { header: alloy_primitives::Sealable::seal_slow(header), ..block.clone() };
            chain.executor().validate(&parent, changed).expect_err("it was changed")
        };
        let root = |error: BlockError| match error {
            BlockError::Root { what, .. } => what,
            other => panic!("{other}"),
        };
        let wrong = B256::repeat_byte(1);
        assert_eq!(root(judge(&|h| h.state_root = wrong)), Commitment::State);
        assert_eq!(root(judge(&|h| h.receipts_root = wrong)), Commitment::Receipts);
        assert_eq!(root(judge(&|h| h.transactions_root = wrong)), Commitment::Transactions);
        assert!(matches!(judge(&|h| h.gas_used += 1), BlockError::GasUsed { .. }));
        assert_eq!(judge(&|h| h.logs_bloom.0[3] ^= 1), BlockError::Bloom);
        assert!(matches!(judge(&|h| h.gas_limit *= 2), BlockError::GasLimit { .. }));
        if parent.header.timestamp > 0 {
            assert!(matches!(judge(&|h| h.timestamp = 0), BlockError::Timestamp { .. }));
        }
        assert!(matches!(judge(&|h| h.number += 1), BlockError::Number { .. }));
        assert!(matches!(judge(&|h| h.parent_hash = wrong), BlockError::Parent { .. }));
        if block.header.base_fee_per_gas.is_some() {
            assert!(matches!(judge(&|h| h.base_fee_per_gas = Some(7)), BlockError::BaseFee { .. }));
        }
        if block.header.requests_hash.is_some() {
            assert_eq!(root(judge(&|h| h.requests_hash = Some(wrong))), Commitment::Requests);
        }
        chain.append(chain.executor().validate(&parent, block).unwrap()).unwrap();
    }
}

#[test]
fn a_torn_file_gives_the_blocks_before_the_tear() {
    let chain = open();
    let bytes = blocks();
    let torn = &bytes[..bytes.len() - 1];
    let error = chain.import(torn, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, ImportError::Read(_)), "{error}");
    assert_eq!(chain.head().header.number, 53);
}

#[test]
fn what_is_no_block_is_refused_in_bounded_memory() {
    let chain = open();
    let import = |bytes: &[u8]| chain.import(bytes, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(import(&[0xc0]), ImportError::Decode { position: 0, .. }));
    assert!(matches!(import(&[0xff; 64]), ImportError::Size { position: 0, .. }));
    assert!(matches!(import(&[0xf8, 2, 0xc0, 0xc0]), ImportError::Decode { .. }));
}
