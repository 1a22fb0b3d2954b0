// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Allocation, PARTS, Part} from "../src/libraries/Allocation.sol";
import {Base} from "./Base.sol";

/// @notice The schedules say what the allocation promises, second by second and to the wei.
contract AllocationTest is Base {
    uint256 private constant ASY = 1e18;
    uint256 private constant TEN_YEARS = 3650 days;

    function test_the_parts_are_the_supply() public pure {
        uint256 sum;
        for (uint256 i = 0; i < PARTS; ++i) {
            sum += Allocation.size(Part(i));
        }
        assertEq(sum, 1_000_000_000 * ASY);
    }

    function test_what_is_free_at_the_start() public pure {
        assertEq(Allocation.freeDown(Part.Nodes, 0), 0);
        assertEq(Allocation.freeDown(Part.Community, 0), 60_000_000 * ASY);
        assertEq(Allocation.freeDown(Part.Team, 0), 0);
        assertEq(Allocation.freeDown(Part.Investors, 0), 10_000_000 * ASY);
        assertEq(Allocation.freeDown(Part.Airdrop, 0), 50_000_000 * ASY);
        assertEq(Allocation.freeDown(Part.Liquidity, 0), 50_000_000 * ASY);
    }

    function test_after_one_year_half_of_the_linear_rest_is_free() public pure {
        assertEq(Allocation.freeDown(Part.Community, 365 days), 130_000_000 * ASY);
        assertEq(Allocation.freeDown(Part.Team, 365 days), 50_000_000 * ASY);
        assertEq(Allocation.freeDown(Part.Investors, 365 days), 55_000_000 * ASY);
    }

    function test_each_two_years_bring_the_nodes_half_as_much() public pure {
        uint256 whole = Allocation.size(Part.Nodes);
        uint256[6] memory shares = [uint256(0), 16, 24, 28, 30, 31];
        for (uint256 i = 0; i < 6; ++i) {
            assertEq(Allocation.freeDown(Part.Nodes, i * 730 days), whole * shares[i] / 31);
        }
    }

    function testFuzz_every_part_ends_exactly(uint256 part, uint256 elapsed) public pure {
        Part which = Part(part % PARTS);
        elapsed = bound(elapsed, which == Part.Nodes ? TEN_YEARS : 730 days, type(uint64).max);
        assertEq(Allocation.freeDown(which, elapsed), Allocation.size(which));
    }

    function testFuzz_a_part_is_not_whole_before_its_last_second(uint256 part) public pure {
        Part which = Part(part % 4);
        uint256 last = which == Part.Nodes ? TEN_YEARS : 730 days;
        assertLt(Allocation.freeDown(which, last - 1), Allocation.size(which));
    }

    function testFuzz_what_is_free_never_falls_and_never_exceeds(uint256 part, uint256 elapsed, uint256 more)
        public
        pure
    {
        Part which = Part(part % PARTS);
        elapsed = bound(elapsed, 0, 2 * TEN_YEARS);
        more = bound(more, 0, TEN_YEARS);
        uint256 early = Allocation.freeDown(which, elapsed);
        uint256 late = Allocation.freeDown(which, elapsed + more);
        assertLe(early, late);
        assertLe(late, Allocation.size(which));
    }

    function testFuzz_the_nodes_rate_halves_and_never_jumps(uint256 second) public pure {
        second = bound(second, 0, TEN_YEARS - 730 days - 1);
        uint256 now_ = Allocation.freeDown(Part.Nodes, second + 1) - Allocation.freeDown(Part.Nodes, second);
        uint256 later =
            Allocation.freeDown(Part.Nodes, second + 730 days + 1) - Allocation.freeDown(Part.Nodes, second + 730 days);
        // Each difference of two values that are rounded down is off by less than one wei.
        vm.assertApproxEqAbs(now_, 2 * later, 3);
    }
}
