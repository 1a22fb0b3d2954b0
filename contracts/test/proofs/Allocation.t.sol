// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Allocation, PARTS, Part} from "../../src/libraries/Allocation.sol";

/// @notice The laws of the allocation, for every second: proved by Halmos, not sampled.
contract AllocationProofs {
    function check_the_parts_are_the_supply() public pure {
        uint256 sum;
        for (uint256 i = 0; i < PARTS; ++i) {
            sum += Allocation.size(Part(i));
        }
        assert(sum == 1_000_000_000e18);
    }

    function check_linear_never_exceeds(uint40 elapsed) public pure {
        assert(Allocation.freeDown(Part.Community, elapsed) <= Allocation.size(Part.Community));
        assert(Allocation.freeDown(Part.Team, elapsed) <= Allocation.size(Part.Team));
        assert(Allocation.freeDown(Part.Investors, elapsed) <= Allocation.size(Part.Investors));
    }

    function check_linear_never_falls(uint40 elapsed) public pure {
        uint256 later = uint256(elapsed) + 1;
        assert(Allocation.freeDown(Part.Community, elapsed) <= Allocation.freeDown(Part.Community, later));
        assert(Allocation.freeDown(Part.Team, elapsed) <= Allocation.freeDown(Part.Team, later));
        assert(Allocation.freeDown(Part.Investors, elapsed) <= Allocation.freeDown(Part.Investors, later));
    }

    function check_nodes_never_exceed(uint40 elapsed) public pure {
        assert(Allocation.freeDown(Part.Nodes, elapsed) <= Allocation.size(Part.Nodes));
    }

    function check_nodes_never_fall(uint40 elapsed) public pure {
        assert(Allocation.freeDown(Part.Nodes, elapsed) <= Allocation.freeDown(Part.Nodes, uint256(elapsed) + 1));
    }

    function check_every_part_ends_exactly(uint256 part, uint256 elapsed) public pure {
        if (part >= PARTS || elapsed < 3650 days) return;
        assert(Allocation.freeDown(Part(part), elapsed) == Allocation.size(Part(part)));
    }
}
