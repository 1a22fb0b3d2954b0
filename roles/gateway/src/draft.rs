//! Turns a question into orders: prompt tokens, sampler and limits. Pure.

use std::collections::BTreeMap;
use std::f64::consts::LOG2_E;

use assay_protocol::{
    Address, Amount, Assurance, Audit, B256, Ending, NEUTRAL_Q16, Order, Sampler, Terms, U256,
    bias_hash, grammar_hash, keccak256, stops_hash, token_root,
};

use crate::catalogue::Model;
use crate::openai::{Problem, Prompt, Sampling};
use crate::prompt::tokens;
use crate::route::Wanted;

/// The lowest bias there is, in natural logarithms.
const BIAS_LEAST: f64 = -100.0;

/// An order that lacks only its conditions and its signature.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) terms: Terms,
    /// The canonical request body, which the order names by its hash.
    pub(crate) request: String,
    pub(crate) prompt_tokens: u32,
    /// Most output tokens; always fits the context.
    pub(crate) max_tokens: u32,
    pub(crate) ending: Ending,
    /// The stop strings, for what the stop sequences of tokens miss.
    pub(crate) stops: Vec<String>,
    /// Alternatives to give with each token, and logprobs of all; none: no logprobs.
    pub(crate) logprobs: Option<u8>,
    /// Whether others may go first.
    pub(crate) flex: bool,
}

/// What the gateway adds to a draft.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) buyer: Address,
    /// The deployment's Receipts contract; zero where nothing is paid.
    pub(crate) market: Address,
    pub(crate) assurance: Assurance,
    pub(crate) audit: Audit,
    pub(crate) max_price: Amount,
    /// Unix seconds.
    pub(crate) deadline: u64,
    pub(crate) nonce: U256,
    /// Digest of the grant that the buyer acts under; zero for none.
    pub(crate) grant: B256,
}

/// Drafts the order for an answer of `model` to `prompt`, made at `now` in Unix seconds. Randomness comes
/// from the client's seed, or from `seed` if it has none.
///
/// # Errors
/// What the client can mend: messages the template refuses, a prompt that is too long, a bias for
/// a token there is not.
pub(crate) fn draft(
    model: &Model,
    asked: &Prompt,
    sampling: &Sampling,
    seed: B256,
    now: u64,
) -> Result<Draft, Problem> {
    let prompt = tokens(model, asked, now)?;
    let prompt_tokens = u32::try_from(prompt.len()).expect("prompts are shorter than a context");
    let room = (prompt_tokens, model.listed.context);
    let max_tokens = max_tokens(sampling.max_tokens, asked.param(), room)?;
    let stops = stop_sequences(model, &sampling.stop);
    let bias = bias(model, sampling)?;
    let seed = sampling.seed.map_or(seed, seed_of);
    let sampler = sampler(sampling, &stops, &bias, seed);
    let eos = model.listed.eos.clone();
    Ok(Draft {
        ending: Ending { eos, stops: stops.clone(), tokens_max: max_tokens },
        terms: Terms { prompt, sampler, stops, bias, grammar: sampling.grammar.clone() },
        request: asked.canonical(),
        prompt_tokens,
        max_tokens,
        stops: sampling.stop.clone(),
        logprobs: sampling.logprobs,
        flex: sampling.flex,
    })
}

/// Drafts the order for the vector of a text with these tokens, of which `request` is the canonical
/// request: one token, which nothing draws.
pub(crate) fn vector_draft(model: &Model, prompt: Vec<u32>, request: String) -> Draft {
    let prompt_tokens = u32::try_from(prompt.len()).expect("prompts are shorter than a context");
    let (eos, max_tokens) = (model.listed.eos.clone(), 1);
    let sampler = Sampler::greedy();
    Draft {
        terms: Terms { prompt, sampler, stops: Vec::new(), bias: Vec::new(), grammar: None },
        request,
        prompt_tokens,
        max_tokens,
        ending: Ending { eos, stops: Vec::new(), tokens_max: max_tokens },
        stops: Vec::new(),
        logprobs: None,
        flex: false,
    }
}

impl Draft {
    /// The same for another of several answers to one prompt: with the same seed it is another one.
    pub(crate) fn choice(mut self, choice: u32) -> Self {
        self.terms.sampler.choice = choice;
        self
    }

    /// The highest assurance that there is for such an order: the model's, but what a grammar allows no
    /// contract can judge.
    pub(crate) fn assurance(&self, model: &Model) -> Assurance {
        match self.terms.grammar {
            Some(_) => Assurance::Scored,
            None => model.listed.assurance,
        }
    }

    /// What an offer has to meet for the answer to come to at most `max_price`.
    pub(crate) fn wanted(&self, model: &Model, max_price: Amount) -> Wanted {
        Wanted {
            model: model.listed.id,
            assurance: self.assurance(model),
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            max_price,
            registry: Address::ZERO,
        }
    }

    /// The order for `model`, to be signed.
    pub(crate) fn order(&self, model: &Model, conditions: Conditions) -> Order {
        Order {
            buyer: conditions.buyer,
            market: conditions.market,
            model: model.listed.id,
            request: keccak256(&self.request),
            prompt: token_root(&self.terms.prompt),
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            sampler: self.terms.sampler.hash(),
            assurance: conditions.assurance,
            audit: conditions.audit,
            asset: Address::ZERO,
            max_price: conditions.max_price,
            deadline: conditions.deadline,
            nonce: conditions.nonce,
            grant: conditions.grant,
        }
    }
}

/// The most tokens of the answer: what was asked for if it fits, else what is left.
fn max_tokens(
    asked: Option<u32>,
    param: &str,
    (prompt, context): (u32, u32),
) -> Result<u32, Problem> {
    let room = context - prompt;
    match asked {
        None => Ok(room),
        Some(asked) if asked <= room => Ok(asked),
        Some(asked) => {
            let total = u64::from(prompt) + u64::from(asked);
            let message = format!(
                "this model's context is {context} tokens, but {total} are asked for: {prompt} in \
                 the {param} and {asked} in the answer; shorten either"
            );
            Err(Problem::context(param, message))
        }
    }
}

/// The stop strings as the tokens that usually spell them.
fn stop_sequences(model: &Model, stops: &[String]) -> Vec<Vec<u32>> {
    let mut sequences: Vec<Vec<u32>> =
        stops.iter().map(|stop| model.listed.tokenizer.encode_plain(stop)).collect();
    sequences.retain(|sequence| !sequence.is_empty());
    sequences.sort();
    sequences.dedup();
    sequences
}

fn bias(model: &Model, sampling: &Sampling) -> Result<Vec<(u32, i32)>, Problem> {
    let tokens = model.listed.tokenizer.len();
    let biases = sampling.logit_bias.iter().map(|(&token, &bias)| {
        if token as usize >= tokens {
            let message = format!("logit_bias names token {token}, the model has {tokens}");
            return Err(Problem::invalid_value("logit_bias", message));
        }
        Ok((token, q16(bias)))
    });
    let mut biases = biases.collect::<Result<BTreeMap<u32, i32>, _>>()?;
    if sampling.ignore_eos {
        // As unlikely as a client can make it, which is less than any other token is.
        biases.extend(model.listed.eos.iter().map(|&token| (token, q16(BIAS_LEAST))));
    }
    Ok(biases.into_iter().collect())
}

fn sampler(asked: &Sampling, stops: &[Vec<u32>], bias: &[(u32, i32)], seed: B256) -> Sampler {
    // Ranges were checked as the request was read; the bounds here repair only rounding.
    Sampler {
        inv_t_q16: inverse_temperature(asked.temperature),
        top_k: asked.top_k,
        top_p_q16: q16(asked.top_p).unsigned_abs().clamp(1, NEUTRAL_Q16),
        min_p_q16: q16(asked.min_p).unsigned_abs().min(NEUTRAL_Q16),
        rep_q16: q16(asked.repetition_penalty).unsigned_abs().clamp(1 << 12, 1 << 20),
        freq_q16: q16(asked.frequency_penalty),
        pres_q16: q16(asked.presence_penalty),
        stops: stops_hash(stops),
        bias: bias_hash(bias),
        grammar: grammar_hash(asked.grammar.as_deref()),
        seed,
        choice: 0,
    }
}

/// round(2^16 · log2(e) / T); zero, which is greedy, if that is too large to write.
fn inverse_temperature(temperature: f64) -> u32 {
    let inverse = (65536.0 * LOG2_E / temperature).round();
    // Casting saturates, and a division by zero is infinite.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    if inverse < 4_294_967_296.0 { inverse as u32 } else { 0 }
}

/// round(2^16 · value).
#[expect(clippy::cast_possible_truncation, reason = "values are at most 100, and casts saturate")]
fn q16(value: f64) -> i32 {
    (value * 65536.0).round() as i32
}

/// A client's 64-bit seed as 32 bytes, its sign extended.
fn seed_of(seed: i64) -> B256 {
    let mut bytes = [if seed < 0 { 0xff } else { 0 }; 32];
    bytes[24..].copy_from_slice(&seed.to_be_bytes());
    B256::from(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Listed;
    use crate::catalogue::Catalogue;
    use crate::openai::{Api, Question};
    use assay_protocol::{ChainId, Key, ModelId};
    use assay_text::{Chat, Tokenizer};

    const TEMPLATE: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}\
        {% if m['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

    /// The small model's words, with a context of 64.
    pub(crate) fn nano() -> Arc<Model> {
        let json = include_bytes!("../../../assets/nano/tokenizer.json");
        let tokenizer = Tokenizer::from_json(json).unwrap();
        let eos = tokenizer.id_of("<eos>").unwrap();
        let listed = Listed {
            id: ModelId(B256::repeat_byte(1)),
            name: "org/nano".into(),
            tokenizer: Arc::new(tokenizer),
            chat: Some(Arc::new(Chat::new(TEMPLATE).unwrap())),
            vector_width: None,
            labels: None,
            eos: vec![eos],
            context: 64,
            assurance: Assurance::Replayable,
            created: 5,
        };
        Catalogue::new(vec![listed], Default::default()).models.remove(0)
    }

    fn question(fields: &str) -> Question {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"1+1="}}]{fields}}}"#);
        Api::Chat.parse(body.as_bytes(), &[]).unwrap()
    }

    fn drafted(fields: &str) -> Draft {
        let Question { prompts, sampling, .. } = question(fields);
        draft(&nano(), &prompts[0], &sampling, B256::repeat_byte(7), 0).unwrap()
    }

    fn refused(question: &Question, code: &str, message: &str) {
        let problem =
            draft(&nano(), &question.prompts[0], &question.sampling, B256::ZERO, 0).unwrap_err();
        assert_eq!((problem.code, problem.message.as_str()), (code, message));
    }

    #[test]
    fn a_draft_is_a_valid_order() {
        let (key, chain, model) = (Key::from_bytes([1; 32]).unwrap(), ChainId(7), nano());
        let draft = drafted(r#","stop":["\n","x"],"logit_bias":{"9":-1,"3":1}"#);
        let order = draft.order(
            &model,
            Conditions {
                buyer: key.address(),
                market: Address::repeat_byte(8),
                assurance: Assurance::Replayable,
                audit: Audit::Public,
                max_price: Amount(1),
                deadline: 9,
                nonce: U256::from(1),
                grant: B256::ZERO,
            },
        );
        let signature = order.sign(chain, &key);
        assert_eq!(order.check(chain, &signature, &draft.terms), Ok(order.hash(chain)));
        assert_eq!(draft.request, r#"{"messages":[{"content":"1+1=","role":"user"}]}"#);
        assert_eq!(draft.prompt_tokens + draft.max_tokens, 64);
        let tokenizer = &model.listed.tokenizer;
        assert_eq!(draft.terms.prompt.first(), tokenizer.id_of("<|user|>").as_ref());
        assert_eq!(draft.terms.prompt.last(), tokenizer.id_of("<|assistant|>").as_ref());
    }

    #[test]
    fn numbers_become_integers_by_rounding() {
        let sampler = drafted(
            r#","temperature":1,"top_p":0.9,"min_p":0.05,"top_k":40,"frequency_penalty":-0.5,
            "presence_penalty":2,"repetition_penalty":1.1"#,
        )
        .terms
        .sampler;
        assert_eq!(sampler.inv_t_q16, 94548);
        assert_eq!((sampler.top_p_q16, sampler.min_p_q16, sampler.top_k), (58982, 3277, 40));
        assert_eq!((sampler.freq_q16, sampler.pres_q16), (-32768, 131_072));
        assert_eq!(sampler.rep_q16, 72090);
        assert_eq!(sampler.check(), Ok(()));
    }

    #[test]
    fn extremes_stay_within_the_protocols_bounds() {
        let of = |fields| drafted(fields).terms.sampler;
        assert_eq!(of(r#","temperature":0"#).inv_t_q16, 0);
        assert_eq!(of(r#","temperature":1e-9"#).inv_t_q16, 0);
        assert_eq!(of(r#","temperature":2"#).inv_t_q16, 47274);
        assert_eq!(of(r#","top_p":0"#).top_p_q16, 1);
        for fields in [r#","repetition_penalty":0.0625"#, r#","repetition_penalty":16"#] {
            assert_eq!(of(fields).check(), Ok(()));
        }
    }

    #[test]
    fn a_seed_is_the_clients_or_ours() {
        assert_eq!(drafted("").terms.sampler.seed, B256::repeat_byte(7));
        assert_eq!(drafted(r#","seed":258"#).terms.sampler.seed, B256::from(U256::from(258)));
        assert_eq!(drafted(r#","seed":-1"#).terms.sampler.seed, B256::repeat_byte(0xff));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let prompt = drafted("").prompt_tokens;
        refused(
            &question(r#","max_tokens":64"#),
            "context_length_exceeded",
            &format!(
                "this model's context is 64 tokens, but {} are asked for: {prompt} in the messages \
                 and 64 in the answer; shorten either",
                prompt + 64
            ),
        );
        let sampling = question("").sampling;
        let long = |content: String| {
            let message = assay_text::Message::new("user", content);
            draft(&nano(), &Prompt::conversation(vec![message], None), &sampling, B256::ZERO, 0)
                .unwrap_err()
        };
        let problem = long("1 ".repeat(40));
        assert_eq!(problem.code, "context_length_exceeded");
        assert_eq!(problem.param.as_deref(), Some("messages"));
        let problem = long("1".repeat(10 << 20));
        assert!(problem.message.contains("take at least "), "{}", problem.message);
        assert_eq!(drafted(&format!(r#","max_tokens":{}"#, 64 - prompt)).max_tokens, 64 - prompt);
    }

    #[test]
    fn who_ignores_the_end_makes_it_unlikely() {
        let eos = nano().listed.eos.clone();
        let bias = |fields| drafted(fields).terms.bias;
        assert_eq!(bias(r#","ignore_eos":false"#), []);
        assert_eq!(bias(r#","ignore_eos":true"#), [(eos[0], -100 << 16)]);
        assert_eq!(bias(r#","ignore_eos":true,"logit_bias":{"9":1}"#).len(), 2);
    }

    #[test]
    fn a_bias_for_no_token_is_refused() {
        let tokens = nano().listed.tokenizer.len();
        refused(
            &question(&format!(r#","logit_bias":{{"{tokens}":1}}"#)),
            "invalid_value",
            &format!("logit_bias names token {tokens}, the model has {tokens}"),
        );
    }
}
