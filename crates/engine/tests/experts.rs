//! A model with experts: imported, asked in company, replayed, and sold as no more than a judge can
//! say of it.

#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "../../models/tests/support/gguf_writer.rs"]
mod gguf_writer;
#[path = "../../models/tests/support/random_family.rs"]
mod random_family;
mod support;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use assay_engine::import::{Options, Report, import};
use assay_engine::{
    Loaded, Native, NativeConfig, Package, PackageError, Trace, TraceError, replay,
};
use assay_evidence::Verdict;
use assay_kernels::{Cpu, Format, Isa};
use assay_models::{Experts, Family, LayerRole, Role};
use assay_protocol::{Assurance, B256, Finish, Terms};
use proptest::prelude::*;
use support::{cpu, finish, greedy, job, order, run, sampled, sign};
use tempfile::TempDir;

/// Pinned, as the ids of the shipped model are.
const ID: &str = include_str!("../../../tests/vectors/qwen3moe.id");
const W4_ID: &str = include_str!("../../../tests/vectors/qwen3moe-w4.id");

/// The small random model as a file, while the directory lasts.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("experts.gguf");
    std::fs::write(&path, random_family::random_with_experts().file()).unwrap();
    (folder, path)
}

fn imported(options: &Options, cpu: &Cpu) -> (Package, Report) {
    let (_folder, path) = file();
    import(&path, options, cpu, &mut |_| ()).unwrap()
}

static SMALL: LazyLock<Arc<Loaded>> = LazyLock::new(|| {
    let (package, _) = imported(&Options::default(), &cpu(Isa::detect(), 1));
    Arc::new(package.load().unwrap())
});

#[test]
fn it_has_one_id_on_every_path() {
    for (weights, id) in [(Format::W8, ID), (Format::W4, W4_ID)] {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            for threads in [1, 2] {
                let options = Options { weights, ..Options::default() };
                let (package, _) = imported(&options, &cpu(isa, threads));
                assert_eq!(package.id().to_string(), id.trim(), "{isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn it_is_near_its_source() {
    let w8 = Options { accuracy: true, ..Options::default() };
    let accuracy = imported(&w8, &cpu(Isa::detect(), 1)).1.accuracy.unwrap();
    assert!(accuracy.kl < 0.001 && accuracy.greedy_agreement > 0.95, "{accuracy:?}");
    let w4 = Options { weights: Format::W4, ..w8 };
    let (package, report) = imported(&w4, &cpu(Isa::detect(), 1));
    let accuracy = report.accuracy.unwrap();
    assert!(accuracy.kl < 0.02 && accuracy.greedy_agreement > 0.9, "{accuracy:?}");
    for role in package.model().shape().roles().into_iter().filter(|role| !role.is_vector()) {
        let expected = match role {
            Role::Embedding | Role::Layer(_, LayerRole::Router) => Format::W8,
            _ => Format::W4,
        };
        assert_eq!(package.model().weights(role).unwrap().format(), expected, "{role}");
    }
}

#[test]
fn it_survives_the_disk_and_knows_when_it_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("experts.assay");
    imported(&Options::default(), &cpu(Isa::detect(), 1)).0.write(&path).unwrap();
    let read = Package::read(&path).unwrap();
    read.verify(&mut |_| ()).unwrap();
    let shape = read.model().shape();
    assert_eq!(shape.family, Family::Qwen3Moe);
    assert_eq!(shape.experts, Some(Experts { count: 6, chosen: 2 }));
    assert_eq!(read.id(), SMALL.id);

    let bytes = std::fs::read(&path).unwrap();
    let recipe = [6.0f32, 2.0].map(f32::to_le_bytes).concat();
    let at = bytes.windows(8).position(|window| window == recipe).unwrap();
    let with = |count: f32, chosen: f32| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&[count, chosen].map(f32::to_le_bytes).concat());
        std::fs::write(&path, bytes).unwrap();
        Package::read(&path).and_then(|package| package.verify(&mut |_| ()))
    };
    with(6.0, 2.0).unwrap();
    // Another number of chosen experts is another program.
    let altered = with(6.0, 3.0).unwrap_err();
    assert!(matches!(altered, PackageError::Altered { what: "program", .. }), "{altered}");
    for (count, chosen) in
        [(7.0, 2.0), (6.0, 0.0), (6.0, 7.0), (0.0, 0.0), (-1.0, 2.0), (f32::MAX, f32::MAX)]
    {
        let refused = with(count, chosen).unwrap_err();
        let known = matches!(refused, PackageError::Model(_) | PackageError::Altered { .. });
        assert!(known, "{count} {chosen}: {refused}");
    }
    assert!(with(f32::NAN, f32::INFINITY).is_err());
}

/// What somebody is told.
type Said = (Vec<(u32, B256)>, Finish);

fn tokens(text: &str) -> Vec<u32> {
    SMALL.tokenizer.as_ref().unwrap().encode(text)
}

/// The definition: one job, one row at a time, in the plainest arithmetic.
fn alone(terms: &Terms, tokens_max: u32) -> Said {
    let config = config(1, 1, 0);
    let backend = Native::start(SMALL.clone(), Arc::new(cpu(Isa::Scalar, 1)), config);
    run(&backend, job(&SMALL, terms, tokens_max))
}

fn config(running: usize, rows: usize, guess_rows_max: usize) -> NativeConfig {
    NativeConfig {
        running_max: NonZeroUsize::new(running).unwrap(),
        rows_max: NonZeroUsize::new(rows).unwrap(),
        guess_rows_max,
        ..NativeConfig::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Paths, threads, batches, chunks, guesses and what is remembered: one answer per order, whichever
    /// experts the rows of a batch choose.
    #[test]
    fn a_mix_answers_as_if_each_were_alone(
        requests in prop::collection::vec(("[a-z0-9 ]{1,30}", any::<Option<u8>>(), 1u32..24), 1..7),
        running in 1usize..7,
        rows in 1usize..70,
        threads in 1usize..4,
        isa in prop::sample::select(Isa::ALL.to_vec()),
        guesses in prop::sample::select(vec![0usize, 8]),
    ) {
        prop_assume!(isa.is_supported());
        let requests: Vec<(Terms, u32)> = requests
            .into_iter()
            .map(|(text, seed, most)| {
                let prompt = tokens(&text);
                (seed.map_or(greedy(prompt.clone()), |seed| sampled(prompt, seed)), most)
            })
            .collect();
        let expected: Vec<Said> = requests.iter().map(|(terms, most)| alone(terms, *most)).collect();
        let config = config(running, rows, guesses);
        let backend = Native::start(SMALL.clone(), Arc::new(cpu(isa, threads)), config);
        for _ in 0..2 {
            let streams: Vec<_> = requests
                .iter()
                .map(|(terms, most)| {
                    assay_engine::Backend::run(&backend, job(&SMALL, terms, *most)).unwrap()
                })
                .collect();
            for (stream, expected) in streams.into_iter().zip(&expected) {
                prop_assert_eq!(&finish(stream), expected);
            }
        }
    }
}

/// What nobody could prove wrong is not sold as if one could, but whoever has the model can check it.
#[test]
fn answers_are_scored_and_can_be_replayed_but_not_disputed() {
    assert_eq!(SMALL.assurance(), Assurance::Scored);
    let terms = sampled(tokens("the seven experts"), 7);
    let order = assay_protocol::Order { assurance: Assurance::Scored, ..order(&SMALL, &terms, 24) };
    let (mut said, ending) = alone(&terms, 24);
    assert!(said.len() > 4, "{said:?}");
    let answer = sign(&SMALL, order.clone(), terms.clone(), &said, ending);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let verdict = replay(&SMALL, &cpu(isa, 2), &answer, &mut |_, _| ());
        assert!(matches!(verdict, Ok(Verdict::True)), "{isa}: {verdict:?}");
    }

    let trace =
        Trace::compute(SMALL.clone(), Arc::new(cpu(Isa::detect(), 1)), &answer, &mut |_, _| ());
    let refused = TraceError::Unjudged { family: Family::Qwen3Moe, offered: Assurance::Scored };
    assert_eq!(trace.err().map(|error| error.to_string()), Some(refused.to_string()));

    said[1].1 = said[0].1;
    let lie = sign(&SMALL, order, terms, &said, ending);
    let verdict = replay(&SMALL, &cpu(Isa::detect(), 1), &lie, &mut |_, _| ());
    assert!(!matches!(verdict, Ok(Verdict::True)), "{verdict:?}");
}
