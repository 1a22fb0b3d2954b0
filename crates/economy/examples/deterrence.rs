//! Prints the tables of `docs/protocol/incentives.md`: `cargo run -p assay-economy --example deterrence [seed]`.
#![allow(clippy::print_stdout, reason = "it prints tables")]
#![allow(dead_code, reason = "the market is the tests', which use more of it")]

#[path = "../tests/market/mod.rs"]
mod market;

use assay_economy::{
    AtRisk, Audits, Bps, Canary, Chance, Chooser, Duty, Fees, Habit, Motive, NotAShare, Penalty,
    Sale, Spree, Times, Undeterred, expected_loss, least_rate, least_stake,
};
use assay_protocol::Amount;
use market::{Auditor, Conduct, Market, signed};

/// Base units in one ASY.
const ASY: u128 = 1_000_000_000_000_000_000;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Three answers, by what their buyers pay, in millionths of an ASY.
const ANSWERS: [(&str, u128); 3] = [
    ("small model, 1,500 tokens", 300),
    ("large model, 3,000", 5_000),
    ("large model, 100,000", 500_000),
];
/// The least stakes of the three tiers, ASY.
const TIERS: [u128; 3] = [1_000, 10_000, 100_000];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let seed = std::env::args().nth(1).map_or(Ok(5), |seed| seed.parse())?;
    convictions();
    auditors()?;
    one_answer()?;
    rates()?;
    sprees()?;
    looking()?;
    choosing()?;
    windows()?;
    simulated(seed)?;
    Ok(())
}

/// Honest computing costs four fifths of the price, and a model at a quarter of the cost one fifth.
fn sale(price: Amount) -> Sale {
    let part = |fifths: u128| Amount(price.0 / 5 * fifths);
    Sale { price, fees: Fees::SHIPPED, cost: part(4), false_cost: part(1) }
}

/// Two sealed auditors, a fifth of whose weight is lazy or bought.
fn audits(rate: Bps) -> Result<Audits, NotAShare> {
    Ok(Audits {
        rate,
        detection: Bps::WHOLE,
        auditors: 2,
        turned: Bps::new(2_000)?,
        sealed: true,
        buyer: Bps::NONE,
    })
}

fn at_risk(stake: u128, refund: Amount) -> AtRisk {
    AtRisk { stake: Amount(stake), refund, penalty: Penalty::SHIPPED }
}

fn convictions() {
    title(
        "Of 1,000 ASY, after so many convictions in one window",
        "convictions | burned | paid to challengers | left",
    );
    let stake = 1_000 * ASY;
    let spree =
        Spree { gain: Amount(0), conviction: Chance::ALWAYS, risk: at_risk(stake, Amount(0)) };
    for convictions in [1, 2, 3, 5, 10, 21] {
        let mut left = stake;
        for _ in 0..convictions {
            left -= Penalty::SHIPPED.slashed(Amount(left)).0;
        }
        let burned = spree.burned(convictions).0;
        let paid = stake - left - burned;
        row(&[convictions.to_string(), asy(burned, 1), asy(paid, 1), asy(left, 1)]);
    }
}

fn auditors() -> Result<(), Failure> {
    title(
        "Chance that a drawn false receipt is convicted",
        "turned | one | two, open | two, sealed | three, sealed",
    );
    for turned in [0, 1_000, 2_000, 3_300, 5_000] {
        let chance = |auditors, sealed| -> Result<String, NotAShare> {
            let turned = Bps::new(turned)?;
            let audits = Audits { auditors, sealed, turned, ..audits(Bps::WHOLE)? };
            Ok(percent(audits.conviction().bps_down()))
        };
        let cells = [chance(1, true)?, chance(2, false)?, chance(2, true)?, chance(3, true)?];
        row(&[&[percent(turned)][..], &cells[..]].concat());
    }
    Ok(())
}

fn one_answer() -> Result<(), Failure> {
    title(
        "Least stake, ASY, with which one false answer does not pay; nothing is refunded in time",
        "answer | price | motive | 0.5 % | 1 % | 2 % | 5 %",
    );
    for (name, price) in ANSWERS {
        let sale = sale(Amount(price * ASY / 1_000_000));
        for (motive, word) in [(Motive::Saving, "saving"), (Motive::Raiding, "raiding")] {
            let mut cells = vec![name.into(), asy(sale.price.0, 4), word.into()];
            for rate in [50, 100, 200, 500] {
                let conviction = audits(Bps::new(rate)?)?.conviction();
                let stake =
                    least_stake(sale.gain(motive), Amount(0), conviction, Penalty::SHIPPED)?;
                cells.push(asy(stake.0, 2));
            }
            row(&cells);
        }
    }
    Ok(())
}

fn rates() -> Result<(), Failure> {
    title(
        "Least rate with which one false answer does not pay a raider",
        "answer | 1,000 ASY | 10,000 | 100,000",
    );
    for (name, price) in ANSWERS {
        let gain = sale(Amount(price * ASY / 1_000_000)).gain(Motive::Raiding);
        let mut cells = vec![name.into()];
        for stake in TIERS {
            let found = least_rate(gain, &at_risk(stake * ASY, Amount(0)), &audits(Bps::NONE)?);
            cells.push(found.map_or_else(|_| "none".into(), |rate| percent(rate.get())));
        }
        row(&cells);
    }
    Ok(())
}

fn sprees() -> Result<(), Failure> {
    title(
        "False answers from which a spree pays a raider, at 2 %; and what they are sold for, ASY",
        "answer | 1,000 ASY | 10,000 | 100,000",
    );
    for (name, price) in ANSWERS {
        let sale = sale(Amount(price * ASY / 1_000_000));
        let mut cells = vec![name.into()];
        for stake in TIERS {
            let spree = Spree {
                gain: sale.gain(Motive::Raiding),
                conviction: audits(Bps::new(200)?)?.conviction(),
                risk: at_risk(stake * ASY, Amount(0)),
            };
            let pays = spree.answers_that_pay();
            cells.push(pays.map_or_else(
                || "never".into(),
                |answers| {
                    format!(
                        "{} ({})",
                        whole(answers.into()),
                        asy(sale.price.0 * u128::from(answers), 0)
                    )
                },
            ));
        }
        row(&cells);
    }
    title(
        "Stake, ASY, against a raid at 2 % of all that a provider can sell before it is jailed",
        "sold | small answers | large | long",
    );
    for sold in [100_u128, 1_000, 10_000] {
        let mut cells = vec![whole(sold)];
        for (_, price) in ANSWERS {
            let sale = sale(Amount(price * ASY / 1_000_000));
            let spree = Spree {
                gain: sale.gain(Motive::Raiding),
                conviction: audits(Bps::new(200)?)?.conviction(),
                risk: at_risk(0, Amount(0)),
            };
            let answers = sold * 1_000_000 / price;
            let found: Result<_, Undeterred> = spree.least_stake(answers as u64);
            cells.push(found.map_or_else(|_| "none".into(), |stake| asy(stake.0, 0)));
        }
        row(&cells);
    }
    Ok(())
}

fn looking() -> Result<(), Failure> {
    // Replay takes 0.14 of generation, which is four fifths of the price.
    let cost = Amount(5_000 * ASY / 1_000_000 / 5 * 4 / 100 * 14);
    let none = Amount(0);
    title(
        "What makes an auditor look at answers of 0.005 ASY, whose replay costs 0.00056; no prize",
        "canaries | least fee | least forfeit without a fee | with a fee of 0.001 | least bond of a dispute, no fee",
    );
    for canaries in [1, 10, 50, 100, 500] {
        let canaries = Bps::new(canaries)?;
        let duty = Duty { cost, canaries, fee: none, prize: none, forfeit: none, alarm: none };
        let paid = Duty { fee: Amount(ASY / 1_000), ..duty };
        let amounts =
            [duty.least_fee()?, duty.least_forfeit()?, paid.least_forfeit()?, duty.least_alarm()?];
        row(&[&[percent(canaries.get())][..], &amounts.map(|found| asy(found.0, 6))[..]].concat());
    }
    title(
        "Share of lazy auditors from which planting canaries pays, a quarter of the bond for each that is caught, 2 % drawn, prize 1 ASY",
        "cost of planting | bond 10 ASY | 100 | 1,000",
    );
    for cost in [1_000, 10_000, 500_000] {
        let mut cells = vec![asy(cost * ASY / 1_000_000, 3)];
        for bond in [10, 100, 1_000] {
            let canary = Canary {
                cost: Amount(cost * ASY / 1_000_000),
                rate: Bps::new(200)?,
                prize: Amount(ASY),
                share: Amount(bond * ASY / 4),
            };
            let lazy = canary.least_laziness();
            cells.push(lazy.map_or_else(|| "never".into(), |lazy| percent(lazy.get())));
        }
        row(&cells);
    }
    Ok(())
}

fn choosing() -> Result<(), Failure> {
    title(
        "Least bond of an auditor, ASY, of which a tenth is lost by not revealing, so that a raider who reveals last hides nothing; 2 % drawn, none but its own turned",
        "its addresses | answers hidden for one fine | small answers | large | long",
    );
    for addresses in [1, 10, 100] {
        let conviction = Audits { turned: Bps::NONE, ..audits(Bps::new(200)?)? }.conviction();
        let chooser = Chooser { addresses, conviction };
        let hidden = chooser.hidden().map_or_else(|| "all".into(), |answers| answers.to_string());
        let mut cells = vec![addresses.to_string(), hidden];
        for (_, price) in ANSWERS {
            let gain = sale(Amount(price * ASY / 1_000_000)).gain(Motive::Raiding);
            let bond = chooser.least_bond(gain, Bps::new(1_000)?);
            cells.push(bond.map_or_else(|| "none".into(), |bond| asy(bond.0, 2)));
        }
        row(&cells);
    }
    Ok(())
}

fn windows() -> Result<(), Failure> {
    title(
        "What a verdict still reaches, hours, by the clock of each side",
        "clock | posted after the answer | marked after the answer | opened after posting, for a refund",
    );
    for clock in [HOUR, 6 * HOUR, 11 * HOUR, 3 * DAY, 7 * DAY] {
        let times =
            Times { dispute_window: DAY, clock, unbonding_delay: 14 * DAY, cover_window: 7 * DAY };
        let hours = |found: Result<u64, _>| {
            found.map_or_else(|_| "never".into(), |seconds| format!("{}", seconds.div_ceil(HOUR)))
        };
        let cells =
            [times.latest_posting(), times.latest_mark(), times.latest_opening_for_refund()];
        row(&[&[format!("{}", clock / HOUR)][..], &cells.map(hours)[..]].concat());
    }
    Ok(())
}

fn simulated(seed: u64) -> Result<(), Failure> {
    let mut pool = vec![Auditor::Alone(Habit::Looks); 80];
    pool.extend(vec![Auditor::Alone(Habit::Trusts); 10]);
    pool.extend(vec![Auditor::Turned; 10]);
    let cheat = |friend| Conduct::Cheats { often: Bps::WHOLE, friend };
    let duty = Duty {
        cost: Amount(0),
        canaries: Bps::NONE,
        fee: Amount(0),
        prize: Amount(0),
        forfeit: Amount(0),
        alarm: Amount(0),
    };
    let market = Market {
        stake: Amount(0),
        sale: sale(Amount(5_000 * ASY / 1_000_000)),
        penalty: Penalty::SHIPPED,
        answers: 1,
        rate: Bps::new(200)?,
        auditors: 2,
        sealed: true,
        buyer: Bps::NONE,
        refunds: false,
        duty,
    };
    let conviction = audits(market.rate)?.conviction();
    let gain = market.sale.gain(Motive::Saving);
    let least = least_stake(gain, Amount(0), conviction, market.penalty)?;
    title(
        &format!(
            "Simulated, seed {seed}: what a false answer of 0.005 ASY gains over a true one, millionths of an ASY; 2,000,000 answers each, 80 auditors look, 10 are lazy, 10 bought"
        ),
        "of the least stake | expected | with a friend | a stranger has the reward",
    );
    for share in [50, 90, 95, 105, 110, 200] {
        let stake = Amount(least.0 * share / 100);
        let market = Market { stake, ..market.clone() };
        let risk = at_risk(stake.0, Amount(0));
        let expected = signed(gain) - signed(expected_loss(conviction, &risk));
        let found = |friend| {
            let book = market.epochs(2_000_000, &[cheat(friend)], &pool, seed).providers[0];
            millionths(book.gain_of_a_lie(market.honest_profit()))
        };
        row(&[format!("{share} %"), millionths(expected), found(true), found(false)]);
    }
    title(
        &format!(
            "Simulated, seed {seed}: what an audit brings, millionths of an ASY; 2,000,000 draws, 0.5 % canaries, fee 0.001, dispute bond 1"
        ),
        "of the least forfeit | looks | says true unseen | disputes unseen | says false unseen | says nothing",
    );
    let (cost, fee, canaries) = (Amount(560 * ASY / 1_000_000), Amount(ASY / 1_000), Bps::new(50)?);
    let duty = Duty { cost, fee, canaries, alarm: Amount(ASY), ..duty };
    let least = duty.least_forfeit()?;
    for share in [50, 80, 120, 200] {
        let forfeit = Amount(least.0 * share / 100);
        let duty = Duty { forfeit, ..duty };
        let market = Market { rate: Bps::WHOLE, auditors: 1, duty, ..market.clone() };
        let pool = [Habit::Looks, Habit::Trusts, Habit::Accuses, Habit::Doubts, Habit::Abstains];
        let pool = pool.map(Auditor::Alone);
        let books = market.epochs(2_000_000, &[Conduct::Honest], &pool, seed).auditors;
        let each = books.iter().map(|book| millionths(book.profit / i128::from(book.acts)));
        row(&std::iter::once(format!("{share} %")).chain(each).collect::<Vec<_>>());
    }
    Ok(())
}

fn title(text: &str, columns: &str) {
    let count = columns.split('|').count();
    println!("\n{text}\n\n| {columns} |\n|{}", "---|".repeat(count));
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// ASY with so many decimals, cut off.
fn asy(units: u128, decimals: u32) -> String {
    let scale = 10_u128.pow(decimals);
    let scaled = units / (ASY / scale);
    let text = whole(scaled / scale);
    if decimals == 0 {
        text
    } else {
        format!("{text}.{:0width$}", scaled % scale, width = decimals as usize)
    }
}

/// With commas between thousands.
fn whole(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place != 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(bps: u64) -> String {
    format!("{}.{:02} %", bps / 100, bps % 100)
}

fn millionths(units: i128) -> String {
    (units / (ASY as i128 / 1_000_000)).to_string()
}
