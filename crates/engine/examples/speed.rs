//! How fast the native engine is on a model file: decode, prefill, and what receipts and
//! verification cost.
//!
//! ```text
//! cargo run --release -p assay-models --example random_gguf -- q05.gguf --shape q05 --quant q8_0
//! cargo run --release -p assay-engine --example speed -- q05.gguf [--json]
//! ```
//! Wall time, medians of five; every figure is of the whole pass, attention and sampling included.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use assay_engine::import::{Options, import};
use assay_engine::{Loaded, replay};
use assay_evidence::Verdict;
use assay_kernels::{Cpu, Isa};
use assay_models::{Cache, Row, Sampler, Scratch, Seen};
use assay_protocol::{
    Address, Amount, Answer, Assurance, Audit, B256, ChannelId, Finish, Key, LOCAL_CHAIN, Order,
    Receipt, State, Terms, U256, hidden_hash, keccak256, token_root,
};

const RUNS: usize = 5;
const PREFILL: usize = 512;
const DECODE: usize = 64;
const PROMPT: usize = 64;
const OUTPUT: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let path: PathBuf = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"))
        .expect("usage: speed MODEL.gguf [--json]")
        .into();
    let isa = Isa::from_env().expect("ASSAY_ISA names a path of this machine");
    let one = Cpu::new(isa, NonZeroUsize::MIN).expect("the path was checked");
    let two = Cpu::new(isa, NonZeroUsize::new(2).expect("two")).expect("the path was checked");

    eprintln!("importing {} …", path.display());
    let began = Instant::now();
    let (package, report) =
        import(&path, &Options::default(), &two, &mut |_| ()).expect("the model imports");
    eprintln!("{} parameters in {:.1} s, {isa}", report.parameters, began.elapsed().as_secs_f64());
    let loaded = package.load().expect("the package loads");

    let mut rows = Vec::new();
    for (cpu, threads) in [(&one, "1t"), (&two, "2t")] {
        let step = median(|| decode(&loaded, cpu)) / DECODE as f64;
        rows.push((format!("engine.decode.tok_s.{threads}"), 1.0 / step, "tokens/s"));
        let prefill = median(|| prefill(&loaded, cpu)) / PREFILL as f64;
        rows.push((format!("engine.prefill.tok_s.{threads}"), 1.0 / prefill, "tokens/s"));
        if threads == "2t" {
            let commit = median(|| commitments(&loaded)) / DECODE as f64;
            rows.push(("receipt.commit.share".into(), commit / step, "of decode time"));
        }
    }
    let (generated, answer) = generate(&loaded, &two);
    let verified = median(|| {
        let began = Instant::now();
        let verdict = replay(&loaded, &two, &answer, &mut |_, _| ());
        assert!(matches!(verdict, Ok(Verdict::True)), "{verdict:?}");
        began.elapsed().as_secs_f64()
    });
    rows.push(("verify.share.0_5b".into(), verified / generated, "of generation time"));

    for (name, value, unit) in rows {
        if json {
            println!("{{\"name\":\"{name}\",\"value\":{value:.4},\"unit\":\"{unit}\"}}");
        } else {
            println!("{name:28} {value:>10.4} {unit}");
        }
    }
}

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// Token ids spread over the vocabulary.
fn tokens(loaded: &Loaded, count: usize) -> Vec<u32> {
    let vocab = loaded.manifest.shape.vocab;
    (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect()
}

/// One sequence on its way.
struct Sequence<'a> {
    loaded: &'a Loaded,
    cpu: &'a Cpu,
    cache: Cache,
    scratch: Scratch,
    seen: Seen,
}

impl<'a> Sequence<'a> {
    fn new(loaded: &'a Loaded, cpu: &'a Cpu) -> Self {
        let cache = Cache::new(loaded.model.shape());
        Self { loaded, cpu, cache, scratch: Scratch::default(), seen: Seen::new(&[]) }
    }

    /// Feeds tokens; the next token, greedily, and the hash of its hidden state.
    fn feed(&mut self, tokens: &[u32]) -> (u32, B256) {
        let last = tokens.len() - 1;
        let row = |(i, &token)| Row { token, sequence: 0, wanted: i == last };
        let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
        let caches = &mut [&mut self.cache];
        let mut output = self
            .loaded
            .model
            .forward(self.cpu, &rows, caches, &mut self.scratch, &mut ())
            .expect("the tokens fit");
        let token = Sampler::greedy().choose(&mut output.logits, &self.seen, 0);
        let (quants, scales) = output.hidden.row(0);
        let hidden = hidden_hash(quants, scales);
        self.scratch.recycle(output);
        (token, hidden)
    }
}

fn decode(loaded: &Loaded, cpu: &Cpu) -> f64 {
    let mut sequence = Sequence::new(loaded, cpu);
    let (mut token, _) = sequence.feed(&tokens(loaded, 16));
    let began = Instant::now();
    for _ in 0..DECODE {
        (token, _) = sequence.feed(&[token]);
    }
    began.elapsed().as_secs_f64()
}

/// Prompts run in the scheduler's chunks.
fn prefill(loaded: &Loaded, cpu: &Cpu) -> f64 {
    let prompt = tokens(loaded, PREFILL);
    let mut sequence = Sequence::new(loaded, cpu);
    let began = Instant::now();
    for chunk in prompt.chunks(256) {
        black_box(sequence.feed(chunk));
    }
    began.elapsed().as_secs_f64()
}

/// What a receipt adds per token: the hash of the hidden state and the chained state.
fn commitments(loaded: &Loaded) -> f64 {
    let columns = (loaded.manifest.shape.width as usize).next_multiple_of(128);
    let (quants, scales) = (vec![3i8; columns], vec![7u16; columns / 32]);
    let mut state = State(B256::ZERO);
    let began = Instant::now();
    for token in 0..DECODE as u32 {
        state = state.next(token, hidden_hash(black_box(&quants), black_box(&scales)));
    }
    black_box(state);
    began.elapsed().as_secs_f64()
}

/// Generates a signed answer; the seconds it took, and the answer.
fn generate(loaded: &Loaded, cpu: &Cpu) -> (f64, Answer) {
    let prompt = tokens(loaded, PROMPT);
    let terms = Terms {
        prompt: prompt.clone(),
        sampler: assay_protocol::Sampler::greedy(),
        stops: Vec::new(),
        bias: Vec::new(),
    };
    let key = Key::from_bytes([1; 32]).expect("a valid key");
    let order = Order {
        buyer: key.address(),
        market: Address::ZERO,
        model: loaded.id,
        request: B256::ZERO,
        prompt: token_root(&prompt),
        prompt_tokens: PROMPT as u32,
        max_tokens: OUTPUT as u32,
        sampler: terms.sampler.hash(),
        assurance: Assurance::Replayable,
        audit: Audit::None,
        asset: Address::ZERO,
        max_price: Amount(0),
        deadline: u64::MAX,
        nonce: U256::ZERO,
        grant: B256::ZERO,
    };
    let hash = order.hash(LOCAL_CHAIN);

    let began = Instant::now();
    let mut sequence = Sequence::new(loaded, cpu);
    let mut steps = vec![sequence.feed(&prompt)];
    while steps.len() < OUTPUT {
        steps.push(sequence.feed(&[steps[steps.len() - 1].0]));
    }
    let states = Answer::states_of(hash, steps.iter().copied());
    let took = began.elapsed().as_secs_f64();

    let output: Vec<u32> = steps.iter().map(|&(token, _)| token).collect();
    let receipt = Receipt {
        order: hash,
        provider: key.address(),
        output: token_root(&output),
        output_tokens: OUTPUT as u32,
        text: keccak256(""),
        finish: Finish::Length,
        state: states.last().copied().unwrap_or_default(),
        assurance: Assurance::Replayable,
        asset: Address::ZERO,
        price: Amount(0),
        channel: ChannelId::default(),
        channel_before: Amount(0),
        channel_after: Amount(0),
        started: 0,
        finished: 0,
    };
    let answer = Answer {
        schema: Answer::SCHEMA.into(),
        chain_id: LOCAL_CHAIN,
        order_signature: order.sign(LOCAL_CHAIN, &key),
        order,
        terms,
        request: None,
        output,
        text: String::new(),
        receipt_signature: receipt.sign(LOCAL_CHAIN, &key),
        receipt,
        states,
    };
    (took, answer)
}
