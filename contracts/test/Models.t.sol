// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Models} from "../src/Models.sol";
import {IModels, Model, Revision, Terms} from "../src/interfaces/IModels.sol";
import {Manifest, Tensor} from "../src/types/Manifest.sol";
import {Base} from "./Base.sol";

/// @notice Whose a model is, on what terms, and that its id is the one that the Rust side computes.
contract ModelsTest is Base {
    Models private models;
    address private immutable ADA = makeAddr("ada");
    address private immutable BOB = makeAddr("bob");

    function setUp() public {
        vm.warp(1_800_000_000);
        models = new Models();
    }

    function test_the_id_of_the_shipped_model_is_the_one_that_conversion_reaches() public {
        bytes memory encoded = vm.parseBytes(line("../tests/vectors/nano.manifest"));
        bytes32 expected = bytes32(vm.parseBytes(line("../tests/vectors/nano.id")));
        assertEq(keccak256(encoded), expected);
        Manifest memory nano = abi.decode(encoded, (Manifest));
        assertEq(models.idOf(nano), expected);

        vm.expectEmit(address(models));
        emit IModels.Revised(expected, 0, terms(1));
        vm.prank(ADA);
        assertEq(models.publish(nano, terms(1)), expected);
        vm.snapshotGasLastCall("Models", "publish, nano");

        Model memory found = models.model(expected);
        assertEq(found.owner, ADA);
        assertEq(found.heir, address(0));
        assertEq(found.published, block.timestamp);
        assertEq(found.revisions, 1);
        assertEq(found.roots.weights, nano.parts.weights);
        assertEq(found.roots.program, nano.parts.program);
        assertEq(found.roots.rope, nano.parts.rope);
        assertEq(found.roots.tokenizer, nano.parts.tokenizer);
    }

    function test_a_large_manifest_fits_a_transaction() public {
        Manifest memory large = manifest(1);
        // As many tensors as 126 layers of nine, an embedding, a norm and an output have.
        large.tensors = new Tensor[](1137);
        for (uint32 i = 0; i < large.tensors.length; i++) {
            large.tensors[i] = Tensor(1, 16_384, 16_384, uint64(i) * 2_097_152);
        }
        large.arithmetic.sites = new bytes(126 * 6);
        vm.prank(ADA);
        models.publish(large, terms(1));
        uint256 gas = vm.snapshotGasLastCall("Models", "publish, 126 layers");
        // What one transaction may use on Ethereum (EIP-7825).
        assertLt(gas, 16_777_216);
    }

    function test_who_is_first_owns_it() public {
        bytes32 id = published(1, ADA);
        vm.expectRevert(abi.encodeWithSelector(IModels.AlreadyPublished.selector, id, ADA));
        vm.prank(BOB);
        models.publish(manifest(1), terms(2));
        assertEq(models.count(), 1);
    }

    function test_an_unknown_version_is_refused() public {
        for (uint16 version = 0; version < 3; version += 2) {
            Manifest memory other = manifest(1);
            other.version = version;
            vm.expectRevert(abi.encodeWithSelector(IModels.UnknownVersion.selector, version, 1));
            models.publish(other, terms(1));
        }
    }

    function test_terms_are_only_ever_added() public {
        bytes32 id = published(1, ADA);
        uint256 start = block.timestamp;
        skip(10);
        vm.expectEmit(address(models));
        emit IModels.Revised(id, 1, terms(2));
        vm.prank(ADA);
        models.revise(id, terms(2));
        vm.snapshotGasLastCall("Models", "revise");
        skip(10);
        vm.startPrank(ADA);
        models.revise(id, terms(3));
        models.revise(id, terms(4));
        vm.stopPrank();

        assertSame(models.termsOf(id), terms(4));
        assertSame(models.termsAt(id, start), terms(1));
        assertSame(models.termsAt(id, start + 9), terms(1));
        assertSame(models.termsAt(id, start + 10), terms(2));
        assertSame(models.termsAt(id, start + 19), terms(2));
        // Two in one second: the last holds.
        assertSame(models.termsAt(id, start + 20), terms(4));
        assertSame(models.termsAt(id, type(uint256).max), terms(4));
        vm.expectRevert(abi.encodeWithSelector(IModels.TooEarly.selector, start - 1, start));
        models.termsAt(id, start - 1);

        assertEq(models.model(id).revisions, 4);
        Revision[] memory page = models.history(id, 1, 2);
        assertEq(page.length, 2);
        assertEq(page[0].since, start + 10);
        assertSame(page[0].terms, terms(2));
        assertSame(page[1].terms, terms(3));
        assertEq(models.history(id, 3, type(uint256).max).length, 1);
        assertEq(models.history(id, 4, 1).length, 0);
    }

    function test_only_the_owner_revises_and_gives_away() public {
        bytes32 id = published(1, ADA);
        bytes memory notOwner = abi.encodeWithSelector(IModels.NotOwner.selector, BOB, ADA);
        vm.startPrank(BOB);
        vm.expectRevert(notOwner);
        models.revise(id, terms(2));
        vm.expectRevert(notOwner);
        models.transfer(id, BOB);
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHeir.selector, BOB, address(0)));
        models.accept(id);
        vm.stopPrank();
    }

    function test_a_model_changes_hands_in_two_steps() public {
        bytes32 id = published(1, ADA);
        vm.expectEmit(address(models));
        emit IModels.Offered(id, ADA, BOB);
        vm.prank(ADA);
        models.transfer(id, BOB);
        vm.snapshotGasLastCall("Models", "transfer");
        assertEq(models.model(id).owner, ADA);

        vm.expectRevert(abi.encodeWithSelector(IModels.NotHeir.selector, ADA, BOB));
        vm.prank(ADA);
        models.accept(id);

        vm.expectEmit(address(models));
        emit IModels.Transferred(id, ADA, BOB);
        vm.prank(BOB);
        models.accept(id);
        vm.snapshotGasLastCall("Models", "accept");
        assertEq(models.model(id).owner, BOB);
        assertEq(models.model(id).heir, address(0));
        // What flows stays with whom the terms name, until the new owner says otherwise.
        assertSame(models.termsOf(id), terms(1));
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHeir.selector, BOB, address(0)));
        vm.prank(BOB);
        models.accept(id);
    }

    function test_an_offer_can_be_taken_back() public {
        bytes32 id = published(1, ADA);
        vm.startPrank(ADA);
        models.transfer(id, BOB);
        models.transfer(id, address(0));
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IModels.NotHeir.selector, BOB, address(0)));
        vm.prank(BOB);
        models.accept(id);
    }

    function test_terms_have_bounds() public {
        Terms memory bad = terms(1);
        bad.royaltyBps = 1001;
        vm.expectRevert(abi.encodeWithSelector(IModels.RoyaltyTooHigh.selector, 1001, 1000));
        models.publish(manifest(1), bad);

        bad = terms(1);
        bad.royaltyTo = address(0);
        vm.expectRevert(abi.encodeWithSelector(IModels.NoRecipient.selector, bad.royaltyBps));
        models.publish(manifest(1), bad);

        bad = terms(1);
        bad.uri = string(new bytes(257));
        vm.expectRevert(abi.encodeWithSelector(IModels.UriLength.selector, 257, 256));
        models.publish(manifest(1), bad);
        assertEq(models.count(), 0);

        bytes32 id = published(1, ADA);
        vm.expectRevert(abi.encodeWithSelector(IModels.UriLength.selector, 257, 256));
        vm.prank(ADA);
        models.revise(id, bad);
    }

    function test_royalty_never_fails() public {
        (address to, uint16 bps) = models.royalty(keccak256("unknown"));
        assertEq(to, address(0));
        assertEq(bps, 0);

        bytes32 id = published(1, ADA);
        (to, bps) = models.royalty(id);
        assertEq(to, terms(1).royaltyTo);
        assertEq(bps, terms(1).royaltyBps);

        Terms memory free = terms(1);
        free.royaltyBps = 0;
        vm.prank(ADA);
        models.revise(id, free);
        (to, bps) = models.royalty(id);
        assertEq(to, address(0));
        assertEq(bps, 0);
    }

    function test_unknown_ids_are_named() public {
        bytes32 id = keccak256("unknown");
        bytes memory unknown = abi.encodeWithSelector(IModels.NotPublished.selector, id);
        vm.expectRevert(unknown);
        models.model(id);
        vm.expectRevert(unknown);
        models.termsOf(id);
        vm.expectRevert(unknown);
        models.termsAt(id, 0);
        vm.expectRevert(unknown);
        models.history(id, 0, 1);
        vm.expectRevert(unknown);
        models.revise(id, terms(1));
        vm.expectRevert(unknown);
        models.transfer(id, ADA);
        vm.expectRevert(unknown);
        models.accept(id);
    }

    function test_ids_come_in_pages() public {
        bytes32[] memory all = new bytes32[](4);
        for (uint32 i = 0; i < 4; i++) {
            all[i] = published(i + 1, ADA);
        }
        assertEq(models.count(), 4);
        bytes32[] memory page = models.ids(1, 2);
        assertEq(page.length, 2);
        assertEq(page[0], all[1]);
        assertEq(page[1], all[2]);
        assertEq(models.ids(2, type(uint256).max).length, 2);
        assertEq(models.ids(4, 1).length, 0);
        assertEq(models.ids(type(uint256).max, 1).length, 0);
    }

    function testFuzz_the_id_is_the_hash_of_the_canonical_encoding(Manifest memory any) public {
        any.version = 1;
        bytes32 id = models.publish(any, terms(1));
        assertEq(id, keccak256(abi.encode(any)));
        assertEq(models.model(id).roots.weights, any.parts.weights);
    }

    function testFuzz_terms_at_a_time_equal_a_walk_through_history(uint16[10] memory waits, uint32 time) public {
        bytes32 id = published(1, ADA);
        uint256 start = block.timestamp;
        for (uint32 i = 0; i < 10; i++) {
            skip(waits[i] % 3);
            vm.prank(ADA);
            models.revise(id, terms((i + 2) % 10));
        }
        uint256 at = start + time % 25;
        Revision[] memory all = models.history(id, 0, 100);
        uint256 last = 0;
        for (uint256 i = 0; i < all.length; i++) {
            if (all[i].since <= at) last = i;
        }
        assertSame(models.termsAt(id, at), all[last].terms);
    }

    function published(uint32 seed, address owner) private returns (bytes32) {
        vm.prank(owner);
        return models.publish(manifest(seed), terms(1));
    }

    function manifest(uint32 seed) private pure returns (Manifest memory made) {
        made.version = 1;
        made.shape.layers = seed;
        made.eos = new uint32[](2);
        made.tensors = new Tensor[](12);
        made.arithmetic.sites = new bytes(6);
        made.parts.weights = keccak256(abi.encode("weights", seed));
    }

    function terms(uint128 seed) private pure returns (Terms memory) {
        return Terms({
            licence: keccak256(abi.encode("licence", seed)),
            floorIn: seed * 1e15,
            floorOut: seed * 2e15,
            royaltyTo: address(uint160(seed)),
            royaltyBps: uint16(seed * 100),
            uri: "https://example.org/model"
        });
    }

    function line(string memory path) private view returns (string memory) {
        bytes memory text = bytes(vm.readFile(path));
        bytes memory trimmed = new bytes(text.length - 1);
        for (uint256 i = 0; i < trimmed.length; i++) {
            trimmed[i] = text[i];
        }
        return string(trimmed);
    }

    function assertSame(Terms memory found, Terms memory expected) private pure {
        assertEq(abi.encode(found), abi.encode(expected));
    }
}
