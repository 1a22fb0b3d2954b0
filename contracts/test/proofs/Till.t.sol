// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IParameters, Value} from "../../src/interfaces/IParameters.sol";
import {ChannelConfig, IChannels} from "../../src/interfaces/IChannels.sol";
import {IReceipts} from "../../src/interfaces/IReceipts.sol";
import {Till} from "../../src/Till.sol";
import {Tills} from "../../src/Tills.sol";
import {Base} from "../Base.sol";

/// @notice A ledger and nothing else.
contract Ledger {
    mapping(address => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        // Nothing here can wrap: the proofs mint 2^128 - 1 once. Unchecked, there are fewer paths to follow.
        unchecked {
            balanceOf[msg.sender] -= amount;
            balanceOf[to] += amount;
        }
        return true;
    }
}

/// @notice Stands for everything that a Till asks: it answers whatever the proof says.
contract World {
    uint128 public claimed;
    uint128 public coverage;
    uint256 public fee;
    uint256 public share;

    address public constant arbiter = address(0xa4b);
    address public constant treasury = address(0x77ea);
    address public constant feeRecipient = address(0xfee);

    function shift(uint128 claimed_, uint128 coverage_) external {
        (claimed, coverage) = (claimed_, coverage_);
    }

    function charge(uint256 fee_, uint256 share_) external {
        (fee, share) = (fee_, share_);
    }

    function getChannelId(ChannelConfig calldata) external pure returns (bytes32) {
        return bytes32(uint256(1));
    }

    function channels(bytes32) external view returns (uint128, uint128) {
        return (type(uint128).max, claimed);
    }

    function settle(address, address) external {}

    function covered(address, bytes32, uint48) external view returns (uint128) {
        return coverage;
    }

    function value(Value key) external view returns (uint256) {
        if (key == Value.NetworkFee) return fee;
        if (key == Value.GovernanceShare) return share;
        return 1 days;
    }
}

/// @notice The laws of a Till, for the contract as it is deployed and for all claims, coverages and verdicts:
/// it pays out no position that is not both claimed and covered, none twice, and what it divides adds up to the wei.
contract TillProofs is Base {
    address private constant OWNER = address(0x0e4);
    address private constant BUYER = address(0xb0b);

    uint256 private constant START = 1_800_000_000;

    uint256 private clock;
    World private world;
    Ledger private token;
    Till private till;

    function setUp() public {
        (world, token) = (new World(), new Ledger());
        Tills tills = new Tills(IChannels(address(world)), IReceipts(address(world)), IParameters(address(world)));
        till = Till(tills.open(OWNER));
    }

    function check_a_release_pays_what_is_claimed_and_covered(uint128 claimed, uint128 covered) public {
        released(claimed, covered, 200, 500);
    }

    function check_a_release_adds_up_at_the_highest_shares(uint128 claimed, uint128 covered) public {
        released(claimed, covered, 500, 1000);
    }

    // How a release is divided is proved above; below, all of it goes to the provider, so there is less to follow.

    function check_releases_never_pay_twice(
        uint128 claimed,
        uint128 covered,
        uint128 claimedLater,
        uint128 coveredLater
    ) public {
        vm.assume(claimed <= claimedLater && covered <= coveredLater);
        start(0, 0);
        world.shift(claimed, covered);
        ripen();
        till.release(config());
        world.shift(claimedLater, coveredLater);
        ripen();
        till.release(config());
        assert(paid() == least(claimedLater, coveredLater));
    }

    /// However far coverage was posted in advance, a claim is paid no sooner than a window after it was seen.
    function check_a_claim_waits_a_window(uint128 claimed, uint128 covered, uint256 wait) public {
        vm.assume(wait < 1 days);
        start(0, 0);
        world.shift(claimed, covered);
        assert(till.release(config()) == 0);
        vm.warp(START + wait);
        assert(till.release(config()) == 0);
        assert(paid() == 0);
    }

    function check_a_verdict_comes_out_of_the_release(uint128 claimed, uint128 covered, uint128 from, uint128 until)
        public
    {
        vm.assume(from < until && until <= claimed && until <= covered);
        start(0, 0);
        world.shift(claimed, covered);
        vm.prank(address(0xa4b));
        uint256 taken = till.verdict(config(), from, until, BUYER);
        assert(taken == until - from);
        assert(token.balanceOf(BUYER) == taken);
        ripen();
        uint256 amount = till.release(config());
        assert(amount + taken == least(claimed, covered));
        assert(paid() + taken == least(claimed, covered));
    }

    function check_a_late_verdict_takes_nothing(uint128 claimed, uint128 covered, uint128 from, uint128 until) public {
        vm.assume(from < until && until <= claimed && until <= covered);
        start(0, 0);
        world.shift(claimed, covered);
        ripen();
        till.release(config());
        vm.prank(address(0xa4b));
        assert(till.verdict(config(), from, until, BUYER) == 0);
        assert(token.balanceOf(BUYER) == 0);
    }

    function released(uint128 claimed, uint128 covered, uint256 fee, uint256 share) private {
        start(fee, share);
        world.shift(claimed, covered);
        ripen();
        uint256 amount = till.release(config());
        assert(amount == least(claimed, covered));
        assert(token.balanceOf(address(0xfee)) == amount * fee / 10_000);
        assert(token.balanceOf(address(0x77ea)) == amount * share / 10_000);
        assert(paid() == amount);
    }

    function start(uint256 fee, uint256 share) private {
        vm.assume(fee <= 500 && share <= 1000);
        world.charge(fee, share);
        token.mint(address(till), type(uint128).max);
        clock = START;
        vm.warp(clock);
    }

    /// Lets the Till see what is claimed, and the dispute window pass.
    function ripen() private {
        till.release(config());
        clock += 1 days;
        vm.warp(clock);
    }

    function config() private view returns (ChannelConfig memory channel) {
        channel.receiver = address(till);
        channel.token = address(token);
        channel.payer = address(0xada);
    }

    function paid() private view returns (uint256) {
        return token.balanceOf(OWNER) + token.balanceOf(address(0xfee)) + token.balanceOf(address(0x77ea));
    }

    function least(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
