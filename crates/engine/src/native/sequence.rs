//! One job on its way: what is known of its answer, and what is remembered to compute the rest.

use assay_models::{Cache, Page, Row};
use assay_protocol::B256;

use super::Admitted;
use super::batch::Progress;
use super::guess::Guesser;
use super::place::Place;
use super::pool::{Pool, Table};
use super::queue::Flow;
use crate::draw::{Drawing, Drawn};
use crate::job::{Delta, DeltasSender, Job};

/// A job that waits or runs.
pub(super) struct Sequence {
    pub(super) job: Job,
    pub(super) deltas: DeltasSender,
    /// Prompt and output so far.
    pub(super) tokens: Vec<u32>,
    drawing: Drawing,
    guesser: Guesser,
    /// Its place among those that wait to be started, until it is.
    place: Option<Place>,
    /// Where it stands among those that run, if it has run: who started later goes first when room is
    /// short.
    pub(super) started: Option<u64>,
}

/// A sequence that runs.
pub(super) struct Running {
    pub(super) sequence: Sequence,
    pub(super) cache: Cache,
    pub(super) table: Table,
}

/// What one batch computes of a sequence: rows of known tokens, then guesses.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) rows: usize,
    pub(super) guess: Vec<u32>,
}

/// What came of the rows of a sequence whose next token was due.
pub(super) struct Advance {
    /// Whether the job goes on.
    pub(super) goes_on: bool,
    /// Tokens drawn.
    pub(super) drawn: usize,
}

impl Sequence {
    pub(super) fn new(Admitted { job, deltas, place }: Admitted) -> Self {
        Self {
            tokens: job.prompt.to_vec(),
            drawing: Drawing::new(&job),
            guesser: Guesser::default(),
            place: Some(place),
            started: None,
            job,
            deltas,
        }
    }

    pub(super) fn flow(&self) -> Flow {
        Flow::of(&self.job)
    }

    /// Marks it as started; `number` counts starts. False if it had been started before.
    pub(super) fn start(&mut self, number: u64, cached: usize) -> bool {
        self.place = None;
        if self.started.is_some() {
            return false;
        }
        self.started = Some(number);
        self.deltas.start(u32::try_from(cached).unwrap_or(u32::MAX));
        true
    }

    fn output(&self) -> &[u32] {
        &self.tokens[self.job.prompt.len()..]
    }

    /// Guesses what comes next, at most so many tokens and none that could not be delivered.
    pub(super) fn guess(&mut self, guesses_max: usize) -> Vec<u32> {
        let left = (self.job.ending.tokens_max as usize).saturating_sub(self.output().len() + 1);
        self.guesser.guess(&self.tokens, guesses_max.min(left))
    }

    /// Draws the next tokens and hands them over: one, and another for each guess that was right.
    /// `results` gives logits and hidden state of the newest token and of the guesses.
    pub(super) fn advance<'a>(
        &mut self,
        guess: &[u32],
        mut results: impl Iterator<Item = (&'a mut [i32], B256)>,
    ) -> Advance {
        let mut drawn = 0;
        let mut goes_on = true;
        while let (true, Some((logits, hidden))) = (goes_on, results.next()) {
            goes_on = self.draw(logits, hidden);
            let guessed = guess.get(drawn);
            drawn += 1;
            if guessed != self.tokens.last() {
                break;
            }
        }
        self.guesser.learn(guess.len(), drawn - 1);
        Advance { goes_on, drawn }
    }

    /// Draws the next token and hands it over. False once the job is over.
    fn draw(&mut self, logits: &mut [i32], hidden: B256) -> bool {
        let Drawn { token, logprobs } = match self.drawing.next(logits) {
            Ok(drawn) => drawn,
            Err(error) => {
                // The stream closes without an end, and its provider says so.
                tracing::warn!(%error, "an answer cannot go on");
                return false;
            }
        };
        self.tokens.push(token);
        if !self.deltas.send(Delta::Token { token, hidden, logprobs }) {
            return false;
        }
        match self.job.ending.at(self.output()) {
            None => true,
            Some(finish) => {
                // If the reader has left there is nobody to tell.
                let _ = self.deltas.send(Delta::Done(finish));
                false
            }
        }
    }
}

impl Running {
    pub(super) fn progress(&self, served: u64) -> Progress {
        Progress { known: self.sequence.tokens.len(), fed: self.cache.len(), served }
    }

    /// The rows of its share, as sequence `index` of the batch. What follows its newest token is
    /// wanted, and what follows each guess.
    pub(super) fn rows(&self, index: usize, share: &Share) -> impl Iterator<Item = Row> {
        let fed = self.cache.len();
        let newest = self.sequence.tokens.len() - 1;
        let known = (fed..fed + share.rows).map(move |position| (position, position == newest));
        let known = known.map(|(position, newest)| (self.sequence.tokens[position], newest));
        let guess = share.guess.iter().map(|&token| (token, true));
        known.chain(guess).map(move |(token, wanted)| Row { token, sequence: index, wanted })
    }

    /// Whether a batch with these rows computed what follows its newest token.
    pub(super) fn is_due(&self, share: &Share) -> bool {
        share.rows > 0 && self.cache.len() == self.sequence.tokens.len() + share.guess.len()
    }

    /// Forgets guesses that were wrong, and keeps the pages that are full.
    pub(super) fn settle(&mut self, pool: &mut Pool<Page>) {
        // The newest token was not computed yet, and what lies behind it was guessed.
        self.cache.truncate(self.sequence.tokens.len() - 1);
        pool.trim(&mut self.table, self.sequence.tokens.len());
        for index in self.table.kept()..self.cache.len() / Page::POSITIONS {
            let tokens = &self.sequence.tokens[index * Page::POSITIONS..][..Page::POSITIONS];
            if let Some(same) = pool.keep(&mut self.table, tokens, self.cache.page(index)) {
                self.cache.put_page(index, &same);
            }
        }
    }
}
