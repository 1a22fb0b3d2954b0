//! The contracts' interfaces, read from what the compiler made of them.
//!
//! Nothing of this leaves the crate: callers meet the words of the modules beside it. What each
//! function and event means stands in the Solidity sources.
#![allow(
    missing_docs,
    non_snake_case,
    clippy::too_many_arguments,
    unreachable_pub,
    unused_qualifications,
    reason = "generated from the artifacts"
)]

use alloy_sol_types::{SolType, SolValue};

/// A word in a contract's own type, from its ABI encoding by the protocol or by another contract's
/// type.
///
/// # Panics
/// If the encoding is of another struct, which it is not, as all of them read one Solidity text.
pub(crate) fn word<T>(encoded: &[u8]) -> T
where
    T: SolValue + From<<T::SolType as SolType>::RustType>,
{
    T::abi_decode(encoded).expect("contracts and the protocol read one Solidity text")
}

/// One module per contract, because two of them may use a struct of the same name.
macro_rules! interface {
    ($module:ident, $contract:ident, $artifact:literal) => {
        mod $module {
            alloy_sol_types::sol!(
                #[derive(Debug)]
                $contract,
                $artifact
            );
        }
        pub(crate) use $module::$contract;
    };
}

interface!(timelock, Timelock, "../../contracts/artifacts/Timelock.json");
interface!(parameters, Parameters, "../../contracts/artifacts/Parameters.json");
interface!(distribution, Distribution, "../../contracts/artifacts/Distribution.json");
interface!(assay_token, AssayToken, "../../contracts/artifacts/AssayToken.json");
interface!(providers, Providers, "../../contracts/artifacts/Providers.json");
interface!(models, Models, "../../contracts/artifacts/Models.json");
interface!(channels, Channels, "../../contracts/artifacts/Channels.json");
interface!(
    approval_deposit_collector,
    ApprovalDepositCollector,
    "../../contracts/artifacts/ApprovalDepositCollector.json"
);
interface!(
    erc3009_deposit_collector,
    ERC3009DepositCollector,
    "../../contracts/artifacts/ERC3009DepositCollector.json"
);
interface!(
    permit_deposit_collector,
    PermitDepositCollector,
    "../../contracts/artifacts/PermitDepositCollector.json"
);
interface!(grants, Grants, "../../contracts/artifacts/Grants.json");
interface!(receipts, Receipts, "../../contracts/artifacts/Receipts.json");
interface!(till, Till, "../../contracts/artifacts/Till.json");
interface!(tills, Tills, "../../contracts/artifacts/Tills.json");
interface!(specs, Specs, "../../contracts/artifacts/Specs.json");
interface!(clerk, Clerk, "../../contracts/artifacts/Clerk.json");
interface!(vector_judge, VectorJudge, "../../contracts/artifacts/VectorJudge.json");
interface!(attention_judge, AttentionJudge, "../../contracts/artifacts/AttentionJudge.json");
interface!(sampling_judge, SamplingJudge, "../../contracts/artifacts/SamplingJudge.json");
interface!(disputes, Disputes, "../../contracts/artifacts/Disputes.json");
interface!(canaries, Canaries, "../../contracts/artifacts/Canaries.json");
interface!(auditors, Auditors, "../../contracts/artifacts/Auditors.json");
interface!(productions, Productions, "../../contracts/artifacts/Productions.json");
