// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice The parts that the supply is divided into.
enum Part {
    /// 50 %: to those who do the work, over ten years, half as much every two years.
    Nodes,
    /// 20 %: 30 % of it at the start, the rest evenly over two years.
    Community,
    /// 10 %: evenly over two years.
    Team,
    /// 10 %: 10 % of it at the start, the rest evenly over two years.
    Investors,
    /// 5 %: at the start.
    Airdrop,
    /// 5 %: at the start.
    Liquidity
}

// Number of parts.
uint256 constant PARTS = 6;

/// @notice How much of each part is free at which time. Pure arithmetic; amounts in base units (1e-18 ASY).
/// @dev Laws, proved in `test/proofs/Allocation.t.sol`: what is free never falls with time, never exceeds
/// the part, and is exactly the part from its last second on; the parts add up to the supply.
/// A year has 365 days. All divisions round down, in favour of the part that is still held.
library Allocation {
    uint256 private constant SUPPLY = 1_000_000_000e18;
    uint256 private constant TWO_YEARS = 730 days;

    /// Five periods of two years, each worth half of the one before: 16, 8, 4, 2 and 1 of 31 shares.
    uint256 private constant PERIODS = 5;
    uint256 private constant SHARES = 31;

    /// Everything that `part` will ever be paid.
    function size(Part part) internal pure returns (uint256) {
        if (part == Part.Nodes) return SUPPLY / 2;
        if (part == Part.Community) return SUPPLY / 5;
        if (part == Part.Team || part == Part.Investors) return SUPPLY / 10;
        return SUPPLY / 20;
    }

    /// What `part` may have been paid `elapsed` seconds after the start.
    function freeDown(Part part, uint256 elapsed) internal pure returns (uint256) {
        uint256 whole = size(part);
        if (part == Part.Nodes) return halvingDown(whole, elapsed);
        if (part == Part.Community) return linearDown(whole, whole * 3 / 10, elapsed);
        if (part == Part.Team) return linearDown(whole, 0, elapsed);
        if (part == Part.Investors) return linearDown(whole, whole / 10, elapsed);
        return whole;
    }

    /// `first` at the start, the rest evenly over two years.
    function linearDown(uint256 whole, uint256 first, uint256 elapsed) internal pure returns (uint256) {
        if (elapsed >= TWO_YEARS) return whole;
        return first + (whole - first) * elapsed / TWO_YEARS;
    }

    /// Evenly within a period of two years, and half as much in each period as in the one before.
    function halvingDown(uint256 whole, uint256 elapsed) internal pure returns (uint256) {
        for (uint256 period = 0; period < PERIODS; ++period) {
            if (elapsed < TWO_YEARS) return withinPeriodDown(whole, period, elapsed);
            elapsed -= TWO_YEARS;
        }
        return whole;
    }

    /// What is free `within` seconds after the start of `period`, counted from zero.
    function withinPeriodDown(uint256 whole, uint256 period, uint256 within) internal pure returns (uint256) {
        // With p periods over, 32 - 32/2^p shares are free, and this one adds 16/2^p in its course; both are
        // multiplied by 2^p here, so that the only division is the last step.
        uint256 half = 2 ** period;
        return whole * (32 * (half - 1) * TWO_YEARS + 16 * within) / (SHARES * half * TWO_YEARS);
    }
}
