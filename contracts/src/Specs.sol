// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Spec} from "./libraries/dispute/Exhibits.sol";
import {Manifest, Shape, Tensor} from "./types/Manifest.sol";

/// @notice What judges need of a model's manifest, worked out once and kept under the model's id.
/// @dev A function of the manifest alone, so anyone may file one, and nobody can file a wrong one. Published or not
/// makes no difference: an order may name any model. Trust: none; that the weights under a root are what a name
/// promises, and that a program is the one of its family, is for whoever sells or buys answers of it to check.
contract Specs {
    /// The manifest is of a version or family that no judge knows.
    error Unknown(uint256 version, uint256 family);
    /// A size that no judge can work with.
    error BadShape(bytes32 what, uint256 found);
    /// Tensor `index` does not begin where the one before it ends.
    error BadTensor(uint256 index, uint256 found, uint256 expected);
    /// Nobody filed this model.
    error NotFiled(bytes32 model);

    /// A model can be judged from now on.
    event Filed(bytes32 indexed model, Spec spec);

    uint256 private constant VERSION = 1;
    uint256 private constant LLAMA = 0;
    /// Steps of a llama: 27 in each layer, and embedding, last norm, logits and choice.
    uint256 private constant STEPS_A_LAYER = 27;
    uint256 private constant OTHER_STEPS = 7;
    /// What {Norms} and {Attention} are made for.
    uint256 private constant WIDTH_MAX = 1 << 15;
    uint256 private constant SIZE_MAX = 1 << 24;

    mapping(bytes32 model => Spec) private _specs;

    /// @notice Files a model; a second time changes nothing.
    /// @return model Its id.
    function file(Manifest calldata manifest) external returns (bytes32 model) {
        require(manifest.version == VERSION && manifest.family == LLAMA, Unknown(manifest.version, manifest.family));
        model = keccak256(abi.encode(manifest));
        Shape calldata shape = manifest.shape;
        _check(shape);
        Spec memory spec;
        spec.weights = manifest.parts.weights;
        spec.program = manifest.parts.program;
        spec.rope = manifest.parts.rope;
        (spec.tensors, spec.weightLeaves) = _table(manifest.tensors);
        bytes memory eos;
        for (uint256 i; i < manifest.eos.length; ++i) {
            eos = abi.encodePacked(eos, manifest.eos[i]);
        }
        spec.eos = keccak256(eos);
        spec.tensorCount = uint32(manifest.tensors.length);
        spec.steps = uint32(STEPS_A_LAYER * shape.layers + OTHER_STEPS);
        (spec.width, spec.vocab, spec.context) = (shape.width, shape.vocab, shape.context);
        (spec.heads, spec.kvHeads, spec.headDim) = (shape.heads, shape.kvHeads, shape.headDim);
        spec.attentionQ30 = manifest.arithmetic.attentionQ30;
        spec.normEps = manifest.arithmetic.normEps;
        spec.halves = manifest.arithmetic.ropePairing == 0;
        _specs[model] = spec;
        emit Filed(model, spec);
    }

    /// @notice What was filed; fails for a model that nobody did.
    function specOf(bytes32 model) external view returns (Spec memory spec) {
        spec = _specs[model];
        require(spec.steps != 0, NotFiled(model));
    }

    /// Heads of whole groups, shared out evenly; nothing that a judge divides by is zero, nothing overflows.
    function _check(Shape calldata shape) private pure {
        _require("width", shape.width, shape.width != 0 && shape.width <= WIDTH_MAX);
        _require("layers", shape.layers, shape.layers != 0 && shape.layers <= 4096);
        _require("heads", shape.heads, shape.heads != 0 && shape.heads <= 65_536);
        _require("key and value heads", shape.kvHeads, shape.kvHeads != 0 && shape.heads % shape.kvHeads == 0);
        _require("head", shape.headDim, shape.headDim != 0 && shape.headDim % 32 == 0 && shape.headDim <= 65_536);
        _require("vocabulary", shape.vocab, shape.vocab != 0 && shape.vocab <= SIZE_MAX);
        _require("context", shape.context, shape.context != 0 && shape.context <= SIZE_MAX);
    }

    function _require(bytes32 what, uint256 found, bool holds) private pure {
        require(holds, BadShape(what, found));
    }

    /// Root of the tensor table, and leaves of all tensors.
    function _table(Tensor[] calldata tensors) private pure returns (bytes32 root, uint64 leaves) {
        uint256 count = tensors.length;
        uint256 size = 1;
        while (size < count) size *= 2;
        bytes32[] memory level = new bytes32[](size);
        for (uint256 i; i < count; ++i) {
            Tensor calldata tensor = tensors[i];
            require(tensor.leaf == leaves, BadTensor(i, tensor.leaf, leaves));
            uint256 each = tensor.kind == 1 ? 128 : 32;
            leaves += uint64(tensor.rows * ((tensor.columns + each - 1) / each));
            level[i] = keccak256(abi.encodePacked(bytes1(0), abi.encode(tensor)));
        }
        for (; size > 1; size /= 2) {
            for (uint256 i; i < size / 2; ++i) {
                level[i] = keccak256(abi.encodePacked(level[2 * i], level[2 * i + 1]));
            }
        }
        root = level[0];
    }
}
