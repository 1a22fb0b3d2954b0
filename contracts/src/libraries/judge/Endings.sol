// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BadLength, Leaves, Quantity} from "./Leaves.sol";

/// @notice Rules that tie a trace to what was signed: token link, chained state, random numbers, finish.
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

    /// Why an answer ends: the codes of receipts, and that it goes on.
    uint8 internal constant EOS = 0;
    uint8 internal constant STOP = 1;
    uint8 internal constant LENGTH = 2;
    uint8 internal constant GOES_ON = 255;

    /// @notice FINISH: why the output ends with its `length`-th token: an end token of the model, a stop sequence, or
    /// `tokensMax`, in this order; or that it goes on.
    /// @param tail The last tokens of the output up to that one, 32 bits each, as many as the longest stop sequence
    /// has, or all.
    /// @param stops What the sampler's `stops` is the hash of; empty for none.
    function finish(bytes calldata tail, uint256 length, uint32[] calldata eos, bytes calldata stops, uint256 tokensMax)
        internal
        pure
        returns (uint8)
    {
        Leaves.check(Quantity.Count, int256(length), 1, int256(uint256(type(uint32).max)));
        (bool stopped, uint256 longest) = _stops(tail, stops);
        uint256 expected = longest < 4 * length ? longest : 4 * length;
        Leaves.checkLength(tail, expected);
        uint32 last = uint32(bytes4(tail[tail.length - 4:]));
        for (uint256 i; i < eos.length; ++i) {
            if (eos[i] == last) return EOS;
        }
        if (stopped) return STOP;
        return length >= tokensMax ? LENGTH : GOES_ON;
    }

    /// Whether the tail ends with one of the sequences, and the bytes of the longest one, or of one token.
    /// The sequences: their number, then each one's length and token ids, 32 bits each.
    function _stops(bytes calldata tail, bytes calldata stops) private pure returns (bool stopped, uint256 longest) {
        longest = 4;
        if (stops.length == 0) return (false, longest);
        uint256 count = _word(stops, 0);
        uint256 read = 4;
        for (uint256 i; i < count; ++i) {
            uint256 size = 4 * _word(stops, read);
            read += 4;
            require(read + size <= stops.length, BadLength(stops.length, read + size));
            if (size > longest) longest = size;
            // A sequence longer than the output is longer than the tail, which then is all of it.
            if (size <= tail.length && !stopped) {
                stopped = keccak256(stops[read:read + size]) == keccak256(tail[tail.length - size:]);
            }
            read += size;
        }
        require(read == stops.length, BadLength(stops.length, read));
    }

    function _word(bytes calldata list, uint256 at) private pure returns (uint256) {
        require(at + 4 <= list.length, BadLength(list.length, at + 4));
        return uint32(bytes4(list[at:]));
    }
}
