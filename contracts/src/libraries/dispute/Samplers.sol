// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Extent} from "../judge/Layouts.sol";
import {Facts} from "./Exhibits.sol";

/// @notice Which parts of the sampler an order uses.
library Samplers {
    /// @notice Whether penalties or biases change the logits.
    function adjusts(Facts memory facts) internal pure returns (bool) {
        return facts.rep_q16 != 1 << 16 || facts.freq_q16 != 0 || facts.pres_q16 != 0 || facts.bias != 0;
    }

    /// @notice Whether top-k leaves something out.
    function usesTopK(Facts memory facts) internal pure returns (bool) {
        return facts.topK != 0 && facts.topK < facts.spec.vocab;
    }

    /// @notice Whether top-p leaves something out.
    function usesTopP(Facts memory facts) internal pure returns (bool) {
        return facts.topP_q16 < 1 << 16;
    }

    /// @notice The sizes that decide how leaves lie at a position.
    function extent(Facts memory facts, uint256 position) internal pure returns (Extent memory) {
        return Extent({
            heads: facts.spec.heads,
            kvHeads: facts.spec.kvHeads,
            headDim: facts.spec.headDim,
            vocab: facts.spec.vocab,
            attended: uint32(position + 1),
            answers: position + 1 >= facts.promptTokens,
            adjusted: adjusts(facts),
            greedy: facts.invT_q16 == 0,
            topK: usesTopK(facts),
            topP: usesTopP(facts)
        });
    }
}
