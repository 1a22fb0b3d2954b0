// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IGrants} from "./interfaces/IGrants.sol";

/// @title Grants
/// @notice Remembers which grants were taken back: see `IGrants`.
contract Grants is IGrants {
    /// @inheritdoc IGrants
    mapping(address issuer => mapping(bytes32 grant => bool)) public isRevoked;

    /// @inheritdoc IGrants
    function revoke(bytes32[] calldata grants) external {
        for (uint256 i; i < grants.length; ++i) {
            bytes32 grant = grants[i];
            if (!isRevoked[msg.sender][grant]) {
                isRevoked[msg.sender][grant] = true;
                emit Revoked(msg.sender, grant);
            }
        }
    }
}
