// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BadQuant, BadScale, Leaves, OutOfBounds, Quantity} from "./Leaves.sol";
import {Norms} from "./Norms.sol";
import {Powers} from "./Powers.sol";
import {Rounding} from "./Rounding.sol";

/// @notice The scores of a block of up to 64 positions: the two leaves that hold them, the second one empty where the
/// block has no more than 32.
struct Block {
    bytes lower;
    bytes upper;
    uint256 count;
    /// The largest score of the head.
    int64 largest;
}

/// @notice Rules of attention: scores, their softmax, and the weighted mean of the values.
/// @dev The products of queries and keys are in {Products}.
library Attention {
    /// Fraction bits of attention weights.
    uint256 private constant WEIGHT_BITS = 22;

    /// @notice SCORE: sat32-ed rsh(sum of partials, 2*fraction - 16), times factor, rsh 30; Fx<16> powers of two.
    function score(bytes calldata partials, uint256 fraction, uint256 factor) internal pure returns (int32) {
        int256 dot = Leaves.sum(partials);
        Leaves.check(Quantity.Fraction, int256(fraction), 8, 16);
        Leaves.check(Quantity.ScoreFactor, int256(factor), 0, (1 << 29) - 1);
        int256 narrow = Rounding.sat32(Rounding.rsh(dot, 2 * int256(fraction) - 16));
        return Rounding.sat32(Rounding.rsh(narrow * int256(factor), 30));
    }

    /// @notice SMAX, first tree: the largest of the first `count` scores.
    function largestScore(bytes calldata scores, uint256 count) internal pure returns (int64 largest) {
        Leaves.checkLength(scores, Leaves.FIXED);
        Leaves.checkCount(count, 32);
        largest = type(int64).min;
        unchecked {
            for (uint256 i; i < count; ++i) {
                int64 z = int64(Leaves.fixedAt(scores, i));
                if (z > largest) largest = z;
            }
        }
    }

    /// @notice SMAX, second tree: the sum of exp2neg(largest - z, 22) over the first `count` scores.
    function weightSum(bytes calldata scores, uint256 count, int256 largest) internal pure returns (uint256 sum) {
        Leaves.checkLength(scores, Leaves.FIXED);
        Leaves.checkCount(count, 32);
        uint256 tables = Powers.load();
        unchecked {
            for (uint256 i; i < count; ++i) {
                sum += _weight(tables, Leaves.fixedAt(scores, i), largest);
            }
        }
    }

    /// @notice PSB: max(0, bitlen(max weight * scale) - 15) over a block, for one group of dimensions.
    /// @param scales The values' scales at the block's positions, 16 bits each.
    function blockShift(Block calldata b, bytes calldata scales) internal pure returns (uint256) {
        uint256[] memory weights = _weights(b);
        Leaves.checkLength(scales, 2 * b.count);
        uint256 largest;
        unchecked {
            for (uint256 i; i < weights.length; ++i) {
                uint256 scaled = weights[i] * _scale(scales, 2, i);
                if (scaled > largest) largest = scaled;
            }
        }
        uint256 bits = Norms.bitLength(largest);
        return bits > 15 ? bits - 15 : 0;
    }

    /// @notice PVOUT, one block: (sum of min(32767, rsh(weight * scale, shift)) * q) << shift for one dimension.
    /// @param values Scale (16 bits) and number (8 bits, q ^ 0x80) of the values at the block's positions.
    function blockSum(Block calldata b, uint256 shift, bytes calldata values) internal pure returns (int64) {
        uint256[] memory weights = _weights(b);
        Leaves.check(Quantity.BlockShift, int256(shift), 0, 22);
        Leaves.checkLength(values, 3 * b.count);
        int256 sum;
        uint256 half = (1 << shift) >> 1;
        unchecked {
            for (uint256 i; i < weights.length; ++i) {
                uint256 scaled = weights[i] * _scale(values, 3, i);
                uint256 biased = uint8(values[3 * i + 2]);
                require(biased != 0, BadQuant(i));
                uint256 narrow = (scaled + half) >> shift;
                if (narrow > 32_767) narrow = 32_767;
                sum += int256(narrow) * (int256(biased) - 128);
            }
        }
        return int64(sum << shift);
    }

    /// @notice PVOUT: sat32(floor((2 * sum of sums + weights) / (2 * weights))), then shifted to the output's fraction.
    function attend(bytes calldata sums, uint256 weights, uint256 fractionIn, uint256 fractionOut)
        internal
        pure
        returns (int32)
    {
        int256 numerator = 2 * Leaves.sum(sums) + int256(weights);
        Leaves.check(Quantity.Weights, int256(weights), 1, type(int256).max);
        int256 right = Rounding.checkFraction(fractionIn) - Rounding.checkFraction(fractionOut);
        int256 divisor = 2 * int256(weights);
        int256 mean = numerator / divisor;
        // Solidity rounds towards zero, the rule down.
        if (numerator % divisor < 0) --mean;
        return Rounding.sat32(Rounding.rsh(Rounding.sat32(mean), right));
    }

    /// Weights of a block's positions, Q22.
    function _weights(Block calldata b) private pure returns (uint256[] memory weights) {
        uint256 count = b.count;
        Leaves.checkCount(count, 64);
        Leaves.checkLength(b.lower, Leaves.FIXED);
        Leaves.checkLength(b.upper, count > 32 ? Leaves.FIXED : 0);
        weights = new uint256[](count);
        _weigh(weights, 0, count < 32 ? count : 32, b.lower, b.largest);
        if (count > 32) _weigh(weights, 32, count - 32, b.upper, b.largest);
    }

    /// Writes the weights of the first `count` scores of a leaf behind the first `before`.
    function _weigh(uint256[] memory weights, uint256 before, uint256 count, bytes calldata leaf, int256 largest)
        private
        pure
    {
        uint256 tables = Powers.load();
        unchecked {
            for (uint256 i; i < count; ++i) {
                weights[before + i] = _weight(tables, Leaves.fixedAt(leaf, i), largest);
            }
        }
    }

    function _weight(uint256 tables, int256 z, int256 largest) private pure returns (uint256) {
        require(z <= largest, OutOfBounds(Quantity.Score, z));
        unchecked {
            return Powers.exp2neg(tables, uint256(largest - z), WEIGHT_BITS);
        }
    }

    /// The scale that begins entry `index` of a revealed list, whose length was checked.
    function _scale(bytes calldata list, uint256 size, uint256 index) private pure returns (uint256 scale) {
        assembly ("memory-safe") {
            scale := shr(240, calldataload(add(list.offset, mul(size, index))))
        }
        require(scale != 0 && scale < 1 << 15, BadScale(index, scale));
    }
}
