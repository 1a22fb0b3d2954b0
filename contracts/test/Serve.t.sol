// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Service} from "../src/libraries/Service.sol";
import {Serve} from "../src/types/Serve.sol";
import {Base} from "./Base.sol";

/// @notice The operator's word hashes as a wallet that shares no code with us hashes it.
contract ServeTest is Base {
    function test_digests_and_signatures_are_a_wallets() public {
        string memory json = vm.readFile("../tests/vectors/serve.json");
        uint256 key = vm.parseJsonUint(json, ".key");
        for (uint256 i = 0; i < 2; i++) {
            string memory at = string.concat(".cases[", vm.toString(i), "]");
            vm.chainId(vm.parseJsonUint(json, string.concat(at, ".chainId")));
            bytes32 digest = Service.digest(
                Serve({
                    registry: vm.parseJsonAddress(json, string.concat(at, ".message.registry")),
                    owner: vm.parseJsonAddress(json, string.concat(at, ".message.owner"))
                })
            );
            assertEq(digest, vm.parseJsonBytes32(json, string.concat(at, ".digest")));
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
            bytes memory expected = vm.parseJsonBytes(json, string.concat(at, ".signature"));
            assertEq(abi.encodePacked(r, s, v), expected);
        }
    }
}
