// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Auditor, Draw, IBeacons, Part, Vow} from "./interfaces/IBeacons.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {IReceipts, Period} from "./interfaces/IReceipts.sol";

/// @notice What a network of auditors is deployed with.
struct Terms {
    /// What an auditor has to have in to commit, base units of ASY.
    uint256 bond;
    /// Length of an epoch, seconds: what three transactions of every auditor need, and five below the dispute window.
    uint256 epochLength;
    /// Share of posted receipts that is drawn, basis points.
    uint256 rate;
    /// What a verdict is paid, base units of ASY, and how many of an epoch one auditor is paid at most.
    uint256 fee;
    uint256 feesMost;
}

/// @notice Auditors, beacons and draws: see `IBeacons`. With `Auditors`, what they say about what was drawn.
/// @dev Its balance is at least the sum of all stakes. ASY is our own token and calls nobody back, and tokens still move
/// last.
abstract contract Beacons is IBeacons {
    using SafeERC20 for ERC20Burnable;

    uint256 public constant BOND_MIN = 1e18;
    uint256 public constant BOND_MAX = 1_000_000e18;
    uint256 public constant EPOCH_MIN = 4;
    uint256 public constant EPOCH_MAX = 1 days;
    uint256 internal constant BPS = 10_000;
    /// What not to reveal costs, bps of the bond: the price of a second choice of a beacon.
    uint256 public constant MISSED = 1000;
    /// Epochs after which nothing is owed for the one in which an auditor left.
    uint256 public constant LEAVING = 5;
    /// Places that are tried by chance before the next one that revealed is taken. Only where most who commit do not
    /// reveal are as many needed.
    uint256 private constant TRIES = 32;

    /// What stakes are in: the ASY token.
    ERC20Burnable public immutable token;
    /// Where delays and the arbiter are read.
    IParameters public immutable parameters;
    /// Where what is drawn was posted.
    IReceipts public immutable receipts;
    /// What an auditor has to have in to commit.
    uint256 public immutable bond;
    /// @inheritdoc IBeacons
    uint256 public immutable epochLength;
    /// Share of posted receipts that is drawn, bps.
    uint256 public immutable rate;

    mapping(address auditor => Auditor) private _auditors;
    mapping(uint256 epoch => Vow[]) private _rolls;
    /// Exclusive or of what was revealed, and by how many.
    mapping(uint256 epoch => bytes32) private _mixes;
    mapping(uint256 epoch => uint256) private _revealed;

    constructor(ERC20Burnable token_, IParameters parameters_, IReceipts receipts_, Terms memory terms) {
        _requireWithin(terms.bond, BOND_MIN, BOND_MAX);
        _requireWithin(terms.epochLength, EPOCH_MIN, EPOCH_MAX);
        _requireWithin(terms.rate, 1, BPS);
        (token, parameters, receipts) = (token_, parameters_, receipts_);
        (bond, epochLength, rate) = (terms.bond, terms.epochLength, terms.rate);
    }

    // Who audits.

    /// @inheritdoc IBeacons
    function join(uint128 amount) external {
        Auditor storage auditor = _auditors[msg.sender];
        require(auditor.release == 0, Leaving(msg.sender, auditor.release));
        auditor.stake += amount;
        emit Joined(msg.sender, amount, auditor.stake);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IBeacons
    function leave() external {
        Auditor storage auditor = _auditors[msg.sender];
        require(auditor.release == 0, Leaving(msg.sender, auditor.release));
        require(auditor.stake != 0, StakeTooSmall(msg.sender, 0, 1));
        uint256 release = block.timestamp + parameters.value(Value.UnbondingDelay) + LEAVING * epochLength;
        auditor.release = uint48(release);
        emit Left(msg.sender, release);
    }

    /// @inheritdoc IBeacons
    function withdraw() external returns (uint256 amount) {
        Auditor storage auditor = _auditors[msg.sender];
        uint256 release = auditor.release;
        require(release != 0, NotLeaving(msg.sender));
        require(block.timestamp >= release, TooEarly(block.timestamp, release));
        amount = auditor.stake;
        (auditor.stake, auditor.release) = (0, 0);
        emit Withdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    // Beacons.

    /// @inheritdoc IBeacons
    function commit(uint256 epoch, bytes32 commitment) external returns (uint256 place) {
        _requireNow(epoch);
        Auditor storage auditor = _auditors[msg.sender];
        require(auditor.release == 0, Leaving(msg.sender, auditor.release));
        require(auditor.stake >= bond, StakeTooSmall(msg.sender, auditor.stake, bond));
        require(auditor.committed != epoch, AlreadyCommitted(msg.sender, epoch));
        auditor.committed = uint48(epoch);
        place = _rolls[epoch].length;
        _rolls[epoch].push(Vow(commitment, msg.sender, Part.Committed));
        emit SecretCommitted(epoch, msg.sender, place, commitment);
    }

    /// @inheritdoc IBeacons
    function reveal(uint256 epoch, uint256 place, bytes32 secret) external {
        _requireNow(epoch + 1);
        Vow storage vow = _vowAt(epoch, place);
        require(vow.auditor == msg.sender, NotYours(msg.sender, vow.auditor));
        bytes32 found = keccak256(abi.encode(secret, msg.sender, epoch));
        require(found == vow.commitment, WrongSecret(found, vow.commitment));
        vow.part = Part.Revealed;
        _mixes[epoch] ^= secret;
        ++_revealed[epoch];
        emit SecretRevealed(epoch, msg.sender, secret);
    }

    /// @inheritdoc IBeacons
    function miss(uint256 epoch, uint256 place) external {
        _requireSince(epoch + 2);
        Vow storage vow = _vowAt(epoch, place);
        vow.part = Part.Missed;
        token.burn(_fine(vow.auditor, bond * MISSED / BPS, "missed"));
    }

    // Reading.

    /// @inheritdoc IBeacons
    function drawOf(address provider, uint256 period, uint256 index) public view returns (Draw memory draw) {
        Period memory posted = receipts.periodOf(provider, period);
        require(index < posted.count, NoSuchReceipt(index, posted.count));
        draw.epoch = posted.posted / epochLength;
        require(epochNow() >= draw.epoch + 2, NotDrawnYet(epochNow(), draw.epoch + 2));
        uint256 revealed = _revealed[draw.epoch];
        bytes32 seed = keccak256(abi.encode(beaconOf(draw.epoch), provider, period, index));
        draw.drawn = revealed != 0 && uint256(seed) % BPS < rate;
        if (!draw.drawn) return draw;
        Vow[] storage roll = _rolls[draw.epoch];
        draw.first = _choose(roll, seed, 0, address(0));
        if (revealed > 1) draw.second = _choose(roll, seed, TRIES, draw.first);
    }

    /// @inheritdoc IBeacons
    function beaconOf(uint256 epoch) public view returns (bytes32) {
        return keccak256(abi.encode(epoch, _mixes[epoch]));
    }

    /// @inheritdoc IBeacons
    function revealedOf(uint256 epoch) external view returns (uint256 count, bool sound) {
        count = _revealed[epoch];
        sound = count > 1;
    }

    /// @inheritdoc IBeacons
    function rollOf(uint256 epoch) external view returns (Vow[] memory) {
        return _rolls[epoch];
    }

    /// @inheritdoc IBeacons
    function auditorOf(address auditor) external view returns (Auditor memory) {
        return _auditors[auditor];
    }

    /// @inheritdoc IBeacons
    function epochNow() public view returns (uint256) {
        return block.timestamp / epochLength;
    }

    /// One of those who revealed, all alike likely, but `other`.
    /// @param from Number of the first try.
    /// @dev The order of the roll stood before the first secret was known, so nobody can choose its place.
    function _choose(Vow[] storage roll, bytes32 seed, uint256 from, address other) private view returns (address) {
        uint256 count = roll.length;
        uint256 place;
        for (uint256 i = from; i < from + TRIES; ++i) {
            place = uint256(keccak256(abi.encode(seed, i))) % count;
            if (_isEligible(roll[place], other)) return roll[place].auditor;
        }
        while (!_isEligible(roll[place], other)) {
            place = (place + 1) % count;
        }
        return roll[place].auditor;
    }

    function _isEligible(Vow storage vow, address other) private view returns (bool) {
        return vow.part == Part.Revealed && vow.auditor != other;
    }

    // For those who hold auditors to account.

    /// Takes so much, or what is left, out of an auditor's stake; what becomes of it is the caller's affair.
    function _fine(address auditor, uint256 most, bytes32 reason) internal returns (uint256 amount) {
        uint256 stake = _auditors[auditor].stake;
        amount = most < stake ? most : stake;
        _auditors[auditor].stake = uint128(stake - amount);
        emit Fined(auditor, amount, reason);
    }

    function _requireNow(uint256 epoch) internal view {
        require(epochNow() == epoch, WrongEpoch(epochNow(), epoch));
    }

    function _requireSince(uint256 epoch) internal view {
        require(epochNow() >= epoch, WrongEpoch(epochNow(), epoch));
    }

    function _requireWithin(uint256 found, uint256 least, uint256 most) internal pure {
        require(least <= found && found <= most, OutOfBounds(found, least, most));
    }

    /// A part that was neither revealed nor paid for.
    function _vowAt(uint256 epoch, uint256 place) private view returns (Vow storage vow) {
        uint256 count = _rolls[epoch].length;
        require(place < count, NoSuchPlace(place, count));
        vow = _rolls[epoch][place];
        require(vow.part == Part.Committed, WrongPart(vow.part, Part.Committed));
    }
}
