//! What providers offer now, filled in the background, so that no request waits for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::wire::{Accepts, Offers};
use assay_protocol::{Address, Amount, Assurance, ChainId, ModelId, Offer};
use futures_util::future::join_all;
use serde::Serialize;

use crate::http::now_s;
use crate::latency::{Latency, Slowness};
use crate::lines::short_body;
use crate::route::Candidate;
use crate::standing::Standing;

/// Longest answer to a question for offers, in bytes.
const OFFERS_BYTES_MAX: usize = 1 << 20;

/// Longest wait for that answer.
const OFFERS_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often providers are asked until all of them have answered once.
pub(crate) const FIRST_POLLS_EVERY: Duration = Duration::from_millis(50);

/// Polls at that pace, after which the configured one is kept.
const FIRST_POLLS_MAX: u32 = 100;

/// How long a provider that lied is left alone, in seconds.
pub(crate) const STRUCK_S: u64 = 600;

/// How long others are asked before a provider that failed once.
const ASIDE: Duration = Duration::from_secs(1);

/// How often that doubles at most, to about a minute.
const ASIDE_DOUBLINGS_MAX: u32 = 6;

/// The providers, and what each offers now.
#[derive(Debug)]
pub(crate) struct Directory {
    http: reqwest::Client,
    chain: ChainId,
    /// Where orders are paid; none: nothing is bought but what is free.
    market: Option<Market>,
    /// Time per token beyond which a provider counts as slow.
    token_time_target: Duration,
    providers: Mutex<Vec<Provider>>,
}

/// The deployment that orders are paid in: a provider of another one is not bought from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Market {
    pub(crate) channels: Address,
    pub(crate) receipts: Address,
    pub(crate) token: Address,
    /// Longest delay of a withdrawal, in seconds, that a provider may demand.
    pub(crate) withdraw_delay_max: u64,
}

#[derive(Debug)]
struct Provider {
    url: String,
    /// Who it is, once it answered.
    address: Option<Address>,
    /// Empty while it does not answer.
    offers: Vec<Offer>,
    accepts: Option<Accepts>,
    running: u32,
    running_max: u32,
    /// Orders of ours that it runs, which it may not have counted yet.
    ours: u32,
    latency: Latency,
    /// Why it has no offers.
    fault: Option<String>,
    struck: Option<Strike>,
    /// What the chain last said about it; none before it said anything.
    standing: Option<Standing>,
    /// Orders it failed since it last answered one; those that failed together count once.
    failures: u32,
    aside: Option<Aside>,
}

/// Why others are asked before a provider, and until when.
#[derive(Debug)]
struct Aside {
    until: Instant,
    reason: String,
}

/// Why a provider is left alone, and until when.
#[derive(Clone, Debug)]
struct Strike {
    /// Unix seconds.
    until: u64,
    reason: String,
}

/// Why a provider's offers are not taken.
#[derive(Debug, thiserror::Error)]
enum OffersError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("offers take more than {OFFERS_BYTES_MAX} bytes")]
    Length,
    #[error("offers cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("offers are for chain {found}, expected {expected}")]
    Chain { found: ChainId, expected: ChainId },
    #[error("an offer for model {model} is not signed by provider {provider}")]
    Signature { model: ModelId, provider: Address },
    #[error("it wants to be paid, and this gateway has nothing to pay with")]
    Paid,
    #[error("it cannot be paid, and this gateway buys nothing that is free")]
    Free,
    #[error("it is paid in another deployment: its {what} is {found}, expected {expected}")]
    Market { what: &'static str, found: Address, expected: Address },
    #[error("it has nobody who {what}")]
    Nobody { what: &'static str },
    #[error("it wants {found} s notice before money leaves a channel, at most {max} s are given")]
    Notice { found: u64, max: u64 },
}

impl Market {
    /// Refuses a provider that cannot be paid here.
    fn check(self, accepts: &Accepts) -> Result<(), OffersError> {
        let contracts = [
            ("channels contract", accepts.channels, self.channels),
            ("market", accepts.market, self.receipts),
            ("token", accepts.token, self.token),
        ];
        if let Some((what, found, expected)) = contracts.into_iter().find(|(_, f, e)| f != e) {
            return Err(OffersError::Market { what, found, expected });
        }
        let people = [("is paid", accepts.receiver), ("claims", accepts.receiver_authorizer)];
        if let Some((what, _)) = people.into_iter().find(|(_, who)| who.is_zero()) {
            return Err(OffersError::Nobody { what });
        }
        let (found, max) = (accepts.withdraw_delay_min, self.withdraw_delay_max);
        if found > max { Err(OffersError::Notice { found, max }) } else { Ok(()) }
    }
}

impl Provider {
    /// Why it is left alone at `now`, Unix seconds.
    fn struck_at(&self, now: u64) -> Option<&Strike> {
        self.struck.as_ref().filter(|strike| now < strike.until)
    }

    /// Why it may not be bought from, where that is paid for in `market`.
    fn barred(&self, market: Option<Market>) -> Option<String> {
        market?;
        match self.standing {
            Some(Standing::Good) => None,
            Some(standing) => Some(standing.to_string()),
            None => Some("the chain was not asked about it yet".to_owned()),
        }
    }

    /// Why others are asked first now.
    fn aside(&self) -> Option<&Aside> {
        self.aside.as_ref().filter(|aside| Instant::now() < aside.until)
    }
}

impl Directory {
    pub(crate) fn new(
        http: reqwest::Client,
        chain: ChainId,
        market: Option<Market>,
        token_time_target: Duration,
        urls: Vec<String>,
    ) -> Self {
        let provider = |url: String| Provider {
            url: url.trim_end_matches('/').to_owned(),
            address: None,
            offers: Vec::new(),
            accepts: None,
            running: 0,
            running_max: 0,
            ours: 0,
            latency: Latency::default(),
            fault: Some("not asked yet".into()),
            struck: None,
            standing: None,
            failures: 0,
            aside: None,
        };
        let providers = Mutex::new(urls.into_iter().map(provider).collect());
        Self { http, chain, market, token_time_target, providers }
    }

    /// Asks every provider now and then, for ever.
    pub(crate) async fn watch(&self, every: Duration) {
        let mut first_polls = 0;
        loop {
            self.poll().await;
            let answered = self.lock().iter().all(|provider| provider.fault.is_none());
            first_polls += 1;
            let eager = !answered && first_polls < FIRST_POLLS_MAX;
            tokio::time::sleep(if eager { FIRST_POLLS_EVERY.min(every) } else { every }).await;
        }
    }

    /// Asks every provider once.
    async fn poll(&self) {
        let urls: Vec<String> = self.lock().iter().map(|provider| provider.url.clone()).collect();
        join_all(urls.iter().enumerate().map(async |(place, url)| {
            let asked = self.ask(url).await;
            self.note(place, asked);
        }))
        .await;
    }

    async fn ask(&self, url: &str) -> Result<Offers, OffersError> {
        let request = self.http.get(format!("{url}/v1/offers")).timeout(OFFERS_WAIT_MAX);
        let mut reply = request.send().await?.error_for_status()?;
        let body = short_body(&mut reply, OFFERS_BYTES_MAX).await?;
        let bytes = body.ok_or(OffersError::Length)?;
        let offers: Offers = serde_json::from_slice(&bytes)?;
        if offers.chain_id != self.chain {
            return Err(OffersError::Chain { found: offers.chain_id, expected: self.chain });
        }
        let forged = offers.offers.iter().find(|signed| {
            signed.offer.provider != offers.provider
                || signed.offer.is_signed(self.chain, &signed.signature) != Ok(true)
        });
        if let Some(signed) = forged {
            let (model, provider) = (signed.offer.model, offers.provider);
            return Err(OffersError::Signature { model, provider });
        }
        match (self.market, &offers.accepts) {
            (Some(market), Some(accepts)) => market.check(accepts)?,
            (Some(_), None) => return Err(OffersError::Free),
            (None, Some(_)) => return Err(OffersError::Paid),
            (None, None) => {}
        }
        Ok(offers)
    }

    fn note(&self, place: usize, asked: Result<Offers, OffersError>) {
        let mut providers = self.lock();
        let provider = &mut providers[place];
        match asked {
            Ok(offers) => {
                if provider.fault.take().is_some() {
                    tracing::info!(url = provider.url, provider = %offers.provider, "offers seen");
                }
                if provider.address.replace(offers.provider) != Some(offers.provider) {
                    provider.standing = None;
                }
                provider.offers = offers.offers.into_iter().map(|signed| signed.offer).collect();
                provider.accepts = offers.accepts;
                provider.running = offers.running;
                provider.running_max = offers.running_max;
            }
            Err(error) => {
                if provider.fault.is_none() {
                    tracing::warn!(url = provider.url, %error, "offers lost");
                }
                provider.offers.clear();
                provider.fault = Some(error.to_string());
            }
        }
    }

    /// The offers for `model` that are known at `now`, Unix seconds.
    pub(crate) fn candidates(&self, model: ModelId, now: u64) -> Vec<Candidate> {
        let providers = self.lock();
        let known = providers.iter().enumerate().flat_map(|(place, provider)| {
            let offers = provider.offers.iter().filter(move |offer| offer.model == model);
            let slowness = provider.latency.coefficient(self.token_time_target, Instant::now());
            offers.map(move |offer| Candidate {
                place,
                url: provider.url.clone(),
                offer: offer.clone(),
                accepts: provider.accepts.clone(),
                running: provider.running.max(provider.ours),
                running_max: provider.running_max,
                slowness,
                struck: provider.struck_at(now).is_some(),
                barred: provider.barred(self.market).is_some(),
                aside: provider.aside().is_some(),
            })
        });
        known.collect()
    }

    /// Whether there is a live offer for `model`.
    pub(crate) fn offers(&self, model: ModelId, now: u64) -> bool {
        let candidates = self.candidates(model, now);
        let open = |candidate: &Candidate| !candidate.struck && !candidate.barred;
        candidates.iter().any(|candidate| open(candidate) && now < candidate.offer.expires)
    }

    /// Providers that the chain is to be asked about, by their places: `all`, or those of whom it has said nothing.
    pub(crate) fn to_look_up(&self, all: bool) -> Vec<(usize, Address)> {
        let providers = self.lock();
        let wanted = providers.iter().enumerate().filter(|(_, one)| all || one.standing.is_none());
        wanted.filter_map(|(place, one)| Some((place, one.address?))).collect()
    }

    /// Notes what the chain says about who is at a place.
    pub(crate) fn stands(&self, place: usize, address: Address, standing: Standing) {
        let mut providers = self.lock();
        let provider = &mut providers[place];
        if provider.address != Some(address) || provider.standing == Some(standing) {
            return;
        }
        match standing {
            Standing::Good => tracing::info!(url = provider.url, %address, "bought from"),
            _ => tracing::warn!(url = provider.url, %address, %standing, "not bought from"),
        }
        provider.standing = Some(standing);
    }

    /// Counts an order of ours at a provider until the guard is dropped.
    pub(crate) fn using(&self, place: usize) -> Using<'_> {
        self.lock()[place].ours += 1;
        Using { directory: self, place }
    }

    /// Leaves a provider alone for a while, because it lied.
    pub(crate) fn strike(&self, place: usize, reason: String) {
        let mut providers = self.lock();
        let provider = &mut providers[place];
        tracing::error!(url = provider.url, provider = ?provider.address, reason, "provider struck");
        provider.struck = Some(Strike { until: now_s() + STRUCK_S, reason });
    }

    /// Asks others first for a while, because a provider refused, broke off or fell silent. The
    /// while doubles with each failure in a row.
    pub(crate) fn put_aside(&self, place: usize, reason: &str) {
        let mut providers = self.lock();
        let provider = &mut providers[place];
        if provider.aside().is_none() {
            provider.failures += 1;
            let factor = 1 << (provider.failures - 1).min(ASIDE_DOUBLINGS_MAX);
            let until = Instant::now() + ASIDE * factor;
            provider.aside = Some(Aside { until, reason: reason.to_owned() });
        }
    }

    /// Forgets the failures of a provider that answered, and counts how long it took for so many tokens.
    pub(crate) fn answered(&self, place: usize, took: Duration, tokens: u32) {
        let mut providers = self.lock();
        providers[place].latency.count(took, tokens, Instant::now());
        providers[place].failures = 0;
        providers[place].aside = None;
    }

    /// The directory as anyone may read it, at `now` in Unix seconds.
    pub(crate) fn listing(&self, now: u64) -> String {
        let providers = self.lock();
        let data = providers.iter().map(|provider| Entry {
            address: provider.address,
            url: &provider.url,
            offers: provider.offers.iter().map(Price::of).collect(),
            running: provider.running,
            running_max: provider.running_max,
            slowness_ppm: provider.latency.coefficient(self.token_time_target, Instant::now()),
            struck: provider.struck_at(now).map(|strike| strike.reason.as_str()),
            barred: provider.barred(self.market),
            aside: provider.aside().map(|aside| aside.reason.as_str()),
            struck_until: provider.struck_at(now).map(|strike| strike.until),
            fault: provider.fault.as_deref(),
        });
        let listing = Listing { object: "list", data: data.collect() };
        serde_json::to_string(&listing).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Provider>> {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An order of ours that a provider runs.
#[derive(Debug)]
pub(crate) struct Using<'a> {
    directory: &'a Directory,
    place: usize,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.directory.lock()[self.place].ours -= 1;
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    address: Option<Address>,
    url: &'a str,
    offers: Vec<Price>,
    running: u32,
    running_max: u32,
    slowness_ppm: Slowness,
    struck: Option<&'a str>,
    struck_until: Option<u64>,
    barred: Option<String>,
    aside: Option<&'a str>,
    fault: Option<&'a str>,
}

#[derive(Serialize)]
struct Price {
    model: ModelId,
    assurance: Assurance,
    price_in: Amount,
    price_out: Amount,
    context: u32,
    expires: u64,
}

impl Price {
    fn of(offer: &Offer) -> Self {
        Self {
            model: offer.model,
            assurance: offer.assurance,
            price_in: offer.price_in,
            price_out: offer.price_out,
            context: offer.context,
            expires: offer.expires,
        }
    }
}
