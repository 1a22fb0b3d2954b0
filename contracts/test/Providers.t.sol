// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {IProviders, Provider, Tier} from "../src/interfaces/IProviders.sol";
import {Stakes, Unbonding} from "../src/libraries/Stakes.sol";
import {Staking} from "./Staking.sol";

/// @notice Who may register, serve and be found, and how stake comes in and out.
contract ProvidersTest is Staking {
    uint256 private bronze;
    uint256 private delay;

    function setUp() public override {
        super.setUp();
        bronze = value(Value.TierBronze);
        delay = value(Value.UnbondingDelay);
    }

    function test_register_makes_a_provider_that_others_find() public {
        (address operator, uint256 key) = makeAddrAndKey("key");
        address ada = makeAddr("ada");
        bytes memory signature = consent(key, ada);
        vm.expectEmit(address(providers));
        emit IProviders.Registered(ada, operator, "https://ada.example");
        vm.prank(ada);
        providers.register(operator, "https://ada.example", signature);
        vm.snapshotGasLastCall("Providers", "register");

        Provider memory found = providers.provider(ada);
        assertEq(found.operator, operator);
        assertEq(found.endpoint, "https://ada.example");
        assertEq(found.bonded, 0);
        assertTrue(found.tier == Tier.None);
        assertEq(found.heartbeat, block.timestamp);
        assertEq(providers.providerOf(operator), ada);
        assertEq(providers.providerOf(ada), address(0));
        assertFalse(providers.active(ada));
    }

    function test_an_owner_registers_once() public {
        (address ada,) = enrol("ada");
        (address other, uint256 key) = makeAddrAndKey("other");
        bytes memory signature = consent(key, ada);
        refused(abi.encodeWithSelector(IProviders.AlreadyRegistered.selector, ada));
        vm.prank(ada);
        providers.register(other, "x", signature);
    }

    function test_an_operator_must_agree() public {
        (address operator, uint256 key) = makeAddrAndKey("key");
        (address ada, address bob) = (makeAddr("ada"), makeAddr("bob"));
        bytes memory forBob = consent(key, bob);
        // The digest of Ada's word recovers to a stranger, whom the test need not know.
        vm.expectPartialRevert(IProviders.WrongSigner.selector);
        vm.prank(ada);
        providers.register(operator, "x", forBob);

        refused(abi.encodeWithSelector(IProviders.WrongSigner.selector, address(0), operator));
        vm.prank(ada);
        providers.register(operator, "x", "short");

        refused(abi.encodeWithSelector(IProviders.WrongSigner.selector, address(0), address(0)));
        vm.prank(ada);
        providers.register(address(0), "x", new bytes(65));
    }

    function test_a_word_for_another_registry_or_chain_is_void() public {
        (address operator, uint256 key) = makeAddrAndKey("key");
        address ada = makeAddr("ada");
        vm.chainId(block.chainid + 1);
        bytes memory elsewhere = consent(key, ada);
        vm.chainId(block.chainid - 1);
        vm.expectPartialRevert(IProviders.WrongSigner.selector);
        vm.prank(ada);
        providers.register(operator, "x", elsewhere);

        bytes memory other = consent(key, ada, address(token));
        vm.expectPartialRevert(IProviders.WrongSigner.selector);
        vm.prank(ada);
        providers.register(operator, "x", other);
    }

    function test_an_operator_serves_one_owner_for_good() public {
        (address ada, address operator) = enrol("ada");
        (, uint256 key) = makeAddrAndKey("ada's operator");
        address bob = makeAddr("bob");
        bytes memory signature = consent(key, bob);
        refused(abi.encodeWithSelector(IProviders.OperatorTaken.selector, operator, ada));
        vm.prank(bob);
        providers.register(operator, "x", signature);
    }

    function test_keys_are_apart() public {
        (address ada, uint256 adaKey) = makeAddrAndKey("ada");
        bytes memory own = consent(adaKey, ada);
        refused(abi.encodeWithSelector(IProviders.KeysNotApart.selector, ada));
        vm.prank(ada);
        providers.register(ada, "x", own);

        enrol("ada");
        (address bob,) = makeAddrAndKey("bob");
        bytes memory owner = consent(adaKey, bob);
        refused(abi.encodeWithSelector(IProviders.KeysNotApart.selector, ada));
        vm.prank(bob);
        providers.register(ada, "x", owner);

        (address operator,) = makeAddrAndKey("ada's operator");
        (address other, uint256 key) = makeAddrAndKey("other");
        bytes memory byOther = consent(key, operator);
        refused(abi.encodeWithSelector(IProviders.KeysNotApart.selector, operator));
        vm.prank(operator);
        providers.register(other, "x", byOther);
    }

    function test_an_endpoint_has_bounds() public {
        (address operator, uint256 key) = makeAddrAndKey("key");
        address ada = makeAddr("ada");
        bytes memory signature = consent(key, ada);
        refused(abi.encodeWithSelector(IProviders.EndpointLength.selector, 0, 256));
        vm.prank(ada);
        providers.register(operator, "", signature);

        refused(abi.encodeWithSelector(IProviders.EndpointLength.selector, 257, 256));
        vm.prank(ada);
        providers.register(operator, times("e", 257), signature);

        vm.prank(ada);
        providers.register(operator, times("e", 256), signature);
        refused(abi.encodeWithSelector(IProviders.EndpointLength.selector, 257, 256));
        vm.prank(operator);
        providers.announce(times("e", 257));
    }

    function test_rotation_keeps_the_old_key_answerable() public {
        (address ada, address old) = enrol("ada", bronze);
        (address present, uint256 key) = makeAddrAndKey("present");
        bytes memory signature = consent(key, ada);
        vm.expectEmit(address(providers));
        emit IProviders.OperatorSet(ada, old, present);
        vm.prank(ada);
        providers.rotate(present, signature);
        vm.snapshotGasLastCall("Providers", "rotate");

        assertEq(providers.provider(ada).operator, present);
        assertEq(providers.providerOf(old), ada);
        assertEq(providers.providerOf(present), ada);
        refused(abi.encodeWithSelector(IProviders.NotOperator.selector, old, present));
        vm.prank(old);
        providers.heartbeat();

        (, uint256 oldKey) = makeAddrAndKey("ada's operator");
        bytes memory again = consent(oldKey, ada);
        vm.prank(ada);
        providers.rotate(old, again);
        assertEq(providers.provider(ada).operator, old);
    }

    function test_announce_moves_the_endpoint() public {
        (address ada, address operator) = enrol("ada");
        vm.expectEmit(address(providers));
        emit IProviders.EndpointSet(ada, "/dns4/ada.example/tcp/1");
        vm.prank(operator);
        providers.announce("/dns4/ada.example/tcp/1");
        vm.snapshotGasLastCall("Providers", "announce");
        assertEq(providers.provider(ada).endpoint, "/dns4/ada.example/tcp/1");
    }

    function test_strangers_are_refused() public {
        address eve = makeAddr("eve");
        bytes memory unknown = abi.encodeWithSelector(IProviders.NotRegistered.selector, eve);
        vm.startPrank(eve);
        refused(unknown);
        providers.rotate(address(1), "");
        refused(unknown);
        providers.announce("x");
        refused(unknown);
        providers.heartbeat();
        refused(unknown);
        providers.stake(1);
        refused(unknown);
        providers.unbond(1);
        refused(unknown);
        providers.withdraw();
        refused(unknown);
        providers.unjail();
        refused(unknown);
        providers.reportAbsence(eve);
        refused(unknown);
        providers.provider(eve);
        refused(unknown);
        providers.unbondings(eve);
        refused(unknown);
        providers.takeSeat(keccak256("k"), "s");
        vm.stopPrank();
        assertFalse(providers.active(eve));

        // An owner is no operator, and an operator no owner.
        (address ada, address operator) = enrol("ada");
        refused(abi.encodeWithSelector(IProviders.NotRegistered.selector, ada));
        vm.prank(ada);
        providers.heartbeat();
        refused(abi.encodeWithSelector(IProviders.NotRegistered.selector, operator));
        vm.prank(operator);
        providers.unbond(1);
    }

    function test_stake_makes_active_and_sets_the_tier() public {
        (address ada, address operator) = enrol("ada");
        fund(ada, value(Value.TierGold));
        skip(100 days);
        vm.startPrank(ada);
        providers.stake(uint128(bronze - 1));
        assertFalse(providers.active(ada));
        vm.expectEmit(address(providers));
        emit IProviders.Staked(ada, 1, bronze);
        providers.stake(1);
        vm.snapshotGasLastCall("Providers", "stake");
        // Duty began now, so a hundred days of silence before it do not count.
        assertTrue(providers.active(ada));
        assertEq(providers.provider(ada).heartbeat, block.timestamp);
        assertTrue(providers.provider(ada).tier == Tier.Bronze);
        skip(1 hours);
        uint256 silver = value(Value.TierSilver);
        providers.stake(uint128(silver - bronze));
        assertTrue(providers.provider(ada).tier == Tier.Silver);
        // More stake is no sign of life.
        assertEq(providers.provider(ada).heartbeat, block.timestamp - 1 hours);
        providers.stake(uint128(value(Value.TierGold) - silver));
        assertTrue(providers.provider(ada).tier == Tier.Gold);
        vm.stopPrank();
        assertEq(token.balanceOf(address(providers)), value(Value.TierGold));

        skip(value(Value.AbsenceLimit) + 1);
        assertFalse(providers.active(ada));
        vm.expectEmit(address(providers));
        emit IProviders.Heartbeat(ada);
        vm.prank(operator);
        providers.heartbeat();
        vm.snapshotGasLastCall("Providers", "heartbeat");
        assertTrue(providers.active(ada));
    }

    function test_stake_needs_an_amount_and_an_allowance() public {
        (address ada,) = enrol("ada");
        refused(abi.encodeWithSelector(Stakes.NoAmount.selector));
        vm.prank(ada);
        providers.stake(0);
        refused(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(providers), 0, 5));
        vm.prank(ada);
        providers.stake(5);
        assertEq(providers.provider(ada).bonded, 0);
    }

    function test_stake_with_permit_needs_one_transaction() public {
        (address ada, uint256 key) = makeAddrAndKey("ada");
        enrol("ada");
        require(token.transfer(ada, 2 * bronze), "no transfer");
        (uint8 v, bytes32 r, bytes32 s) = permit(key, ada, bronze);
        vm.prank(ada);
        providers.stakeWithPermit(uint128(bronze), block.timestamp, v, r, s);
        vm.snapshotGasLastCall("Providers", "stakeWithPermit");
        assertEq(providers.provider(ada).bonded, bronze);

        // Somebody runs ahead with the permit: the stake goes through all the same.
        (v, r, s) = permit(key, ada, bronze);
        token.permit(ada, address(providers), bronze, block.timestamp, v, r, s);
        vm.prank(ada);
        providers.stakeWithPermit(uint128(bronze), block.timestamp, v, r, s);
        assertEq(providers.provider(ada).bonded, 2 * bronze);

        // A void permit gives no allowance.
        refused(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(providers), 0, 1));
        vm.prank(ada);
        providers.stakeWithPermit(1, block.timestamp, v, r, s);
    }

    function test_stake_leaves_after_the_delay_and_not_before() public {
        (address ada,) = enrol("ada", bronze);
        uint256 release = block.timestamp + delay;
        vm.expectEmit(address(providers));
        emit IProviders.Unbonded(ada, 40, bronze - 40, release);
        vm.prank(ada);
        providers.unbond(40);
        vm.snapshotGasLastCall("Providers", "unbond");
        assertFalse(providers.active(ada));
        assertEq(providers.provider(ada).unbonding, 40);

        vm.warp(release - 1);
        refused(abi.encodeWithSelector(Stakes.NothingDue.selector, release));
        vm.prank(ada);
        providers.withdraw();

        vm.warp(release);
        vm.expectEmit(address(providers));
        emit IProviders.Withdrawn(ada, 40);
        vm.prank(ada);
        assertEq(providers.withdraw(), 40);
        assertEq(token.balanceOf(ada), 40);
        assertEq(token.balanceOf(address(providers)), bronze - 40);

        refused(abi.encodeWithSelector(Stakes.NothingDue.selector, 0));
        vm.prank(ada);
        providers.withdraw();
        refused(abi.encodeWithSelector(Stakes.Overdrawn.selector, bronze, bronze - 40));
        vm.prank(ada);
        providers.unbond(uint128(bronze));
        refused(abi.encodeWithSelector(Stakes.NoAmount.selector));
        vm.prank(ada);
        providers.unbond(0);
    }

    function test_the_queue_is_bounded_and_pays_what_is_due_in_one_go() public {
        (address ada,) = enrol("ada", bronze);
        for (uint128 i = 1; i <= 16; i++) {
            vm.prank(ada);
            providers.unbond(i);
            skip(1 hours);
        }
        refused(abi.encodeWithSelector(Stakes.QueueFull.selector, 16));
        vm.prank(ada);
        providers.unbond(1);

        // The first three are due: 1 + 2 + 3.
        vm.warp(providers.unbondings(ada)[2].release);
        vm.prank(ada);
        assertEq(providers.withdraw(), 6);
        vm.snapshotGasLastCall("Providers", "withdraw, 3 of 16 due");
        Unbonding[] memory left = providers.unbondings(ada);
        assertEq(left.length, 13);
        for (uint256 i = 0; i < 13; i++) {
            assertEq(left[i].amount, i + 4);
        }
        skip(delay);
        vm.prank(ada);
        assertEq(providers.withdraw(), 136 - 6);
        vm.snapshotGasLastCall("Providers", "withdraw, 13 of 13 due");
        assertEq(providers.provider(ada).unbonding, 0);
    }

    function test_a_changed_delay_moves_no_date_that_was_promised() public {
        (address ada,) = enrol("ada", bronze);
        uint256 start = block.timestamp;
        vm.prank(ada);
        providers.unbond(1);
        parameters.set(Value.UnbondingDelay, delay - 1 days);
        vm.prank(ada);
        providers.unbond(2);
        // The second is due first.
        vm.warp(start + delay - 1 days);
        vm.prank(ada);
        assertEq(providers.withdraw(), 2);
        refused(abi.encodeWithSelector(Stakes.NothingDue.selector, start + delay));
        vm.prank(ada);
        providers.withdraw();
    }

    function test_owners_come_in_pages() public {
        address[] memory all = new address[](5);
        for (uint256 i = 0; i < 5; i++) {
            (all[i],) = enrol(vm.toString(i));
        }
        assertEq(providers.count(), 5);
        address[] memory page = providers.owners(1, 2);
        assertEq(page.length, 2);
        assertEq(page[0], all[1]);
        assertEq(page[1], all[2]);
        assertEq(providers.owners(3, type(uint256).max).length, 2);
        assertEq(providers.owners(5, 1).length, 0);
        assertEq(providers.owners(type(uint256).max, type(uint256).max).length, 0);
        assertEq(providers.owners(0, 0).length, 0);
    }

    function testFuzz_what_goes_in_comes_out(uint128[8] memory amounts, uint32[8] memory waits) public {
        (address ada,) = enrol("ada");
        uint256 sum;
        for (uint256 i = 0; i < 8; i++) {
            amounts[i] = uint128(bound(amounts[i], 1, 1e25));
            fund(ada, amounts[i]);
            sum += amounts[i];
            vm.prank(ada);
            providers.stake(amounts[i]);
        }
        for (uint256 i = 0; i < 8; i++) {
            skip(bound(waits[i], 0, 30 days));
            vm.prank(ada);
            providers.unbond(amounts[7 - i]);
        }
        skip(delay);
        vm.prank(ada);
        assertEq(providers.withdraw(), sum);
        assertEq(token.balanceOf(ada), sum);
        assertEq(token.balanceOf(address(providers)), 0);
    }

    function permit(uint256 key, address owner, uint256 amount) private view returns (uint8, bytes32, bytes32) {
        bytes32 kind = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 word =
            keccak256(abi.encode(kind, owner, address(providers), amount, token.nonces(owner), block.timestamp));
        return vm.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), word)));
    }

    function refused(bytes memory why) private {
        vm.expectRevert(why);
    }
}
