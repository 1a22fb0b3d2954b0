//! An answer under a grammar is a sentence of it, is replayed bit for bit, and is nobody else's affair.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use assay_engine::{Job, Native, NativeConfig, logprobs_of, replay};
use assay_evidence::Verdict;
use assay_kernels::Isa;
use assay_protocol::{B256, Finish, Terms, grammar_hash};
use assay_text::{CallFormat, CallReader, Grammars, Said, Tool};
use support::{NANO, cpu, finish, greedy, job, order, prompt, run, sampled, sign};

const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"enum":["Paris","Oslo","Rome"]},
    "count":{"type":"integer","minimum":0,"maximum":99},"ok":{"type":"boolean"}},
    "required":["city","count","ok"],"additionalProperties":false}"#;

fn backend() -> Native {
    Native::start(Arc::clone(&NANO), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default())
}

fn with_grammar(mut terms: Terms, grammar: &str) -> Terms {
    terms.sampler.grammar = grammar_hash(Some(grammar));
    terms.grammar = Some(grammar.to_owned());
    terms
}

/// The job of an order with a grammar, as a provider makes it.
fn constrained(terms: &Terms, max_tokens: u32) -> Job {
    let eos = &NANO.manifest.eos;
    let grammars = Grammars::new(NANO.tokenizer.as_ref().unwrap(), eos).unwrap();
    let mut job = job(&NANO, terms, max_tokens);
    job.grammar = terms.grammar.as_deref().map(|text| Box::new(grammars.compile(text).unwrap()));
    job
}

/// The text that the shipped model writes under a grammar; its answer is replayed on another path.
fn written(backend: &Native, terms: &Terms, max_tokens: u32) -> (String, Finish) {
    let (tokens, finish) = run(backend, constrained(terms, max_tokens));
    let order = order(&NANO, terms, max_tokens);
    let answer = sign(&NANO, order, terms.clone(), &tokens, finish);
    let verdict = replay(&NANO, &cpu(Isa::Scalar, 1), &answer, &mut |_, _| ()).unwrap();
    assert_eq!(verdict, Verdict::True, "{}", answer.text);
    let rated = logprobs_of(&NANO, &cpu(Isa::detect(), 1), &answer, 3).unwrap();
    assert_eq!(rated.len(), tokens.len());
    (answer.text, finish)
}

#[test]
fn a_schema_is_kept_at_any_temperature() {
    let backend = backend();
    let grammar = assay_text::json_schema_grammar(SCHEMA).unwrap();
    let mut texts = Vec::new();
    for seed in 0..4 {
        let prompt = prompt(&NANO, "json: the capital of france");
        let mut terms = sampled(prompt, seed);
        // Hot enough that without the grammar it would be noise.
        terms.sampler.inv_t_q16 = if seed == 0 { 0 } else { 20_000 };
        let (text, finish) = written(&backend, &with_grammar(terms, &grammar), 60);
        assert_eq!(finish, Finish::Eos);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = value.as_object().unwrap();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["city", "count", "ok"], "{text}");
        assert!(["Paris", "Oslo", "Rome"].contains(&fields["city"].as_str().unwrap()));
        assert!(fields["count"].as_u64().unwrap() < 100);
        assert!(fields["ok"].is_boolean());
        texts.push(text);
    }
    assert!(texts.windows(2).any(|pair| pair[0] != pair[1]), "{texts:?}");
}

#[test]
fn a_complete_sentence_ends_the_answer() {
    let backend = backend();
    let terms = greedy(prompt(&NANO, "1+1="));
    let grammar = assay_text::choice_grammar(&["zebra".into(), "yak".into()]);
    let (text, finish) = written(&backend, &with_grammar(terms.clone(), &grammar), 30);
    assert!(["zebra", "yak"].contains(&text.as_str()), "{text}");
    assert_eq!(finish, Finish::Eos);
    // Cut off by length it is the beginning of a sentence.
    let grammar = assay_text::regex_grammar("[0-9]{40}");
    let (text, finish) = written(&backend, &with_grammar(terms, &grammar), 7);
    assert!(text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    assert_eq!(finish, Finish::Length);
}

#[test]
fn required_calls_validate() {
    let backend = backend();
    let parameters = r#"{"type":"object","properties":{"city":{"type":"string","maxLength":12},
        "unit":{"enum":["c","f"]}},"required":["city","unit"],"additionalProperties":false}"#;
    let tools = ["weather", "news"].map(|name| Tool {
        name: name.into(),
        parameters: Some(parameters.into()),
        strict: true,
        json: String::new(),
    });
    for (seed, format) in [(1, CallFormat::Tagged), (2, CallFormat::Bare), (3, CallFormat::Listed)]
    {
        let tools: Vec<&Tool> = tools.iter().collect();
        let grammar =
            assay_text::tool_calls_grammar(&tools, format, false, assay_text::Otherwise::Nothing)
                .unwrap();
        let terms = sampled(prompt(&NANO, "weather in oslo?"), seed);
        let (text, finish) = written(&backend, &with_grammar(terms, &grammar), 150);
        assert_eq!(finish, Finish::Eos, "{text}");
        let mut reader = CallReader::new(format, vec!["weather".into(), "news".into()]);
        let mut said = reader.push(&text);
        said.extend(reader.finish());
        let [Said::Call(_), Said::Arguments(json)] = said.as_slice() else { panic!("{said:?}") };
        let arguments: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(arguments["city"].as_str().unwrap().chars().count() <= 12);
        assert!(["c", "f"].contains(&arguments["unit"].as_str().unwrap()));
    }
}

#[test]
fn a_grammar_is_part_of_what_is_replayed() {
    let backend = backend();
    let grammar = assay_text::regex_grammar("[xyz]{5}");
    let terms = with_grammar(greedy(prompt(&NANO, "1+1=")), &grammar);
    let (tokens, finish) = run(&backend, constrained(&terms, 20));
    // Whoever signs the free answer to a constrained order is found out.
    let (free, free_finish) = run(&backend, job(&NANO, &terms, 20));
    assert_ne!(free, tokens);
    let judge = |terms: &Terms, tokens: &[(u32, B256)], finish| {
        let answer = sign(&NANO, order(&NANO, terms, 20), terms.clone(), tokens, finish);
        replay(&NANO, &cpu(Isa::detect(), 1), &answer, &mut |_, _| ()).unwrap()
    };
    assert_eq!(judge(&terms, &tokens, finish), Verdict::True);
    assert!(matches!(judge(&terms, &free, free_finish), Verdict::False(_)));
    // An order whose grammar is none cannot be answered.
    let none = with_grammar(terms, "start: ([");
    assert!(matches!(judge(&none, &free, free_finish), Verdict::False(_)));
}

#[test]
fn constrained_and_free_answers_share_a_batch() {
    let backend = backend();
    let free = sampled(prompt(&NANO, "sort: 3 1 2"), 5);
    let schema = assay_text::json_schema_grammar(SCHEMA).unwrap();
    let bound = with_grammar(sampled(prompt(&NANO, "sort: 3 1 2"), 5), &schema);
    let alone = [run(&backend, job(&NANO, &free, 20)), run(&backend, constrained(&bound, 60))];
    use assay_engine::Backend as _;
    let together: Vec<_> = (0..3)
        .flat_map(|_| [job(&NANO, &free, 20), constrained(&bound, 60)])
        .map(|job| backend.run(job).unwrap())
        .collect();
    for (index, deltas) in together.into_iter().enumerate() {
        assert_eq!(finish(deltas), alone[index % 2]);
    }
}
