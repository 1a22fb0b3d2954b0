// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Facts, Focus, IJudge, Opening, Round} from "../libraries/dispute/Exhibits.sol";
import {Step, Steps} from "../libraries/dispute/Steps.sol";
import {Trees} from "../libraries/dispute/Trees.sol";
import {Leaves} from "../libraries/judge/Leaves.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Openings} from "../libraries/judge/Openings.sol";

/// @notice What one judgement is about: the focus in memory, and how far the openings are read.
struct Bench {
    bytes32 trace;
    bytes32 here;
    uint256 positionDepth;
    uint256 opDepth;
    uint256 position;
    uint256 op;
    uint256 leaf;
    uint256 element;
    Step step;
    /// The tree of weights, and where the step's tensor begins in it.
    bytes32 weights;
    uint256 weightDepth;
    uint256 tensorLeaf;
    /// The next opening to be read, and where it lies: so deep under a root.
    uint256 next;
    bytes32 root;
    uint256 index;
    uint256 depth;
}

/// @notice What all judges share: they read openings one after another, each from where the rule says it lies.
abstract contract Judge is IJudge {
    /// More openings were needed, or fewer.
    error WrongOpenings(uint256 found, uint256 expected);
    /// The opening does not lead to the root that the rule reads from.
    error NotCommitted(uint256 opening, bytes32 found, bytes32 expected);
    /// The rule has as many rounds.
    error WrongRounds(uint256 found, uint256 expected);
    /// This judge knows no rule for the kind of step.
    error NoRule(uint256 kind);

    /// @inheritdoc IJudge
    function judge(
        bytes32 trace,
        Focus calldata focus,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) external view returns (bool right) {
        Bench memory bench;
        bench.trace = trace;
        bench.here = focus.here;
        bench.positionDepth = focus.positionDepth;
        bench.opDepth = focus.opDepth;
        bench.position = focus.position;
        bench.op = focus.op;
        bench.leaf = focus.leaf;
        bench.element = focus.element;
        bench.step = Steps.read(focus.step);
        bench.weights = focus.weights;
        bench.weightDepth = focus.weightDepth;
        bench.tensorLeaf = focus.tensorLeaf;
        require(openings.length != 0, WrongOpenings(0, 1));
        bytes calldata leaf = openings[0].data;
        bytes32 found = Openings.root(leaf, 0, openings[0].proof);
        require(found == focus.node, NotCommitted(0, found, focus.node));
        // A leaf is no node: it has a length of its own, which each rule checks, and no siblings.
        require(openings[0].proof.length == 0, Trees.WrongProof(openings[0].proof.length, 0));
        bench.next = 1;
        right = _judge(focus, bench, facts, rounds, openings);
    }

    function _judge(
        Focus calldata focus,
        Bench memory bench,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) internal view virtual returns (bool);

    /// The next opening, leaf `index` of the tree of this depth under `root`, of `length` bytes.
    function _open(
        Bench memory bench,
        Opening[] calldata openings,
        bytes32 root,
        uint256 index,
        uint256 depth,
        uint256 length
    ) internal pure returns (bytes calldata) {
        (bench.root, bench.index, bench.depth) = (root, index, depth);
        return _leaf(bench, openings, length);
    }

    /// Leaf `leaf` of the step's tensor.
    function _weight(Bench memory bench, Opening[] calldata openings, uint256 leaf, uint256 length)
        internal
        pure
        returns (bytes calldata)
    {
        (bench.root, bench.index, bench.depth) = (bench.weights, bench.tensorLeaf + leaf, bench.weightDepth);
        return _leaf(bench, openings, length);
    }

    /// Leaf `leaf` of the `leaves` of another op at the same position.
    function _here(
        Bench memory bench,
        Opening[] calldata openings,
        uint256 op,
        uint256 leaf,
        uint256 leaves,
        uint256 length
    ) internal pure returns (bytes calldata) {
        uint256 depth = Merkle.depth(leaves);
        (bench.root, bench.index, bench.depth) = (bench.here, op << depth | leaf, bench.opDepth + depth);
        return _leaf(bench, openings, length);
    }

    /// As `_here`, at another position.
    function _at(
        Bench memory bench,
        Opening[] calldata openings,
        uint256 position,
        uint256 op,
        uint256 leaf,
        uint256 leaves,
        uint256 length
    ) internal pure returns (bytes calldata) {
        uint256 depth = Merkle.depth(leaves);
        bench.root = bench.trace;
        bench.index = (position << bench.opDepth | op) << depth | leaf;
        bench.depth = bench.positionDepth + bench.opDepth + depth;
        return _leaf(bench, openings, length);
    }

    /// All leaves of another op at the same position, one after another.
    function _whole(Bench memory bench, Opening[] calldata openings, uint256 op, uint256 leaves, uint256 size)
        internal
        pure
        returns (bytes calldata)
    {
        uint256 depth = Merkle.depth(leaves);
        (bench.root, bench.index, bench.depth) = (bench.here, op << depth, bench.opDepth + depth);
        return _run(bench, openings, leaves, size);
    }

    /// The next opening, a run of `count` leaves of `size` bytes.
    function _run(Bench memory bench, Opening[] calldata openings, uint256 count, uint256 size)
        internal
        pure
        returns (bytes calldata data)
    {
        Opening calldata opening = _next(bench, openings);
        data = opening.data;
        Leaves.checkLength(data, count * size);
        _requireRun(bench, Trees.leafHashes(data, size, opening.proof[:0]), opening.proof);
    }

    /// The next opening, a run of `count` tokens from token `first` on, of the `tokens` under `root`.
    function _tokens(
        Bench memory bench,
        Opening[] calldata openings,
        bytes32 root,
        uint256 first,
        uint256 count,
        uint256 tokens
    ) internal pure returns (bytes calldata data) {
        Opening calldata opening = _next(bench, openings);
        data = opening.data;
        Leaves.checkLength(data, 4 * count);
        (bench.root, bench.index, bench.depth) = (root, first, Merkle.depth(tokens));
        _requireRun(bench, Trees.tokenHashes(data, first), opening.proof);
    }

    function _requireRun(Bench memory bench, bytes32[] memory run, bytes32[] calldata proof) private pure {
        bytes32 found = Trees.rangeRoot(run, bench.index, bench.depth, proof);
        require(found == bench.root, NotCommitted(bench.next - 1, found, bench.root));
    }

    function _leaf(Bench memory bench, Opening[] calldata openings, uint256 length)
        private
        pure
        returns (bytes calldata data)
    {
        Opening calldata opening = _next(bench, openings);
        data = opening.data;
        Leaves.checkLength(data, length);
        require(opening.proof.length == bench.depth, Trees.WrongProof(opening.proof.length, bench.depth));
        bytes32 found = Openings.root(data, bench.index, opening.proof);
        require(found == bench.root, NotCommitted(bench.next - 1, found, bench.root));
    }

    function _next(Bench memory bench, Opening[] calldata openings) internal pure returns (Opening calldata) {
        uint256 next = bench.next++;
        require(next < openings.length, WrongOpenings(openings.length, next + 1));
        return openings[next];
    }

    /// The token that goes in at the position of the focus.
    function _input(Bench memory bench, Facts memory facts, Opening[] calldata openings)
        internal
        pure
        returns (uint256)
    {
        uint256 p = bench.position;
        bytes calldata data = p < facts.promptTokens
            ? _tokens(bench, openings, facts.prompt, p, 1, facts.promptTokens)
            : _tokens(bench, openings, facts.output, p - facts.promptTokens, 1, facts.outputTokens);
        return uint32(bytes4(data));
    }

    /// The element of a disputed leaf of fixed-point numbers.
    function _fixed(Bench memory bench, bytes calldata leaf) internal pure returns (int256) {
        Leaves.checkLength(leaf, Leaves.FIXED);
        return Leaves.fixedAt(leaf, bench.element);
    }

    /// The element of a disputed leaf of words.
    function _wide(Bench memory bench, bytes calldata leaf) internal pure returns (uint256) {
        Leaves.checkLength(leaf, Leaves.WIDE);
        return Leaves.wideAt(leaf, bench.element);
    }

    function _requireRounds(Round[] calldata rounds, uint256 expected) internal pure {
        require(rounds.length == expected, WrongRounds(rounds.length, expected));
    }

    /// n / d, rounded up.
    function _ceil(uint256 n, uint256 d) internal pure returns (uint256) {
        return (n + d - 1) / d;
    }
}
