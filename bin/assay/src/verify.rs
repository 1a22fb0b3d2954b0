//! `assay verify`: whether an answer is what the model gives, computed again on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use assay_engine::{Comparison, Loaded, OnnxPackage, ReplayError, logprobs_of, replay};
use assay_evidence::{Fault, Verdict};
use assay_kernels::Cpu;
use assay_protocol::{Answer, AnswerError, Assurance, B256, Blame, COMPUTE_UNIT};
use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::data::{Data, DataArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::library::{self, Library};
use crate::machine::ThreadsArgument;
use crate::onnx;
use crate::terminal::{Colour, Progress, coloured, say, say_json, stdout_has_colour};

/// Longest file that is read.
const FILE_MAX: u64 = 64 << 20;

/// Check a receipt by computing its answer again
///
/// Prints `true`, or `false` with the first thing that is wrong, and exits with 0 or 10. An answer that an
/// external server computed is signed, but bound to no computation: that prints `scored`, and exits with 12,
/// as does an answer of an ONNX model whose floats come out otherwise on this machine.
/// Needs the model but no network. A file is a saved receipt, or the body of a chat completion.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// A receipt, or the body of an answer that contains one
    file: PathBuf,
    /// The model: a file, an id or a name [default: the one the order names, from the data directory]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    data: DataArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What was found about an answer.
struct Judged {
    verdict: Verdict,
    /// What its tokens take, in compute units; none where the model was not looked at.
    units: Option<f64>,
    /// Of an answer that is faultless as far as anything binds it: how near it is.
    unbound: Option<Unbound>,
    /// Whether floats decide, which are the same on machines of one kind only.
    in_floats: bool,
}

/// How near an answer is whose computation nothing binds.
#[derive(Clone, Copy)]
enum Unbound {
    /// An external server computed it: how many of its first tokens the model gives as well.
    Agreeing(usize),
    /// An ONNX model made it: the cosine between its vector and the one that is computed here, where the
    /// file has it.
    Cosine(Option<f64>),
}

impl Verify {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        let began = Instant::now();
        let answer = read(&self.file)?;
        let judged = match foreign(&answer) {
            Some(fault) => Judged {
                verdict: Verdict::False(fault),
                units: None,
                unbound: None,
                in_floats: false,
            },
            None => self.judged(&answer)?,
        };
        if self.json {
            say_json(&document(&answer, &judged, began.elapsed().as_secs_f64()));
        } else {
            tell(&answer, &judged, began.elapsed().as_secs_f64());
        }
        Ok(match judged.verdict {
            Verdict::True => ExitCode::SUCCESS,
            Verdict::False(_) if judged.unbound.is_some() => ExitCode::from(Exit::Unbound as u8),
            Verdict::False(_) => ExitCode::from(Exit::False as u8),
        })
    }

    fn judged(&self, answer: &Answer) -> Outcome<Judged> {
        let library = Library::of(&self.data.resolve()?);
        match onnx::ordered(&library, self.model.as_deref(), answer.order.model)? {
            Some(package) => self.compared(package, answer),
            None => self.replayed(answer),
        }
    }

    /// Judges an answer of an ONNX model.
    fn compared(&self, package: OnnxPackage, answer: &Answer) -> Outcome<Judged> {
        let threads = self.threads.cpu()?.threads().get();
        let (verdict, unbound) = match onnx::compare(package, threads, answer)? {
            Comparison::Same => (Verdict::True, None),
            Comparison::Other { cosine } => {
                (Verdict::False(Fault::FinalState), Some(Unbound::Cosine(cosine)))
            }
            Comparison::False(fault) => (Verdict::False(fault), None),
        };
        Ok(Judged { verdict, units: None, unbound, in_floats: true })
    }

    fn replayed(&self, answer: &Answer) -> Outcome<Judged> {
        let cpu = self.threads.cpu()?;
        let loaded = ordered(&self.data.resolve()?, self.model.as_deref(), answer, &cpu)?;
        let mut progress = Progress::new();
        let judged = replay(&loaded, &cpu, answer, &mut |done, total| {
            progress.show("replaying", done, total);
        });
        drop(progress);
        let output = u32::try_from(answer.output.len()).unwrap_or(u32::MAX);
        let work = loaded.manifest.work(answer.order.prompt_tokens, output);
        let units = Some(work as f64 / COMPUTE_UNIT as f64);
        let verdict = judged.map_err(|error| uncomputed(&error))?;
        let unbound = match &verdict {
            // What a computation decides; everything else is wrong whoever computed it.
            Verdict::False(Fault::Token { .. } | Fault::State { .. } | Fault::FinalState)
                if is_unbound(answer) =>
            {
                let given = logprobs_of(&loaded, &cpu, answer, 0);
                Some(Unbound::Agreeing(given.map_err(|error| uncomputed(&error))?.len()))
            }
            _ => None,
        };
        Ok(Judged { verdict, units, unbound, in_floats: false })
    }
}

fn uncomputed(error: &ReplayError) -> Failure {
    match error {
        ReplayError::WrongModel { .. } => {
            Failure::new(Exit::NotFound, "this is not the model that was ordered")
                .why(error)
                .fix("pass the ordered model with --model; `assay model ls` lists ids")
        }
        error => Failure::new(Exit::Malformed, "the answer cannot be computed").why(error),
    }
}

/// Whether nothing binds a scored answer to a computation: the hidden hash of every token is zero, as
/// external servers tell none.
fn is_unbound(answer: &Answer) -> bool {
    let steps = answer.output.iter().map(|token| (*token, B256::ZERO));
    let states = Answer::states_of(answer.hash(), steps);
    let scored = [answer.order.assurance, answer.receipt.assurance] == [Assurance::Scored; 2];
    scored && states.last() == Some(&answer.receipt.state)
}

/// The model of an answer, its weights checked against its id: a replay with altered weights says nothing.
pub(crate) fn ordered(
    data: &Data,
    model: Option<&str>,
    answer: &Answer,
    cpu: &Cpu,
) -> Outcome<Loaded> {
    let library = Library::of(data);
    let package = match model {
        Some(what) => library.find_or_ordered(what, answer.order.model, cpu)?,
        None => library.of_id(answer.order.model)?,
    };
    library::verify(&package)?;
    let name = package.name().to_owned();
    package.load().map_err(|error| {
        Failure::new(Exit::Malformed, format_args!("model {name} cannot be used")).why(error)
    })
}

/// An answer that is not even its signers': no model is needed to see it, nor could one be found
/// for an order that nobody signed.
pub(crate) fn foreign(answer: &Answer) -> Option<Fault> {
    if answer.schema != Answer::SCHEMA {
        let found = answer.schema.clone();
        return Some(Fault::Contradiction(AnswerError::Schema { found }));
    }
    let checked = answer.order.check(answer.chain_id, &answer.order_signature, &answer.terms);
    checked.err().map(|error| Fault::Contradiction(error.into()))
}

/// Reads a receipt, or the one inside the body of an answer.
pub(crate) fn read(path: &Path) -> Outcome<Answer> {
    let failed = |error| Failure::file(format_args!("{} cannot be read", path.display()), &error);
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > FILE_MAX {
        return Err(Failure::new(
            Exit::Malformed,
            format_args!("{} is no receipt", path.display()),
        )
        .why(format_args!("it has {length} bytes, at most {FILE_MAX} are read")));
    }
    parse(&fs::read(path).map_err(failed)?).map_err(|reason| {
        Failure::new(Exit::Malformed, format_args!("{} is no receipt", path.display()))
            .why(reason)
            .fix("save one with `assay run --receipt FILE`, or fetch /v1/receipts/ID from the gateway")
    })
}

/// Whether a document is the body of a chat completion. Its values are not kept.
#[derive(Deserialize)]
struct Probe {
    assay: Option<IgnoredAny>,
}

/// The body of a chat completion, as far as it matters here.
#[derive(Deserialize)]
struct Body {
    assay: Answer,
}

fn parse(bytes: &[u8]) -> Result<Answer, String> {
    let probe: Probe = serde_json::from_slice(bytes).map_err(|error| match error.is_data() {
        true => error.to_string(),
        false => format!("it is not JSON: {error}"),
    })?;
    // Read again from the text, since the probe looks at nothing else.
    let answer = match probe.assay {
        Some(_) => serde_json::from_slice(bytes).map(|body: Body| body.assay),
        None => serde_json::from_slice(bytes),
    };
    answer.map_err(|error| error.to_string())
}

/// Says how near an answer is whose computation nothing binds.
fn tell_unbound(answer: &Answer, unbound: Unbound) {
    say(coloured("scored", Colour::Yellow, stdout_has_colour()));
    match unbound {
        Unbound::Agreeing(agreeing) => {
            say(
                "  its provider signed it, and had it computed by a server: nothing binds it to the model",
            );
            let output = answer.output.len();
            say(format_args!(
                "  agrees    with the model in its first {agreeing} of {output} tokens"
            ));
        }
        Unbound::Cosine(cosine) => {
            say(
                "  its provider signed it; this machine computes other bits, which proves nothing: floats of \
                 another processor may be rounded otherwise",
            );
            say(match cosine {
                Some(cosine) => format!("  cosine    {cosine:.9} with the vector computed here"),
                None => "  cosine    unknown: the file has no vector".to_owned(),
            });
        }
    }
}

fn tell(answer: &Answer, Judged { verdict, units, unbound, in_floats }: &Judged, seconds: f64) {
    let colour = stdout_has_colour();
    match (verdict, unbound) {
        (Verdict::False(_), Some(unbound)) => tell_unbound(answer, *unbound),
        (Verdict::True, _) => {
            say(coloured("true", Colour::Green, colour));
            say(match (in_floats, &answer.vector) {
                (false, None) => {
                    "  every token, bit for bit, is what the model gives for this order"
                }
                (false, Some(_)) => {
                    "  every number, bit for bit, is what the model gives for this order"
                }
                (true, _) => {
                    "  every number, bit for bit, is what rten gives for this order on this machine"
                }
            });
        }
        (Verdict::False(fault), None) => {
            say(format_args!("{}: {fault}", coloured("false", Colour::Red, colour)));
            say(match fault.blame() {
                Blame::Provider => "  the provider signed this, and can be held to it",
                Blame::File => "  this file was altered: nobody signed what it says",
            });
        }
    }
    say(format_args!("  order     {}", answer.hash()));
    say(format_args!("  model     {}", answer.order.model));
    say(format_args!("  buyer     {}", answer.order.buyer));
    say(format_args!("  provider  {}", answer.provider()));
    let (prompt, output) = (answer.terms.prompt.len(), answer.output.len());
    say(format_args!("  tokens    {prompt} in, {output} out; checked in {seconds:.2} s"));
    if let Some(units) = units {
        say(format_args!("  work      {units:.3} CU, by the model's shape and these tokens"));
    }
}

fn document(answer: &Answer, judged: &Judged, seconds: f64) -> Value {
    let Judged { verdict, units, unbound, .. } = judged;
    let fault = match verdict {
        Verdict::True => None,
        // Nobody broke a word: none was given about the computation.
        Verdict::False(_) if unbound.is_some() => None,
        Verdict::False(fault) => Some(fault),
    };
    let (agreeing, cosine) = match *unbound {
        Some(Unbound::Agreeing(tokens)) => (Some(tokens), None),
        Some(Unbound::Cosine(cosine)) => (None, cosine),
        None => (None, None),
    };
    json!({
        "schema": "assay.verify/1",
        "verdict": if unbound.is_some() { Value::Null } else { fault.is_none().into() },
        "assurance": answer.receipt.assurance,
        "agreeing": agreeing,
        "cosine": cosine,
        "reason": fault.map(ToString::to_string),
        "token": fault.and_then(Fault::token),
        "blame": fault.map(|fault| match fault.blame() {
            Blame::Provider => "provider",
            Blame::File => "file",
        }),
        "order": answer.hash(),
        "model": answer.order.model,
        "buyer": answer.order.buyer,
        "provider": answer.provider(),
        "tokens": { "prompt": answer.terms.prompt.len(), "output": answer.output.len() },
        "compute_units": units,
        "seconds": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let said =
            parse(text.as_bytes()).map(|_| "an answer".to_owned()).unwrap_or_else(|said| said);
        assert!(said.contains(expected), "{text}: {said}");
    }

    #[test]
    fn what_is_no_receipt_is_named() {
        check("", "not JSON");
        check("{\"a\":", "not JSON");
        check("[]", "expected");
        check("{}", "missing field");
        check("{\"assay\": 3}", "expected");
        check("{\"assay\": {}, \"assay\": {}}", "duplicate field");
        check("{\"surprise\": 3}", "unknown field `surprise`");
    }
}
