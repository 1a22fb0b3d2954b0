//! When an answer ends, and why: a rule anyone can apply to the tokens alone.

use serde::{Deserialize, Serialize};

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Finish {
    /// The model ended it.
    Eos = 0,
    /// A stop sequence of the order appeared.
    Stop = 1,
    /// The order's limit, or the end of the context, was reached.
    Length = 2,
    /// The buyer left; only delivered tokens are charged.
    Cancelled = 3,
}

impl Finish {
    /// The code used in receipts.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Eos => "eos",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What ends the answer to one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Tokens by which the model ends an answer.
    pub eos: Vec<u32>,
    /// Token sequences by which the order ends it; none is empty.
    pub stops: Vec<Vec<u32>>,
    /// Most output tokens: the order's limit, or what the context leaves if that is less.
    pub tokens_max: u32,
}

impl Ending {
    /// Whether the last token of `output` ends the answer. An end by the model comes before one
    /// by a stop sequence, and that before one by length.
    pub fn at(&self, output: &[u32]) -> Option<Finish> {
        let last = output.last()?;
        if self.eos.contains(last) {
            return Some(Finish::Eos);
        }
        if self.stops.iter().any(|stop| output.ends_with(stop)) {
            return Some(Finish::Stop);
        }
        (output.len() >= self.tokens_max as usize).then_some(Finish::Length)
    }

    /// The finish of a whole output, cancelled if it could have gone on; `None` if it goes on
    /// after its end.
    pub fn of(&self, output: &[u32]) -> Option<Finish> {
        let overruns = (1..output.len()).any(|length| self.at(&output[..length]).is_some());
        if overruns { None } else { Some(self.at(output).unwrap_or(Finish::Cancelled)) }
    }

    /// How many leading tokens of a finished output make the text: without the token, or the stop
    /// sequence, that ended it.
    pub fn text_len(&self, output: &[u32], finish: Finish) -> usize {
        match finish {
            Finish::Eos => output.len().saturating_sub(1),
            Finish::Stop => {
                let ends = self.stops.iter().filter(|stop| output.ends_with(stop));
                output.len() - ends.map(Vec::len).max().unwrap_or(0)
            }
            Finish::Length | Finish::Cancelled => output.len(),
        }
    }

    /// How many leading tokens of an unfinished output are text whatever comes next: all but the
    /// longest tail that may turn out to begin a stop sequence.
    pub fn settled_len(&self, output: &[u32]) -> usize {
        let begins = |stop: &Vec<u32>| {
            (1..stop.len().min(output.len() + 1)).rev().find(|&n| output.ends_with(&stop[..n]))
        };
        output.len() - self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending() -> Ending {
        Ending { eos: vec![2], stops: vec![vec![7, 8], vec![8, 9, 7]], tokens_max: 5 }
    }

    fn check(output: &[u32], finish: Option<Finish>, text: usize) {
        assert_eq!(ending().of(output), finish, "{output:?}");
        let finish = finish.unwrap_or(Finish::Cancelled);
        assert_eq!(ending().text_len(output, finish), text, "{output:?}");
    }

    #[test]
    fn an_answer_ends_once_and_for_a_reason() {
        check(&[], Some(Finish::Cancelled), 0);
        check(&[1, 2], Some(Finish::Eos), 1);
        check(&[1, 7, 8], Some(Finish::Stop), 1);
        check(&[1, 8, 9, 7], Some(Finish::Stop), 1);
        check(&[1, 1, 1, 1, 1], Some(Finish::Length), 5);
        check(&[1, 1, 1, 1, 2], Some(Finish::Eos), 4);
        check(&[1, 3], Some(Finish::Cancelled), 2);
        check(&[2, 1], None, 2);
        check(&[7, 8, 1], None, 3);
    }

    #[test]
    fn text_waits_while_a_stop_sequence_may_begin() {
        assert_eq!(ending().settled_len(&[1, 7]), 1);
        assert_eq!(ending().settled_len(&[1, 8, 9]), 1);
        assert_eq!(ending().settled_len(&[8, 9, 1]), 3);
        assert_eq!(ending().settled_len(&[]), 0);
    }
}
