// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Value} from "../interfaces/IParameters.sol";

// Number of values.
uint256 constant VALUES = 15;

/// @notice What each value may be, and what it is where a deployment does not say otherwise.
/// @dev The least times are short enough for a demonstration to run through in a minute; the greatest
/// are such that governance can neither take everything nor lock money for good.
library Bounds {
    uint256 private constant ASY = 1e18;

    /// The bounds of `key`, both included, and its value where nothing else is said.
    function forKey(Value key) internal pure returns (uint256 min, uint256 usual, uint256 max) {
        if (key == Value.NetworkFee) return (0, 200, 500);
        if (key == Value.GovernanceShare) return (0, 500, 1000);
        if (key == Value.SlashLeast) return (100, 500, 2000);
        if (key == Value.SlashMost) return (500, 2000, 5000);
        if (key == Value.ChallengerReward) return (0, 1000, 5000);
        if (key == Value.DisputeWindow) return (1, 1 days, 30 days);
        if (key == Value.CoverWindow) return (1, 7 days, 60 days);
        if (key == Value.UnbondingDelay) return (2, 14 days, 90 days);
        if (key == Value.AbsenceLimit) return (60, 72 hours, 30 days);
        if (key == Value.JailTime) return (1, 7 days, 30 days);
        if (key == Value.SeatStake) return (ASY, 100_000 * ASY, 10_000_000 * ASY);
        if (key == Value.Seats) return (1, 100, 100);
        if (key == Value.TierBronze) return (ASY, 1000 * ASY, 1_000_000 * ASY);
        if (key == Value.TierSilver) return (ASY, 10_000 * ASY, 10_000_000 * ASY);
        return (ASY, 100_000 * ASY, 100_000_000 * ASY);
    }
}
