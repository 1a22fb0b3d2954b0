//! What settling costs on the chain, per answer, beside a transfer for each answer.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Row, keep_measured, load};
use crate::sdk::node_packages;
use crate::{root, step};

const COMMAND: &str = "cargo xtask bench settle";

pub(crate) fn run() -> Result<()> {
    let busy = load();
    measure()?;
    let settled = figures("Settlement")?;
    let each = |answers: u32, alone: &str| {
        gas_of(&settled, &format!("{answers} answers a channel, gas each{alone}"))
    };
    let transfer = gas_of(&figures("AssayToken")?, "transferWithAuthorization (v, r, s)")?;
    let mut rows = vec![
        Row::new("settle.gas_per_answer", &each(1000, "")?, "gas")
            .beside("x402 exact, a transfer for each answer", &transfer),
        Row::new("settle.claim_gas_per_answer", &each(1000, ", claim alone")?, "gas"),
    ];
    for answers in [10, 100] {
        let name = format!("settle.gas_per_answer.{answers}_a_channel");
        rows.push(Row::new(&name, &each(answers, "")?, "gas"));
    }
    keep_measured(rows, &busy, COMMAND)
}

/// Measures all gas; fails if what is committed is not what is measured.
pub(super) fn measure() -> Result<()> {
    let contracts = root().join("contracts");
    node_packages(&contracts)?;
    let mut gas = Command::new("npm");
    step("gas", gas.current_dir(&contracts).args(["run", "--silent", "gas", "--", "--check"]))
}

/// What the tests of a contract measured.
pub(super) fn figures(contract: &str) -> Result<Value> {
    let path = root().join(format!("contracts/snapshots/{contract}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// A figure, which forge writes as text.
pub(super) fn gas_of(figures: &Value, name: &str) -> Result<Value> {
    let text = figures[name].as_str().with_context(|| format!("{name:?} is not measured"))?;
    Ok(json!(text.parse::<u64>()?))
}
