// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig} from "../interfaces/IChannels.sol";

/// @notice EIP-712 struct hashes of the words that channels are made of, as the public batch-settlement deployment
/// and its clients compute them. Pinned by tests/vectors/channels.json.
library ChannelWords {
    bytes32 internal constant CHANNEL_CONFIG = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    bytes32 internal constant VOUCHER = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    bytes32 internal constant REFUND = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    bytes32 internal constant CLAIM_ENTRY =
        keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    bytes32 internal constant CLAIM_BATCH = keccak256(
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    );

    /// Every field of a config is one word, so the struct hash is the hash of its ABI encoding.
    function config(ChannelConfig calldata channel) internal pure returns (bytes32) {
        return keccak256(abi.encode(CHANNEL_CONFIG, channel));
    }

    function voucher(bytes32 channelId, uint128 maxClaimableAmount) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER, channelId, maxClaimableAmount));
    }

    function refund(bytes32 channelId, uint256 nonce, uint128 amount) internal pure returns (bytes32) {
        return keccak256(abi.encode(REFUND, channelId, nonce, amount));
    }

    function claimEntry(bytes32 channelId, uint128 maxClaimableAmount, uint128 totalClaimed)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(CLAIM_ENTRY, channelId, maxClaimableAmount, totalClaimed));
    }

    /// @param entries Struct hashes of the batch's rows, in order.
    function claimBatch(bytes32[] memory entries) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_BATCH, keccak256(abi.encodePacked(entries))));
    }
}
