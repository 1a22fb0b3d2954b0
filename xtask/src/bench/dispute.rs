//! What judging one number of an answer costs on the chain.

use anyhow::Result;

use super::settle::{figures, gas_of, measure};
use super::{Row, keep_measured, load};

const COMMAND: &str = "cargo xtask bench dispute";

pub(crate) fn run() -> Result<()> {
    let busy = load();
    measure()?;
    let rules = figures("Rules")?;
    let judged = |what: &str| gas_of(&rules, &format!("matrix element, K = 4096, {what}"));
    let rows = vec![
        Row::new("dispute.judge.exec_gas.k4096", &judged("execution")?, "gas"),
        Row::new("dispute.judge.tx_gas.k4096", &judged("charged")?, "gas"),
    ];
    keep_measured(rows, &busy, COMMAND)
}
