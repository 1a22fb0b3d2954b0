// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig} from "./IChannels.sol";

/// @notice Positions of a channel that are not the provider's: taken by a verdict, or gone back to the payer.
struct Taken {
    /// First position, base units of the channel's token.
    uint128 from;
    /// First position behind it.
    uint128 until;
    /// Up to where it was paid; a verdict on positions not yet claimed is paid when they are.
    uint128 paid;
    /// Who is paid the rest of it; of no meaning, and mostly zero, once all of it is paid.
    address to;
}

/// @notice What a Till knows about one channel.
struct Account {
    /// Every position below it has been paid to someone.
    uint128 frontier;
    /// What was claimed when the payer last asked for its money back; meaningful if `markedAt` is not zero.
    uint128 marked;
    /// When that was, Unix seconds; zero if nothing is asked for.
    uint48 markedAt;
}

/// @notice A provider's receiving contract: `receiver` of the channels that pay the provider.
/// @dev A channel is a line of positions, one for each base unit that is ever claimed. **Each position is paid out
/// exactly once**, to one of three:
/// - the provider's side, by `release`, if a dispute window ago it was covered by posted receipts and seen here as
///   claimed: network fee and governance's share (rounded down), a royalty (none yet), and all the rest, dust
///   included, to the provider;
/// - whom a verdict names, if the arbiter found the receipt over it to be wrong before it was released;
/// - the payer, if it asked for it (`mark`) and no receipt covered it a cover window later (`reclaim`).
///
/// **The dispute window of a position begins when it is both covered and seen.** Receipts may be posted before their
/// money is claimed, so a post alone says nothing about when there is money to dispute. A position is seen with the
/// first call of `release`, `verdict`, `mark` or `reclaim` for its channel after its claim; `Channels` keeps no times.
/// Who claims should therefore call `release` at once: it divides what is due and starts the window for the rest. What
/// was seen when is kept for good, so no later call, by whomever, puts anything off.
///
/// **Nothing stays here forever.** Take any claimed position that is not yet paid. Either it is covered by a posted
/// receipt: then anyone may have it seen, and a dispute window after the later of both anyone may release it. Or it is
/// not: then the payer may mark it, and a cover window later anyone may send it back, unless it has been covered
/// meanwhile, which is the first case. Both windows are bounded by `Parameters`. A transfer that its token refuses is
/// kept for its receiver (`owed`) and stops nobody else; `collect` sends it later.
///
/// **Coverage has to be backed by claims.** A provider has a voucher for every receipt, so it can claim all that it
/// covers. Where coverage was above all claims when the payer marked and still is when it reclaims, a cover window
/// later at least, it stops no return. So a provider that is asked for money claims what it has covered, or releases
/// what is due, within the cover window.
///
/// A verdict reaches what is not released yet: a dispute has to be decided within the dispute window, or be made good
/// from the provider's stake.
///
/// Trust: the arbiter may give away what is not yet released of any channel of this Till, and nothing else. Governance
/// names the arbiter and sets the dispute window, up to its bound and for what is held already: together these reach
/// all that is held here unreleased and all that is claimed while they last. Release early and often. The provider is
/// trusted to post spans that its receipts bear out; it is slashed if it does not. A token that takes a
/// fee on transfer pays out less than was claimed, at the cost of those who come last in that token. Tokens sent here
/// by a plain transfer belong to nobody.
interface ITill {
    /// The channel pays somebody else.
    error NotMyChannel(address found, address expected);
    /// Only the arbiter that `Parameters` names may pass verdicts.
    error NotArbiter(address found, address expected);
    /// Only the channel's payer may ask for its money back.
    error NotPayer(address found, address expected);
    /// A verdict needs a receiver.
    error NoReceiver();
    /// The span covers nothing.
    error EmptySpan(uint128 channelBefore, uint128 channelAfter);
    /// The payer has not asked for its money back.
    error NotMarked(bytes32 channel);
    /// The provider still has time to post receipts, Unix seconds.
    error TooEarly(uint256 found, uint256 expected);
    /// All that was claimed when the payer asked is covered by receipts or already paid.
    error NothingUncovered(uint128 marked, uint128 covered);
    /// So many runs of this channel would be taken that the verdict has to wait for a release.
    error TooManyVerdicts(uint256 found, uint256 most);
    /// This is the code that all Tills share, and no Till.
    error NotATill();

    /// `amount` of a channel's money was divided; the provider got the rest.
    event Released(
        bytes32 indexed channel, address indexed token, uint128 amount, uint256 networkFee, uint256 governanceShare
    );
    /// A verdict gave `amount` of what a receipt had moved to `to`; `paid` of it at once, the rest when it is claimed.
    event Judged(
        bytes32 indexed channel, address indexed to, uint128 channelBefore, uint128 channelAfter, uint128 amount
    );
    /// The payer asked for what is uncovered of `claimed`, and may have it from `from` on (Unix seconds).
    event Marked(bytes32 indexed channel, uint128 claimed, uint256 from);
    /// `amount` that no receipt covered went back to the payer.
    event Reclaimed(bytes32 indexed channel, address indexed payer, uint128 amount);
    /// A transfer failed; its receiver may have it with `collect`.
    event Kept(address indexed token, address indexed to, uint256 amount);

    /// @notice Divides what the channel owes the provider's side: what a dispute window ago was seen as claimed and
    /// covered by posted receipts, and is not yet paid and not taken. Sees what is claimed now. Anyone may call; the
    /// receivers are fixed.
    /// @return amount Base units of the channel's token that were divided; zero is no error.
    function release(ChannelConfig calldata config) external returns (uint128 amount);

    /// @notice As `release`, for many channels at less cost for each. All or none: one that pays somebody else reverts.
    /// @return amounts What was divided of each.
    function releaseAll(ChannelConfig[] calldata configs) external returns (uint128[] memory amounts);

    /// @notice Takes what a wrong receipt moved, from `channelBefore` to `channelAfter`, and gives it to `to`. Only
    /// the arbiter.
    /// @dev Positions that are already paid to anyone are left out, so no position is ever given twice; the same
    /// verdict a second time takes nothing. What is not claimed yet is paid to `to` once it is.
    /// @return amount Base units that are `to`'s by this call, claimed or not.
    function verdict(ChannelConfig calldata config, uint128 channelBefore, uint128 channelAfter, address to)
        external
        returns (uint128 amount);

    /// @notice Asks for the return of what is claimed now and will not have been covered by receipts a cover window
    /// later. Only the channel's payer. Asking again starts anew.
    function mark(ChannelConfig calldata config) external;

    /// @notice Sends the payer what it asked for and no receipt covered by one cover window after `mark`. Anyone may
    /// call, from then on. Coverage that was above all claims at the time of `mark` and is so now does not count.
    /// @return amount Base units that went back.
    function reclaim(ChannelConfig calldata config) external returns (uint128 amount);

    /// @notice Sends `to` what is kept for it in `token`. Anyone may call.
    function collect(address token, address to) external returns (uint256 amount);

    /// @notice Whose Till this is: the owner's address of a provider.
    function provider() external view returns (address);

    /// @notice What this Till knows about a channel.
    function accountOf(bytes32 channel) external view returns (Account memory);

    /// @notice Up to which position this Till had seen the channel claimed at or before `at`, Unix seconds.
    function seen(bytes32 channel, uint48 at) external view returns (uint128);

    /// @notice What was taken from the provider's side above the frontier, in no order; paid runs that touch may be
    /// one.
    function takenOf(bytes32 channel) external view returns (Taken[] memory);

    /// @notice What is kept for `to` in `token`, because a verdict gave it or a transfer failed.
    function owed(address token, address to) external view returns (uint256);
}
