//! The shipped model, and orders for it.

#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each binary uses a part")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use assay_engine::import::{Options, import};
use assay_engine::{Backend, Delta, Deltas, Job, Loaded, Package};
use assay_kernels::{Cpu, Isa};
use assay_models::{Cache, Row, Scratch};
use assay_protocol::{
    Address, Amount, Answer, Assurance, Audit, B256, ChannelId, Ending, Finish, Key, LOCAL_CHAIN,
    Order, Receipt, State, Terms, U256, keccak256, token_root,
};
use assay_text::{Conversation, Message};

pub(crate) fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano").join(name)
}

pub(crate) fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(isa, NonZeroUsize::new(threads).unwrap()).unwrap()
}

pub(crate) fn package_of(name: &str) -> Package {
    import(&asset(name), &Options::default(), &cpu(Isa::detect(), 1), &mut |_| ()).unwrap().0
}

/// The shipped model, imported once per test binary.
pub(crate) static NANO: LazyLock<Arc<Loaded>> =
    LazyLock::new(|| Arc::new(package_of("nano-q8_0.gguf").load().unwrap()));

/// Token ids of a conversation of one user turn.
pub(crate) fn prompt(loaded: &Loaded, user: &str) -> Vec<u32> {
    let messages = [Message::new("user", user)];
    let conversation = Conversation {
        messages: &messages,
        tools: &[],
        add_generation_prompt: true,
        bos: "",
        eos: "",
        unix_seconds: None,
    };
    let text = loaded.chat.as_ref().unwrap().render(&conversation).unwrap();
    loaded.tokenizer.as_ref().unwrap().encode(&text)
}

pub(crate) fn buyer() -> Key {
    Key::from_bytes([11; 32]).unwrap()
}

pub(crate) fn provider() -> Key {
    Key::from_bytes([22; 32]).unwrap()
}

pub(crate) fn greedy(prompt: Vec<u32>) -> Terms {
    let sampler = assay_protocol::Sampler::greedy();
    Terms { prompt, sampler, stops: Vec::new(), bias: Vec::new(), grammar: None }
}

/// Temperature 1, whose integer is round(2^16 · log2 e).
pub(crate) fn sampled(prompt: Vec<u32>, seed: u8) -> Terms {
    let mut terms = greedy(prompt);
    terms.sampler.inv_t_q16 = 94548;
    terms.sampler.seed = B256::repeat_byte(seed);
    terms
}

pub(crate) fn order(loaded: &Loaded, terms: &Terms, max_tokens: u32) -> Order {
    Order {
        buyer: buyer().address(),
        market: Address::ZERO,
        model: loaded.id,
        request: B256::ZERO,
        prompt: token_root(&terms.prompt),
        prompt_tokens: terms.prompt.len() as u32,
        max_tokens,
        sampler: terms.sampler.hash(),
        assurance: match terms.grammar {
            Some(_) => Assurance::Scored,
            None => Assurance::Replayable,
        },
        audit: Audit::Drawn,
        asset: Address::ZERO,
        max_price: Amount(0),
        deadline: u64::MAX,
        nonce: U256::from(1),
        grant: B256::ZERO,
    }
}

pub(crate) fn job(loaded: &Loaded, terms: &Terms, max_tokens: u32) -> Job {
    let order = order(loaded, terms, max_tokens);
    let eos = &loaded.manifest.eos;
    Job::new(order.hash(LOCAL_CHAIN), &order, terms, eos, loaded.context())
}

/// Runs a job to its end.
pub(crate) fn run(backend: &dyn Backend, job: Job) -> (Vec<(u32, B256)>, Finish) {
    finish(backend.run(job).unwrap())
}

/// Reads a stream to its end.
pub(crate) fn finish(mut deltas: Deltas) -> (Vec<(u32, B256)>, Finish) {
    let mut tokens = Vec::new();
    loop {
        match deltas.next_blocking() {
            Some(Delta::Token { token, hidden, .. }) => tokens.push((token, hidden)),
            Some(Delta::Done(finish)) => return (tokens, finish),
            Some(Delta::Vector(_)) => panic!("a vector of a model that writes"),
            None => panic!("the backend closed a stream without an end"),
        }
    }
}

/// The answer that a provider signs for these tokens, honest or not.
pub(crate) fn sign(
    loaded: &Loaded,
    order: Order,
    terms: Terms,
    tokens: &[(u32, B256)],
    finish: Finish,
) -> Answer {
    let hash = order.hash(LOCAL_CHAIN);
    let output: Vec<u32> = tokens.iter().map(|&(token, _)| token).collect();
    let states = Answer::states_of(hash, tokens.iter().copied());
    let ending = Ending {
        eos: loaded.manifest.eos.clone(),
        stops: terms.stops.clone(),
        tokens_max: order.max_tokens,
    };
    let text_tokens = &output[..ending.text_len(&output, finish)];
    let text = loaded.tokenizer.as_ref().unwrap().decode(text_tokens);
    let receipt = Receipt {
        order: hash,
        provider: provider().address(),
        output: token_root(&output),
        output_tokens: output.len() as u32,
        text: keccak256(&text),
        finish,
        state: states.last().copied().unwrap_or(State::start(hash).0),
        assurance: order.assurance,
        asset: Address::ZERO,
        price: Amount(0),
        channel: ChannelId::default(),
        channel_before: Amount(0),
        channel_after: Amount(0),
        started: 1,
        finished: 2,
    };
    let mut answer = Answer {
        schema: Answer::SCHEMA.into(),
        chain_id: LOCAL_CHAIN,
        order_signature: order.sign(LOCAL_CHAIN, &buyer()),
        order,
        terms,
        request: None,
        output,
        text,
        receipt_signature: receipt.sign(LOCAL_CHAIN, &provider()),
        receipt,
        states,
        vector: None,
    };
    seal_again(&mut answer);
    answer
}

/// Signs a receipt whose fields a test changed, as a lying provider would.
pub(crate) fn seal_again(answer: &mut Answer) {
    answer.receipt_signature = answer.receipt.sign(answer.chain_id, &provider());
}

/// The quantised last-norm vector after the given tokens.
pub(crate) fn hidden(loaded: &Loaded, tokens: &[u32]) -> (Vec<i8>, Vec<u16>) {
    let rows: Vec<Row> = tokens
        .iter()
        .enumerate()
        .map(|(i, &token)| Row { token, sequence: 0, wanted: i + 1 == tokens.len() })
        .collect();
    let mut cache = Cache::new(loaded.model.shape());
    let cpu = cpu(Isa::Scalar, 1);
    let mut scratch = Scratch::default();
    let output =
        loaded.model.forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut ()).unwrap();
    let (quants, scales) = output.hidden.row(0);
    (quants.to_vec(), scales.to_vec())
}
