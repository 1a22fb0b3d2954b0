// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Where an auditor's part in a beacon stands.
enum Part {
    Committed,
    Revealed,
    /// It did not reveal, and has paid for that.
    Missed
}

/// @notice One auditor's part in one beacon.
struct Vow {
    bytes32 commitment;
    address auditor;
    Part part;
}

/// @notice An auditor's money.
struct Auditor {
    /// What it stands to lose, base units of ASY.
    uint128 stake;
    /// From when on it may take that out, unix seconds; zero unless it is leaving.
    uint48 release;
    /// The last epoch for whose beacon it committed; zero before the first.
    uint48 committed;
}

/// @notice What chance says about a posted receipt.
struct Draw {
    /// The epoch that the receipt was posted in.
    uint256 epoch;
    /// Whether it is to be checked.
    bool drawn;
    /// By whom; the second is zero where the first is the only auditor. Both zero if it was not drawn.
    address first;
    address second;
}

/// @notice Auditors, their bonds, and the beacons by which posted receipts are drawn for them.
/// @dev docs/protocol/audits.md is the specification. Time is divided in epochs of one length; epoch n is the time from
/// n lengths after the unix epoch on. What is posted in epoch n is drawn by beacon n. For that beacon auditors commit to secrets
/// in epoch n, and reveal them in epoch n + 1, when nothing can be posted in epoch n any more; so nobody who posts knows a
/// beacon that draws from it, and each receipt is drawn by exactly one beacon. From epoch n + 2 on the draw stands.
/// @dev A beacon follows from what was revealed, in whatever order that happened. Who commits and does not reveal can
/// choose between two beacons, and pays for it. Two parties at least have to reveal for a beacon that neither has made
/// alone; `revealedOf` says how many addresses did, which may all be one party's.
/// @dev Money: holds each auditor's stake in ASY. It leaves to the auditor, or is taken and burned.
interface IBeacons {
    /// A term is outside what the bytecode allows.
    error OutOfBounds(uint256 found, uint256 least, uint256 most);
    /// The stake is below the bond, or there is none.
    error StakeTooSmall(address auditor, uint256 found, uint256 least);
    /// The auditor is leaving.
    error Leaving(address auditor, uint256 release);
    /// The auditor is not leaving.
    error NotLeaving(address auditor);
    /// This can be done from `due` on, unix seconds.
    error TooEarly(uint256 found, uint256 due);
    /// The present epoch is not the one for this.
    error WrongEpoch(uint256 found, uint256 expected);
    /// The auditor has committed for this epoch.
    error AlreadyCommitted(address auditor, uint256 epoch);
    /// Fewer auditors committed.
    error NoSuchPlace(uint256 found, uint256 count);
    /// The place is another auditor's.
    error NotYours(address found, address expected);
    /// The part was revealed, or paid for, before.
    error WrongPart(Part found, Part expected);
    /// The secret is not what was committed to.
    error WrongSecret(bytes32 found, bytes32 expected);
    /// The draw does not stand before epoch `due`.
    error NotDrawnYet(uint256 found, uint256 due);
    /// The period has fewer receipts.
    error NoSuchReceipt(uint256 found, uint256 count);

    /// An auditor put something in.
    event Joined(address indexed auditor, uint256 amount, uint256 stake);
    /// An auditor takes no part any more.
    event Left(address indexed auditor, uint256 release);
    /// An auditor took its stake out.
    event Withdrawn(address indexed auditor, uint256 amount);
    /// An auditor committed to its secret for an epoch's beacon.
    event SecretCommitted(uint256 indexed epoch, address indexed auditor, uint256 place, bytes32 commitment);
    /// It revealed the secret.
    event SecretRevealed(uint256 indexed epoch, address indexed auditor, bytes32 secret);
    /// Something was taken from an auditor.
    event Fined(address indexed auditor, uint256 amount, bytes32 reason);

    /// @notice Adds to the caller's stake; the allowance must suffice. With `bond` in it, it may commit.
    function join(uint128 amount) external;

    /// @notice Ends the caller's part: it commits no more, and may take its stake out after `UnbondingDelay` and
    /// `LEAVING` epochs, when nothing that it has done can be held against it any more.
    function leave() external;

    /// @notice Pays the stake of a caller that has left out to it.
    function withdraw() external returns (uint256 amount);

    /// @notice Commits to a secret for the beacon of the present epoch.
    /// @param commitment keccak256(abi.encode(secret, auditor, epoch)); the secret is 32 bytes of chance.
    /// @return place The caller's place in the roll, with which it reveals.
    function commit(uint256 epoch, bytes32 commitment) external returns (uint256 place);

    /// @notice Reveals a secret, in the epoch after the one that it was committed in.
    function reveal(uint256 epoch, uint256 place, bytes32 secret) external;

    /// @notice Burns a share of the bond of an auditor that did not reveal. Anyone may, from the second epoch on.
    function miss(uint256 epoch, uint256 place) external;

    /// @notice What chance says about a posted receipt. Fails before it can be known.
    function drawOf(address provider, uint256 period, uint256 index) external view returns (Draw memory);

    /// @notice The beacon of an epoch: keccak256(abi.encode(epoch, exclusive or of all revealed secrets)). Final from the
    /// second epoch on; draws nothing if nobody revealed.
    function beaconOf(uint256 epoch) external view returns (bytes32);

    /// @notice How many auditors revealed, and whether they are two or more: with one, draws work, but are that one's
    /// choice.
    function revealedOf(uint256 epoch) external view returns (uint256 count, bool sound);

    /// @notice Who committed for an epoch's beacon, in order.
    function rollOf(uint256 epoch) external view returns (Vow[] memory);

    /// @notice An auditor; all zero if it never was one.
    function auditorOf(address auditor) external view returns (Auditor memory);

    /// @notice The present epoch.
    function epochNow() external view returns (uint256);

    /// @notice Length of an epoch, seconds.
    function epochLength() external view returns (uint256);
}
