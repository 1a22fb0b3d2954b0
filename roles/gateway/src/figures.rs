//! What a gateway did so far, in numbers, as Prometheus reads them at `GET /metrics`.
//!
//! Names are those of vLLM with our prefix, so that dashboards made for it can be used. Every label has
//! few values: models that are listed, routes, and words of ours. Nothing that a client chooses is one.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
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
const WAITS_S: [f64; 15] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0, 160.0];

/// The routes that are told apart; what lies below one counts as one more.
const ROUTES: [&str; 21] = [
    "/classify",
    "/health",
    "/livez",
    "/metrics",
    "/readyz",
    "/rpc",
    "/v1/audio",
    "/v1/batches",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/files",
    "/v1/images",
    "/v1/keys",
    "/v1/lanes",
    "/v1/lies",
    "/v1/models",
    "/v1/providers",
    "/v1/receipts",
    "/v1/responses",
    "/x402",
];

/// Numbers of tokens that a histogram tells apart.
const TOKENS: [f64; 10] =
    [1.0, 8.0, 32.0, 128.0, 512.0, 1024.0, 2048.0, 8192.0, 32768.0, 131_072.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEnd {
    model: String,
    finished_reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRoute {
    method: &'static str,
    path: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStatus {
    method: &'static str,
    path: String,
    status: u32,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The numbers, while they grow.
#[derive(Debug)]
pub(crate) struct Figures {
    registry: Registry,
    http_requests: Family<OfStatus, Counter>,
    http_duration: Histograms<OfRoute>,
    http_in_flight: Gauge,
    running: Gauge,
    running_max: Gauge,
    ready: Family<OfModel, Gauge>,
    prompt_tokens: Family<OfModel, Counter>,
    cached_tokens: Family<OfModel, Counter>,
    output_tokens: Family<OfModel, Counter>,
    succeeded: Family<OfEnd, Counter>,
    failed: Family<OfEnd, Counter>,
    first_token: Histograms<OfModel>,
    between_tokens: Histograms<OfModel>,
    whole: Histograms<OfModel>,
    prompt_lengths: Histograms<OfModel>,
    output_lengths: Histograms<OfModel>,
}

/// An answer that was bought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) model: &'a str,
    /// Why it ended.
    pub(crate) finish: &'static str,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) output_tokens: u32,
    /// From the request to its first text, if there was any, …
    pub(crate) first: Option<Duration>,
    /// … and to its end.
    pub(crate) whole: Duration,
}

/// A request that is being answered; dropping it takes it out of their number.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a request is counted as.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    method: &'static str,
    path: String,
}

impl Route {
    /// By a route and a method that there is: who scans for others adds no labels.
    pub(crate) fn of(request: &Request) -> Self {
        let asked = request.uri().path();
        let below = |route: &str| {
            let rest = asked.strip_prefix(route)?;
            if rest.is_empty() {
                return Some(route.to_owned());
            }
            rest.starts_with('/').then(|| format!("{route}/*"))
        };
        let path = ROUTES.into_iter().find_map(below).unwrap_or_else(|| "other".to_owned());
        let known = [Method::GET, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS];
        let names = ["GET", "POST", "DELETE", "HEAD", "OPTIONS"];
        let method = known.iter().zip(names).find(|(known, _)| *known == request.method());
        Self { method: method.map_or("other", |(_, name)| name), path }
    }
}

fn waits() -> Histogram {
    Histogram::new(WAITS_S)
}

fn lengths() -> Histogram {
    Histogram::new(TOKENS)
}

impl Default for Figures {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("assay");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("role", "gateway")]);
        registry.register("build", "Which build this is", build);
        let figures = Self {
            http_requests: Family::default(),
            http_duration: Family::new_with_constructor(waits),
            http_in_flight: Gauge::default(),
            running: Gauge::default(),
            running_max: Gauge::default(),
            ready: Family::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            output_tokens: Family::default(),
            succeeded: Family::default(),
            failed: Family::default(),
            first_token: Family::new_with_constructor(waits),
            between_tokens: Family::new_with_constructor(waits),
            whole: Family::new_with_constructor(waits),
            prompt_lengths: Family::new_with_constructor(lengths),
            output_lengths: Family::new_with_constructor(lengths),
            registry: Registry::default(),
        };
        figures.register_requests(&mut registry);
        figures.register_answers(&mut registry);
        Self { registry, ..figures }
    }
}

impl Figures {
    fn register_requests(&self, registry: &mut Registry) {
        let Self { http_requests, http_duration, http_in_flight, running, .. } = self;
        registry.register("http_requests", "Requests answered", http_requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From a request to the end of its answer",
            http_duration.clone(),
        );
        let help = "Requests being answered, of every kind";
        registry.register("http_requests_in_flight", help, http_in_flight.clone());
        registry.register("num_requests_running", "Answers being bought", running.clone());
        let help = "Answers that are bought at once, at most";
        registry.register("num_requests_max", help, self.running_max.clone());
        let help = "Whether some provider offers the model";
        registry.register("model_ready", help, self.ready.clone());
    }

    fn register_answers(&self, registry: &mut Registry) {
        registry.register("prompt_tokens", "Prompt tokens bought", self.prompt_tokens.clone());
        let help = "Prompt tokens that providers say they did not compute";
        registry.register("prefix_cache_hits", help, self.cached_tokens.clone());
        registry.register("generation_tokens", "Output tokens bought", self.output_tokens.clone());
        registry.register("request_success", "Answers with a receipt", self.succeeded.clone());
        registry.register("request_failure", "Answers that failed", self.failed.clone());
        let help = "From a request to its first text";
        registry.register("time_to_first_token_seconds", help, self.first_token.clone());
        let help = "Time for each token after the first, on average in one answer";
        registry.register("inter_token_latency_seconds", help, self.between_tokens.clone());
        let help = "From a request to its receipt";
        registry.register("e2e_request_latency_seconds", help, self.whole.clone());
        let help = "Prompt tokens of one answer";
        registry.register("request_prompt_tokens", help, self.prompt_lengths.clone());
        let help = "Output tokens of one answer";
        registry.register("request_generation_tokens", help, self.output_lengths.clone());
    }

    /// A request came.
    pub(crate) fn arrived(&self) -> InFlight {
        self.http_in_flight.inc();
        InFlight(self.http_in_flight.clone())
    }

    /// A request was answered to the end.
    pub(crate) fn answered_http(&self, route: &Route, status: StatusCode, begun: Instant) {
        let Route { method, path } = route.clone();
        let status = u32::from(status.as_u16());
        let seconds = begun.elapsed().as_secs_f64();
        self.http_requests.get_or_create(&OfStatus { method, path: path.clone(), status }).inc();
        self.http_duration.get_or_create(&OfRoute { method, path }).observe(seconds);
    }

    /// An answer was bought.
    pub(crate) fn answered(&self, answered: &Answered<'_>) {
        let Answered { model, finish, prompt_tokens, output_tokens, first, whole, .. } = *answered;
        let of = OfModel { model: model.to_owned() };
        self.prompt_tokens.get_or_create(&of).inc_by(u64::from(prompt_tokens));
        self.cached_tokens.get_or_create(&of).inc_by(u64::from(answered.cached_tokens));
        self.output_tokens.get_or_create(&of).inc_by(u64::from(output_tokens));
        let end = OfEnd { model: model.to_owned(), finished_reason: finish };
        self.succeeded.get_or_create(&end).inc();
        self.whole.get_or_create(&of).observe(whole.as_secs_f64());
        self.prompt_lengths.get_or_create(&of).observe(f64::from(prompt_tokens));
        self.output_lengths.get_or_create(&of).observe(f64::from(output_tokens));
        let Some(first) = first else { return };
        self.first_token.get_or_create(&of).observe(first.as_secs_f64());
        if output_tokens > 1 {
            let rest = whole.saturating_sub(first).as_secs_f64() / f64::from(output_tokens - 1);
            self.between_tokens.get_or_create(&of).observe(rest);
        }
    }

    /// There will be no answer, for the reason that `code` names.
    pub(crate) fn failed(&self, model: &str, code: &'static str) {
        let end = OfEnd { model: model.to_owned(), finished_reason: code };
        self.failed.get_or_create(&end).inc();
    }

    /// How a model stands now.
    pub(crate) fn stands(&self, model: &str, ready: bool) {
        let of = OfModel { model: model.to_owned() };
        self.ready.get_or_create(&of).set(i64::from(ready));
    }

    /// The page that is scraped, with so many answers being bought of so many at once.
    pub(crate) fn page(&self, running: usize, running_max: usize) -> String {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.running_max.set(i64::try_from(running_max).unwrap_or(i64::MAX));
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_on_the_page() {
        let figures = Figures::default();
        let answered = Answered {
            model: "org/nano",
            finish: "stop",
            prompt_tokens: 7,
            cached_tokens: 2,
            output_tokens: 3,
            first: Some(Duration::from_millis(20)),
            whole: Duration::from_millis(40),
        };
        figures.answered(&answered);
        figures.answered(&answered);
        figures.failed("org/nano", "no_provider");
        figures.stands("org/nano", true);
        let flying = figures.arrived();
        let page = figures.page(1, 9);
        for line in [
            "assay_prompt_tokens_total{model=\"org/nano\"} 14",
            "assay_prefix_cache_hits_total{model=\"org/nano\"} 4",
            "assay_generation_tokens_total{model=\"org/nano\"} 6",
            "assay_request_success_total{model=\"org/nano\",finished_reason=\"stop\"} 2",
            "assay_request_failure_total{model=\"org/nano\",finished_reason=\"no_provider\"} 1",
            "assay_time_to_first_token_seconds_count{model=\"org/nano\"} 2",
            "assay_inter_token_latency_seconds_bucket{le=\"0.005\",model=\"org/nano\"} 0",
            "assay_inter_token_latency_seconds_bucket{le=\"0.02\",model=\"org/nano\"} 2",
            "assay_model_ready{model=\"org/nano\"} 1",
            "assay_http_requests_in_flight 1",
            "assay_num_requests_running 1",
            "assay_num_requests_max 9",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        drop(flying);
        assert!(figures.page(0, 9).contains("assay_http_requests_in_flight 0"));
    }

    #[test]
    fn nobody_adds_labels() {
        let figures = Figures::default();
        for method in ["GET", "BREW", "SCAN"] {
            let request = axum::http::Request::builder()
                .method(method)
                .uri("/x/y")
                .body(axum::body::Body::empty());
            let route = Route::of(&request.unwrap());
            figures.answered_http(&route, StatusCode::NOT_FOUND, Instant::now());
        }
        let page = figures.page(0, 1);
        assert!(
            page.contains(
                r#"assay_http_requests_total{method="other",path="other",status="404"} 2"#
            ),
            "{page}"
        );
        assert!(!page.contains("BREW"));
        let of = |uri: &str| {
            let request = axum::http::Request::get(uri).body(axum::body::Body::empty());
            Route::of(&request.unwrap()).path
        };
        assert_eq!(of("/v1/models"), "/v1/models");
        assert_eq!(of("/v1/chat/completions/chatcmpl-1/messages?x"), "/v1/chat/completions/*");
        assert_eq!(of("/v1/modelsx"), "other");
    }
}
