// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rules} from "../../src/Rules.sol";
import {Powers} from "../../src/libraries/judge/Powers.sol";
import {Base} from "../Base.sol";
import {Plain} from "./Plain.sol";

/// @notice The rules give the numbers that an independent implementation gives, and what is computed eight at a time is
/// what comes out one by one.
contract RulesTest is Base {
    struct RuleCase {
        bytes arguments;
        string error;
        string name;
        bytes result;
        string signature;
    }

    Rules private rules;

    function setUp() public {
        rules = new Rules();
    }

    function test_the_rules_give_the_golden_vectors() public view {
        string memory json = vm.readFile("../tests/vectors/ops.json");
        bytes memory encoded = vm.parseJsonTypeArray(
            json, ".cases", "RuleCase(bytes arguments,string error,string name,bytes result,string signature)"
        );
        RuleCase[] memory cases = abi.decode(encoded, (RuleCase[]));
        assertGt(cases.length, 500);
        for (uint256 i; i < cases.length; ++i) {
            RuleCase memory c = cases[i];
            (bool judged, bytes memory out) =
                address(rules).staticcall(bytes.concat(selector(c.signature), c.arguments));
            assertTrue(judged == (bytes(c.error).length == 0), c.name);
            bytes memory expected = judged ? c.result : bytes.concat(selector(c.error), c.result);
            assertEq(keccak256(out), keccak256(expected), c.name);
        }
    }

    function selector(string memory signature) private pure returns (bytes4) {
        return bytes4(keccak256(bytes(signature)));
    }

    function test_the_tables_are_the_ones_everybody_uses() public pure {
        uint256 tables = Powers.load();
        bytes memory words = new bytes(2048);
        assembly ("memory-safe") {
            mcopy(add(words, 32), tables, 2048)
        }
        assertEq(sha256(words), 0x01d6f32577f78e37c47ab5e98fbfbe44e1e1e65e834ff0a8b1a7f6d2a90e447f);
    }

    /// A leaf whose numbers are never -128 and whose scales are never zero nor, if so wanted, above 32767.
    function leafOf(bytes memory head, bytes32[4] memory numbers, uint64 scales, bool narrow)
        private
        pure
        returns (bytes memory leaf)
    {
        uint64 clear = narrow ? 0x7fff7fff7fff7fff : type(uint64).max;
        leaf = bytes.concat(head, bytes8((scales & clear) | 0x0001000100010001));
        for (uint256 i; i < 4; ++i) {
            leaf = bytes.concat(leaf, numbers[i]);
        }
        for (uint256 i = head.length + 8; i < leaf.length; ++i) {
            if (leaf[i] == 0) leaf[i] = 0x01;
        }
    }

    function testFuzz_packed_products_are_the_plain_ones(
        bytes32[4] memory w,
        bytes32[4] memory x,
        uint64 ws,
        uint64 xs,
        uint8 e
    ) public view {
        bytes memory weights = leafOf(bytes.concat(bytes1(0x01), bytes1(e)), w, ws, false);
        bytes memory left = leafOf("", w, ws, true);
        bytes memory right = leafOf("", x, xs, true);
        assertTrue(rules.chunk(weights, right) == Plain.chunk(weights, right), "weights");
        assertTrue(rules.chunkOfRecords(left, right) == Plain.chunkOfRecords(left, right), "records");
    }

    function test_packed_products_hold_at_the_edges() public view {
        bytes32[4] memory least;
        bytes32[4] memory most;
        for (uint256 i; i < 4; ++i) {
            least[i] = bytes32(uint256(0x0101010101010101010101010101010101010101010101010101010101010101));
            most[i] = bytes32(type(uint256).max);
        }
        for (uint256 signs; signs < 4; ++signs) {
            bytes32[4] memory w = signs & 1 == 0 ? least : most;
            bytes32[4] memory x = signs & 2 == 0 ? least : most;
            bytes memory weights = leafOf(hex"0180", w, type(uint64).max, false);
            bytes memory right = leafOf("", x, type(uint64).max, true);
            assertTrue(rules.chunk(weights, right) == Plain.chunk(weights, right), "plain");
            int256 product = 127 * 127 * int256(128) * 65_535 * 32_767;
            assertTrue(rules.chunk(weights, right) == (signs == 0 || signs == 3 ? product : -product), "exact");
        }
    }
}
