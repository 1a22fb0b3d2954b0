// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Roots that openings of tagged Merkle trees lead to, without copying the proof.
/// @dev The same trees as {Merkle}: leaf = keccak256(0x00, data), node = keccak256(left, right). Whoever calls has
/// fixed the depth, and the length of the leaf's data, which is never 63.
library Openings {
    /// @notice The root of the tree whose leaf `index` has this data, by the siblings from the leaf up.
    /// @dev `index` must be below 2^proof.length; what stands above that is ignored.
    function root(bytes calldata data, uint256 index, bytes32[] calldata proof) internal pure returns (bytes32 node) {
        assembly ("memory-safe") {
            // Beyond the free memory, which stays free.
            let at := mload(0x40)
            mstore8(at, 0)
            calldatacopy(add(at, 1), data.offset, data.length)
            node := keccak256(at, add(data.length, 1))
            let end := add(proof.offset, shl(5, proof.length))
            for { let sibling := proof.offset } lt(sibling, end) { sibling := add(sibling, 32) } {
                let place := shl(5, and(index, 1))
                mstore(place, node)
                mstore(xor(place, 32), calldataload(sibling))
                node := keccak256(0, 64)
                index := shr(1, index)
            }
        }
    }
}
