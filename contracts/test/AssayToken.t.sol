// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {AssayToken} from "../src/AssayToken.sol";
import {Base} from "./Base.sol";

/// @notice A contract account: whatever its owner signed, it signed.
contract Account is IERC1271 {
    address private immutable _owner;

    constructor(address owner) {
        _owner = owner;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        return ECDSA.recover(hash, signature) == _owner ? this.isValidSignature.selector : bytes4(0);
    }
}

/// @notice ASY does what ERC-20, ERC-2612, ERC-3009 and ERC-6372 say, and its supply only falls.
contract AssayTokenTest is Base {
    // As ERC-2612 and ERC-3009 print them, so that a slip in the type strings shows.
    bytes32 private constant PERMIT = 0x6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9;
    bytes32 private constant TRANSFER = 0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267;
    bytes32 private constant RECEIVE = 0xd099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8;
    bytes32 private constant CANCEL = 0x158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429;

    bytes32 private constant NONCE = keccak256("nonce");
    uint256 private constant NEVER = type(uint256).max;

    AssayToken private token;
    address private ada;
    uint256 private adaKey;
    address private bob;

    function setUp() public {
        vm.warp(1_800_000_000);
        token = new AssayToken();
        (ada, adaKey) = makeAddrAndKey("ada");
        bob = makeAddr("bob");
        token.transfer(ada, 1000e18);
    }

    function test_the_supply_is_one_billion_and_the_deployer_holds_it() public {
        AssayToken fresh = new AssayToken();
        assertEq(fresh.totalSupply(), 1e9 * 1e18);
        assertEq(fresh.balanceOf(address(this)), fresh.SUPPLY());
        assertEq(fresh.decimals(), 18);
        assertEq(fresh.symbol(), "ASY");
    }

    function testFuzz_a_transfer_moves_and_a_burn_destroys(uint256 moved, uint256 burned) public {
        moved = bound(moved, 0, 1000e18);
        burned = bound(burned, 0, moved);
        vm.prank(ada);
        token.transfer(bob, moved);
        vm.prank(bob);
        token.burn(burned);
        assertEq(token.balanceOf(ada), 1000e18 - moved);
        assertEq(token.balanceOf(bob), moved - burned);
        assertEq(token.totalSupply(), token.SUPPLY() - burned);
    }

    function test_burning_for_another_takes_an_allowance() public {
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, bob, 0, 5));
        vm.prank(bob);
        token.burnFrom(ada, 5);

        vm.prank(ada);
        token.approve(bob, 5);
        vm.prank(bob);
        token.burnFrom(ada, 5);
        assertEq(token.totalSupply(), token.SUPPLY() - 5);
    }

    function testFuzz_a_permit_approves_once(uint256 amount) public {
        bytes32 words = keccak256(abi.encode(PERMIT, ada, bob, amount, token.nonces(ada), NEVER));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, digest(words));
        token.permit(ada, bob, amount, NEVER, v, r, s);
        assertEq(token.allowance(ada, bob), amount);
        assertEq(token.nonces(ada), 1);

        vm.expectRevert();
        token.permit(ada, bob, amount, NEVER, v, r, s);
    }

    function test_votes_follow_the_tokens_by_timestamp() public {
        vm.prank(ada);
        token.delegate(ada);
        skip(10);
        vm.prank(ada);
        token.transfer(bob, 400e18);
        skip(1);

        assertEq(token.clock(), block.timestamp);
        assertEq(token.CLOCK_MODE(), "mode=timestamp");
        assertEq(token.getVotes(ada), 600e18);
        assertEq(token.getPastVotes(ada, block.timestamp - 2), 1000e18);
    }

    function test_a_signed_transfer_in_both_forms() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, authorization(TRANSFER, ada, 7, NONCE));
        token.transferWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, v, r, s);
        vm.snapshotGasLastCall("AssayToken", "transferWithAuthorization (v, r, s)");
        assertEq(token.balanceOf(bob), 7);
        assertTrue(token.authorizationState(ada, NONCE));

        bytes32 other = keccak256("other");
        bytes memory signature = signed(adaKey, authorization(TRANSFER, ada, 8, other));
        token.transferWithAuthorization(ada, bob, 8, 0, NEVER, other, signature);
        vm.snapshotGasLastCall("AssayToken", "transferWithAuthorization (bytes)");
        assertEq(token.balanceOf(bob), 15);
    }

    function test_a_signature_pays_once() public {
        bytes memory signature = signed(adaKey, authorization(TRANSFER, ada, 7, NONCE));
        token.transferWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, signature);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, ada, NONCE));
        token.transferWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, signature);
    }

    function testFuzz_a_signature_holds_for_its_own_words_only(uint256 amount, bytes32 nonce) public {
        vm.assume(amount != 7 || nonce != NONCE);
        bytes memory signature = signed(adaKey, authorization(TRANSFER, ada, 7, NONCE));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.transferWithAuthorization(ada, bob, amount, 0, NEVER, nonce, signature);
    }

    function test_a_transfer_signature_is_no_receive_signature() public {
        bytes memory signature = signed(adaKey, authorization(TRANSFER, ada, 7, NONCE));
        vm.prank(bob);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.receiveWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, signature);
    }

    function test_only_the_receiver_brings_a_receive_signature() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, authorization(RECEIVE, ada, 7, NONCE));
        bytes memory signature = abi.encodePacked(r, s, v);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, bob));
        token.receiveWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, signature);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, bob));
        token.receiveWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, v, r, s);

        vm.prank(bob);
        token.receiveWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, signature);
        vm.snapshotGasLastCall("AssayToken", "receiveWithAuthorization (bytes)");
        assertEq(token.balanceOf(bob), 7);
    }

    function test_the_receiver_brings_v_r_s() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, authorization(RECEIVE, ada, 7, NONCE));
        vm.prank(bob);
        token.receiveWithAuthorization(ada, bob, 7, 0, NEVER, NONCE, v, r, s);
        vm.snapshotGasLastCall("AssayToken", "receiveWithAuthorization (v, r, s)");
        assertEq(token.balanceOf(bob), 7);
    }

    function test_an_authorization_has_its_time() public {
        uint256 noon = block.timestamp;
        bytes32 words = keccak256(abi.encode(TRANSFER, ada, bob, 7, noon, noon + 10, NONCE));
        bytes memory signature = signed(adaKey, digest(words));
        bytes memory refusal = abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, noon, noon + 10);

        vm.expectRevert(refusal);
        token.transferWithAuthorization(ada, bob, 7, noon, noon + 10, NONCE, signature);
        vm.warp(noon + 10);
        vm.expectRevert(refusal);
        token.transferWithAuthorization(ada, bob, 7, noon, noon + 10, NONCE, signature);
        vm.warp(noon + 1);
        token.transferWithAuthorization(ada, bob, 7, noon, noon + 10, NONCE, signature);
        assertEq(token.balanceOf(bob), 7);
    }

    function test_a_cancelled_authorization_is_void_in_both_forms() public {
        bytes32 other = keccak256("other");
        token.cancelAuthorization(ada, NONCE, signed(adaKey, cancellation(NONCE)));
        vm.snapshotGasLastCall("AssayToken", "cancelAuthorization (bytes)");
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, cancellation(other));
        token.cancelAuthorization(ada, other, v, r, s);
        vm.snapshotGasLastCall("AssayToken", "cancelAuthorization (v, r, s)");

        refuse(NONCE);
        refuse(other);
    }

    function test_nobody_else_can_cancel() public {
        (, uint256 malloryKey) = makeAddrAndKey("mallory");
        bytes memory signature = signed(malloryKey, cancellation(NONCE));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.cancelAuthorization(ada, NONCE, signature);
    }

    function test_a_contract_account_signs_with_bytes() public {
        address account = address(new Account(ada));
        token.transfer(account, 100);
        bytes memory signature = signed(adaKey, authorization(TRANSFER, account, 7, NONCE));
        token.transferWithAuthorization(account, bob, 7, 0, NEVER, NONCE, signature);
        assertEq(token.balanceOf(bob), 7);

        (, uint256 malloryKey) = makeAddrAndKey("mallory");
        signature = signed(malloryKey, authorization(TRANSFER, account, 7, CANCEL));
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        token.transferWithAuthorization(account, bob, 7, 0, NEVER, CANCEL, signature);
    }

    function test_gas_of_plain_moves() public {
        vm.prank(ada);
        token.transfer(bob, 5);
        vm.snapshotGasLastCall("AssayToken", "transfer, new receiver");
        vm.prank(ada);
        token.transfer(bob, 5);
        vm.snapshotGasLastCall("AssayToken", "transfer");
        vm.prank(ada);
        token.approve(bob, 5);
        vm.snapshotGasLastCall("AssayToken", "approve");
        vm.prank(bob);
        token.transferFrom(ada, bob, 5);
        vm.snapshotGasLastCall("AssayToken", "transferFrom");
        vm.prank(bob);
        token.delegate(bob);
        vm.snapshotGasLastCall("AssayToken", "delegate");
        vm.prank(bob);
        token.burn(5);
        vm.snapshotGasLastCall("AssayToken", "burn, delegated");
        bytes32 words = keccak256(abi.encode(PERMIT, ada, bob, 5, 0, NEVER));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(adaKey, digest(words));
        token.permit(ada, bob, 5, NEVER, v, r, s);
        vm.snapshotGasLastCall("AssayToken", "permit");
        vm.prank(bob);
        token.burnFrom(ada, 5);
        vm.snapshotGasLastCall("AssayToken", "burnFrom");
    }

    function refuse(bytes32 nonce) private {
        bytes memory signature = signed(adaKey, authorization(TRANSFER, ada, 7, nonce));
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, ada, nonce));
        token.transferWithAuthorization(ada, bob, 7, 0, NEVER, nonce, signature);
    }

    function authorization(bytes32 kind, address from, uint256 amount, bytes32 nonce) private view returns (bytes32) {
        return digest(keccak256(abi.encode(kind, from, bob, amount, 0, NEVER, nonce)));
    }

    function cancellation(bytes32 nonce) private view returns (bytes32) {
        return digest(keccak256(abi.encode(CANCEL, ada, nonce)));
    }

    /// The EIP-712 digest, from the domain in words and not from what the token says of itself.
    function digest(bytes32 words) private view returns (bytes32) {
        bytes32 kind = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 domain = keccak256(abi.encode(kind, keccak256("Assay"), keccak256("1"), block.chainid, address(token)));
        return keccak256(abi.encodePacked(hex"1901", domain, words));
    }

    function signed(uint256 key, bytes32 hash) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, hash);
        return abi.encodePacked(r, s, v);
    }
}
