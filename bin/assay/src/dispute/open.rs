//! `assay dispute open`: play a dispute, from a receipt to the money.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_chain::{ChainError, Refusal};
use assay_engine::Loaded;
use assay_evidence::dispute::Explanation;
use assay_protocol::{Address, Answer, Blame};
use assay_validator::{
    Challenge, ChallengeError, Config, Ending, Event, Finding, Grounds, Reason, Spoils,
};
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::story::Story;
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::{ChainArgument, failed, units};
use crate::machine::ThreadsArgument;
use crate::terminal::{
    Colour, Progress, coloured, grouped, note, say, say_json, stdout_has_colour,
};
use crate::verify::{ordered, read};

/// Between two looks at the chain while the provider owes a move.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the chain may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);

/// Dispute a receipt until its provider, or the challenger, has lost
///
/// Replays the answer first: a true one is not disputed. Takes the bond, goes down to the first number
/// that is wrong, has the contract compute it, and collects: the stake is slashed, the provider jailed,
/// the buyer refunded, the bond paid back. Goes on with a dispute that was interrupted; nothing is kept
/// on disk.
#[derive(Args, Debug)]
pub(super) struct Open {
    /// A receipt, or the body of an answer that contains one
    receipt: PathBuf,
    /// Another receipt of the same provider for the same order: both cannot be true
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// The model: a file, an id or a name [default: the one the order names, from the data directory]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// File with the key of the account that puts in the bond [default: that of the data directory's validator]
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY_FILE")]
    key: Option<PathBuf>,
    /// Dispute a true answer too, and lose the bond, to see its provider win
    #[arg(long)]
    anyway: bool,
    /// Ask nothing of the provider's server: all nodes are revealed on the chain
    #[arg(long)]
    no_server: bool,
    #[command(flatten)]
    chain: ChainArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Open {
    pub(super) fn run(self) -> Outcome<ExitCode> {
        let began = Instant::now();
        let answer = read(&self.receipt)?;
        let other = self.with.as_deref().map(read).transpose()?;
        let key = match &self.key {
            Some(path) => keys::check(path)?,
            None => keys::check(&self.chain.data()?.validator().join("key"))?,
        };
        let runtime = Runtime::new().map_err(|error| {
            Failure::new(Exit::Failed, "the system gives no threads").why(error)
        })?;
        let chain = runtime.block_on(self.chain.open(Some(&key)))?;
        let cpu = Arc::new(self.threads.cpu()?);
        let loaded = ordered(&self.chain.data()?, self.model.as_deref(), &answer, &cpu)?;
        let loaded = Arc::new(loaded);
        let teller = Teller::new(&loaded, &answer, self.json);
        let config = Config {
            anyway: self.anyway,
            asks_server: !self.no_server,
            look_every: LOOK_EVERY,
            patience: PATIENCE,
        };
        let challenge = Challenge { chain, loaded, cpu, answer, other, config };
        let ended = runtime.block_on(challenge.run(move |event| teller.hear(event)));
        let ending = ended.map_err(|error| refused(error, key.address()))?;
        let seconds = began.elapsed().as_secs_f64();
        if self.json {
            say_json(&document(&ending, seconds));
        } else {
            tell(&ending, key.address(), seconds);
        }
        Ok(match ending {
            Ending::Convicted { .. } => ExitCode::SUCCESS,
            Ending::True | Ending::Canary | Ending::Lost { .. } => {
                ExitCode::from(Exit::Stands as u8)
            }
        })
    }
}

/// Tells a person what happens.
struct Teller {
    silent: bool,
    state: Mutex<State>,
}

struct State {
    story: Story,
    progress: Option<Progress>,
}

impl Teller {
    fn new(loaded: &Loaded, answer: &Answer, silent: bool) -> Self {
        let story = Story::expected(loaded, answer);
        Self { silent, state: Mutex::new(State { story, progress: None }) }
    }

    fn hear(&self, event: Event) {
        if self.silent {
            return;
        }
        // Whoever panicked while telling left nothing half told.
        let State { story, progress } =
            &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut show = |stage, done, total| {
            progress.get_or_insert_with(Progress::new).show(stage, done, total);
        };
        match event {
            Event::Replaying { done, total } => return show("replaying", done, total),
            Event::Tracing { done, total } => return show("computing every number", done, total),
            _ => *progress = None,
        }
        match event {
            Event::Found(finding) => say(found(&finding)),
            Event::Filed(_) => say("  the model is made known to the judges"),
            Event::Opened { dispute, bond, mined } => say(format_args!(
                "dispute {dispute} is open since block {}, with {} ASY at stake",
                mined.block,
                units(bond)
            )),
            Event::Resumed { dispute } => say(format_args!("dispute {dispute} goes on")),
            Event::Doubts(number) => story.number = Some(number),
            Event::Happened(happened) => {
                if let assay_chain::Event::Disputed { .. } = happened.event {
                    return;
                }
                if let Some(words) = story.say(&happened.event) {
                    say(format_args!("  {words}"));
                }
            }
            Event::Waits { seconds } => {
                note(format_args!("  (the provider has {seconds} s to answer)"));
            }
            Event::Retries { reason } => note(format_args!("  (trying again: {reason})")),
            Event::Replaying { .. } | Event::Tracing { .. } | Event::Sent(_) => {}
        }
    }
}

/// What a replay found, in a line.
fn found(finding: &Finding) -> String {
    let colour = stdout_has_colour();
    let wrong = coloured("false", Colour::Red, colour);
    match finding {
        Finding::True => {
            format!("{}: it is what the model gives", coloured("true", Colour::Green, colour))
        }
        Finding::Undisputable { fault } => format!("{wrong}: {fault}"),
        Finding::Disputable { fault: Some(fault), .. } => format!("{wrong}: {fault}"),
        Finding::Disputable { grounds, .. } => {
            let why = match grounds {
                Grounds::Contradiction => "order and receipt contradict each other",
                Grounds::Ending(_) => "the answer ended otherwise than the receipt says",
                Grounds::SecondAnswer(_) => "its provider signed another answer to the same order",
                Grounds::Computation => "some number of it is wrong",
            };
            format!("{wrong}: {why}")
        }
    }
}

fn tell(ending: &Ending, account: Address, seconds: f64) {
    let colour = stdout_has_colour();
    match ending {
        Ending::True => say("nothing to dispute: a challenger would lose its bond"),
        Ending::Canary => say("nothing to win: the answer was false on purpose, to see who checks"),
        Ending::Lost { dispute, bond, number } => {
            let why = number.as_ref().map_or_else(String::new, |number| format!(": {number}"));
            say(format_args!("{}{why}", coloured("lost", Colour::Red, colour)));
            say(format_args!("  bond      {} ASY are the provider's", units(*bond)));
            say(format_args!("  dispute   {dispute}; {seconds:.1} s"));
        }
        Ending::Convicted { spoils, reason, number } => {
            let why = because(*reason, number.as_deref());
            say(format_args!("{}: {why}", coloured("convicted", Colour::Green, colour)));
            tell_spoils(spoils, account, seconds);
        }
    }
}

fn because(reason: Reason, number: Option<&Explanation>) -> String {
    match (reason, number) {
        (_, Some(number)) => number.to_string(),
        (Reason::Number, None) => "the contract computed another number".to_owned(),
        (Reason::Silence, None) => "the provider did not answer in time".to_owned(),
        (Reason::Words, None) => "by its own signatures".to_owned(),
        (Reason::Before, None) => "somebody had shown it before".to_owned(),
    }
}

fn tell_spoils(spoils: &Spoils, account: Address, seconds: f64) {
    let own = if spoils.rewarded == account { " (this account)" } else { "" };
    let row = |name: &str, words: String| say(format_args!("  {name:<9} {words}"));
    row("slashed", format!("{} ASY of the stake of {}", units(spoils.slashed), spoils.owner));
    row("reward", format!("{} ASY to {}{own}", units(spoils.reward), spoils.rewarded));
    row("burned", format!("{} ASY", units(spoils.burned())));
    if let Some(until) = spoils.jailed_until {
        row("jailed", format!("until {until} (unix time)"));
    }
    if let Some(payer) = spoils.payer.filter(|_| spoils.refund.0 > 0) {
        row("refund", format!("{} ASY to {payer}", units(spoils.refund)));
    }
    if spoils.bond.0 > 0 {
        row("bond", format!("{} ASY came back", units(spoils.bond)));
    }
    let (gas, count) = (grouped(spoils.gas), spoils.transactions);
    row("spent", format!("{gas} gas in {count} transactions; {seconds:.1} s"));
}

fn document(ending: &Ending, seconds: f64) -> Value {
    let said = |number: &Option<Box<Explanation>>| number.as_ref().map(ToString::to_string);
    let schema = "assay.dispute/1";
    match ending {
        Ending::True => json!({ "schema": schema, "ending": "true", "seconds": seconds }),
        Ending::Canary => json!({ "schema": schema, "ending": "canary", "seconds": seconds }),
        Ending::Lost { dispute, bond, number } => json!({
            "schema": schema,
            "ending": "lost",
            "dispute": dispute,
            "bond": bond,
            "number": said(number),
            "seconds": seconds,
        }),
        Ending::Convicted { spoils, reason, number } => json!({
            "schema": schema,
            "ending": "convicted",
            "reason": match reason {
                Reason::Number => "number",
                Reason::Silence => "silence",
                Reason::Words => "words",
                Reason::Before => "before",
            },
            "dispute": spoils.dispute,
            "number": said(number),
            "owner": spoils.owner,
            "slashed": spoils.slashed,
            "reward": spoils.reward,
            "rewarded": spoils.rewarded,
            "burned": spoils.burned(),
            "jailed_until": spoils.jailed_until,
            "refund": spoils.refund,
            "payer": spoils.payer,
            "bond": spoils.bond,
            "transactions": spoils.transactions,
            "gas": spoils.gas,
            "seconds": seconds,
        }),
    }
}

/// Why a dispute was not played, as a failure of the command.
fn refused(error: ChallengeError, account: Address) -> Failure {
    let again = "run the same command again: it goes on where it stopped";
    match error {
        ChallengeError::Chain(ChainError::Refused(refusal)) => unopened(&refusal),
        ChallengeError::Chain(error) => failed(error),
        ChallengeError::Replay(error) => {
            Failure::new(Exit::NotFound, "the answer cannot be computed with this model")
                .why(error)
                .fix("pass the ordered model with --model; `assay model ls` lists ids")
        }
        ChallengeError::Undisputable { fault } => match fault.blame() {
            Blame::File => Failure::new(Exit::Malformed, "this file was altered")
                .why(format_args!("nobody signed what it says: {fault}"))
                .fix("use the receipt as the gateway gave it"),
            Blame::Provider => {
                Failure::new(Exit::Stands, "the receipt is false, but no contract can judge why")
                    .why(fault)
            }
        },
        error @ ChallengeError::NoProvider { .. } => {
            Failure::new(Exit::NotFound, "nobody's stake answers for this receipt")
                .why(error)
                .fix("pass the --rpc of the chain that the provider is registered on")
        }
        error @ ChallengeError::OtherChain { .. } => Failure::new(Exit::Conflict, error)
            .fix("pass the --rpc of the chain that the receipt is for"),
        ChallengeError::Poor { found, bond, .. } => {
            Failure::new(Exit::Failed, format_args!("a dispute takes {} ASY", units(bond)))
                .why(format_args!("{account} has {}", units(found)))
                .fix("send it ASY, or pass --key FILE of an account that has some")
        }
        error @ ChallengeError::NoCoins { .. } => Failure::new(Exit::Failed, error)
            .fix("send it coins, or pass --key FILE of an account that has some"),
        error @ (ChallengeError::Uncollected { .. } | ChallengeError::Court(_)) => {
            Failure::new(Exit::Failed, error).fix(again)
        }
        error => Failure::new(Exit::Failed, error),
    }
}

/// Why the contracts do not take the receipt.
fn unopened(refusal: &Refusal) -> Failure {
    let reason = refusal.reason.as_str();
    let name = reason.split([' ', '(', '{']).next().unwrap_or(reason);
    let stands = |what: &str| Failure::new(Exit::Stands, what).why(refusal);
    match name {
        "OutOfReach" => stands("the receipt can no longer be disputed")
            .fix("the time is over: `last` says until when it could be, in unix time"),
        "NotBuyer" => stands("only the buyer may dispute this answer")
            .fix("pass --key FILE of the account that ordered it"),
        "NotReplayable" | "BadSampler" | "BadLengths" => {
            stands("no contract has a rule for this answer")
        }
        "WrongMarket" => stands("the answer was ordered for another deployment of the contracts")
            .fix("pass the --rpc and --book of that one"),
        _ => Failure::new(Exit::Failed, "the dispute cannot be played").why(refusal),
    }
}
