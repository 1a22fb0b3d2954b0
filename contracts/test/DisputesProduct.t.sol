// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Branch, Phase} from "../src/interfaces/IDisputes.sol";
import {Doubt, Facts, Focus, IJudge, Opening, Round} from "../src/libraries/dispute/Exhibits.sol";
import {Steps} from "../src/libraries/dispute/Steps.sol";
import {Products} from "../src/libraries/judge/Products.sol";
import {Tensor} from "../src/types/Manifest.sol";
import {DisputeFixture} from "./DisputeFixture.sol";
import {Meter} from "./judge/JudgeGas.t.sol";

/// @notice The game over one element of a matrix product of 4,096 columns, and what it costs.
contract DisputesProductTest is DisputeFixture {
    uint256 private constant INPUT = 21;
    uint256 private constant GATE = Steps.GATE;
    uint32 private constant COLUMNS = 4096;
    uint256 private constant CHUNKS = 32;
    /// The chunk that is wrong in a false list.
    uint32 private constant WRONG = 5;
    uint256 private constant ROW = 3;

    bytes[] private xs;
    bytes[] private ws;
    bytes32[] private inputs;
    /// Siblings of the row's leaves within the row, and above it.
    bytes32[] private rowHashes;
    bytes32[] private above;
    bytes private partials;
    bytes private leaf;
    int256 private sum;

    function setUp() public override {
        super.setUp();
        // 2^19 rows of 32 leaves: the weight tree has 24 levels.
        table.push(Tensor(1, 1 << 19, COLUMNS, 0));
        program[INPUT] = step(INPUT, [uint32(20), NONE, NONE, NONE], NONE, COLUMNS, 32, 12, 12);
        program[GATE] = step(GATE, [uint32(INPUT), NONE, NONE, NONE], 0, 32, COLUMNS, 12, 16);
        for (uint256 i; i < CHUNKS; ++i) {
            xs.push(activations(i));
            ws.push(weights(1000 + i));
            inputs.push(leafHash(xs[i]));
            rowHashes.push(leafHash(ws[i]));
            int64 partial_ = this.chunk(ws[i], xs[i]);
            sum += partial_;
            partials = abi.encodePacked(partials, partial_);
        }
        bytes32 top = root(rowHashes);
        for (uint256 l; l < 19; ++l) {
            above.push(keccak256(abi.encode("sibling", l)));
            top = ROW >> l & 1 == 0 ? keccak256(bytes.concat(top, above[l])) : keccak256(bytes.concat(above[l], top));
        }
        weightsRoot = top;
        ops[INPUT] = root(inputs);
        answer();
        claim(element());
    }

    function chunk(bytes calldata w, bytes calldata x) external pure returns (int64) {
        return Products.chunk(w, x);
    }

    function element() private view returns (int32) {
        // Exponent 25, fraction bits 12 and 16.
        int256 rounded = (sum + (1 << 20)) >> 21;
        return
            rounded > type(int32).max ? type(int32).max : rounded < type(int32).min ? type(int32).min : int32(rounded);
    }

    /// Writes what the trace says of the element.
    function claim(int32 value) private {
        leaf = "";
        for (uint256 i; i < 32; ++i) {
            leaf = abi.encodePacked(leaf, i == ROW ? value : int32(0));
        }
        ops[GATE] = leafHash(leaf);
    }

    function weightProof(uint256 entry) private view returns (bytes32[] memory) {
        return join(proofOf(rowHashes, entry), above);
    }

    function part(uint32 entry) private view returns (Opening[] memory openings) {
        openings = new Opening[](3);
        openings[0] = bare(leaf);
        openings[1] = open_(ws[entry], weightProof(entry));
        openings[2] = open_(xs[entry], join(proofOf(inputs, entry), inPosition(INPUT)));
    }

    function whole() private view returns (Opening[] memory openings) {
        openings = new Opening[](3);
        openings[0] = bare(leaf);
        bytes memory x;
        bytes memory w;
        for (uint256 i; i < CHUNKS; ++i) {
            (x, w) = (bytes.concat(x, xs[i]), bytes.concat(w, ws[i]));
        }
        openings[1] = open_(x, inPosition(INPUT));
        openings[2] = open_(w, above);
    }

    function named() private returns (uint256 id, Focus memory focus) {
        id = begin(ada);
        commit(id);
        focus = nameAt(id, GATE, 0, leaf, new bytes32[](0), uint8(ROW), Doubt.Element);
        Facts memory said = abi.decode(facts, (Facts));
        assertEq(said.spec.weightLeaves, 1 << 24);
    }

    function listed(uint256 id, uint32 entry) private returns (Round[] memory rounds) {
        vm.prank(operator);
        disputes.list(id, partials, "");
        vm.prank(ada);
        disputes.choose(id, entry);
        rounds = new Round[](1);
        rounds[0] = Round(partials, entry);
    }

    function test_no_partial_sum_of_an_honest_row_wins(uint32 entry) public {
        (uint256 id, Focus memory focus) = named();
        // Beyond the list there is nothing to doubt.
        entry = uint32(bound(entry, 0, 40));
        Round[] memory rounds = listed(id, entry);
        disputes.prove(id, focus, "", rounds, part(entry < CHUNKS ? entry : 0));
        assertTrue(phaseOf(id) == Phase.Lost);
    }

    function test_a_false_partial_sum_is_found() public {
        claim(element() + 1);
        // What makes up for the element: the partial sums give it, but one of them is false.
        int64 moved = int64(uint64(uint256(word(WRONG)))) + (1 << 21);
        bytes8 lie = bytes8(uint64(moved));
        for (uint256 i; i < 8; ++i) {
            partials[8 * WRONG + i] = lie[i];
        }
        (uint256 id, Focus memory focus) = named();
        vm.prank(operator);
        disputes.list(id, partials, "");
        vm.snapshotGasLastCall("Disputes", "list, 32 partial sums");
        vm.prank(ada);
        disputes.choose(id, WRONG);
        vm.snapshotGasLastCall("Disputes", "choose");
        Round[] memory rounds = new Round[](1);
        rounds[0] = Round(partials, WRONG);
        bytes memory call = abi.encodeCall(disputes.prove, (id, focus, "", rounds, part(WRONG)));
        bytes memory question =
            abi.encodeCall(IJudge.judge, (disputes.disputeOf(id).trace, focus, "", rounds, part(WRONG)));
        vm.snapshotValue(
            "Disputes", "judge, K = 4096, its rule alone", new Meter().measure(address(disputes.vectors()), question)
        );
        disputes.prove(id, focus, "", rounds, part(WRONG));
        uint256 charged = vm.snapshotGasLastCall("Disputes", "judge, K = 4096, charged");
        uint256 data = carried(call);
        // EIP-7623: 4 a token and what is executed, at least 10 a token.
        assertGt(charged, 21_000 + 10 * data);
        vm.snapshotValue("Disputes", "judge, K = 4096, execution", charged - 21_000 - 4 * data);
        assertLe(charged, 120_000);
        assertTrue(phaseOf(id) == Phase.Won);
    }

    /// Tokens of calldata, as EIP-7623 counts them.
    function carried(bytes memory call) private pure returns (uint256 count) {
        for (uint256 i; i < call.length; ++i) {
            count += call[i] == 0 ? 1 : 4;
        }
    }

    function word(uint256 entry) private view returns (bytes32) {
        bytes memory list = partials;
        uint256 value;
        for (uint256 i; i < 8; ++i) {
            value = value << 8 | uint8(list[8 * entry + i]);
        }
        return bytes32(value);
    }

    function test_partial_sums_must_give_the_element() public {
        claim(element() + 1);
        (uint256 id, Focus memory focus) = named();
        Round[] memory rounds = listed(id, 0);
        disputes.prove(id, focus, "", rounds, part(0));
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_a_whole_row_is_judged_at_once() public {
        claim(element() + 1);
        (uint256 id, Focus memory focus) = named();
        disputes.prove(id, focus, "", noRounds(), whole());
        vm.snapshotGasLastCall("Disputes", "judge a whole row, K = 4096, charged");
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_a_whole_honest_row_is_the_challengers_loss() public {
        (uint256 id, Focus memory focus) = named();
        disputes.prove(id, focus, "", noRounds(), whole());
        assertTrue(phaseOf(id) == Phase.Lost);
    }

    function test_a_list_of_another_length_proves_nothing() public {
        partials = bytes.concat(partials, bytes8(0));
        (uint256 id, Focus memory focus) = named();
        Round[] memory rounds = listed(id, 0);
        vm.expectRevert();
        disputes.prove(id, focus, "", rounds, part(0));
        skip(CLOCK + 1);
        disputes.timeout(id);
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_another_list_than_the_revealed_one_is_refused() public {
        (uint256 id, Focus memory focus) = named();
        Round[] memory rounds = listed(id, 0);
        rounds[0].list = bytes.concat(partials, bytes8(0));
        vm.expectRevert();
        disputes.prove(id, focus, "", rounds, part(0));
    }
}
