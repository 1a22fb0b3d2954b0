// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ChannelConfig, IChannels, Terms, VoucherClaim} from "./interfaces/IChannels.sol";
import {IDepositCollector} from "./interfaces/IDepositCollector.sol";
import {ChannelWords} from "./libraries/ChannelWords.sol";
import {PackedVouchers} from "./libraries/PackedVouchers.sol";

/// @title Channels
/// @notice Payment channels in any ERC-20: see `IChannels` for what may be relied on.
/// @dev A claim touches two words per row and no token, so no row can stop another. Tokens move only in `deposit`,
/// `settle`, `refund` and `finalizeWithdraw`, each for one token and after its effects; `deposit` measures what
/// arrives and writes after it, under the guard that all entry points share.
contract Channels is IChannels, EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice Bounds of a channel's `withdrawDelay`, seconds.
    uint40 public constant MIN_WITHDRAW_DELAY = 15 minutes;
    uint40 public constant MAX_WITHDRAW_DELAY = 30 days;

    /// @notice Gas that a payer's contract may use to judge one signature. Bounded, so that a payer cannot burn a
    /// whole batch's; a P-256 check written in Solidity fits.
    uint256 public constant SIGNATURE_GAS = 400_000;

    /// @notice The EIP-712 type hash of a config, for clients that compute ids themselves.
    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = ChannelWords.CHANNEL_CONFIG;

    struct ChannelState {
        uint128 balance;
        uint128 totalClaimed;
    }

    struct WithdrawalState {
        uint128 amount;
        uint40 initiatedAt;
    }

    struct ReceiverState {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    /// @inheritdoc IChannels
    mapping(bytes32 channelId => ChannelState) public channels;
    /// @inheritdoc IChannels
    mapping(bytes32 channelId => uint256) public refundNonce;
    /// @inheritdoc IChannels
    mapping(bytes32 channelId => WithdrawalState) public pendingWithdrawals;
    /// @inheritdoc IChannels
    mapping(address receiver => mapping(address token => ReceiverState)) public receivers;

    constructor() EIP712("x402 Batch Settlement", "1") {}

    /// @inheritdoc IChannels
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData)
        external
        nonReentrant
    {
        _checkConfig(config);
        require(amount != 0, ZeroDeposit());
        require(collector != address(0), InvalidCollector());

        bytes32 id = getChannelId(config);
        uint256 before = IERC20(config.token).balanceOf(address(this));
        IDepositCollector(collector).collect(config.payer, config.token, amount, id, collectorData);
        uint256 present = IERC20(config.token).balanceOf(address(this));
        require(present > before, DepositCollectionFailed());

        ChannelState storage channel = channels[id];
        uint256 arrived = present - before;
        uint128 balance = channel.balance;
        require(arrived <= type(uint128).max - balance, DepositOverflow());
        channel.balance = balance + uint128(arrived);
        if (balance == 0 && channel.totalClaimed == 0) emit ChannelCreated(id, config);
        emit Deposited(id, msg.sender, uint128(arrived), balance + uint128(arrived));
    }

    /// @inheritdoc IChannels
    function claim(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        require(voucherClaims.length != 0, EmptyBatch());
        _claimAll(voucherClaims, address(0));
    }

    /// @inheritdoc IChannels
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature)
        external
        nonReentrant
    {
        require(voucherClaims.length != 0, EmptyBatch());
        address authorizer = voucherClaims[0].voucher.channel.receiverAuthorizer;
        bytes32 digest = getClaimBatchDigest(voucherClaims);
        require(
            SignatureChecker.isValidSignatureNowCalldata(authorizer, digest, authorizerSignature), InvalidSignature()
        );
        _claimAll(voucherClaims, authorizer);
    }

    /// @inheritdoc IChannels
    function claimPacked(Terms calldata terms, bytes calldata rows) external nonReentrant {
        require(_isReceiverSide(terms.receiver, terms.receiverAuthorizer), NotAuthorizedToClaim());
        uint256 count = rows.length / PackedVouchers.ROW;
        require(count != 0 && rows.length == count * PackedVouchers.ROW, MalformedRows(rows.length, PackedVouchers.ROW));
        ReceiverState storage receiver = receivers[terms.receiver][terms.token];
        uint128 room = type(uint128).max - receiver.totalClaimed;
        // The last note is written as two whole words, 16 bytes too many.
        bytes memory done = new bytes(count * PackedVouchers.NOTE + 16);
        uint256 states;
        assembly ("memory-safe") {
            states := channels.slot
        }
        uint256 scratch = PackedVouchers.prepare(_domainSeparatorV4(), states, room, terms, rows, done);
        _claimRows(scratch, rows);
        uint256 left = PackedVouchers.finish(scratch, done);
        if (left == room) return;
        receiver.totalClaimed += uint128(room - left);
        emit ClaimedPacked(terms.receiver, terms.token, msg.sender, done);
    }

    /// @inheritdoc IChannels
    function settle(address receiver, address token) external nonReentrant {
        ReceiverState storage state = receivers[receiver][token];
        uint128 claimed = state.totalClaimed;
        uint128 amount = claimed - state.totalSettled;
        if (amount == 0) return;
        state.totalSettled = claimed;
        emit Settled(receiver, token, msg.sender, amount);
        IERC20(token).safeTransfer(receiver, amount);
    }

    /// @inheritdoc IChannels
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(_isPayerSide(config), InvalidChannel());
        require(amount != 0, NothingToWithdraw());
        bytes32 id = getChannelId(config);
        WithdrawalState storage withdrawal = pendingWithdrawals[id];
        require(withdrawal.initiatedAt == 0, WithdrawalAlreadyPending());
        require(amount <= _unclaimed(id), WithdrawAmountExceedsAvailable());

        withdrawal.amount = amount;
        withdrawal.initiatedAt = uint40(block.timestamp);
        emit WithdrawInitiated(id, amount, uint40(block.timestamp) + config.withdrawDelay);
    }

    /// @inheritdoc IChannels
    function finalizeWithdraw(ChannelConfig calldata config) external nonReentrant {
        require(_isPayerSide(config), NotAuthorizedToFinalizeWithdraw());
        bytes32 id = getChannelId(config);
        WithdrawalState memory withdrawal = pendingWithdrawals[id];
        require(withdrawal.initiatedAt != 0, WithdrawalNotPending());
        require(block.timestamp >= uint256(withdrawal.initiatedAt) + config.withdrawDelay, WithdrawDelayNotElapsed());

        uint128 amount = _min(withdrawal.amount, _unclaimed(id));
        delete pendingWithdrawals[id];
        emit WithdrawFinalized(id, msg.sender, amount);
        _giveBack(id, config, amount);
    }

    /// @inheritdoc IChannels
    function refund(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        require(_isReceiverSide(config.receiver, config.receiverAuthorizer), NotAuthorizedToRefund());
        _refund(getChannelId(config), config, amount);
    }

    /// @inheritdoc IChannels
    function refundWithSignature(
        ChannelConfig calldata config,
        uint128 amount,
        uint256 nonce,
        bytes calldata receiverAuthorizerSignature
    ) external nonReentrant {
        bytes32 id = getChannelId(config);
        require(nonce == refundNonce[id], InvalidRefundNonce());
        bytes32 digest = getRefundDigest(id, nonce, amount);
        require(
            SignatureChecker.isValidSignatureNowCalldata(
                config.receiverAuthorizer, digest, receiverAuthorizerSignature
            ),
            InvalidSignature()
        );
        _refund(id, config, amount);
    }

    /// @inheritdoc IChannels
    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _hashTypedDataV4(ChannelWords.config(config));
    }

    /// @inheritdoc IChannels
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _hashTypedDataV4(ChannelWords.voucher(channelId, maxClaimableAmount));
    }

    /// @inheritdoc IChannels
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _hashTypedDataV4(ChannelWords.refund(channelId, nonce, amount));
    }

    /// @inheritdoc IChannels
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) public view returns (bytes32) {
        bytes32[] memory entries = new bytes32[](voucherClaims.length);
        for (uint256 i; i < entries.length; ++i) {
            VoucherClaim calldata row = voucherClaims[i];
            bytes32 id = getChannelId(row.voucher.channel);
            entries[i] = ChannelWords.claimEntry(id, row.voucher.maxClaimableAmount, row.totalClaimed);
        }
        return _hashTypedDataV4(ChannelWords.claimBatch(entries));
    }

    /// Claims every good row and tells of the others; reverts with the first row's reason if none is good.
    /// @param authorizer Who signed for the batch; zero if the caller speaks for itself.
    function _claimAll(VoucherClaim[] calldata rows, address authorizer) private {
        bytes4 first;
        bool good;
        for (uint256 i; i < rows.length; ++i) {
            VoucherClaim calldata row = rows[i];
            bytes32 id = getChannelId(row.voucher.channel);
            bytes4 reason = _outsider(row.voucher.channel, authorizer);
            if (reason == 0) reason = _claimRow(id, row);
            if (reason == 0) {
                good = true;
                continue;
            }
            if (i == 0) first = reason;
            emit Skipped(i, id, reason);
        }
        if (!good) _revertWith(first);
    }

    /// Why a row is not for the one who speaks for the batch to claim; zero if it is.
    function _outsider(ChannelConfig calldata config, address authorizer) private view returns (bytes4) {
        if (authorizer == address(0)) {
            bool mine = _isReceiverSide(config.receiver, config.receiverAuthorizer);
            return mine ? bytes4(0) : NotAuthorizedToClaim.selector;
        }
        return config.receiverAuthorizer == authorizer ? bytes4(0) : NotReceiverAuthorizer.selector;
    }

    /// Claims one row, or says why not. A row that adds nothing is good and changes nothing.
    function _claimRow(bytes32 id, VoucherClaim calldata row) private returns (bytes4) {
        uint128 total = row.totalClaimed;
        ChannelState storage channel = channels[id];
        (uint128 balance, uint128 claimed) = (channel.balance, channel.totalClaimed);
        if (total <= claimed) return 0;
        if (total > row.voucher.maxClaimableAmount) return ClaimExceedsCeiling.selector;
        if (total > balance) return ClaimExceedsBalance.selector;
        if (!_isSigned(id, row)) return InvalidSignature.selector;

        ReceiverState storage receiver = receivers[row.voucher.channel.receiver][row.voucher.channel.token];
        uint128 sum = receiver.totalClaimed;
        if (total - claimed > type(uint128).max - sum) return ReceiverOverflow.selector;
        receiver.totalClaimed = sum + (total - claimed);
        channel.totalClaimed = total;
        emit Claimed(id, msg.sender, total - claimed, total);
        return 0;
    }

    /// As `_claimAll`, for packed rows.
    function _claimRows(uint256 scratch, bytes calldata rows) private {
        uint256 start;
        assembly ("memory-safe") {
            start := rows.offset
        }
        bytes4 first;
        bool good;
        uint256 row = start;
        while (row < start + rows.length) {
            (uint256 stop, bytes32 id, uint256 outcome) = PackedVouchers.run(scratch, row);
            if (stop != row) good = true;
            if (outcome == PackedVouchers.FINISHED) break;
            bytes4 reason = _reason(outcome);
            if (stop == start) first = reason;
            emit Skipped((stop - start) / PackedVouchers.ROW, id, reason);
            row = stop + PackedVouchers.ROW;
        }
        if (!good) _revertWith(first);
    }

    /// The error that `claim` would name for what became of a packed row.
    function _reason(uint256 outcome) private pure returns (bytes4) {
        if (outcome == PackedVouchers.ABOVE_BALANCE) return ClaimExceedsBalance.selector;
        if (outcome == PackedVouchers.BAD_SIGNATURE) return InvalidSignature.selector;
        return ReceiverOverflow.selector;
    }

    function _isSigned(bytes32 id, VoucherClaim calldata row) private view returns (bool) {
        bytes32 digest = getVoucherDigest(id, row.voucher.maxClaimableAmount);
        address authorizer = row.voucher.channel.payerAuthorizer;
        address signer = authorizer == address(0) ? row.voucher.channel.payer : authorizer;
        if (authorizer == address(0) && signer.code.length != 0) return _approves(signer, digest, row.signature);
        (address recovered, ECDSA.RecoverError failed,) = ECDSA.tryRecoverCalldata(digest, row.signature);
        return failed == ECDSA.RecoverError.NoError && recovered == signer;
    }

    /// Asks a payer's contract about a signature, with so much gas that its answer does not hang on the caller's.
    function _approves(address payer, bytes32 digest, bytes calldata signature) private view returns (bool good) {
        // A call gets at most 63/64 of what is left.
        uint256 needed = SIGNATURE_GAS + SIGNATURE_GAS / 32;
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        require(gasleft() >= needed, TooLittleGas(gasleft(), needed));
        uint256 limit = SIGNATURE_GAS;
        bytes4 magic = IERC1271.isValidSignature.selector;
        // One word of the answer is read, so that a long one costs nothing.
        assembly ("memory-safe") {
            mstore(0, 0)
            let answered := staticcall(limit, payer, add(question, 32), mload(question), 0, 32)
            good := and(and(answered, gt(returndatasize(), 31)), eq(mload(0), magic))
        }
    }

    function _refund(bytes32 id, ChannelConfig calldata config, uint128 wanted) private {
        require(wanted != 0, ZeroRefund());
        unchecked {
            ++refundNonce[id];
        }
        uint128 amount = _min(wanted, _unclaimed(id));
        if (amount == 0) return;

        WithdrawalState storage withdrawal = pendingWithdrawals[id];
        if (withdrawal.initiatedAt != 0) {
            if (amount >= withdrawal.amount) delete pendingWithdrawals[id];
            else withdrawal.amount -= amount;
        }
        emit Refunded(id, msg.sender, amount);
        _giveBack(id, config, amount);
    }

    /// Sends unclaimed money to the payer. Last in its callers, because the token is foreign code.
    function _giveBack(bytes32 id, ChannelConfig calldata config, uint128 amount) private {
        ChannelState storage channel = channels[id];
        channel.balance -= amount;
        if (channel.balance == 0 && channel.totalClaimed == 0) emit ChannelClosed(id, config);
        if (amount != 0) IERC20(config.token).safeTransfer(config.payer, amount);
    }

    function _checkConfig(ChannelConfig calldata config) private pure {
        require(
            config.payer != address(0) && config.receiver != address(0) && config.receiverAuthorizer != address(0)
                && config.token != address(0),
            InvalidChannel()
        );
        require(
            config.withdrawDelay >= MIN_WITHDRAW_DELAY && config.withdrawDelay <= MAX_WITHDRAW_DELAY,
            WithdrawDelayOutOfRange()
        );
    }

    function _unclaimed(bytes32 id) private view returns (uint128) {
        return channels[id].balance - channels[id].totalClaimed;
    }

    function _isPayerSide(ChannelConfig calldata config) private view returns (bool) {
        return msg.sender == config.payer || msg.sender == config.payerAuthorizer;
    }

    function _isReceiverSide(address receiver, address receiverAuthorizer) private view returns (bool) {
        return msg.sender == receiver || msg.sender == receiverAuthorizer;
    }

    function _min(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }

    function _revertWith(bytes4 selector) private pure {
        assembly ("memory-safe") {
            mstore(0, selector)
            revert(0, 4)
        }
    }
}
