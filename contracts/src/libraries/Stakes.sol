// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @notice Stake on its way out.
struct Unbonding {
    /// Base units of ASY.
    uint128 amount;
    /// When it is due, unix seconds.
    uint64 release;
}

/// @notice What one provider has at stake.
/// @dev Invariant: `unbonding` is the sum of the queue, and bonded + unbonding is what the contract holds for it.
struct Stake {
    uint128 bonded;
    uint128 unbonding;
    Unbonding[] queue;
}

/// @notice The arithmetic of stakes: in, on the way out, out, and taken.
/// @dev Holds no money and asks nobody; whoever calls moves the tokens that these functions account for.
library Stakes {
    using SafeCast for uint256;

    /// The amount is zero.
    error NoAmount();
    /// More was asked for than is bonded.
    error Overdrawn(uint256 found, uint256 bonded);
    /// So many amounts may be on their way out at once; withdraw what is due first.
    error QueueFull(uint256 most);
    /// Nothing is due before `next`; zero if nothing is on its way out.
    error NothingDue(uint256 next);

    /// Amounts on their way out at once. A slash visits all of them, so this bounds its gas.
    uint256 internal constant QUEUE_MAX = 16;
    /// Basis points in a whole.
    uint256 internal constant WHOLE = 10_000;

    /// @notice Adds `amount` to what is bonded.
    function bond(Stake storage stake, uint128 amount) internal {
        require(amount != 0, NoAmount());
        stake.bonded += amount;
    }

    /// @notice Sends `amount` of what is bonded on its way out, due at `release`.
    function unbond(Stake storage stake, uint128 amount, uint256 release) internal {
        require(amount != 0, NoAmount());
        require(amount <= stake.bonded, Overdrawn(amount, stake.bonded));
        require(stake.queue.length < QUEUE_MAX, QueueFull(QUEUE_MAX));
        stake.bonded -= amount;
        stake.unbonding += amount;
        stake.queue.push(Unbonding(amount, release.toUint64()));
    }

    /// @notice Takes all that is due at `time` off the queue; the rest keeps its order.
    function withdraw(Stake storage stake, uint256 time) internal returns (uint128 due) {
        Unbonding[] storage queue = stake.queue;
        uint256 length = queue.length;
        uint256 kept = 0;
        uint256 next = type(uint256).max;
        for (uint256 i = 0; i < length; i++) {
            Unbonding memory entry = queue[i];
            if (entry.release <= time) {
                due += entry.amount;
            } else {
                if (entry.release < next) next = entry.release;
                if (kept != i) queue[kept] = entry;
                kept++;
            }
        }
        require(due != 0, NothingDue(length == 0 ? 0 : next));
        for (uint256 i = kept; i < length; i++) {
            queue.pop();
        }
        stake.unbonding -= due;
    }

    /// @notice Takes `bps` of what is bonded and of every amount on its way out, due or not; each part rounded
    /// down, so a part of less than 10,000 / bps units loses nothing.
    /// @dev `bps` is at most `WHOLE`.
    function slashDown(Stake storage stake, uint256 bps) internal returns (uint128 taken) {
        uint128 fromBonded = shareDown(stake.bonded, bps);
        uint128 fromUnbonding = 0;
        Unbonding[] storage queue = stake.queue;
        uint256 length = queue.length;
        for (uint256 i = 0; i < length; i++) {
            uint128 part = shareDown(queue[i].amount, bps);
            queue[i].amount -= part;
            fromUnbonding += part;
        }
        stake.bonded -= fromBonded;
        stake.unbonding -= fromUnbonding;
        return fromBonded + fromUnbonding;
    }

    /// @notice `bps` of `amount`, rounded down; `bps` is at most `WHOLE`.
    function shareDown(uint128 amount, uint256 bps) internal pure returns (uint128) {
        return (uint256(amount) * bps / WHOLE).toUint128();
    }
}
