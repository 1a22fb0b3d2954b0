// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IReceipts, Period, Span} from "../src/interfaces/IReceipts.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Receipts} from "../src/Receipts.sol";
import {Base} from "./Base.sol";

/// @notice Receipts are posted in unbroken chains, remembered with their time, and provable.
contract ReceiptsTest is Base {
    bytes32 private constant CHANNEL = keccak256("channel");
    bytes32 private constant OTHER = keccak256("other");
    bytes32 private constant ROOT = keccak256("root");
    uint48 private constant START = 1_800_000_000;

    Receipts private receipts;
    address private ada;

    function setUp() public {
        vm.warp(START);
        receipts = new Receipts();
        ada = makeAddr("ada");
    }

    function spans(bytes32 channel, uint128 from, uint128 until) private pure returns (Span[] memory list) {
        list = new Span[](1);
        list[0] = Span(channel, from, until);
    }

    function post(Span[] memory list) private returns (uint256) {
        vm.prank(ada);
        return receipts.post(ada, ROOT, 3, list);
    }

    function test_a_period_is_numbered_dated_and_told() public {
        Span[] memory list = spans(CHANNEL, 0, 10);
        vm.expectEmit(address(receipts));
        emit IReceipts.Posted(ada, 0, ROOT, 3, list);
        assertEq(post(list), 0);
        skip(5);
        assertEq(post(new Span[](0)), 1);
        assertEq(receipts.periods(ada), 2);
        Period memory second = receipts.periodOf(ada, 1);
        assertEq(second.root, ROOT);
        assertEq(second.count, 3);
        assertEq(second.posted, START + 5);
    }

    function test_only_the_provider_and_its_poster_post() public {
        address bob = makeAddr("bob");
        Span[] memory none = new Span[](0);
        vm.expectRevert(abi.encodeWithSelector(IReceipts.NotPoster.selector, bob, ada, address(0)));
        vm.prank(bob);
        receipts.post(ada, ROOT, 1, none);
        vm.prank(ada);
        receipts.appoint(bob);
        vm.prank(bob);
        receipts.post(ada, ROOT, 1, none);
        post(none);
        vm.prank(ada);
        receipts.appoint(address(0));
        vm.expectPartialRevert(IReceipts.NotPoster.selector);
        vm.prank(bob);
        receipts.post(ada, ROOT, 1, none);
    }

    function test_a_chain_has_no_gap_no_overlap_and_no_standstill() public {
        post(spans(CHANNEL, 0, 10));
        vm.expectRevert(abi.encodeWithSelector(IReceipts.Broken.selector, CHANNEL, 11, 10));
        post(spans(CHANNEL, 11, 12));
        vm.expectRevert(abi.encodeWithSelector(IReceipts.Broken.selector, CHANNEL, 9, 10));
        post(spans(CHANNEL, 9, 12));
        vm.expectRevert(abi.encodeWithSelector(IReceipts.EmptySpan.selector, CHANNEL, 10, 10));
        post(spans(CHANNEL, 10, 10));
        vm.expectRevert(abi.encodeWithSelector(IReceipts.EmptySpan.selector, CHANNEL, 10, 4));
        post(spans(CHANNEL, 10, 4));
        vm.expectRevert(abi.encodeWithSelector(IReceipts.Broken.selector, OTHER, 1, 0));
        post(spans(OTHER, 1, 2));
        vm.expectRevert(IReceipts.NoReceipts.selector);
        vm.prank(ada);
        receipts.post(ada, ROOT, 0, new Span[](0));
        post(spans(CHANNEL, 10, 11));
        assertEq(receipts.covered(ada, CHANNEL), 11);
    }

    function test_one_provider_does_not_cover_for_another() public {
        post(spans(CHANNEL, 0, 10));
        address bob = makeAddr("bob");
        assertEq(receipts.covered(bob, CHANNEL), 0);
        vm.prank(bob);
        receipts.post(bob, ROOT, 1, spans(CHANNEL, 0, 4));
        assertEq(receipts.covered(ada, CHANNEL), 10);
        assertEq(receipts.covered(bob, CHANNEL), 4);
    }

    function test_coverage_is_known_for_every_second() public {
        post(spans(CHANNEL, 0, 10));
        post(spans(CHANNEL, 10, 20));
        skip(100);
        post(spans(CHANNEL, 20, 30));
        assertEq(receipts.covered(ada, CHANNEL, START - 1), 0);
        assertEq(receipts.covered(ada, CHANNEL, START), 20);
        assertEq(receipts.covered(ada, CHANNEL, START + 99), 20);
        assertEq(receipts.covered(ada, CHANNEL, START + 100), 30);
        assertEq(receipts.covered(ada, CHANNEL, type(uint48).max), 30);
    }

    /// Coverage only grows, with time and with posts, and any moment's is what was posted by then.
    function testFuzz_coverage_is_what_was_posted_by_then(uint16[8] memory sizes, uint16[8] memory pauses) public {
        uint128 position;
        uint48[8] memory times;
        uint128[8] memory positions;
        for (uint256 i; i < 8; ++i) {
            skip(uint256(pauses[i]) + 1);
            uint128 next = position + sizes[i] + 1;
            post(spans(CHANNEL, position, next));
            (times[i], positions[i], position) = (uint48(vm.getBlockTimestamp()), next, next);
        }
        for (uint256 i; i < 8; ++i) {
            assertEq(receipts.covered(ada, CHANNEL, times[i]), positions[i]);
            assertEq(receipts.covered(ada, CHANNEL, times[i] - 1), i == 0 ? 0 : positions[i - 1]);
        }
    }

    function test_trees_and_proofs_are_those_of_the_golden_vectors() public {
        string memory json = vm.readFile("../tests/vectors/receipts.json");
        uint256 cases;
        for (; vm.keyExistsJson(json, string.concat(".cases[", vm.toString(cases), "]")); ++cases) {
            string memory at = string.concat(".cases[", vm.toString(cases), "].");
            bytes32[] memory digests = vm.parseJsonBytes32Array(json, string.concat(at, "digests"));
            bytes32 root = vm.parseJsonBytes32(json, string.concat(at, "root"));
            vm.prank(ada);
            uint256 period = receipts.post(ada, root, uint64(digests.length), new Span[](0));
            for (uint256 i; i < digests.length; ++i) {
                string memory key = string.concat(at, "proofs[", vm.toString(i), "]");
                checkProof(period, i, digests, vm.parseJsonBytes32Array(json, key));
            }
        }
        assertEq(cases, 5);
    }

    function checkProof(uint256 period, uint256 index, bytes32[] memory digests, bytes32[] memory proof) private view {
        bytes32 digest = digests[index];
        assertTrue(receipts.includes(ada, period, index, digest, proof));
        assertFalse(receipts.includes(ada, period, index, keccak256("forged"), proof));
        assertFalse(receipts.includes(ada, period, index + digests.length, digest, proof));
        if (digests.length > 1) assertFalse(receipts.includes(ada, period, index ^ 1, digest, proof));
        bytes32[] memory longer = new bytes32[](proof.length + 1);
        for (uint256 i; i < proof.length; ++i) {
            longer[i] = proof[i];
        }
        assertFalse(receipts.includes(ada, period, index, digest, longer));
    }

    function test_a_node_does_not_pass_for_a_receipt() public {
        bytes32 left = Merkle.leaf(keccak256("left"));
        bytes32 right = Merkle.leaf(keccak256("right"));
        bytes32 root = keccak256(abi.encodePacked(left, right));
        vm.prank(ada);
        receipts.post(ada, root, 2, new Span[](0));
        assertFalse(receipts.includes(ada, 0, 0, root, new bytes32[](0)));
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = right;
        assertFalse(receipts.includes(ada, 0, 0, left, proof));
        assertTrue(receipts.includes(ada, 0, 0, keccak256("left"), proof));
    }

    function test_a_period_that_was_not_posted_is_an_error() public {
        vm.expectRevert(abi.encodeWithSelector(IReceipts.NoSuchPeriod.selector, 0, 0));
        receipts.includes(ada, 0, 0, ROOT, new bytes32[](0));
    }

    function test_gas() public {
        post(spans(CHANNEL, 0, 10));
        vm.snapshotGasLastCall("Receipts", "post, first span of a channel");
        skip(60);
        post(spans(CHANNEL, 10, 20));
        vm.snapshotGasLastCall("Receipts", "post, one span");
        skip(60);
        post(new Span[](0));
        vm.snapshotGasLastCall("Receipts", "post, no span");
        Span[] memory many = new Span[](100);
        for (uint256 i; i < 100; ++i) {
            many[i] = Span(keccak256(abi.encode(i)), 0, 5);
        }
        post(many);
        skip(60);
        for (uint256 i; i < 100; ++i) {
            many[i] = Span(keccak256(abi.encode(i)), 5, 10);
        }
        post(many);
        vm.snapshotGasLastCall("Receipts", "post, 100 spans");
        vm.prank(ada);
        receipts.appoint(address(this));
        vm.snapshotGasLastCall("Receipts", "appoint");
    }
}
