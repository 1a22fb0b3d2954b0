//! On what grounds a receipt can be disputed, before anything is put at stake.

use assay_engine::{Job, Loaded, ReplayError};
use assay_evidence::dispute::{Equivocation, contradicts, equivocate, misfinish};
use assay_evidence::{Fault, Verdict};
use assay_kernels::Cpu;
use assay_protocol::{Answer, Assurance, Blame, Tail};

/// What a receipt can be held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// Order and receipt contradict each other: one call convicts.
    Contradiction,
    /// The answer ended otherwise than the receipt says: one call convicts.
    Ending(Tail),
    /// The provider signed another answer to the same order: one call convicts.
    SecondAnswer(Equivocation),
    /// Some number of its computation is wrong: a game finds it.
    Computation,
}

/// What was found about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is what the model gives: nobody can win a dispute about it.
    True,
    /// It is false, and the provider's signature convicts it.
    Disputable {
        /// What a replay says, where one was needed.
        fault: Option<Fault>,
        /// How it is disputed.
        grounds: Grounds,
    },
    /// It is not what it should be, but no contract can tell.
    Undisputable {
        /// What is wrong.
        fault: Fault,
    },
}

/// Looks for grounds; `other` may be a second answer to the same order. `progress` is told the positions
/// replayed so far, and how many there are.
///
/// # Errors
/// If the model at hand cannot replay the answer.
pub(crate) fn find(
    answer: &Answer,
    other: Option<&Answer>,
    loaded: &Loaded,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Finding, ReplayError> {
    let job = Job::new(answer.hash(), &answer.order, &answer.terms, eos(loaded), loaded.context());
    if let Err(error) = answer.check(&job.ending)
        && error.blame() == Blame::File
    {
        // What nobody signed convicts nobody.
        return Ok(Finding::Undisputable { fault: Fault::Contradiction(error) });
    }
    let without_model = |grounds| Finding::Disputable { fault: None, grounds };
    if let Some(pair) = other.and_then(|other| second(answer, other)) {
        return Ok(without_model(Grounds::SecondAnswer(pair)));
    }
    if let Some(grounds) = signed(answer, loaded) {
        return Ok(without_model(grounds));
    }
    Ok(match assay_engine::replay(loaded, cpu, answer, progress)? {
        Verdict::True => Finding::True,
        // Games are about what every bit can be asked of.
        Verdict::False(fault) if answer.order.assurance != Assurance::Replayable => {
            Finding::Undisputable { fault }
        }
        Verdict::False(fault) => judged(fault),
    })
}

fn eos(loaded: &Loaded) -> &[u32] {
    &loaded.manifest.eos
}

/// What two receipts show that cannot both be true.
fn second(answer: &Answer, other: &Answer) -> Option<Equivocation> {
    equivocate([(&answer.receipt, &answer.output), (&other.receipt, &other.output)])
}

/// What the signed words alone show.
fn signed(answer: &Answer, loaded: &Loaded) -> Option<Grounds> {
    let Answer { order, receipt, output, terms, .. } = answer;
    let context = loaded.context();
    if contradicts(order, receipt, context) {
        return Some(Grounds::Contradiction);
    }
    // A rule that refuses convicts nobody this way.
    let tail = misfinish(order, receipt, output, eos(loaded), &terms.stops, context).ok().flatten();
    tail.map(Grounds::Ending)
}

/// Which faults a game can show.
fn judged(fault: Fault) -> Finding {
    let computed = matches!(fault, Fault::Token { .. } | Fault::State { .. } | Fault::FinalState);
    if computed && fault.blame() == Blame::Provider {
        return Finding::Disputable { fault: Some(fault), grounds: Grounds::Computation };
    }
    Finding::Undisputable { fault }
}
