// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, Quantity} from "./Leaves.sol";

/// @notice How exact-1 rounds and clamps.
library Rounding {
    /// @notice The nearest value that fits 32 bits.
    function sat32(int256 v) internal pure returns (int32) {
        if (v > type(int32).max) return type(int32).max;
        if (v < type(int32).min) return type(int32).min;
        return int32(v);
    }

    /// @notice v / 2^s, rounded half towards positive infinity; exact to the left when s is not positive.
    /// @dev |v| < 2^190 and |s| <= 64, so nothing overflows.
    function rsh(int256 v, int256 s) internal pure returns (int256) {
        unchecked {
            if (s <= 0) return v << uint256(-s);
            return (v + int256(1 << uint256(s - 1))) >> uint256(s);
        }
    }

    /// @notice Refuses more fraction bits than the arithmetic takes.
    function checkFraction(uint256 bits) internal pure returns (int256) {
        Leaves.check(Quantity.Fraction, int256(bits), 0, 16);
        return int256(bits);
    }
}
