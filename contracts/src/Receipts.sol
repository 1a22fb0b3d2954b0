// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IReceipts, Period, Span} from "./interfaces/IReceipts.sol";
import {Merkle} from "./libraries/Merkle.sol";

/// @title Receipts
/// @notice Keeps each provider's posted periods and, per channel, what was covered when: see `IReceipts`.
/// @dev Coverage is a list of checkpoints (second, position), so that "covered by then" needs no second transaction;
/// within one second the last post stands.
contract Receipts is IReceipts {
    using Checkpoints for Checkpoints.Trace208;

    /// @inheritdoc IReceipts
    mapping(address provider => address) public posterOf;

    mapping(address provider => Period[]) private _periods;
    mapping(address provider => mapping(bytes32 channel => Checkpoints.Trace208)) private _covered;

    /// @inheritdoc IReceipts
    function appoint(address poster) external {
        posterOf[msg.sender] = poster;
        emit Appointed(msg.sender, poster);
    }

    /// @inheritdoc IReceipts
    function post(address provider, bytes32 root, uint64 count, Span[] calldata spans)
        external
        returns (uint256 period)
    {
        if (msg.sender != provider) {
            address poster = posterOf[provider];
            require(msg.sender == poster, NotPoster(msg.sender, provider, poster));
        }
        require(count != 0, NoReceipts());
        period = _periods[provider].length;
        _periods[provider].push(Period(root, count, uint48(block.timestamp)));
        for (uint256 i; i < spans.length; ++i) {
            _cover(provider, spans[i]);
        }
        emit Posted(provider, period, root, count, spans);
    }

    /// @inheritdoc IReceipts
    function covered(address provider, bytes32 channel, uint48 at) external view returns (uint128) {
        // Only positions are ever pushed, so the value fits.
        return uint128(_covered[provider][channel].upperLookupRecent(at));
    }

    /// @inheritdoc IReceipts
    function covered(address provider, bytes32 channel) external view returns (uint128) {
        return uint128(_covered[provider][channel].latest());
    }

    /// @inheritdoc IReceipts
    function includes(address provider, uint256 period, uint256 index, bytes32 receipt, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        Period memory posted = periodOf(provider, period);
        return Merkle.contains(posted.root, posted.count, index, Merkle.leaf(receipt), proof);
    }

    /// @inheritdoc IReceipts
    function periodOf(address provider, uint256 period) public view returns (Period memory) {
        uint256 count = _periods[provider].length;
        require(period < count, NoSuchPeriod(period, count));
        return _periods[provider][period];
    }

    /// @inheritdoc IReceipts
    function periods(address provider) external view returns (uint256) {
        return _periods[provider].length;
    }

    /// Extends the chain of one channel.
    function _cover(address provider, Span calldata span) private {
        Checkpoints.Trace208 storage trace = _covered[provider][span.channel];
        uint128 expected = uint128(trace.latest());
        require(span.channelBefore == expected, Broken(span.channel, span.channelBefore, expected));
        require(span.channelAfter > span.channelBefore, EmptySpan(span.channel, span.channelBefore, span.channelAfter));
        trace.push(uint48(block.timestamp), span.channelAfter);
    }
}
