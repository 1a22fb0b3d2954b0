// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice From where to where a period's receipts move one channel.
struct Span {
    /// The channel's id.
    bytes32 channel;
    /// `channelBefore` of the channel's first receipt in the period, base units of its token.
    uint128 channelBefore;
    /// `channelAfter` of its last one.
    uint128 channelAfter;
}

/// @notice One posted tree of receipts.
struct Period {
    /// Merkle root over the receipts' digests.
    bytes32 root;
    /// Number of receipts.
    uint64 count;
    /// When it was posted, Unix seconds.
    uint48 posted;
}

/// @notice Where providers answer for their work in public: trees of their receipts, period by period, and the
/// channel positions that these cover. It is the `market` that orders name.
/// @dev A provider is an owner's address, the one that its Till belongs to. Leaf i of a tree is
/// `keccak256(0x00 ‖ digest of receipt i)`, see `Merkle` and `Words`. For each provider and channel the spans form an
/// unbroken chain from zero: money of a channel is released up to a position only if every position below it was
/// posted.
///
/// Trust: none in this contract, which holds no money and has no owner. That a tree holds what its spans say is not
/// checked here: a provider that posts spans without receipts can be made to produce them, and is slashed if it
/// cannot. A span speaks for its own provider only, so nobody can cover or block another's channel.
interface IReceipts {
    /// Only the provider or the poster that it appointed may post for it.
    error NotPoster(address found, address provider, address poster);
    /// A period holds at least one receipt.
    error NoReceipts();
    /// The span does not begin where the one before it ended.
    error Broken(bytes32 channel, uint128 found, uint128 expected);
    /// The span covers nothing.
    error EmptySpan(bytes32 channel, uint128 channelBefore, uint128 channelAfter);
    /// The provider has not posted that many periods.
    error NoSuchPeriod(uint256 found, uint256 count);

    /// `provider` lets `poster` post for it; zero: nobody but itself.
    event Appointed(address indexed provider, address indexed poster);
    /// A period was posted; `period` counts from zero for each provider.
    event Posted(address indexed provider, uint256 indexed period, bytes32 root, uint64 count, Span[] spans);

    /// @notice Lets `poster`, usually the operator's key, post for the caller; zero takes that back.
    function appoint(address poster) external;

    /// @notice Posts the next period of `provider`. Only by itself or its poster.
    /// @param root Merkle root over the digests of the period's receipts, in the provider's order.
    /// @param count How many they are; not zero.
    /// @param spans What they cover; one for each channel that they move. Receipts without a channel need none.
    /// @return period The number of the new period, from zero.
    function post(address provider, bytes32 root, uint64 count, Span[] calldata spans) external returns (uint256 period);

    /// @notice Up to which position of `channel` the provider's receipts were posted at or before `at`.
    /// @param at Unix seconds; what was posted in that very second counts.
    function covered(address provider, bytes32 channel, uint48 at) external view returns (uint128);

    /// @notice Up to which position of `channel` the provider's receipts are posted now; the next span begins here.
    function covered(address provider, bytes32 channel) external view returns (uint128);

    /// @notice Whether a receipt is in a posted period.
    /// @param index The receipt's place in the tree.
    /// @param receipt The receipt's EIP-712 digest.
    /// @param proof The sibling hashes from the leaf up.
    /// @return False for a wrong place, receipt or proof; reverts for a period that does not exist.
    function includes(address provider, uint256 period, uint256 index, bytes32 receipt, bytes32[] calldata proof)
        external
        view
        returns (bool);

    /// @notice A posted period; reverts if it does not exist.
    function periodOf(address provider, uint256 period) external view returns (Period memory);

    /// @notice How many periods the provider has posted.
    function periods(address provider) external view returns (uint256);

    /// @notice Who may post for the provider beside itself; zero for nobody.
    function posterOf(address provider) external view returns (address);
}
