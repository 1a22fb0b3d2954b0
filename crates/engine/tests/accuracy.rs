//! The shipped model answers held-out prompts as well as its card says: to the answer, since the
//! arithmetic leaves nothing to chance.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use assay_engine::{Backend, Native, NativeConfig};
use assay_kernels::Isa;
use support::{NANO, asset, cpu, finish, greedy, job, prompt};

#[derive(serde::Deserialize)]
struct Example {
    task: String,
    prompt: String,
    answer: String,
}

#[test]
fn it_is_as_accurate_as_its_card_says() {
    let examples: Vec<Example> =
        serde_json::from_slice(&std::fs::read(asset("heldout.json")).unwrap()).unwrap();
    let config =
        NativeConfig { queue_max: NonZeroUsize::new(1000).unwrap(), ..NativeConfig::default() };
    let backend = Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 2)), config);
    let streams: Vec<_> = examples
        .iter()
        .map(|example| greedy(prompt(&NANO, &example.prompt)))
        .map(|terms| backend.run(job(&NANO, &terms, 48)).unwrap())
        .collect();

    let mut right: BTreeMap<&str, usize> = BTreeMap::new();
    for (example, stream) in examples.iter().zip(streams) {
        let (tokens, _) = finish(stream);
        let ids: Vec<u32> = tokens.iter().map(|&(token, _)| token).collect();
        let text = NANO.tokenizer.as_ref().unwrap().decode(&ids);
        *right.entry(&example.task).or_default() += usize::from(text == example.answer);
    }
    let card = std::fs::read_to_string(asset("accuracy.json")).unwrap();
    let stated: BTreeMap<String, usize> = serde_json::from_str(&card).unwrap();
    let found: BTreeMap<String, usize> =
        right.into_iter().map(|(task, right)| (task.to_owned(), right)).collect();
    assert_eq!(found, stated, "right answers of 100 per task");
}
