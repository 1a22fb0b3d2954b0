// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Serve} from "../types/Serve.sol";
import {Words} from "./Words.sol";

/// @notice What an operator signs to serve an owner.
library Service {
    bytes32 internal constant SERVE = keccak256("Serve(address registry,address owner)");

    /// @notice The EIP-712 digest of `serve` on this chain.
    function digest(Serve memory serve) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(Words.domain(), keccak256(abi.encode(SERVE, serve)));
    }
}
