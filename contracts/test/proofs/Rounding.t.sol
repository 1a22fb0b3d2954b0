// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rounding} from "../../src/libraries/judge/Rounding.sol";

/// @notice The laws by which judges round and clamp, for every number: proved by Halmos, not sampled.
/// @dev Shifts are written out, because a shift by something unknown is beyond the solver: the least, the greatest, and
/// those that rules have between them.
contract RoundingProofs {
    function check_sat32_is_the_nearest_that_fits(int256 v) public pure {
        int32 found = Rounding.sat32(v);
        if (v > type(int32).max) assert(found == type(int32).max);
        else if (v < type(int32).min) assert(found == type(int32).min);
        else assert(found == v);
    }

    /// Half a step at most below, less than half a step above.
    function check_rsh_rounds_to_the_nearest_half_up(int184 v) public pure {
        _nearest(v, 1);
        _nearest(v, 2);
        _nearest(v, 8);
        _nearest(v, 11);
        _nearest(v, 16);
        _nearest(v, 20);
        _nearest(v, 24);
        _nearest(v, 30);
        _nearest(v, 32);
        _nearest(v, 35);
        _nearest(v, 41);
        _nearest(v, 48);
        _nearest(v, 62);
        _nearest(v, 64);
    }

    function check_rsh_to_the_left_is_exact(int184 v) public pure {
        _exact(v, 0);
        _exact(v, 1);
        _exact(v, 8);
        _exact(v, 16);
        _exact(v, 24);
        _exact(v, 32);
        _exact(v, 40);
    }

    function check_rsh_never_falls(int184 v) public pure {
        if (v == type(int184).max) return;
        _monotone(v, 1);
        _monotone(v, 2);
        _monotone(v, 8);
        _monotone(v, 11);
        _monotone(v, 16);
        _monotone(v, 20);
        _monotone(v, 24);
        _monotone(v, 30);
        _monotone(v, 32);
        _monotone(v, 35);
        _monotone(v, 41);
        _monotone(v, 48);
        _monotone(v, 62);
        _monotone(v, 64);
    }

    function _nearest(int256 v, uint256 s) private pure {
        unchecked {
            int256 left = v - Rounding.rsh(v, int256(s)) * int256(1 << s);
            int256 half = int256(1 << (s - 1));
            assert(-half <= left && left < half);
        }
    }

    function _exact(int256 v, uint256 s) private pure {
        unchecked {
            assert(Rounding.rsh(v, -int256(s)) == v * int256(1 << s));
        }
    }

    function _monotone(int256 v, uint256 s) private pure {
        unchecked {
            assert(Rounding.rsh(v, int256(s)) <= Rounding.rsh(v + 1, int256(s)));
        }
    }
}
