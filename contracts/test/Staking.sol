// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssayToken} from "../src/AssayToken.sol";
import {Parameters} from "../src/Parameters.sol";
import {Providers} from "../src/Providers.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Seat} from "../src/interfaces/ISeats.sol";
import {Base} from "./Base.sol";

/// @notice A network with stakes: the token, the parameters and the registry, governed by the test itself.
abstract contract Staking is Base {
    AssayToken internal token;
    Parameters internal parameters;
    Providers internal providers;

    address internal immutable ARBITER = makeAddr("arbiter");
    address internal immutable GENESIS = makeAddr("genesis");
    bytes32 internal constant GENESIS_KEY = keccak256("genesis key");

    function setUp() public virtual {
        // Far from zero, so that times in the past exist.
        vm.warp(1_800_000_000);
        token = AssayToken(create("AssayToken.sol:AssayToken", ""));
        bytes memory usual = abi.encode(address(this), address(this), address(this), new uint256[](0));
        parameters = Parameters(create("Parameters.sol:Parameters", usual));
        parameters.setArbiter(ARBITER);
        Seat[] memory genesis = new Seat[](1);
        genesis[0] = Seat(GENESIS_KEY, GENESIS, 1, "127.0.0.1:7000");
        providers = registry(genesis);
    }

    /// Another registry of the same network.
    function registry(Seat[] memory genesis) internal returns (Providers) {
        return Providers(create("Providers.sol:Providers", abi.encode(token, parameters, genesis)));
    }

    /// Deploys by name, so that the test need not carry the bytecode; zero if the constructor refuses.
    function create(string memory artifact, bytes memory arguments) internal returns (address at) {
        bytes memory code = bytes.concat(vm.getCode(artifact), arguments);
        assembly {
            at := create(0, add(code, 32), mload(code))
        }
    }

    /// A registered owner with its operator; both have their names for keys.
    function enrol(string memory name) internal returns (address owner, address operator) {
        owner = makeAddr(name);
        uint256 key;
        (operator, key) = makeAddrAndKey(operatorName(name));
        bytes memory signature = consent(key, owner);
        vm.prank(owner);
        providers.register(operator, endpoint(name), signature);
    }

    /// As `enrol`, with `amount` bonded.
    function enrol(string memory name, uint256 amount) internal returns (address owner, address operator) {
        (owner, operator) = enrol(name);
        fund(owner, amount);
        vm.prank(owner);
        providers.stake(uint128(amount));
    }

    /// Gives `owner` tokens that the registry may take.
    function fund(address owner, uint256 amount) internal {
        require(token.transfer(owner, amount), "no transfer");
        vm.prank(owner);
        token.approve(address(providers), amount);
    }

    /// The word of the operator with `key` that it serves `owner`, put together from the text of EIP-712.
    function consent(uint256 key, address owner) internal view returns (bytes memory) {
        return consent(key, owner, address(providers));
    }

    function consent(uint256 key, address owner, address registry_) internal view returns (bytes memory) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId)"),
                keccak256("Assay"),
                keccak256("1"),
                block.chainid
            )
        );
        bytes32 word = keccak256(abi.encode(keccak256("Serve(address registry,address owner)"), registry_, owner));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, word)));
        return abi.encodePacked(r, s, v);
    }

    function value(Value key) internal view returns (uint256) {
        return parameters.value(key);
    }

    /// `bps` of `amount`, the plain way.
    function share(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / 10_000;
    }

    function operatorName(string memory name) internal pure returns (string memory) {
        return string.concat(name, "'s operator");
    }

    function endpoint(string memory name) internal pure returns (string memory) {
        return string.concat("https://", name, ".example");
    }

    function times(string memory text, uint256 count) internal pure returns (string memory repeated) {
        for (uint256 i = 0; i < count; i++) {
            repeated = string.concat(repeated, text);
        }
    }
}
