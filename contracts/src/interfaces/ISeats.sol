// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice One seat in the consensus of the chain that the contracts stand on.
struct Seat {
    /// Ed25519 public key that signs votes and blocks.
    bytes32 key;
    /// Whose stake answers for the key.
    address owner;
    /// Votes of the seat. One vote per seat today, so always 1; the field is where a draw weighted by
    /// proven compute would put its result.
    uint96 weight;
    /// Where the validator listens, as `host:port`.
    string socket;
}

/// @notice Who sits in the consensus: the owners with the most stake among those who asked for a seat, and first
/// seats as long as these are fewer than the first seats were.
/// @dev The chain reads `seats` from the state at the end of an epoch and seats exactly those, so what changes
/// in between is without effect until then. On other chains nobody reads it.
/// @dev Trust: who deploys names the first seats, and from then on stake does. A newcomer takes one first seat's
/// place, not all of them: with n first seats it takes n owners with `SeatStake` to replace them, and more than a
/// third of n to stop the chain. So a chain that strangers may join is deployed with four first seats or more; where
/// there is one, the first stranger with `SeatStake` is the only validator. First seats need no stake and are not
/// passed over for jail: the deployer's choice stands until stake replaces it.
interface ISeats {
    /// A deployment must give between one and `most` first seats.
    error GenesisSeats(uint256 found, uint256 most);
    /// The zero key signs nothing.
    error NoKey();
    /// The key belongs to `owner`, now and for ever, so that old evidence finds who answers for it.
    error KeyTaken(bytes32 key, address owner);
    /// A socket is one to `most` bytes long.
    error SocketLength(uint256 found, uint256 most);
    /// All places on the list are held with at least as much stake as the caller's.
    error SeatsFull(uint256 found, uint256 weakest);
    /// The account is not on the list.
    error NoSeat(address owner);
    /// The chain does not confirm the evidence, or this chain cannot judge it.
    error EvidenceRefused();
    /// This key was punished for this epoch before.
    error AlreadyPunished(bytes32 key, uint64 epoch);

    /// An owner asks for a seat, or changed key or socket.
    event SeatTaken(address indexed owner, bytes32 indexed key, string socket);
    /// An owner is off the list: by its own wish, displaced by more stake, or for equivocation.
    event SeatLeft(address indexed owner, bytes32 indexed key);
    /// A key signed two things of which it may sign one; its owner was punished.
    event Equivocated(address indexed owner, bytes32 indexed key, uint64 epoch, address reporter);

    /// @notice Asks for a seat with `key`, or changes key and socket of the one asked for.
    /// @dev The caller is a registered owner, not jailed, with at least `SeatStake` bonded. The list of those who
    /// ask is bounded; when it is full, the newcomer takes the place of the one with the least stake if it has
    /// more.
    /// @dev Trust: an Ed25519 signature is not checked here. Who takes a stranger's key gains no vote, since it
    /// cannot sign, and answers for what that key signs; the stranger takes another key.
    /// @param key Ed25519 public key, not zero, and never used by another owner.
    /// @param socket Where the validator listens, 1 to 256 bytes.
    function takeSeat(bytes32 key, string calldata socket) external;

    /// @notice Takes the caller off the list. What its key signed so far can still be punished.
    function leaveSeat() external;

    /// @notice Punishes the owner of a key that signed two things of which it may sign one: `SlashMost` of its
    /// stake at risk, jail, and the seat; once per key and epoch.
    /// @dev Anyone may call, and is paid the challenger's share. The chain itself judges `evidence`, by a
    /// precompile; a chain without it refuses all evidence. The first seats may have no stake: then nothing is
    /// slashed, and the verdict stands in the log.
    /// @param evidence What the chain's consensus engine recorded, in its own encoding.
    function reportEquivocation(bytes calldata evidence) external;

    /// @notice The seats as an epoch that ends now would draw them: never none, at most `Seats`.
    /// @dev Most stake first, equal stakes by the lower address: the order is part of the agreement. Owners who
    /// are jailed or hold less than `SeatStake` are passed over. While fewer are left than there were first seats,
    /// first seats follow up to that number, in the order of the deployment; one whose key or owner sits by stake
    /// does not sit again. Only if the deployment gave one owner several may it then sit with another key of them.
    function seats() external view returns (Seat[] memory);

    /// @notice Whose key this is or was; zero for nobody's.
    function ownerOfKey(bytes32 key) external view returns (address);

    /// @notice How many ask for a seat, seated or not; bounded.
    function candidates() external view returns (uint256);
}
