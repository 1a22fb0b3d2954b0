//! A trace is what its rules say, leaf by leaf; `op::recompute` is the plain form of every rule.

use assay_evidence::dispute::Trace as _;
use assay_evidence::op::{self, Check, FixedLeaf, WideLeaf, recompute};
use assay_models::Model;
use assay_protocol::{Assurance, Terms, keccak256};

use super::*;
use crate::testing::{AWKWARD, NANO, answer, cpu, filtered, greedy, known, penalised, plain};

fn trace(loaded: &Arc<Loaded>, answer: &Answer) -> Trace {
    Trace::compute(Arc::clone(loaded), cpu(), answer, &mut |_, _| ()).unwrap()
}

/// Every leaf follows from those before it by its rule, advice excepted, and hangs below the root.
fn every_leaf_is_right(trace: &Trace) {
    let claim = trace.claim();
    (0..claim.positions()).into_par_iter().for_each(|position| {
        for op in 0..claim.ops() {
            let nodes = trace.leaves(position, op);
            let leaves = op::leaves(&claim.layout(position, op));
            let mut advised = advice(trace, position, op).into_iter();
            let mut hashes = Vec::new();
            for leaf in 0..leaves {
                let place = Place { position, op, leaf };
                let found = trace.open(Source::Trace(place)).unwrap().into_owned();
                let right = recompute(&claim, trace, place)
                    .unwrap()
                    .unwrap_or_else(|| WideLeaf::write(&[advised.next().unwrap()]).to_vec());
                assert_eq!(found, right, "{place:?}");
                hashes.push(leaf_hash(&found));
            }
            assert_eq!(advised.next(), None, "every advice has its leaf");
            assert_eq!(trace.open(Source::Trace(Place { position, op, leaf: leaves })), None);
            assert_eq!(nodes, Nodes::new(hashes), "op {op} at {position}");
            let (index, proof) = trace.spine().open(Place { position, op, leaf: 0 }, &nodes);
            assert_eq!(fold(nodes.node(0, 0), index, &proof), trace.spine().root());
        }
    });
    assert_eq!(
        trace.open(Source::Trace(Place { position: claim.positions(), op: 0, leaf: 0 })),
        None
    );
    assert_eq!(trace.open(Source::Trace(Place { position: 0, op: claim.ops(), leaf: 0 })), None);
}

fn fold(leaf: B256, index: u64, proof: &[B256]) -> B256 {
    proof.iter().enumerate().fold(leaf, |node, (height, sibling)| {
        let right = index >> height & 1 == 1;
        assay_protocol::root(if right { [*sibling, node] } else { [node, *sibling] })
    })
}

/// The advice that belongs into an op, from its logits.
fn advice(trace: &Trace, position: u32, op: u32) -> Vec<u64> {
    let claim = trace.claim();
    let Some(step) = claim.program.get(op as usize) else { return Vec::new() };
    if step.kind != Kind::Sample || !claim.answers(position) {
        return Vec::new();
    }
    let op = if claim.sampling().adjusted { op } else { step.inputs[0] };
    let vocab = claim.model.vocab as usize;
    let leaf = |leaf| {
        let data = trace.open(Source::Trace(Place { position, op, leaf })).unwrap();
        FixedLeaf::read(&data).unwrap().0
    };
    let logits: Vec<i32> = (0..vocab.div_ceil(32) as u64).flat_map(leaf).collect();
    op::advice(claim.choice, &logits[..vocab])
}

/// The trace of a model's own answer: every leaf, every check, and the receipt's state.
fn agrees(loaded: &Arc<Loaded>, terms: Terms, tokens: u32) {
    let answer = answer(loaded, terms, tokens);
    let trace = trace(loaded, &answer);
    every_leaf_is_right(&trace);
    assert_eq!(trace.states(), answer.states);
    let claim = trace.claim();
    for position in (0..claim.positions()).filter(|position| claim.answers(*position)) {
        for (kind, check) in
            [(Kind::Sample, Check::Kth), (Kind::Sample, Check::Nucleus), (Kind::Token, Check::Link)]
        {
            let op = op_of(&trace, kind);
            assert!(
                op::check(&claim, &trace, position, op, check).unwrap(),
                "{check:?} at {position}"
            );
        }
    }
}

fn op_of(trace: &Trace, kind: Kind) -> u32 {
    trace.claim().program.iter().position(|step| step.kind == kind).unwrap() as u32
}

#[test]
fn every_leaf_of_a_greedy_answer_follows_from_its_rule() {
    agrees(&NANO, greedy(&NANO, 5), 4);
    // One position more than a chunk, a block of attention and a leaf of scores hold.
    agrees(&AWKWARD, greedy(&AWKWARD, 66), 3);
}

#[test]
fn every_leaf_of_a_drawn_answer_follows_from_its_rule() {
    agrees(&NANO, plain(&NANO, 1), 3);
    agrees(&AWKWARD, plain(&AWKWARD, 3), 3);
}

#[test]
fn every_leaf_of_a_filtered_answer_follows_from_its_rule() {
    agrees(&NANO, filtered(&NANO, 3), 2);
    agrees(&AWKWARD, filtered(&AWKWARD, 31), 3);
}

#[test]
fn every_leaf_of_a_penalised_answer_follows_from_its_rule() {
    agrees(&NANO, penalised(&NANO, 3), 3);
    agrees(&AWKWARD, penalised(&AWKWARD, 33), 4);
}

#[test]
fn every_filter_counts_alone() {
    type Change = fn(&mut assay_protocol::Sampler);
    let changes: [Change; 5] = [
        |sampler| sampler.top_k = 1,
        |sampler| sampler.top_k = 1000,
        |sampler| sampler.top_p_q16 = 1,
        |sampler| sampler.top_p_q16 = 65_535,
        |sampler| sampler.min_p_q16 = 65_536,
    ];
    for change in changes {
        let mut terms = plain(&AWKWARD, 2);
        change(&mut terms.sampler);
        agrees(&AWKWARD, terms, 2);
    }
}

#[test]
fn the_leaves_of_the_model_are_those_of_its_manifest() {
    for (loaded, known) in [(&NANO, &known::NANO), (&AWKWARD, &known::AWKWARD)] {
        let trace = trace(loaded, &answer(loaded, greedy(loaded, 2), 1));
        for (source, data) in known.leaves.iter() {
            assert_eq!(trace.open(*source).as_deref(), Some(&data[..]), "{source:?}");
        }
        let tensors = loaded.manifest.tensors.len() as u32;
        for source in [
            Source::Weights { tensor: tensors, leaf: 0 },
            Source::Weights { tensor: 0, leaf: u64::MAX },
            Source::Weights { tensor: 1, leaf: 1 << 20 },
            Source::Rope { leaf: commit::rope_leaves(loaded.model.shape()) },
        ] {
            assert_eq!(trace.open(source), None, "{source:?}");
        }
    }
}

#[test]
fn another_answer_fails_a_link_and_no_rule() {
    let mut lie = answer(&NANO, greedy(&NANO, 4), 4);
    lie.output[1] ^= 1;
    let trace = trace(&NANO, &lie);
    every_leaf_is_right(&trace);
    let (claim, token) = (trace.claim(), op_of(&trace, Kind::Token));
    let link = |position| op::check(&claim, &trace, position, token, Check::Link).unwrap();
    assert_eq!((link(3), link(4)), (true, false));
}

#[test]
fn a_model_that_passes_itself_off_as_another_has_the_trace_of_what_it_computed() {
    let (honest, cheap) = (&*NANO, cheaper(&NANO));
    let mut sold = answer(&cheap, greedy(&cheap, 3), 2);
    sold.order.model = honest.id;
    let refused = Trace::compute(Arc::clone(&cheap), cpu(), &sold, &mut |_, _| ()).unwrap_err();
    assert!(matches!(refused, TraceError::WrongModel { found, .. } if found == cheap.id));
    let computed =
        Trace::compute_as(Arc::clone(&cheap), cpu(), &sold, honest.id, &mut |_, _| ()).unwrap();
    every_leaf_is_right(&computed);
    let right = trace(honest, &sold);
    assert_ne!(computed.spine().root(), right.spine().root());
    // The embedding is the same, so the first difference lies further on.
    assert_eq!(computed.leaves(0, 0), right.leaves(0, 0));
}

/// A model that saves itself the work of its last layer's down projection.
fn cheaper(loaded: &Loaded) -> Arc<Loaded> {
    let shape = loaded.model.shape();
    let tensors = assay_models::Tensors::gather::<std::convert::Infallible>(
        shape,
        loaded.model.rope().clone(),
        |role| {
            let weights = loaded.model.weights(role).unwrap();
            let [rows, columns] = [weights.rows(), shape.extent(role).1];
            let groups = columns.div_ceil(32);
            let changed = matches!(role, Role::Layer(_, assay_models::LayerRole::Down));
            let number = |at| {
                let q = weights.q(at / columns, at % columns);
                if changed && at == 7 { 127 - q.unsigned_abs() as i8 } else { q }
            };
            let q: Vec<i8> = (0..rows * columns).map(number).collect();
            let scales: Vec<u16> = (0..rows * groups)
                .map(|at| weights.scale(at / groups, at % groups) as u16)
                .collect();
            let exponents = &weights.exponents()[..rows];
            Ok(assay_kernels::Weights::from_rows(rows, columns, &q, &scales, exponents).unwrap())
        },
        |role| Ok(loaded.model.vector(role).unwrap().to_vec()),
    );
    let precision = loaded.model.precision().clone();
    let model = Model::new(shape.clone(), precision, tensors.unwrap()).unwrap();
    let mut manifest = loaded.manifest.clone();
    manifest.parts.weights = B256::repeat_byte(9);
    let (id, name) = (manifest.id(), loaded.name.clone());
    Arc::new(Loaded { id, name, manifest, model, tokenizer: None, chat: None })
}

#[test]
fn positions_after_a_token_that_no_model_has_are_empty() {
    let mut lie = answer(&AWKWARD, plain(&AWKWARD, 3), 4);
    lie.output[1] = AWKWARD.manifest.shape.vocab;
    let trace = trace(&AWKWARD, &lie);
    let (claim, token) = (trace.claim(), op_of(&trace, Kind::Token));
    let link = |position| op::check(&claim, &trace, position, token, Check::Link);
    assert_eq!((link(2), link(3)), (Ok(true), Ok(false)));
    assert_eq!((claim.positions(), trace.states().len()), (6, 2));
    for op in 0..claim.ops() {
        assert_eq!(trace.leaves(4, op), Nodes::new(Vec::new()));
        assert_eq!(trace.open(Source::Trace(Place { position: 4, op, leaf: 0 })), None);
    }
}

#[test]
fn what_has_no_trace_is_refused() {
    let honest = answer(&AWKWARD, greedy(&AWKWARD, 3), 2);
    let refused = |change: &dyn Fn(&mut Answer)| {
        let mut answer = honest.clone();
        change(&mut answer);
        Trace::compute(Arc::clone(&AWKWARD), cpu(), &answer, &mut |_, _| ())
            .unwrap_err()
            .to_string()
    };
    let prompted = |prompt: Vec<u32>| {
        refused(&|answer: &mut Answer| {
            answer.order.prompt = assay_protocol::token_root(&prompt);
            answer.order.prompt_tokens = prompt.len() as u32;
            answer.terms.prompt = prompt.clone();
        })
    };
    assert_eq!(prompted(vec![5, 77]), "prompt token 77 is not in a vocabulary of 77");
    let long = "prompt and output have 97 tokens, but the context is 96";
    assert_eq!(prompted(vec![5; 95]), long);
    assert_eq!(
        prompted(Vec::new()),
        "an order needs at least one prompt token and one output token"
    );
    let empty = refused(&|answer| answer.output.clear());
    assert_eq!(empty, "an answer without a token has no trace");
    let other = refused(&|answer| answer.terms.prompt[0] += 1);
    assert_eq!(other, "the order's prompt does not match its commitment");
    let grammar = |assurance| {
        refused(&|answer| {
            answer.terms.grammar = Some("start: /a*/".into());
            answer.terms.sampler.grammar = keccak256("start: /a*/");
            answer.order.sampler = answer.terms.sampler.hash();
            answer.order.assurance = assurance;
        })
    };
    assert_eq!(grammar(Assurance::Scored), "the answer to an order with a grammar has no trace");
    assert_eq!(
        grammar(Assurance::Replayable),
        "an order with a grammar is scored, this one is replayable"
    );
    let model = refused(&|answer| answer.order.model = NANO.id);
    assert_eq!(
        model,
        format!("the answer is by model {}, the model given is {}", NANO.id, AWKWARD.id)
    );

    let Loaded { id, ref manifest, ref model, .. } = **AWKWARD;
    let mut manifest = manifest.clone();
    manifest.arithmetic.attentionQ30 += 1;
    let altered = Loaded {
        id,
        name: String::new(),
        manifest,
        model: model.clone(),
        tokenizer: None,
        chat: None,
    };
    let refused = Trace::compute(Arc::new(altered), cpu(), &honest, &mut |_, _| ()).unwrap_err();
    assert!(matches!(refused, TraceError::Manifest { what: "arithmetic", .. }), "{refused}");
}

#[test]
fn a_trace_can_be_asked_from_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Trace>();
    shared::<crate::Trees>();
}

#[test]
fn progress_ends_with_the_last_position() {
    let answer = answer(&AWKWARD, greedy(&AWKWARD, 40), 3);
    let mut told = Vec::new();
    Trace::compute(Arc::clone(&AWKWARD), cpu(), &answer, &mut |done, all| told.push((done, all)))
        .unwrap();
    assert_eq!(told, [(32, 42), (42, 42)]);
}
