// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice A buyer's signed request for one piece of work.
/// @dev EIP-712, domain {name: "Assay", version: "1", chainId}. Nothing is left for the provider to choose.
struct Order {
    /// Who pays, and who signed.
    address buyer;
    /// The deployment's Receipts contract; zero before there is one.
    address market;
    /// Model id: keccak256 of the encoded Manifest.
    bytes32 model;
    /// keccak256 of the canonical request body (messages, tools); zero if there is none.
    bytes32 request;
    /// Merkle root over the prompt's token ids.
    bytes32 prompt;
    /// Number of prompt tokens.
    uint32 promptTokens;
    /// Most output tokens, at least one.
    uint32 maxTokens;
    /// EIP-712 struct hash of the Sampler.
    bytes32 sampler;
    /// What can be checked about the answer: 0 Replayable, 1 Attested, 2 Proven, 3 Scored.
    uint8 assurance;
    /// Who may check it: 0 nobody but the buyer, 1 drawn validators, 2 anyone.
    uint8 audit;
    /// Token that prices are in; zero for the deployment's own.
    address asset;
    /// Highest acceptable price of the whole answer, in base units of `asset`.
    uint128 maxPrice;
    /// Unix seconds after which the order must not be started.
    uint64 deadline;
    /// Makes otherwise equal orders differ; used once per buyer.
    uint256 nonce;
    /// Hash of the grant that the buyer's key acts under; zero for none.
    bytes32 grant;
}
