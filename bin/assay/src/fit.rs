//! Whether a model fits into memory, said before it is loaded. Pure.
//!
//! What a model takes was measured beside this rule with a random model of half a thousand million
//! parameters: after a prompt of 1800 tokens the process had 577 MB of its own where this says 580, and
//! before any prompt 538 where the package has 525.

use assay_engine::Summary;
use assay_kernels::GROUP;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::bytes;

/// What the program takes without a model, in bytes.
const PROGRAM_BYTES: u64 = 16 << 20;
/// Rows of the largest batch, whose numbers lie in memory at once.
const ROWS: u64 = 256;
/// Shortest context, in tokens, that is worth loading a model for.
const CONTEXT_MIN: u64 = 256;

/// What a model takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Bytes that it takes before the first question.
    fixed: u64,
    /// Bytes of keys and values, for each token of a sequence.
    per_token: u64,
    /// Longest sequence, in tokens.
    context: u64,
}

impl Fit {
    /// What the model of a package takes that is so many bytes long.
    pub(crate) fn of(summary: &Summary, package_bytes: u64) -> Self {
        let shape = &summary.manifest.shape;
        let [layers, width, hidden, heads, kv_heads, head_dim] = [
            shape.layers.into(),
            shape.width.into(),
            shape.hidden.into(),
            shape.heads.into(),
            shape.kvHeads.into(),
            u64::from(shape.headDim),
        ];
        // Four bytes each: what goes through a layer, its heads, and what is hidden within it.
        let row = 4 * (5 * width + 4 * hidden + 2 * heads * head_dim);
        // A byte for each number, and two for each group of them; keys and values.
        let per_token = 2 * layers * kv_heads * (head_dim + 2 * head_dim / GROUP as u64);
        Self {
            fixed: package_bytes + ROWS * row + PROGRAM_BYTES,
            per_token,
            context: shape.context.into(),
        }
    }

    /// Bytes for one sequence that fills the context.
    pub(crate) fn needed(self) -> u64 {
        self.fixed + self.per_token * self.context
    }

    /// The longest sequence, in tokens, that fits into so many bytes.
    pub(crate) fn context_in(self, free: u64) -> u64 {
        let left = free.saturating_sub(self.fixed);
        match (free < self.fixed, left.checked_div(self.per_token)) {
            (true, _) => 0,
            (false, tokens) => tokens.unwrap_or(self.context).min(self.context),
        }
    }

    /// What there is to say, in one line.
    pub(crate) fn told(self, free: u64) -> String {
        format!(
            "needs {}, {} free; largest context that fits: {} of {} tokens",
            bytes(self.needed()),
            bytes(free),
            self.context_in(free),
            self.context,
        )
    }

    /// The same for programs; `free` is what the system says, if it does.
    pub(crate) fn json(self, free: Option<u64>) -> Value {
        json!({
            "needed_bytes": self.needed(),
            "free_bytes": free,
            "fits": free.map(|free| self.needed() <= free),
            "context_that_fits": free.map(|free| self.context_in(free)),
        })
    }

    /// Refuses a model that leaves no room for a sequence worth the name.
    pub(crate) fn check(self, name: &str, free: Option<u64>) -> Outcome {
        match free {
            Some(free) if self.context_in(free) < CONTEXT_MIN.min(self.context) => {
                let what = format!("model {name} does not fit into memory");
                Err(Failure::new(Exit::Memory, what)
                    .why(self.told(free))
                    .fix("close other programs, or take a smaller model"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIT: Fit = Fit { fixed: 1000, per_token: 10, context: 400 };

    #[test]
    fn the_context_is_what_memory_leaves() {
        for (free, context) in [(0, 0), (999, 0), (1009, 0), (1010, 1), (4999, 399), (9999, 400)] {
            assert_eq!(FIT.context_in(free), context, "{free}");
        }
        assert_eq!(FIT.needed(), 5000);
        assert_eq!(Fit { per_token: 0, ..FIT }.context_in(1000), 400);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        assert!(FIT.check("m", None).is_ok());
        assert!(FIT.check("m", Some(1000 + 2560)).is_ok());
        let failure = FIT.check("m", Some(3559)).unwrap_err();
        assert!(failure.is(Exit::Memory));
        let said = "model m does not fit into memory: needs 4.9 KiB, 3.5 KiB free; largest context that fits: 255 of 400 tokens";
        assert_eq!(failure.what(), said);
        // A model of short texts fits if its whole context does.
        assert!(Fit { context: 20, ..FIT }.check("m", Some(1200)).is_ok());
    }

    #[test]
    fn programs_are_told_the_same() {
        let expected = json!({
            "needed_bytes": 5000, "free_bytes": 2000, "fits": false, "context_that_fits": 100,
        });
        assert_eq!(FIT.json(Some(2000)), expected);
        assert_eq!(FIT.json(None)["fits"], Value::Null);
    }
}
