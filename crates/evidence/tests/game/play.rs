//! Whole disputes on the chain, both sides played by the players.

use alloy_sol_types::{SolCall, SolEvent};
use assay_evidence::dispute::{
    Challenger, Defender, Fan, Move, Next, NoSource, NodeSource, Standing, Subject, Trace, Way, fan,
};
use assay_evidence::op::{Claim, Place, Source};
use assay_protocol::{Focus, Opening, Phase, Round, U256, hex};

use crate::court::{ADA, CLOCK, Court, OPERATOR};
use crate::stage::Stage;
use crate::words::{self, ICourt, ISuite};

/// How a dispute ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// [`Phase::Won`] is the challenger's.
    pub(crate) phase: Phase,
    /// The number that it came down to.
    pub(crate) focus: Option<Focus>,
    /// Reveals, leaves that were asked for, and lists.
    pub(crate) reveals: u32,
    pub(crate) asks: u32,
    pub(crate) lists: u32,
    /// Gas of all moves, and of the proof alone.
    pub(crate) gas: u64,
    pub(crate) proof_gas: u64,
    /// Whether a clock ran out.
    pub(crate) silent: bool,
}

/// One dispute that is under way.
pub(crate) struct Game {
    id: U256,
    pub(crate) court: Court,
    pub(crate) standing: Standing,
    pub(crate) end: End,
}

impl Game {
    pub(crate) fn open(stage: &Stage) -> Game {
        let mut court = stage.court.clone();
        let disputes = court.disputes;
        let filing = stage.filing.clone();
        court.must(ADA, disputes, &ICourt::openCall { filing });
        let end = End {
            phase: Phase::Commit,
            focus: None,
            reveals: 0,
            asks: 0,
            lists: 0,
            gas: 0,
            proof_gas: 0,
            silent: false,
        };
        let mut game = Game { id: U256::from(1), court, standing: Standing::default(), end };
        game.look();
        game
    }

    /// Reads where the dispute stands.
    fn look(&mut self) {
        let disputes = self.court.disputes;
        let call = ISuite::disputeOfCall { id: self.id };
        let said = self.court.ask(disputes, call.abi_encode()).result.unwrap();
        let word = |index: usize| U256::from_be_slice(&said[32 * index..32 * (index + 1)]);
        let standing = &mut self.standing;
        standing.phase = Phase::ALL[word(0).to::<usize>()];
        standing.way = Way::new(word(1).to(), word(8).to()).unwrap();
        let leaf_depth: u8 = word(2).to();
        standing.leaf_depth = (leaf_depth != 255).then_some(leaf_depth);
        standing.reach = word(4).to();
        // The last six words, whatever stands before them.
        let count = said.len() / 32;
        standing.trace = word(count - 6).into();
        standing.point = word(count - 5).into();
        self.end.phase = standing.phase;
    }

    /// Makes a move; the error that the contract refuses it with.
    pub(crate) fn make(&mut self, next: &Move) -> Result<(), Vec<u8>> {
        let (who, call) = encode(self.id, next);
        let disputes = self.court.disputes;
        let outcome = self.court.raw(who, disputes, call);
        outcome.result?;
        self.end.gas += outcome.gas;
        match next {
            Move::Prove(_) => self.end.proof_gas = outcome.gas,
            Move::Reveal(_) => self.end.reveals += 1,
            Move::List(_) => self.end.lists += 1,
            _ => {}
        }
        let below = self.standing.way;
        for log in outcome.logs {
            if let Ok(event) = ICourt::Revealed::decode_log(&log) {
                self.standing.revealed.push(Fan { below, nodes: event.data.nodes });
            } else if let Ok(event) = ICourt::Asked::decode_log(&log) {
                self.standing.asked = Way::new(event.data.depth.to(), event.data.path);
                self.end.asks += 1;
            } else if let Ok(event) = ICourt::Shown::decode_log(&log) {
                let way = self.standing.asked.take().unwrap();
                self.standing.shown.push((way, event.data.leaf.to_vec()));
            } else if let Ok(event) = ICourt::Named::decode_log(&log) {
                self.standing.focus = Some(words::told(&event.data.focus));
                self.end.focus = self.standing.focus;
            } else if let Ok(event) = ICourt::Listed::decode_log(&log) {
                self.standing.rounds.push(Round { list: event.data.list.to_vec(), entry: 0 });
            } else if let Ok(event) = ICourt::Chosen::decode_log(&log) {
                self.standing.rounds.last_mut().unwrap().entry = event.data.entry;
            }
        }
        self.look();
        Ok(())
    }

    /// Lets the clock of the side to move run out.
    pub(crate) fn run_out(&mut self) {
        self.court.now += CLOCK + 1;
        let disputes = self.court.disputes;
        self.court.must(ADA, disputes, &ICourt::timeoutCall { id: self.id });
        self.end.silent = true;
        self.look();
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.standing.phase, Phase::Won | Phase::Lost)
    }
}

/// Who sends a move, and how.
fn encode(id: U256, next: &Move) -> (assay_protocol::Address, Vec<u8>) {
    let provider = OPERATOR.address();
    match next {
        Move::Commit(trace) => {
            let signature = Default::default();
            (provider, ICourt::commitCall { id, trace: *trace, signature }.abi_encode())
        }
        Move::Reveal(nodes) => {
            (provider, ICourt::revealCall { id, nodes: nodes.clone() }.abi_encode())
        }
        Move::List(values) => {
            let (values, signature) = (values.clone().into(), Default::default());
            (provider, ICourt::listCall { id, values, signature }.abi_encode())
        }
        Move::Prove(proof) => (provider, words::proof(id, proof).abi_encode()),
        Move::Pick(branch) => {
            (ADA, ICourt::pickCall { id, branch: words::branch(branch) }.abi_encode())
        }
        Move::PickWithin(branch, step) => {
            let (branch, step) = (words::branch(branch), words::open_step(step));
            (ADA, ICourt::pickWithinCall { id, branch, step }.abi_encode())
        }
        Move::Ask { turns, levels, step } => {
            let (turns, levels, step) = (*turns, *levels, words::open_step(step));
            (ADA, ICourt::askCall { id, turns, levels, step }.abi_encode())
        }
        Move::Show(Opening { data, proof }) => {
            let (leaf, proof) = (data.clone().into(), proof.clone());
            (provider, ICourt::showCall { id, leaf, proof }.abi_encode())
        }
        Move::Name(branch, accusation) => {
            let (branch, accusation) = (words::branch(branch), words::accusation(accusation));
            (ADA, ICourt::nameCall { id, branch, accusation }.abi_encode())
        }
        Move::Empty(branch, step) => {
            let (branch, step) = (words::branch(branch), words::open_step(step));
            (ADA, ICourt::emptyCall { id, branch, step }.abi_encode())
        }
        Move::Choose(entry) => (ADA, ICourt::chooseCall { id, entry: *entry }.abi_encode()),
    }
}

/// A provider's server: shows what its trace holds.
pub(crate) struct Server<'a> {
    pub(crate) claim: &'a Claim<'a>,
    pub(crate) trace: &'a dyn Trace,
    /// Whether it shows nodes, and leaves.
    pub(crate) nodes: bool,
    pub(crate) leaves: bool,
    /// Whether what it shows is false.
    pub(crate) lies: bool,
}

impl NodeSource for Server<'_> {
    fn nodes(&self, below: Way, _levels: u32) -> Option<Vec<assay_protocol::B256>> {
        let mut nodes = fan(self.claim, self.trace, below).ok().filter(|_| self.nodes)?;
        if self.lies {
            nodes[0].0[7] ^= 1;
        }
        Some(nodes)
    }

    fn leaf(&self, place: Place) -> Option<Vec<u8>> {
        let mut data = self.trace.open(Source::Trace(place)).filter(|_| self.leaves)?.into_owned();
        if self.lies {
            data[0] ^= 1;
        }
        Some(data)
    }
}

/// How a side is played that is not honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As the players play.
    Best,
    /// Lists that give the committed number, by changing one entry, where that is possible.
    FalseLists,
    /// Silent from the first time that a number has to be proved.
    Silent,
}

/// Plays a dispute to its end: the provider from `committed`, the challenger from `own`.
pub(crate) fn play(
    stage: &Stage,
    subject: Subject<'_>,
    committed: &dyn Trace,
    own: &dyn Trace,
    source: Option<&dyn NodeSource>,
    manner: Manner,
) -> End {
    let defender = Defender::new(subject, committed).with_whole_rows(0);
    play_with(stage, &defender, &Challenger::new(subject, own), source, manner)
}

/// The same, with players that stand ready.
pub(crate) fn play_with(
    stage: &Stage,
    defender: &Defender<'_>,
    challenger: &Challenger<'_>,
    source: Option<&dyn NodeSource>,
    manner: Manner,
) -> End {
    let mut game = Game::open(stage);
    for _ in 0..64 {
        if game.is_over() {
            return game.end;
        }
        let next = match game.standing.phase {
            Phase::Pick | Phase::Choose => {
                match challenger.next(&game.standing, source.unwrap_or(&NoSource)).unwrap() {
                    Next::Move(next) => Some(next),
                    Next::Agrees => None,
                    Next::Wait => panic!("it is the challenger's turn"),
                }
            }
            Phase::Prove if manner == Manner::Silent => None,
            _ => defender.answer(&game.standing).ok().flatten(),
        };
        let next = next.map(|next| falsified(next, manner));
        let Some(next) = next else {
            game.run_out();
            continue;
        };
        let challenging = matches!(game.standing.phase, Phase::Pick | Phase::Choose);
        if let Err(error) = game.make(&next) {
            assert!(!challenging, "refused: {next:?}: {}", hex::encode(error));
            // What the defender cannot say is silence.
            game.run_out();
        }
    }
    panic!("a dispute has an end")
}

/// A list whose last entry is another one.
fn falsified(next: Move, manner: Manner) -> Move {
    match next {
        Move::List(mut list) if manner == Manner::FalseLists && !list.is_empty() => {
            let last = list.len() - 1;
            list[last] ^= 1;
            Move::List(list)
        }
        other => other,
    }
}

/// No server at all.
pub(crate) fn nothing() -> NoSource {
    NoSource
}
