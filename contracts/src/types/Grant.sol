// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice A signed, bounded delegation: what the holder's key may order with the issuer's money.
/// @dev EIP-712, domain {name: "Assay", version: "1", chainId}; signed by the issuer. An order names its digest.
struct Grant {
    /// Where it can be taken back: the deployment's `Grants`.
    address registry;
    /// Who grants, and who signed.
    address issuer;
    /// Whose key may act.
    address holder;
    /// Model ids that may be asked, ascending; none for all.
    bytes32[] models;
    /// Token that `spend` is in; zero for the deployment's own.
    address asset;
    /// Most that orders under it may cost in all, in base units of `asset`.
    uint128 spend;
    /// Most orders a minute; zero for no bound.
    uint32 rate;
    /// Unix seconds from which on it holds.
    uint64 from;
    /// Unix seconds until which it holds.
    uint64 until;
    /// Digest of the grant that the issuer acts under itself; zero where the money is its own.
    bytes32 parent;
    /// Makes otherwise equal grants differ.
    uint256 nonce;
}
