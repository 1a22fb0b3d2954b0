// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Leaves, Quantity} from "./Leaves.sol";
import {Rounding} from "./Rounding.sol";

/// @notice Rules of the root-mean-square norm.
library Norms {
    /// Fraction bits of a gain, and of a normed number before it.
    int256 private constant GAIN_AND_NORMED = 12 + 20;

    /// @notice NSTAT, first tree: the largest magnitude of the first `count` numbers.
    function largestMagnitude(bytes calldata x, uint256 count) internal pure returns (uint256 largest) {
        Leaves.checkLength(x, Leaves.FIXED);
        Leaves.checkCount(count, 32);
        for (uint256 i; i < count; ++i) {
            uint256 magnitude = abs(Leaves.fixedAt(x, i));
            if (magnitude > largest) largest = magnitude;
        }
    }

    /// @notice NSTAT, second tree: the sum of (x >> shift)^2 over the first `count` numbers.
    function sumOfSquares(bytes calldata x, uint256 count, uint256 shift) internal pure returns (uint256 sum) {
        Leaves.checkLength(x, Leaves.FIXED);
        Leaves.checkCount(count, 32);
        Leaves.check(Quantity.NormShift, int256(shift), 0, 8);
        assembly ("memory-safe") {
            let end := add(x.offset, shl(2, count))
            for { let at := x.offset } lt(at, end) { at := add(at, 4) } {
                let narrow := sar(shift, signextend(3, shr(224, calldataload(at))))
                sum := add(sum, mul(narrow, narrow))
            }
        }
    }

    /// @notice NSTAT, shift: max(0, bitlen(largest) - 24).
    function normShift(uint256 largest) internal pure returns (uint256) {
        uint256 bits = bitLength(largest);
        return bits > 24 ? bits - 24 : 0;
    }

    /// @notice NSTAT, reciprocal root: with M = floor(sum/width) + max(1, eps >> 2*shift) and
    /// c = floor((62 - bitlen(M))/2), the factor floor(2^61 / isqrt(M << 2c)) and the right shift 41 - c.
    function inverseRoot(uint256 sum, uint256 width, uint256 eps, uint256 shift)
        internal
        pure
        returns (uint256 factor, uint256 right)
    {
        Leaves.check(Quantity.Width, int256(width), 1, 1 << 15);
        Leaves.check(Quantity.NormShift, int256(shift), 0, 8);
        uint256 mean = sum / width + Math.max(1, eps >> (2 * shift));
        Leaves.check(Quantity.Mean, int256(mean), 1, (1 << 50) - 1);
        uint256 half = (62 - bitLength(mean)) / 2;
        factor = (1 << 61) / Math.sqrt(mean << (2 * half));
        right = 41 - half;
    }

    /// @notice NORM: n = rsh((x >> shift) * factor, right), then sat32(rsh(n * gain, 32 - fraction)).
    function norm(int256 x, int256 gain, uint256 shift, uint256 factor, uint256 right, uint256 fraction)
        internal
        pure
        returns (int32)
    {
        Leaves.check(Quantity.NormShift, int256(shift), 0, 8);
        Leaves.check(Quantity.Factor, int256(factor), 1 << 30, 1 << 31);
        Leaves.check(Quantity.FactorShift, int256(right), 11, 35);
        int256 last = GAIN_AND_NORMED - Rounding.checkFraction(fraction);
        int256 normed = Rounding.rsh((x >> shift) * int256(factor), int256(right));
        return Rounding.sat32(Rounding.rsh(normed * gain, last));
    }

    /// @notice Number of bits without leading zeros; 0 for 0.
    function bitLength(uint256 v) internal pure returns (uint256) {
        return v == 0 ? 0 : Math.log2(v) + 1;
    }

    /// @notice The magnitude of a number of at most 64 bits.
    function abs(int256 v) internal pure returns (uint256) {
        return uint256(v < 0 ? -v : v);
    }
}
