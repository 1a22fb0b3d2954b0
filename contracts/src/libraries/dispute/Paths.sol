// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Branch, Dispute, IDisputes} from "../../interfaces/IDisputes.sol";
import {Merkle} from "../Merkle.sol";
import {Trees} from "./Trees.sol";

/// @notice Where a branch of a trace's three trees ends.
struct End {
    /// Levels of the tree over positions, and of the one over ops.
    uint256 top;
    uint256 ops;
    /// Levels down to the end, and all turns to it.
    uint256 depth;
    uint256 path;
}

/// @notice The way from a trace's root to a leaf: a tree over positions, one over ops, one over the op's leaves.
library Paths {
    /// The longest way, in levels.
    uint256 private constant LONGEST = 128;

    /// @notice Where a branch ends that begins where a dispute stands.
    function end(Dispute memory dispute, Branch calldata branch) internal pure returns (End memory) {
        return end(dispute, branch.turns, branch.proof.length);
    }

    /// @notice Where so many turns end that begin where a dispute stands.
    function end(Dispute memory dispute, uint256 turns, uint256 levels) internal pure returns (End memory) {
        uint256 depth = dispute.depth + levels;
        require(depth < LONGEST, IDisputes.WrongDepth(depth, 0, LONGEST - 1));
        require(turns >> levels == 0, IDisputes.BadTurns(turns, levels));
        return End({
            top: Merkle.depth(dispute.positions),
            ops: Merkle.depth(uint256(dispute.steps) + 1),
            depth: depth,
            path: uint256(dispute.path) << levels | turns
        });
    }

    /// @notice Position, op and leaf at the end of a path that leads to an op's root at least.
    function places(End memory at) internal pure returns (uint256 position, uint256 op, uint256 leaf) {
        uint256 least = at.top + at.ops;
        require(at.depth >= least, IDisputes.WrongDepth(at.depth, least, LONGEST - 1));
        uint256 below = at.depth - least;
        position = at.path >> (below + at.ops);
        op = at.path >> below & ((1 << at.ops) - 1);
        leaf = at.path & ((1 << below) - 1);
    }

    /// @notice Checks that a branch hangs from the node where the dispute stands.
    /// @return here The root of the position that its end lies in; zero above it.
    function climb(Dispute memory dispute, Branch calldata branch, End memory at) internal pure returns (bytes32 here) {
        // At depth 0 and with a single position the root is the position's.
        bool enters = at.depth >= at.top && (dispute.depth < at.top || dispute.depth == 0);
        (bytes32 found, bytes32 passed) =
            Trees.climb(branch.node, branch.turns, branch.proof, enters ? at.depth - at.top : 0);
        require(found == dispute.point, IDisputes.NotBelow(found, dispute.point));
        return enters ? passed : dispute.here;
    }
}
