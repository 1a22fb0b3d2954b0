//! The contracts' own checks, with the tools that npm brings.

use std::process::Command;

use anyhow::Result;

use crate::sdk::node_packages;
use crate::{root, step};

/// Layout, build, sizes, artifacts, tests and gas. What it installs, the workspace's tests use too:
/// they run the suite on anvil.
pub(crate) fn run() -> Result<()> {
    let folder = root().join("contracts");
    node_packages(&folder)?;
    step("contracts", Command::new("npm").current_dir(&folder).args(["test", "--silent"]))
}
