//! What a contract says when it refuses, in words.

use std::fmt;

use alloy_primitives::{Bytes, hex};
use alloy_sol_types::{Panic, Revert, SolError, SolInterface};

use crate::bindings::{
    ApprovalDepositCollector, AssayToken, AttentionJudge, Auditors, Canaries, Channels, Clerk,
    Disputes, Distribution, ERC3009DepositCollector, Models, Parameters, PermitDepositCollector,
    Productions, Providers, Receipts, SamplingJudge, Specs, Till, Timelock, VectorJudge,
};

/// A contract's refusal: the custom error it reverted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error with its values, such as `StakeShort { found: 1, expected: 2 }`.
    pub reason: String,
    /// The bytes it was read from.
    pub data: Bytes,
}

impl Refusal {
    /// Reads revert data. What no contract of the suite says stays hexadecimal.
    pub(crate) fn from_data(data: Bytes) -> Self {
        let reason = plain(&data).or_else(|| of_suite(&data)).unwrap_or_else(|| match data.len() {
            0 => "it gave no reason".to_owned(),
            _ => format!("0x{}", hex::encode(&data)),
        });
        Self { reason, data }
    }

    /// The same refusal in the words of the disputes, for two contracts may name an error's fields differently.
    pub(crate) fn of_disputes(self) -> Self {
        match said::<Disputes::DisputesErrors>(&self.data) {
            Some(reason) => Self { reason, ..self },
            None => self,
        }
    }

    /// Whether this is the error that `E` describes.
    pub fn is<E: SolError>(&self) -> bool {
        E::abi_decode(&self.data).is_ok()
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the contract refused: {}", self.reason)
    }
}

/// Solidity's own two errors.
fn plain(data: &[u8]) -> Option<String> {
    let text = Revert::abi_decode(data).map(|revert| revert.reason);
    text.or_else(|_| Panic::abi_decode(data).map(|panic| panic.to_string())).ok()
}

/// The first contract that knows the error names it: equal selectors mean equal errors.
fn of_suite(data: &[u8]) -> Option<String> {
    said::<AssayToken::AssayTokenErrors>(data)
        .or_else(|| said::<Distribution::DistributionErrors>(data))
        .or_else(|| said::<Parameters::ParametersErrors>(data))
        .or_else(|| said::<Timelock::TimelockErrors>(data))
        .or_else(|| said::<Providers::ProvidersErrors>(data))
        .or_else(|| said::<Models::ModelsErrors>(data))
        .or_else(|| said::<Channels::ChannelsErrors>(data))
        .or_else(|| said::<ApprovalDepositCollector::ApprovalDepositCollectorErrors>(data))
        .or_else(|| said::<ERC3009DepositCollector::ERC3009DepositCollectorErrors>(data))
        .or_else(|| said::<PermitDepositCollector::PermitDepositCollectorErrors>(data))
        .or_else(|| said::<Receipts::ReceiptsErrors>(data))
        .or_else(|| said::<Till::TillErrors>(data))
        .or_else(|| said::<Disputes::DisputesErrors>(data))
        .or_else(|| said::<Canaries::CanariesErrors>(data))
        .or_else(|| said::<Auditors::AuditorsErrors>(data))
        .or_else(|| said::<Productions::ProductionsErrors>(data))
        .or_else(|| said::<Clerk::ClerkErrors>(data))
        .or_else(|| said::<Specs::SpecsErrors>(data))
        .or_else(|| said::<VectorJudge::VectorJudgeErrors>(data))
        .or_else(|| said::<AttentionJudge::AttentionJudgeErrors>(data))
        .or_else(|| said::<SamplingJudge::SamplingJudgeErrors>(data))
}

/// `Errors::Name(Name { fields })`, as `Name { fields }`.
fn said<E: SolInterface + fmt::Debug>(data: &[u8]) -> Option<String> {
    let text = format!("{:?}", E::abi_decode(data).ok()?);
    let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    Some(inner.unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, U256};

    use super::*;

    fn check(data: impl Into<Bytes>, expected: &str) {
        assert_eq!(Refusal::from_data(data.into()).reason, expected);
    }

    #[test]
    fn refusals_read_as_the_contracts_wrote_them() {
        let short = Providers::StakeShort { found: U256::from(1), expected: U256::from(2) };
        check(short.abi_encode(), "StakeShort { found: 1, expected: 2 }");
        check(Revert { reason: "no".into() }.abi_encode(), "no");
        check(Bytes::new(), "it gave no reason");
        check(vec![1, 2, 3], "0x010203");
        let taken = Till::NotPayer { found: Address::ZERO, expected: Address::ZERO };
        let early = Disputes::TooEarly { found: U256::from(1), left: U256::from(2) };
        let refusal = Refusal::from_data(early.abi_encode().into()).of_disputes();
        assert_eq!(refusal.reason, "TooEarly { found: 1, left: 2 }");
        assert!(Refusal::from_data(taken.abi_encode().into()).is::<Till::NotPayer>());
    }
}
