// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Keccak Merkle trees of fixed depth with tagged leaves, as crates/protocol/src/merkle.rs builds them.
/// @dev leaf = keccak256(0x00 ‖ data), node = keccak256(left ‖ right); n leaves give depth ⌈log2 n⌉, padded with
/// zero leaves. A leaf's data never has 63 bytes, and the depth is fixed by n, so no node passes for a leaf.
library Merkle {
    /// @notice Hash of a leaf whose data is one word.
    function leaf(bytes32 data) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0), data));
    }

    /// @notice Depth of a tree of `leaves` leaves; zero for one leaf or none.
    function depth(uint256 leaves) internal pure returns (uint256 levels) {
        while (uint256(1) << levels < leaves) ++levels;
    }

    /// @notice Whether `leafHash` is leaf `index` of the tree of `leaves` leaves under `root`.
    /// @param proof The siblings from the leaf up, as many as the tree is deep.
    function contains(bytes32 root, uint256 leaves, uint256 index, bytes32 leafHash, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= leaves || proof.length != depth(leaves)) return false;
        bytes32 node = leafHash;
        for (uint256 level; level < proof.length; ++level) {
            node = (index >> level) & 1 == 0 ? _node(node, proof[level]) : _node(proof[level], node);
        }
        return node == root;
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(left, right));
    }
}
