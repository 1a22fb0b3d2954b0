//! Two small models, and answers of theirs that disputes are about.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use assay_kernels::{Cpu, Isa};
use assay_protocol::{
    Address, Amount, Answer, Assurance, Audit, B256, ChannelId, Finish, Key, LOCAL_CHAIN, Order,
    Receipt, Sampler, Terms, U256, bias_hash, keccak256, token_root,
};

#[path = "../../evidence/tests/nano/known.rs"]
pub(crate) mod known;

use crate::commit::{self, Particulars};
use crate::job::{Backend, Delta, Job};
use crate::native::{Native, NativeConfig};
use crate::package::Loaded;
use known::Known;

/// The model that ships.
pub(crate) static NANO: LazyLock<Arc<Loaded>> = LazyLock::new(|| loaded(&known::NANO));
/// The one whose every size is awkward.
pub(crate) static AWKWARD: LazyLock<Arc<Loaded>> = LazyLock::new(|| loaded(&known::AWKWARD));

fn loaded(known: &Known) -> Arc<Loaded> {
    let model = known.model.clone();
    let particulars = Particulars {
        eos: &[],
        tokenizer: None,
        template: None,
        licence: None,
        source: B256::ZERO,
        calibration: B256::ZERO,
    };
    let manifest = commit::manifest(&model, &particulars, &mut |_| ());
    let name = "a model of tests".into();
    Arc::new(Loaded { id: manifest.id(), name, manifest, model, tokenizer: None, chat: None })
}

pub(crate) fn cpu() -> Arc<Cpu> {
    Arc::new(Cpu::new(Isa::detect(), NonZeroUsize::MIN).unwrap())
}

/// The likeliest token, for a prompt of noise.
pub(crate) fn greedy(loaded: &Loaded, prompt: u32) -> Terms {
    let tokens = loaded.manifest.shape.vocab - 6;
    let token = |index: u32| 6 + index.wrapping_mul(2_654_435_761) / 7 % tokens;
    let prompt = (0..prompt).map(token).collect();
    Terms { prompt, sampler: Sampler::greedy(), stops: Vec::new(), bias: Vec::new(), grammar: None }
}

/// Temperature alone.
pub(crate) fn plain(loaded: &Loaded, prompt: u32) -> Terms {
    let mut terms = greedy(loaded, prompt);
    terms.sampler.inv_t_q16 = 94_548;
    terms.sampler.seed = B256::repeat_byte(7);
    terms
}

/// Every filter.
pub(crate) fn filtered(loaded: &Loaded, prompt: u32) -> Terms {
    let mut terms = plain(loaded, prompt);
    let sampler = &mut terms.sampler;
    sampler.inv_t_q16 = 30_000;
    (sampler.top_k, sampler.top_p_q16, sampler.min_p_q16) = (40, 60_000, 300);
    terms
}

/// Every penalty, and biases.
pub(crate) fn penalised(loaded: &Loaded, prompt: u32) -> Terms {
    let mut terms = filtered(loaded, prompt);
    let sampler = &mut terms.sampler;
    (sampler.rep_q16, sampler.freq_q16, sampler.pres_q16) = (80_000, 20_000, -30_000);
    sampler.top_k = 0;
    terms.bias = vec![(5, -400_000), (9, 131_072), (60, 65_536)];
    terms.sampler.bias = bias_hash(&terms.bias);
    terms
}

/// The answer of a model, as its own backend gives it.
pub(crate) fn answer(loaded: &Arc<Loaded>, terms: Terms, tokens: u32) -> Answer {
    let order = order(loaded, &terms, tokens);
    let job = Job::new(order.hash(LOCAL_CHAIN), &order, &terms, &[], loaded.context());
    let backend = Native::start(Arc::clone(loaded), cpu(), NativeConfig::default());
    let mut deltas = backend.run(job).unwrap();
    let mut steps = Vec::new();
    while let Some(Delta::Token { token, hidden, .. }) = deltas.next_blocking() {
        steps.push((token, hidden));
    }
    assert_eq!(steps.len(), tokens as usize, "the answer ends where it should");
    sign(order, terms, &steps)
}

fn order(loaded: &Loaded, terms: &Terms, max_tokens: u32) -> Order {
    Order {
        buyer: key().address(),
        market: Address::ZERO,
        model: loaded.id,
        request: B256::ZERO,
        prompt: token_root(&terms.prompt),
        prompt_tokens: terms.prompt.len() as u32,
        max_tokens,
        sampler: terms.sampler.hash(),
        assurance: Assurance::Replayable,
        audit: Audit::Public,
        asset: Address::ZERO,
        max_price: Amount(0),
        deadline: u64::MAX,
        nonce: U256::from(1),
        grant: B256::ZERO,
    }
}

fn key() -> Key {
    Key::from_bytes([11; 32]).unwrap()
}

fn sign(order: Order, terms: Terms, steps: &[(u32, B256)]) -> Answer {
    let hash = order.hash(LOCAL_CHAIN);
    let output: Vec<u32> = steps.iter().map(|(token, _)| *token).collect();
    let states = Answer::states_of(hash, steps.iter().copied());
    let receipt = Receipt {
        order: hash,
        provider: key().address(),
        output: token_root(&output),
        output_tokens: output.len() as u32,
        text: keccak256(""),
        finish: Finish::Length,
        state: states.last().copied().unwrap(),
        assurance: Assurance::Replayable,
        asset: Address::ZERO,
        price: Amount(0),
        channel: ChannelId::default(),
        channel_before: Amount(0),
        channel_after: Amount(0),
        started: 1,
        finished: 2,
    };
    Answer {
        schema: Answer::SCHEMA.into(),
        chain_id: LOCAL_CHAIN,
        order_signature: order.sign(LOCAL_CHAIN, &key()),
        order,
        terms,
        request: None,
        output,
        text: String::new(),
        receipt_signature: receipt.sign(LOCAL_CHAIN, &key()),
        receipt,
        states,
        vector: None,
    }
}
