// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What an operator signs to serve an owner: the EIP-712 digest of `types/Serve.sol`.
library Service {
    bytes32 internal constant DOMAIN = keccak256("EIP712Domain(string name,string version,uint256 chainId)");
    bytes32 internal constant SERVE = keccak256("Serve(address registry,address owner)");
    bytes32 internal constant NAME = keccak256("Assay");
    bytes32 internal constant VERSION = keccak256("1");

    /// @notice The digest on the chain that asks, for `owner` in `registry`.
    function digest(address registry, address owner) internal view returns (bytes32) {
        bytes32 domain = keccak256(abi.encode(DOMAIN, NAME, VERSION, block.chainid));
        bytes32 word = keccak256(abi.encode(SERVE, registry, owner));
        return keccak256(abi.encodePacked(hex"1901", domain, word));
    }
}
