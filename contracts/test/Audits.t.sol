// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Verdict} from "../src/interfaces/IAuditors.sol";
import {Draw} from "../src/interfaces/IBeacons.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice Audits from end to end.
contract AuditsTest is AuditFixture {
    /// Posted, drawn, asked for, never shown: the provider pays, the auditor is paid, and none was a trusted party.
    function test_who_posts_and_is_silent_loses_stake() public {
        answer();
        (uint256 period, Draw memory draw) = postAndDraw();
        uint256 held = token.balanceOf(draw.first);
        uint256 supply = token.totalSupply();
        ask(draw.first, period);
        skip(CLOCK / 2 + 1);
        productions.timeout(owner, period, 1);
        disputes.withhold(owner, period, 1);
        disputes.punish(keccak256(abi.encode(owner, period, uint256(1))));
        uint256 taken = share(4 * value(Value.TierBronze), value(Value.SlashMost));
        uint256 reward = share(taken, value(Value.ChallengerReward));
        assertEq(token.balanceOf(draw.first), held + reward);
        assertEq(token.totalSupply(), supply - (taken - reward));
        assertFalse(providers.active(owner));
    }

    /// A canary, drawn, called true by one who did not look: its bond is cut; who disputed has the prize.
    function test_who_calls_a_canary_true_loses_and_who_disputes_it_wins() public {
        plantCanary();
        (uint256 period, Draw memory draw) = postAndDraw();
        judge(period, Verdict.True, Verdict.False);
        uint256 held = token.balanceOf(draw.second);
        uint256 id = begin(draw.second);
        unveil();
        disputes.excuse(id);
        disputes.close(id);
        assertEq(token.balanceOf(draw.second), held + PRIZE);
        auditors.careless(draw.first, placed(period));
        assertEq(stakeOf(draw.first), 3 * AUDITOR_BOND - AUDITOR_BOND / 2);
        assertEq(stakeOf(draw.second), 3 * AUDITOR_BOND);
        assertTrue(providers.active(owner));
    }

    /// A lie, drawn, found by one and covered up by the other.
    function test_who_covers_up_a_lie_loses_with_the_liar() public {
        answer();
        (uint256 period, Draw memory draw) = postAndDraw();
        token.approve(address(auditors), FEE);
        auditors.fund(FEE);
        judge(period, Verdict.False, Verdict.True);
        uint256 held = token.balanceOf(draw.first);
        uint256 id = begin(draw.first);
        skip(CLOCK + 1);
        disputes.timeout(id);
        disputes.punish(digestOf());
        disputes.close(id);
        auditors.pay(draw.first, placed(period));
        auditors.mistaken(draw.second, placed(period));
        uint256 taken = share(4 * value(Value.TierBronze), value(Value.SlashMost));
        assertEq(token.balanceOf(draw.first), held + FEE + share(taken, value(Value.ChallengerReward)));
        assertEq(stakeOf(draw.second), 3 * AUDITOR_BOND - AUDITOR_BOND / 2);
    }
}
