// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves} from "./Leaves.sol";

/// @notice Rules that join 32 words of one level of a radix tree into one word of the next.
library Reductions {
    /// @notice The largest of the first `count` words, unsigned.
    function maximum(bytes calldata words, uint256 count) internal pure returns (uint256 largest) {
        _check(words, count);
        for (uint256 i; i < count; ++i) {
            uint256 word = Leaves.wideAt(words, i);
            if (word > largest) largest = word;
        }
    }

    /// @notice The largest of the first `count` words, signed.
    function maximumSigned(bytes calldata words, uint256 count) internal pure returns (int64 largest) {
        _check(words, count);
        largest = type(int64).min;
        for (uint256 i; i < count; ++i) {
            int64 word = int64(uint64(Leaves.wideAt(words, i)));
            if (word > largest) largest = word;
        }
    }

    /// @notice The sum of the first `count` words, unsigned; it may exceed 64 bits, which no word then equals.
    function total(bytes calldata words, uint256 count) internal pure returns (uint256 sum) {
        _check(words, count);
        for (uint256 i; i < count; ++i) {
            sum += Leaves.wideAt(words, i);
        }
    }

    function _check(bytes calldata words, uint256 count) private pure {
        Leaves.checkLength(words, Leaves.WIDE);
        Leaves.checkCount(count, 32);
    }
}
