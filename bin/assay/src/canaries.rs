//! Canaries of a local network: which accounts plant and order them, and what they ask.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_engine::Outline;
use assay_protocol::{Address, Amount};
use assay_provider::Planting;
use assay_text::{Conversation, Message};
use clap::Args;

use crate::data::Data;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::WHOLE;

/// What who disputes a canary has.
const PRIZE: Amount = Amount(WHOLE);
/// What a buyer of canaries puts into its channel at once, as a gateway does.
const DEPOSIT: Amount = Amount(10 * WHOLE);
/// Canaries of one provider at once.
const SOWN_MAX: usize = 8;
/// Between two looks at them, short beside an epoch here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait beyond the beginning of an epoch, which has ten seconds here.
const SPREAD: Duration = Duration::from_secs(8);
/// Sums asked where nobody says what to ask.
const SUMS: u32 = 512;
/// Seconds in a day, which templates are told as in a gateway's order.
const DAY_S: u64 = 24 * 60 * 60;
/// Longest file of questions, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Whether providers plant canaries.
#[derive(Args, Clone, Debug)]
pub(crate) struct CanaryArgument {
    /// Share of answers beside which each provider plants one that is false on purpose, such as 0.01: auditors that
    /// call it true without looking lose half their bond
    #[arg(long, env = "ASSAY_CANARIES", value_name = "SHARE", value_parser = parse_share, default_value = "0")]
    canaries: u16,
    /// File with what canaries ask, one question a line, as like as can be to what real buyers ask [default: sums]
    #[arg(long, env = "ASSAY_CANARY_PROMPTS", value_name = "FILE", requires = "canaries")]
    canary_prompts: Option<PathBuf>,
}

/// What canaries of a network are planted with.
#[derive(Clone, Debug)]
pub(crate) struct Canaries {
    share_bps: u16,
    questions: Vec<String>,
}

impl CanaryArgument {
    /// What to plant; nothing for a share of zero.
    pub(crate) fn read(&self) -> Outcome<Option<Canaries>> {
        if self.canaries == 0 {
            return Ok(None);
        }
        let questions = match &self.canary_prompts {
            Some(path) => read(path)?,
            None => (0..SUMS).map(sum).collect(),
        };
        Ok(Some(Canaries { share_bps: self.canaries, questions }))
    }
}

/// A share of one, as parts of 10,000.
fn parse_share(text: &str) -> Result<u16, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("{text} is not between 0 and 1"));
    }
    let parts = (share * 10_000.0).round();
    if parts == 0.0 && share > 0.0 {
        return Err(format!("{text} is less than one answer in 10,000"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 … 10,000")]
    Ok(parts as u16)
}

fn read(path: &Path) -> Outcome<Vec<String>> {
    let what = format!("{} cannot be read", path.display());
    let length = fs::metadata(path).map_err(|error| Failure::file(&what, &error))?.len();
    if length > FILE_MAX {
        return Err(Failure::new(Exit::Malformed, what)
            .why(format_args!("it has {length} bytes, at most {FILE_MAX} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::file(&what, &error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let questions: Vec<String> = lines.map(str::to_owned).collect();
    if questions.is_empty() {
        return Err(Failure::new(Exit::Malformed, what).why("it asks nothing"));
    }
    Ok(questions)
}

/// A sum of numbers below a hundred, which all of them have in some order.
fn sum(number: u32) -> String {
    // Steps without a common divisor with 10,000 meet each pair once.
    let pair = number * 7_919 % 10_000;
    format!("{}+{}=", pair / 100, pair % 100)
}

/// Where the keys lie of provider number `n`'s planter, and of its buyer.
fn folders(data: &Data, n: usize) -> [PathBuf; 2] {
    ["planter", "buyer"].map(|who| data.provider(n).join("canaries").join(who))
}

/// The accounts of provider number `n`'s planter and buyer.
pub(crate) fn accounts(data: &Data, n: usize) -> Outcome<Vec<Address>> {
    let keys = folders(data, n).into_iter().map(|folder| keys::load_or_create(&folder));
    keys.map(|key| Ok(key?.address())).collect()
}

/// How provider number `n` plants canaries in answers of a model.
pub(crate) async fn plants(
    data: &Data,
    chain: &Embedded,
    n: usize,
    canaries: &Canaries,
    model: &Outline,
) -> Outcome<Planting> {
    let [planter, buyer] = folders(data, n);
    let (planter, buyer) = (keys::load_or_create(&planter)?, keys::load_or_create(&buyer)?);
    // A network of one's own seldom runs into another day.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Planting {
        share_bps: canaries.share_bps,
        planter: chain.open(&planter).await?,
        purse: chain.open(&buyer).await?,
        buyer,
        prompts: canaries.questions.iter().filter_map(|text| tokens(model, text, now)).collect(),
        prize: PRIZE,
        deposit: DEPOSIT,
        sown_max: SOWN_MAX,
        spread: SPREAD,
        look_every: LOOK_EVERY,
    })
}

/// A question as a gateway hands it in at `now`, in Unix seconds; nothing if the model cannot be asked that.
fn tokens(model: &Outline, question: &str, now: u64) -> Option<Vec<u32>> {
    let (tokenizer, chat) = (model.tokenizer.as_ref()?, model.chat.as_ref()?);
    let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.spelling(id)).unwrap_or("");
    let (bos, eos) = (spelling(tokenizer.bos()), spelling(model.manifest.eos.first().copied()));
    let messages = [Message::new("user", question)];
    let conversation = Conversation {
        messages: &messages,
        tools: &[],
        add_generation_prompt: true,
        bos,
        eos,
        unix_seconds: Some(now - now % DAY_S),
    };
    let text = chat.render(&conversation).ok()?;
    Some(tokenizer.encode(&text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_share_is_of_one() {
        assert_eq!(parse_share("0.01"), Ok(100));
        assert_eq!(parse_share("1"), Ok(10_000));
        assert_eq!(parse_share("0"), Ok(0));
        for bad in ["1.1", "-0.1", "0.00001", "many", "NaN"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sums_differ() {
        let sums: BTreeSet<String> = (0..SUMS).map(sum).collect();
        assert_eq!(sums.len(), SUMS as usize);
    }
}
