// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Terms} from "../interfaces/IChannels.sol";
import {ChannelWords} from "./ChannelWords.sol";

/// @notice Claims rows of a packed batch: finds each one's channel, judges its signature, moves its claimed total.
/// @dev Assembly, because of the 10,000 gas of a row only hundreds are not the chain's own price for calldata, state
/// and recovery: what is equal in all rows' hashes is laid out in memory once per batch, and the loop stays in one
/// place until a row is bad. The plain definition is `Channels.claim`; a test holds both against each other.
library PackedVouchers {
    /// payer (20) ‖ payerAuthorizer (20) ‖ maxClaimableAmount (16) ‖ r (32) ‖ vs (32)
    uint256 internal constant ROW = 120;
    /// What a claim is noted as: channel id (32) ‖ new total (16).
    uint256 internal constant NOTE = 48;

    /// Why a run of rows ended.
    uint256 internal constant FINISHED = 0;
    uint256 internal constant ABOVE_BALANCE = 1;
    uint256 internal constant BAD_SIGNATURE = 2;
    uint256 internal constant ABOVE_ROOM = 3;

    /// Signatures above it have a twin below it, and are refused as everywhere else.
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    // Layout of the scratch space, in bytes from its start.
    // 0: input of the config's hash (8 words) · 256: 0x1901 ‖ domain ‖ struct hash (66 bytes, padded to 96)
    // 352: input of the voucher's hash (3 words) · 448: input of the recovery (4 words)
    // 576: slot of the states · 608: end of the rows · 640: where the next note goes · 672: room
    uint256 private constant SIZE = 704;

    /// @notice Memory with everything in place that is equal for all rows, and the counters of the run.
    /// @param states Slot of the mapping from channel id to `totalClaimed ‖ balance`, 16 bytes each.
    /// @param room The most that all rows together may add.
    /// @param done Where the claims are noted; room for all rows and 16 bytes more.
    function prepare(
        bytes32 domain,
        uint256 states,
        uint256 room,
        Terms calldata terms,
        bytes calldata rows,
        bytes memory done
    ) internal pure returns (uint256 scratch) {
        bytes32 configType = ChannelWords.CHANNEL_CONFIG;
        bytes32 voucherType = ChannelWords.VOUCHER;
        assembly ("memory-safe") {
            scratch := mload(0x40)
            mstore(0x40, add(scratch, SIZE))
            mstore(scratch, configType)
            mstore(add(scratch, 256), shl(240, 0x1901))
            mstore(add(scratch, 258), domain)
            mstore(add(scratch, 352), voucherType)
            mstore(add(scratch, 576), states)
            mstore(add(scratch, 608), add(rows.offset, rows.length))
            mstore(add(scratch, 640), add(done, 32))
            mstore(add(scratch, 672), room)
        }
        // Read as values, so that the compiler refuses dirty upper bits.
        (address receiver, address receiverAuthorizer, address token) =
            (terms.receiver, terms.receiverAuthorizer, terms.token);
        (uint40 withdrawDelay, bytes32 salt) = (terms.withdrawDelay, terms.salt);
        assembly ("memory-safe") {
            mstore(add(scratch, 96), receiver)
            mstore(add(scratch, 128), receiverAuthorizer)
            mstore(add(scratch, 160), token)
            mstore(add(scratch, 192), withdrawDelay)
            mstore(add(scratch, 224), salt)
        }
    }

    /// @notice Claims good rows from `row` (an offset in calldata) on, until the end or a bad one.
    /// @return end The bad row, or the end of the rows.
    /// @return id The bad row's channel.
    /// @return outcome One of the constants above.
    function run(uint256 scratch, uint256 row) internal returns (uint256 end, bytes32 id, uint256 outcome) {
        assembly ("memory-safe") {
            for {} lt(row, mload(add(scratch, 608))) { row := add(row, ROW) } {
                {
                    let payer := shr(96, calldataload(row))
                    // Zero stands for the payer: rows are signed by keys, so no channel that asks a contract has one.
                    let authorizer := shr(96, calldataload(add(row, 20)))
                    if iszero(authorizer) { authorizer := payer }
                    mstore(add(scratch, 32), payer)
                    mstore(add(scratch, 64), authorizer)
                }
                mstore(add(scratch, 290), keccak256(scratch, 256))
                id := keccak256(add(scratch, 256), 66)

                mstore(0, id)
                mstore(32, mload(add(scratch, 576)))
                let slot := keccak256(0, 64)
                let state := sload(slot)
                let total := shr(128, calldataload(add(row, 40)))

                // A row that says nothing new is good.
                if iszero(gt(total, shr(128, state))) { continue }
                if gt(total, shr(128, shl(128, state))) {
                    outcome := ABOVE_BALANCE
                    break
                }

                mstore(add(scratch, 384), id)
                mstore(add(scratch, 416), total)
                mstore(add(scratch, 290), keccak256(add(scratch, 352), 96))
                mstore(add(scratch, 448), keccak256(add(scratch, 256), 66))
                {
                    let vs := calldataload(add(row, 88))
                    mstore(add(scratch, 480), add(27, shr(255, vs)))
                    mstore(add(scratch, 512), calldataload(add(row, 56)))
                    mstore(add(scratch, 544), shr(1, shl(1, vs)))
                }
                // A failed recovery returns nothing and leaves the zero, which no authorizer is: a payer of zero
                // cannot deposit, so such a row was above its balance.
                mstore(0, 0)
                pop(staticcall(gas(), 1, add(scratch, 448), 128, 0, 32))
                if or(xor(mload(0), mload(add(scratch, 64))), gt(mload(add(scratch, 544)), HALF_ORDER)) {
                    outcome := BAD_SIGNATURE
                    break
                }
                {
                    let more := sub(total, shr(128, state))
                    let room := mload(add(scratch, 672))
                    if gt(more, room) {
                        outcome := ABOVE_ROOM
                        break
                    }
                    mstore(add(scratch, 672), sub(room, more))
                }
                // The lower half is the balance, which stays.
                sstore(slot, or(shl(128, total), shr(128, shl(128, state))))
                let place := mload(add(scratch, 640))
                mstore(place, id)
                mstore(add(place, 32), shl(128, total))
                mstore(add(scratch, 640), add(place, NOTE))
            }
            end := row
        }
    }

    /// @notice Ends a batch: cuts `done` to what was noted and says what room is left.
    function finish(uint256 scratch, bytes memory done) internal pure returns (uint256 room) {
        assembly ("memory-safe") {
            mstore(done, sub(mload(add(scratch, 640)), add(done, 32)))
            room := mload(add(scratch, 672))
        }
    }
}
