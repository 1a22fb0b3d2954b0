// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title Makes every act of governance public before it takes effect.
/// @notice The governor that `Parameters` names. One admin may propose, cancel and, once `getMinDelay()`
/// seconds have passed, execute. Only the timelock itself can change who may do so, through an act of its
/// own, which is how elected governance takes over later.
/// @dev Trust: whoever follows the chain has the delay as warning, and `Parameters` bounds what can be done.
contract Timelock is TimelockController {
    /// @param delay Least seconds between a proposal and its execution.
    /// @param admin Who proposes, cancels and executes.
    constructor(uint256 delay, address admin) TimelockController(delay, _only(admin), _only(admin), address(0)) {}

    function _only(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
