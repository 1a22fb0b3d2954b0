// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Accusation, Filing, IDisputes, Tail} from "../../interfaces/IDisputes.sol";
import {Endings} from "../judge/Endings.sol";
import {BadLength} from "../judge/Leaves.sol";
import {Merkle} from "../Merkle.sol";
import {Words} from "../Words.sol";
import {Order} from "../../types/Order.sol";
import {Receipt} from "../../types/Receipt.sol";
import {Sampler} from "../../types/Sampler.sol";
import {Doubt, Facts, Focus, Opening, Spec} from "./Exhibits.sol";
import {Steps} from "./Steps.sol";
import {Trees} from "./Trees.sol";

/// @notice What follows from signed words: the facts that a trace is judged by, and contradictions.
library Claims {
    /// Codes of `finish` that {Endings} does not give.
    uint8 private constant CANCELLED = 3;
    /// The assurance of answers that can be recomputed.
    uint8 private constant REPLAYABLE = 0;

    /// @notice What order, sampler, receipt and model say, if they can be judged.
    function facts(Filing calldata filing, Spec memory spec) internal pure returns (Facts memory said) {
        Order calldata order = filing.order;
        Receipt calldata receipt = filing.receipt;
        uint8 assurance = order.assurance == REPLAYABLE ? receipt.assurance : order.assurance;
        require(assurance == REPLAYABLE, IDisputes.NotReplayable(assurance));
        uint256 tokens = uint256(order.promptTokens) + receipt.outputTokens;
        require(
            order.promptTokens != 0 && receipt.outputTokens != 0 && tokens <= spec.context,
            IDisputes.BadLengths(order.promptTokens, receipt.outputTokens, spec.context)
        );
        said.order = receipt.order;
        said.prompt = order.prompt;
        said.output = receipt.output;
        said.state = receipt.state;
        (said.promptTokens, said.outputTokens) = (order.promptTokens, receipt.outputTokens);
        _choice(said, filing);
        said.spec = spec;
    }

    /// The sampler's part of the facts.
    function _choice(Facts memory said, Filing calldata filing) private pure {
        Sampler memory sampler = filing.sampler;
        bytes32 found = Words.hash(sampler);
        require(found == filing.order.sampler, IDisputes.WrongSampler(found, filing.order.sampler));
        bool bounded = 1 << 12 <= sampler.rep_q16 && sampler.rep_q16 <= 1 << 20 && sampler.minP_q16 <= 1 << 16;
        bounded = bounded && sampler.topP_q16 != 0 && sampler.topP_q16 <= 1 << 16;
        require(bounded && sampler.grammar == 0, IDisputes.BadSampler());
        (said.invT_q16, said.topK, said.topP_q16) = (sampler.invT_q16, sampler.topK, sampler.topP_q16);
        (said.minP_q16, said.rep_q16) = (sampler.minP_q16, sampler.rep_q16);
        (said.freq_q16, said.pres_q16, said.bias) = (sampler.freq_q16, sampler.pres_q16, sampler.bias);
        bytes32 seed = sampler.seed;
        sampler.seed = 0;
        said.drawKey = Endings.drawKey(seed, filing.order.model, filing.order.prompt, Words.hash(sampler));
    }

    /// @notice Fills in what the focus needs of the model: element, doubt, weights and tensor.
    function point(Focus memory focus, Spec memory spec, Accusation calldata accusation) internal pure {
        uint256 kind = Steps.kindOf(focus.step);
        uint256 elements = Steps.isQuantised(kind) ? 4 : kind == Steps.STATE ? 1 : 32;
        require(accusation.element < elements, IDisputes.NoElement(accusation.element, elements));
        (focus.element, focus.doubt) = (accusation.element, accusation.doubt);
        uint256 index = kind == Steps.STATE ? Steps.NONE : uint32(uint256(focus.step.head) >> 32);
        if (index == Steps.NONE) return;
        uint256 depth = Merkle.depth(spec.tensorCount);
        bytes32[] calldata proof = accusation.tensorProof;
        require(proof.length == depth, Trees.WrongProof(proof.length, depth));
        bytes32 leaf = keccak256(abi.encodePacked(bytes1(0), abi.encode(accusation.tensor)));
        (bytes32 found,) = Trees.climb(leaf, index, proof, 0);
        require(found == spec.tensors, IDisputes.NotInModel(found, spec.tensors));
        focus.weights = spec.weights;
        focus.weightDepth = uint8(Merkle.depth(spec.weightLeaves));
        focus.tensorLeaf = accusation.tensor.leaf;
    }

    /// @notice Refuses a doubt that does not concern the op.
    function requireDoubt(Focus memory focus, uint256 positions) internal pure {
        uint256 kind = Steps.kindOf(focus.step);
        bool holds = focus.doubt == Doubt.Element;
        if (focus.doubt == Doubt.Link) holds = kind == Steps.TOKEN;
        if (focus.doubt == Doubt.Kth || focus.doubt == Doubt.Nucleus) holds = kind == Steps.SAMPLE;
        if (focus.doubt == Doubt.FinalState) holds = kind == Steps.STATE && focus.position + 1 == positions;
        require(holds, IDisputes.NoSuchDoubt(focus.doubt, kind));
    }

    /// @notice Whether a receipt contradicts its order or itself.
    function contradicts(Filing calldata filing, uint256 context) internal pure returns (bool) {
        Order calldata order = filing.order;
        Receipt calldata receipt = filing.receipt;
        uint256 most = tokensMax(order, context);
        if (receipt.assurance != order.assurance || receipt.asset != order.asset) return true;
        if (receipt.price > order.maxPrice || receipt.finish > CANCELLED) return true;
        if (receipt.started / 1000 > order.deadline || receipt.started > receipt.finished) return true;
        if (receipt.outputTokens == 0 && receipt.state != receipt.order) return true;
        if (receipt.outputTokens > most) return true;
        if (receipt.finish == Endings.LENGTH && receipt.outputTokens < most) return true;
        uint256 moved = receipt.channel == 0 ? 0 : receipt.price;
        return uint256(receipt.channelBefore) + moved != receipt.channelAfter;
    }

    /// @notice Most output tokens that an order's answer can have.
    function tokensMax(Order calldata order, uint256 context) internal pure returns (uint256) {
        uint256 room = context > order.promptTokens ? context - order.promptTokens : 0;
        return order.maxTokens < room ? order.maxTokens : room;
    }

    /// @notice Whether the answer ends otherwise, at its `length`-th token, than the receipt says.
    function misfinishes(Filing calldata filing, Spec memory spec, Tail calldata tail) internal pure returns (bool) {
        _requireLists(filing, spec.eos, tail.eos, tail.stops);
        _requireTail(filing.receipt, tail);
        bool last = tail.length == filing.receipt.outputTokens && filing.receipt.finish != CANCELLED;
        uint8 expected = last ? filing.receipt.finish : Endings.GOES_ON;
        uint256 most = tokensMax(filing.order, spec.context);
        return Endings.finish(tail.tokens, tail.length, tail.eos, tail.stops, most) != expected;
    }

    /// Checks end tokens and stop sequences against model and sampler.
    function _requireLists(Filing calldata filing, bytes32 expected, uint32[] calldata eos, bytes calldata stops)
        private
        pure
    {
        bytes memory list;
        for (uint256 i; i < eos.length; ++i) {
            list = abi.encodePacked(list, eos[i]);
        }
        require(keccak256(list) == expected, IDisputes.NotInModel(keccak256(list), expected));
        bytes32 found = Words.hash(filing.sampler);
        require(found == filing.order.sampler, IDisputes.WrongSampler(found, filing.order.sampler));
        found = stops.length == 0 ? bytes32(0) : keccak256(stops);
        require(found == filing.sampler.stops, IDisputes.WrongSampler(found, filing.sampler.stops));
    }

    /// Checks that the tail is the output's, up to its `length`-th token.
    function _requireTail(Receipt calldata receipt, Tail calldata tail) private pure {
        require(tail.length <= receipt.outputTokens, IDisputes.Nowhere(tail.length, 0, 0));
        bytes calldata tokens = tail.tokens;
        uint256 count = tokens.length / 4;
        require(tokens.length % 4 == 0 && count <= tail.length, BadLength(tokens.length, 4 * uint256(tail.length)));
        uint256 first = tail.length - count;
        uint256 depth = Merkle.depth(receipt.outputTokens);
        bytes32 found = Trees.rangeRoot(Trees.tokenHashes(tokens, first), first, depth, tail.proof);
        require(found == receipt.output, IDisputes.NotInModel(found, receipt.output));
    }

    /// @notice Whether two receipts for one order cannot both be true.
    function diverge(Receipt[2] calldata pair, uint32 index, Opening[2] calldata tokens) internal pure returns (bool) {
        bool equal = pair[0].output == pair[1].output && pair[0].outputTokens == pair[1].outputTokens;
        if (equal) return pair[0].state != pair[1].state;
        return _token(pair[0], index, tokens[0]) != _token(pair[1], index, tokens[1]);
    }

    function _token(Receipt calldata receipt, uint32 index, Opening calldata opening) private pure returns (uint32) {
        require(index < receipt.outputTokens, IDisputes.Nowhere(index, 0, 0));
        require(opening.data.length == 4, BadLength(opening.data.length, 4));
        uint256 depth = Merkle.depth(receipt.outputTokens);
        bytes32 found = Trees.rangeRoot(Trees.tokenHashes(opening.data, index), index, depth, opening.proof);
        require(found == receipt.output, IDisputes.NotInModel(found, receipt.output));
        return uint32(bytes4(opening.data));
    }
}
