// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What {Products} computes eight products at a time, one by one.
library Plain {
    function chunk(bytes memory weights, bytes memory x) internal pure returns (int256 acc) {
        for (uint256 group; group < 4; ++group) {
            int256 dot;
            for (uint256 k; k < 32; ++k) {
                uint256 lane = 7 - k / 4;
                dot += quant(weights, 10 + 32 * group + 4 * lane + k % 4) * quant(x, 8 + 32 * group + k);
            }
            acc += dot * scale(weights, 2 + 2 * group) * scale(x, 2 * group);
        }
    }

    function chunkOfRecords(bytes memory query, bytes memory key) internal pure returns (int256 acc) {
        for (uint256 group; group < 4; ++group) {
            int256 dot;
            for (uint256 k; k < 32; ++k) {
                dot += quant(query, 8 + 32 * group + k) * quant(key, 8 + 32 * group + k);
            }
            acc += dot * scale(query, 2 * group) * scale(key, 2 * group);
        }
    }

    function quant(bytes memory leaf, uint256 at) private pure returns (int256) {
        return int8(uint8(leaf[at]) ^ 0x80);
    }

    function scale(bytes memory leaf, uint256 at) private pure returns (int256) {
        return int256((uint256(uint8(leaf[at])) << 8) + uint8(leaf[at + 1]));
    }
}
