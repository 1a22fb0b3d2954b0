// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, Quantity} from "./Leaves.sol";
import {Norms} from "./Norms.sol";
import {Powers} from "./Powers.sol";
import {Rounding} from "./Rounding.sol";

/// @notice Rules of single elements: embedding, residual sums, turns, activation, quantisation.
library Elements {
    /// @notice EMBED: sat32(rsh(q * sw, clamp(e - fraction, -40, 62))) of a column of a leaf of weights.
    function embed(bytes calldata weights, uint256 column, uint256 fraction) internal pure returns (int32) {
        Leaves.checkWeights(weights);
        Leaves.check(Quantity.Column, int256(column), 0, 127);
        int256 shift = -Rounding.checkFraction(fraction) + int8(uint8(weights[1]));
        if (shift < -40) shift = -40;
        if (shift > 62) shift = 62;
        uint256 group = column / 32;
        uint256 within = column % 32;
        uint256 scale = uint16(bytes2(weights[2 + 2 * group:]));
        // The eight lanes of a group are reversed.
        uint8 biased = uint8(weights[10 + 32 * group + (7 - within / 4) * 4 + within % 4]);
        int256 q = int256(uint256(biased)) - 128;
        return Rounding.sat32(Rounding.rsh(q * int256(scale), shift));
    }

    /// @notice RES: sat32(x + y).
    function add(int256 x, int256 y) internal pure returns (int32) {
        return Rounding.sat32(x + y);
    }

    /// @notice ROPE: sat32(rsh(a*cos - b*sin, 30)) and sat32(rsh(b*cos + a*sin, 30)).
    function rope(int256 a, int256 b, int256 cos, int256 sin) internal pure returns (int32, int32) {
        Leaves.check(Quantity.Angle, cos, -(1 << 30), 1 << 30);
        Leaves.check(Quantity.Angle, sin, -(1 << 30), 1 << 30);
        return
            (Rounding.sat32(Rounding.rsh(a * cos - b * sin, 30)), Rounding.sat32(Rounding.rsh(b * cos + a * sin, 30)));
    }

    /// @notice ACT: sat32(rsh(sat32(rsh(g * sigmoid(g), 24)) * u, 32 - fraction)) for gate and up in Fx<16>.
    function activate(int256 gate, int256 up, uint256 fraction) internal pure returns (int32) {
        int256 right = 32 - Rounding.checkFraction(fraction);
        int256 u = Rounding.rsh(int256(Norms.abs(gate)) * Powers.LOG2E_Q30, 30);
        uint256 power = Powers.exp2neg(Powers.load(), uint256(u), 24);
        int256 sigmoid = int256((1 << 48) / ((1 << 24) + power));
        if (gate < 0) sigmoid = (1 << 24) - sigmoid;
        int256 silu = Rounding.sat32(Rounding.rsh(gate * sigmoid, 24));
        return Rounding.sat32(Rounding.rsh(silu * up, right));
    }

    /// @notice AQ: the scale clamp(ceil(max|x| / 127), 1, 32767) and the numbers min(127, floor((2|x| + scale) /
    /// (2 * scale))) with the sign of x, as bytes q ^ 0x80 in order.
    function quantise(bytes calldata x) internal pure returns (uint16 scale, bytes32 quants) {
        uint256 s = (Norms.largestMagnitude(x, 32) + 126) / 127;
        if (s == 0) s = 1;
        if (s > 32_767) s = 32_767;
        uint256 word;
        unchecked {
            for (uint256 i; i < 32; ++i) {
                int256 v = Leaves.fixedAt(x, i);
                uint256 magnitude = (2 * Norms.abs(v) + s) / (2 * s);
                if (magnitude > 127) magnitude = 127;
                word = (word << 8) | (v < 0 ? 128 - magnitude : 128 + magnitude);
            }
        }
        return (uint16(s), bytes32(word));
    }
}
