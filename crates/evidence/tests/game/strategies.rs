//! Challengers that try anything against an honest trace.

use assay_evidence::dispute::{Defender, Depths, Move, Subject, Trace, Way, node};
use assay_evidence::op::{Place, leaves};
use assay_protocol::{Branch, Doubt, Phase};

use crate::play::{End, Game};
use crate::stage::Stage;

/// Numbers from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Plays random moves against a defender, who must have an answer to each.
pub(crate) fn wild(
    stage: &Stage,
    subject: Subject<'_>,
    committed: &dyn Trace,
    dice: &mut Dice,
) -> End {
    let defender = Defender::new(subject, committed).with_whole_rows(dice.below(2) * 8);
    let mut game = Game::open(stage);
    let mut refused = 0;
    while !game.is_over() {
        let next = match game.standing.phase {
            Phase::Pick => random_move(subject, committed, &game, dice),
            Phase::Choose => Some(Move::Choose(match dice.below(4) {
                0 => u32::MAX,
                1 => dice.below(3) as u32,
                _ => dice.below(70) as u32,
            })),
            _ => {
                let answer = defender.answer(&game.standing).unwrap().unwrap();
                let taken = game.make(&answer);
                assert!(taken.is_ok(), "the honest answer is refused: {answer:?} {taken:?}");
                continue;
            }
        };
        if next.is_none_or(|next| game.make(&next).is_err()) {
            refused += 1;
        }
        if refused > 40 {
            game.run_out();
        }
    }
    game.end
}

fn random_move(
    subject: Subject<'_>,
    trace: &dyn Trace,
    game: &Game,
    dice: &mut Dice,
) -> Option<Move> {
    let claim = subject.claim;
    let (from, depths) = (game.standing.way, Depths::of(claim));
    // Somewhere below where the game stands, most often where something is.
    let mut place = Place {
        position: dice.below(u64::from(claim.positions()) + 1) as u32,
        op: dice.below(u64::from(claim.ops()) + 1) as u32,
        leaf: 0,
    };
    place.leaf = dice.below(leaves(&claim.layout(place.position, place.op)) + 1);
    let count = leaves(&claim.layout(place.position, place.op)).max(1);
    let end = depths.to_leaf(place, count.next_power_of_two());
    let mut to = end;
    if to.up(to.depth().checked_sub(from.depth())?) != from {
        // Not below: take random turns instead.
        to = from;
        while to.depth() < end.depth() {
            to = to.down(1, dice.below(2));
        }
    }
    let op = place.op.min(claim.ops() - 1);
    let op = if to.depth() >= depths.to_ops() {
        (to.up(to.depth() - depths.to_ops()).last(depths.ops) as u32).min(claim.ops() - 1)
    } else {
        op
    };
    let least = game.standing.reach.max(from.depth());
    let to = match dice.below(3) {
        0 => to,
        _ => {
            let span = u64::from(to.depth().checked_sub(least)?) + 1;
            to.up(dice.below(span) as u32)
        }
    };
    let branch = branch(subject, trace, from, to)?;
    let step = subject.open_step(op).ok()?;
    Some(match dice.below(6) {
        0 => Move::Pick(branch),
        1 => Move::PickWithin(branch, step),
        2 => Move::Empty(branch, step),
        _ => {
            let doubts =
                [Doubt::Element, Doubt::Link, Doubt::Kth, Doubt::Nucleus, Doubt::FinalState];
            let doubt = if dice.below(2) == 0 { 0 } else { dice.below(5) as usize };
            let element = dice.below(33) as u8;
            Move::Name(branch, Box::new(subject.accuse(op, element, doubts[doubt]).ok()?))
        }
    })
}

fn branch(subject: Subject<'_>, trace: &dyn Trace, from: Way, to: Way) -> Option<Branch> {
    let levels = to.depth() - from.depth();
    let find = |way| node(subject.claim, trace, way);
    let proof = (0..levels).map(|up| find(to.up(up).beside())).collect::<Option<_>>()?;
    Some(Branch { turns: u128::from(to.last(levels)), node: find(to)?, proof })
}
