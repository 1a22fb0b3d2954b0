// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Value} from "../interfaces/IParameters.sol";

// Number of values.
uint256 constant VALUES = 15;

/// What one value may be.
struct Bound {
    /// Least, included.
    uint256 min;
    /// What it is where a deployment says nothing else.
    uint256 usual;
    /// Greatest, included.
    uint256 max;
}

/// @notice What each value may be, and what it is where a deployment does not say otherwise.
/// @dev The least times are short enough for a demonstration to run through in a minute; the greatest
/// are such that governance can neither take a whole payment as fees nor lock money for good. They do not
/// bound what its offices reach: an arbiter of its choice may give away all that Tills hold unreleased, the more of
/// it the longer `DisputeWindow` is, and slash a stake up to `SlashMost` again and again.
library Bounds {
    uint256 private constant ASY = 1e18;

    /// The bounds of `key`.
    function forKey(Value key) internal pure returns (Bound memory) {
        if (key == Value.NetworkFee) return Bound(0, 200, 500);
        if (key == Value.GovernanceShare) return Bound(0, 500, 1000);
        if (key == Value.SlashLeast) return Bound(100, 500, 2000);
        if (key == Value.SlashMost) return Bound(500, 2000, 5000);
        if (key == Value.ChallengerReward) return Bound(0, 1000, 5000);
        if (key == Value.DisputeWindow) return Bound(1, 1 days, 30 days);
        if (key == Value.CoverWindow) return Bound(1, 7 days, 60 days);
        if (key == Value.UnbondingDelay) return Bound(2, 14 days, 90 days);
        if (key == Value.AbsenceLimit) return Bound(60, 72 hours, 30 days);
        if (key == Value.JailTime) return Bound(1, 7 days, 30 days);
        if (key == Value.SeatStake) return Bound(ASY, 100_000 * ASY, 10_000_000 * ASY);
        if (key == Value.Seats) return Bound(1, 100, 100);
        if (key == Value.TierBronze) return Bound(ASY, 1000 * ASY, 1_000_000 * ASY);
        if (key == Value.TierSilver) return Bound(ASY, 10_000 * ASY, 10_000_000 * ASY);
        return Bound(ASY, 100_000 * ASY, 100_000_000 * ASY);
    }
}
