// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, OutOfBounds, Quantity} from "./Leaves.sol";
import {Powers} from "./Powers.sol";
import {Rounding} from "./Rounding.sol";

/// @notice What an order's sampler takes from the logits of tokens that were seen.
struct Penalties {
    uint32 rep_q16;
    int32 freq_q16;
    int32 pres_q16;
}

/// @notice How often a token occurs among the inputs so far.
struct Hits {
    uint32 prompt;
    uint32 output;
}

/// @notice Which tokens a mass counts.
struct Kept {
    uint32 invT_q16;
    /// The largest logit.
    int32 best;
    /// The least heat that is kept: the largest of the thresholds in force.
    int64 leastHeat;
    /// The least weight that is kept, Q30: minP * 2^14.
    uint32 leastWeight;
}

/// @notice Rules of the sampler: penalties, thresholds, masses and the draw.
library Sampling {
    /// Fraction bits of a token's weight.
    uint256 private constant WEIGHT_BITS = 30;

    /// @notice SMPL, an adjusted logit: repetition, frequency and presence penalties if the token was seen, then the
    /// bias, clamped to 32 bits after each.
    function adjust(int256 logit, Penalties memory penalties, Hits memory hits, int256 bias)
        internal
        pure
        returns (int32)
    {
        int256 rep = int256(uint256(penalties.rep_q16));
        Leaves.check(Quantity.Repetition, rep, 1 << 12, 1 << 20);
        if (hits.prompt > 0 || hits.output > 0) {
            logit = Rounding.sat32(logit > 0 ? (logit << 16) / rep : Rounding.rsh(logit * rep, 16));
            logit = Rounding.sat32(logit - int256(penalties.freq_q16) * int256(uint256(hits.output)));
        }
        if (hits.output > 0) logit = Rounding.sat32(logit - penalties.pres_q16);
        return Rounding.sat32(logit + bias);
    }

    /// @notice SMPL, tree of keys: the largest l_i * 2^32 + (2^32 - 1 - i) of the first `count` logits, the first of
    /// which is that of token `first`.
    function bestKey(bytes calldata logits, uint256 count, uint256 first) internal pure returns (int64 best) {
        _check(logits, count);
        Leaves.check(Quantity.Token, int256(first), 0, (1 << 31) - 32);
        best = type(int64).min;
        for (uint256 i; i < count; ++i) {
            int64 key = int64((Leaves.fixedAt(logits, i) << 32) + int256(type(uint32).max - first - i));
            if (key > best) best = key;
        }
    }

    /// @notice The token and the logit that a key stands for.
    function keyToken(int64 key) internal pure returns (uint32 token, int32 logit) {
        return (type(uint32).max - uint32(uint64(key)), int32(key >> 32));
    }

    /// @notice SMPL, tree of ranks: (number of logits above the threshold) * 2^32 + (number from it on).
    function rank(bytes calldata logits, uint256 count, int256 threshold) internal pure returns (uint64 ranks) {
        _check(logits, count);
        for (uint256 i; i < count; ++i) {
            int256 logit = Leaves.fixedAt(logits, i);
            if (logit > threshold) ranks += 1 << 32;
            if (logit >= threshold) ++ranks;
        }
    }

    /// @notice SMPL, check: whether the threshold of these ranks is the topK-th largest logit.
    function isKth(uint64 ranks, uint32 topK) internal pure returns (bool) {
        return ranks >> 32 < topK && topK <= uint32(ranks);
    }

    /// @notice The heat of a logit: rsh(logit * invT, 16).
    function heat(int256 logit, uint256 invT) internal pure returns (int64) {
        return int64(Rounding.rsh(logit * int256(invT), 16));
    }

    /// @notice SMPL, tree of masses: the sum of the weights exp2neg(z_best - z, 30) of what is kept of the first
    /// `count` logits.
    function mass(bytes calldata logits, uint256 count, Kept memory kept) internal pure returns (uint64 sum) {
        _checkKept(logits, count, kept);
        uint256 tables = Powers.load();
        for (uint256 i; i < count; ++i) {
            sum += uint64(_weight(tables, Leaves.fixedAt(logits, i), kept));
        }
    }

    /// @notice SMPL, check: above * 2^16 < topP * all <= from * 2^16.
    function isNucleus(uint256 above, uint256 from, uint256 all, uint256 topP) internal pure returns (bool) {
        uint256 wanted = topP * all;
        return above << 16 < wanted && wanted <= from << 16;
    }

    /// @notice TOKEN, where the draw falls: floor(uniform * mass / 2^64).
    function mark(uint256 uniform, uint256 mass_) internal pure returns (uint64) {
        return uint64((uniform * mass_) >> 64);
    }

    /// @notice TOKEN, one level down: the first of the first `count` words at which their running sum exceeds the
    /// mark, and what is left of the mark before it.
    function draw(bytes calldata words, uint256 count, uint256 mark_)
        internal
        pure
        returns (uint32 index, uint64 rest)
    {
        Leaves.checkLength(words, Leaves.WIDE);
        Leaves.checkCount(count, 32);
        uint256 left = mark_;
        for (uint256 i; i < count; ++i) {
            uint256 word = Leaves.wideAt(words, i);
            if (left < word) return (uint32(i), uint64(left));
            left -= word;
        }
        revert OutOfBounds(Quantity.Mark, int256(mark_));
    }

    /// @notice TOKEN, the last level: as {draw}, over the weights of what is kept of a leaf of logits.
    function drawToken(bytes calldata logits, uint256 count, Kept memory kept, uint256 mark_)
        internal
        pure
        returns (uint32)
    {
        _checkKept(logits, count, kept);
        uint256 tables = Powers.load();
        // Every logit is looked at, so that a leaf is refused or not whatever the mark.
        uint256 found = count;
        uint256 left = mark_;
        for (uint256 i; i < count; ++i) {
            uint256 word = _weight(tables, Leaves.fixedAt(logits, i), kept);
            if (found == count) {
                if (left < word) found = i;
                else left -= word;
            }
        }
        require(found < count, OutOfBounds(Quantity.Mark, int256(mark_)));
        return uint32(found);
    }

    function _check(bytes calldata logits, uint256 count) private pure {
        Leaves.checkLength(logits, Leaves.FIXED);
        Leaves.checkCount(count, 32);
    }

    function _checkKept(bytes calldata logits, uint256 count, Kept memory kept) private pure {
        _check(logits, count);
        Leaves.check(Quantity.LeastWeight, int256(uint256(kept.leastWeight)), 0, 1 << 30);
    }

    /// The weight of a logit, zero if it is not kept.
    function _weight(uint256 tables, int256 logit, Kept memory kept) private pure returns (uint256 weight) {
        require(logit <= kept.best, OutOfBounds(Quantity.Logit, logit));
        int256 z = heat(logit, kept.invT_q16);
        if (z < kept.leastHeat) return 0;
        unchecked {
            weight = Powers.exp2neg(tables, uint256(heat(kept.best, kept.invT_q16) - z), WEIGHT_BITS);
        }
        if (weight < kept.leastWeight) return 0;
    }
}
