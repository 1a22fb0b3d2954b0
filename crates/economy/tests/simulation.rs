//! The thresholds of `docs/protocol/incentives.md` are where profit changes its sign, in a market that
//! does not know them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod market;

use assay_economy::{
    AtRisk, Audits, Bps, Chance, Chooser, Duty, Fees, Habit, Motive, Penalty, Sale, Spree,
    expected_loss, least_rate, least_stake,
};
use assay_protocol::Amount;
use market::{Auditor, Book, Conduct, Dice, Market, Sum, signed};

const SEED: u64 = 5;
/// A thousandth of an ASY, what an answer costs here.
const MILLI: u128 = 1_000_000_000_000_000;

fn bps(value: u64) -> Bps {
    Bps::new(value).unwrap()
}

/// A model served at a quarter of the cost.
fn sale() -> Sale {
    Sale {
        price: Amount(MILLI),
        fees: Fees::SHIPPED,
        cost: Amount(800 * MILLI / 1_000),
        false_cost: Amount(200 * MILLI / 1_000),
    }
}

fn duty() -> Duty {
    Duty {
        cost: Amount(112 * MILLI / 1_000),
        canaries: Bps::NONE,
        fee: Amount(0),
        prize: Amount(0),
        forfeit: Amount(0),
        alarm: Amount(1_000 * MILLI),
    }
}

fn market(stake: Amount) -> Market {
    Market {
        stake,
        sale: sale(),
        penalty: Penalty::SHIPPED,
        answers: 1,
        rate: bps(2_000),
        auditors: 2,
        sealed: true,
        buyer: Bps::NONE,
        refunds: true,
        duty: duty(),
    }
}

/// What the formulas know of a market and its pool.
fn audits(market: &Market, pool: &[Auditor]) -> Audits {
    let turned = pool.iter().filter(|one| **one != Auditor::Alone(Habit::Looks)).count();
    Audits {
        rate: market.rate,
        detection: Bps::WHOLE,
        auditors: market.auditors as u32,
        turned: bps((turned * 10_000 / pool.len()) as u64),
        sealed: market.sealed,
        buyer: market.buyer,
    }
}

/// `honest` that look, `lazy`, and `turned`.
fn pool(honest: usize, lazy: usize, turned: usize) -> Vec<Auditor> {
    let mut pool = vec![Auditor::Alone(Habit::Looks); honest];
    pool.extend(vec![Auditor::Alone(Habit::Trusts); lazy]);
    pool.extend(vec![Auditor::Turned; turned]);
    pool
}

fn share(amount: Amount, percent: u128) -> Amount {
    Amount(amount.0 * percent / 100)
}

/// Whether `found` is within `percent` of `scale` from `expected`.
#[track_caller]
fn assert_near(found: i128, expected: i128, scale: Amount, percent: i128) {
    let off = (found - expected).abs();
    let most = signed(scale) * percent / 100;
    assert!(off <= most, "{found} is not within {percent} % of {} from {expected}", scale.0);
}

const CHEAT: Conduct = Conduct::Cheats { often: Bps::WHOLE, friend: true };

/// What one false answer gains beyond an honest one in the market, and by the formulas.
fn simulated(market: &Market, pool: &[Auditor], conduct: Conduct, seed: u64) -> (Book, i128) {
    let book = market.epochs(200_000, &[conduct], pool, seed).providers[0];
    (book, book.gain_of_a_lie(market.honest_profit()))
}

fn at_risk(market: &Market) -> AtRisk {
    let refund = if market.refunds { market.sale.income() } else { Amount(0) };
    AtRisk { stake: market.stake, refund, penalty: market.penalty }
}

#[test]
fn a_false_answer_pays_below_the_least_stake_and_not_above() {
    let pool = pool(80, 10, 10);
    for refunds in [false, true] {
        let mut market = Market { refunds, ..market(Amount(0)) };
        let conviction = audits(&market, &pool).conviction();
        let gain = market.sale.gain(Motive::Saving);
        let least = least_stake(gain, at_risk(&market).refund, conviction, market.penalty).unwrap();
        for (turn, percent) in [50, 90, 110, 200].into_iter().enumerate() {
            market.stake = share(least, percent);
            let often = bps([10_000, 5_000][turn % 2]);
            let conduct = Conduct::Cheats { often, friend: true };
            let (_, found) = simulated(&market, &pool, conduct, SEED + turn as u64);
            assert_eq!(found > 0, percent < 100, "{percent} % of the least stake: {found}");
            let loss = expected_loss(conviction, &at_risk(&market));
            assert_near(found, signed(gain) - signed(loss), loss, 3);
        }
    }
}

#[test]
fn a_raider_loses_money_only_above_its_own_least_stake() {
    let pool = pool(80, 10, 10);
    let mut market = market(Amount(0));
    let conviction = audits(&market, &pool).conviction();
    let refund = at_risk(&market).refund;
    let least =
        |motive| least_stake(market.sale.gain(motive), refund, conviction, Penalty::SHIPPED);
    let (saving, raiding) = (least(Motive::Saving).unwrap(), least(Motive::Raiding).unwrap());
    for (stake, profits) in [
        (share(raiding, 90), true),
        (Amount(u128::midpoint(saving.0, raiding.0)), true),
        (share(raiding, 110), false),
    ] {
        market.stake = stake;
        let (book, over_honesty) = simulated(&market, &pool, CHEAT, SEED);
        assert_eq!(book.profit > 0, profits, "{}", book.profit);
        // Where it is between the two, honesty would earn more, and yet it earns.
        assert_eq!(over_honesty > 0, stake < saving, "{over_honesty}");
    }
}

#[test]
fn a_false_answer_pays_below_the_least_rate_and_not_above() {
    let pool = pool(80, 0, 20);
    let mut market = market(Amount(20 * MILLI));
    let gain = market.sale.gain(Motive::Saving);
    let least = least_rate(gain, &at_risk(&market), &audits(&market, &pool)).unwrap();
    assert!((1_000..2_000).contains(&least.get()), "{least:?}");
    for percent in [70, 90, 110, 150] {
        market.rate = bps(least.get() * percent / 100);
        let (_, found) = simulated(&market, &pool, CHEAT, SEED + percent);
        assert_eq!(found > 0, percent < 100, "{percent} % of the least rate: {found}");
    }
}

#[test]
fn a_friend_brings_the_reward_home() {
    let pool = pool(100, 0, 0);
    let mut market = Market { refunds: false, ..market(Amount(0)) };
    let conviction = audits(&market, &pool).conviction();
    let gain = market.sale.gain(Motive::Saving);
    let least = |penalty| least_stake(gain, Amount(0), conviction, penalty).unwrap();
    let real = least(Penalty::SHIPPED);
    // Who counts the whole slash as lost asks for a tenth less.
    let naive = least(Penalty { reward: Bps::NONE, ..Penalty::SHIPPED });
    assert_near(signed(naive), signed(share(real, 90)), real, 1);

    market.stake = Amount(u128::midpoint(naive.0, real.0));
    let alone = Conduct::Cheats { often: Bps::WHOLE, friend: false };
    assert!(simulated(&market, &pool, alone, SEED).1 < 0);
    assert!(simulated(&market, &pool, CHEAT, SEED).1 > 0);
    market.stake = share(real, 105);
    assert!(simulated(&market, &pool, CHEAT, SEED).1 < 0);
}

#[test]
fn many_false_answers_pay_although_one_does_not() {
    let pool = pool(80, 10, 10);
    let market = Market { rate: bps(200), refunds: false, ..market(Amount(MILLI * 500)) };
    let conviction = audits(&market, &pool).conviction();
    let gain = market.sale.gain(Motive::Saving);
    let spree = Spree { gain, conviction, risk: at_risk(&market) };
    let pays = spree.answers_that_pay().unwrap();
    assert!((600..750).contains(&pays), "{pays}");
    for (answers, profits) in
        [(1, false), (pays / 4, false), (pays * 9 / 10, false), (pays * 11 / 10, true)]
    {
        let market = Market { answers: answers as u32, ..market.clone() };
        let epochs = (300_000 / answers) as u32;
        let book = market.epochs(epochs, &[CHEAT], &pool, SEED).providers[0];
        let found =
            (book.profit - market.honest_profit() * i128::from(book.acts)) / i128::from(epochs);
        assert_eq!(found > 0, profits, "{answers} answers: {found}");
        let expected = signed(spree.gained(answers)) - signed(spree.loss(answers));
        assert_near(found, expected, spree.loss(answers), 4);
    }
    // The stake that the formula asks for so many answers holds.
    let answers = pays * 2;
    let stake = spree.least_stake(answers).unwrap();
    for (percent, profits) in [(90, true), (110, false)] {
        let market =
            Market { answers: answers as u32, stake: share(stake, percent), ..market.clone() };
        let book = market.epochs(200, &[CHEAT], &pool, SEED).providers[0];
        assert_eq!(book.gain_of_a_lie(market.honest_profit()) > 0, profits, "{percent} %");
    }
}

#[test]
fn two_sealed_auditors_convict_more_than_two_that_hear_each_other() {
    let pool = pool(50, 20, 30);
    for (sealed, auditors) in [(true, 2), (false, 2), (true, 1), (true, 3)] {
        let market = Market { sealed, auditors, ..market(Amount(MILLI)) };
        let book = market.epochs(200_000, &[CHEAT], &pool, SEED).providers[0];
        let expected = audits(&market, &pool).conviction().bps_down();
        let found = book.found * 10_000 / book.lies;
        // Drawn without repetition they are a little better than the formula says.
        assert!((expected - 30..expected + 60).contains(&found), "{found} for {expected}");
    }
}

#[test]
fn a_private_order_is_only_as_safe_as_its_buyer() {
    let pool = pool(100, 0, 0);
    for (buyer, profits) in [(0, true), (500, true), (2_500, false)] {
        let market = Market { rate: Bps::NONE, buyer: bps(buyer), ..market(Amount(10 * MILLI)) };
        let deterred = expected_loss(audits(&market, &pool).conviction(), &at_risk(&market))
            > market.sale.gain(Motive::Saving);
        assert_eq!(deterred, !profits);
        assert_eq!(simulated(&market, &pool, CHEAT, SEED).1 > 0, profits, "{buyer} bps");
    }
}

const HABITS: [Habit; 5] =
    [Habit::Looks, Habit::Trusts, Habit::Accuses, Habit::Doubts, Habit::Abstains];

/// Average profit of an audit, by habit.
fn audit_profits(duty: Duty, seed: u64) -> [i128; 5] {
    let pool = HABITS.map(Auditor::Alone);
    let market = Market { rate: Bps::WHOLE, auditors: 1, duty, ..market(Amount(MILLI)) };
    let books = market.epochs(600_000, &[Conduct::Honest], &pool, seed).auditors;
    [0, 1, 2, 3, 4].map(|one| books[one].profit / i128::from(books[one].acts))
}

/// What a habit brings by the formulas.
fn expected(duty: &Duty, habit: Habit) -> i128 {
    let (won, lost) = duty.outcome(habit);
    signed(won) - signed(lost)
}

#[test]
fn looking_pays_above_the_least_canaries_and_not_below() {
    let rich = Duty {
        fee: Amount(MILLI),
        prize: Amount(11 * MILLI),
        forfeit: Amount(10 * MILLI),
        ..duty()
    };
    let least = rich.least_canaries().unwrap();
    assert_eq!(least, bps(51)); // 0.112 / 22
    for percent in [75, 150] {
        let duty = Duty { canaries: bps(least.get() * percent / 100), ..rich };
        let found = audit_profits(duty, SEED);
        assert_eq!(found[0] > found[1], percent > 100, "{percent} %: {found:?}");
        assert_eq!(duty.looking_pays(), percent > 100);
        for (found, habit) in found.into_iter().zip(HABITS) {
            let expected = expected(&duty, habit);
            let scale = Amount(expected.unsigned_abs().max(duty.cost.0));
            assert_near(found, expected, scale, 9);
        }
    }
}

#[test]
fn looking_pays_above_the_least_forfeit_and_not_below() {
    let duty = Duty { canaries: bps(100), fee: Amount(MILLI), ..duty() };
    let forfeit = duty.least_forfeit().unwrap();
    for percent in [60, 140] {
        let duty = Duty { forfeit: share(forfeit, percent), ..duty };
        let found = audit_profits(duty, SEED);
        assert_eq!(found[0] > found[1], percent > 100, "{percent} %: {found:?}");
    }
}

#[test]
fn looking_pays_above_the_least_fee_and_not_below() {
    let duty = Duty { canaries: bps(100), forfeit: Amount(1_000 * MILLI), ..duty() };
    let fee = duty.least_fee().unwrap();
    for percent in [80, 120] {
        let duty = Duty { fee: share(fee, percent), ..duty };
        let found = audit_profits(duty, SEED);
        assert_eq!(found[0] > found[3], percent > 100, "{percent} %: {found:?}");
        assert_eq!(found[0] > found[4], percent > 100, "{percent} %: {found:?}");
        assert_eq!(duty.looking_pays(), percent > 100);
    }
}

#[test]
fn accusing_unseen_pays_where_a_dispute_is_cheap() {
    let duty = Duty { canaries: bps(100), prize: Amount(20 * MILLI), ..duty() };
    let alarm = duty.least_alarm().unwrap();
    for percent in [50, 150] {
        let duty = Duty { alarm: share(alarm, percent), ..duty };
        let found = audit_profits(duty, SEED);
        assert_eq!(found[0] > found[2], percent > 100, "{percent} %: {found:?}");
    }
}

/// What a cheater gains in an epoch that lies `answers` times, and keeps one of its secrets where the draw
/// without it is cheaper than the fine.
fn chosen(market: &Market, pool: &[Auditor], addresses: u64, answers: u64, fine: Amount) -> i128 {
    let market = Market { answers: answers as u32, ..market.clone() };
    let mut dice = Dice::new(SEED);
    let epochs = 120;
    let mut profit = 0;
    for _ in 0..epochs {
        let mut best = i128::MIN;
        for kept in 0..=addresses {
            let mut sum = Sum::new(1, pool.len());
            market.epoch(&[CHEAT], pool, &mut sum, &mut dice);
            let over_honesty =
                sum.providers[0].profit - market.honest_profit() * i128::from(answers);
            best = best.max(over_honesty - if kept == 0 { 0 } else { signed(fine) });
        }
        profit += best;
    }
    profit / epochs
}

#[test]
fn choosing_a_draw_pays_only_where_the_fine_is_small() {
    let pool = pool(10, 0, 0);
    let market = Market { refunds: false, ..market(Amount(0)) };
    let (gain, conviction) =
        (market.sale.gain(Motive::Saving), audits(&market, &pool).conviction());
    let least = least_stake(gain, Amount(0), conviction, market.penalty).unwrap();
    // Twice, and a thousand times what deters who cannot choose.
    for (addresses, stake) in [(1, Amount(least.0 * 2)), (30, Amount(least.0 * 1_000))] {
        let market = Market { stake, ..market.clone() };
        let chooser = Chooser { addresses, conviction };
        let fine = chooser.least_bond(gain, Bps::WHOLE).unwrap();
        let best = |fine| {
            let most = chooser.hidden().unwrap() * 3 / 2;
            let each = |answers| chosen(&market, &pool, addresses, answers, fine);
            (1..=most).map(each).max().unwrap()
        };
        let (above, below) = (best(share(fine, 150)), best(share(fine, 15)));
        assert!(above < 0 && below > 0, "{addresses} addresses: {above}, {below}");
    }
}

/// Who is left when everybody imitates who does better: honest providers and looking auditors, percent of all,
/// over the last fifty rounds.
fn settled(canaries: u64) -> (usize, usize) {
    let duty = Duty {
        canaries: bps(canaries),
        prize: Amount(12 * MILLI),
        forfeit: Amount(10 * MILLI),
        ..duty()
    };
    let market = Market { answers: 40, rate: bps(2_000), duty, ..market(Amount(20 * MILLI)) };
    let mut dice = Dice::new(SEED);
    let cheats = Conduct::Cheats { often: bps(2_500), friend: true };
    let mut providers: Vec<_> =
        (0..40).map(|i| if i % 2 == 0 { Conduct::Honest } else { cheats }).collect();
    let mut pool = pool(10, 10, 0);
    let (mut honest, mut looking) = (0, 0);
    for round in 0..150 {
        // Several epochs between two looks at the others, for one says little.
        let mut sum = Sum::new(providers.len(), pool.len());
        for _ in 0..6 {
            market.epoch(&providers, &pool, &mut sum, &mut dice);
        }
        for _ in 0..4 {
            imitate(&mut providers, |i| sum.providers[i].profit, &mut dice);
        }
        for _ in 0..2 {
            let each = |i: usize| sum.auditors[i].profit / i128::from(sum.auditors[i].acts.max(1));
            imitate(&mut pool, each, &mut dice);
        }
        // Now and then somebody tries the other way.
        let (i, j) = (dice.below(40), dice.below(20));
        providers[i] = [Conduct::Honest, cheats][dice.below(2)];
        pool[j] = Auditor::Alone([Habit::Looks, Habit::Trusts][dice.below(2)]);
        if round >= 100 {
            honest += providers.iter().filter(|one| **one == Conduct::Honest).count();
            looking += pool.iter().filter(|one| **one == Auditor::Alone(Habit::Looks)).count();
        }
    }
    (honest * 100 / (50 * providers.len()), looking * 100 / (50 * pool.len()))
}

/// One takes over what another does, if that one has more.
fn imitate<T: Copy>(all: &mut [T], profit: impl Fn(usize) -> i128, dice: &mut Dice) {
    let (one, other) = (dice.below(all.len()), dice.below(all.len()));
    if profit(other) > profit(one) {
        all[one] = all[other];
    }
}

#[test]
fn without_canaries_looking_dies_out_and_honesty_follows() {
    let (honest, looking) = settled(0);
    assert!(honest < 40 && looking < 40, "{honest} % honest, {looking} % looking");
    let (honest, looking) = settled(500);
    assert!(honest > 60 && looking > 60, "{honest} % honest, {looking} % looking");
}

#[test]
fn the_same_seed_gives_the_same_market() {
    let run = |seed| {
        let market = market(Amount(MILLI));
        market.epochs(1_000, &[CHEAT], &pool(8, 1, 1), seed).providers[0].profit
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn nobody_is_convicted_where_nobody_looks() {
    let market = market(Amount(MILLI));
    let blind = pool(0, 10, 0);
    assert_eq!(audits(&market, &blind).conviction(), Chance::NEVER);
    assert_eq!(market.epochs(1_000, &[CHEAT], &blind, SEED).providers[0].found, 0);
}
