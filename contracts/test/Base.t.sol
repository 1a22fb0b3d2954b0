// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";

/// @notice The helpers of the tests hold what they promise.
contract BaseTest is Base {
    function testFuzz_bound_stays_inside(uint256 x, uint256 a, uint256 b) public pure {
        (uint256 least, uint256 most) = a < b ? (a, b) : (b, a);
        uint256 y = bound(x, least, most);
        assertGe(y, least);
        assertLe(y, most);
        if (least <= x && x <= most) assertEq(y, x);
    }

    function test_skip_moves_the_clock() public {
        uint256 before = vm.getBlockTimestamp();
        skip(7);
        assertEq(block.timestamp, before + 7);
    }

    function test_a_named_account_signs() public {
        (address ada, uint256 key) = makeAddrAndKey("ada");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, bytes32(uint256(1)));
        assertEq(ecrecover(bytes32(uint256(1)), v, r, s), ada);
    }
}
