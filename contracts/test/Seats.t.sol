// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Value} from "../src/interfaces/IParameters.sol";
import {IProviders} from "../src/interfaces/IProviders.sol";
import {ISeats, Seat} from "../src/interfaces/ISeats.sol";
import {Staking} from "./Staking.sol";

/// @notice Who sits in the consensus, in which order, and who loses a seat.
contract SeatsTest is Staking {
    uint256 private least;
    address private immutable REPORTER = makeAddr("reporter");

    function setUp() public override {
        super.setUp();
        least = value(Value.SeatStake);
    }

    function test_the_first_seats_sit_while_nobody_else_may() public {
        Seat[] memory found = providers.seats();
        assertEq(found.length, 1);
        assertEq(found[0].key, GENESIS_KEY);
        assertEq(found[0].owner, GENESIS);
        assertEq(found[0].weight, 1);
        assertEq(found[0].socket, "127.0.0.1:7000");

        address ada = seated("ada", least);
        found = providers.seats();
        assertEq(found.length, 1);
        assertEq(found[0].owner, ada);

        vm.prank(ada);
        providers.leaveSeat();
        vm.snapshotGasLastCall("Seats", "leaveSeat");
        assertEq(providers.seats()[0].owner, GENESIS);
    }

    function test_a_stranger_takes_one_first_seat_and_not_all() public {
        providers = registry(many(4));
        seated("ada", least);
        Seat[] memory found = providers.seats();
        assertEq(found.length, 4);
        assertEq(found[0].key, keyOf("ada"));
        for (uint256 i = 1; i < 4; i++) {
            assertEq(found[i].key, bytes32(i));
            assertEq(found[i].owner, address(uint160(i)));
            assertEq(found[i].weight, 1);
        }
        for (uint256 i = 0; i < 4; i++) {
            seated(vm.toString(i), least);
        }
        // Five by stake: no first seat is left.
        found = providers.seats();
        assertEq(found.length, 5);
        for (uint256 i = 0; i < 5; i++) {
            assertGt(uint160(found[i].owner), 4);
        }
        parameters.set(Value.Seats, 3);
        assertEq(providers.seats().length, 3);
    }

    function test_who_sits_by_stake_does_not_sit_again_as_a_first_seat() public {
        Seat[] memory first = many(3);
        first[0].owner = makeAddr("ada");
        first[2].owner = makeAddr("bob");
        providers = registry(first);
        // Ada with a new key, Bob with his first one.
        seated("ada", 2 * least);
        (address bob,) = enrol("bob", least);
        vm.prank(bob);
        providers.takeSeat(first[2].key, "elsewhere");
        Seat[] memory found = providers.seats();
        assertEq(found.length, 3);
        assertEq(found[0].key, keyOf("ada"));
        assertEq(found[1].key, first[2].key);
        assertEq(found[1].socket, "elsewhere");
        assertEq(found[2].key, first[1].key);

        // Fewer than sit by stake: no first seat at all. One: the one with the most stake.
        parameters.set(Value.Seats, 1);
        assertEq(providers.seats().length, 1);
        assertEq(providers.seats()[0].key, keyOf("ada"));
    }

    function test_a_founder_of_several_seats_keeps_their_number() public {
        Seat[] memory first = many(4);
        for (uint256 i = 0; i < 4; i++) {
            first[i].owner = makeAddr("ada");
        }
        providers = registry(first);
        (address ada,) = enrol("ada", least);
        vm.prank(ada);
        providers.takeSeat(first[1].key, "s");
        seated("stranger", 2 * least);
        Seat[] memory found = providers.seats();
        assertEq(found.length, 4);
        assertEq(found[0].key, keyOf("stranger"));
        assertEq(found[1].key, first[1].key);
        assertEq(found[2].key, first[0].key);
        assertEq(found[3].key, first[2].key);
    }

    function test_a_first_seat_stays_by_stake_like_any_other() public {
        enrol("genesis", least);
        vm.prank(GENESIS);
        providers.takeSeat(GENESIS_KEY, "127.0.0.1:7000");
        seated("ada", 2 * least);
        seated("bob", 3 * least);
        seated("eve", 4 * least);
        Seat[] memory found = providers.seats();
        assertEq(found.length, 4);
        assertEq(found[3].key, GENESIS_KEY);
    }

    function test_a_seat_needs_stake_and_freedom() public {
        (address ada,) = enrol("ada", least - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.StakeShort.selector, least - 1, least));
        vm.prank(ada);
        providers.takeSeat(keccak256("ada"), "s");
        fund(ada, 1);
        vm.startPrank(ada);
        providers.stake(1);
        vm.expectEmit(address(providers));
        emit ISeats.SeatTaken(ada, keccak256("ada"), "ada.example:7000");
        providers.takeSeat(keccak256("ada"), "ada.example:7000");
        vm.snapshotGasLastCall("Seats", "takeSeat");
        vm.stopPrank();

        (address bob,) = enrol("bob", least * 2);
        vm.prank(ARBITER);
        providers.slash(bob, 500, address(0), "");
        uint256 until = providers.provider(bob).jailedUntil;
        vm.expectRevert(abi.encodeWithSelector(IProviders.InJail.selector, bob, until));
        vm.prank(bob);
        providers.takeSeat(keccak256("bob"), "s");

        vm.expectRevert(abi.encodeWithSelector(ISeats.NoSeat.selector, bob));
        vm.prank(bob);
        providers.leaveSeat();
    }

    function test_keys_and_sockets_have_rules() public {
        address ada = seated("ada", least);
        (address bob,) = enrol("bob", least);
        vm.startPrank(bob);
        vm.expectRevert(abi.encodeWithSelector(ISeats.KeyTaken.selector, keyOf("ada"), ada));
        providers.takeSeat(keyOf("ada"), "s");
        vm.expectRevert(abi.encodeWithSelector(ISeats.KeyTaken.selector, GENESIS_KEY, GENESIS));
        providers.takeSeat(GENESIS_KEY, "s");
        vm.expectRevert(ISeats.NoKey.selector);
        providers.takeSeat(0, "s");
        vm.expectRevert(abi.encodeWithSelector(ISeats.SocketLength.selector, 0, 256));
        providers.takeSeat(keyOf("bob"), "");
        string memory long = times("s", 257);
        vm.expectRevert(abi.encodeWithSelector(ISeats.SocketLength.selector, 257, 256));
        providers.takeSeat(keyOf("bob"), long);
        vm.stopPrank();

        // A key that was given up is still its owner's.
        vm.startPrank(ada);
        providers.takeSeat(keccak256("second"), "elsewhere");
        assertEq(providers.candidates(), 1);
        assertEq(providers.seats()[0].key, keccak256("second"));
        assertEq(providers.seats()[0].socket, "elsewhere");
        providers.leaveSeat();
        vm.stopPrank();
        assertEq(providers.ownerOfKey(keyOf("ada")), ada);
        vm.expectRevert(abi.encodeWithSelector(ISeats.KeyTaken.selector, keyOf("ada"), ada));
        vm.prank(bob);
        providers.takeSeat(keyOf("ada"), "s");
    }

    function test_most_stake_sits_first_and_ties_go_to_the_lower_address() public {
        address[] memory who = new address[](5);
        uint256[5] memory stakes = [least, 3 * least, 2 * least, 3 * least, least];
        for (uint256 i = 0; i < 5; i++) {
            who[i] = seated(vm.toString(i), stakes[i]);
        }
        Seat[] memory found = providers.seats();
        assertEq(found.length, 5);
        assertEq(found[0].owner, who[1] < who[3] ? who[1] : who[3]);
        assertEq(found[1].owner, who[1] < who[3] ? who[3] : who[1]);
        assertEq(found[2].owner, who[2]);
        assertEq(found[3].owner, who[0] < who[4] ? who[0] : who[4]);

        parameters.set(Value.Seats, 2);
        Seat[] memory fewer = providers.seats();
        assertEq(fewer.length, 2);
        assertEq(fewer[0].owner, found[0].owner);
        assertEq(fewer[1].owner, found[1].owner);
    }

    function test_jail_and_unbonding_clear_the_seat_at_once() public {
        address ada = seated("ada", least);
        address bob = seated("bob", 2 * least);
        assertEq(providers.seats().length, 2);
        vm.prank(ada);
        providers.unbond(1);
        assertEq(providers.seats().length, 1);
        vm.prank(ARBITER);
        providers.slash(bob, 500, address(0), "");
        // Nobody may sit, so the first seats do.
        assertEq(providers.seats()[0].owner, GENESIS);

        skip(value(Value.JailTime));
        vm.prank(bob);
        providers.unjail();
        assertEq(providers.seats()[0].owner, bob);
    }

    function test_a_full_list_gives_way_to_more_stake_only() public {
        uint256 most = providers.CANDIDATES_MAX();
        address weakest = seated("weakest", least + 1);
        for (uint256 i = 1; i < most; i++) {
            seated(vm.toString(i), least + 2);
        }
        assertEq(providers.candidates(), most);
        assertEq(providers.seats().length, 100);
        vm.snapshotGasLastCall("Seats", "seats, 128 candidates");

        (address late,) = enrol("late", least + 1);
        vm.expectRevert(abi.encodeWithSelector(ISeats.SeatsFull.selector, least + 1, least + 1));
        vm.prank(late);
        providers.takeSeat(keyOf("late"), "s");

        fund(late, 1);
        vm.startPrank(late);
        providers.stake(1);
        vm.expectEmit(address(providers));
        emit ISeats.SeatLeft(weakest, keyOf("weakest"));
        providers.takeSeat(keyOf("late"), "s");
        vm.snapshotGasLastCall("Seats", "takeSeat, list full");
        vm.stopPrank();
        assertEq(providers.candidates(), most);

        vm.expectRevert(abi.encodeWithSelector(ISeats.NoSeat.selector, weakest));
        vm.prank(weakest);
        providers.leaveSeat();
    }

    function test_equivocation_costs_the_most_the_seat_and_freedom_once_per_epoch() public {
        address ada = seated("ada", least);
        seated("bob", least);
        confirm("two votes", keyOf("ada"), 7);
        uint256 amount = share(least, 2000);
        vm.expectEmit(address(providers));
        emit ISeats.SeatLeft(ada, keyOf("ada"));
        vm.expectEmit(address(providers));
        emit ISeats.Equivocated(ada, keyOf("ada"), 7, REPORTER);
        vm.expectEmit(address(providers));
        emit IProviders.Slashed(ada, REPORTER, amount, share(amount, 1000), "equivocation");
        vm.prank(REPORTER);
        providers.reportEquivocation("two votes");
        vm.snapshotGasLastCall("Seats", "reportEquivocation");

        assertEq(token.balanceOf(REPORTER), share(amount, 1000));
        assertEq(providers.provider(ada).bonded, least - amount);
        assertGt(providers.provider(ada).jailedUntil, block.timestamp);
        assertEq(providers.seats().length, 1);
        assertEq(providers.candidates(), 1);

        vm.expectRevert(abi.encodeWithSelector(ISeats.AlreadyPunished.selector, keyOf("ada"), 7));
        providers.reportEquivocation("two votes");

        // Another epoch is another lie, even with the seat gone and the stake on its way out.
        vm.prank(ada);
        providers.unbond(uint128(least - amount));
        confirm("two more", keyOf("ada"), 8);
        providers.reportEquivocation("two more");
        assertEq(providers.provider(ada).unbonding, (least - amount) - share(least - amount, 2000));
    }

    function test_a_first_seat_without_stake_can_be_shamed_only() public {
        confirm("evidence", GENESIS_KEY, 0);
        vm.expectEmit(address(providers));
        emit ISeats.Equivocated(GENESIS, GENESIS_KEY, 0, address(this));
        providers.reportEquivocation("evidence");
        assertEq(providers.seats()[0].owner, GENESIS);
    }

    function test_evidence_that_the_chain_does_not_confirm_is_refused() public {
        seated("ada", least);
        // No precompile at all, as on other chains.
        refuse();
        bytes[4] memory answers = [
            bytes(""),
            abi.encode(keyOf("ada")),
            abi.encode(keyOf("ada"), 1, 2),
            abi.encode(keyOf("ada"), uint256(type(uint64).max) + 1)
        ];
        for (uint256 i = 0; i < answers.length; i++) {
            vm.mockCall(providers.EQUIVOCATION(), "evidence", answers[i]);
            refuse();
        }
        vm.mockCallRevert(providers.EQUIVOCATION(), "evidence", abi.encode(keyOf("ada"), 1));
        refuse();
        vm.clearMockedCalls();
        // A key that never asked for a seat.
        confirm("evidence", keyOf("stranger"), 1);
        refuse();
    }

    function test_a_deployment_gives_first_seats() public {
        assertEq(address(registry(new Seat[](0))), address(0));
        assertEq(address(registry(many(101))), address(0));
        assertEq(registry(many(100)).seats().length, 100);

        Seat[] memory two = many(2);
        two[1].key = two[0].key;
        assertEq(address(registry(two)), address(0));
        two = many(2);
        two[1].owner = address(0);
        assertEq(address(registry(two)), address(0));
        two = many(2);
        two[1].key = 0;
        assertEq(address(registry(two)), address(0));
        two = many(2);
        two[1].socket = "";
        assertEq(address(registry(two)), address(0));
        // A weight is not given, so nobody starts with more votes.
        two = many(2);
        two[0].weight = 9;
        assertEq(registry(two).seats()[0].weight, 1);
    }

    /// The draw, told the plain way: pick the best that is left, again and again.
    function testFuzz_the_draw_equals_its_definition(uint8[12] memory stakes, uint8 most, uint16 jailed) public {
        address[] memory left = new address[](12);
        for (uint256 i = 0; i < 12; i++) {
            // Few different stakes, so that ties are common.
            left[i] = seated(vm.toString(i), least + stakes[i] % 4);
            if (jailed >> i & 1 == 1) {
                vm.prank(ARBITER);
                providers.slash(left[i], 500, address(0), "");
                left[i] = address(0);
            }
        }
        uint256 seats = bound(most, 1, 12);
        parameters.set(Value.Seats, seats);
        Seat[] memory found = providers.seats();
        for (uint256 place = 0; place < seats; place++) {
            uint256 best = 12;
            for (uint256 i = 0; i < 12; i++) {
                if (left[i] != address(0) && (best == 12 || better(left[i], left[best]))) best = i;
            }
            if (best == 12) {
                assertEq(found.length, place == 0 ? 1 : place);
                if (place == 0) assertEq(found[0].owner, GENESIS);
                return;
            }
            assertEq(found[place].owner, left[best]);
            assertEq(found[place].key, keyOf(vm.toString(best)));
            left[best] = address(0);
        }
        assertEq(found.length, seats);
    }

    function better(address a, address b) private view returns (bool) {
        (uint256 left, uint256 right) = (providers.provider(a).bonded, providers.provider(b).bonded);
        return left > right || (left == right && uint160(a) < uint160(b));
    }

    function seated(string memory name, uint256 amount) private returns (address owner) {
        (owner,) = enrol(name, amount);
        vm.prank(owner);
        providers.takeSeat(keyOf(name), string.concat(name, ".example:7000"));
    }

    function keyOf(string memory name) private pure returns (bytes32) {
        return keccak256(bytes.concat("validator ", bytes(name)));
    }

    /// Lets the chain confirm `evidence` against `key` in `epoch`.
    function confirm(bytes memory evidence, bytes32 key, uint64 epoch) private {
        vm.mockCall(providers.EQUIVOCATION(), evidence, abi.encode(key, epoch));
    }

    function refuse() private {
        vm.expectRevert(ISeats.EvidenceRefused.selector);
        providers.reportEquivocation("evidence");
    }

    function many(uint256 count) private pure returns (Seat[] memory genesis) {
        genesis = new Seat[](count);
        for (uint256 i = 0; i < count; i++) {
            genesis[i] = Seat(bytes32(i + 1), address(uint160(i + 1)), 1, "s");
        }
    }
}
