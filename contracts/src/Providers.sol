// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Seats} from "./Seats.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {IProviders, Provider, Tier} from "./interfaces/IProviders.sol";
import {Seat} from "./interfaces/ISeats.sol";
import {Service} from "./libraries/Service.sol";
import {Stake, Stakes, Unbonding} from "./libraries/Stakes.sol";
import {Serve} from "./types/Serve.sol";

/// @notice Who sells answers, where, and what they stand to lose; with `Seats`, who sits in the consensus.
/// @dev Holds ASY for owners, and only that: its balance is at least the sum of all stakes. ASY is our own token
/// and calls nobody back, and tokens still move last, so no function needs a guard against reentry.
contract Providers is IProviders, Seats {
    using SafeERC20 for ERC20Burnable;
    using Stakes for Stake;

    /// Longest endpoint, in bytes.
    uint256 public constant ENDPOINT_MAX = 256;
    /// What slashes for absence are logged under.
    bytes32 private constant ABSENCE_REASON = "absence";

    /// What is kept of a provider. The first three fields share a slot: a heartbeat writes one.
    struct Record {
        address operator;
        uint48 heartbeat;
        /// Zero out of jail.
        uint48 jailedUntil;
        Stake stake;
        string endpoint;
    }

    /// What stakes are in: the ASY token.
    ERC20Burnable public immutable token;
    /// Where thresholds, times and the arbiter are read.
    IParameters public immutable parameters;

    address[] private _owners;
    mapping(address owner => Record) private _records;
    mapping(address operator => address) private _ownerOf;

    /// @param token_ The ASY token.
    /// @param parameters_ The deployment's `Parameters`.
    /// @param genesis The first seats of the consensus, one at least.
    constructor(ERC20Burnable token_, IParameters parameters_, Seat[] memory genesis) Seats(genesis) {
        token = token_;
        parameters = parameters_;
    }

    /// @inheritdoc IProviders
    function register(address operator, string calldata endpoint, bytes calldata signature) external {
        require(!_registered(msg.sender), AlreadyRegistered(msg.sender));
        require(_ownerOf[msg.sender] == address(0), KeysNotApart(msg.sender));
        _requireLength(endpoint);
        _bindOperator(operator, signature);

        Record storage record = _records[msg.sender];
        record.operator = operator;
        record.heartbeat = uint48(block.timestamp);
        record.endpoint = endpoint;
        _owners.push(msg.sender);
        emit Registered(msg.sender, operator, endpoint);
    }

    /// @inheritdoc IProviders
    function rotate(address operator, bytes calldata signature) external {
        Record storage record = _ofOwner(msg.sender);
        _bindOperator(operator, signature);
        emit OperatorSet(msg.sender, record.operator, operator);
        record.operator = operator;
    }

    /// @inheritdoc IProviders
    function announce(string calldata endpoint) external {
        (address owner, Record storage record) = _ofOperator(msg.sender);
        _requireLength(endpoint);
        record.endpoint = endpoint;
        emit EndpointSet(owner, endpoint);
    }

    /// @inheritdoc IProviders
    function heartbeat() external {
        (address owner, Record storage record) = _ofOperator(msg.sender);
        record.heartbeat = uint48(block.timestamp);
        emit Heartbeat(owner);
    }

    /// @inheritdoc IProviders
    function stake(uint128 amount) external {
        _stake(amount);
    }

    /// @inheritdoc IProviders
    function stakeWithPermit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _stake(amount);
    }

    /// @inheritdoc IProviders
    function unbond(uint128 amount) external {
        Record storage record = _ofOwner(msg.sender);
        uint256 release = block.timestamp + parameters.value(Value.UnbondingDelay);
        record.stake.unbond(amount, release);
        emit Unbonded(msg.sender, amount, record.stake.bonded, release);
    }

    /// @inheritdoc IProviders
    function withdraw() external returns (uint256 amount) {
        amount = _ofOwner(msg.sender).stake.withdraw(block.timestamp);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IProviders
    function reportAbsence(address owner) external {
        Record storage record = _ofOwner(owner);
        require(record.jailedUntil == 0, InJail(owner, record.jailedUntil));
        _requireStake(record, Value.TierBronze);
        uint256 silent = block.timestamp - record.heartbeat;
        uint256 limit = parameters.value(Value.AbsenceLimit);
        require(silent > limit, NotAbsent(silent, limit));
        _slash(owner, record, parameters.value(Value.SlashLeast), msg.sender, ABSENCE_REASON);
    }

    /// @inheritdoc IProviders
    function unjail() external {
        Record storage record = _ofOwner(msg.sender);
        uint256 until = record.jailedUntil;
        require(until != 0, NotInJail(msg.sender));
        require(block.timestamp >= until, InJail(msg.sender, until));
        _requireStake(record, Value.TierBronze);
        record.jailedUntil = 0;
        // Silence in jail is no absence: duty begins now.
        record.heartbeat = uint48(block.timestamp);
        emit Unjailed(msg.sender);
    }

    /// @inheritdoc IProviders
    function slash(address owner, uint256 bps, address challenger, bytes32 reason) external {
        address arbiter = parameters.arbiter();
        require(msg.sender == arbiter, NotArbiter(msg.sender, arbiter));
        (uint256 least, uint256 most) = (parameters.value(Value.SlashLeast), parameters.value(Value.SlashMost));
        require(bps >= least && bps <= most, SlashOutOfBounds(bps, least, most));
        _slash(owner, _ofOwner(owner), bps, challenger, reason);
    }

    /// @inheritdoc IProviders
    function provider(address owner) external view returns (Provider memory) {
        Record storage record = _ofOwner(owner);
        return Provider({
            operator: record.operator,
            endpoint: record.endpoint,
            bonded: record.stake.bonded,
            unbonding: record.stake.unbonding,
            tier: _tier(record.stake.bonded),
            heartbeat: record.heartbeat,
            jailedUntil: record.jailedUntil
        });
    }

    /// @inheritdoc IProviders
    function providerOf(address operator) external view returns (address owner) {
        return _ownerOf[operator];
    }

    /// @inheritdoc IProviders
    function active(address owner) external view returns (bool) {
        Record storage record = _records[owner];
        return _registered(owner) && record.jailedUntil == 0
            && record.stake.bonded >= parameters.value(Value.TierBronze)
            && block.timestamp - record.heartbeat <= parameters.value(Value.AbsenceLimit);
    }

    /// @inheritdoc IProviders
    function unbondings(address owner) external view returns (Unbonding[] memory) {
        return _ofOwner(owner).stake.queue;
    }

    /// @inheritdoc IProviders
    function count() external view returns (uint256) {
        return _owners.length;
    }

    /// @inheritdoc IProviders
    function owners(uint256 from, uint256 most) external view returns (address[] memory page) {
        uint256 length = _owners.length;
        if (from >= length) return page;
        uint256 left = length - from;
        page = new address[](most < left ? most : left);
        for (uint256 i = 0; i < page.length; i++) {
            page[i] = _owners[from + i];
        }
    }

    function _stake(uint128 amount) private {
        Record storage record = _ofOwner(msg.sender);
        uint256 bronze = parameters.value(Value.TierBronze);
        bool onDuty = record.stake.bonded >= bronze;
        record.stake.bond(amount);
        // Duty begins with bronze, so silence before it does not count.
        if (!onDuty && record.stake.bonded >= bronze) record.heartbeat = uint48(block.timestamp);
        emit Staked(msg.sender, amount, record.stake.bonded);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// Takes `bps` of all that is at risk, jails, pays `challenger` its share and burns the rest.
    function _slash(address owner, Record storage record, uint256 bps, address challenger, bytes32 reason) private {
        uint128 amount = record.stake.slashDown(bps);
        uint256 reward =
            challenger == address(0) ? 0 : Stakes.shareDown(amount, parameters.value(Value.ChallengerReward));
        uint256 until = block.timestamp + parameters.value(Value.JailTime);
        record.jailedUntil = uint48(until);
        emit Slashed(owner, challenger, amount, reward, reason);
        emit Jailed(owner, until);

        token.burn(amount - reward);
        if (reward != 0) token.safeTransfer(challenger, reward);
    }

    /// Binds `operator` to the caller for good, if it agrees.
    function _bindOperator(address operator, bytes calldata signature) private {
        require(operator != msg.sender && !_registered(operator), KeysNotApart(operator));
        address bound = _ownerOf[operator];
        require(bound == address(0) || bound == msg.sender, OperatorTaken(operator, bound));
        bytes32 digest = Service.digest(Serve(address(this), msg.sender));
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        require(signer == operator && signer != address(0), WrongSigner(signer, operator));
        _ownerOf[operator] = msg.sender;
    }

    /// @inheritdoc Seats
    function _punish(address owner, address challenger, bytes32 reason) internal override {
        if (_registered(owner)) _slash(owner, _records[owner], parameters.value(Value.SlashMost), challenger, reason);
    }

    /// @inheritdoc Seats
    function _requireVoting(address owner) internal view override returns (uint256) {
        Record storage record = _ofOwner(owner);
        require(record.jailedUntil == 0, InJail(owner, record.jailedUntil));
        _requireStake(record, Value.SeatStake);
        return record.stake.bonded;
    }

    /// @inheritdoc Seats
    function _voting(address owner) internal view override returns (uint256) {
        Record storage record = _records[owner];
        uint256 bonded = record.stake.bonded;
        return record.jailedUntil == 0 && bonded >= parameters.value(Value.SeatStake) ? bonded : 0;
    }

    /// @inheritdoc Seats
    function _seatsMax() internal view override returns (uint256) {
        return parameters.value(Value.Seats);
    }

    function _registered(address owner) private view returns (bool) {
        return _records[owner].operator != address(0);
    }

    function _ofOwner(address owner) private view returns (Record storage record) {
        record = _records[owner];
        require(record.operator != address(0), NotRegistered(owner));
    }

    /// The owner that `operator` serves now.
    function _ofOperator(address operator) private view returns (address owner, Record storage record) {
        owner = _ownerOf[operator];
        require(owner != address(0), NotRegistered(operator));
        record = _records[owner];
        require(record.operator == operator, NotOperator(operator, record.operator));
    }

    function _requireStake(Record storage record, Value threshold) private view {
        uint256 expected = parameters.value(threshold);
        require(record.stake.bonded >= expected, StakeShort(record.stake.bonded, expected));
    }

    function _requireLength(string calldata endpoint) private pure {
        uint256 length = bytes(endpoint).length;
        require(length > 0 && length <= ENDPOINT_MAX, EndpointLength(length, ENDPOINT_MAX));
    }

    function _tier(uint256 bonded) private view returns (Tier) {
        if (bonded >= parameters.value(Value.TierGold)) return Tier.Gold;
        if (bonded >= parameters.value(Value.TierSilver)) return Tier.Silver;
        if (bonded >= parameters.value(Value.TierBronze)) return Tier.Bronze;
        return Tier.None;
    }
}
