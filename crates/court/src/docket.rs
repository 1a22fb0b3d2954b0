//! Reads where a dispute stands: what the contract keeps, and what its events told.
//!
//! A contract keeps no more than hashes; nodes, focus and lists are in events. State and events are
//! asked for one after the other, and a block may come or go between. So what the events lead to is
//! compared with the state, every hash of it, and read again until both agree: a move that a
//! reorganisation undid costs another look, and nothing is ever played on half of a story.

use std::time::Duration;

use assay_chain::{Chain, ChainError, Dispute, Event, Happened};
use assay_evidence::dispute::{Fan, Standing, Way, point_of};
use assay_protocol::{B256, Phase, Round};

/// Looks until state and events have to agree. From the third on, all events are read again.
const LOOKS_MAX: u32 = 6;
/// Looks that go on from what was read before.
const LOOKS_ON: u32 = 2;
/// Between two of them.
const LOOKS_APART: Duration = Duration::from_millis(100);
/// How many blocks earlier a dispute may turn out to have been opened, after a reorganisation.
const REORGANISED_MAX: u64 = 64;

/// Why a dispute could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CourtError {
    /// The chain does not answer, or refuses.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The chain has no such dispute.
    #[error("there is no dispute {id}")]
    NoDispute {
        /// Its number.
        id: u64,
    },
    /// What a dispute's events lead to is not what the contract says.
    #[error("events and state of dispute {id} did not agree in {LOOKS_MAX} looks")]
    Unsettled {
        /// Its number.
        id: u64,
    },
}

/// A dispute, and what was read of it so far.
#[derive(Clone, Debug)]
pub struct Docket {
    id: u64,
    /// The block that it was opened in, or an earlier one.
    opened: u64,
    /// The first block that was not read.
    next: u64,
    told: Told,
}

/// Where a dispute stood at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// For the game.
    pub standing: Standing,
    /// As the contract has it: clocks, receipt, sides.
    pub dispute: Dispute,
    /// What happened since the look before, oldest first. After a reorganisation everything again.
    pub news: Vec<Happened>,
    /// Time of the chain's latest block, unix seconds: what clocks are measured by.
    pub time: u64,
}

impl Look {
    /// Seconds that the side which owes a move has left by the chain's time; zero once its last second
    /// is over, none if nobody owes a move.
    pub fn seconds_left(&self) -> Option<u64> {
        Some(self.dispute.last_second()?.saturating_sub(self.time))
    }
}

impl Docket {
    /// Dispute `id`, which was opened in block `opened` or later.
    pub fn new(id: u64, opened: u64) -> Self {
        Self { id, opened, next: opened, told: Told::default() }
    }

    /// Dispute `id`, wherever it was opened.
    ///
    /// # Errors
    /// If there is none, or the chain fails.
    pub async fn find(chain: &Chain, id: u64) -> Result<Self, CourtError> {
        if chain.dispute(id).await?.is_none() {
            return Err(CourtError::NoDispute { id });
        }
        let told = chain.events_of(id, 0).await?;
        let opens = |happened: &&Happened| matches!(happened.event, Event::Disputed { .. });
        let opened = told.iter().find(opens).ok_or(CourtError::NoDispute { id })?;
        Ok(Self::new(id, opened.block))
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The block that it was opened in, or an earlier one.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Where it stands now.
    ///
    /// # Errors
    /// If the chain fails, has no such dispute, or keeps contradicting itself.
    pub async fn look(&mut self, chain: &Chain) -> Result<Look, CourtError> {
        let mut news = Vec::new();
        for look in 0..LOOKS_MAX {
            if look > 0 {
                tokio::time::sleep(LOOKS_APART).await;
            }
            if look >= LOOKS_ON {
                self.next = self.opened.saturating_sub(REORGANISED_MAX);
                (self.told, news) = (Told::default(), Vec::new());
            }
            news.extend(self.read(chain).await?);
            let found = chain.dispute(self.id).await?;
            let dispute = found.ok_or(CourtError::NoDispute { id: self.id })?;
            if let Some(standing) = self.told.standing(&dispute) {
                let time = chain.client().time().await?;
                return Ok(Look { standing, dispute, news, time });
            }
        }
        Err(CourtError::Unsettled { id: self.id })
    }

    /// Reads the blocks that came since the last look.
    async fn read(&mut self, chain: &Chain) -> Result<Vec<Happened>, ChainError> {
        let height = chain.height().await?;
        let news = chain.events_of(self.id, self.next).await?;
        news.iter().for_each(|happened| self.told.hear(&happened.event));
        // What was read goes as far as the latest block at that time: this one, or a later one.
        let last = news.last().map_or(height, |happened| happened.block.max(height));
        self.next = self.next.max(last + 1);
        Ok(news)
    }
}

/// What the events of a dispute lead to.
#[derive(Clone, Debug, Default)]
struct Told {
    standing: Standing,
    /// How many lists have their entry.
    chosen: usize,
}

impl Told {
    fn hear(&mut self, event: &Event) {
        let told = &mut self.standing;
        match event {
            Event::Disputed { .. } => {
                *self = Self::default();
                self.standing.phase = Phase::Commit;
            }
            Event::Committed { trace, .. } => {
                (told.phase, told.trace, told.point) = (Phase::Pick, *trace, *trace);
            }
            Event::Picked { depth, path, node, .. } => {
                // A way that is none never agrees with the contract's.
                let Some(way) = Way::new((*depth).into(), *path) else { return };
                (told.phase, told.way, told.point) = (Phase::Reveal, way, *node);
            }
            Event::Revealed { nodes, .. } => {
                told.phase = Phase::Pick;
                told.revealed.push(Fan { below: told.way, nodes: nodes.clone() });
            }
            Event::Asked { depth, path, .. } => {
                // As above.
                let Some(way) = Way::new((*depth).into(), *path) else { return };
                (told.phase, told.asked) = (Phase::Reveal, Some(way));
            }
            Event::Shown { leaf, .. } => {
                told.phase = Phase::Pick;
                let shown = told.asked.take().map(|way| (way, leaf.to_vec()));
                told.shown.extend(shown);
            }
            Event::Named { focus, .. } => {
                (told.phase, told.focus) = (Phase::Prove, Some(**focus));
            }
            Event::Listed { values, .. } => {
                told.phase = Phase::Choose;
                told.rounds.push(Round { list: values.to_vec(), entry: 0 });
            }
            Event::Chosen { entry, .. } => {
                told.phase = Phase::Prove;
                self.chosen = told.rounds.len();
                told.rounds.last_mut().into_iter().for_each(|round| round.entry = *entry);
            }
            Event::Decided { phase, .. } => told.phase = *phase,
            Event::Closed { .. } => {
                let lost = told.phase == Phase::Lost;
                told.phase = if lost { Phase::Forfeited } else { Phase::Returned };
            }
            _ => {}
        }
    }

    /// The standing, if it is the contract's.
    fn standing(&self, dispute: &Dispute) -> Option<Standing> {
        let told = &self.standing;
        let same = told.phase == dispute.phase
            && told.trace == dispute.trace
            && told.way.depth() == u32::from(dispute.depth)
            && told.way.turns() == dispute.path
            && told.rounds.len() == usize::from(dispute.rounds)
            && told.asked.is_some() == dispute.asked
            && told.shown.len() + usize::from(told.asked.is_some()) == usize::from(dispute.asks)
            && self.point() == dispute.point;
        same.then(|| Standing {
            leaf_depth: dispute.leaf_depth,
            reach: dispute.reach.into(),
            point: dispute.point,
            ..told.clone()
        })
    }

    /// What the contract should keep as the point.
    fn point(&self) -> B256 {
        let told = &self.standing;
        told.focus.map_or(told.point, |focus| point_of(&focus, &told.rounds, self.chosen))
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::{Focus, keccak256};

    use super::*;

    const TRACE: B256 = B256::repeat_byte(7);

    fn dispute(phase: Phase, point: B256) -> Dispute {
        Dispute {
            phase,
            opened: 90,
            depth: 0,
            path: 0,
            leaf_depth: None,
            reach: 0,
            rounds: 0,
            moved_at: 100,
            defender_left: 20,
            challenger_left: 30,
            challenger: Default::default(),
            positions: 4,
            steps: 34,
            receipt: B256::ZERO,
            trace: TRACE,
            point,
            here: B256::ZERO,
            asked: false,
            asks: 0,
        }
    }

    fn told(events: &[Event]) -> Told {
        let mut told = Told::default();
        events.iter().for_each(|event| told.hear(event));
        told
    }

    fn beginning() -> Vec<Event> {
        let zero = B256::ZERO;
        let (owner, challenger) = Default::default();
        vec![
            Event::Disputed { dispute: 1, receipt: zero, owner, challenger, order: zero },
            Event::Committed { dispute: 1, trace: TRACE },
        ]
    }

    #[test]
    fn events_that_lead_elsewhere_than_the_state_are_not_believed() {
        let told = told(&beginning());
        let agrees = |dispute: Dispute| told.standing(&dispute).is_some();
        let now = dispute(Phase::Pick, TRACE);
        assert!(agrees(now));
        assert!(!agrees(dispute(Phase::Reveal, TRACE)), "a pick came after the events");
        assert!(!agrees(dispute(Phase::Pick, B256::ZERO)));
        assert!(!agrees(Dispute { trace: B256::ZERO, ..now }), "another commitment");
        assert!(!agrees(Dispute { depth: 4, ..now }));
        assert!(!agrees(Dispute { path: 1, ..now }));
        assert!(!agrees(Dispute { rounds: 1, ..now }));
    }

    #[test]
    fn a_leaf_that_is_asked_for_is_not_where_the_descent_stands() {
        let mut events = beginning();
        let leaf = vec![7; 128];
        let way = Way::new(9, 5).unwrap();
        events.push(Event::Asked { dispute: 1, depth: 9, path: 5 });
        let asking = Dispute { asked: true, asks: 1, ..dispute(Phase::Reveal, TRACE) };
        let standing = told(&events).standing(&asking).unwrap();
        assert_eq!((standing.asked, standing.way), (Some(way), Way::ROOT));
        assert!(told(&events).standing(&dispute(Phase::Reveal, TRACE)).is_none());
        events.push(Event::Shown { dispute: 1, leaf: leaf.clone().into() });
        let shown = Dispute { asks: 1, ..dispute(Phase::Pick, TRACE) };
        let standing = told(&events).standing(&shown).unwrap();
        assert_eq!((standing.asked, standing.shown), (None, vec![(way, leaf)]));
    }

    #[test]
    fn lists_and_choices_are_in_the_point() {
        let focus = Focus { position: 3, ..Focus::default() };
        let mut events = beginning();
        events.push(Event::Named { dispute: 1, focus: Box::new(focus) });
        events.push(Event::Listed { dispute: 1, values: vec![1, 2, 3].into() });
        let named = point_of(&focus, &[], 0);
        let listed = keccak256([named, keccak256([1, 2, 3])].concat());
        let round = |phase, point| Dispute { rounds: 1, ..dispute(phase, point) };

        let open = told(&events);
        let standing = open.standing(&round(Phase::Choose, listed)).unwrap();
        assert_eq!((standing.rounds.len(), standing.focus), (1, Some(focus)));
        events.push(Event::Chosen { dispute: 1, entry: 2 });
        let entry = B256::with_last_byte(2);
        let chosen = keccak256([listed, entry].concat());
        let standing = told(&events).standing(&round(Phase::Prove, chosen)).unwrap();
        assert_eq!(standing.rounds[0].entry, 2);

        // A list that nobody chose from, because a clock ran out.
        let mut silent = open;
        silent.hear(&Event::Decided { dispute: 1, receipt: B256::ZERO, phase: Phase::Lost });
        assert!(silent.standing(&round(Phase::Lost, listed)).is_some());
        silent.hear(&Event::Closed {
            dispute: 1,
            to: Default::default(),
            bond: Default::default(),
        });
        assert!(silent.standing(&round(Phase::Forfeited, listed)).is_some());
    }

    #[test]
    fn the_last_second_counts() {
        let look = |time| Look {
            standing: Standing::default(),
            dispute: dispute(Phase::Commit, TRACE),
            news: Vec::new(),
            time,
        };
        assert_eq!(look(100).seconds_left(), Some(20));
        assert_eq!(look(120).seconds_left(), Some(0));
        assert_eq!(look(121).seconds_left(), Some(0));
        let over = Look { dispute: dispute(Phase::Won, TRACE), ..look(100) };
        assert_eq!(over.seconds_left(), None);
    }
}
