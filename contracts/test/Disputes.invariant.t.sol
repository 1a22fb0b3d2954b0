// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Disputes} from "../src/Disputes.sol";
import {Branch, Case, Dispute, Filing, Phase} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Doubt, Focus, Opening} from "../src/libraries/dispute/Exhibits.sol";
import {Steps} from "../src/libraries/dispute/Steps.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice Plays many disputes about a true and a false receipt at once, in any order, and keeps the books of who put
/// in what.
contract DisputesHandler is DisputeFixture {
    uint256 private constant SUM = Steps.RESIDUAL_1;
    bytes private x;
    bytes[2] private sums;
    Filing[2] private filings;
    bytes32[2] public digests;
    bytes[2] private said;
    uint256[] private ids;
    mapping(uint256 id => uint256 which) private whichOf;
    address[] private people;
    /// Bonds put in, and paid.
    uint256 public inward;
    uint256 public outward;
    uint256 public punished;

    constructor() {
        setUp();
        program[SUM] = step(SUM, [uint32(0), 17, NONE, NONE], NONE, 32, 1, 12, 12);
        x = fixedLeaf(50);
        for (int32 i; i < 32; ++i) {
            sums[0] = abi.encodePacked(sums[0], 100 + 2 * i);
            sums[1] = abi.encodePacked(sums[1], 101 + 2 * i);
        }
        (ops[0], ops[17]) = (leafHash(x), leafHash(x));
        for (uint256 which; which < 2; ++which) {
            answer();
            filed.receipt.text = bytes32(which);
            resign();
            filings[which] = filed;
            digests[which] = digestOf();
            said[which] = facts;
        }
        people.push(ada);
        people.push(challenger("bob"));
        people.push(challenger("carol"));
    }

    function file(uint256 who, uint256 which) external {
        which %= 2;
        if (disputes.caseOf(digests[which]).guilty) return;
        address by = people[who % 3];
        if (token.balanceOf(by) < BOND) return;
        vm.prank(by);
        uint256 id = disputes.open(filings[which]);
        ids.push(id);
        whichOf[id] = which;
        inward += BOND;
    }

    function pickId(uint256 seed) private view returns (uint256) {
        return ids.length == 0 ? 0 : ids[seed % ids.length];
    }

    function move(uint256 seed) external {
        uint256 id = pickId(seed);
        if (id == 0) return;
        Dispute memory dispute = disputes.disputeOf(id);
        bool challenging = dispute.phase == Phase.Pick;
        uint256 left = challenging ? dispute.challengerLeft : dispute.defenderLeft;
        if (block.timestamp - dispute.movedAt > left) return;
        uint256 which = whichOf[id];
        ops[SUM] = leafHash(sums[which]);
        facts = said[which];
        if (dispute.phase == Phase.Commit) commit(id);
        else if (challenging) nameAt(id, SUM, 0, sums[which], new bytes32[](0), uint8(seed % 32), Doubt.Element);
        else if (dispute.phase == Phase.Prove) _prove(id, which, uint8(seed % 32));
    }

    function _prove(uint256 id, uint256 which, uint8 guess) private {
        if (disputes.caseOf(digests[which]).guilty) return;
        Focus memory focus;
        (focus.position, focus.op) = (uint32(POSITION), uint32(SUM));
        (focus.positionDepth, focus.opDepth) = (2, 6);
        (focus.node, focus.here, focus.step) = (leafHash(sums[which]), root(ops), program[SUM]);
        bytes32 point = disputes.disputeOf(id).point;
        for (uint8 i; i < 32; ++i) {
            focus.element = (guess + i) % 32;
            if (keccak256(abi.encode(focus)) == point) break;
        }
        Opening[] memory openings = new Opening[](3);
        openings[0] = bare(sums[which]);
        openings[1] = open_(x, inPosition(0));
        openings[2] = open_(x, inPosition(17));
        disputes.prove(id, focus, "", noRounds(), openings);
    }

    function late(uint256 seed) external {
        uint256 id = pickId(seed);
        if (id == 0) return;
        Dispute memory dispute = disputes.disputeOf(id);
        if (dispute.phase == Phase.None || dispute.phase >= Phase.Lost) return;
        if (disputes.caseOf(dispute.receipt).guilty) return;
        uint256 left = dispute.phase == Phase.Pick ? dispute.challengerLeft : dispute.defenderLeft;
        if (block.timestamp - dispute.movedAt > left) disputes.timeout(id);
    }

    function wait(uint256 time) external {
        skip(time % (CLOCK / 2));
    }

    function close(uint256 seed) external {
        uint256 id = pickId(seed);
        if (id == 0) return;
        try disputes.close(id) {
            outward += BOND;
        } catch {}
    }

    function punish(uint256 which) external {
        try disputes.punish(digests[which % 2]) {
            ++punished;
        } catch {}
    }

    /// Bonds of disputes that were not closed.
    function owed() external view returns (uint256 sum) {
        for (uint256 i; i < ids.length; ++i) {
            Phase phase = disputes.disputeOf(ids[i]).phase;
            if (phase != Phase.Forfeited && phase != Phase.Returned) sum += BOND;
        }
    }

    function held() external view returns (uint256) {
        return token.balanceOf(address(disputes));
    }

    /// All ASY there is, and where it can be.
    function books() external view returns (uint256 supply, uint256 found) {
        supply = token.totalSupply();
        found = token.balanceOf(address(this)) + token.balanceOf(owner) + token.balanceOf(address(disputes))
            + token.balanceOf(address(providers));
        for (uint256 i; i < people.length; ++i) {
            found += token.balanceOf(people[i]);
        }
    }

    function guilty(uint256 which) external view returns (bool) {
        return disputes.caseOf(digests[which]).guilty;
    }

    /// Whether the defender was silent in a dispute about the true receipt.
    function silent() external view returns (bool) {
        for (uint256 i; i < ids.length; ++i) {
            Dispute memory dispute = disputes.disputeOf(ids[i]);
            if (whichOf[ids[i]] == 0 && dispute.phase == Phase.Won) return true;
        }
        return false;
    }
}

/// @notice What holds whatever is played.
contract DisputesInvariantTest is DisputeFixture {
    DisputesHandler private handler;

    function setUp() public override {
        vm.warp(1_800_000_000);
        handler = new DisputesHandler();
        targetContract(address(handler));
        bytes4[] memory moves = new bytes4[](6);
        moves[0] = DisputesHandler.file.selector;
        moves[1] = DisputesHandler.move.selector;
        moves[2] = DisputesHandler.late.selector;
        moves[3] = DisputesHandler.wait.selector;
        moves[4] = DisputesHandler.close.selector;
        moves[5] = DisputesHandler.punish.selector;
        targetSelector(FuzzSelector(address(handler), moves));
    }

    /// Bonds in are bonds out and bonds held, and those held are those owed.
    function invariant_bonds_are_paid_once() public view {
        assertEq(handler.held(), handler.owed());
        assertEq(handler.inward(), handler.outward() + handler.held());
    }

    /// Nothing is made, and what is gone was burned.
    function invariant_the_books_balance() public view {
        (uint256 supply, uint256 found) = handler.books();
        assertEq(supply, found);
    }

    function invariant_each_receipt_is_punished_once_at_most() public view {
        uint256 most = (handler.guilty(0) ? 1 : 0) + (handler.guilty(1) ? 1 : 0);
        assertLe(handler.punished(), most);
    }
}
