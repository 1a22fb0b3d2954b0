// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IChannels} from "./interfaces/IChannels.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IReceipts} from "./interfaces/IReceipts.sol";
import {Till} from "./Till.sol";

/// @title Tills
/// @notice Makes each provider's Till, at an address that anyone can compute from the owner's.
/// @dev A channel may name a Till as its receiver before it exists: `Channels` sends nothing there until somebody
/// asks, and anyone may open it. The address is
/// `keccak256(0xff ‖ Tills ‖ salt ‖ keccak256(code))[12:]` with `salt = bytes32(uint160(owner))` and
/// `code = 61 0041 3d 81 60 0a 3d 39 f3 ‖ 363d3d373d3d3d363d73 ‖ implementation ‖ 5af43d82803e903d91602b57fd5bf3 ‖ owner`,
/// 20 bytes each for `implementation` and `owner`. The implementation is the first contract that `Tills` created.
///
/// Trust: none; there is nothing to decide here.
contract Tills {
    /// A provider's Till was made.
    event Opened(address indexed owner, address till);

    /// @notice The code that all Tills share.
    address public immutable implementation;

    constructor(IChannels channels, IReceipts receipts, IParameters parameters) {
        implementation = address(new Till(channels, receipts, parameters));
    }

    /// @notice Makes the Till of `owner` if it does not exist. Anyone may call.
    function open(address owner) external returns (address till) {
        till = tillOf(owner);
        if (till.code.length != 0) return till;
        emit Opened(owner, till);
        Clones.cloneDeterministicWithImmutableArgs(implementation, abi.encodePacked(owner), _salt(owner));
    }

    /// @notice Where the Till of `owner` is or will be.
    function tillOf(address owner) public view returns (address) {
        return
            Clones.predictDeterministicAddressWithImmutableArgs(implementation, abi.encodePacked(owner), _salt(owner));
    }

    function _salt(address owner) private pure returns (bytes32) {
        return bytes32(uint256(uint160(owner)));
    }
}
