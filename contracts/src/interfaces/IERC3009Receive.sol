// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice The part of ERC-3009 that takes its signature as bytes, as USDC 2.2 and AssayToken have it.
interface IERC3009Receive {
    /// @notice Moves tokens that `from` signed away to the caller, who must be `to`.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}
