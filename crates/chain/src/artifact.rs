//! What the Solidity compiler made of a contract, as committed in `contracts/artifacts`.

use std::ops::Range;

use alloy_primitives::Bytes;
use serde::Deserialize;

use crate::suite::Contract;

/// A compiled contract.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// Code that runs once and leaves the contract behind; constructor arguments follow it.
    pub(crate) creation: Bytes,
    /// Code that stays, with zeros where the constructor writes immutables.
    runtime: Bytes,
    immutables: Vec<Range<usize>>,
}

/// An artifact's JSON, as far as it is needed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    bytecode: Bytes,
    deployed_bytecode: Bytes,
    immutables: Vec<[usize; 2]>,
}

impl Artifact {
    /// The artifact of `contract`, which is part of this binary.
    pub(crate) fn of(contract: Contract) -> Self {
        let json: Json = serde_json::from_str(text(contract))
            .expect("the artifacts in the binary were read by its tests");
        Self {
            creation: json.bytecode,
            runtime: json.deployed_bytecode,
            immutables: json.immutables.iter().map(|[from, len]| *from..from + len).collect(),
        }
    }

    /// Whether `code`, as a chain reports it, is this contract's, whatever its immutables are.
    pub(crate) fn is(&self, code: &[u8]) -> bool {
        let mut code = code.to_vec();
        if code.len() != self.runtime.len() {
            return false;
        }
        for range in &self.immutables {
            if let Some(hole) = code.get_mut(range.clone()) {
                hole.fill(0);
            }
        }
        code == self.runtime
    }
}

/// The committed file of `contract`.
fn text(contract: Contract) -> &'static str {
    macro_rules! file {
        ($name:literal) => {
            include_str!(concat!("../../../contracts/artifacts/", $name, ".json"))
        };
    }
    match contract {
        Contract::Timelock => file!("Timelock"),
        Contract::Parameters => file!("Parameters"),
        Contract::Distribution => file!("Distribution"),
        Contract::AssayToken => file!("AssayToken"),
        Contract::Channels => file!("Channels"),
        Contract::Erc3009DepositCollector => file!("ERC3009DepositCollector"),
        Contract::PermitDepositCollector => file!("PermitDepositCollector"),
        Contract::ApprovalDepositCollector => file!("ApprovalDepositCollector"),
        Contract::Receipts => file!("Receipts"),
        Contract::Providers => file!("Providers"),
        Contract::Models => file!("Models"),
        Contract::Tills => file!("Tills"),
        Contract::Grants => file!("Grants"),
        Contract::Specs => file!("Specs"),
        Contract::Clerk => file!("Clerk"),
        Contract::VectorJudge => file!("VectorJudge"),
        Contract::AttentionJudge => file!("AttentionJudge"),
        Contract::SamplingJudge => file!("SamplingJudge"),
        Contract::Canaries => file!("Canaries"),
        Contract::Auditors => file!("Auditors"),
        Contract::Productions => file!("Productions"),
        Contract::Disputes => file!("Disputes"),
    }
}
