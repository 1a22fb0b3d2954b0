//! The contracts of disputes as a chain runs them: the committed bytecode in an EVM.

use std::sync::LazyLock;

use alloy_sol_types::{SolCall, SolValue};
use assay_protocol::{Address, B256, Key, Serve, U256, hex, keccak256};
use revm::context::result::{ExecutionResult, Output};
use revm::context::{Context, TxEnv};
use revm::database::InMemoryDB;
use revm::primitives::TxKind;
use revm::{ExecuteCommitEvm, MainBuilder, MainContext};

use crate::words::{IJudge, ISuite};
use crate::world::CHAIN;

/// Time at which everything begins, unix seconds.
pub(crate) const NOW: u64 = 1_800_000_000;
/// What each side has for all its moves, seconds.
pub(crate) const CLOCK: u64 = 3600;
/// One ASY.
const ASY: u128 = 1_000_000_000_000_000_000;
/// Who deploys, and governs.
const DEPLOYER: Address = Address::repeat_byte(0xde);
/// Whose stake answers for the provider.
pub(crate) const OWNER: Address = Address::repeat_byte(0x0e);
/// Who disputes.
pub(crate) const ADA: Address = Address::repeat_byte(0xad);
/// More than any call takes, and no more than a transaction may.
const GAS: u64 = 16_000_000;

/// A provider's key for receipts, and a buyer's for orders.
pub(crate) static OPERATOR: LazyLock<Key> = LazyLock::new(|| Key::from_bytes([5; 32]).unwrap());
pub(crate) static BUYER: LazyLock<Key> = LazyLock::new(|| Key::from_bytes([6; 32]).unwrap());

/// A log of a call.
pub(crate) type Log = revm::primitives::Log;

/// What a call came to.
pub(crate) struct Outcome {
    /// What was returned, or what it reverted with.
    pub(crate) result: Result<Vec<u8>, Vec<u8>>,
    pub(crate) logs: Vec<Log>,
    pub(crate) gas: u64,
}

/// A chain with all contracts that disputes need, and a registered, staked provider.
#[derive(Clone)]
pub(crate) struct Court {
    database: InMemoryDB,
    pub(crate) now: u64,
    pub(crate) disputes: Address,
    pub(crate) receipts: Address,
    clerk: Address,
    specs: Address,
    judges: [Address; 3],
}

static COURT: LazyLock<Court> = LazyLock::new(Court::build);

/// What a contract was built to.
fn artifact(name: &str) -> serde_json::Value {
    let texts = [
        ("AssayToken", include_str!("../../../../contracts/artifacts/AssayToken.json")),
        ("Parameters", include_str!("../../../../contracts/artifacts/Parameters.json")),
        ("Providers", include_str!("../../../../contracts/artifacts/Providers.json")),
        ("Channels", include_str!("../../../../contracts/artifacts/Channels.json")),
        ("Receipts", include_str!("../../../../contracts/artifacts/Receipts.json")),
        ("Tills", include_str!("../../../../contracts/artifacts/Tills.json")),
        ("Specs", include_str!("../../../../contracts/artifacts/Specs.json")),
        ("Clerk", include_str!("../../../../contracts/artifacts/Clerk.json")),
        ("VectorJudge", include_str!("../../../../contracts/artifacts/VectorJudge.json")),
        ("AttentionJudge", include_str!("../../../../contracts/artifacts/AttentionJudge.json")),
        ("SamplingJudge", include_str!("../../../../contracts/artifacts/SamplingJudge.json")),
        ("Disputes", include_str!("../../../../contracts/artifacts/Disputes.json")),
    ];
    let (_, text) = texts.into_iter().find(|(known, _)| *known == name).unwrap();
    serde_json::from_str(text).unwrap()
}

impl Court {
    /// A fresh one.
    pub(crate) fn new() -> Court {
        COURT.clone()
    }

    fn build() -> Court {
        let mut court = Court {
            database: InMemoryDB::default(),
            now: NOW,
            disputes: Address::ZERO,
            receipts: Address::ZERO,
            clerk: Address::ZERO,
            specs: Address::ZERO,
            judges: [Address::ZERO; 3],
        };
        let token = court.deploy("AssayToken", &[]);
        let people = (DEPLOYER, DEPLOYER, DEPLOYER, Vec::<U256>::new());
        let parameters = court.deploy("Parameters", &people.abi_encode_params());
        let seats: Vec<(B256, Address, U256, String)> =
            vec![(B256::repeat_byte(1), DEPLOYER, U256::from(1), "127.0.0.1:7000".to_owned())];
        let registry = (token, parameters, seats).abi_encode_params();
        let providers = court.deploy("Providers", &registry);
        let channels = court.deploy("Channels", &[]);
        court.receipts = court.deploy("Receipts", &[]);
        let tills = (channels, court.receipts, parameters).abi_encode_params();
        let tills = court.deploy("Tills", &tills);
        court.specs = court.deploy("Specs", &[]);
        let clerk = (parameters, providers, court.receipts, court.specs).abi_encode_params();
        court.clerk = court.deploy("Clerk", &clerk);
        court.judges = ["VectorJudge", "AttentionJudge", "SamplingJudge"]
            .map(|judge| court.deploy(judge, &[]));
        let bar = [
            ("token", token),
            ("parameters", parameters),
            ("providers", providers),
            ("channels", channels),
            ("tills", tills),
            ("clerk", court.clerk),
            ("vectors", court.judges[0]),
            ("attention", court.judges[1]),
            ("sampling", court.judges[2]),
        ];
        court.disputes = court.deploy("Disputes", &court.bar(&bar));
        let disputes = court.disputes;
        court.must(DEPLOYER, parameters, &ISuite::setArbiterCall { present: disputes });
        for (who, spender) in [(OWNER, providers), (ADA, disputes)] {
            let amount = U256::from(1_000_000 * ASY);
            court.must(DEPLOYER, token, &ISuite::transferCall { to: who, amount });
            court.must(who, token, &ISuite::approveCall { spender, amount });
        }
        let serve = Serve { registry: providers, owner: OWNER };
        let signature = serve.sign(CHAIN, &OPERATOR).0.to_vec().into();
        let endpoint = "https://owner.example".to_owned();
        let operator = OPERATOR.address();
        court.must(OWNER, providers, &ISuite::registerCall { operator, endpoint, signature });
        court.must(OWNER, providers, &ISuite::stakeCall { amount: 200_000 * ASY });
        court
    }

    /// Arguments of the arbiter's constructor: the contracts by the names that it gives them, those
    /// that no game needs left empty; then bond and clock.
    fn bar(&self, known: &[(&str, Address)]) -> Vec<u8> {
        let artifact = artifact("Disputes");
        let entries = artifact["abi"].as_array().unwrap();
        let constructor = entries.iter().find(|entry| entry["type"] == "constructor").unwrap();
        let fields = constructor["inputs"][0]["components"].as_array().unwrap();
        let address = |field: &serde_json::Value| {
            let name = field["name"].as_str().unwrap();
            known.iter().find(|(known, _)| *known == name).map_or(Address::ZERO, |(_, at)| *at)
        };
        let mut words: Vec<B256> = fields.iter().map(|field| address(field).into_word()).collect();
        words.push(U256::from(10 * ASY).into());
        words.push(U256::from(CLOCK).into());
        words.concat()
    }

    fn deploy(&mut self, name: &str, arguments: &[u8]) -> Address {
        let code = hex::decode(artifact(name)["bytecode"].as_str().unwrap()).unwrap();
        let data = [&code, arguments].concat();
        match self.transact(DEPLOYER, TxKind::Create, data, true) {
            ExecutionResult::Success { output: Output::Create(_, Some(at)), .. } => at,
            other => panic!("{name} is not deployed: {other:?}"),
        }
    }

    fn transact(
        &mut self,
        from: Address,
        kind: TxKind,
        data: Vec<u8>,
        keep: bool,
    ) -> ExecutionResult {
        let database = std::mem::take(&mut self.database);
        let now = U256::from(self.now);
        let context = Context::mainnet().with_db(database);
        let context = context.modify_cfg_chained(|cfg| {
            cfg.disable_nonce_check = true;
            cfg.limit_contract_code_size = Some(usize::MAX);
        });
        let context = context.modify_block_chained(|block| block.timestamp = now);
        let mut evm = context.build_mainnet();
        let transaction = TxEnv::builder()
            .caller(from)
            .kind(kind)
            .data(data.into())
            .gas_limit(GAS)
            .build()
            .unwrap();
        use revm::ExecuteEvm;
        let result = if keep {
            evm.transact_commit(transaction).unwrap()
        } else {
            evm.transact(transaction).unwrap().result
        };
        self.database = evm.ctx.journaled_state.database;
        result
    }

    fn outcome(&mut self, from: Address, to: Address, data: Vec<u8>, keep: bool) -> Outcome {
        match self.transact(from, TxKind::Call(to), data, keep) {
            ExecutionResult::Success { output, logs, gas, .. } => {
                Outcome { result: Ok(output.into_data().to_vec()), logs, gas: gas.tx_gas_used() }
            }
            ExecutionResult::Revert { output, gas, .. } => {
                Outcome { result: Err(output.to_vec()), logs: Vec::new(), gas: gas.tx_gas_used() }
            }
            ExecutionResult::Halt { reason, .. } => panic!("halted: {reason:?}"),
        }
    }

    /// Calls a contract.
    pub(crate) fn call(&mut self, from: Address, to: Address, call: &impl SolCall) -> Outcome {
        self.outcome(from, to, call.abi_encode(), true)
    }

    /// Calls a contract, which has to take it.
    pub(crate) fn must<C: SolCall>(&mut self, from: Address, to: Address, call: &C) -> Outcome {
        let outcome = self.call(from, to, call);
        if let Err(error) = &outcome.result {
            panic!("{}: {}", C::SIGNATURE, hex::encode(error));
        }
        outcome
    }

    /// Calls a contract with bytes that were encoded elsewhere.
    pub(crate) fn raw(&mut self, from: Address, to: Address, data: Vec<u8>) -> Outcome {
        self.outcome(from, to, data, true)
    }

    /// Asks a contract, which changes nothing.
    pub(crate) fn ask(&mut self, to: Address, data: Vec<u8>) -> Outcome {
        self.outcome(ADA, to, data, false)
    }

    /// Files a model, as `Specs.file(manifest)` takes it.
    pub(crate) fn file(&mut self, manifest: &assay_protocol::Manifest) {
        let specs = artifact("Specs");
        let selector = selector_of(&specs, "file").unwrap();
        let data = [&selector[..], &manifest.encode()].concat();
        let outcome = self.outcome(ADA, self.specs, data, true);
        let said = outcome.result.unwrap_or_else(|e| panic!("not filed: {}", hex::encode(e)));
        assert_eq!(said, manifest.id().0.as_slice(), "the model's id");
    }

    /// The facts of a filing, ABI encoded.
    pub(crate) fn facts(&mut self, filing: &crate::words::Filing) -> Vec<u8> {
        let call = ISuite::factsOfCall { filing: filing.clone() };
        let said = self.ask(self.clerk, call.abi_encode()).result;
        said.unwrap_or_else(|error| panic!("no facts: {}", hex::encode(error)))
    }

    /// Asks the judge of a kind of step.
    pub(crate) fn judge(&mut self, call: &IJudge::judgeCall) -> (Result<bool, Vec<u8>>, u64) {
        let kind = u32::from_be_bytes(call.focus.step.head[..4].try_into().unwrap());
        let judge = match kind {
            12..=15 => 1,
            32 | 33 => 2,
            _ => 0,
        };
        let outcome = self.ask(self.judges[judge], call.abi_encode());
        let right = outcome.result.map(|said| said[31] == 1);
        (right, outcome.gas)
    }
}

/// The selector of a function by the file that a contract was built to.
fn selector_of(artifact: &serde_json::Value, name: &str) -> Option<[u8; 4]> {
    let abi = artifact["abi"].as_array()?;
    let function = abi.iter().find(|entry| entry["name"] == name && entry["type"] == "function")?;
    let types: Vec<String> =
        function["inputs"].as_array()?.iter().map(type_of).collect::<Option<_>>()?;
    let hash = keccak256(format!("{name}({})", types.join(",")));
    Some([hash[0], hash[1], hash[2], hash[3]])
}

fn type_of(input: &serde_json::Value) -> Option<String> {
    let name = input["type"].as_str()?;
    let Some(array) = name.strip_prefix("tuple") else { return Some(name.to_owned()) };
    let fields: Vec<String> =
        input["components"].as_array()?.iter().map(type_of).collect::<Option<_>>()?;
    Some(format!("({}){array}", fields.join(",")))
}
