// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Taken} from "../interfaces/ITill.sol";

/// @notice Arithmetic on a channel's line of positions: which were taken, and which are still free.
/// @dev The list is in no order and its members never overlap. Its length is bounded by its keeper.
library Positions {
    /// @notice How many positions of [from, until) were taken.
    function takenWithin(Taken[] storage list, uint128 from, uint128 until) internal view returns (uint128 sum) {
        for (uint256 i; i < list.length; ++i) {
            uint128 first = _max(list[i].from, from);
            uint128 last = _min(list[i].until, until);
            if (first < last) sum += last - first;
        }
    }

    /// @notice Takes every free position of [from, until), all of which are claimed and paid for by the caller;
    /// returns how many they are.
    /// @dev Runs that are paid in full and overlap or touch become one, whomever they were paid to.
    function settle(Taken[] storage list, uint128 from, uint128 until) internal returns (uint128 sum) {
        if (from >= until) return 0;
        sum = until - from - takenWithin(list, from, until);
        if (sum == 0) return 0;
        for (uint256 i = list.length; i > 0; --i) {
            Taken storage taken = list[i - 1];
            (uint128 first, uint128 last) = (taken.from, taken.until);
            if (last < from || first > until) continue;
            if (taken.paid == last) {
                (from, until) = (_min(from, first), _max(until, last));
                _remove(list, i - 1);
            } else if (first < until) {
                // Not paid in full, so it ends above all that is claimed.
                until = first;
            }
        }
        list.push(Taken(from, until, until, address(0)));
    }

    /// @notice Takes every free position of [from, until) for `to`, to be paid when it is claimed, which nothing of
    /// it is; returns how many they are.
    /// @dev A run that follows one of the same receiver becomes part of it.
    function reserve(Taken[] storage list, uint128 from, uint128 until, address to) internal returns (uint128 sum) {
        if (from >= until) return 0;
        Taken[] memory before = list;
        while (true) {
            (uint128 start, uint128 end) = free(before, from, until);
            if (start >= end) return sum;
            sum += end - start;
            from = end;
            uint256 i = before.length;
            while (i > 0 && (before[i - 1].until != start || before[i - 1].to != to)) --i;
            if (i == 0) list.push(Taken(start, end, start, to));
            else list[i - 1].until = end;
        }
    }

    /// @notice The first run of free positions of [from, until): [start, end); empty if all are taken.
    function free(Taken[] memory list, uint128 from, uint128 until) internal pure returns (uint128 start, uint128 end) {
        start = from;
        // Each pass steps over one member at least, so this ends.
        while (start < until) {
            uint128 over = start;
            end = until;
            for (uint256 i; i < list.length; ++i) {
                Taken memory taken = list[i];
                if (taken.from <= start && taken.until > over) over = taken.until;
                else if (taken.from > start && taken.from < end) end = taken.from;
            }
            if (over == start) return (start, end);
            start = over;
        }
        return (until, until);
    }

    /// @notice Forgets what lies wholly below `frontier`.
    function forget(Taken[] storage list, uint128 frontier) internal {
        for (uint256 i = list.length; i > 0; --i) {
            if (list[i - 1].until > frontier) continue;
            _remove(list, i - 1);
        }
    }

    /// The last member moves into the gap.
    function _remove(Taken[] storage list, uint256 place) private {
        uint256 last = list.length - 1;
        if (place != last) list[place] = list[last];
        list.pop();
    }

    function _max(uint128 a, uint128 b) private pure returns (uint128) {
        return a > b ? a : b;
    }

    function _min(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
