// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Brings a payer's tokens to `Channels`: one implementation for each way to give consent.
/// @dev The interface is the one of the public batch-settlement deployment, so collectors written for that one
/// work here. `Channels` measures what arrives and trusts no collector; a collector must itself make sure that
/// the payer agreed to this channel, since anyone may call `deposit` with anyone's name as payer.
interface IDepositCollector {
    /// @notice Moves `amount` of `token` from `payer` to the caller.
    /// @param payer Whose tokens are moved.
    /// @param token The ERC-20.
    /// @param amount Base units of `token`.
    /// @param channelId The channel that is to be credited; the payer's consent must name it.
    /// @param collectorData What the payer signed, in the collector's own encoding.
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata collectorData)
        external;
}
