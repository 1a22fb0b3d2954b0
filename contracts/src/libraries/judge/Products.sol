// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, Quantity} from "./Leaves.sol";
import {Rounding} from "./Rounding.sol";

/// @notice Rules of matrix products: 128 products at a time, then their rounded sum.
/// @dev One multiplication makes eight products. Four bytes apart, the biased bytes of a word are the coefficients of
/// a polynomial in 2^32; subtracting the bias from all of them at once makes them signed, the borrows cancelling
/// modulo 2^256. With the lanes of one factor reversed, the top coefficient of the product is the sum of the eight
/// products. Adding 2^31 to every lane keeps lower lanes from borrowing from it. Exact while that sum stays below
/// 2^31 in magnitude: 32 products of 8 bits stay below 2^20. The plain twin stands in test/judge/Plain.sol.
library Products {
    uint256 private constant MASK = 0x000000ff000000ff000000ff000000ff000000ff000000ff000000ff000000ff;
    uint256 private constant BIAS = 0x0000008000000080000000800000008000000080000000800000008000000080;
    uint256 private constant HALF = 0x8000000080000000800000008000000080000000800000008000000080000000;
    uint256 private constant ODD_64 = 0xffffffffffffffff0000000000000000ffffffffffffffff0000000000000000;
    uint256 private constant ODD_32 = 0xffffffff00000000ffffffff00000000ffffffff00000000ffffffff00000000;

    /// @notice MATMUL, one partial sum: the sum over four groups of (sum of qw * qx) * (sw * sx).
    function chunk(bytes calldata weights, bytes calldata x) internal pure returns (int64 acc) {
        Leaves.checkWeights(weights);
        Leaves.checkActivation(x);
        assembly ("memory-safe") {
            let w := add(weights.offset, 10)
            let a := add(x.offset, 8)
            for { let group := 0 } lt(group, 4) { group := add(group, 1) } {
                let u := calldataload(add(w, shl(5, group)))
                let v := calldataload(add(a, shl(5, group)))
                let p := mul(sub(and(u, MASK), BIAS), sub(and(v, MASK), BIAS))
                p := add(p, mul(sub(and(shr(8, u), MASK), BIAS), sub(and(shr(8, v), MASK), BIAS)))
                p := add(p, mul(sub(and(shr(16, u), MASK), BIAS), sub(and(shr(16, v), MASK), BIAS)))
                p := add(p, mul(sub(and(shr(24, u), MASK), BIAS), sub(and(shr(24, v), MASK), BIAS)))
                let sum := sub(shr(224, add(p, HALF)), 0x80000000)
                let at := shl(1, group)
                let sw := shr(240, calldataload(add(add(weights.offset, 2), at)))
                let sx := shr(240, calldataload(add(x.offset, at)))
                acc := add(acc, mul(sum, mul(sw, sx)))
            }
        }
    }

    /// @notice MATMUL, the element: sat32(rsh(sum of partials, shift)); `partials` are 64-bit numbers.
    function product(bytes calldata partials, int256 shift) internal pure returns (int32) {
        int256 sum = Leaves.sum(partials);
        Leaves.check(Quantity.Shift, shift, 1, 62);
        return Rounding.sat32(Rounding.rsh(sum, shift));
    }

    /// @notice SCORE, one partial sum: the exact product of 128 dimensions of a query and a key.
    function chunkOfRecords(bytes calldata query, bytes calldata key) internal pure returns (int64 acc) {
        Leaves.checkActivation(query);
        Leaves.checkActivation(key);
        assembly ("memory-safe") {
            for { let group := 0 } lt(group, 4) { group := add(group, 1) } {
                let u := calldataload(add(add(query.offset, 8), shl(5, group)))
                let v := calldataload(add(add(key.offset, 8), shl(5, group)))
                // Weights are committed with their lanes reversed, records are not.
                u := or(shr(128, u), shl(128, u))
                u := or(shr(64, and(u, ODD_64)), and(shl(64, u), ODD_64))
                u := or(shr(32, and(u, ODD_32)), and(shl(32, u), ODD_32))
                let p := mul(sub(and(u, MASK), BIAS), sub(and(v, MASK), BIAS))
                p := add(p, mul(sub(and(shr(8, u), MASK), BIAS), sub(and(shr(8, v), MASK), BIAS)))
                p := add(p, mul(sub(and(shr(16, u), MASK), BIAS), sub(and(shr(16, v), MASK), BIAS)))
                p := add(p, mul(sub(and(shr(24, u), MASK), BIAS), sub(and(shr(24, v), MASK), BIAS)))
                let sum := sub(shr(224, add(p, HALF)), 0x80000000)
                let at := shl(1, group)
                let su := shr(240, calldataload(add(query.offset, at)))
                let sv := shr(240, calldataload(add(key.offset, at)))
                acc := add(acc, mul(sum, mul(su, sv)))
            }
        }
    }
}
