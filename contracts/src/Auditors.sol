// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {Beacons, Terms} from "./Beacons.sol";
import {Attendance, IAuditors, Opinion, Place, Said, Verdict} from "./interfaces/IAuditors.sol";
import {Draw} from "./interfaces/IBeacons.sol";
import {ICanaries, Plant} from "./interfaces/ICanaries.sol";
import {IDisputes} from "./interfaces/IDisputes.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IReceipts} from "./interfaces/IReceipts.sol";

/// @title Auditors
/// @notice What drawn auditors say, are paid, and lose: see `IAuditors`; with `Beacons`, who they are.
/// @dev One contract holds the bond and judges by it, so nobody else needs the right to touch it. It knows no arbiter of
/// its own: whoever holds that office in `Parameters` is asked what was found false, as the registry of stakes obeys it.
/// `multicall` makes one transaction an epoch of a node's four duties.
contract Auditors is IAuditors, Beacons, Multicall {
    using SafeERC20 for ERC20Burnable;

    /// What a verdict may be paid, base units of ASY.
    uint256 public constant FEE_MAX = 1000e18;
    /// Shares of the bond, bps: for saying nothing of a whole epoch, and for saying True of what is false.
    uint256 public constant ABSENT = 200;
    uint256 public constant FALSEHOOD = 5000;

    /// What is false on purpose.
    ICanaries public immutable canaries;
    /// What a verdict is paid.
    uint256 public immutable fee;
    /// How many of one epoch an auditor is paid: what bounds the worth of receipts posted only to be drawn.
    uint256 public immutable feesMost;

    /// @inheritdoc IAuditors
    uint256 public pool;
    mapping(bytes32 key => mapping(address auditor => Opinion)) private _opinions;
    mapping(uint256 epoch => mapping(address auditor => Attendance)) private _attendances;

    constructor(
        ERC20Burnable token_,
        IParameters parameters_,
        IReceipts receipts_,
        ICanaries canaries_,
        Terms memory terms
    ) Beacons(token_, parameters_, receipts_, terms) {
        _requireWithin(terms.fee, 0, FEE_MAX);
        canaries = canaries_;
        (fee, feesMost) = (terms.fee, terms.feesMost);
    }

    /// @inheritdoc IAuditors
    function fund(uint256 amount) external {
        pool += amount;
        emit Funded(msg.sender, amount, pool);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    // Verdicts.

    /// @inheritdoc IAuditors
    function commitVerdicts(uint256 epoch, bytes32 commitment) external {
        _requireNow(epoch + 2);
        Attendance storage attendance = _attendances[epoch][msg.sender];
        require(attendance.commitment == 0, AlreadyJudged(msg.sender, epoch));
        attendance.commitment = commitment;
        emit VerdictsCommitted(epoch, msg.sender, commitment);
    }

    /// @inheritdoc IAuditors
    function revealVerdicts(uint256 epoch, Said[] calldata list, bytes32 salt) external {
        _requireNow(epoch + 3);
        Attendance storage attendance = _attendances[epoch][msg.sender];
        require(!attendance.revealed, AlreadyJudged(msg.sender, epoch));
        bytes32 found = keccak256(abi.encode(list, salt, msg.sender, epoch));
        require(found == attendance.commitment, WrongList(found, attendance.commitment));
        attendance.revealed = true;
        for (uint256 i; i < list.length; ++i) {
            _say(epoch, list[i]);
        }
    }

    // Money.

    /// @inheritdoc IAuditors
    function pay(address auditor, Place calldata place) external {
        Draw memory draw = _ended(auditor, place.provider, place.period, place.index);
        Opinion storage opinion = _opinionAt(auditor, place);
        (bool guilty, address planter) = _findings(place, draw.epoch);
        bool false_ = guilty || planter != address(0);
        bool earned = opinion.verdict == Verdict.False && false_;
        if (opinion.verdict == Verdict.True && !false_) {
            address other = auditor == draw.first ? draw.second : draw.first;
            earned = _opinionAt(other, place).verdict != Verdict.False;
        }
        require(earned && !opinion.paid, NothingEarned(opinion.verdict));
        Attendance storage attendance = _attendances[draw.epoch][auditor];
        require(attendance.paid < feesMost, EnoughPaid(feesMost));
        require(pool >= fee, PoolEmpty(pool, fee));
        opinion.paid = true;
        ++attendance.paid;
        pool -= fee;
        emit VerdictPaid(_key(place.provider, place.period, place.index), auditor, fee);
        token.safeTransfer(auditor, fee);
    }

    /// @inheritdoc IAuditors
    function absent(address auditor, address provider, uint256 period, uint256 index) external {
        uint256 epoch = _ended(auditor, provider, period, index).epoch;
        Attendance storage attendance = _attendances[epoch][auditor];
        require(!attendance.revealed && !attendance.fined, NotAbsent(auditor, epoch));
        attendance.fined = true;
        token.burn(_fine(auditor, bond * ABSENT / BPS, "absent"));
    }

    /// @inheritdoc IAuditors
    function careless(address auditor, Place calldata place) external {
        Draw memory draw = _ended(auditor, place.provider, place.period, place.index);
        (, address planter) = _findings(place, draw.epoch);
        Opinion storage opinion = _opinionAt(auditor, place);
        require(planter != address(0), NothingToFine(opinion.verdict));
        uint256 amount = _fineFalsehood(auditor, opinion, bond, "careless");
        token.burn(amount - amount / 2);
        token.safeTransfer(planter, amount / 2);
    }

    /// @inheritdoc IAuditors
    function mistaken(address auditor, Place calldata place) external {
        Draw memory draw = _ended(auditor, place.provider, place.period, place.index);
        (bool guilty,) = _findings(place, draw.epoch);
        Opinion storage opinion = _opinionAt(auditor, place);
        // Half of what the provider lost for good, since two auditors may have said True.
        uint256 most = guilty ? IDisputes(parameters.arbiter()).burnedOf(place.receipt) / 2 : 0;
        require(most != 0, NothingToFine(opinion.verdict));
        token.burn(_fineFalsehood(auditor, opinion, most, "mistaken"));
    }

    // Reading.

    /// @inheritdoc IAuditors
    function opinionOf(address auditor, address provider, uint256 period, uint256 index)
        external
        view
        returns (Opinion memory)
    {
        return _opinions[_key(provider, period, index)][auditor];
    }

    /// @inheritdoc IAuditors
    function attendanceOf(address auditor, uint256 epoch) external view returns (Attendance memory) {
        return _attendances[epoch][auditor];
    }

    /// Keeps one verdict of the caller's.
    function _say(uint256 epoch, Said calldata said) private {
        require(
            _drawnFor(msg.sender, said.provider, said.period, said.index).epoch == epoch, NotDrawnFor(msg.sender, epoch)
        );
        Opinion storage opinion = _opinions[_key(said.provider, said.period, said.index)][msg.sender];
        bool fresh = opinion.verdict == Verdict.None && said.verdict != Verdict.None;
        require(fresh, BadVerdict(said.provider, said.period, said.index));
        opinion.verdict = said.verdict;
        emit VerdictRevealed(said.provider, said.period, said.index, msg.sender, said.verdict);
    }

    /// What is known of a receipt: whether the arbiter found it false, and who planted it, if it is a canary that was
    /// planted before it was posted. The chain's own clock counts here, not the receipt's word.
    function _findings(Place calldata place, uint256 epoch) private view returns (bool guilty, address planter) {
        bool there = receipts.includes(place.provider, place.period, place.index, place.receipt, place.proof);
        require(there, NotThere(place.receipt));
        bytes32 commitment = canaries.canaryOf(place.receipt);
        if (commitment != 0) {
            Plant memory plant = canaries.plantOf(commitment);
            if (plant.planted / epochLength < epoch) planter = plant.funder;
        }
        address arbiter = parameters.arbiter();
        if (arbiter.code.length != 0) guilty = IDisputes(arbiter).caseOf(place.receipt).guilty;
    }

    /// Takes an auditor's share for a verdict, once.
    function _fineFalsehood(address auditor, Opinion storage opinion, uint256 most, bytes32 reason)
        private
        returns (uint256)
    {
        require(opinion.verdict == Verdict.True && !opinion.fined, NothingToFine(opinion.verdict));
        opinion.fined = true;
        uint256 amount = bond * FALSEHOOD / BPS;
        return _fine(auditor, amount < most ? amount : most, reason);
    }

    /// A draw for this auditor, about which all has been said.
    function _ended(address auditor, address provider, uint256 period, uint256 index)
        private
        view
        returns (Draw memory draw)
    {
        draw = _drawnFor(auditor, provider, period, index);
        _requireSince(draw.epoch + 4);
    }

    function _drawnFor(address auditor, address provider, uint256 period, uint256 index)
        private
        view
        returns (Draw memory draw)
    {
        draw = drawOf(provider, period, index);
        bool drawn = auditor != address(0) && (auditor == draw.first || auditor == draw.second);
        require(drawn, NotDrawnFor(auditor, draw.epoch));
    }

    function _opinionAt(address auditor, Place calldata place) private view returns (Opinion storage) {
        return _opinions[_key(place.provider, place.period, place.index)][auditor];
    }

    function _key(address provider, uint256 period, uint256 index) private pure returns (bytes32) {
        return keccak256(abi.encode(provider, period, index));
    }
}
