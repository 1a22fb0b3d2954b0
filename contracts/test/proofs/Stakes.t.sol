// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Stake, Stakes} from "../../src/libraries/Stakes.sol";

/// @notice The laws of one stake, for every amount and share: proved by Halmos, not sampled. Two amounts on their
/// way out stand for all: each is treated by itself.
contract StakesProofs {
    using Stakes for Stake;

    Stake private stake;

    function check_a_share_is_never_more_than_the_whole(uint128 amount, uint16 bps) public pure {
        if (bps > Stakes.WHOLE) return;
        assert(Stakes.shareDown(amount, bps) <= amount);
    }

    function check_a_slash_conserves_and_keeps_the_books(uint96 bonded, uint96 first, uint96 second, uint16 bps)
        public
    {
        if (bps > Stakes.WHOLE) return;
        if (bonded == 0 || first == 0 || second == 0) return;
        prepare(bonded, first, second);
        uint256 before = uint256(stake.bonded) + stake.unbonding;
        uint256 taken = stake.slashDown(bps);
        assert(before == taken + stake.bonded + stake.unbonding);
        assert(stake.unbonding == uint256(stake.queue[0].amount) + stake.queue[1].amount);
        assert(taken <= before);
    }

    function check_nothing_leaves_before_its_time(uint96 bonded, uint96 first, uint96 second, uint64 time) public {
        if (bonded == 0 || first == 0 || second == 0) return;
        prepare(bonded, first, second);
        // The first is due at 100, the second at 200; a withdrawal with nothing due reverts.
        if (time < 100) return;
        uint256 due = stake.withdraw(time);
        assert(due == (time < 200 ? first : uint256(first) + second));
        assert(stake.bonded == bonded);
        assert(stake.unbonding == uint256(first) + second - due);
    }

    /// `bonded` left over, `first` due at 100 and `second` at 200.
    function prepare(uint96 bonded, uint96 first, uint96 second) private {
        stake.bond(uint128(bonded) + first + second);
        stake.unbond(first, 100);
        stake.unbond(second, 200);
    }
}
