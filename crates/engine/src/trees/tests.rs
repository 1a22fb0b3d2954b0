use assay_evidence::op::Source;
use assay_protocol::{leaf_hash, root};

use super::*;
use crate::testing::{AWKWARD, NANO, known};

/// The root above a run, as `Trees.rangeRoot` of the contracts computes it.
fn range_root(mut run: Vec<B256>, mut first: u64, depth: u32, proof: &[B256]) -> B256 {
    let mut proof = proof.iter().copied();
    for _ in 0..depth {
        if first % 2 == 1 {
            run.insert(0, proof.next().unwrap());
        }
        if run.len() % 2 == 1 {
            run.push(proof.next().unwrap());
        }
        run = run.chunks(2).map(|pair| root([pair[0], pair[1]])).collect();
        first /= 2;
    }
    assert_eq!((run.len(), proof.next()), (1, None));
    run[0]
}

#[test]
fn runs_of_leaves_lead_to_the_roots_of_the_manifest() {
    for (loaded, known) in [(&NANO, &known::NANO), (&AWKWARD, &known::AWKWARD)] {
        let trees = Trees::new(Arc::clone(loaded));
        let mut told = (0, 1);
        trees.build(&mut |done, all| told = (done, all)).unwrap();
        assert_eq!(told, (trees.weight_leaves(), trees.weight_leaves()));
        let parts = &loaded.manifest.parts;
        for tensor in 0..trees.tensors().len() {
            let Tensor { leaf: start, .. } = trees.tensors()[tensor];
            for (leaf, count) in [(0, 1), (0, 2), (1, 3), (2, 4), (3, 2)] {
                let hash = |leaf| {
                    let source = Source::Weights { tensor: tensor as u32, leaf };
                    known.leaves.get(&source).map(|data| leaf_hash(data))
                };
                let run: Option<Vec<B256>> = (leaf..leaf + count).map(hash).collect();
                let Some(run) = run else { continue };
                let proof = trees.weights(start + leaf, count);
                let depth = depth(trees.weight_leaves());
                assert_eq!(range_root(run, start + leaf, depth, &proof), parts.weights);
            }
        }
        let leaves = commit::rope_leaves(loaded.model.shape());
        for (leaf, count) in [(0, 1), (1, 1), (3, 2), (7, 6), (100, 28)] {
            let hash = |leaf| leaf_hash(&known.leaves[&Source::Rope { leaf }]);
            let run = (leaf..leaf + count).map(hash).collect();
            let proof = trees.rope(leaf, count);
            assert_eq!(range_root(run, leaf, depth(leaves), &proof), parts.rope);
        }
    }
}

#[test]
fn every_leaf_of_the_weights_can_be_asked_for() {
    let trees = Trees::new(Arc::clone(&AWKWARD));
    let leaves = trees.weight_leaves();
    let depth = depth(leaves);
    for index in (0..leaves).step_by(97).chain([leaves - 1]) {
        let WeightProof { data, proof } = trees.weight(index).unwrap();
        let found = range_root(vec![leaf_hash(&data)], index, depth, &proof);
        assert_eq!(found, AWKWARD.manifest.parts.weights, "leaf {index} of {leaves}");
    }
    for beyond in [leaves, u64::MAX] {
        assert_eq!(trees.weight(beyond), None);
    }
    let none: Vec<B256> = Vec::new();
    for (first, count) in [(0, 0), (leaves, 1), (leaves - 1, 2), (1, u64::MAX)] {
        assert_eq!(trees.weights(first, count), none, "{count} from {first} on");
    }
}

#[test]
fn runs_across_blocks_lead_to_the_root() {
    let trees = Trees::new(Arc::clone(&NANO));
    let (leaves, hash) =
        (trees.weight_leaves(), |index| leaf_hash(&trees.weight(index).unwrap().data));
    assert!(leaves > 3 << BLOCK_LEVELS, "several blocks");
    for (first, count) in [(1023, 2), (1020, 1030), (2048, 1024), (1000, 1), (leaves - 5, 5)] {
        let run = (first..first + count).map(hash).collect();
        let found = range_root(run, first, depth(leaves), &trees.weights(first, count));
        assert_eq!(found, NANO.manifest.parts.weights, "{count} from {first} on");
    }
}

#[test]
fn the_steps_are_the_program_of_the_manifest() {
    let trees = Trees::new(Arc::clone(&NANO));
    let found = root(trees.steps().iter().map(|step| leaf_hash(&step.data())));
    assert_eq!(found, NANO.manifest.parts.program);
}

#[test]
fn altered_weights_are_noticed() {
    let Loaded { id, ref manifest, ref model, .. } = **AWKWARD;
    let (mut manifest, model) = (manifest.clone(), model.clone());
    manifest.parts.weights = B256::ZERO;
    let altered = Loaded { id, name: String::new(), manifest, model, tokenizer: None, chat: None };
    let error = Trees::new(Arc::new(altered)).build(&mut |_, _| ()).unwrap_err();
    assert!(matches!(error, PackageError::Altered { what: "weights", .. }), "{error}");
}
