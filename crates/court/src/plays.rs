//! What a side says, as a call of one dispute.

use assay_chain::{Move as Call, Proof as Called};
use assay_evidence::dispute::{Move, Proof};

/// The call that makes a move in dispute `dispute`. Those that bind the provider carry no signature:
/// they hold if its owner or operator sends them (else see [`assay_chain::Chain::signed`]).
pub fn on_chain(dispute: u64, play: Move) -> Call {
    match play {
        Move::Commit(trace) => Call::Commit { dispute, trace, signature: None },
        Move::Reveal(nodes) => Call::Reveal { dispute, nodes },
        Move::List(values) => Call::List { dispute, values, signature: None },
        Move::Prove(proof) => {
            let Proof { focus, facts, rounds, openings } = *proof;
            Call::Prove(Box::new(Called { dispute, focus, facts, rounds, openings }))
        }
        Move::Pick(branch) => Call::Pick { dispute, branch },
        Move::PickWithin(branch, step) => Call::PickWithin { dispute, branch, step },
        Move::Ask { turns, levels, step } => Call::Ask { dispute, turns, levels, step },
        Move::Show(leaf) => Call::Show { dispute, leaf },
        Move::Name(branch, accusation) => Call::Name { dispute, branch, accusation },
        Move::Empty(branch, step) => Call::Empty { dispute, branch, step },
        Move::Choose(entry) => Call::Choose { dispute, entry },
    }
}
