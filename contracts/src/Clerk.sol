// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Specs} from "./Specs.sol";
import {Accusation, Branch, Dispute, Filing, IDisputes, OpenStep, Tail} from "./interfaces/IDisputes.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {IProviders} from "./interfaces/IProviders.sol";
import {IReceipts} from "./interfaces/IReceipts.sol";
import {Claims} from "./libraries/dispute/Claims.sol";
import {Facts, Focus, Opening} from "./libraries/dispute/Exhibits.sol";
import {End, Paths} from "./libraries/dispute/Paths.sol";
import {Samplers} from "./libraries/dispute/Samplers.sol";
import {StepLeaf, Steps} from "./libraries/dispute/Steps.sol";
import {Trees} from "./libraries/dispute/Trees.sol";
import {Layouts} from "./libraries/judge/Layouts.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Words} from "./libraries/Words.sol";
import {Receipt} from "./types/Receipt.sol";

/// @notice A filing that was read: what a dispute keeps of it.
struct Admission {
    bytes32 receipt;
    bytes32 order;
    address owner;
    /// Who alone may have the answer checked; zero for anyone.
    address reader;
    bytes32 facts;
    uint32 positions;
    uint32 steps;
}

/// @notice Receipts that are false by what is signed alone.
struct Offence {
    bytes32 receipt;
    /// Zero if it is one receipt only.
    bytes32 other;
    address owner;
    /// Who alone may say so; zero for anyone.
    address reader;
}

/// @notice Reads what is handed in to a dispute: signed words, openings of the model, places in a trace.
/// @dev Views, without state or rights: apart from {Disputes} only because code has a largest size. Errors are those
/// of `IDisputes`. Trust: the registries it reads.
contract Clerk {
    IParameters public immutable parameters;
    IProviders public immutable providers;
    IReceipts public immutable receipts;
    Specs public immutable specs;

    constructor(IParameters parameters_, IProviders providers_, IReceipts receipts_, Specs specs_) {
        (parameters, providers, receipts, specs) = (parameters_, providers_, receipts_, specs_);
    }

    /// @notice What a dispute is opened with; fails if it cannot be.
    function admit(Filing calldata filing) external view returns (Admission memory admission) {
        (admission.receipt, admission.owner, admission.reader) = _read(filing);
        _requireReach(filing, admission.receipt, admission.owner);
        Facts memory facts = Claims.facts(filing, specs.specOf(filing.order.model));
        admission.order = facts.order;
        admission.facts = keccak256(abi.encode(facts));
        admission.positions = facts.promptTokens + facts.outputTokens - 1;
        admission.steps = facts.spec.steps;
    }

    /// @notice The facts that disputes about a receipt go by: what whoever moves brings along, ABI encoded.
    function factsOf(Filing calldata filing) external view returns (Facts memory) {
        return Claims.facts(filing, specs.specOf(filing.order.model));
    }

    /// @notice Fails unless the receipt contradicts its order or itself.
    function contradiction(Filing calldata filing) external view returns (Offence memory offence) {
        (offence.receipt, offence.owner, offence.reader) = _read(filing);
        uint256 context = specs.specOf(filing.order.model).context;
        require(Claims.contradicts(filing, context), IDisputes.NoContradiction());
    }

    /// @notice Fails unless the answer ends otherwise than its receipt says.
    function misfinish(Filing calldata filing, Tail calldata tail) external view returns (Offence memory offence) {
        (offence.receipt, offence.owner, offence.reader) = _read(filing);
        bool ends = Claims.misfinishes(filing, specs.specOf(filing.order.model), tail);
        require(ends, IDisputes.NoContradiction());
    }

    /// @notice Fails unless both are receipts of one provider for one order, and cannot both be true.
    function equivocation(
        Receipt[2] calldata pair,
        bytes[2] calldata signatures,
        uint32 index,
        Opening[2] calldata tokens
    ) external view returns (Offence memory offence) {
        address same;
        (offence.receipt, offence.owner) = _readReceipt(pair[0], signatures[0]);
        (offence.other, same) = _readReceipt(pair[1], signatures[1]);
        bool pairs = offence.receipt != offence.other && offence.owner == same && pair[0].order == pair[1].order;
        require(pairs, IDisputes.NotAPair());
        require(Claims.diverge(pair, index, tokens), IDisputes.NoContradiction());
    }

    /// @notice Levels of the tree of leaves that a branch enters; fails where there are no leaves.
    function levels(Dispute calldata dispute, bytes32 facts, Branch calldata branch, OpenStep calldata step)
        external
        pure
        returns (uint256)
    {
        End memory at = Paths.end(dispute, branch);
        (uint256 position, uint256 op,) = Paths.places(at);
        (uint256 leaves,,) = _leaves(dispute, facts, position, op, step);
        require(leaves > 1, IDisputes.Nowhere(position, op, leaves));
        return Merkle.depth(leaves);
    }

    /// @notice Checks that so many turns lead to a leaf that a trace of this order has.
    /// @return path All turns to it.
    function leafAt(Dispute calldata dispute, bytes32 facts, uint128 turns, uint256 levels_, OpenStep calldata step)
        external
        pure
        returns (uint256 path)
    {
        End memory at = Paths.end(dispute, turns, levels_);
        (uint256 position, uint256 op, uint256 place) = Paths.places(at);
        (uint256 leaves,,) = _leaves(dispute, facts, position, op, step);
        require(place < leaves, IDisputes.Nowhere(position, op, place));
        _requireLeaf(at, leaves);
        return at.path;
    }

    /// @notice The number that an accusation names at the end of a branch.
    function focus(Dispute calldata dispute, bytes32 expected, Branch calldata branch, Accusation calldata accusation)
        external
        pure
        returns (Focus memory found)
    {
        End memory at = Paths.end(dispute, branch);
        (uint256 position, uint256 op, uint256 place) = Paths.places(at);
        Facts memory facts;
        uint256 leaves;
        (leaves, found.step, facts) = _leaves(dispute, expected, position, op, accusation.step);
        require(place < leaves, IDisputes.Nowhere(position, op, place));
        _requireLeaf(at, leaves);
        (found.position, found.op, found.leaf) = (uint32(position), uint32(op), uint64(place));
        (found.positionDepth, found.opDepth) = (uint8(at.top), uint8(at.ops));
        found.node = branch.node;
        found.here = Paths.climb(dispute, branch, at);
        Claims.point(found, facts.spec, accusation);
        Claims.requireDoubt(found, dispute.positions);
    }

    /// @notice Fails unless a branch leads to a node, not zero, where a trace of this order has nothing.
    function nothing(Dispute calldata dispute, bytes32 facts, Branch calldata branch, OpenStep calldata step)
        external
        pure
    {
        End memory at = Paths.end(dispute, branch);
        Paths.climb(dispute, branch, at);
        require(branch.node != 0, IDisputes.Empty());
        if (at.depth == at.top && at.path >= dispute.positions) return;
        (uint256 position, uint256 op, uint256 place) = Paths.places(at);
        if (at.depth == at.top + at.ops && position < dispute.positions && op > dispute.steps) return;
        (uint256 leaves,,) = _leaves(dispute, facts, position, op, step);
        bool nowhere = at.depth == at.top + at.ops + Merkle.depth(leaves) && place >= leaves;
        require(nowhere, IDisputes.Somewhere(position, op, place));
    }

    /// Checks that a way down ends at a leaf of an op that has so many.
    function _requireLeaf(End memory at, uint256 leaves) private pure {
        uint256 depth = at.top + at.ops + Merkle.depth(leaves);
        require(at.depth == depth, IDisputes.WrongDepth(at.depth, depth, depth));
    }

    /// Checks that both words were signed, for this deployment and each other.
    function _read(Filing calldata filing) private view returns (bytes32 receipt, address owner, address reader) {
        bytes32 order = Words.digest(filing.order);
        require(filing.receipt.order == order, IDisputes.WrongOrder(filing.receipt.order, order));
        address buyer = filing.order.buyer;
        (address found,,) = ECDSA.tryRecoverCalldata(order, filing.orderSignature);
        require(found == buyer && found != address(0), IDisputes.WrongSigner(found, buyer));
        address market = filing.order.market;
        require(market == address(receipts), IDisputes.WrongMarket(market, address(receipts)));
        (receipt, owner) = _readReceipt(filing.receipt, filing.receiptSignature);
        reader = filing.order.audit == 0 ? buyer : address(0);
    }

    /// The receipt's digest, and whose stake answers for it.
    function _readReceipt(Receipt calldata receipt, bytes calldata signature)
        private
        view
        returns (bytes32 digest, address owner)
    {
        digest = Words.digest(receipt);
        (address found,,) = ECDSA.tryRecoverCalldata(digest, signature);
        require(found == receipt.provider && found != address(0), IDisputes.WrongSigner(found, receipt.provider));
        owner = providers.providerOf(found);
        require(owner != address(0), IDisputes.NoProvider(found));
    }

    function _requireReach(Filing calldata filing, bytes32 receipt, address owner) private view {
        uint256 since = filing.receipt.finished / 1000;
        if (filing.order.deadline > since) since = filing.order.deadline;
        if (filing.posting.given) {
            uint256 period = filing.posting.period;
            bool posted = receipts.includes(owner, period, filing.posting.index, receipt, filing.posting.proof);
            require(posted, IDisputes.NotPosted(receipt));
            uint256 time = receipts.periodOf(owner, period).posted;
            if (time > since) since = time;
        }
        uint256 last = since + parameters.value(Value.DisputeWindow);
        require(block.timestamp <= last, IDisputes.OutOfReach(block.timestamp, last));
    }

    /// Leaves of an op at a position, by its opened step; the step itself, and the facts.
    function _leaves(Dispute calldata dispute, bytes32 expected, uint256 position, uint256 op, OpenStep calldata step)
        private
        pure
        returns (uint256 leaves, StepLeaf memory leaf, Facts memory facts)
    {
        require(position < dispute.positions && op <= dispute.steps, IDisputes.Nowhere(position, op, 0));
        bytes32 found = keccak256(step.facts);
        require(found == expected, IDisputes.WrongFacts(found, expected));
        facts = abi.decode(step.facts, (Facts));
        leaf = op == dispute.steps ? Steps.state() : step.leaf;
        if (op != dispute.steps) _requireStep(facts, leaf, op, step.proof);
        leaves = Layouts.leaves(
            Steps.kindOf(leaf), uint32(uint256(leaf.head)), uint48(leaf.tail) >> 16, Samplers.extent(facts, position)
        );
    }

    /// Checks that a step stands in the model's program.
    function _requireStep(Facts memory facts, StepLeaf memory leaf, uint256 op, bytes32[] calldata proof) private pure {
        uint256 depth = Merkle.depth(facts.spec.steps);
        require(proof.length == depth, Trees.WrongProof(proof.length, depth));
        (bytes32 found,) = Trees.climb(Steps.hash(leaf), op, proof, 0);
        require(found == facts.spec.program, IDisputes.NotInModel(found, facts.spec.program));
    }
}
