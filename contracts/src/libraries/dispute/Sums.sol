// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, Quantity} from "../judge/Leaves.sol";
import {Rounding} from "../judge/Rounding.sol";

/// @notice Elements from sums that a judge added up itself; the forms that take revealed lists are in {Products} and
/// {Attention}.
library Sums {
    /// @notice MATMUL: sat32(rsh(sum, shift)).
    function product(int256 sum, int256 shift) internal pure returns (int256) {
        Leaves.check(Quantity.Shift, shift, 1, 62);
        return Rounding.sat32(Rounding.rsh(sum, shift));
    }

    /// @notice SCORE: sat32(rsh(sat32(rsh(dot, 2*fraction - 16)) * factor, 30)).
    function score(int256 dot, uint256 fraction, uint256 factor) internal pure returns (int256) {
        Leaves.check(Quantity.Fraction, int256(fraction), 8, 16);
        Leaves.check(Quantity.ScoreFactor, int256(factor), 0, (1 << 29) - 1);
        int256 narrow = Rounding.sat32(Rounding.rsh(dot, 2 * int256(fraction) - 16));
        return Rounding.sat32(Rounding.rsh(narrow * int256(factor), 30));
    }
}
