// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a call took.
struct CallGas {
    uint64 gasLimit;
    uint64 gasTotalUsed;
    uint64 gasMemoryUsed;
    int64 gasRefunded;
    uint64 gasRemaining;
}

/// @notice The cheat codes of forge that our tests use: calls to this address are answered by the test runner.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    // Time, blocks, accounts and code.
    function warp(uint256 timestamp) external;
    function roll(uint256 height) external;
    function chainId(uint256 id) external;
    function deal(address account, uint256 wei_) external;
    function etch(address account, bytes calldata code) external;
    function setNonce(address account, uint64 nonce) external;
    function load(address account, bytes32 slot) external view returns (bytes32);
    function store(address account, bytes32 slot, bytes32 word) external;
    function label(address account, string calldata name) external;
    function getCode(string calldata artifact) external view returns (bytes memory);
    function getBlockTimestamp() external view returns (uint256);
    function snapshotState() external returns (uint256 id);
    function revertToState(uint256 id) external returns (bool);

    // Who calls. `prank` is used up by the next external call, even by a view made for an argument.
    function prank(address sender) external;
    function prank(address sender, address origin) external;
    function startPrank(address sender) external;
    function stopPrank() external;

    // Keys.
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function signCompact(uint256 key, bytes32 digest) external pure returns (bytes32 r, bytes32 vs);

    // What must happen in the next call.
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function expectPartialRevert(bytes4 selector) external;
    function expectEmit() external;
    function expectEmit(address emitter) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data, address emitter) external;
    function expectCall(address callee, bytes calldata data) external;
    function mockCall(address callee, bytes calldata data, bytes calldata answer) external;
    function mockCallRevert(address callee, bytes calldata data, bytes calldata answer) external;
    function clearMockedCalls() external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);

    // Inputs of fuzz tests.
    function assume(bool condition) external pure;

    // Gas.
    function lastCallGas() external view returns (CallGas memory);
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256 gas);
    function snapshotValue(string calldata group, string calldata name, uint256 value) external;
    function pauseGasMetering() external;
    function resumeGasMetering() external;
    function cool(address account) external;

    // Files and JSON: golden vectors.
    function readFile(string calldata path) external view returns (string memory);
    function readFileBinary(string calldata path) external view returns (bytes memory);
    function parseJson(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonInt(string calldata json, string calldata key) external pure returns (int256);
    function parseJsonBool(string calldata json, string calldata key) external pure returns (bool);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function parseJsonBytes32Array(string calldata json, string calldata key) external pure returns (bytes32[] memory);
    function parseJsonUintArray(string calldata json, string calldata key) external pure returns (uint256[] memory);
    function parseJsonTypeArray(string calldata json, string calldata key, string calldata typeDescription)
        external
        pure
        returns (bytes memory);
    function parseJsonKeys(string calldata json, string calldata key) external pure returns (string[] memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseUint(string calldata text) external pure returns (uint256);
    function parseBytes(string calldata text) external pure returns (bytes memory);
    function toString(uint256 value) external pure returns (string memory);
    function toString(address value) external pure returns (string memory);
    function toString(bytes32 value) external pure returns (string memory);

    // Comparisons that print both sides when they fail.
    function assertTrue(bool condition) external pure;
    function assertTrue(bool condition, string calldata why) external pure;
    function assertFalse(bool condition) external pure;
    function assertFalse(bool condition, string calldata why) external pure;
    function assertEq(bool found, bool expected) external pure;
    function assertEq(bool found, bool expected, string calldata why) external pure;
    function assertEq(uint256 found, uint256 expected) external pure;
    function assertEq(uint256 found, uint256 expected, string calldata why) external pure;
    function assertEq(int256 found, int256 expected) external pure;
    function assertEq(address found, address expected) external pure;
    function assertEq(address found, address expected, string calldata why) external pure;
    function assertEq(bytes32 found, bytes32 expected) external pure;
    function assertEq(bytes32 found, bytes32 expected, string calldata why) external pure;
    function assertEq(string calldata found, string calldata expected) external pure;
    function assertEq(bytes calldata found, bytes calldata expected) external pure;
    function assertNotEq(uint256 found, uint256 other) external pure;
    function assertNotEq(address found, address other) external pure;
    function assertNotEq(bytes32 found, bytes32 other) external pure;
    function assertLt(uint256 left, uint256 right) external pure;
    function assertLt(uint256 left, uint256 right, string calldata why) external pure;
    function assertLe(uint256 left, uint256 right) external pure;
    function assertLe(uint256 left, uint256 right, string calldata why) external pure;
    function assertGt(uint256 left, uint256 right) external pure;
    function assertGt(uint256 left, uint256 right, string calldata why) external pure;
    function assertGe(uint256 left, uint256 right) external pure;
    function assertGe(uint256 left, uint256 right, string calldata why) external pure;
    function assertApproxEqAbs(uint256 found, uint256 expected, uint256 distance) external pure;
}

/// @notice What every test contract builds on: the cheat codes, comparisons, and what the invariant
/// runner asks for. Stands in for forge-std, which no package registry carries.
/// @dev The cheat codes compare as `vm.assertEq(found, expected)`; the wrappers here are for the common types.
abstract contract Base {
    /// Which functions of a target the invariant runner may call.
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// The address that forge answers cheat codes at.
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// Tells forge that this is a test contract.
    bool public constant IS_TEST = true;

    address[] private _targets;
    FuzzSelector[] private _selectors;
    address[] private _senders;

    /// @notice Contracts that the invariant runner calls.
    function targetContracts() public view returns (address[] memory) {
        return _targets;
    }

    /// @notice Functions that the invariant runner calls; all of a target's when it has no entry.
    function targetSelectors() public view returns (FuzzSelector[] memory) {
        return _selectors;
    }

    /// @notice Accounts that the invariant runner calls from.
    function targetSenders() public view returns (address[] memory) {
        return _senders;
    }

    function targetContract(address target) internal {
        _targets.push(target);
    }

    function targetSelector(FuzzSelector memory selector) internal {
        _selectors.push(selector);
    }

    function targetSender(address sender) internal {
        _senders.push(sender);
    }

    /// An account with a name in traces; its key is the hash of the name.
    function makeAddr(string memory name) internal returns (address account) {
        (account,) = makeAddrAndKey(name);
    }

    /// As `makeAddr`, with the key, to sign with.
    function makeAddrAndKey(string memory name) internal returns (address account, uint256 key) {
        // Below the order of the curve, and never zero.
        key = (uint256(keccak256(bytes(name))) >> 1) | 1;
        account = vm.addr(key);
        vm.label(account, name);
    }

    /// Folds `x` into [least, most]; values already inside stay.
    function bound(uint256 x, uint256 least, uint256 most) internal pure returns (uint256) {
        require(least <= most, "bound: empty range");
        if (x >= least && x <= most) return x;
        uint256 size = most - least;
        return size == type(uint256).max ? x : least + x % (size + 1);
    }

    /// Lets `time` seconds pass.
    function skip(uint256 time) internal {
        vm.warp(vm.getBlockTimestamp() + time);
    }

    function assertTrue(bool condition) internal pure {
        vm.assertTrue(condition);
    }

    function assertTrue(bool condition, string memory why) internal pure {
        vm.assertTrue(condition, why);
    }

    function assertFalse(bool condition) internal pure {
        vm.assertFalse(condition);
    }

    function assertFalse(bool condition, string memory why) internal pure {
        vm.assertFalse(condition, why);
    }

    function assertEq(bool found, bool expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertEq(uint256 found, uint256 expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertEq(uint256 found, uint256 expected, string memory why) internal pure {
        vm.assertEq(found, expected, why);
    }

    function assertEq(address found, address expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertEq(bytes32 found, bytes32 expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertEq(bytes32 found, bytes32 expected, string memory why) internal pure {
        vm.assertEq(found, expected, why);
    }

    function assertEq(string memory found, string memory expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertEq(bytes memory found, bytes memory expected) internal pure {
        vm.assertEq(found, expected);
    }

    function assertLt(uint256 left, uint256 right) internal pure {
        vm.assertLt(left, right);
    }

    function assertLe(uint256 left, uint256 right) internal pure {
        vm.assertLe(left, right);
    }

    function assertLe(uint256 left, uint256 right, string memory why) internal pure {
        vm.assertLe(left, right, why);
    }

    function assertGt(uint256 left, uint256 right) internal pure {
        vm.assertGt(left, right);
    }

    function assertGe(uint256 left, uint256 right) internal pure {
        vm.assertGe(left, right);
    }

    function assertGe(uint256 left, uint256 right, string memory why) internal pure {
        vm.assertGe(left, right, why);
    }
}
