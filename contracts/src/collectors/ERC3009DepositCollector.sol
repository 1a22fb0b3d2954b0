// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IDepositCollector} from "../interfaces/IDepositCollector.sol";
import {IERC3009Receive} from "../interfaces/IERC3009Receive.sol";
import {DepositCollector} from "./DepositCollector.sol";

/// @notice Deposits by one signature and no transaction of the payer: ERC-3009 `receiveWithAuthorization`.
/// @dev `collectorData = abi.encode(uint256 validAfter, uint256 validBefore, uint256 salt, bytes signature)`, the
/// encoding of the public deployment. The payer signs with this contract as `to` and with the nonce
/// `keccak256(abi.encode(channelId, salt))`, so the authorization is good for this channel only.
contract ERC3009DepositCollector is DepositCollector {
    using SafeERC20 for IERC20;

    constructor(address channels_) DepositCollector(channels_) {}

    /// @inheritdoc IDepositCollector
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata collectorData)
        external
        onlyChannels
    {
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(collectorData, (uint256, uint256, uint256, bytes));
        bytes32 nonce = keccak256(abi.encode(channelId, salt));
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC3009Receive(token)
            .receiveWithAuthorization(payer, address(this), amount, validAfter, validBefore, nonce, signature);
        // What arrived, not what was asked for: the token may take a fee.
        IERC20(token).safeTransfer(msg.sender, IERC20(token).balanceOf(address(this)) - before);
    }
}
