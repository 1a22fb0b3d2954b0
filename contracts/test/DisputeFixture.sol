// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Auditors} from "../src/Auditors.sol";
import {Terms} from "../src/Beacons.sol";
import {Canaries} from "../src/Canaries.sol";
import {Clerk} from "../src/Clerk.sol";
import {Bar, Disputes} from "../src/Disputes.sol";
import {Productions} from "../src/Productions.sol";
import {Receipts} from "../src/Receipts.sol";
import {Specs} from "../src/Specs.sol";
import {Tills} from "../src/Tills.sol";
import {ChannelConfig} from "../src/interfaces/IChannels.sol";
import {Accusation, Branch, Filing, IDisputes, OpenStep, Phase, Posting} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Doubt, Facts, Focus, IJudge, Opening, Round} from "../src/libraries/dispute/Exhibits.sol";
import {StepLeaf, Steps} from "../src/libraries/dispute/Steps.sol";
import {Words} from "../src/libraries/Words.sol";
import {Arithmetic, Manifest, Parts, Shape, Tensor} from "../src/types/Manifest.sol";
import {Order} from "../src/types/Order.sol";
import {Receipt} from "../src/types/Receipt.sol";
import {Sampler} from "../src/types/Sampler.sol";
import {ChannelFixture} from "./ChannelFixture.sol";
import {Staking} from "./Staking.sol";

/// @notice A network with an arbiter, a one-layer model, an order of three prompt tokens and an answer of two, and
/// one position of its trace that tests fill in.
abstract contract DisputeFixture is Staking, ChannelFixture {
    uint256 internal constant BOND = 10e18;
    uint256 internal constant CLOCK = 1 hours;
    uint256 internal constant EPOCH = 1 hours;
    uint256 internal constant AUDITOR_BOND = 200e18;
    uint256 internal constant ASKING_BOND = 1e18;
    uint256 internal constant FEE = 2e18;
    uint256 internal constant FEES_MOST = 3;
    /// Steps of a one-layer llama; the tree of ops has 64 places.
    uint256 internal constant STEPS = 34;
    uint256 internal constant OPS = 64;
    uint256 internal constant POSITION = 2;
    uint32 internal constant NONE = type(uint32).max;

    Receipts internal receipts;
    Tills internal tills;
    Canaries internal canaries;
    Auditors internal auditors;
    Productions internal productions;
    Specs internal specs;
    Clerk internal clerk;
    Disputes internal disputes;
    address internal owner;
    address internal operator;
    uint256 internal operatorKey;
    address internal buyer;
    uint256 internal buyerKey;
    address internal ada;
    bytes32 internal model;
    Filing internal filed;
    bytes internal facts;
    /// The program, and what its tensors hang from.
    StepLeaf[] internal program;
    Tensor[] internal table;
    bytes32 internal weightsRoot;
    /// Roots of the ops at `POSITION`, and the root of all four positions.
    bytes32[] internal ops;
    bytes32[] internal positions;
    uint32[3] internal prompt = [uint32(5), 6, 7];
    uint32[2] internal output = [uint32(8), 9];
    uint32 internal vocab = 32;
    bytes32 internal manifestRope;

    function setUp() public virtual override {
        super.setUp();
        setUpChannels();
        receipts = Receipts(create("Receipts.sol:Receipts", ""));
        tills = Tills(create("Tills.sol:Tills", abi.encode(channels, receipts, parameters)));
        setUpAudits(10_000);
        specs = Specs(create("Specs.sol:Specs", ""));
        clerk = Clerk(create("Clerk.sol:Clerk", abi.encode(parameters, providers, receipts, specs)));
        Bar memory bar = Bar({
            token: token,
            parameters: parameters,
            providers: providers,
            channels: channels,
            tills: tills,
            clerk: clerk,
            vectors: IJudge(create("VectorJudge.sol:VectorJudge", "")),
            attention: IJudge(create("AttentionJudge.sol:AttentionJudge", "")),
            sampling: IJudge(create("SamplingJudge.sol:SamplingJudge", "")),
            productions: productions,
            canaries: canaries
        });
        disputes = Disputes(create("Disputes.sol:Disputes", abi.encode(bar, BOND, CLOCK)));
        parameters.setArbiter(address(disputes));
        (owner, operator) = enrol("owner", 4 * value(Value.TierBronze));
        (, operatorKey) = makeAddrAndKey(operatorName("owner"));
        (buyer, buyerKey) = makeAddrAndKey("buyer");
        ada = challenger("ada");
        receiver = tills.open(owner);
        _writeProgram();
        for (uint256 i; i < OPS; ++i) {
            ops.push(i <= STEPS ? keccak256(abi.encode("op", i)) : bytes32(0));
        }
        for (uint256 i; i < 4; ++i) {
            positions.push(keccak256(abi.encode("position", i)));
        }
    }

    /// The contracts of audits, with this share of receipts drawn.
    function setUpAudits(uint256 rate) internal virtual {
        canaries = Canaries(create("Canaries.sol:Canaries", abi.encode(token, parameters)));
        Terms memory terms = Terms(AUDITOR_BOND, EPOCH, rate, FEE, FEES_MOST);
        auditors = Auditors(create("Auditors.sol:Auditors", abi.encode(token, parameters, receipts, canaries, terms)));
        bytes memory rest = abi.encode(token, receipts, providers, auditors, ASKING_BOND, CLOCK / 2);
        productions = Productions(create("Productions.sol:Productions", rest));
    }

    /// Somebody with money for many bonds.
    function challenger(string memory who) internal returns (address account) {
        account = makeAddr(who);
        require(token.transfer(account, 100 * BOND), "no transfer");
        vm.prank(account);
        token.approve(address(disputes), type(uint256).max);
    }

    // The model.

    function _writeProgram() private {
        for (uint256 kind; kind < STEPS; ++kind) {
            uint32 before = kind == 0 ? NONE : uint32(kind - 1);
            program.push(step(kind, [before, NONE, NONE, NONE], NONE, 32, 1, 0, 0));
        }
    }

    function step(
        uint256 kind,
        uint32[4] memory inputs,
        uint32 tensor,
        uint32 outputs,
        uint32 terms,
        uint8 fractionIn,
        uint8 fractionOut
    ) internal pure returns (StepLeaf memory leaf) {
        bytes memory head = abi.encodePacked(
            uint32(kind), uint32(0), inputs[0], inputs[1], inputs[2], inputs[3], tensor, outputs
        );
        leaf.head = bytes32(head);
        leaf.tail = bytes6(abi.encodePacked(terms, fractionIn, fractionOut));
    }

    /// Files the model, and has an order for it answered.
    function answer() internal {
        Sampler memory sampler;
        (sampler.topP_q16, sampler.rep_q16) = (1 << 16, 1 << 16);
        answer(sampler, 2, keccak256("state"));
    }

    function manifest() internal view returns (Manifest memory found) {
        found.version = 1;
        found.shape = Shape(32, 1, 1, 1, 32, 32, vocab, 8);
        found.arithmetic = Arithmetic(32, 32, 0, 0, 1 << 28, 1, 12, 12, 16, 16, 12, "");
        found.eos = new uint32[](1);
        found.eos[0] = 31;
        found.tensors = table;
        found.parts.weights = weightsRoot;
        found.parts.rope = manifestRope;
        found.parts.program = root(programHashes());
    }

    function answer(Sampler memory sampler, uint8 finish, bytes32 state) internal {
        model = specs.file(manifest());
        Order memory order = Order({
            buyer: buyer,
            market: address(receipts),
            model: model,
            request: 0,
            prompt: root(tokens(prompt[0], prompt[1], prompt[2])),
            promptTokens: 3,
            maxTokens: 2,
            sampler: Words.hash(sampler),
            assurance: 0,
            audit: 2,
            asset: address(dollar),
            maxPrice: 1000,
            deadline: uint64(block.timestamp),
            nonce: 1,
            grant: 0
        });
        filed.order = order;
        filed.sampler = sampler;
        filed.receipt = Receipt({
            order: Words.digest(order),
            provider: operator,
            output: root(outputHashes()),
            outputTokens: 2,
            text: 0,
            finish: finish,
            state: state,
            assurance: 0,
            asset: address(dollar),
            price: 600,
            channel: channels.getChannelId(configOf(0)),
            channelBefore: 400,
            channelAfter: 1000,
            started: uint64(block.timestamp) * 1000,
            finished: uint64(block.timestamp) * 1000
        });
        resign();
    }

    /// Signs both words as they are now.
    function resign() internal {
        filed.receipt.order = Words.digest(filed.order);
        filed.orderSignature = signed(buyerKey, Words.digest(filed.order));
        filed.receiptSignature = signed(operatorKey, Words.digest(filed.receipt));
        facts = abi.encode(clerk.factsOf(filed));
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function digestOf() internal view returns (bytes32) {
        return Words.digest(filed.receipt);
    }

    // Trees.

    function leafHash(bytes memory data) internal pure returns (bytes32) {
        return keccak256(bytes.concat(hex"00", data));
    }

    function tokens(uint32 a, uint32 b, uint32 c) internal pure returns (bytes32[] memory hashes) {
        hashes = new bytes32[](3);
        hashes[0] = leafHash(abi.encodePacked(uint32(0), a));
        hashes[1] = leafHash(abi.encodePacked(uint32(1), b));
        hashes[2] = leafHash(abi.encodePacked(uint32(2), c));
    }

    function outputHashes() internal view returns (bytes32[] memory hashes) {
        hashes = new bytes32[](2);
        hashes[0] = leafHash(abi.encodePacked(uint32(0), output[0]));
        hashes[1] = leafHash(abi.encodePacked(uint32(1), output[1]));
    }

    function programHashes() internal view returns (bytes32[] memory hashes) {
        hashes = new bytes32[](program.length);
        for (uint256 i; i < hashes.length; ++i) {
            hashes[i] = Steps.hash(program[i]);
        }
    }

    function tableHashes() internal view returns (bytes32[] memory hashes) {
        hashes = new bytes32[](table.length);
        for (uint256 i; i < hashes.length; ++i) {
            hashes[i] = leafHash(abi.encode(table[i]));
        }
    }

    /// All levels of the tree over these leaves, the lowest first.
    function levelsOf(bytes32[] memory leaves) internal pure returns (bytes32[][] memory levels) {
        uint256 depth;
        while (1 << depth < leaves.length) ++depth;
        levels = new bytes32[][](depth + 1);
        levels[0] = new bytes32[](1 << depth);
        for (uint256 i; i < leaves.length; ++i) {
            levels[0][i] = leaves[i];
        }
        for (uint256 l = 1; l <= depth; ++l) {
            levels[l] = new bytes32[](levels[l - 1].length / 2);
            for (uint256 i; i < levels[l].length; ++i) {
                levels[l][i] = keccak256(bytes.concat(levels[l - 1][2 * i], levels[l - 1][2 * i + 1]));
            }
        }
    }

    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        bytes32[][] memory levels = levelsOf(leaves);
        return levels[levels.length - 1][0];
    }

    function proofOf(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory proof) {
        bytes32[][] memory levels = levelsOf(leaves);
        proof = new bytes32[](levels.length - 1);
        for (uint256 l; l < proof.length; ++l) {
            proof[l] = levels[l][index >> l ^ 1];
        }
    }

    function join(bytes32[] memory low, bytes32[] memory high) internal pure returns (bytes32[] memory all) {
        all = new bytes32[](low.length + high.length);
        for (uint256 i; i < low.length; ++i) {
            all[i] = low[i];
        }
        for (uint256 i; i < high.length; ++i) {
            all[low.length + i] = high[i];
        }
    }

    /// A leaf that hangs so deep between other leaves of no account.
    function lonely(bytes memory data, uint256 index, uint256 depth)
        internal
        pure
        returns (bytes32 top, bytes32[] memory proof)
    {
        proof = new bytes32[](depth);
        top = leafHash(data);
        for (uint256 l; l < depth; ++l) {
            proof[l] = keccak256(abi.encode("sibling", l));
            top = index >> l & 1 == 0 ? keccak256(bytes.concat(top, proof[l])) : keccak256(bytes.concat(proof[l], top));
        }
    }

    /// The root that the defender commits to.
    function trace() internal returns (bytes32) {
        positions[POSITION] = root(ops);
        return root(positions);
    }

    /// Siblings of an op in its position, and in the trace.
    function inPosition(uint256 op) internal view returns (bytes32[] memory) {
        return proofOf(ops, op);
    }

    function inTrace(uint256 op) internal view returns (bytes32[] memory) {
        return join(proofOf(ops, op), proofOf(positions, POSITION));
    }

    // Leaves.

    /// 32 fixed-point numbers, number i being `first + i`.
    function fixedLeaf(int32 first) internal pure returns (bytes memory leaf) {
        for (int32 i; i < 32; ++i) {
            leaf = abi.encodePacked(leaf, first + i);
        }
    }

    function wideLeaf(uint64[] memory words) internal pure returns (bytes memory leaf) {
        for (uint256 i; i < 32; ++i) {
            leaf = abi.encodePacked(leaf, i < words.length ? words[i] : uint64(0));
        }
    }

    function noise(uint256 length, uint256 seed) internal pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 i; i < length; ++i) {
            data[i] = bytes1(uint8(uint256(keccak256(abi.encode(seed, i)))) | 1);
        }
    }

    function activations(uint256 seed) internal pure returns (bytes memory leaf) {
        leaf = noise(136, seed);
        for (uint256 i; i < 8; i += 2) {
            leaf[i] &= 0x7f;
        }
    }

    function weights(uint256 seed) internal pure returns (bytes memory) {
        return bytes.concat(hex"0119", noise(136, seed));
    }

    function open_(bytes memory data, bytes32[] memory proof) internal pure returns (Opening memory) {
        return Opening(data, proof);
    }

    function bare(bytes memory data) internal pure returns (Opening memory) {
        return Opening(data, new bytes32[](0));
    }

    // Moves.

    function begin(address by) internal returns (uint256 id) {
        Filing memory filing = filed;
        vm.prank(by);
        return disputes.open(filing);
    }

    function commit(uint256 id) internal {
        bytes32 committed = trace();
        vm.prank(operator);
        disputes.commit(id, committed, "");
    }

    function openStep(uint256 op) internal view returns (OpenStep memory) {
        if (op == STEPS) return OpenStep(StepLeaf(0, 0), new bytes32[](0), facts);
        return OpenStep(program[op], proofOf(programHashes(), op), facts);
    }

    function accuse(uint256 op, uint8 element, Doubt doubt) internal view returns (Accusation memory accusation) {
        accusation.step = openStep(op);
        (accusation.element, accusation.doubt) = (element, doubt);
        uint32 tensor = op == STEPS ? NONE : uint32(uint256(program[op].head) >> 32);
        if (tensor == NONE) return accusation;
        accusation.tensor = table[tensor];
        accusation.tensorProof = proofOf(tableHashes(), tensor);
    }

    /// The whole way to leaf `leaf` of an op at `POSITION`.
    function way(uint256 op, uint256 leaf, bytes32 node, bytes32[] memory within)
        internal
        view
        returns (Branch memory)
    {
        return Branch(uint128((POSITION * OPS + op) << within.length | leaf), node, join(within, inTrace(op)));
    }

    /// Names a number by one jump, and gives the focus as anyone can put it together.
    function nameAt(
        uint256 id,
        uint256 op,
        uint256 leaf,
        bytes memory data,
        bytes32[] memory within,
        uint8 element,
        Doubt doubt
    ) internal returns (Focus memory focus) {
        Branch memory branch = way(op, leaf, leafHash(data), within);
        Accusation memory accusation = accuse(op, element, doubt);
        address by = disputes.disputeOf(id).challenger;
        vm.prank(by);
        disputes.name(id, branch, accusation);
        focus.position = uint32(POSITION);
        (focus.op, focus.leaf) = (uint32(op), uint64(leaf));
        (focus.element, focus.doubt) = (element, doubt);
        (focus.positionDepth, focus.opDepth) = (2, 6);
        (focus.node, focus.here) = (branch.node, root(ops));
        focus.step = op == STEPS ? Steps.state() : program[op];
        if (accusation.tensorProof.length == 0 && table.length < 2 && uint32(uint256(focus.step.head) >> 32) != 0) {
            return focus;
        }
        if (op == STEPS) return focus;
        focus.weights = weightsRoot;
        focus.tensorLeaf = accusation.tensor.leaf;
        Facts memory said = abi.decode(facts, (Facts));
        while (uint256(1) << focus.weightDepth < said.spec.weightLeaves) ++focus.weightDepth;
    }

    function phaseOf(uint256 id) internal view returns (Phase) {
        return disputes.disputeOf(id).phase;
    }

    function noRounds() internal pure returns (Round[] memory) {
        return new Round[](0);
    }
}
