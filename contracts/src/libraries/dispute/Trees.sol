// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Openings} from "../judge/Openings.sol";

/// @notice Paths through keccak Merkle trees as disputes walk them: downwards, and for runs of leaves.
/// @dev node = keccak256(left, right). What depth a path has to have is for the caller to know.
library Trees {
    /// So many siblings were needed.
    error WrongProof(uint256 found, uint256 expected);
    /// A run of nodes must not be empty.
    error EmptyRun();

    /// @notice Climbs from `node`, number `index` of its level, by as many levels as there are siblings.
    /// @return top Where that leads.
    /// @return passed The node after `levels` of them.
    function climb(bytes32 node, uint256 index, bytes32[] calldata proof, uint256 levels)
        internal
        pure
        returns (bytes32 top, bytes32 passed)
    {
        if (levels == 0) passed = node;
        for (uint256 level; level < proof.length; ++level) {
            node = (index >> level) & 1 == 0 ? join(node, proof[level]) : join(proof[level], node);
            if (level + 1 == levels) passed = node;
        }
        return (node, passed);
    }

    /// @notice The node that all nodes of a level, a power of two, fold to.
    function fold(bytes32[] calldata nodes) internal pure returns (bytes32) {
        bytes32[] memory level = nodes;
        for (uint256 count = nodes.length; count > 1; count /= 2) {
            for (uint256 i; i < count / 2; ++i) {
                level[i] = join(level[2 * i], level[2 * i + 1]);
            }
        }
        return level[0];
    }

    /// @notice The root above a run of neighbouring nodes, the first of which is number `first` of its level.
    /// @dev Level by level, the left neighbour of the run if its first number is odd, then the right neighbour if its
    /// last is even, stand in the proof. Overwrites `run`.
    function rangeRoot(bytes32[] memory run, uint256 first, uint256 depth, bytes32[] calldata proof)
        internal
        pure
        returns (bytes32)
    {
        uint256 count = run.length;
        require(count != 0, EmptyRun());
        uint256 used;
        for (uint256 level; level < depth; ++level) {
            uint256 odd = first & 1;
            uint256 needed = odd + ((first + count) & 1);
            require(used + needed <= proof.length, WrongProof(proof.length, used + needed));
            count = _lift(run, count, odd, proof[used:used + needed]);
            used += needed;
            first >>= 1;
        }
        require(used == proof.length, WrongProof(proof.length, used));
        require(count == 1, WrongProof(count, 1));
        return run[0];
    }

    /// Joins the first `count` nodes of a run, between their neighbours, in pairs. A thousand leaves are a thousand
    /// joins, so those within the run are made where they lie.
    function _lift(bytes32[] memory run, uint256 count, uint256 odd, bytes32[] calldata neighbours)
        private
        pure
        returns (uint256 pairs)
    {
        pairs = (count + neighbours.length) / 2;
        // What ends the level is read before anything is overwritten, and so is what begins it.
        bool openEnd = neighbours.length > odd;
        bytes32 last = openEnd ? join(run[count - 1], neighbours[odd]) : bytes32(0);
        bytes32 first = odd == 1 ? join(neighbours[0], run[0]) : bytes32(0);
        uint256 inner = openEnd ? pairs - 1 : pairs;
        // The others are neighbours in memory. Never behind what was read: `run` is overwritten from its beginning.
        assembly ("memory-safe") {
            let to := add(add(run, 32), mul(odd, 32))
            let from := to
            for { let end := add(add(run, 32), mul(inner, 32)) } lt(to, end) { to := add(to, 32) } {
                mstore(to, keccak256(from, 64))
                from := add(from, 64)
            }
        }
        if (odd == 1) run[0] = first;
        if (openEnd) run[pairs - 1] = last;
    }

    /// @notice The hashes of leaves of `size` bytes that stand one after another.
    /// @param none An empty proof.
    function leafHashes(bytes calldata data, uint256 size, bytes32[] calldata none)
        internal
        pure
        returns (bytes32[] memory hashes)
    {
        uint256 count = data.length / size;
        hashes = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            hashes[i] = Openings.root(data[i * size:(i + 1) * size], 0, none);
        }
    }

    /// @notice The hashes of the leaves of tokens, 32 bits each, the first of which is number `first`.
    function tokenHashes(bytes calldata tokens, uint256 first) internal pure returns (bytes32[] memory hashes) {
        uint256 count = tokens.length / 4;
        hashes = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            hashes[i] = _tokenHash(tokens, 4 * i, uint32(first + i));
        }
    }

    /// keccak256(0x00, index, the four bytes at `offset`), in the scratch space: an answer has thousands of tokens, and
    /// packing each by the compiler takes ten times the gas.
    function _tokenHash(bytes calldata tokens, uint256 offset, uint32 index) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let token := shr(224, calldataload(add(tokens.offset, offset)))
            mstore(0, or(shl(216, and(index, 0xffffffff)), shl(184, token)))
            hash := keccak256(0, 9)
        }
    }

    function join(bytes32 left, bytes32 right) internal pure returns (bytes32 node) {
        assembly ("memory-safe") {
            mstore(0, left)
            mstore(32, right)
            node := keccak256(0, 64)
        }
    }
}
