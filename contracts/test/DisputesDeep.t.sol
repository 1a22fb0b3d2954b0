// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Accusation, Branch, OpenStep, Phase} from "../src/interfaces/IDisputes.sol";
import {Doubt, Focus, Opening, Round} from "../src/libraries/dispute/Exhibits.sol";
import {StepLeaf} from "../src/libraries/dispute/Steps.sol";
import {Words} from "../src/libraries/Words.sol";
import {Manifest, Shape, Tensor} from "../src/types/Manifest.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice A dispute over a trace as deep as that of a model of half a billion parameters and a thousand tokens, with
/// every level revealed on chain, and with nodes from the provider's server.
contract DisputesDeepTest is DisputeFixture {
    uint256 private constant AT = 511;
    uint256 private constant OP = 22;
    uint256 private constant INPUT = 23;
    uint256 private constant LEAF = 77;
    uint256 private constant CHUNKS = 7;
    /// Levels of the groups that reveals show, from the root.
    uint8[8] private sizes = [4, 4, 2, 4, 4, 2, 4, 4];
    bytes32[][8] private groups;
    uint256 private path = (AT << 10 | OP) << 8 | LEAF;
    bytes private leaf;
    bytes private partials;
    bytes private x;
    bytes private w;
    bytes32[] private xProof;
    bytes32[] private wProof;
    bytes32[] private stepProof;
    bytes32 private programRoot;
    bytes32 private committed;
    bytes32 private position;
    uint256 private spent;

    function manifestDeep() private view returns (Manifest memory found) {
        found = manifest();
        found.shape = Shape(896, 24, 14, 2, 64, 4864, 151_936, 2048);
        found.parts.program = programRoot;
    }

    function setUp() public override {
        super.setUp();
        (x, w) = (activations(1), weights(2));
        table.push(Tensor(1, 1 << 19, 896, 0));
        (weightsRoot, wProof) = lonely(w, 32 * LEAF * CHUNKS, 22);
        program[OP] = step(OP, [uint32(INPUT), NONE, NONE, NONE], 0, 4864, 896, 12, 16);
        (programRoot, stepProof) = lonely(abi.encodePacked(program[OP].head, program[OP].tail), OP, 10);
        answer();
        filed.order.model = specs.file(manifestDeep());
        (filed.order.promptTokens, filed.order.maxTokens, filed.receipt.outputTokens) = (1000, 25, 25);
        resign();
        // Partial sums that give another element.
        partials = new bytes(8 * CHUNKS);
        leaf = fixedLeaf(12_345);
        _write();
    }

    function _write() private {
        bytes32 inputRoot;
        (inputRoot, xProof) = lonely(x, 0, 3);
        bytes32 node = leafHash(leaf);
        uint256 left = path;
        for (uint256 above = 8; above > 0; --above) {
            uint256 g = above - 1;
            uint256 count = 1 << sizes[g];
            uint256 place = left & (count - 1);
            bytes32[] memory nodes = new bytes32[](count);
            for (uint256 i; i < count; ++i) {
                nodes[i] = i == place ? node : keccak256(abi.encode(g, i));
            }
            if (g == 5) nodes[INPUT & 3] = inputRoot;
            groups[g] = nodes;
            node = root(nodes);
            if (g == 3) position = node;
            left >>= sizes[g];
        }
        committed = node;
        xProof = join(xProof, proofOf(groups[5], INPUT & 3));
        xProof = join(xProof, proofOf(groups[4], OP >> 2 & 15));
        xProof = join(xProof, proofOf(groups[3], OP >> 6 & 15));
    }

    /// The branch through group `g`.
    function through(uint256 g) private view returns (Branch memory) {
        uint256 below;
        for (uint256 i = g + 1; i < 8; ++i) {
            below += sizes[i];
        }
        uint256 place = path >> below & ((1 << sizes[g]) - 1);
        return Branch(uint128(place), groups[g][place], proofOf(groups[g], place));
    }

    function count_() private {
        spent += vm.lastCallGas().gasTotalUsed;
    }

    function accusation() private view returns (Accusation memory found) {
        found.step = OpenStep(program[OP], stepProof, facts);
        found.tensor = table[0];
    }

    function begun() private returns (uint256 id) {
        id = begin(ada);
        count_();
        vm.prank(operator);
        disputes.commit(id, committed, "");
        count_();
    }

    function finish(uint256 id) private {
        vm.prank(operator);
        disputes.list(id, partials, "");
        count_();
        vm.prank(ada);
        disputes.choose(id, 0);
        count_();
        Focus memory focus;
        (focus.position, focus.op, focus.leaf) = (uint32(AT), uint32(OP), uint64(LEAF));
        (focus.positionDepth, focus.opDepth, focus.weightDepth) = (10, 10, 22);
        (focus.node, focus.here, focus.step, focus.weights) = (leafHash(leaf), position, program[OP], weightsRoot);
        Round[] memory rounds = new Round[](1);
        rounds[0] = Round(partials, 0);
        Opening[] memory openings = new Opening[](3);
        (openings[0], openings[1], openings[2]) = (bare(leaf), open_(w, wProof), open_(x, xProof));
        disputes.prove(id, focus, "", rounds, openings);
        count_();
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_every_level_on_chain() public {
        uint256 id = begun();
        vm.prank(ada);
        disputes.pick(id, Branch(0, committed, new bytes32[](0)));
        count_();
        for (uint256 g; g < 8; ++g) {
            disputes.reveal(id, groups[g]);
            count_();
            Branch memory branch = through(g);
            vm.prank(ada);
            if (g == 5) disputes.pickWithin(id, branch, accusation().step);
            else if (g == 7) disputes.name(id, branch, accusation());
            else disputes.pick(id, branch);
            count_();
        }
        finish(id);
        vm.snapshotValue("Disputes", "whole dispute, 28 levels revealed", spent);
    }

    function test_nodes_from_a_server() public {
        uint256 id = begun();
        bytes32[] memory proof = new bytes32[](0);
        for (uint256 g = 8; g > 0; --g) {
            proof = join(proof, through(g - 1).proof);
        }
        vm.prank(ada);
        disputes.name(id, Branch(uint128(path), leafHash(leaf), proof), accusation());
        count_();
        finish(id);
        vm.snapshotValue("Disputes", "whole dispute, 28 levels jumped", spent);
        assertLe(spent, 1_000_000);
    }
}
