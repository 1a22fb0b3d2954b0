// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice A number that a rule reads and that no honest trace holds outside its bounds.
/// @dev The same list, in the same order, as in crates/evidence/src/op/error.rs.
enum Quantity {
    Fraction,
    Count,
    Column,
    Shift,
    NormShift,
    Mean,
    Factor,
    FactorShift,
    Angle,
    ScoreFactor,
    Score,
    BlockShift,
    Weights,
    Repetition,
    Logit,
    LeastWeight,
    Mark,
    Width,
    Token,
    Kind
}

error BadLength(uint256 found, uint256 expected);
error BadKind(uint256 found);
error BadScale(uint256 group, uint256 found);
error BadQuant(uint256 group);
error OutOfBounds(Quantity what, int256 found);

/// @notice Leaves of a trace as a judge reads them: lengths, scales and numbers checked.
/// @dev Formats: docs/protocol/commitments.md and trace.md. A number is stored as q ^ 0x80, so -128 is a zero byte.
library Leaves {
    /// Bytes of each kind of leaf.
    uint256 internal constant ACTIVATION = 136;
    uint256 internal constant WEIGHT = 138;
    uint256 internal constant FIXED = 128;
    uint256 internal constant WIDE = 256;
    /// The kind of weight leaves.
    uint256 private constant W8 = 1;
    /// Bytes before the numbers.
    uint256 private constant ACTIVATION_HEAD = 8;
    uint256 private constant WEIGHT_HEAD = 10;

    uint256 private constant ONES = 0x0101010101010101010101010101010101010101010101010101010101010101;
    uint256 private constant TOPS = 0x8080808080808080808080808080808080808080808080808080808080808080;
    uint256 private constant SCALE_ONES = 0x0001000100010001;
    uint256 private constant SCALE_TOPS = 0x8000800080008000;

    /// @notice Refuses what is no leaf of activations.
    function checkActivation(bytes calldata leaf) internal pure {
        checkLength(leaf, ACTIVATION);
        uint256 scales = uint256(uint64(bytes8(leaf)));
        // A lane is zero where subtracting one borrows and its own top bit is clear.
        unchecked {
            if (scales & SCALE_TOPS != 0 || (scales - SCALE_ONES) & ~scales & SCALE_TOPS != 0) {
                for (uint256 group; group < 4; ++group) {
                    uint256 scale = (scales >> (48 - 16 * group)) & 0xffff;
                    require(scale != 0 && scale < 1 << 15, BadScale(group, scale));
                }
            }
        }
        _checkQuants(leaf, ACTIVATION_HEAD);
    }

    /// @notice Refuses what is no leaf of weights.
    function checkWeights(bytes calldata leaf) internal pure {
        checkLength(leaf, WEIGHT);
        uint256 kind = uint8(leaf[0]);
        require(kind == W8, BadKind(kind));
        uint256 scales;
        assembly ("memory-safe") {
            scales := shr(192, calldataload(add(leaf.offset, 2)))
        }
        unchecked {
            if ((scales - SCALE_ONES) & ~scales & SCALE_TOPS != 0) {
                for (uint256 group; group < 4; ++group) {
                    uint256 scale = (scales >> (48 - 16 * group)) & 0xffff;
                    require(scale != 0, BadScale(group, scale));
                }
            }
        }
        _checkQuants(leaf, WEIGHT_HEAD);
    }

    /// @notice Refuses a leaf that has not as many bytes as its format.
    function checkLength(bytes calldata leaf, uint256 expected) internal pure {
        require(leaf.length == expected, BadLength(leaf.length, expected));
    }

    /// @notice Refuses to read other than 1 to `most` elements.
    function checkCount(uint256 count, uint256 most) internal pure {
        require(count != 0 && count <= most, OutOfBounds(Quantity.Count, int256(count)));
    }

    /// @notice Refuses numbers outside `least` to `most`.
    function check(Quantity what, int256 found, int256 least, int256 most) internal pure {
        require(least <= found && found <= most, OutOfBounds(what, found));
    }

    /// @notice Number `index` of a leaf of fixed-point numbers, whose length was checked.
    function fixedAt(bytes calldata leaf, uint256 index) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := signextend(3, shr(224, calldataload(add(leaf.offset, shl(2, index)))))
        }
    }

    /// @notice Word `index` of a leaf of words, whose length was checked; unsigned.
    function wideAt(bytes calldata leaf, uint256 index) internal pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := shr(192, calldataload(add(leaf.offset, shl(3, index))))
        }
    }

    /// @notice The sum of a revealed list of signed 64-bit numbers.
    function sum(bytes calldata list) internal pure returns (int256 total) {
        require(list.length % 8 == 0, BadLength(list.length, list.length - list.length % 8));
        assembly ("memory-safe") {
            let end := add(list.offset, list.length)
            for { let at := list.offset } lt(at, end) { at := add(at, 8) } {
                total := add(total, signextend(7, shr(192, calldataload(at))))
            }
        }
    }

    /// Refuses a leaf that holds -128 in the 128 bytes after its head.
    function _checkQuants(bytes calldata leaf, uint256 head) private pure {
        uint256 zeros;
        assembly ("memory-safe") {
            let at := add(leaf.offset, head)
            for { let end := add(at, 128) } lt(at, end) { at := add(at, 32) } {
                let word := calldataload(at)
                zeros := or(zeros, and(and(sub(word, ONES), not(word)), TOPS))
            }
        }
        if (zeros == 0) return;
        for (uint256 at;; ++at) {
            require(leaf[head + at] != 0, BadQuant(at / 32));
        }
    }
}
