// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {Admission, Clerk, Offence} from "./Clerk.sol";
import {Tills} from "./Tills.sol";
import {ChannelConfig, IChannels} from "./interfaces/IChannels.sol";
import {Accusation, Branch, Case, Dispute, Filing, IDisputes, OpenStep, Phase, Tail} from "./interfaces/IDisputes.sol";
import {ICanaries} from "./interfaces/ICanaries.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {IProductions} from "./interfaces/IProductions.sol";
import {IProviders} from "./interfaces/IProviders.sol";
import {ITill} from "./interfaces/ITill.sol";
import {Focus, IJudge, Opening, Round} from "./libraries/dispute/Exhibits.sol";
import {End, Paths} from "./libraries/dispute/Paths.sol";
import {Steps} from "./libraries/dispute/Steps.sol";
import {Trees} from "./libraries/dispute/Trees.sol";
import {Openings} from "./libraries/judge/Openings.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Words} from "./libraries/Words.sol";
import {Receipt} from "./types/Receipt.sol";

/// @notice The contracts that the arbiter works with.
struct Bar {
    IERC20 token;
    IParameters parameters;
    IProviders providers;
    IChannels channels;
    Tills tills;
    Clerk clerk;
    /// Judges of vectors, of attention and of sampling.
    IJudge vectors;
    IJudge attention;
    IJudge sampling;
    /// Who was silent, and what is false on purpose.
    IProductions productions;
    ICanaries canaries;
}

/// @title Disputes
/// @notice The game about one receipt, and what follows from its end: see `IDisputes`.
/// @dev Games, bonds, slashes and refunds are separate calls, so that none can hold up another; `multicall` makes
/// them one transaction. Every entry point writes before it calls, and what it calls is the suite's own: ASY calls
/// nobody back, judges are views.
contract Disputes is IDisputes, Multicall {
    using Address for address;
    using SafeERC20 for IERC20;

    /// Bounds of the bond, base units of ASY, and of each side's clock, seconds.
    uint256 private constant BOND_MIN = 1e18;
    uint256 private constant BOND_MAX = 100_000e18;
    uint256 private constant CLOCK_MIN = 10;
    uint256 private constant CLOCK_MAX = 7 days;
    /// Levels that one reveal shows.
    uint256 private constant LEVELS = 4;
    /// Lists that a rule has at most.
    uint256 private constant ROUNDS = 2;
    /// Leaves that a challenger may ask for: two of advice, and the one that it then names.
    uint256 private constant ASKS = 3;
    /// No step was opened yet.
    uint8 private constant UNKNOWN = type(uint8).max;
    bytes32 private constant MOVE = keccak256("Move(address arbiter,uint256 dispute,bytes32 point,bytes32 content)");

    IERC20 public immutable token;
    IParameters public immutable parameters;
    IProviders public immutable providers;
    IChannels public immutable channels;
    Tills public immutable tills;
    Clerk public immutable clerk;
    IJudge public immutable vectors;
    IJudge public immutable attention;
    IJudge public immutable sampling;
    IProductions public immutable productions;
    ICanaries public immutable canaries;
    /// What a challenger puts in.
    uint256 public immutable bond;
    /// What each side has for all its moves.
    uint256 public immutable clock;

    /// @inheritdoc IDisputes
    uint256 public count;
    /// @inheritdoc IDisputes
    mapping(bytes32 receipt => uint256) public burnedOf;
    mapping(uint256 id => Dispute) private _disputes;
    mapping(bytes32 receipt => Case) private _cases;

    /// @param bond_ At least what all moves of a defender cost.
    /// @param clock_ Long enough that nobody can keep a move off the chain.
    constructor(Bar memory bar, uint256 bond_, uint256 clock_) {
        require(BOND_MIN <= bond_ && bond_ <= BOND_MAX, OutOfBounds(bond_, BOND_MIN, BOND_MAX));
        require(CLOCK_MIN <= clock_ && clock_ <= CLOCK_MAX, OutOfBounds(clock_, CLOCK_MIN, CLOCK_MAX));
        (token, parameters, providers) = (bar.token, bar.parameters, bar.providers);
        (channels, tills, clerk) = (bar.channels, bar.tills, bar.clerk);
        (vectors, attention, sampling) = (bar.vectors, bar.attention, bar.sampling);
        (productions, canaries) = (bar.productions, bar.canaries);
        (bond, clock) = (bond_, clock_);
    }

    // Opening.

    /// @inheritdoc IDisputes
    function open(Filing calldata) external returns (uint256 id) {
        Admission memory admission = abi.decode(_ask(Clerk.admit.selector), (Admission));
        _requireReader(admission.reader);
        Case storage file = _cases[admission.receipt];
        _requireOpen(file, admission.receipt);
        id = ++count;
        if (file.first == 0) {
            (file.owner, file.first, file.facts) = (admission.owner, uint64(id), admission.facts);
        }
        Dispute storage dispute = _disputes[id];
        (dispute.phase, dispute.leafDepth, dispute.movedAt) = (Phase.Commit, UNKNOWN, uint40(block.timestamp));
        (dispute.defenderLeft, dispute.challengerLeft) = (uint24(clock), uint24(clock));
        (dispute.positions, dispute.steps) = (admission.positions, admission.steps);
        (dispute.challenger, dispute.receipt) = (msg.sender, admission.receipt);
        dispute.opened = uint32(block.timestamp);
        emit Opened(id, admission.receipt, admission.owner, msg.sender, admission.order);
        token.safeTransferFrom(msg.sender, address(this), bond);
    }

    // Moves.

    /// @inheritdoc IDisputes
    function commit(uint256 id, bytes32 trace, bytes calldata signature) external {
        Dispute storage dispute = _defend(id, Phase.Commit, Phase.Pick);
        _requireDefender(id, trace, signature);
        (dispute.trace, dispute.point) = (trace, trace);
        emit Committed(id, trace);
    }

    /// @inheritdoc IDisputes
    function pick(uint256 id, Branch calldata branch) external {
        Dispute storage dispute = _challenge(id, Phase.Pick, Phase.Reveal);
        _descend(id, dispute, branch);
    }

    /// @inheritdoc IDisputes
    function pickWithin(uint256 id, Branch calldata branch, OpenStep calldata step) external {
        Dispute storage dispute = _challenge(id, Phase.Pick, Phase.Reveal);
        dispute.leafDepth = uint8(clerk.levels(dispute, _cases[dispute.receipt].facts, branch, step));
        _descend(id, dispute, branch);
    }

    /// @inheritdoc IDisputes
    function reveal(uint256 id, bytes32[] calldata nodes) external {
        Dispute storage dispute = _defend(id, Phase.Reveal, Phase.Pick);
        require(dispute.askedLevels == 0, IsAsked(dispute.asked));
        uint256 levels = _levelsBelow(dispute);
        require(nodes.length == 1 << levels, WrongCount(nodes.length, 1 << levels));
        bytes32 found = Trees.fold(nodes);
        require(found == dispute.point, NotBelow(found, dispute.point));
        dispute.reach = uint8(dispute.depth + levels);
        emit Revealed(id, nodes);
    }

    /// @inheritdoc IDisputes
    function ask(uint256 id, uint128 turns, uint8 levels, OpenStep calldata step) external {
        Dispute storage dispute = _challenge(id, Phase.Pick, Phase.Reveal);
        require(dispute.asks < ASKS, TooManyAsks(ASKS));
        uint256 path = clerk.leafAt(dispute, _cases[dispute.receipt].facts, turns, levels, step);
        (dispute.asked, dispute.askedLevels, dispute.asks) = (turns, levels, dispute.asks + 1);
        emit Asked(id, dispute.depth + levels, uint128(path));
    }

    /// @inheritdoc IDisputes
    function show(uint256 id, bytes calldata leaf, bytes32[] calldata proof) external {
        Dispute storage dispute = _defend(id, Phase.Reveal, Phase.Pick);
        uint256 levels = dispute.askedLevels;
        require(levels != 0 && proof.length == levels, WrongCount(proof.length, levels));
        bytes32 found = Openings.root(leaf, dispute.asked, proof);
        require(found == dispute.point, NotBelow(found, dispute.point));
        dispute.askedLevels = 0;
        emit Shown(id, leaf);
    }

    /// @inheritdoc IDisputes
    function name(uint256 id, Branch calldata branch, Accusation calldata accusation) external {
        Dispute storage dispute = _challenge(id, Phase.Pick, Phase.Prove);
        Focus memory focus = clerk.focus(dispute, _cases[dispute.receipt].facts, branch, accusation);
        dispute.point = keccak256(abi.encode(focus));
        emit Named(id, focus);
    }

    /// @inheritdoc IDisputes
    function list(uint256 id, bytes calldata values, bytes calldata signature) external {
        Dispute storage dispute = _defend(id, Phase.Prove, Phase.Choose);
        require(dispute.rounds < ROUNDS, TooManyRounds(ROUNDS));
        bytes32 content = keccak256(values);
        _requireDefender(id, content, signature);
        ++dispute.rounds;
        dispute.point = keccak256(abi.encode(dispute.point, content));
        emit Listed(id, values);
    }

    /// @inheritdoc IDisputes
    function choose(uint256 id, uint32 entry) external {
        Dispute storage dispute = _challenge(id, Phase.Choose, Phase.Prove);
        dispute.point = keccak256(abi.encode(dispute.point, entry));
        emit Chosen(id, entry);
    }

    // Ends.

    /// @inheritdoc IDisputes
    function prove(uint256 id, Focus calldata focus, bytes calldata facts, Round[] calldata rounds, Opening[] calldata)
        external
    {
        Dispute storage dispute = _disputes[id];
        _requireTurn(dispute, Phase.Prove);
        bytes32 found = _pointOf(focus, rounds);
        require(found == dispute.point, WrongFocus(found, dispute.point));
        if (facts.length != 0) {
            bytes32 expected = _cases[dispute.receipt].facts;
            require(keccak256(facts) == expected, WrongFacts(keccak256(facts), expected));
        }
        // The judge reads the same arguments as they came, but for the first.
        bytes memory question = abi.encodePacked(IJudge.judge.selector, dispute.trace, msg.data[36:]);
        bytes memory said = _judgeOf(Steps.kindOf(focus.step)).functionStaticCall(question);
        _decide(id, dispute, abi.decode(said, (bool)));
    }

    /// @inheritdoc IDisputes
    function empty(uint256 id, Branch calldata branch, OpenStep calldata step) external {
        Dispute storage dispute = _disputes[id];
        _requireTurn(dispute, Phase.Pick);
        require(msg.sender == dispute.challenger, NotChallenger(msg.sender, dispute.challenger));
        clerk.nothing(dispute, _cases[dispute.receipt].facts, branch, step);
        _decide(id, dispute, false);
    }

    /// @inheritdoc IDisputes
    function timeout(uint256 id) external {
        Dispute storage dispute = _disputes[id];
        _requireGoing(dispute);
        (bool challenging, uint256 left) = _toMove(dispute);
        uint256 elapsed = block.timestamp - dispute.movedAt;
        require(elapsed > left, TooEarly(elapsed, left));
        _decide(id, dispute, challenging);
    }

    /// @inheritdoc IDisputes
    function contradict(Filing calldata) external {
        _convictAtOnce(abi.decode(_ask(Clerk.contradiction.selector), (Offence)));
    }

    /// @inheritdoc IDisputes
    function misfinish(Filing calldata, Tail calldata) external {
        _convictAtOnce(abi.decode(_ask(Clerk.misfinish.selector), (Offence)));
    }

    /// @inheritdoc IDisputes
    function equivocate(Receipt[2] calldata, bytes[2] calldata, uint32, Opening[2] calldata) external {
        _convictAtOnce(abi.decode(_ask(Clerk.equivocation.selector), (Offence)));
    }

    /// @inheritdoc IDisputes
    function withhold(address provider, uint256 period, uint256 index) external {
        address auditor = productions.silentTo(provider, period, index);
        require(auditor != address(0), NotSilent(provider, period, index));
        bytes32 key = keccak256(abi.encode(provider, period, index));
        require(!_cases[key].guilty, AlreadyGuilty(key));
        _convict(key, provider, auditor);
    }

    /// @inheritdoc IDisputes
    function excuse(uint256 id) external {
        Dispute storage dispute = _disputes[id];
        _requireTurn(dispute, _requireGoing(dispute));
        bytes32 receipt = dispute.receipt;
        Case storage file = _cases[receipt];
        _requireOpen(file, receipt);
        file.canary = true;
        if (_hasLost(file.first)) file.first = uint64(id);
        Dispute storage first = _disputes[file.first];
        emit Excused(receipt, file.first);
        canaries.award(receipt, first.challenger, first.opened);
    }

    // What follows.

    /// @inheritdoc IDisputes
    function close(uint256 id) external {
        Dispute storage dispute = _disputes[id];
        Case storage file = _cases[dispute.receipt];
        Phase phase = dispute.phase;
        bool lost = phase == Phase.Lost;
        bool back =
            (file.guilty || file.canary) && phase != Phase.Forfeited && phase != Phase.Returned && phase != Phase.None;
        require(lost || back, NothingDue(phase));
        dispute.phase = lost ? Phase.Forfeited : Phase.Returned;
        address to = lost ? file.owner : dispute.challenger;
        emit Closed(id, to, bond);
        token.safeTransfer(to, bond);
    }

    /// @inheritdoc IDisputes
    function punish(bytes32 receipt) external {
        Case storage file = _cases[receipt];
        require(file.guilty, NotGuilty(receipt));
        require(!file.punished, AlreadyPunished(receipt));
        file.punished = true;
        address challenger = _disputes[file.first].challenger;
        uint256 supply = token.totalSupply();
        providers.slash(file.owner, parameters.value(Value.SlashMost), challenger, receipt);
        burnedOf[receipt] = supply - token.totalSupply();
    }

    /// @inheritdoc IDisputes
    function refund(Receipt calldata receipt, ChannelConfig calldata config) external returns (uint128 amount) {
        bytes32 digest = Words.digest(receipt);
        Case storage file = _cases[digest];
        require(file.guilty || file.canary, NotGuilty(digest));
        bytes32 channel = channels.getChannelId(config);
        require(channel == receipt.channel, WrongChannel(channel, receipt.channel));
        address till = tills.tillOf(file.owner);
        require(config.receiver == till, WrongSigner(config.receiver, till));
        return ITill(till).verdict(config, receipt.channelBefore, receipt.channelAfter, config.payer);
    }

    // Reading.

    /// @inheritdoc IDisputes
    function moveDigest(uint256 id, bytes32 content) public view returns (bytes32) {
        bytes32 hash = keccak256(abi.encode(MOVE, address(this), id, _disputes[id].point, content));
        return MessageHashUtils.toTypedDataHash(Words.domain(), hash);
    }

    /// @inheritdoc IDisputes
    function disputeOf(uint256 id) external view returns (Dispute memory) {
        return _disputes[id];
    }

    /// @inheritdoc IDisputes
    function caseOf(bytes32 receipt) external view returns (Case memory) {
        return _cases[receipt];
    }

    /// The clerk's answer to this call's own arguments, which it reads as they came.
    function _ask(bytes4 question) private view returns (bytes memory) {
        return address(clerk).functionStaticCall(abi.encodePacked(question, msg.data[4:]));
    }

    function _requireReader(address reader) private view {
        require(reader == address(0) || reader == msg.sender, NotBuyer(msg.sender, reader));
    }

    // Turns and clocks.

    /// The defender's move, whoever makes it: stops its clock and starts the challenger's, if that is next.
    function _defend(uint256 id, Phase phase, Phase next) private returns (Dispute storage dispute) {
        dispute = _disputes[id];
        uint256 elapsed = _requireTurn(dispute, phase);
        dispute.defenderLeft -= uint24(elapsed);
        (dispute.phase, dispute.movedAt) = (next, uint40(block.timestamp));
    }

    /// The challenger's move.
    function _challenge(uint256 id, Phase phase, Phase next) private returns (Dispute storage dispute) {
        dispute = _disputes[id];
        uint256 elapsed = _requireTurn(dispute, phase);
        require(msg.sender == dispute.challenger, NotChallenger(msg.sender, dispute.challenger));
        dispute.challengerLeft -= uint24(elapsed);
        (dispute.phase, dispute.movedAt) = (next, uint40(block.timestamp));
    }

    /// Checks that it is this move's turn and in time; the last second counts.
    function _requireTurn(Dispute storage dispute, Phase phase) private view returns (uint256 elapsed) {
        require(dispute.phase == phase, WrongPhase(dispute.phase, phase));
        (, uint256 left) = _toMove(dispute);
        elapsed = block.timestamp - dispute.movedAt;
        require(elapsed <= left, TooLate(elapsed, left));
    }

    /// Checks that the game is not over.
    function _requireGoing(Dispute storage dispute) private view returns (Phase phase) {
        phase = dispute.phase;
        require(phase > Phase.None && phase < Phase.Lost, WrongPhase(phase, Phase.Commit));
    }

    /// Whether the challenger owes the next move, and what is left to whom owes it.
    function _toMove(Dispute storage dispute) private view returns (bool challenging, uint256 left) {
        challenging = dispute.phase == Phase.Pick || dispute.phase == Phase.Choose;
        left = challenging ? dispute.challengerLeft : dispute.defenderLeft;
    }

    /// Checks that the provider stands behind a move that binds it.
    function _requireDefender(uint256 id, bytes32 content, bytes calldata signature) private view {
        address owner = _cases[_disputes[id].receipt].owner;
        address by = msg.sender;
        if (signature.length != 0) (by,,) = ECDSA.tryRecoverCalldata(moveDigest(id, content), signature);
        require(by != address(0) && (by == owner || providers.providerOf(by) == owner), NotDefender(by, owner));
    }

    // The way down.

    /// How many levels the next reveal shows: four, or as many as its tree has left.
    function _levelsBelow(Dispute storage dispute) private view returns (uint256 levels) {
        uint256 depth = dispute.depth;
        uint256 top = Merkle.depth(dispute.positions);
        uint256 ops = top + Merkle.depth(uint256(dispute.steps) + 1);
        levels = (depth < top ? top : depth < ops ? ops : ops + dispute.leafDepth) - depth;
        if (levels > LEVELS) levels = LEVELS;
    }

    /// Goes down a branch, at least behind what was revealed, and not to where nothing can be below.
    function _descend(uint256 id, Dispute storage dispute, Branch calldata branch) private {
        // What the way down needs, and no more: each slot costs.
        Dispute memory before;
        (before.depth, before.path, before.point) = (dispute.depth, dispute.path, dispute.point);
        (before.reach, before.leafDepth) = (dispute.reach, dispute.leafDepth);
        (before.positions, before.steps) = (dispute.positions, dispute.steps);
        End memory at = Paths.end(before, branch);
        uint256 most = at.top + at.ops - 1;
        if (before.leafDepth != UNKNOWN) most += before.leafDepth;
        require(before.reach <= at.depth && at.depth <= most, WrongDepth(at.depth, before.reach, most));
        if (at.depth >= at.top) {
            uint256 position = at.path >> (at.depth - at.top);
            require(position < before.positions, Nowhere(position, 0, 0));
        }
        bytes32 here = Paths.climb(before, branch, at);
        if (here != 0) dispute.here = here;
        (dispute.depth, dispute.path, dispute.point) = (uint8(at.depth), uint128(at.path), branch.node);
        emit Picked(id, at.depth, uint128(at.path), branch.node);
    }

    // Decisions.

    /// What a dispute's point is, once a number is named and entries of lists are chosen.
    function _pointOf(Focus calldata focus, Round[] calldata rounds) private pure returns (bytes32 point) {
        point = keccak256(abi.encode(focus));
        for (uint256 i; i < rounds.length; ++i) {
            point = keccak256(abi.encode(point, keccak256(rounds[i].list)));
            point = keccak256(abi.encode(point, rounds[i].entry));
        }
    }

    function _judgeOf(uint256 kind) private view returns (address) {
        if (kind >= Steps.SCORE && kind <= Steps.ATTEND) return address(attention);
        return address(kind == Steps.SAMPLE || kind == Steps.TOKEN ? sampling : vectors);
    }

    /// Ends a game; a receipt that was found false, or a canary, meanwhile leaves nothing to decide.
    function _decide(uint256 id, Dispute storage dispute, bool right) private {
        bytes32 receipt = dispute.receipt;
        Case storage file = _cases[receipt];
        _requireOpen(file, receipt);
        dispute.phase = right ? Phase.Lost : Phase.Won;
        emit Decided(id, receipt, dispute.phase);
        if (right) return;
        file.guilty = true;
        // The first who opened has the reward, unless it has lost.
        if (_hasLost(file.first)) file.first = uint64(id);
        emit Convicted(receipt, file.owner, file.first);
    }

    /// Finds receipts false without a game, one at least that was not before.
    function _convictAtOnce(Offence memory offence) private {
        _requireReader(offence.reader);
        bool known = _cases[offence.receipt].guilty;
        if (!known) _convict(offence.receipt, offence.owner, msg.sender);
        bool pair = offence.other != 0 && !_cases[offence.other].guilty;
        if (pair) _convict(offence.other, offence.owner, msg.sender);
        require(!known || pair, AlreadyGuilty(offence.receipt));
    }

    /// Who brought it is the challenger, unless one was first.
    function _convict(bytes32 receipt, address owner, address by) private {
        Case storage file = _cases[receipt];
        (file.owner, file.guilty) = (owner, true);
        if (file.first == 0 || _hasLost(file.first)) {
            uint256 id = ++count;
            file.first = uint64(id);
            Dispute storage dispute = _disputes[id];
            // Nothing was put in, so nothing is to be paid back.
            (dispute.phase, dispute.challenger, dispute.receipt) = (Phase.Returned, by, receipt);
        }
        emit Convicted(receipt, owner, file.first);
    }

    /// Checks that games can still decide about a receipt.
    function _requireOpen(Case storage file, bytes32 receipt) private view {
        require(!file.guilty, AlreadyGuilty(receipt));
        require(!file.canary, IsCanary(receipt));
    }

    function _hasLost(uint256 id) private view returns (bool) {
        Phase phase = _disputes[id].phase;
        return phase == Phase.Lost || phase == Phase.Forfeited;
    }
}
