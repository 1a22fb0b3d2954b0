// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {Bound, Bounds, VALUES} from "./libraries/Bounds.sol";

/// @title The values that governance may move, and the offices that it may fill.
/// @dev Pairs of values share a word of storage, so what is read together costs one read.
contract Parameters is IParameters {
    /// @inheritdoc IParameters
    address public governor;

    /// @inheritdoc IParameters
    address public arbiter;

    /// @inheritdoc IParameters
    address public treasury;

    /// @inheritdoc IParameters
    address public feeRecipient;

    uint128[VALUES] private _values;

    modifier onlyGovernor() {
        require(msg.sender == governor, NotGovernor(msg.sender, governor));
        _;
    }

    /// @param governor_ The timelock.
    /// @param treasury_ Who is paid governance's share.
    /// @param feeRecipient_ Who is paid the network fee.
    /// @param values One per `Value`, in that order; none at all for the usual ones.
    constructor(address governor_, address treasury_, address feeRecipient_, uint256[] memory values) {
        _setGovernor(governor_);
        _setTreasury(treasury_);
        _setFeeRecipient(feeRecipient_);

        uint256 count = values.length;
        require(count == 0 || count == VALUES, WrongCount(count, VALUES));
        for (uint256 i = 0; i < VALUES; ++i) {
            _set(Value(i), count == 0 ? Bounds.forKey(Value(i)).usual : values[i]);
        }
        _requireOrder();
    }

    /// @inheritdoc IParameters
    function set(Value key, uint256 present) external onlyGovernor {
        _set(key, present);
        _requireOrder();
    }

    /// @inheritdoc IParameters
    function setGovernor(address present) external onlyGovernor {
        _setGovernor(present);
    }

    /// @inheritdoc IParameters
    function setArbiter(address present) external onlyGovernor {
        emit ArbiterSet(arbiter, present);
        arbiter = present;
    }

    /// @inheritdoc IParameters
    function setTreasury(address present) external onlyGovernor {
        _setTreasury(present);
    }

    /// @inheritdoc IParameters
    function setFeeRecipient(address present) external onlyGovernor {
        _setFeeRecipient(present);
    }

    /// @inheritdoc IParameters
    function bounds(Value key) external pure returns (uint256 min, uint256 max) {
        Bound memory bound = Bounds.forKey(key);
        return (bound.min, bound.max);
    }

    /// @inheritdoc IParameters
    function value(Value key) public view returns (uint256) {
        return _values[uint256(key)];
    }

    function _set(Value key, uint256 present) private {
        Bound memory bound = Bounds.forKey(key);
        require(bound.min <= present && present <= bound.max, OutOfBounds(key, present, bound.min, bound.max));
        emit ValueSet(key, value(key), present);
        _values[uint256(key)] = SafeCast.toUint128(present);
    }

    /// What one value means depends on another: a slash cannot be least and larger than the largest, and
    /// stake must outlast the time in which what it answers for can be disputed.
    function _requireOrder() private view {
        _requireNotAbove(Value.SlashLeast, Value.SlashMost);
        _requireNotAbove(Value.TierBronze, Value.TierSilver);
        _requireNotAbove(Value.TierSilver, Value.TierGold);
        uint256 dispute = value(Value.DisputeWindow);
        uint256 unbonding = value(Value.UnbondingDelay);
        require(dispute < unbonding, OutOfOrder(Value.DisputeWindow, dispute, Value.UnbondingDelay, unbonding));
    }

    function _requireNotAbove(Value lower, Value upper) private view {
        uint256 low = value(lower);
        uint256 high = value(upper);
        require(low <= high, OutOfOrder(lower, low, upper, high));
    }

    function _setGovernor(address present) private {
        require(present != address(0), NoAddress());
        emit GovernorSet(governor, present);
        governor = present;
    }

    function _setTreasury(address present) private {
        require(present != address(0), NoAddress());
        emit TreasurySet(treasury, present);
        treasury = present;
    }

    function _setFeeRecipient(address present) private {
        require(present != address(0), NoAddress());
        emit FeeRecipientSet(feeRecipient, present);
        feeRecipient = present;
    }
}
