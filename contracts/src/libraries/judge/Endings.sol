// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BadLength, Leaves} from "./Leaves.sol";

/// @notice Rules that tie a trace to what was signed: the token link, the chained state, the random numbers.
library Endings {
    /// @notice TOKEN, check: whether the drawn token is the one that was answered.
    function link(uint64 drawn, uint32 answered) internal pure returns (bool) {
        return drawn == answered;
    }

    /// @notice STATE: keccak256(before, token, keccak256(leaves)); `hidden` holds the leaves of AQf in order.
    function state(bytes32 before, uint32 token, bytes calldata hidden) internal pure returns (bytes32) {
        uint256 rest = hidden.length % Leaves.ACTIVATION;
        if (hidden.length == 0 || rest != 0) {
            revert BadLength(hidden.length, hidden.length + Leaves.ACTIVATION - rest);
        }
        return keccak256(abi.encodePacked(before, token, keccak256(hidden)));
    }

    /// @notice The key of an order's random numbers; `sampler` is the hash of its sampler with seed 0.
    function drawKey(bytes32 seed, bytes32 model, bytes32 prompt, bytes32 sampler) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked("EXACT1/rng", seed, model, prompt, sampler));
    }

    /// @notice The number that the output token at `index` is drawn with.
    function uniform(bytes32 key, uint32 index) internal pure returns (uint64) {
        return uint64(bytes8(keccak256(abi.encodePacked(key, index, uint32(0)))));
    }
}
