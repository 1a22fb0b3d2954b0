//! A market in which every answer, draw, verdict and slash happens, one by one, from a seed.
//!
//! It knows none of the formulas under test: stakes are cut as the contracts cut them, auditors are drawn from
//! a pool without repetition and say what their habit has them say, and profit is counted from what was paid.

use assay_economy::{Bps, Duty, Fees, Habit, Penalty, Sale};
use assay_protocol::Amount;

/// Random numbers of a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`. Its bias is below end / 2^64.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn happens(&mut self, chance: Bps) -> bool {
        self.next() % 10_000 < chance.get()
    }
}

/// How a provider answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Honest,
    /// Answers falsely with this chance. With a friend, that one opens a dispute about each false receipt
    /// first, and hands back what it is paid.
    Cheats {
        often: Bps,
        friend: bool,
    },
}

/// What an auditor does with what it draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auditor {
    Alone(Habit),
    /// Belongs to the cheaters: knows which receipts are theirs, passes them, and looks at the others.
    Turned,
}

/// What an auditor says of what it drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    True,
    /// And does nothing about it.
    False,
    /// And opens a dispute.
    Disputed,
}

/// Everything that does not change from epoch to epoch.
#[derive(Clone, Debug)]
pub(crate) struct Market {
    /// Each provider's at the beginning of each epoch; what was lost is put back, and counts as lost.
    pub(crate) stake: Amount,
    pub(crate) sale: Sale,
    pub(crate) penalty: Penalty,
    /// Answers of each provider in an epoch. Verdicts come at its end.
    pub(crate) answers: u32,
    pub(crate) rate: Bps,
    pub(crate) auditors: usize,
    pub(crate) sealed: bool,
    pub(crate) buyer: Bps,
    /// Whether verdicts come before the till releases the money.
    pub(crate) refunds: bool,
    pub(crate) duty: Duty,
}

/// What somebody did and has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Book {
    /// Base units, since the beginning.
    pub(crate) profit: i128,
    /// Answers given, or audits drawn.
    pub(crate) acts: u64,
    /// Answers that were false, or canaries drawn.
    pub(crate) lies: u64,
    /// Of them convicted, or found.
    pub(crate) found: u64,
}

/// What all did in some epochs.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    pub(crate) providers: Vec<Book>,
    pub(crate) auditors: Vec<Book>,
}

impl Sum {
    /// Nothing yet, of so many.
    pub(crate) fn new(providers: usize, auditors: usize) -> Self {
        let books = |count| vec![Book::default(); count];
        Self { providers: books(providers), auditors: books(auditors) }
    }
}

impl Market {
    /// Goes on by one epoch, and adds what it brings to `sum`.
    pub(crate) fn epoch(
        &self,
        providers: &[Conduct],
        pool: &[Auditor],
        sum: &mut Sum,
        dice: &mut Dice,
    ) {
        for (conduct, book) in providers.iter().zip(&mut sum.providers) {
            self.serve(*conduct, pool, book, &mut sum.auditors, dice);
        }
    }

    /// Many epochs.
    pub(crate) fn epochs(
        &self,
        count: u32,
        providers: &[Conduct],
        pool: &[Auditor],
        seed: u64,
    ) -> Sum {
        let (mut dice, mut sum) = (Dice::new(seed), Sum::new(providers.len(), pool.len()));
        for _ in 0..count {
            self.epoch(providers, pool, &mut sum, &mut dice);
        }
        sum
    }

    /// What an honest provider earns with one answer.
    pub(crate) fn honest_profit(&self) -> i128 {
        signed(self.income()) - signed(self.sale.cost)
    }

    fn income(&self) -> Amount {
        let Fees { network, governance } = self.sale.fees;
        let fee = |share: Bps| self.sale.price.0 * u128::from(share.get()) / 10_000;
        Amount(self.sale.price.0 - fee(network) - fee(governance))
    }

    fn serve(
        &self,
        conduct: Conduct,
        pool: &[Auditor],
        book: &mut Book,
        books: &mut [Book],
        dice: &mut Dice,
    ) {
        let mut stake = self.stake.0;
        for _ in 0..self.answers {
            let (lies, friend) = match conduct {
                Conduct::Honest => (false, false),
                Conduct::Cheats { often, friend } => (dice.happens(often), friend),
            };
            book.acts += 1;
            book.profit += signed(self.income());
            book.profit -= signed(if lies { self.sale.false_cost } else { self.sale.cost });

            let accusers = self.accusers(lies, pool, books, dice);
            if !lies {
                // Each accuser of a true receipt loses its bond to the provider.
                book.profit += accusers.len() as i128 * signed(self.duty.alarm);
                continue;
            }
            book.lies += 1;
            let by_buyer = dice.happens(self.buyer);
            if accusers.is_empty() && !by_buyer {
                continue;
            }
            book.found += 1;
            let slash = stake * u128::from(self.penalty.slash.get()) / 10_000;
            let reward = slash * u128::from(self.penalty.reward.get()) / 10_000;
            stake -= slash;
            book.profit -= slash as i128;
            if self.refunds {
                book.profit -= signed(self.income());
            }
            match accusers.first() {
                _ if friend => book.profit += reward as i128,
                Some(first) if !by_buyer => books[*first].profit += reward as i128,
                _ => {}
            }
        }
    }

    /// Draws auditors for a receipt, or not; before it come the canaries that chance puts among the draws.
    /// Returns who calls it false.
    fn accusers(
        &self,
        lies: bool,
        pool: &[Auditor],
        books: &mut [Book],
        dice: &mut Dice,
    ) -> Vec<usize> {
        if !dice.happens(self.rate) {
            return Vec::new();
        }
        while dice.happens(self.duty.canaries) {
            let drawn = self.draw(pool, dice);
            let said = self.verdicts(true, false, pool, &drawn);
            for (auditor, said) in drawn.into_iter().zip(said) {
                let book = &mut books[auditor];
                self.pay_for_looking(pool[auditor], book);
                book.lies += 1;
                match said {
                    Said::False => book.profit += signed(self.duty.fee),
                    Said::Disputed => {
                        book.found += 1;
                        book.profit += signed(self.duty.fee) + signed(self.duty.prize);
                    }
                    Said::True => book.profit -= signed(self.duty.forfeit),
                    Said::Nothing => {}
                }
            }
        }
        let drawn = self.draw(pool, dice);
        let said = self.verdicts(lies, lies, pool, &drawn);
        let convicted = lies && said.contains(&Said::Disputed);
        let mut accusers = Vec::new();
        for (auditor, said) in drawn.into_iter().zip(said) {
            let book = &mut books[auditor];
            self.pay_for_looking(pool[auditor], book);
            let right = if convicted { said != Said::True } else { said == Said::True };
            if right && said != Said::Nothing {
                book.profit += signed(self.duty.fee);
            }
            if said == Said::Disputed && !lies {
                book.profit -= signed(self.duty.alarm);
            }
            if said == Said::Disputed {
                accusers.push(auditor);
            }
        }
        accusers
    }

    fn draw(&self, pool: &[Auditor], dice: &mut Dice) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(self.auditors);
        while drawn.len() < self.auditors.min(pool.len()) {
            let one = dice.below(pool.len());
            if !drawn.contains(&one) {
                drawn.push(one);
            }
        }
        drawn
    }

    /// What the drawn say of a receipt that is false or not, and a cheater's or not.
    fn verdicts(&self, lies: bool, cheaters: bool, pool: &[Auditor], drawn: &[usize]) -> Vec<Said> {
        let seen = |lies| if lies { Said::Disputed } else { Said::True };
        let mut said: Vec<Said> = Vec::with_capacity(drawn.len());
        for auditor in drawn {
            let copied = if self.sealed { None } else { said.first().copied() };
            said.push(copied.unwrap_or(match pool[*auditor] {
                Auditor::Alone(Habit::Looks) => seen(lies),
                Auditor::Alone(Habit::Trusts) => Said::True,
                Auditor::Alone(Habit::Accuses) => Said::Disputed,
                Auditor::Alone(Habit::Doubts) => Said::False,
                Auditor::Alone(Habit::Abstains) => Said::Nothing,
                Auditor::Turned => seen(lies && !cheaters),
            }));
        }
        said
    }

    fn pay_for_looking(&self, auditor: Auditor, book: &mut Book) {
        book.acts += 1;
        if matches!(auditor, Auditor::Alone(Habit::Looks) | Auditor::Turned) {
            book.profit -= signed(self.duty.cost);
        }
    }
}

impl Book {
    /// Profit of each false answer beyond what honest answers would have earned.
    pub(crate) fn gain_of_a_lie(&self, honest_profit: i128) -> i128 {
        (self.profit - honest_profit * i128::from(self.acts)) / i128::from(self.lies.max(1))
    }
}

/// Amounts in the tests are far below 2^127.
pub(crate) fn signed(amount: Amount) -> i128 {
    amount.0 as i128
}
