//! What a provider did so far, in numbers, as Prometheus reads them at `GET /metrics`.
//!
//! Names are those of vLLM with our prefix, so that dashboards made for it can be used; a ratio is called
//! one, and what vLLM does not know has names of ours. Every label has few values: models on sale, and words of ours. Nothing that a buyer chooses is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use assay_engine::Figures as Computed;
use assay_protocol::wire::Refusal;
use assay_protocol::{Finish, ModelId};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// What a scraper is told that the page is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds that a histogram of waits tells apart.
const WAITS_S: [f64; 13] =
    [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 40.0, 160.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEnd {
    model: String,
    finished_reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRefusal {
    code: String,
}

/// Of an answer: who gave it, how it ended, and when what of it happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) model: ModelId,
    pub(crate) finish: Finish,
    pub(crate) output_tokens: u32,
    pub(crate) times: Times,
}

/// When an answer came how far. One that ended early may have no start or no token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The order was read.
    pub(crate) since: Instant,
    /// The engine began.
    pub(crate) started: Option<Instant>,
    /// The first token came and the last, of so many.
    pub(crate) tokens: Option<(Instant, Instant, u32)>,
    /// The receipt was on disk.
    pub(crate) end: Instant,
}

type Histograms = Family<OfModel, Histogram, fn() -> Histogram>;

/// The numbers, while they grow.
#[derive(Debug)]
pub(crate) struct Figures {
    registry: Registry,
    running: Gauge,
    running_max: Gauge,
    receipts: Family<OfEnd, Counter>,
    refused: Family<OfRefusal, Counter>,
    sold_tokens: Family<OfModel, Counter>,
    queued: Histograms,
    prefill: Histograms,
    decode: Histograms,
    first_token: Histograms,
    between_tokens: Histograms,
    whole: Histograms,
    waiting: Family<OfModel, Gauge>,
    kv_used: Family<OfModel, Gauge<f64, AtomicU64>>,
    kv_bytes: Family<OfModel, Gauge>,
    prompt_tokens: Family<OfModel, Counter>,
    cached_tokens: Family<OfModel, Counter>,
    output_tokens: Family<OfModel, Counter>,
    guessed_tokens: Family<OfModel, Counter>,
    guessed_right: Family<OfModel, Counter>,
    preempted: Family<OfModel, Counter>,
}

impl Default for Figures {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("assay");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("role", "provider")]);
        registry.register("build", "Which build this is", build);
        let waits: fn() -> Histogram = || Histogram::new(WAITS_S);
        let figures = Self {
            running: Gauge::default(),
            running_max: Gauge::default(),
            receipts: Family::default(),
            refused: Family::default(),
            sold_tokens: Family::default(),
            queued: Family::new_with_constructor(waits),
            prefill: Family::new_with_constructor(waits),
            decode: Family::new_with_constructor(waits),
            first_token: Family::new_with_constructor(waits),
            between_tokens: Family::new_with_constructor(waits),
            whole: Family::new_with_constructor(waits),
            waiting: Family::default(),
            kv_used: Family::default(),
            kv_bytes: Family::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            output_tokens: Family::default(),
            guessed_tokens: Family::default(),
            guessed_right: Family::default(),
            preempted: Family::default(),
            registry: Registry::default(),
        };
        figures.register_answers(&mut registry);
        figures.register_engine(&mut registry);
        Self { registry, ..figures }
    }
}

impl Figures {
    fn register_answers(&self, to: &mut Registry) {
        to.register("num_requests_running", "Orders being answered", self.running.clone());
        let help = "Orders that are answered at once, at most";
        to.register("num_requests_max", help, self.running_max.clone());
        to.register("receipts", "Receipts signed", self.receipts.clone());
        to.register("orders_refused", "Orders refused", self.refused.clone());
        to.register("sold_tokens", "Output tokens with a receipt", self.sold_tokens.clone());
        let help = "From an order to when the engine began with it";
        to.register("request_queue_time_seconds", help, self.queued.clone());
        let help = "From there to its first token";
        to.register("request_prefill_time_seconds", help, self.prefill.clone());
        let help = "From its first token to its last";
        to.register("request_decode_time_seconds", help, self.decode.clone());
        let help = "From an order to its first token";
        to.register("time_to_first_token_seconds", help, self.first_token.clone());
        let help = "Time for each token after the first, on average in one answer";
        to.register("inter_token_latency_seconds", help, self.between_tokens.clone());
        let help = "From an order to its receipt";
        to.register("e2e_request_latency_seconds", help, self.whole.clone());
    }

    fn register_engine(&self, to: &mut Registry) {
        let help = "Jobs that wait for their first start";
        to.register("num_requests_waiting", help, self.waiting.clone());
        let help = "What running jobs take of the room for keys and values";
        to.register("kv_cache_usage_ratio", help, self.kv_used.clone());
        let help = "Bytes of keys and values, those kept for prompts that begin alike included";
        to.register("kv_cache_bytes", help, self.kv_bytes.clone());
        let help = "Prompt tokens of jobs that were started";
        to.register("prompt_tokens", help, self.prompt_tokens.clone());
        let help = "Prompt tokens looked up among what earlier jobs left";
        to.register("prefix_cache_queries", help, self.prompt_tokens.clone());
        let help = "Prompt tokens that did not have to be computed";
        to.register("prefix_cache_hits", help, self.cached_tokens.clone());
        to.register("generation_tokens", "Tokens drawn", self.output_tokens.clone());
        let help = "Tokens guessed and computed ahead";
        to.register("spec_decode_num_draft_tokens", help, self.guessed_tokens.clone());
        let help = "Guessed tokens that were the ones drawn";
        to.register("spec_decode_num_accepted_tokens", help, self.guessed_right.clone());
        let help = "Times that a running job made room and was computed again";
        to.register("num_preemptions", help, self.preempted.clone());
    }

    /// A receipt was signed.
    pub(crate) fn sealed(&self, answered: &Answered) {
        let Answered { model, finish, output_tokens, times } = *answered;
        let Times { since, started, tokens, end } = times;
        let of = of(model);
        let reason = OfEnd { model: of.model.clone(), finished_reason: finish.to_string() };
        self.receipts.get_or_create(&reason).inc();
        self.sold_tokens.get_or_create(&of).inc_by(u64::from(output_tokens));
        let observe = |histograms: &Histograms, from: Instant, to: Instant, steps: u32| {
            let seconds = to.saturating_duration_since(from).as_secs_f64();
            histograms.get_or_create(&of).observe(seconds / f64::from(steps));
        };
        observe(&self.whole, since, end, 1);
        if let Some(started) = started {
            observe(&self.queued, since, started, 1);
        }
        let Some((first, last, tokens)) = tokens else { return };
        observe(&self.first_token, since, first, 1);
        if let Some(started) = started {
            observe(&self.prefill, started, first, 1);
        }
        observe(&self.decode, first, last, 1);
        if tokens > 1 {
            observe(&self.between_tokens, first, last, tokens - 1);
        }
    }

    /// An order was refused, or could not be answered.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let code = serde_json::to_value(refusal).unwrap_or_default();
        let code = code["code"].as_str().unwrap_or("unknown").to_owned();
        self.refused.get_or_create(&OfRefusal { code }).inc();
    }

    /// What the engine says of a model.
    pub(crate) fn computed(&self, model: ModelId, computed: Computed) {
        let of = of(model);
        let is = |family: &Family<OfModel, Counter>, value: u64| {
            family.get_or_create(&of).inner().store(value, Ordering::Relaxed);
        };
        is(&self.prompt_tokens, computed.prompt_tokens);
        is(&self.cached_tokens, computed.cached_tokens);
        is(&self.output_tokens, computed.output_tokens);
        is(&self.guessed_tokens, computed.guessed_tokens);
        is(&self.guessed_right, computed.guessed_right);
        is(&self.preempted, computed.preempted);
        let now = |family: &Family<OfModel, Gauge>, value: u64| {
            family.get_or_create(&of).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        now(&self.waiting, computed.waiting);
        now(&self.kv_bytes, computed.kv_bytes);
        let used = computed.kv_used_bytes as f64 / computed.kv_bytes_max.max(1) as f64;
        self.kv_used.get_or_create(&of).set(used);
    }

    /// The page that is scraped, with so many orders running of so many at once.
    pub(crate) fn page(&self, running: u32, running_max: u32) -> String {
        self.running.set(i64::from(running));
        self.running_max.set(i64::from(running_max));
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

fn of(model: ModelId) -> OfModel {
    OfModel { model: model.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use assay_protocol::B256;

    use super::*;

    #[test]
    fn what_happened_is_on_the_page() {
        let (figures, since) = (Figures::default(), Instant::now());
        let model = ModelId(B256::repeat_byte(7));
        let at = |ms| since + Duration::from_millis(ms);
        let (started, tokens) = (Some(at(10)), Some((at(30), at(70), 5)));
        let times = Times { since, started, tokens, end: at(80) };
        figures.sealed(&Answered { model, finish: Finish::Eos, output_tokens: 5, times });
        figures.refused(&Refusal::Closing);
        figures.computed(
            model,
            Computed {
                prompt_tokens: 9,
                cached_tokens: 4,
                waiting: 3,
                kv_used_bytes: 50,
                kv_bytes: 70,
                kv_bytes_max: 200,
                ..Computed::default()
            },
        );
        let page = figures.page(1, 8);
        for line in [
            format!(
                "assay_receipts_total{{model=\"{model}\",finished_reason=\"{}\"}} 1",
                Finish::Eos
            ),
            format!("assay_sold_tokens_total{{model=\"{model}\"}} 5"),
            format!("assay_prefix_cache_queries_total{{model=\"{model}\"}} 9"),
            format!("assay_prefix_cache_hits_total{{model=\"{model}\"}} 4"),
            format!("assay_request_queue_time_seconds_sum{{model=\"{model}\"}} 0.01"),
            format!("assay_request_prefill_time_seconds_sum{{model=\"{model}\"}} 0.02"),
            format!("assay_request_decode_time_seconds_sum{{model=\"{model}\"}} 0.04"),
            format!("assay_time_to_first_token_seconds_sum{{model=\"{model}\"}} 0.03"),
            format!("assay_inter_token_latency_seconds_sum{{model=\"{model}\"}} 0.01"),
            format!("assay_e2e_request_latency_seconds_sum{{model=\"{model}\"}} 0.08"),
            format!("assay_num_requests_waiting{{model=\"{model}\"}} 3"),
            format!("assay_kv_cache_usage_ratio{{model=\"{model}\"}} 0.25"),
            format!("assay_kv_cache_bytes{{model=\"{model}\"}} 70"),
            "assay_orders_refused_total{code=\"closing\"} 1".to_owned(),
            "assay_num_requests_running 1".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}
