//! What was kept of an earlier run, and bars that a run must not be past.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::SCHEMA;
use super::figures::Summary;
use crate::failure::{Exit, Failure, Outcome};

/// Longest file that is read as what a run kept.
const FILE_MAX: u64 = 16 << 20;

/// The first server's figures in an earlier run.
#[derive(Debug)]
pub(super) struct Baseline(BTreeMap<String, f64>);

impl Baseline {
    pub(super) fn read(file: &Path) -> Outcome<Self> {
        let name = file.display();
        let failed = |error| Failure::file(format_args!("{name} cannot be read"), &error);
        let malformed = |why: String| {
            let what = format!("{name} is not what `assay bench --save` writes");
            Failure::new(Exit::Malformed, what).why(why)
        };
        if fs::metadata(file).map_err(failed)?.len() > FILE_MAX {
            return Err(malformed(format!("it is longer than {FILE_MAX} bytes")));
        }
        let bytes = fs::read(file).map_err(failed)?;
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if document["schema"] != SCHEMA {
            return Err(malformed(format!("its schema is {}, not {SCHEMA}", document["schema"])));
        }
        let figures = document["servers"][0]["figures"].as_object();
        let figures = figures.ok_or_else(|| malformed("it has no figures".into()))?;
        let median = |(name, figure): (&String, &Value)| {
            figure["median"].as_f64().map(|median| (name.clone(), median))
        };
        Ok(Self(figures.iter().filter_map(median).collect()))
    }

    /// A figure as it was.
    pub(super) fn of(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// How much more, or less, it is than it was.
pub(super) fn change(was: f64, is: f64) -> String {
    if was == 0.0 {
        return if is == 0.0 { "+0.0%".into() } else { "new".into() };
    }
    format!("{:+.1}%", 100.0 * (is / was - 1.0))
}

/// A bar: `ttft_ms.p95>500`, or, against an earlier run, `output_tokens_s<-5%`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    figure: String,
    above: bool,
    at: f64,
    relative: bool,
}

impl Bar {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let sign = text.find(['<', '>']).ok_or("neither < nor > in it")?;
        let (figure, above) = (text[..sign].trim(), text[sign..].starts_with('>'));
        let at = text[sign + 1..].trim();
        let (at, relative) = match at.strip_suffix('%') {
            Some(percent) => (percent, true),
            None => (at, false),
        };
        let at: f64 = at.parse().map_err(|error| format!("{at}: {error}"))?;
        if figure.is_empty() || !at.is_finite() {
            return Err("not of the form FIGURE>NUMBER".into());
        }
        Ok(Self { figure: figure.to_owned(), above, at, relative })
    }

    /// Whether it is about a change.
    pub(super) fn is_relative(&self) -> bool {
        self.relative
    }

    /// Why the run is past this bar, if it is. A figure that is not there is past every bar.
    pub(super) fn past(&self, found: &Summary, baseline: Option<&Baseline>) -> Option<String> {
        let Self { figure, above, at, relative } = self;
        let missing = |whence: &str| Some(format!("{figure} is no figure of {whence}"));
        let Some(is) = found.0.get(figure).map(|spread| spread.median) else {
            return missing("this run");
        };
        let bar = match relative {
            false => *at,
            true => match baseline.and_then(|baseline| baseline.of(figure)) {
                Some(was) => was * (1.0 + at / 100.0),
                None => return missing("the earlier run"),
            },
        };
        let past = if *above { is > bar } else { is < bar };
        let side = if *above { "above" } else { "below" };
        past.then(|| format!("{figure} is {is:.4}, {side} {bar:.4}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;

    fn check(bar: &str, was: f64, is: f64, expected: bool) {
        let found = Summary::of(&[Figures::from([("a_ms.p95".to_owned(), is)])]);
        let baseline = Baseline(BTreeMap::from([("a_ms.p95".to_owned(), was)]));
        let past = Bar::parse(bar).unwrap().past(&found, Some(&baseline));
        assert_eq!(past.is_some(), expected, "{bar}: {past:?}");
    }

    #[test]
    fn bars_are_crossed_in_their_direction_only() {
        check("a_ms.p95>500", 0.0, 501.0, true);
        check("a_ms.p95>500", 0.0, 500.0, false);
        check("a_ms.p95 < 5", 0.0, 4.0, true);
        check("a_ms.p95>+10%", 100.0, 111.0, true);
        check("a_ms.p95>+10%", 100.0, 109.0, false);
        check("a_ms.p95<-5%", 100.0, 94.0, true);
        check("a_ms.p95<-5%", 100.0, 96.0, false);
        check("b_ms.p95>500", 0.0, 0.0, true);
    }

    #[test]
    fn bars_that_make_no_sense_are_refused() {
        for wrong in ["", "a", "a=3", ">3", "a>", "a>x", "a>inf", "a>%"] {
            assert!(Bar::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn changes_are_told_in_percent() {
        assert_eq!(change(10.0, 12.0), "+20.0%");
        assert_eq!(change(10.0, 9.0), "-10.0%");
        assert_eq!(change(0.0, 1.0), "new");
    }
}
