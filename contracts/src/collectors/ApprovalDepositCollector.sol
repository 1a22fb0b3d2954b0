// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ChannelConfig, IChannels} from "../interfaces/IChannels.sol";
import {IDepositCollector} from "../interfaces/IDepositCollector.sol";
import {DepositCollector} from "./DepositCollector.sol";

/// @notice Deposits by a payer that sends its own transaction, in any token: approve this contract, call `deposit`.
/// @dev An allowance names no channel, and `Channels.deposit` may be called by anyone: so the call must come through
/// here, from the payer, and `collect` serves only the deposit that is under way.
contract ApprovalDepositCollector is DepositCollector, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// Only the payer may deposit by its allowance.
    error NotPayer(address found, address expected);
    /// The channels ask for another deposit than the one under way; zero if there is none.
    error NotUnderWay(bytes32 found, bytes32 expected);

    /// The deposit that its payer has asked for in this transaction.
    bytes32 private transient _underWay;

    constructor(address channels_) DepositCollector(channels_) {}

    /// @notice Puts `amount` base units of the caller's tokens into the caller's channel.
    function deposit(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(msg.sender == config.payer, NotPayer(msg.sender, config.payer));
        bytes32 id = IChannels(channels).getChannelId(config);
        _underWay = keccak256(abi.encode(config.payer, config.token, amount, id));
        IChannels(channels).deposit(config, amount, address(this), "");
    }

    /// @inheritdoc IDepositCollector
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata)
        external
        onlyChannels
    {
        bytes32 asked = keccak256(abi.encode(payer, token, amount, channelId));
        require(asked == _underWay, NotUnderWay(asked, _underWay));
        _underWay = 0;
        IERC20(token).safeTransferFrom(payer, msg.sender, amount);
    }
}
