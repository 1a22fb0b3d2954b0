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

    /// @notice How many members verdicts made.
    function verdicts(Taken[] storage list) internal view returns (uint256 count) {
        for (uint256 i; i < list.length; ++i) {
            if (list[i].to != address(0)) ++count;
        }
    }

    /// @notice The first run of free positions of [from, until): [start, end); empty if all are taken.
    function free(Taken[] storage list, uint128 from, uint128 until)
        internal
        view
        returns (uint128 start, uint128 end)
    {
        start = from;
        // Each pass steps over one member at least, so this ends.
        while (start < until) {
            uint128 over = start;
            end = until;
            for (uint256 i; i < list.length; ++i) {
                Taken storage taken = list[i];
                if (taken.from <= start && taken.until > over) over = taken.until;
                else if (taken.from > start && taken.from < end) end = taken.from;
            }
            if (over == start) return (start, end);
            start = over;
        }
        return (until, until);
    }

    /// @notice Takes every free position of [from, until) for `to`, nothing of it paid; returns how many they are.
    function take(Taken[] storage list, uint128 from, uint128 until, address to) internal returns (uint128 sum) {
        while (true) {
            (uint128 start, uint128 end) = free(list, from, until);
            if (start >= end) return sum;
            _add(list, Taken(start, end, start, to));
            sum += end - start;
            from = end;
        }
    }

    /// @notice Forgets what lies wholly below `frontier`.
    function forget(Taken[] storage list, uint128 frontier) internal {
        for (uint256 i = list.length; i > 0; --i) {
            if (list[i - 1].until > frontier) continue;
            if (i != list.length) list[i - 1] = list[list.length - 1];
            list.pop();
        }
    }

    /// What went back to the payer is one member as long as it is one run, so that it cannot fill the list.
    function _add(Taken[] storage list, Taken memory taken) private {
        if (taken.to == address(0)) {
            taken.paid = taken.until;
            for (uint256 i; i < list.length; ++i) {
                if (list[i].to != address(0) || list[i].until != taken.from) continue;
                (list[i].until, list[i].paid) = (taken.until, taken.until);
                return;
            }
        }
        list.push(taken);
    }

    function _max(uint128 a, uint128 b) private pure returns (uint128) {
        return a > b ? a : b;
    }

    function _min(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
