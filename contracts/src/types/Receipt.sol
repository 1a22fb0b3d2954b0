// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice A provider's signed statement of what it did for an order.
/// @dev EIP-712, domain {name: "Assay", version: "1", chainId}.
struct Receipt {
    /// EIP-712 digest of the order.
    bytes32 order;
    /// Who answered, and who signed.
    address provider;
    /// Merkle root over the output's token ids.
    bytes32 output;
    /// Number of output tokens, the ending one included.
    uint32 outputTokens;
    /// keccak256 of the exact text, UTF-8.
    bytes32 text;
    /// Why it ended: 0 eos, 1 stop, 2 length, 3 cancelled.
    uint8 finish;
    /// Last of the chained per-token states.
    bytes32 state;
    /// What can be checked about the answer, as in the order.
    uint8 assurance;
    /// Token that prices are in.
    address asset;
    /// Price of the answer in base units of `asset`.
    uint128 price;
    /// Channel that pays; zero for none.
    bytes32 channel;
    /// What the channel had paid before and after this answer, in base units of `asset`.
    uint128 channelBefore;
    uint128 channelAfter;
    /// Unix milliseconds.
    uint64 started;
    uint64 finished;
}
