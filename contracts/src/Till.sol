// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ChannelConfig, IChannels} from "./interfaces/IChannels.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {IReceipts} from "./interfaces/IReceipts.sol";
import {Account, ITill, Taken} from "./interfaces/ITill.sol";
import {Positions} from "./libraries/Positions.sol";

/// @title Till
/// @notice Holds what was claimed for one provider until receipts cover it: see `ITill` for the laws.
/// @dev One code for all providers; a Till is a minimal clone that carries its owner's address behind its code, made
/// by `Tills`. Money is brought over from `Channels` when it is needed. Every entry point decides and writes first,
/// and moves tokens last.
contract Till is ITill, ReentrancyGuardTransient {
    using Checkpoints for Checkpoints.Trace208;
    using Positions for Taken[];
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    /// Runs of positions above a channel's frontier that may be taken before a verdict that adds one must wait. As
    /// many, released at once, stay below what one transaction may use. Returns to the payer never wait; they join
    /// what is paid around them.
    uint256 private constant TAKEN_MOST = 256;

    IChannels public immutable channels;
    IReceipts public immutable receipts;
    IParameters public immutable parameters;
    address private immutable _code;

    /// @inheritdoc ITill
    mapping(address token => mapping(address to => uint256)) public owed;

    mapping(bytes32 channel => Account) private _accounts;
    mapping(bytes32 channel => Taken[]) private _taken;
    /// What was claimed, by the second in which this Till first saw it.
    mapping(bytes32 channel => Checkpoints.Trace208) private _seen;

    constructor(IChannels channels_, IReceipts receipts_, IParameters parameters_) {
        channels = channels_;
        receipts = receipts_;
        parameters = parameters_;
        _code = address(this);
    }

    /// @inheritdoc ITill
    function release(ChannelConfig calldata config) external nonReentrant returns (uint128) {
        return _release(config);
    }

    /// @inheritdoc ITill
    function releaseAll(ChannelConfig[] calldata configs) external nonReentrant returns (uint128[] memory amounts) {
        amounts = new uint128[](configs.length);
        for (uint256 i; i < configs.length; ++i) {
            amounts[i] = _release(configs[i]);
        }
    }

    /// @inheritdoc ITill
    function verdict(ChannelConfig calldata config, uint128 channelBefore, uint128 channelAfter, address to)
        external
        nonReentrant
        returns (uint128 amount)
    {
        address arbiter = parameters.arbiter();
        require(msg.sender == arbiter, NotArbiter(msg.sender, arbiter));
        require(to != address(0), NoReceiver());
        require(channelBefore < channelAfter, EmptySpan(channelBefore, channelAfter));
        (bytes32 channel, uint128 claimed) = _open(config);
        Taken[] storage taken = _taken[channel];
        uint256 before = taken.length;

        uint128 frontier = _accounts[channel].frontier;
        uint128 from = channelBefore > frontier ? channelBefore : frontier;
        // What is claimed is paid at once; what is not, when it is.
        uint128 paid = taken.settle(from, channelAfter < claimed ? channelAfter : claimed);
        if (paid != 0) owed[config.token][to] += paid;
        amount = paid + taken.reserve(from > claimed ? from : claimed, channelAfter, to);
        uint256 open = taken.length;
        require(open <= before || open <= TAKEN_MOST, TooManyVerdicts(open, TAKEN_MOST));
        emit Judged(channel, to, channelBefore, channelAfter, amount);
        _collect(config.token, to);
    }

    /// @inheritdoc ITill
    function mark(ChannelConfig calldata config) external nonReentrant {
        require(msg.sender == config.payer, NotPayer(msg.sender, config.payer));
        (bytes32 channel, uint128 claimed) = _open(config);
        Account storage account = _accounts[channel];
        account.marked = claimed;
        account.markedAt = uint48(block.timestamp);
        emit Marked(channel, claimed, block.timestamp + parameters.value(Value.CoverWindow));
    }

    /// @inheritdoc ITill
    function reclaim(ChannelConfig calldata config) external nonReentrant returns (uint128 amount) {
        (bytes32 channel, uint128 claimed) = _open(config);
        Account storage account = _accounts[channel];
        (uint128 marked, uint48 markedAt) = (account.marked, account.markedAt);
        require(markedAt != 0, NotMarked(channel));
        uint256 due = markedAt + parameters.value(Value.CoverWindow);
        require(block.timestamp >= due, TooEarly(block.timestamp, due));

        uint128 covered = _coveredInTime(channel, claimed, markedAt, uint48(due));
        uint128 from = covered > account.frontier ? covered : account.frontier;
        amount = _taken[channel].settle(from, marked);
        require(amount != 0, NothingUncovered(marked, covered));
        (account.marked, account.markedAt) = (0, 0);
        emit Reclaimed(channel, config.payer, amount);
        _pay(config.token, config.payer, amount);
    }

    /// @inheritdoc ITill
    function collect(address token, address to) external nonReentrant returns (uint256 amount) {
        return _collect(token, to);
    }

    /// @inheritdoc ITill
    function accountOf(bytes32 channel) external view returns (Account memory) {
        return _accounts[channel];
    }

    /// @inheritdoc ITill
    function takenOf(bytes32 channel) external view returns (Taken[] memory) {
        return _taken[channel];
    }

    /// @inheritdoc ITill
    function seen(bytes32 channel, uint48 at) public view returns (uint128) {
        // Only positions are ever pushed, so the value fits.
        return uint128(_seen[channel].upperLookupRecent(at));
    }

    /// @inheritdoc ITill
    function provider() public view returns (address) {
        require(address(this) != _code, NotATill());
        return address(bytes20(Clones.fetchCloneArgs(address(this))));
    }

    /// See `ITill.release`.
    function _release(ChannelConfig calldata config) private returns (uint128 amount) {
        (bytes32 channel,) = _open(config);
        uint48 then = _windowAgo();
        uint128 claimed = seen(channel, then);
        uint128 covered = receipts.covered(provider(), channel, then);
        Account storage account = _accounts[channel];
        uint128 from = account.frontier;
        uint128 until = claimed < covered ? claimed : covered;
        if (until <= from) return 0;

        amount = until - from - _taken[channel].takenWithin(from, until);
        account.frontier = until;
        _taken[channel].forget(until);
        if (amount != 0) _divide(channel, config.token, amount);
    }

    /// Checks that the channel pays this Till, notes what is claimed now, and gives verdicts what of it is theirs.
    /// @dev A note is only ever added, so who calls often makes the times finer, and postpones nothing.
    function _open(ChannelConfig calldata config) private returns (bytes32 channel, uint128 claimed) {
        require(config.receiver == address(this), NotMyChannel(config.receiver, address(this)));
        channel = channels.getChannelId(config);
        (, claimed) = channels.channels(channel);
        Checkpoints.Trace208 storage notes = _seen[channel];
        if (claimed > notes.latest()) notes.push(uint48(block.timestamp), claimed);
        _satisfy(channel, config.token, claimed);
    }

    /// Keeps for each verdict's receiver what has been claimed of it.
    /// @dev Kept, not sent: a receiver that fights its transfer must not stop the others.
    function _satisfy(bytes32 channel, address token, uint128 claimed) private {
        Taken[] storage list = _taken[channel];
        uint256 count = list.length;
        for (uint256 i; i < count; ++i) {
            Taken storage taken = list[i];
            uint128 until = claimed < taken.until ? claimed : taken.until;
            if (until <= taken.paid) continue;
            owed[token][taken.to] += until - taken.paid;
            taken.paid = until;
        }
    }

    /// How far receipts covered a channel when the provider's time was over.
    /// @dev Coverage that was above all claims when the payer asked, and is so still, speaks of receipts for which
    /// there are no vouchers: it counts for nothing.
    function _coveredInTime(bytes32 channel, uint128 claimed, uint48 markedAt, uint48 due)
        private
        view
        returns (uint128)
    {
        address owner = provider();
        if (receipts.covered(owner, channel, markedAt) > claimed) return 0;
        uint128 covered = receipts.covered(owner, channel, due);
        return covered < claimed ? covered : claimed;
    }

    /// Divides released money. Shares are rounded down; the provider has what is left.
    function _divide(bytes32 channel, address token, uint128 amount) private {
        uint256 fee = amount * parameters.value(Value.NetworkFee) / BPS;
        uint256 share = amount * parameters.value(Value.GovernanceShare) / BPS;
        (address author, uint256 bps) = _royalty(channel);
        uint256 royalty = amount * bps / BPS;
        emit Released(channel, token, amount, fee, share);
        _pay(token, parameters.feeRecipient(), fee);
        _pay(token, parameters.treasury(), share);
        _pay(token, author, royalty);
        _pay(token, provider(), amount - fee - share - royalty);
    }

    /// Who made the model that a channel pays for, and the share that is due, bps of the payment.
    /// @dev Nobody and nothing: a channel names no model. The model registry's answer belongs here.
    function _royalty(bytes32) private pure returns (address author, uint256 bps) {
        return (address(0), 0);
    }

    /// Sends tokens, bringing them over first if they still lie in the channels; keeps them if the token refuses.
    function _pay(address token, address to, uint256 amount) private {
        if (amount == 0) return;
        if (IERC20(token).balanceOf(address(this)) < amount) channels.settle(address(this), token);
        if (IERC20(token).trySafeTransfer(to, amount)) return;
        owed[token][to] += amount;
        emit Kept(token, to, amount);
    }

    /// Sends what is kept; as much as there is, if the token lost some of it.
    function _collect(address token, address to) private returns (uint256 amount) {
        amount = owed[token][to];
        if (amount == 0) return 0;
        owed[token][to] = 0;
        if (IERC20(token).balanceOf(address(this)) < amount) channels.settle(address(this), token);
        uint256 held = IERC20(token).balanceOf(address(this));
        if (held < amount) {
            owed[token][to] = amount - held;
            amount = held;
        }
        if (IERC20(token).trySafeTransfer(to, amount)) return amount;
        owed[token][to] += amount;
        return 0;
    }

    /// One dispute window ago; the beginning of time if that was before it.
    function _windowAgo() private view returns (uint48) {
        uint256 window = parameters.value(Value.DisputeWindow);
        return block.timestamp > window ? uint48(block.timestamp - window) : 0;
    }
}
