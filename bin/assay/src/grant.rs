//! `assay grant`: letting another key buy with one's money, within bounds, until it is taken back.
//!
//! A grant is a signed word in a file. Giving one sends nothing to the chain; taking it back does. A file holds a
//! line of grants, the payer's first: all that whoever holds the last has to show.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use assay_chain::{Chain, Contract};
use assay_engine::Package;
use assay_protocol::{
    Address, Amount, B256, ChainId, Grant, GrantError, Key, ModelId, SignedGrant, U256, Use,
    check_grants,
};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::data::write_whole;
use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{LedgerArgument, WHOLE, failed, parse_units, units};
use crate::library::Library;
use crate::terminal::{note, say, say_json};

/// Longest file of grants: three with all the models they can name are a tenth of it.
const FILE_MAX: u64 = 1 << 17;
/// What a grant allows that says nothing else, and stands on no other.
const SPEND: Amount = Amount(WHOLE);
const RATE: u32 = 60;
const SECONDS: u64 = 30 * DAY;
/// How much earlier than now a grant begins, so that a provider whose clock is late takes it too, in
/// seconds.
const CLOCKS_APART: u64 = 300;
const DAY: u64 = 86_400;

/// Let another key buy with your money, within bounds, and take that back
///
/// A grant names who may act, for how much, how often, until when and for which models. Its holder signs
/// orders with a key of its own and shows the grant; the money stays in the payer's channels. A holder may
/// grant less to another, three deep at most.
#[derive(Args, Debug)]
pub(crate) struct Grants {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    New(New),
    Show(Show),
    Revoke(Revoke),
}

/// Sign a grant; prints the line of grants that its holder shows
///
/// Signs with the account's key and sends nothing. With --book FILE no chain is asked, so the key may lie on
/// a machine without a network.
#[derive(Args, Debug)]
struct New {
    /// Who may act: the address of its key
    #[arg(long, value_name = "ADDRESS")]
    holder: Address,
    /// ASY that orders under it may cost in all, at each provider [default: 1, or what --under allows]
    #[arg(long, value_name = "ASY", value_parser = parse_units)]
    spend: Option<Amount>,
    /// Model that may be asked, by id or name; may be given several times [default: all, or those of --under]
    #[arg(long = "model", value_name = "NAME|ID")]
    models: Vec<String>,
    /// Orders a minute, 0 for no bound [default: 60, or what --under allows]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How long it holds, such as 90m, 12h or 30d [default: 30d, or as long as --under]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_seconds)]
    seconds: Option<u64>,
    /// The grants that the account itself acts under
    #[arg(long, value_name = "FILE")]
    under: Option<PathBuf>,
    /// Where to write the line of grants [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    on: On,
}

/// Show what grants allow, and whether they hold
#[derive(Args, Debug)]
struct Show {
    /// A line of grants, as `new` made it
    file: PathBuf,
    #[command(flatten)]
    on: On,
}

/// Take grants of the account back, for good
///
/// Providers hear of it within a minute. What was begun before is still paid.
#[derive(Args, Debug)]
struct Revoke {
    /// Digests, or files: of a file, those that the account gave
    #[arg(required = true, value_name = "FILE|DIGEST")]
    grants: Vec<String>,
    #[command(flatten)]
    on: On,
}

#[derive(Args, Debug)]
struct On {
    #[command(flatten)]
    ledger: LedgerArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Grants {
    pub(crate) async fn run(self) -> Outcome {
        match self.what {
            What::New(new) => new.run().await,
            What::Show(show) => show.run().await,
            What::Revoke(revoke) => revoke.run().await,
        }
    }
}

/// Which chain grants are for, and where they are taken back.
#[derive(Clone, Copy, Debug)]
struct Registry {
    chain: ChainId,
    contract: Address,
}

impl On {
    async fn registry(&self) -> Outcome<Registry> {
        let book = self.ledger.contracts().await.map_err(|failure| {
            let unreachable = failure.is(Exit::Unreachable);
            if unreachable {
                failure.fix("start `assay up`, pass --rpc URL, or --book FILE to do without")
            } else {
                failure
            }
        })?;
        let contract = book.get(Contract::Grants).map_err(|error| failed(error.into()))?;
        Ok(Registry { chain: ChainId(book.chain_id), contract })
    }
}

impl New {
    async fn run(self) -> Outcome {
        let key = self.on.ledger.key()?;
        let registry = self.on.registry().await?;
        let mut line = self.under.as_deref().map(read).transpose()?.unwrap_or_default();
        let grant = self.grant(&key, &line, registry, now())?;
        line.push(grant.clone().sign(registry.chain, &key));
        let digests = check(&line, registry).map_err(|error| {
            let failure = Failure::new(Exit::Usage, "the grant cannot be given").why(error);
            match &self.under {
                Some(path) => failure
                    .fix(format_args!("`assay grant show {}` says what it allows", path.display())),
                None => failure,
            }
        })?;
        let digest = digests.last().copied().unwrap_or_default();
        if let Some(path) = &self.out {
            save(path, &line)?;
        }
        if self.on.json {
            say_json(&json!({
                "schema": "assay.grant/1",
                "digest": digest,
                "file": self.out,
                "grants": line,
            }));
            return Ok(());
        }
        match &self.out {
            Some(path) => say(format_args!("{digest}  {}", path.display())),
            None => say(json!(line)),
        }
        let (spend, ends) = (units(grant.spend), left(grant.until, now()));
        note(format_args!("{} may spend up to {spend} ASY, {ends}", grant.holder));
        note(format_args!("`assay grant revoke {digest}` takes it back"));
        Ok(())
    }

    /// The grant asked for; what is left open is as wide as it may be, or as usual.
    fn grant(
        &self,
        key: &Key,
        line: &[SignedGrant],
        registry: Registry,
        now: u64,
    ) -> Outcome<Grant> {
        let parent = line.last().map(|signed| &signed.grant);
        if let Some(parent) = parent {
            self.may_grant(key, parent, now)?;
        }
        let mut models = match (self.models.is_empty(), parent) {
            (true, Some(parent)) => parent.models.clone(),
            _ => self.named()?,
        };
        models.sort_unstable();
        models.dedup();
        let asked = self.seconds.map(|seconds| now.saturating_add(seconds));
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|error| Failure::new(Exit::Failed, "no random numbers").why(error))?;
        Ok(Grant {
            registry: registry.contract,
            issuer: key.address(),
            holder: self.holder,
            models,
            asset: parent.map_or(Address::ZERO, |parent| parent.asset),
            spend: self.spend.or(parent.map(|parent| parent.spend)).unwrap_or(SPEND),
            rate: self.rate.or(parent.map(|parent| parent.rate)).unwrap_or(RATE),
            from: now.saturating_sub(CLOCKS_APART).max(parent.map_or(0, |parent| parent.from)),
            until: asked.or(parent.map(|parent| parent.until)).unwrap_or(now + SECONDS),
            parent: parent.map_or(B256::ZERO, |parent| parent.digest(registry.chain)),
            nonce: U256::from_be_bytes(nonce),
        })
    }

    /// Makes sure that the account may hand on what `parent` allows.
    fn may_grant(&self, key: &Key, parent: &Grant, now: u64) -> Outcome {
        let what = "the account cannot hand on what --under allows";
        if parent.holder != key.address() {
            return Err(Failure::new(Exit::Permission, what)
                .why(format_args!("it is {}, the holder is {}", key.address(), parent.holder))
                .fix("pass --key FILE with the holder's key"));
        }
        if parent.until <= now {
            return Err(Failure::new(Exit::Conflict, what)
                .why(format_args!("it ended {} s ago", now - parent.until))
                .fix("have it given anew"));
        }
        Ok(())
    }

    /// The models that were named.
    fn named(&self) -> Outcome<Vec<ModelId>> {
        let data = self.on.ledger.data();
        self.models.iter().map(|model| find_model(model, data.as_ref().ok())).collect()
    }
}

/// A model by its id, or by its name on this machine.
fn find_model(model: &str, data: Option<&crate::data::Data>) -> Outcome<ModelId> {
    if let Ok(id) = model.parse::<ModelId>() {
        return Ok(id);
    }
    let files = data.map(|data| Library::of(data).files()).unwrap_or_default();
    let summaries = files.iter().filter_map(|path| Package::peek(path).ok());
    let named: Vec<_> =
        summaries.filter(|found| found.name == model).map(|found| found.id()).collect();
    match named[..] {
        [id] => Ok(id),
        [] => Err(Failure::new(Exit::NotFound, format_args!("there is no model {model} here"))
            .fix("`assay model ls` lists what there is; a model elsewhere is named by its id")),
        _ => Err(Failure::new(Exit::Usage, format_args!("several models are called {model}"))
            .fix("give an id instead; `assay model ls` lists them")),
    }
}

impl Show {
    async fn run(self) -> Outcome {
        let line = read(&self.file)?;
        let registry = self.on.registry().await?;
        let chain = match self.on.ledger.open(None).await {
            Ok(chain) => Some(chain),
            Err(failure) if failure.is(Exit::Unreachable) => {
                note("the chain does not answer: whether a grant was taken back is not known");
                None
            }
            Err(failure) => return Err(failure),
        };
        let fault = check(&line, registry).err().map(|error| error.to_string());
        let mut rows = Vec::new();
        for signed in &line {
            rows.push((signed, state(signed, registry, chain.as_ref()).await?));
        }
        if self.on.json {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(signed, state)| {
                    let digest = signed.grant.digest(registry.chain);
                    json!({ "digest": digest, "state": state.word(), "grant": signed.grant })
                })
                .collect();
            say_json(&json!({ "schema": "assay.grant.line/1", "fault": fault, "grants": rows }));
            return Ok(());
        }
        for (signed, state) in rows {
            describe(&signed.grant, signed.grant.digest(registry.chain), state);
        }
        if let Some(fault) = fault {
            note(format_args!("no provider takes this line: {fault}"));
        }
        Ok(())
    }
}

/// What one grant is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Holds,
    /// As far as its bytes tell; the chain did not say.
    Unknown,
    Revoked,
    Early,
    Ended,
    Forged,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Early => "early",
            Self::Ended => "ended",
            Self::Forged => "forged",
        }
    }
}

async fn state(signed: &SignedGrant, registry: Registry, chain: Option<&Chain>) -> Outcome<State> {
    let (grant, now) = (&signed.grant, now());
    let digest = grant.digest(registry.chain);
    if signed.signature.signer(digest) != Ok(grant.issuer) {
        return Ok(State::Forged);
    }
    let revoked = match chain {
        Some(chain) => Some(chain.is_revoked(grant.issuer, digest).await.map_err(failed)?),
        None => None,
    };
    Ok(match revoked {
        Some(true) => State::Revoked,
        _ if grant.until <= now => State::Ended,
        _ if grant.from > now => State::Early,
        Some(false) => State::Holds,
        None => State::Unknown,
    })
}

fn describe(grant: &Grant, digest: B256, state: State) {
    say(format_args!("{digest}  {}", state.word()));
    say(format_args!("  from    {}", grant.issuer));
    say(format_args!("  to      {}", grant.holder));
    let token = if grant.asset == Address::ZERO { "ASY" } else { "of another token" };
    say(format_args!("  spend   {} {token}", units(grant.spend)));
    match grant.rate {
        0 => say("  rate    any"),
        rate => say(format_args!("  rate    {rate} orders a minute")),
    }
    if grant.models.is_empty() {
        say("  models  all");
    }
    for model in &grant.models {
        say(format_args!("  model   {model}"));
    }
    say(format_args!("  time    {} to {}, {}", grant.from, grant.until, left(grant.until, now())));
}

impl Revoke {
    async fn run(self) -> Outcome {
        let key = self.on.ledger.key()?;
        let registry = self.on.registry().await?;
        let account = key.address();
        // A file says who gave its grants, a digest does not.
        let (mut own, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for named in &self.grants {
            match named.parse::<B256>() {
                Ok(digest) => drop(unknown.insert(digest)),
                Err(_) => own.extend(given(Path::new(named), account, registry)?),
            }
        }
        let digests: Vec<B256> = own.union(&unknown).copied().collect();
        let chain = self.on.ledger.open(Some(&key)).await?;
        let mined = chain.revoke(&digests).await.map_err(failed)?;
        if self.on.json {
            say_json(&json!({
                "schema": "assay.grant.revoked/1",
                "issuer": account,
                // Void are those that the account gave, which is known only of those from files.
                "asked": digests,
                "revoked": own,
                "transaction": mined.hash,
                "block": mined.block,
            }));
            return Ok(());
        }
        for digest in &digests {
            if own.contains(digest) {
                say(format_args!("{digest} is taken back, in block {}", mined.block));
            } else {
                say(format_args!(
                    "{digest} is void if {account} gave it, from block {}",
                    mined.block
                ));
            }
        }
        note(format_args!("as {account}: of another's grants nothing is taken back"));
        Ok(())
    }
}

/// The digests of the grants in a file that `account` gave.
fn given(path: &Path, account: Address, registry: Registry) -> Outcome<Vec<B256>> {
    let line = read(path)?;
    let own = line.iter().filter(|signed| signed.grant.issuer == account);
    let digests: Vec<B256> = own.map(|signed| signed.grant.digest(registry.chain)).collect();
    if digests.is_empty() {
        let issuers: Vec<_> = line.iter().map(|one| one.grant.issuer.to_string()).collect();
        return Err(Failure::new(
            Exit::Permission,
            format_args!("{account} gave none of the grants in {}", path.display()),
        )
        .why(format_args!("they are from {}", issuers.join(", ")))
        .fix("pass --key FILE with the key of one of them"));
    }
    Ok(digests)
}

/// Checks a line as a provider does, for the smallest order that it can be shown for.
fn check(line: &[SignedGrant], registry: Registry) -> Result<Vec<B256>, GrantError> {
    let (Some(first), Some(last)) = (line.first(), line.last()) else {
        return Err(GrantError::Depth { found: 0 });
    };
    let order = Use {
        chain: registry.chain,
        registry: registry.contract,
        payer: first.grant.issuer,
        buyer: last.grant.holder,
        model: last.grant.models.first().copied().unwrap_or_default(),
        asset: last.grant.asset,
        max_price: Amount(0),
        now: last.grant.from,
    };
    check_grants(line, &order)
}

/// A file of grants: the line itself, or what `new --json` prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Contents {
    Line(Vec<SignedGrant>),
    Document { grants: Vec<SignedGrant> },
}

fn read(path: &Path) -> Outcome<Vec<SignedGrant>> {
    let refused = |error| {
        let failure = Failure::file(format_args!("{} cannot be read", path.display()), &error);
        match error.kind() {
            ErrorKind::NotFound => failure.fix("give the file that `assay grant new` wrote"),
            _ => failure,
        }
    };
    let mut text = String::new();
    let file = File::open(path).map_err(refused)?;
    file.take(FILE_MAX).read_to_string(&mut text).map_err(refused)?;
    match serde_json::from_str(&text) {
        Ok(Contents::Line(line) | Contents::Document { grants: line }) if !line.is_empty() => {
            Ok(line)
        }
        _ => {
            let what = format_args!("{} holds no line of grants", path.display());
            Err(Failure::new(Exit::Malformed, what)
                .why("expected a JSON array of {grant, signature}")
                .fix("`assay grant new --out FILE` writes one"))
        }
    }
}

/// Writes a line to a new file: one that is there may be the only copy of another.
fn save(path: &Path, line: &[SignedGrant]) -> Outcome {
    if path.exists() {
        let what = format_args!("{} is there already", path.display());
        return Err(Failure::new(Exit::Conflict, what).fix("pass another --out"));
    }
    write_whole(path, format!("{}\n", json!(line)).as_bytes())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// How long something lasts that ends at `until`, in words.
fn left(until: u64, now: u64) -> String {
    match until.checked_sub(now) {
        None | Some(0) => "which is over".into(),
        Some(seconds) if seconds < 3_600 => format!("for {} min more", seconds.div_ceil(60)),
        Some(seconds) if seconds < 2 * DAY => format!("for {} h more", seconds / 3_600),
        Some(seconds) => format!("for {} days more", seconds / DAY),
    }
}

/// What people write as a duration, such as `90m`, in seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|unit: char| !unit.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return Err("expected a number and s, m, h, d or w, such as 12h".into()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    match seconds {
        Some(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("expected a whole number above zero, such as 12h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, seconds) in [("1s", 1), ("90m", 5_400), ("12h", 43_200), ("30d", SECONDS)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        assert_eq!(parse_seconds("2w"), Ok(14 * DAY));
        for wrong in ["", "d", "0d", "12", "1.5h", "-1d", "1y", "1dd", "é", "99999999999999999999w"]
        {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_left_is_said_in_words() {
        assert_eq!(left(100, 100), "which is over");
        assert_eq!(left(161, 100), "for 2 min more");
        assert_eq!(left(7_300, 100), "for 2 h more");
        assert_eq!(left(30 * DAY, 0), "for 30 days more");
    }
}
