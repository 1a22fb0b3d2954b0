// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice A provider's signed price and limits for one model.
/// @dev EIP-712, domain {name: "Assay", version: "1", chainId}.
struct Offer {
    /// Who offers, and who signed.
    address provider;
    /// Model id.
    bytes32 model;
    /// What can be checked about the answers.
    uint8 assurance;
    /// Token that prices are in.
    address asset;
    /// Base units of `asset` per million prompt tokens.
    uint128 priceIn;
    /// Base units of `asset` per million output tokens.
    uint128 priceOut;
    /// Most tokens of prompt and output together.
    uint32 context;
    /// Unix seconds after which the offer is void.
    uint64 expires;
}
