//! Roots and proofs, against another implementation of the trie.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::proof::verify_proof;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::trie::{Edit, Trie};
use super::{Dice, Model, State, address, changes};

#[test]
fn nothing_has_the_empty_root() {
    let state = State::default();
    assert_eq!(state.root(), EMPTY_ROOT_HASH);
    assert_eq!(state.root(), Model::default().root());
    let proof = state.proof(&Address::ZERO, &[B256::ZERO]);
    assert_eq!((proof.account_proof.len(), proof.storage_hash), (0, EMPTY_ROOT_HASH));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blocks_lead_to_the_same_root_as_a_rebuild(seed in any::<u64>(), length in 1..12_usize) {
        let mut dice = Dice(seed);
        let (mut model, mut state) = (Model::default(), State::default());
        let mut before = Vec::new();
        let mut all = super::Changes::default();
        for _ in 0..length {
            let changes = changes(&mut dice);
            before.push((state.clone(), model.clone()));
            model.apply(&changes);
            state = state.apply(&changes);
            all = all.then(changes);
            prop_assert_eq!(state.root(), model.root());
        }
        prop_assert_eq!(State::default().apply(&all).root(), state.root());
        prop_assert_eq!(State::default().apply(&model.whole()).root(), state.root());
        before.push((state, model));
        for (state, model) in before {
            check(&state, &model, &mut dice)?;
        }
    }

    #[test]
    fn the_order_of_blocks_that_share_nothing_does_not_matter(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let mut model = Model::default();
        model.apply(&changes(&mut dice));
        model.apply(&changes(&mut dice));
        let whole = model.whole();
        let mut parts: Vec<_> = whole
            .accounts
            .iter()
            .map(|(address, change)| super::Changes {
                accounts: [(*address, change.clone())].into(),
                ..Default::default()
            })
            .collect();
        parts.sort_by_cached_key(|_| dice.below(u64::MAX));
        let state = parts.iter().fold(State::default(), |state, part| state.apply(part));
        prop_assert_eq!(state.root(), model.root());
    }
}

/// Reads and proofs of `state` say what is in `model`.
fn check(state: &State, model: &Model, dice: &mut Dice) -> Result<(), TestCaseError> {
    for _ in 0..6 {
        let address = address(dice);
        let found = model.0.get(&address);
        prop_assert_eq!(state.account(&address), found.map(|(account, _)| *account));
        let slots: Vec<_> = (0..4).map(|_| B256::from(U256::from(dice.below(120)))).collect();
        let proof = state.proof(&address, &slots);
        let leaf = found.map(|(account, _)| {
            alloy_rlp::encode(TrieAccount {
                nonce: account.nonce,
                balance: account.balance,
                storage_root: state.storage_root(&address),
                code_hash: account.code_hash,
            })
        });
        let key = Nibbles::unpack(keccak256(address));
        prop_assert!(verify_proof(state.root(), key, leaf, &proof.account_proof).is_ok());
        for (slot, proof) in slots.iter().zip(&proof.storage_proof) {
            let value = found.and_then(|(_, slots)| slots.get(&(*slot).into())).copied();
            prop_assert_eq!(state.slot(&address, (*slot).into()), value.unwrap_or_default());
            prop_assert_eq!(proof.value, value.unwrap_or_default());
            let key = Nibbles::unpack(keccak256(slot));
            let value = value.map(alloy_rlp::encode);
            let checked = verify_proof(state.storage_root(&address), key, value, &proof.proof);
            prop_assert!(checked.is_ok(), "{checked:?}");
        }
    }
    Ok(())
}

/// Keys that share long beginnings, so that there are extensions, and nodes shorter than a hash.
fn key() -> impl Strategy<Value = B256> {
    let nibble = prop_oneof![Just(0_u8), Just(1), Just(0x10), Just(0xf3)];
    (prop_oneof![Just(0_usize), Just(1), 20..32_usize], nibble, 0..3_u8).prop_map(|(at, x, end)| {
        let mut key = B256::ZERO;
        key[at] = x;
        key[31] |= end;
        key
    })
}

fn value() -> impl Strategy<Value = U256> {
    prop_oneof![1..5_u64, Just(u64::MAX)].prop_map(U256::from)
}

fn root(leaves: impl Iterator<Item = (B256, U256)>) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in leaves {
        builder.add_leaf(Nibbles::unpack(key), &alloy_rlp::encode(value));
    }
    builder.root()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_edits_of_crowded_keys_lead_to_the_right_root(
        batches in vec(btree_map(key(), prop::option::weighted(0.6, value()), 0..12), 1..8),
        asked in vec(key(), 6),
    ) {
        let mut trie = Trie::default();
        let mut plain = BTreeMap::new();
        for batch in batches {
            let edits: Vec<Edit<U256>> = batch.into_iter().collect();
            trie = trie.edit(&edits);
            for (key, value) in edits {
                match value {
                    Some(value) => plain.insert(key, value),
                    None => plain.remove(&key),
                };
            }
            prop_assert_eq!(trie.root(), root(plain.iter().map(|(k, v)| (*k, *v))));
            for key in plain.keys().chain(&asked) {
                prop_assert_eq!(trie.get(key), plain.get(key));
                let value = plain.get(key).map(alloy_rlp::encode);
                let proof = trie.proof(key);
                let checked = verify_proof(trie.root(), Nibbles::unpack(key), value, &proof);
                prop_assert!(checked.is_ok(), "{checked:?}");
            }
        }
    }

    #[test]
    fn large_batches_of_spread_keys_lead_to_the_right_root(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let mut trie = Trie::default();
        let mut plain: BTreeMap<B256, Option<U256>> = BTreeMap::new();
        for _ in 0..2 {
            let mut batch = BTreeMap::new();
            for _ in 0..dice.below(300) {
                let value = Some(U256::from(1 + dice.below(9))).filter(|_| dice.below(3) > 0);
                batch.insert(keccak256([dice.below(200) as u8]), value);
            }
            plain.extend(batch.clone());
            let edits: Vec<_> = batch.into_iter().collect();
            trie = trie.edit(&edits);
            let leaves = plain.iter().filter_map(|(key, value)| value.map(|value| (*key, value)));
            prop_assert_eq!(trie.root(), root(leaves));
        }
    }
}

#[test]
fn a_trie_that_loses_all_is_empty() {
    let edits: Vec<_> = (0..=255_u8).map(|n| (keccak256([n]), Some(U256::from(n)))).collect();
    let mut edits = edits;
    edits.sort_unstable();
    let trie = Trie::default().edit(&edits);
    let removals: Vec<Edit<U256>> = edits.iter().map(|(key, _)| (*key, None)).collect();
    assert_eq!(trie.edit(&removals).root(), EMPTY_ROOT_HASH);
    for (key, value) in &edits {
        let rest: Vec<_> = removals.iter().filter(|(other, _)| other != key).cloned().collect();
        let single = trie.edit(&rest);
        let value = value.unwrap_or_default();
        assert_eq!(single.root(), root([(*key, value)].into_iter()));
        assert!(value.length() > 0 && single.proof(key).len() == 1);
    }
}
