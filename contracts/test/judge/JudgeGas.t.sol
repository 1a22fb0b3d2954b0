// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Openings} from "../../src/libraries/judge/Openings.sol";
import {Products} from "../../src/libraries/judge/Products.sol";
import {Rules} from "../../src/Rules.sol";
import {Block} from "../../src/libraries/judge/Attention.sol";
import {Hits, Kept, Penalties} from "../../src/libraries/judge/Sampling.sol";
import {Base} from "../Base.sol";

/// @notice One leaf and how it hangs in its tree.
struct Opening {
    bytes data;
    uint256 index;
    bytes32[] proof;
    bytes32 root;
}

/// @notice The last transaction of a dispute over one element of a matrix product: opens both leaves, makes 128 products,
/// and adds up and rounds all partial sums.
contract ProductJudge {
    error NotInTree();

    /// 0: the element is right; 1: the chosen partial sum is wrong; 2: the partial sums do not give the element.
    function judge(
        Opening calldata weights,
        Opening calldata x,
        bytes calldata partials,
        uint256 chosen,
        int256 shift,
        int32 claimed
    ) external pure returns (uint256) {
        require(Openings.root(weights.data, weights.index, weights.proof) == weights.root, NotInTree());
        require(Openings.root(x.data, x.index, x.proof) == x.root, NotInTree());
        if (Products.product(partials, shift) != claimed) return 2;
        int64 partial_ = int64(uint64(bytes8(partials[8 * chosen:])));
        return Products.chunk(weights.data, x.data) == partial_ ? 0 : 1;
    }
}

/// @notice What each rule takes, and what the judge of a whole matrix element takes with its openings.
contract JudgeGasTest is Base {
    Rules private rules;
    ProductJudge private judge;

    function setUp() public {
        rules = new Rules();
        judge = new ProductJudge();
    }

    /// Bytes that are no zeros, so that their transport is as dear as can be.
    function noise(uint256 length, uint256 seed) private pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 i; i < length; ++i) {
            data[i] = bytes1(uint8(uint256(keccak256(abi.encode(seed, i)))) | 1);
        }
    }

    function activations(uint256 seed) private pure returns (bytes memory leaf) {
        leaf = noise(136, seed);
        for (uint256 i; i < 8; i += 2) {
            leaf[i] &= 0x7f;
        }
    }

    function weights(uint256 seed) private pure returns (bytes memory) {
        return bytes.concat(hex"0119", noise(136, seed));
    }

    function opened(bytes memory data, uint256 depth) private pure returns (Opening memory opening) {
        opening.data = data;
        opening.index = uint256(keccak256(data)) % (1 << depth);
        opening.proof = new bytes32[](depth);
        bytes32 node = keccak256(bytes.concat(hex"00", data));
        for (uint256 level; level < depth; ++level) {
            bytes32 sibling = keccak256(abi.encode(level));
            opening.proof[level] = sibling;
            bool right = (opening.index >> level) & 1 == 1;
            node = keccak256(right ? bytes.concat(sibling, node) : bytes.concat(node, sibling));
        }
        opening.root = node;
    }

    /// An honest element of so many columns, its first partial sum opened.
    function honest(uint256 columns, uint256 weightDepth, uint256 traceDepth)
        private
        view
        returns (Opening memory w, Opening memory x, bytes memory partials, int32 element)
    {
        w = opened(weights(1), weightDepth);
        x = opened(activations(2), traceDepth);
        partials = noise(8 * ((columns + 127) / 128), 3);
        bytes8 chunk = bytes8(uint64(rules.chunk(w.data, x.data)));
        for (uint256 i; i < 8; ++i) {
            partials[i] = chunk[i];
        }
        element = rules.product(partials, 40);
    }

    /// What a transaction pays for its data, and the least it pays in all (EIP-7623).
    function carried(bytes memory call) private pure returns (uint256 standard, uint256 floor) {
        uint256 zeros;
        for (uint256 i; i < call.length; ++i) {
            if (call[i] == 0) ++zeros;
        }
        uint256 others = call.length - zeros;
        return (21_000 + 4 * zeros + 16 * others, 21_000 + 10 * zeros + 40 * others);
    }

    function measure(uint256 columns, uint256 weightDepth, uint256 traceDepth)
        private
        returns (uint256 execution, uint256 charged)
    {
        (Opening memory w, Opening memory x, bytes memory partials, int32 element) =
            honest(columns, weightDepth, traceDepth);
        bytes memory call = abi.encodeCall(ProductJudge.judge, (w, x, partials, 0, 40, element));
        execution = new Meter().measure(address(judge), call);
        (uint256 standard, uint256 floor) = carried(call);
        charged = standard + execution > floor ? standard + execution : floor;
        string memory name = string.concat("matrix element, K = ", vm.toString(columns));
        vm.snapshotValue("Rules", string.concat(name, ", execution"), execution);
        vm.snapshotValue("Rules", string.concat(name, ", charged"), charged);
    }

    function test_the_judge_of_a_matrix_element_stays_below_its_bounds() public {
        (uint256 execution, uint256 charged) = measure(4096, 24, 22);
        assertLe(execution, 35_000);
        assertLe(charged, 120_000);
        measure(11_008, 26, 24);
        measure(28_672, 30, 26);
    }

    function test_the_judge_of_a_matrix_element_names_what_is_wrong() public {
        (Opening memory w, Opening memory x, bytes memory partials, int32 element) = honest(512, 10, 8);
        assertEq(judge.judge(w, x, partials, 0, 40, element), 0);
        assertEq(judge.judge(w, x, partials, 1, 40, element), 1);
        assertEq(judge.judge(w, x, partials, 0, 40, element ^ 1), 2);
        x.proof[3] ^= bytes32(uint256(1));
        vm.expectRevert(ProductJudge.NotInTree.selector);
        judge.judge(w, x, partials, 0, 40, element);
    }

    function test_each_rule_is_cheap() public {
        bytes memory fixedLeaf = noise(128, 4);
        bytes memory words = noise(256, 5);
        Kept memory kept = Kept(94_548, type(int32).max, type(int64).min, 0);
        Block memory b = Block(fixedLeaf, noise(128, 6), 64, type(int32).max);
        bytes memory values = noise(192, 7);
        bytes memory scales = noise(128, 8);
        for (uint256 i; i < 64; ++i) {
            values[3 * i] &= 0x7f;
            scales[2 * i] &= 0x7f;
        }
        keep("embed", abi.encodeCall(Rules.embed, (weights(1), 77, 16)));
        keep("rope", abi.encodeCall(Rules.rope, (70_000, -5, 759_250_125, -759_250_125)));
        keep("activate", abi.encodeCall(Rules.activate, (70_000, -90_000, 12)));
        keep("quantise", abi.encodeCall(Rules.quantise, (fixedLeaf)));
        keep("total", abi.encodeCall(Rules.total, (words, 32)));
        keep("sumOfSquares", abi.encodeCall(Rules.sumOfSquares, (fixedLeaf, 32, 8)));
        keep("inverseRoot", abi.encodeCall(Rules.inverseRoot, (1 << 40, 896, 42_950, 0)));
        keep("norm", abi.encodeCall(Rules.norm, (1 << 20, 4096, 0, 1_500_000_000, 20, 12)));
        keep("chunk", abi.encodeCall(Rules.chunk, (weights(1), activations(2))));
        keep("chunkOfRecords", abi.encodeCall(Rules.chunkOfRecords, (activations(1), activations(2))));
        keep("weightSum", abi.encodeCall(Rules.weightSum, (fixedLeaf, 32, type(int32).max)));
        keep("blockShift", abi.encodeCall(Rules.blockShift, (b, scales)));
        keep("blockSum", abi.encodeCall(Rules.blockSum, (b, 22, values)));
        keep("attend", abi.encodeCall(Rules.attend, (noise(512, 9), 1 << 30, 12, 12)));
        keep("adjust", abi.encodeCall(Rules.adjust, (5, Penalties(85_197, 3, 4), Hits(1, 2), 7)));
        keep("bestKey", abi.encodeCall(Rules.bestKey, (fixedLeaf, 32, 64)));
        keep("rank", abi.encodeCall(Rules.rank, (fixedLeaf, 32, 0)));
        keep("mass", abi.encodeCall(Rules.mass, (fixedLeaf, 32, kept)));
        keep("draw", abi.encodeCall(Rules.draw, (words, 32, 5)));
        keep("state, width 896", abi.encodeCall(Rules.state, (bytes32(uint256(1)), 7, noise(7 * 136, 9))));
    }

    /// Keeps the execution of one call.
    function keep(string memory name, bytes memory call) private {
        uint256 execution = new Meter().measure(address(rules), call);
        vm.snapshotValue("Rules", string.concat(name, ", execution"), execution);
        assertLe(execution, 60_000, name);
    }
}

/// @notice Reads how much gas a call takes, the callee's code being warm.
contract Meter {
    function measure(address callee, bytes calldata call) external view returns (uint256) {
        bytes memory data = call;
        (bool done,) = callee.staticcall(data);
        require(done);
        uint256 before = gasleft();
        assembly ("memory-safe") {
            done := staticcall(gas(), callee, add(data, 32), mload(data), 0, 0)
        }
        return before - gasleft();
    }
}
