//! `assay model probe`: whether enough independent copies of a model's weights are there.
//!
//! A model is verifiable only while somebody besides its seller can compute its answers again. So providers are asked
//! for leaves of the weights, drawn here and now; who has only a part, or none, misses some of them. A right answer
//! says that its sender can get at the weights, not that it keeps them itself: a copy counts once for an owner whose
//! operator signs the offers at the address that was asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assay_chain::{Chain, FiledWeights};
use assay_protocol::wire::{Offers, WeightLeaf};
use assay_protocol::{Address, ChainId, ModelId};
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{LedgerArgument, failed};
use crate::library::Library;
use crate::machine::ThreadsArgument;
use crate::terminal::{say, say_json};

/// Longest wait for an answer. A provider hashes all weights at the first question about them.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest body that is read: offers of many models.
const BODY_MAX: usize = 1 << 18;
/// Most providers of the registry that are asked.
const PROVIDERS_MAX: u64 = 200;
/// Most leaves that one is asked for.
const LEAVES_MAX: u32 = 1024;

/// Ask providers for random leaves of a model's weights, and count who has them
///
/// Says whether the model is verifiable: whether enough owners answer. Exits with 10 where they are too few.
#[derive(Args, Debug)]
pub(crate) struct Probe {
    /// The model: a file, an id or a name; of one that is not here, the whole id
    model: String,
    /// Whom to ask [default: all registered providers]
    #[arg(long = "provider", value_name = "URL")]
    providers: Vec<String>,
    /// Leaves that each is asked for
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(LEAVES_MAX)))]
    leaves: u32,
    /// Owners that have to answer
    #[arg(long, value_name = "N", default_value_t = 2)]
    least: usize,
    #[command(flatten)]
    ledger: LedgerArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What a provider answered.
#[derive(Debug)]
struct Answered {
    url: String,
    /// Whose it is, as far as that is known.
    owner: Option<Address>,
    /// Why it does not count; none if it does.
    fault: Option<String>,
    /// For all leaves.
    took: Duration,
}

/// Who asks, and about what.
struct Question<'a> {
    http: reqwest::Client,
    chain: &'a Chain,
    model: ModelId,
    weights: FiledWeights,
    leaves: u32,
}

impl Probe {
    pub(crate) async fn run(self) -> Outcome {
        let model = self.id()?;
        let chain = self.ledger.open(None).await?;
        let weights = chain.weights_of(model).await.map_err(failed)?.ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("nobody filed {model}"))
                .why("the chain does not know what its weights hash to")
                .fix("`assay model publish MODEL` files it")
        })?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_MAX)
            .build();
        let http = http.map_err(|error| {
            Failure::new(Exit::Failed, "there is no way to ask providers").why(error)
        })?;
        let question = Question { http, chain: &chain, model, weights, leaves: self.leaves };
        let urls = match self.providers.is_empty() {
            true => registered(&chain).await?,
            false => self.providers.clone(),
        };
        let asked = urls.into_iter().map(|url| question.ask(url));
        let answers: Vec<Answered> = futures_util::future::join_all(asked).await;
        self.say(model, &answers)
    }

    fn id(&self) -> Outcome<ModelId> {
        match self.model.parse() {
            Ok(id) => Ok(id),
            Err(_) => {
                let library = Library::of(&self.ledger.data()?);
                Ok(library.find(&self.model, &self.threads.cpu()?)?.id())
            }
        }
    }

    fn say(&self, model: ModelId, answers: &[Answered]) -> Outcome {
        let copies = copies(answers);
        let verifiable = copies >= self.least;
        if self.json {
            let rows = answers.iter().map(|answer| {
                json!({
                    "url": answer.url,
                    "owner": answer.owner,
                    "has": answer.fault.is_none(),
                    "fault": answer.fault,
                    "seconds": answer.took.as_secs_f64(),
                })
            });
            say_json(&json!({
                "schema": "assay.model-probe/1",
                "id": model,
                "leaves": self.leaves,
                "providers": rows.collect::<Vec<_>>(),
                "copies": copies,
                "least": self.least,
                "verifiable": verifiable,
            }));
        } else {
            say(model);
            for answer in answers {
                let owner =
                    answer.owner.map_or("nobody known".to_owned(), |owner| owner.to_string());
                let said = match &answer.fault {
                    None => format!("{} leaves in {:.2} s", self.leaves, answer.took.as_secs_f64()),
                    // A stranger's words.
                    Some(fault) => fault.escape_debug().to_string(),
                };
                say(format_args!("  {owner:<42}  {}  {said}", answer.url.escape_debug()));
            }
        }
        if verifiable {
            if !self.json {
                say(format_args!("verifiable: {copies} independent copies, least {}", self.least));
            }
            return Ok(());
        }
        Err(Failure::new(Exit::False, "the model is not verifiable")
            .why(format_args!("{copies} independent copies answer, expected {}", self.least)))
    }
}

/// Owners that have a copy.
fn copies(answers: &[Answered]) -> usize {
    let good = answers.iter().filter(|answer| answer.fault.is_none());
    let owners: std::collections::BTreeSet<_> = good.filter_map(|answer| answer.owner).collect();
    owners.len()
}

/// Where registered providers are, each address once.
async fn registered(chain: &Chain) -> Outcome<Vec<String>> {
    let mut urls = BTreeMap::new();
    for owner in chain.owners(0, PROVIDERS_MAX).await.map_err(failed)? {
        if let Some(provider) = chain.provider(owner).await.map_err(failed)? {
            urls.insert(provider.endpoint, ());
        }
    }
    Ok(urls.into_keys().collect())
}

impl Question<'_> {
    async fn ask(&self, url: String) -> Answered {
        let began = Instant::now();
        let owner = self.owner(&url).await;
        let fault = match &owner {
            Err(fault) => Some(fault.clone()),
            Ok(_) => self.leaves(&url).await.err(),
        };
        Answered { url, owner: owner.ok(), fault, took: began.elapsed() }
    }

    /// The owner whose operator offers the model at `url`.
    async fn owner(&self, url: &str) -> Result<Address, String> {
        let offers: Offers = self.get(&format!("{url}/v1/offers")).await?;
        let chain = ChainId(self.chain.client().chain_id());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let offered = offers.offers.iter().any(|signed| {
            let offer = &signed.offer;
            offer.model == self.model
                && offer.provider == offers.provider
                && offer.expires > now
                && offer.is_signed(chain, &signed.signature) == Ok(true)
        });
        if !offered {
            return Err("does not offer the model".to_owned());
        }
        let owner =
            self.chain.owner_of(offers.provider).await.map_err(|error| error.to_string())?;
        owner.ok_or_else(|| "is not registered".to_owned())
    }

    /// Whether all leaves drawn for `url` are there.
    async fn leaves(&self, url: &str) -> Result<(), String> {
        for _ in 0..self.leaves {
            let index = draw(self.weights.leaves)?;
            let path = format!("{url}/v1/models/{}/leaves/{index}", self.model);
            let leaf: WeightLeaf = self.get(&path).await?;
            if !leaf.is_of(self.weights.root, self.weights.leaves, index) {
                return Err(format!("leaf {index} is not the model's"));
            }
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let mut response =
            self.http.get(url).send().await.map_err(|_| "does not answer".to_owned())?;
        if !response.status().is_success() {
            return Err(format!("answers {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|_| "breaks off".to_owned())? {
            if body.len() + part.len() > BODY_MAX {
                return Err(format!("answers more than {BODY_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(|_| "answers something else".to_owned())
    }
}

/// A number below `count`, which nobody knows before; the bias of the rest is below 2⁻³².
fn draw(count: u64) -> Result<u64, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    let drawn = u128::from_le_bytes(bytes) % u128::from(count.max(1));
    Ok(u64::try_from(drawn).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_counts_once_and_only_with_all_leaves() {
        let answer = |owner: u8, fault: Option<&str>| Answered {
            url: String::new(),
            owner: Some(Address::repeat_byte(owner)),
            fault: fault.map(str::to_owned),
            took: Duration::ZERO,
        };
        let missing = Some("leaf 3 is not the model's");
        assert_eq!(copies(&[answer(1, None), answer(1, None), answer(2, missing)]), 1);
        assert_eq!(copies(&[answer(1, None), answer(2, None)]), 2);
    }

    #[test]
    fn what_is_drawn_is_below_the_count() {
        for count in [1, 2, 3, 1_000] {
            assert!((0..50).all(|_| draw(count).unwrap() < count));
        }
    }
}
