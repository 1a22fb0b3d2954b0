// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a channel is for its whole life. Its EIP-712 digest is the channel's id.
struct ChannelConfig {
    /// Whose money it is.
    address payer;
    /// Whose key signs vouchers; zero: the payer itself, by its key or by ERC-1271. A receiver must insist on one
    /// that is not zero: a payer with a key alone can delegate (EIP-7702) to code whose `isValidSignature` refuses,
    /// and so void vouchers that it signed.
    address payerAuthorizer;
    /// Who is paid.
    address receiver;
    /// Who may, beside the receiver, claim and refund; signs `ClaimBatch` and `Refund`. Not zero.
    address receiverAuthorizer;
    /// The ERC-20 that the channel is in.
    address token;
    /// Seconds between a payer's wish to withdraw and the withdrawal: 900 to 2,592,000.
    uint40 withdrawDelay;
    /// Makes otherwise equal channels differ.
    bytes32 salt;
}

/// @notice What a payer signs: the receiver may have claimed this much of the channel in all.
struct Voucher {
    ChannelConfig channel;
    /// Base units of the channel's token, cumulative.
    uint128 maxClaimableAmount;
}

/// @notice One row of a claim.
struct VoucherClaim {
    Voucher voucher;
    /// The payer's, or its authorizer's, over the voucher's digest.
    bytes signature;
    /// What the receiver takes in all, at most what the voucher allows. A row that takes no more than was taken
    /// before changes nothing.
    uint128 totalClaimed;
}

/// @notice What all rows of a packed claim have in common.
struct Terms {
    address receiver;
    address receiverAuthorizer;
    address token;
    uint40 withdrawDelay;
    bytes32 salt;
}

/// @notice Unidirectional payment channels: one deposit, cumulative vouchers off the chain, claims in batches.
/// @dev Functions, events, digests and errors are those of the public x402 `batch-settlement` deployment, so its
/// clients work here unchanged; like there, the errors of that set carry no values. What is ours:
/// - `claim` and `claimWithSignature` pass over a bad row, say so with `Skipped`, and do the others. Only a batch
///   in which no row is good reverts, with the first row's error, so that a simulation of a single claim still tells.
/// - `claimPacked` does the same work for less than half the gas.
/// - a deposit is credited with what arrived, so a token that takes a fee on transfer is no reason to refuse.
///
/// Trust: nobody has a special right, and nothing can be changed. Each token is trusted with the channels in that
/// token only; one that changes balances by itself, or lets a sender pay more than it sends, harms its own holders.
///
/// Invariants. A channel's claimed amount never exceeds its balance nor any voucher's ceiling that it was claimed
/// with. For every token: what this contract holds is at least all channels' balances less all that was settled.
interface IChannels {
    // Errors of the public deployment, parameterless as there.
    error InvalidChannel();
    error ZeroDeposit();
    error DepositOverflow();
    error InvalidSignature();
    error NotReceiverAuthorizer();
    error NotAuthorizedToClaim();
    error NotAuthorizedToRefund();
    error ClaimExceedsCeiling();
    error ClaimExceedsBalance();
    error WithdrawalAlreadyPending();
    error WithdrawalNotPending();
    error NotAuthorizedToFinalizeWithdraw();
    error WithdrawDelayNotElapsed();
    error NothingToWithdraw();
    error WithdrawAmountExceedsAvailable();
    error WithdrawDelayOutOfRange();
    error EmptyBatch();
    error DepositCollectionFailed();
    error InvalidCollector();
    error InvalidRefundNonce();
    error ZeroRefund();

    // Errors of ours.
    /// Reason of a skipped row: the receiver's total in this token would not fit 128 bits.
    error ReceiverOverflow();
    /// The packed rows are not a whole, positive number of rows.
    error MalformedRows(uint256 found, uint256 rowBytes);
    /// Too little gas is left to ask a payer's contract about its signature as it must be asked.
    error TooLittleGas(uint256 found, uint256 expected);

    /// A channel with nothing in it, and nothing claimed from it, received its first deposit.
    event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
    /// The last unclaimed money left a channel from which nothing was ever claimed.
    event ChannelClosed(bytes32 indexed channelId, ChannelConfig config);
    /// `amount` arrived; the channel holds `newBalance`, what was claimed included.
    event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 newBalance);
    /// `claimAmount` more became the receiver's, `newTotalClaimed` in all.
    event Claimed(bytes32 indexed channelId, address indexed sender, uint128 claimAmount, uint128 newTotalClaimed);
    /// A packed claim: `claims` holds, for every row that was good and new, the channel's id (32 bytes) and its new
    /// claimed total (16 bytes). Stands for one `Claimed` each.
    event ClaimedPacked(address indexed receiver, address indexed token, address indexed sender, bytes claims);
    /// Row `index` of a batch was passed over; `reason` is the selector of the error it would have been.
    event Skipped(uint256 indexed index, bytes32 indexed channelId, bytes4 reason);
    /// Claimed money was sent to its receiver.
    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
    /// Unclaimed money went back to the payer by the receiver's will.
    event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
    /// The payer wants `amount` back, and gets what of it is unclaimed from `finalizeAfter` on (Unix seconds).
    event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
    /// The payer got `amount` back.
    event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);

    /// @notice Puts up to `amount` into a channel, creating it if need be. Anyone may call; `collector` checks the
    /// payer's consent.
    /// @dev Credited is what arrives, be it less than `amount` (a fee on transfer) or more.
    /// @param amount Base units that the collector is asked to bring; not zero.
    /// @param collector The `IDepositCollector` that knows how the payer agreed.
    /// @param collectorData Handed to the collector.
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData)
        external;

    /// @notice Records claims. Only rows of channels whose receiver or receiver authorizer is the caller count.
    /// @dev Bad rows are skipped (`Skipped`); moves no token. Reverts if no row is good. A payer that is a contract may
    /// change its mind about gas: allow `SIGNATURE_GAS` for each row whose `payerAuthorizer` is zero, not what a
    /// simulation used.
    function claim(VoucherClaim[] calldata voucherClaims) external;

    /// @notice Records claims that a receiver authorizer signed. Anyone may call.
    /// @dev The authorizer is the first row's; rows of another one are skipped. A wrong signature reverts, since it
    /// speaks for the whole batch. The signature may be used again: claims are cumulative.
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature) external;

    /// @notice Records claims of full vouchers of channels with equal terms, in 120 bytes a row:
    /// `payer (20) ‖ payerAuthorizer (20, zero: the payer's key) ‖ maxClaimableAmount (16) ‖ r (32) ‖ vs (32)`.
    /// @dev Claims all that each voucher allows. The signature is the compact form of ERC-2098 by a key, never by
    /// a contract. Only the receiver or its authorizer may call. Skips and reverts like `claim`.
    /// A zero `payerAuthorizer` of the row means that the channel's `payerAuthorizer` is the payer's own address.
    function claimPacked(Terms calldata terms, bytes calldata rows) external;

    /// @notice Sends the receiver what was claimed for it in `token`. Anyone may call; no money, no effect.
    function settle(address receiver, address token) external;

    /// @notice Starts the payer's way out: from `withdrawDelay` seconds on, `finalizeWithdraw` pays what of `amount`
    /// is unclaimed then. Only the payer or its authorizer; one at a time.
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external;

    /// @notice Ends the payer's way out. Only the payer or its authorizer. Pays the payer.
    function finalizeWithdraw(ChannelConfig calldata config) external;

    /// @notice Gives unclaimed money back to the payer, at most `amount`. Only the receiver or its authorizer.
    /// @dev Uses up the refund nonce, also when nothing is left to give back.
    function refund(ChannelConfig calldata config, uint128 amount) external;

    /// @notice As `refund`, by anyone, with the receiver authorizer's signature over `getRefundDigest`.
    function refundWithSignature(
        ChannelConfig calldata config,
        uint128 amount,
        uint256 nonce,
        bytes calldata receiverAuthorizerSignature
    ) external;

    /// @notice What was deposited and not given back, and what of it was claimed, in base units, cumulative.
    function channels(bytes32 channelId) external view returns (uint128 balance, uint128 totalClaimed);

    /// @notice The withdrawal under way; `initiatedAt` (Unix seconds) is zero if there is none.
    function pendingWithdrawals(bytes32 channelId) external view returns (uint128 amount, uint40 initiatedAt);

    /// @notice What was ever claimed for `receiver` in `token`, and what of it was sent.
    function receivers(address receiver, address token)
        external
        view
        returns (uint128 totalClaimed, uint128 totalSettled);

    /// @notice The nonce that the next refund's signature must name.
    function refundNonce(bytes32 channelId) external view returns (uint256);

    /// @notice The id of a channel: the EIP-712 digest of its config under this deployment's domain.
    function getChannelId(ChannelConfig calldata config) external view returns (bytes32);

    /// @notice What the payer signs.
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) external view returns (bytes32);

    /// @notice What the receiver authorizer signs for `refundWithSignature`.
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) external view returns (bytes32);

    /// @notice What the receiver authorizer signs for `claimWithSignature`.
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) external view returns (bytes32);
}
