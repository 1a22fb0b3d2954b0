// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssayToken} from "../src/AssayToken.sol";
import {Distribution} from "../src/Distribution.sol";
import {IDistribution} from "../src/interfaces/IDistribution.sol";
import {Allocation, PARTS, Part} from "../src/libraries/Allocation.sol";
import {Parameters} from "../src/Parameters.sol";
import {Base} from "./Base.sol";

/// @notice The distribution pays the right people the right amounts, whoever asks and whenever.
contract DistributionTest is Base {
    uint64 private constant START = 1_800_000_000;

    Distribution private distribution;
    AssayToken private token;
    address private governor;
    address[PARTS] private people;

    function setUp() public {
        vm.warp(START);
        governor = makeAddr("governor");
        people = [
            address(0),
            makeAddr("community"),
            makeAddr("team"),
            makeAddr("investors"),
            makeAddr("airdrop"),
            makeAddr("liquidity")
        ];
        Parameters parameters = new Parameters(governor, governor, governor, new uint256[](0));
        distribution = new Distribution(parameters, 0, people);
        token = distribution.token();
    }

    function test_it_holds_everything_at_first() public view {
        assertEq(token.balanceOf(address(distribution)), token.SUPPLY());
        assertEq(distribution.start(), START);
    }

    function test_the_airdrop_is_free_at_once_and_once() public {
        assertEq(distribution.release(Part.Airdrop), 50_000_000e18);
        vm.snapshotGasLastCall("Distribution", "release");
        assertEq(token.balanceOf(people[4]), 50_000_000e18);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NothingDue.selector, Part.Airdrop));
        distribution.release(Part.Airdrop);
    }

    function test_nothing_is_free_before_the_start() public {
        Parameters parameters = new Parameters(governor, governor, governor, new uint256[](0));
        Distribution later = new Distribution(parameters, START + 100, people);
        for (uint256 i = 0; i < PARTS; ++i) {
            assertEq(later.due(Part(i)), 0);
        }
        vm.warp(START + 100);
        assertEq(later.due(Part.Community), 60_000_000e18);
    }

    function test_the_start_is_within_a_year_of_the_deployment() public {
        Parameters parameters = new Parameters(governor, governor, governor, new uint256[](0));
        (uint64 earliest, uint64 latest) = (START - 366 days, START + 366 days);
        assertEq(new Distribution(parameters, earliest, people).start(), earliest);
        assertEq(new Distribution(parameters, latest, people).start(), latest);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.StartOutOfBounds.selector, earliest - 1, earliest, latest));
        new Distribution(parameters, earliest - 1, people);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.StartOutOfBounds.selector, latest + 1, earliest, latest));
        new Distribution(parameters, latest + 1, people);
        // A chain may be younger than a year by its own clock.
        vm.warp(100);
        assertEq(new Distribution(parameters, 1, people).start(), 1);
    }

    function test_a_deployment_names_everyone_but_the_nodes() public {
        Parameters parameters = new Parameters(governor, governor, governor, new uint256[](0));
        people[2] = address(0);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NoBeneficiary.selector, Part.Team));
        new Distribution(parameters, 0, people);
    }

    function test_the_nodes_wait_for_governance() public {
        skip(730 days);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NoBeneficiary.selector, Part.Nodes));
        distribution.release(Part.Nodes);

        address emission = makeAddr("emission");
        vm.prank(governor);
        distribution.setBeneficiary(Part.Nodes, emission);
        vm.snapshotGasLastCall("Distribution", "setBeneficiary (nodes)");
        distribution.release(Part.Nodes);
        assertEq(token.balanceOf(emission), uint256(500_000_000e18) * 16 / 31);
    }

    function test_only_the_governor_names_who_emits() public {
        address emission = makeAddr("emission");
        vm.prank(governor);
        distribution.setBeneficiary(Part.Nodes, emission);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NotBeneficiary.selector, Part.Nodes, emission, governor));
        vm.prank(emission);
        distribution.setBeneficiary(Part.Nodes, governor);
    }

    function testFuzz_only_the_beneficiary_hands_its_part_on(uint256 which, address stranger) public {
        Part part = Part(bound(which, 1, PARTS - 1));
        address owner = people[uint256(part)];
        vm.assume(stranger != owner);
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NotBeneficiary.selector, part, stranger, owner));
        vm.prank(stranger);
        distribution.setBeneficiary(part, stranger);

        address heir = makeAddr("heir");
        vm.prank(owner);
        distribution.setBeneficiary(part, heir);
        skip(730 days);
        distribution.release(part);
        assertEq(token.balanceOf(heir), Allocation.size(part));
    }

    function test_no_part_is_handed_to_nobody() public {
        vm.expectRevert(abi.encodeWithSelector(IDistribution.NoBeneficiary.selector, Part.Team));
        vm.prank(people[2]);
        distribution.setBeneficiary(Part.Team, address(0));
    }

    /// However often and whenever parts are released, after ten years all of it is where it belongs.
    function testFuzz_after_ten_years_everything_is_paid(uint256 seed, uint8 steps) public {
        vm.prank(governor);
        distribution.setBeneficiary(Part.Nodes, makeAddr("emission"));
        for (uint256 i = 0; i < steps % 32; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            skip(seed % 200 days);
            Part part = Part((seed >> 64) % PARTS);
            if (distribution.due(part) != 0) distribution.release(part);
        }
        vm.warp(START + 3650 days);
        for (uint256 i = 0; i < PARTS; ++i) {
            if (distribution.due(Part(i)) != 0) distribution.release(Part(i));
            assertEq(distribution.released(Part(i)), Allocation.size(Part(i)));
        }
        assertEq(token.balanceOf(address(distribution)), 0);
    }
}

/// @notice Time passes, strangers release, beneficiaries move house and burn.
contract DistributionHandler is Base {
    Distribution public immutable distribution;
    address[] public everyone;

    constructor(Distribution distribution_) {
        distribution = distribution_;
        for (uint256 i = 0; i < PARTS; ++i) {
            everyone.push(distribution_.beneficiary(Part(i)));
        }
    }

    function pass(uint256 time) external {
        skip(bound(time, 0, 120 days));
    }

    function release(uint256 which) external {
        Part part = Part(which % PARTS);
        uint256 due = distribution.due(part);
        if (due == 0) return;
        address to = distribution.beneficiary(part);
        uint256 before = distribution.token().balanceOf(to);
        assertEq(distribution.release(part), due);
        assertEq(distribution.token().balanceOf(to), before + due);
    }

    function hand(uint256 which, uint160 name) external {
        Part part = Part(bound(which, 1, PARTS - 1));
        // Far from the precompiles and the contracts of this test.
        address heir = address(uint160(bound(name, 1 << 100, 1 << 101)));
        vm.prank(distribution.beneficiary(part));
        distribution.setBeneficiary(part, heir);
        everyone.push(heir);
    }

    function held() external view returns (uint256 sum) {
        AssayToken token = distribution.token();
        for (uint256 i = 0; i < everyone.length; ++i) {
            bool seen;
            for (uint256 j = 0; j < i; ++j) {
                seen = seen || everyone[j] == everyone[i];
            }
            if (!seen) sum += token.balanceOf(everyone[i]);
        }
    }
}

/// @notice The supply is conserved to the wei.
contract DistributionInvariants is Base {
    Distribution private distribution;
    DistributionHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        address[PARTS] memory people;
        for (uint256 i = 0; i < PARTS; ++i) {
            people[i] = address(uint160(0xA55A0000 + i));
        }
        Parameters parameters = new Parameters(address(1), address(2), address(3), new uint256[](0));
        distribution = new Distribution(parameters, 0, people);
        handler = new DistributionHandler(distribution);
        targetContract(address(handler));
    }

    function invariant_what_is_held_and_what_was_paid_is_the_supply() public view {
        uint256 paid;
        for (uint256 i = 0; i < PARTS; ++i) {
            uint256 released = distribution.released(Part(i));
            assertLe(released, Allocation.freeDown(Part(i), block.timestamp - distribution.start()));
            paid += released;
        }
        AssayToken token = distribution.token();
        assertEq(token.balanceOf(address(distribution)) + paid, token.SUPPLY());
        assertEq(handler.held(), paid);
    }
}
