//! What a chain does when its disk does not.

use alloy_consensus::Receipt as Outcome;
use alloy_primitives::{Address, B256, Bytes, Log};

use super::rows::{judge, receipts_row};
use super::{Chain, ChainError, Options};
use crate::block::Receipt;
use crate::execute::{Attributes, Executed};
use crate::genesis::Genesis;
use crate::state::tests::Disk;
use crate::state::{Store, StoreError};

fn next(chain: &Chain) -> Executed {
    let parent = chain.head();
    let attributes = Attributes {
        timestamp: parent.header.timestamp + 1,
        beneficiary: Address::ZERO,
        gas_limit: parent.header.gas_limit,
        prev_randao: B256::ZERO,
        parent_beacon_root: B256::ZERO,
        extra_data: Bytes::new(),
    };
    let built = chain.executor().build(&parent, &attributes, [], || false);
    built.expect("an empty block can be built").executed
}

#[test]
fn a_full_disk_stops_the_head_and_nothing_else() {
    let disk = Disk::default();
    let store = {
        let disk = disk.clone();
        Store::on(move || disk.clone()).expect("a new disk")
    };
    let genesis = Genesis::development(7, &[]);
    let chain = Chain::on(store, &genesis, [], Options::default()).expect("a new chain");
    chain.append(next(&chain)).expect("the disk works");
    let (head, root) = (chain.head().header.hash(), chain.head().state.root());
    let mut heard = chain.subscribe();

    for left in 0..4 {
        disk.fail_after(Some(left));
        let block = next(&chain);
        let hash = block.block.hash();
        let error = chain.append(block).expect_err("the disk is full");
        assert!(matches!(error, ChainError::Store(StoreError::Full)), "{error}");
        assert_eq!(chain.head().header.hash(), head);
        // What is in memory is read on; the block waits.
        assert_eq!(chain.state(head).expect("the head's state").root(), root);
        assert!(chain.parent(hash).is_ok());
        assert!(heard.try_recv().is_err(), "nobody was told");
    }
    disk.fail_after(None);
    let block = next(&chain);
    let hash = block.block.hash();
    chain.append(block).expect("there is room again");
    assert_eq!(chain.head().header.hash(), hash);
    assert_eq!(heard.try_recv().expect("now they were").block.hash(), hash);
}

#[test]
fn rows_of_another_block_are_not_taken_for_it() {
    let genesis = Genesis::development(7, &[]);
    let chain = Chain::on(Store::memory(), &genesis, [], Options::default()).expect("a new chain");
    chain.append(next(&chain)).expect("a store in memory");
    let header = chain.head().header.clone();
    let row = |row: Result<Option<Bytes>, StoreError>| row.expect("readable").expect("there");
    let (body, receipts) = (row(chain.store().body(1)), row(chain.store().receipts(1)));
    assert_eq!(judge(&header, &body, &receipts).expect("its own"), [B256::ZERO; 0]);
    let longer = [&body[..], &[0]].concat();
    let receipt = Receipt::Eip1559(Outcome::<Log>::default().with_bloom());
    let one_more = receipts_row(&[receipt]);
    for (body, receipts) in
        [(&longer[..], &receipts[..]), (&body, &one_more), (&body, b"\x01"), (b"", &receipts)]
    {
        judge(&header, body, receipts).expect_err("another's");
    }
}
