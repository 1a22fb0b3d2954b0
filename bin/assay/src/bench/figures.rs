//! What is told of many answers.
//!
//! As vLLM defines them: TTFT is the time to the first token, ITL the time between pieces of text,
//! TPOT `(e2e - ttft) / (output tokens - 1)`, and goodput counts the requests that keep to every goal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::compare::{Baseline, change};
use super::load::{Measured, Reply};

/// Figures of one round, by name.
pub(super) type Figures = BTreeMap<String, f64>;

const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// What a good request keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    of: fn(&Reply) -> Option<Duration>,
    max: Duration,
}

impl Goal {
    /// Reads `ttft:500`, in milliseconds.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, max) = text.split_once(':').ok_or("not of the form NAME:MS")?;
        let of: fn(&Reply) -> Option<Duration> = match name {
            "ttft" => |reply| Some(reply.ttft),
            "tpot" => tpot,
            "e2e" => |reply| Some(reply.e2e),
            _ => return Err(format!("{name} is none of ttft, tpot, e2e")),
        };
        let max: f64 = max.parse().map_err(|error| format!("{max}: {error}"))?;
        let max = Duration::try_from_secs_f64(max / 1e3).map_err(|error| error.to_string())?;
        Ok(Self { of, max })
    }

    fn is_kept(&self, reply: &Reply) -> bool {
        (self.of)(reply).is_none_or(|found| found <= self.max)
    }
}

/// Time per output token after the first; none for an answer of one token.
fn tpot(reply: &Reply) -> Option<Duration> {
    let after = u32::try_from(reply.output_tokens).ok()?.checked_sub(1)?;
    reply.e2e.saturating_sub(reply.ttft).checked_div(after)
}

impl Measured {
    /// The round's figures: times in milliseconds (`_ms`), rates in a second (`_s`).
    pub(super) fn figures(&self, goals: &[Goal]) -> Figures {
        let (replies, seconds) = (&self.replies, self.took.as_secs_f64());
        let count = replies.len() as f64;
        let sum = |of: fn(&Reply) -> u64| replies.iter().map(of).sum::<u64>() as f64;
        let [input, output] = [sum(|reply| reply.prompt_tokens), sum(|reply| reply.output_tokens)];
        let pieces = sum(|reply| reply.gaps.len() as u64 + 1);
        let mut figures = Figures::from(
            [
                ("answered", count),
                ("failed", self.failures.len() as f64),
                ("requests_s", count / seconds),
                ("output_tokens_s", output / seconds),
                ("total_tokens_s", (input + output) / seconds),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        if !replies.is_empty() {
            figures.insert("prompt_tokens.mean".into(), input / count);
            figures.insert("output_tokens.mean".into(), output / count);
            figures.insert("tokens_a_piece".into(), output / pieces);
        }
        if !goals.is_empty() {
            let good = |reply: &&Reply| goals.iter().all(|goal| goal.is_kept(reply));
            let good = replies.iter().filter(good).count() as f64;
            figures.insert("goodput_s".into(), good / seconds);
        }
        if let Some(cpu) = self.cpu {
            figures.insert("cpu_ms_a_request".into(), 1e3 * cpu.as_secs_f64() / count);
        }
        let times: [(&str, Vec<Duration>); 4] = [
            ("ttft_ms", replies.iter().map(|reply| reply.ttft).collect()),
            ("tpot_ms", replies.iter().filter_map(tpot).collect()),
            ("itl_ms", replies.iter().flat_map(|reply| reply.gaps.iter().copied()).collect()),
            ("e2e_ms", replies.iter().map(|reply| reply.e2e).collect()),
        ];
        for (name, times) in times {
            spread(name, times, &mut figures);
        }
        figures
    }
}

/// Mean and percentiles of some times; none of no times.
fn spread(name: &str, mut times: Vec<Duration>, figures: &mut Figures) {
    if times.is_empty() {
        return;
    }
    times.sort_unstable();
    let ms = |time: Duration| 1e3 * time.as_secs_f64();
    let mean = times.iter().copied().map(ms).sum::<f64>() / times.len() as f64;
    figures.insert(format!("{name}.mean"), mean);
    for (label, share) in PERCENTILES {
        // The nearest rank: the smallest time that this share of all are not above.
        let rank = (share * times.len() as f64).ceil() as usize;
        figures.insert(format!("{name}.{label}"), ms(times[rank.clamp(1, times.len()) - 1]));
    }
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    min: f64,
    max: f64,
}

/// All figures over all rounds. A figure that some rounds lack is of those that have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary(pub(super) BTreeMap<String, Spread>);

impl Summary {
    pub(super) fn of(rounds: &[Figures]) -> Self {
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in rounds.iter().flatten() {
            values.entry(name).or_default().push(*value);
        }
        let spread = |(name, mut values): (&str, Vec<f64>)| {
            values.sort_by(f64::total_cmp);
            let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
            let spread = Spread { median, min: values[0], max: values[values.len() - 1] };
            (name.to_owned(), spread)
        };
        Self(values.into_iter().map(spread).collect())
    }

    pub(super) fn document(&self) -> Value {
        let figure = |(name, spread): (&String, &Spread)| {
            let Spread { median, min, max } = spread;
            (name.clone(), json!({ "median": median, "min": min, "max": max }))
        };
        Value::Object(self.0.iter().map(figure).collect())
    }
}

/// A table: a line a figure, a column a server; how the others compare with the first, and the first
/// with what was kept.
pub(super) fn table(urls: &[&str], servers: &[Summary], baseline: Option<&Baseline>) -> String {
    let mut head = vec!["".to_owned(), urls[0].to_owned()];
    head.extend(baseline.map(|_| "since".to_owned()));
    head.extend(urls[1..].iter().flat_map(|url| [(*url).to_owned(), "against the first".into()]));
    let mut lines = vec![head];
    for (name, first) in &servers[0].0 {
        let mut line = vec![name.clone(), number(first.median)];
        if let Some(baseline) = baseline {
            line.push(baseline.of(name).map_or_else(String::new, |was| change(was, first.median)));
        }
        for other in &servers[1..] {
            let found = other.0.get(name);
            line.push(found.map_or_else(String::new, |found| number(found.median)));
            line.push(found.map_or_else(String::new, |found| change(first.median, found.median)));
        }
        lines.push(line);
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let _ = write!(text, "{}{:<2$}", if index > 0 { "\n" } else { "" }, line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
    }
    text
}

/// Three digits at least, and no more than help.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.1 if value != 0.0 => format!("{value:.4}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn reply(ttft: u32, e2e: u32, output_tokens: u64) -> Reply {
        Reply {
            ttft: ttft * MS,
            e2e: e2e * MS,
            gaps: vec![5 * MS],
            prompt_tokens: 7,
            output_tokens,
        }
    }

    fn measured(replies: Vec<Reply>) -> Measured {
        Measured { replies, failures: vec!["busy".into()], took: 2000 * MS, cpu: Some(30 * MS) }
    }

    #[test]
    fn figures_are_those_of_the_definitions() {
        let figures = measured(vec![reply(10, 110, 11), reply(30, 40, 1), reply(20, 80, 4)])
            .figures(&[Goal::parse("ttft:25").unwrap(), Goal::parse("tpot:15").unwrap()]);
        let expected = [
            ("answered", 3.0),
            ("failed", 1.0),
            ("requests_s", 1.5),
            ("output_tokens_s", 8.0),
            ("total_tokens_s", 18.5),
            ("tokens_a_piece", 16.0 / 6.0),
            ("goodput_s", 0.5),
            ("cpu_ms_a_request", 10.0),
            ("ttft_ms.mean", 20.0),
            ("ttft_ms.p50", 20.0),
            ("ttft_ms.p99", 30.0),
            ("tpot_ms.p50", 10.0),
            ("tpot_ms.p90", 20.0),
            ("itl_ms.p50", 5.0),
            ("e2e_ms.p90", 110.0),
        ];
        for (name, expected) in expected {
            assert!((figures[name] - expected).abs() < 1e-9, "{name}: {}", figures[name]);
        }
    }

    #[test]
    fn a_round_without_answers_has_no_times() {
        let figures = measured(Vec::new()).figures(&[]);
        assert_eq!(figures["answered"], 0.0);
        assert!(!figures.contains_key("ttft_ms.p50"));
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let round = |value: f64| Figures::from([("a".to_owned(), value)]);
        let check = |values: &[f64], expected: f64| {
            let rounds: Vec<Figures> = values.iter().copied().map(round).collect();
            assert_eq!(Summary::of(&rounds).0["a"].median, expected);
        };
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 5.0], 5.0);
        check(&[9.0, 1.0, 5.0, 7.0], 6.0);
    }

    #[test]
    fn goals_that_make_no_sense_are_refused() {
        for wrong in ["ttft", "speed:3", "ttft:soon", "ttft:-1", "e2e:inf"] {
            assert!(Goal::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_sets_servers_side_by_side() {
        let summary = |value: f64| Summary::of(&[Figures::from([("ttft_ms.p50".into(), value)])]);
        let table = table(&["http://a", "http://b"], &[summary(10.0), summary(12.0)], None);
        let expected = "             http://a  http://b  against the first\n\
                        ttft_ms.p50      10.0      12.0             +20.0%";
        assert_eq!(table, expected);
    }
}
