//! The judge as a chain runs it: the committed bytecode in an EVM.

use assay_protocol::{Address, hex};
use revm::bytecode::Bytecode;
use revm::context::result::ExecutionResult;
use revm::context::{Context, TxEnv};
use revm::database::InMemoryDB;
use revm::primitives::TxKind;
use revm::state::AccountInfo;
use revm::{ExecuteEvm, MainBuilder, MainContext, MainnetEvm, handler::MainnetContext};

/// Where the contract lies.
const RULES: Address = Address::repeat_byte(0x11);
/// More than any rule takes.
const GAS: u64 = 10_000_000;

/// A chain with the contract on it.
pub(crate) struct Chain {
    evm: MainnetEvm<MainnetContext<InMemoryDB>>,
}

impl Chain {
    pub(crate) fn new() -> Chain {
        let text = include_str!("../../../../contracts/artifacts/Rules.json");
        let artifact: serde_json::Value = serde_json::from_str(text).unwrap();
        let code = hex::decode(artifact["deployedBytecode"].as_str().unwrap()).unwrap();
        let mut database = InMemoryDB::default();
        let code = Bytecode::new_raw(code.into());
        database.insert_account_info(RULES, AccountInfo::default().with_code(code));
        let context = Context::mainnet().with_db(database);
        let context = context.modify_cfg_chained(|cfg| cfg.disable_nonce_check = true);
        Chain { evm: context.build_mainnet() }
    }

    /// Calls the contract: what it returned, or what it reverted with; and the gas.
    pub(crate) fn call(&mut self, data: &[u8]) -> (Result<Vec<u8>, Vec<u8>>, u64) {
        let transaction = TxEnv::builder()
            .kind(TxKind::Call(RULES))
            .data(data.to_vec().into())
            .gas_limit(GAS)
            .build()
            .unwrap();
        match self.evm.transact_one(transaction).unwrap() {
            ExecutionResult::Success { output, .. } => (Ok(output.into_data().to_vec()), 0),
            ExecutionResult::Revert { output, .. } => (Err(output.to_vec()), 0),
            ExecutionResult::Halt { reason, .. } => panic!("halted: {reason:?}"),
        }
    }
}
