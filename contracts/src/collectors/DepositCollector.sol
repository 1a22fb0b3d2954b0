// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDepositCollector} from "../interfaces/IDepositCollector.sol";

/// @notice What all collectors share: they serve one `Channels` and nobody else, and keep nothing.
abstract contract DepositCollector is IDepositCollector {
    /// Only the channels may ask for tokens.
    error NotChannels(address found, address expected);

    /// @notice The channels that this collector serves.
    address public immutable channels;

    constructor(address channels_) {
        channels = channels_;
    }

    modifier onlyChannels() {
        require(msg.sender == channels, NotChannels(msg.sender, channels));
        _;
    }
}
