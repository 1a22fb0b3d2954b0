// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Grants} from "../src/Grants.sol";
import {IGrants} from "../src/interfaces/IGrants.sol";
import {Base} from "./Base.sol";

/// @notice Only an issuer takes its grants back, and for good.
contract GrantsTest is Base {
    Grants private grants;

    function setUp() public {
        grants = new Grants();
    }

    function list(bytes32 one, bytes32 other) private pure returns (bytes32[] memory all) {
        all = new bytes32[](2);
        (all[0], all[1]) = (one, other);
    }

    function testFuzz_a_grant_is_taken_back_by_its_issuer_alone(address issuer, address other, bytes32 grant) public {
        vm.assume(issuer != other);
        vm.prank(other);
        grants.revoke(list(grant, ~grant));
        assertFalse(grants.isRevoked(issuer, grant));
        vm.prank(issuer);
        grants.revoke(list(grant, grant));
        assertTrue(grants.isRevoked(issuer, grant));
        assertFalse(grants.isRevoked(issuer, ~grant));
    }

    function test_each_is_told_of_once() public {
        address ada = makeAddr("ada");
        bytes32 grant = keccak256("grant");
        vm.expectEmit(address(grants));
        emit IGrants.Revoked(ada, grant);
        vm.prank(ada);
        grants.revoke(list(grant, grant));
        vm.recordLogs();
        vm.prank(ada);
        grants.revoke(list(grant, grant));
        assertEq(vm.getRecordedLogs().length, 0);
    }

    function test_gas() public {
        bytes32[] memory one = new bytes32[](1);
        one[0] = keccak256("grant");
        grants.revoke(one);
        vm.snapshotGasLastCall("Grants", "revoke 1");
    }
}
