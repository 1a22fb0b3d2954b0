// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice An operator key's word that it serves one owner, for good.
/// @dev EIP-712, domain {name: "Assay", version: "1", chainId}; signed by the operator.
struct Serve {
    /// The registry the word is for: the deployment's `Providers`.
    address registry;
    /// Who answers with stake for what the operator signs.
    address owner;
}
