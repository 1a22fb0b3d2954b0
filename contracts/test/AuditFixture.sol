// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Place, Said, Verdict} from "../src/interfaces/IAuditors.sol";
import {Draw} from "../src/interfaces/IBeacons.sol";
import {Showing, Texts} from "../src/interfaces/IProductions.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Words} from "../src/libraries/Words.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice A network with auditors, whose provider posts the answer of the fixture, and everything is drawn.
abstract contract AuditFixture is DisputeFixture {
    bytes32 internal constant SALT = keccak256("salt");
    uint128 internal constant PRIZE = 5e18;

    address[] internal crew;
    /// Periods that the provider has posted.
    uint256 internal posted;
    bytes internal consented;

    function setUp() public virtual override {
        super.setUp();
        crew.push(auditor("una"));
        crew.push(auditor("ben"));
        crew.push(auditor("cam"));
    }

    /// Somebody with three bonds in, and money for more.
    function auditor(string memory who) internal returns (address account) {
        account = makeAddr(who);
        require(token.transfer(account, 10 * AUDITOR_BOND), "no transfer");
        vm.startPrank(account);
        token.approve(address(auditors), type(uint256).max);
        token.approve(address(productions), type(uint256).max);
        token.approve(address(disputes), type(uint256).max);
        auditors.join(uint128(3 * AUDITOR_BOND));
        vm.stopPrank();
    }

    // Epochs.

    function toEpoch(uint256 epoch) internal {
        vm.warp(epoch * EPOCH);
    }

    function secretOf(address who, uint256 epoch) internal pure returns (bytes32) {
        return keccak256(abi.encode("secret", who, epoch));
    }

    /// Commits in the present epoch.
    function commitSecret(address who) internal returns (uint256 place) {
        uint256 epoch = auditors.epochNow();
        bytes32 commitment = keccak256(abi.encode(secretOf(who, epoch), who, epoch));
        vm.prank(who);
        return auditors.commit(epoch, commitment);
    }

    function revealSecret(address who, uint256 epoch, uint256 place) internal {
        bytes32 secret = secretOf(who, epoch);
        vm.prank(who);
        auditors.reveal(epoch, place, secret);
    }

    /// All commit in the present epoch and reveal in the next one; ends when the beacon is known.
    function makeBeacon() internal returns (uint256 epoch) {
        epoch = auditors.epochNow();
        for (uint256 i; i < crew.length; ++i) {
            commitSecret(crew[i]);
        }
        toEpoch(epoch + 1);
        for (uint256 i; i < crew.length; ++i) {
            revealSecret(crew[i], epoch, i);
        }
        toEpoch(epoch + 2);
    }

    // Posting.

    /// Posts the fixture's receipt, second of three.
    function post() internal returns (uint256 period) {
        bytes32 digest = root(periodLeaves());
        vm.prank(owner);
        return receipts.post(owner, digest, 3, new Span[](0));
    }

    function periodLeaves() internal view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](3);
        leaves[0] = leafHash(abi.encodePacked(keccak256("one")));
        leaves[1] = leafHash(abi.encodePacked(digestOf()));
        leaves[2] = leafHash(abi.encodePacked(keccak256("three")));
    }

    /// Posts the receipt, and has it drawn.
    function postAndDraw() internal returns (uint256 period, Draw memory draw) {
        period = post();
        makeBeacon();
        draw = auditors.drawOf(owner, period, 1);
    }

    function placed(uint256 period) internal view returns (Place memory) {
        return Place(owner, period, 1, digestOf(), proofOf(periodLeaves(), 1));
    }

    // Productions.

    function showing() internal view returns (Showing memory shown) {
        shown.order = filed.order;
        shown.orderSignature = filed.orderSignature;
        shown.receipt = filed.receipt;
        shown.receiptSignature = filed.receiptSignature;
        shown.sampler = filed.sampler;
        shown.proof = proofOf(periodLeaves(), 1);
    }

    function texts() internal view returns (Texts memory) {
        return Texts(filed.order.prompt, filed.order.promptTokens, filed.receipt.output, filed.receipt.outputTokens);
    }

    function promptRun() internal view returns (bytes memory tokens_, bytes32[] memory neighbours) {
        tokens_ = abi.encodePacked(prompt[0], prompt[1], prompt[2]);
        neighbours = new bytes32[](1);
    }

    function outputRun() internal view returns (bytes memory tokens_, bytes32[] memory neighbours) {
        return (abi.encodePacked(output[0], output[1]), new bytes32[](0));
    }

    function ask(address who, uint256 period) internal {
        vm.prank(who);
        productions.produce(owner, period, 1);
    }

    function supplyAll(uint256 period) internal {
        (bytes memory run, bytes32[] memory neighbours) = promptRun();
        productions.supply(owner, period, 1, texts(), run, neighbours);
        (run, neighbours) = outputRun();
        productions.supply(owner, period, 1, texts(), run, neighbours);
    }

    // Verdicts.

    function saying(uint256 period, Verdict verdict) internal view returns (Said[] memory list) {
        list = new Said[](1);
        list[0] = Said(owner, period, 1, verdict);
    }

    function commitVerdicts(address who, uint256 epoch, Said[] memory list) internal {
        bytes32 commitment = keccak256(abi.encode(list, SALT, who, epoch));
        vm.prank(who);
        auditors.commitVerdicts(epoch, commitment);
    }

    function revealVerdicts(address who, uint256 epoch, Said[] memory list) internal {
        vm.prank(who);
        auditors.revealVerdicts(epoch, list, SALT);
    }

    /// Both drawn auditors say what they found; None for saying nothing. Ends when money follows.
    function judge(uint256 period, Verdict first, Verdict second) internal returns (Draw memory draw) {
        draw = auditors.drawOf(owner, period, 1);
        toEpoch(draw.epoch + 2);
        if (first != Verdict.None) commitVerdicts(draw.first, draw.epoch, saying(period, first));
        if (second != Verdict.None) commitVerdicts(draw.second, draw.epoch, saying(period, second));
        toEpoch(draw.epoch + 3);
        if (first != Verdict.None) revealVerdicts(draw.first, draw.epoch, saying(period, first));
        if (second != Verdict.None) revealVerdicts(draw.second, draw.epoch, saying(period, second));
        toEpoch(draw.epoch + 4);
    }

    function stakeOf(address who) internal view returns (uint256) {
        return auditors.auditorOf(who).stake;
    }

    // Canaries.

    /// Makes the fixture's answer a canary: planted now, begun an epoch later.
    function plantCanary() internal returns (bytes32 commitment) {
        answer();
        filed.order.deadline = uint64(block.timestamp + 2 * EPOCH);
        filed.receipt.started = uint64(block.timestamp + EPOCH) * 1000;
        filed.receipt.finished = filed.receipt.started;
        bytes32 order = Words.digest(filed.order);
        consented = signed(buyerKey, canaries.consentDigest(order, SALT));
        filed.receipt.state = canaries.mark(order, SALT);
        resign();
        commitment = canaries.commitmentOf(order, SALT, consented);
        token.approve(address(canaries), PRIZE);
        canaries.plant(commitment, PRIZE);
        skip(EPOCH);
    }

    function unveil() internal {
        canaries.unveil(filed.order, filed.receipt, SALT, consented);
    }
}
