// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Order} from "../types/Order.sol";
import {Receipt} from "../types/Receipt.sol";
import {Sampler} from "../types/Sampler.sol";

/// @notice EIP-712 hashes of the protocol's signed words, under the domain {name: "Assay", version: "1", chainId}.
/// @dev Every field of the three structs is one word, so a struct hash is the hash of its ABI encoding behind the
/// type hash. Pinned by tests/vectors/eip712.json, which Rust reads too.
library Words {
    bytes32 internal constant DOMAIN = keccak256("EIP712Domain(string name,string version,uint256 chainId)");
    bytes32 internal constant ORDER = keccak256(
        "Order(address buyer,address market,bytes32 model,bytes32 request,bytes32 prompt,uint32 promptTokens,uint32 maxTokens,bytes32 sampler,uint8 assurance,uint8 audit,address asset,uint128 maxPrice,uint64 deadline,uint256 nonce,bytes32 grant)"
    );
    bytes32 internal constant RECEIPT = keccak256(
        "Receipt(bytes32 order,address provider,bytes32 output,uint32 outputTokens,bytes32 text,uint8 finish,bytes32 state,uint8 assurance,address asset,uint128 price,bytes32 channel,uint128 channelBefore,uint128 channelAfter,uint64 started,uint64 finished)"
    );
    bytes32 internal constant SAMPLER = keccak256(
        "Sampler(uint32 invT_q16,uint32 topK,uint32 topP_q16,uint32 minP_q16,uint32 rep_q16,int32 freq_q16,int32 pres_q16,bytes32 stops,bytes32 bias,bytes32 grammar,bytes32 seed,uint32 choice)"
    );

    /// @notice The domain of this chain. Every deployment of the protocol on a chain shares it.
    function domain() internal view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN, keccak256("Assay"), keccak256("1"), block.chainid));
    }

    /// @notice Struct hash of a sampler: what an order's `sampler` holds.
    function hash(Sampler memory sampler) internal pure returns (bytes32) {
        return keccak256(abi.encode(SAMPLER, sampler));
    }

    /// @notice What a buyer signs, and what a receipt's `order` holds.
    function digest(Order memory order) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(domain(), keccak256(abi.encode(ORDER, order)));
    }

    /// @notice What a provider signs, and the data of a leaf in its posted trees.
    function digest(Receipt memory receipt) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(domain(), keccak256(abi.encode(RECEIPT, receipt)));
    }
}
