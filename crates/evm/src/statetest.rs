//! Runs state tests: one transaction on a given state, whose outcome clients agree on.
//!
//! The form is that of `GeneralStateTests` of ethereum/tests and of execution-spec-tests. Each case
//! runs on this chain's own machine, overlay and trie, so what passes here holds for blocks too.

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use alloy_evm::{Evm as _, EvmEnv};
use alloy_primitives::{B256, Bytes, Log, U256, keccak256};
use revm::DatabaseCommit;
use revm::context::result::ExecutionResult;
use revm::context::{BlockEnv, CfgEnv};
use revm::primitives::hardfork::SpecId;

use crate::execute::Executor;
use crate::overlay::Overlay;
use crate::spec::Spec;
use crate::state::State;
use crate::view::{Hashes, View};

use fixture::{Case, Fork, Unit};

/// What came of the cases in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Cases whose state, logs, output and refusal are as expected.
    pub passed: usize,
    /// Those that differ.
    pub failed: Vec<Failure>,
    /// How many were not run, by reason.
    pub skipped: BTreeMap<String, usize>,
}

/// A case that does not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The test's name in the file.
    pub test: String,
    /// The rules it ran under, as the file calls them.
    pub fork: String,
    /// Which of the transaction's data, gas limits and values it took.
    pub indexes: [usize; 3],
    /// What differs.
    pub difference: Difference,
}

/// How a case differs from what its file expects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Another state root.
    #[error("state root {found}, expected {expected}")]
    State {
        /// Ours.
        found: B256,
        /// The file's.
        expected: B256,
    },
    /// Other logs.
    #[error("hash of logs {found}, expected {expected}")]
    Logs {
        /// Ours.
        found: B256,
        /// The file's.
        expected: B256,
    },
    /// Other output.
    #[error("output {found}, expected {expected}")]
    Output {
        /// Ours.
        found: Bytes,
        /// The file's.
        expected: Bytes,
    },
    /// The transaction was refused, or was not although it should have been.
    #[error("refused: {}, expected: {}", found.as_deref().unwrap_or("no"), expected.as_deref().unwrap_or("no"))]
    Refusal {
        /// Why we refuse it.
        found: Option<String>,
        /// Why the file says it must be refused.
        expected: Option<String>,
    },
}

/// Why a file of state tests cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file of state tests: {0}")]
pub struct FixtureError(String);

/// Why the cases in the file at `path` are not run, if they are not: the same that revm's own runner
/// leaves out. `slow` asks for those that merely take minutes.
pub fn left_out(path: &Path, slow: bool) -> Option<&'static str> {
    // revm, unlike EIP-7610, looks at nonce and code alone where a contract is created.
    const STORAGE: &str = "a contract is created over storage, which is no state a chain can reach";
    let within = |name: &str| path.components().any(|part| part.as_os_str() == name);
    if within("eip7610_create_collision") {
        return Some(STORAGE);
    }
    match path.file_name()?.to_str()? {
        "RevertInCreateInInit.json"
        | "RevertInCreateInInit_Paris.json"
        | "RevertInCreateInInitCreate2.json"
        | "RevertInCreateInInitCreate2Paris.json"
        | "dynamicAccountOverwriteEmpty.json"
        | "dynamicAccountOverwriteEmpty_Paris.json"
        | "create2collisionStorage.json"
        | "create2collisionStorageParis.json"
        | "InitCollision.json"
        | "InitCollisionParis.json"
        | "test_init_collision_create_opcode.json" => Some(STORAGE),
        "Call50000_sha256.json"
        | "static_Call50000_sha256.json"
        | "loopMul.json"
        | "CALLBlake2f_MaxRounds.json"
            if !slow =>
        {
            Some("it takes minutes; --slow runs it")
        }
        _ => None,
    }
}

/// Runs every case of every test in a file, under each fork it names.
///
/// # Errors
/// [`FixtureError`] if the file is not in the form of state tests.
pub fn run_state_tests(json: &[u8]) -> Result<Report, FixtureError> {
    let tests: BTreeMap<String, Unit> =
        serde_json::from_slice(json).map_err(|error| FixtureError(error.to_string()))?;
    let mut report = Report::default();
    let executor = Executor::new(Spec::latest(1));
    for (test, unit) in &tests {
        let start = Start::of(unit);
        for (fork, cases) in &unit.post {
            let spec = match Fork::named(fork) {
                Fork::Rules(spec) => spec,
                Fork::LeftOut(reason) => {
                    *report.skipped.entry(reason).or_default() += cases.len();
                    continue;
                }
            };
            for case in cases {
                match start.run(&executor, unit, spec, case) {
                    Ok(()) => report.passed += 1,
                    Err(difference) => report.failed.push(Failure {
                        test: test.clone(),
                        fork: fork.clone(),
                        indexes: case.indexes.list(),
                        difference,
                    }),
                }
            }
        }
    }
    Ok(report)
}

/// What all cases of a test start from.
struct Start {
    state: State,
    hashes: Hashes,
}

impl Start {
    fn of(unit: &Unit) -> Self {
        // By convention a block's hash is that of its number, written out.
        let number = u64::try_from(unit.env.current_number).unwrap_or(u64::MAX);
        let newest = number.saturating_sub(1);
        let oldest = newest.saturating_sub(255);
        let hashes = (oldest..=newest).rev().map(|number| keccak256(number.to_string()));
        Self { state: State::default().apply(&unit.changes()), hashes: Hashes::new(newest, hashes) }
    }

    fn run(
        &self,
        executor: &Executor,
        unit: &Unit,
        spec: SpecId,
        case: &Case,
    ) -> Result<(), Difference> {
        let expected = case.expect_exception.clone();
        let overlay = Overlay::new(View::new(self.state.clone(), self.hashes.clone()));
        let mut evm = executor.evm(overlay, env(unit, spec));
        let outcome = unit.transaction(&case.indexes).and_then(|transaction| {
            evm.transact_raw(transaction).map_err(|error| error.to_string())
        });
        let outcome = match (outcome, &expected) {
            (Ok(outcome), None) => outcome,
            (Err(_), Some(_)) => return Ok(()),
            (Ok(_), Some(_)) => return Err(Difference::Refusal { found: None, expected }),
            (Err(found), None) => {
                return Err(Difference::Refusal { found: Some(found), expected });
            }
        };
        compare_output(unit.out.as_ref(), &outcome.result)?;
        let found = hash_of_logs(outcome.result.logs());
        if found != case.logs {
            return Err(Difference::Logs { found, expected: case.logs });
        }
        evm.db_mut().commit(outcome.state);
        let found = self.state.apply(&evm.into_db().changes()).root();
        if found != case.hash {
            return Err(Difference::State { found, expected: case.hash });
        }
        Ok(())
    }
}

fn compare_output(expected: Option<&Bytes>, result: &ExecutionResult) -> Result<(), Difference> {
    let (Some(expected), Some(found)) = (expected, result.output()) else { return Ok(()) };
    if found == expected {
        return Ok(());
    }
    Err(Difference::Output { found: found.clone(), expected: expected.clone() })
}

fn hash_of_logs(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list(logs, &mut bytes);
    keccak256(bytes)
}

/// The block that a test's transaction stands in, under the rules of `spec`.
fn env(unit: &Unit, spec: SpecId) -> EvmEnv {
    let mut cfg_env = CfgEnv::new_with_spec(spec);
    let chain_id = unit.env.current_chain_id.unwrap_or(U256::ONE);
    cfg_env.chain_id = u64::try_from(chain_id).unwrap_or(1);
    cfg_env.set_max_blobs_per_tx(match spec {
        SpecId::PRAGUE => 9,
        _ => 6,
    });
    let env = &unit.env;
    let short = |value: U256| u64::try_from(value).unwrap_or(u64::MAX);
    let mut block_env = BlockEnv {
        number: env.current_number,
        beneficiary: env.current_coinbase,
        timestamp: env.current_timestamp,
        gas_limit: short(env.current_gas_limit),
        // The file may name a base fee for forks that have none.
        basefee: if spec.is_enabled_in(SpecId::LONDON) {
            short(env.current_base_fee.unwrap_or_default())
        } else {
            0
        },
        difficulty: env.current_difficulty,
        prevrandao: env.current_random,
        slot_num: short(env.slot_number.unwrap_or_default()),
        ..BlockEnv::default()
    };
    if let Some(excess) = env.current_excess_blob_gas {
        let fraction = cfg_env.blob_base_fee_update_fraction();
        block_env.set_blob_excess_gas_and_price(short(excess), fraction);
    }
    if spec.is_enabled_in(SpecId::MERGE) {
        block_env.prevrandao.get_or_insert_default();
    }
    EvmEnv { cfg_env, block_env }
}
