// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISeats, Seat} from "./interfaces/ISeats.sol";

/// @notice The part of `Providers` that the chain itself reads: who sits in its consensus.
/// @dev Knows stakes through two questions to the contract it is part of: what an owner has to vote with, and to
/// punish it. The list of those who ask for a seat is kept unsorted and bounded; `seats` sorts it, which costs
/// gas only where a contract calls it, and the chain does not.
abstract contract Seats is ISeats {
    /// Where the chain judges evidence of equivocation: in `abi.encode(key, epoch)` out of its own encoding.
    address public constant EQUIVOCATION = 0x000000000000000000000000000000000000A551;
    /// Owners on the list at once: some more than can sit, so that there is somebody to move up.
    uint256 public constant CANDIDATES_MAX = 128;
    /// Longest socket, in bytes.
    uint256 public constant SOCKET_MAX = 256;
    /// Most first seats, as many as can ever sit.
    uint256 private constant GENESIS_MAX = 100;
    /// What `Equivocated` slashes are logged under.
    bytes32 internal constant EQUIVOCATION_REASON = "equivocation";

    /// Somebody's wish to sit.
    struct Wish {
        bytes32 key;
        string socket;
        /// Position on the list plus one; zero if not on it.
        uint256 place;
    }

    Seat[] private _genesis;
    address[] private _list;
    mapping(address owner => Wish) private _wishes;
    mapping(bytes32 key => address) private _ownerOfKey;
    mapping(bytes32 key => mapping(uint64 epoch => bool)) private _punished;

    /// @param genesis The first seats. They fill the draw up to their number, and their owners' stakes answer for
    /// their keys like all others. A weight given here is ignored: one vote per seat.
    constructor(Seat[] memory genesis) {
        require(genesis.length > 0 && genesis.length <= GENESIS_MAX, GenesisSeats(genesis.length, GENESIS_MAX));
        for (uint256 i = 0; i < genesis.length; i++) {
            Seat memory seat = genesis[i];
            require(seat.owner != address(0), NoSeat(seat.owner));
            require(_ownerOfKey[seat.key] == address(0), KeyTaken(seat.key, _ownerOfKey[seat.key]));
            _bindKey(seat.key, seat.owner, bytes(seat.socket).length);
            seat.weight = 1;
            _genesis.push(seat);
        }
    }

    /// @dev Stake that `owner` votes with, base units of ASY; fails if it may not sit.
    function _requireVoting(address owner) internal view virtual returns (uint256);

    /// @dev Stake that `owner` votes with, base units of ASY; zero if it may not sit.
    function _voting(address owner) internal view virtual returns (uint256);

    /// @dev Slashes `SlashMost` of `owner`'s stake and jails it, if it is a provider at all.
    function _punish(address owner, address challenger, bytes32 reason) internal virtual;

    /// @dev How many may sit.
    function _seatsMax() internal view virtual returns (uint256);

    /// @inheritdoc ISeats
    function takeSeat(bytes32 key, string calldata socket) external {
        uint256 stake = _requireVoting(msg.sender);
        address holder = _ownerOfKey[key];
        require(holder == address(0) || holder == msg.sender, KeyTaken(key, holder));
        _bindKey(key, msg.sender, bytes(socket).length);

        Wish storage wish = _wishes[msg.sender];
        if (wish.place == 0) _enlist(msg.sender, wish, stake);
        wish.key = key;
        wish.socket = socket;
        emit SeatTaken(msg.sender, key, socket);
    }

    /// @inheritdoc ISeats
    function leaveSeat() external {
        require(_wishes[msg.sender].place != 0, NoSeat(msg.sender));
        _remove(msg.sender);
    }

    /// @inheritdoc ISeats
    function reportEquivocation(bytes calldata evidence) external {
        (bytes32 key, uint64 epoch) = _judge(evidence);
        address owner = _ownerOfKey[key];
        require(owner != address(0), EvidenceRefused());
        require(!_punished[key][epoch], AlreadyPunished(key, epoch));

        _punished[key][epoch] = true;
        if (_wishes[owner].place != 0) _remove(owner);
        emit Equivocated(owner, key, epoch, msg.sender);
        _punish(owner, msg.sender, EQUIVOCATION_REASON);
    }

    /// @inheritdoc ISeats
    function seats() external view returns (Seat[] memory drawn) {
        uint256 most = _seatsMax();
        address[] memory sorted = _sorted(most);
        uint256 wanted = _genesis.length < most ? _genesis.length : most;
        drawn = new Seat[](sorted.length < wanted ? wanted : sorted.length);
        for (uint256 i = 0; i < sorted.length; i++) {
            Wish storage wish = _wishes[sorted[i]];
            drawn[i] = Seat(wish.key, sorted[i], 1, wish.socket);
        }
        _fill(drawn, sorted.length);
    }

    /// @inheritdoc ISeats
    function ownerOfKey(bytes32 key) external view returns (address) {
        return _ownerOfKey[key];
    }

    /// @inheritdoc ISeats
    function candidates() external view returns (uint256) {
        return _list.length;
    }

    /// Binds `key` to `owner` for good.
    function _bindKey(bytes32 key, address owner, uint256 socket) private {
        require(key != 0, NoKey());
        require(socket > 0 && socket <= SOCKET_MAX, SocketLength(socket, SOCKET_MAX));
        _ownerOfKey[key] = owner;
    }

    /// Puts `owner` on the list; when it is full, in the place of the one with the least stake.
    function _enlist(address owner, Wish storage wish, uint256 stake) private {
        if (_list.length == CANDIDATES_MAX) {
            (address weakest, uint256 least) = _weakest();
            require(stake > least, SeatsFull(stake, least));
            _remove(weakest);
        }
        _list.push(owner);
        wish.place = _list.length;
    }

    function _weakest() private view returns (address weakest, uint256 least) {
        least = type(uint256).max;
        for (uint256 i = 0; i < _list.length; i++) {
            uint256 stake = _voting(_list[i]);
            if (stake < least) (weakest, least) = (_list[i], stake);
        }
    }

    /// Takes `owner` off the list; the last one moves into the gap.
    function _remove(address owner) private {
        Wish storage wish = _wishes[owner];
        address last = _list[_list.length - 1];
        _list[wish.place - 1] = last;
        _wishes[last].place = wish.place;
        _list.pop();
        emit SeatLeft(owner, wish.key);
        delete _wishes[owner];
    }

    /// At most `most` owners who may sit: most stake first, equal stakes by the lower address.
    function _sorted(uint256 most) private view returns (address[] memory sorted) {
        uint256 length = _list.length;
        sorted = new address[](length);
        uint256[] memory stakes = new uint256[](length);
        uint256 found = 0;
        for (uint256 i = 0; i < length; i++) {
            address owner = _list[i];
            uint256 stake = _voting(owner);
            if (stake == 0) continue;
            uint256 at = found++;
            for (; at > 0 && _before(stake, owner, stakes[at - 1], sorted[at - 1]); at--) {
                (stakes[at], sorted[at]) = (stakes[at - 1], sorted[at - 1]);
            }
            (stakes[at], sorted[at]) = (stake, owner);
        }
        uint256 seated = found < most ? found : most;
        // Shortens the array in place: `seated` is at most its length.
        assembly ("memory-safe") {
            mstore(sorted, seated)
        }
    }

    /// Fills what stake leaves empty of `drawn` with first seats, in their order.
    /// @dev Owners that sit by stake come last, with keys of which they gave several: so nobody has two votes for
    /// a seat of his own while another first seat is free, and there are always enough.
    function _fill(Seat[] memory drawn, uint256 staked) private view {
        uint256 seated = staked;
        for (uint256 pass = 0; pass < 2; pass++) {
            for (uint256 i = 0; i < _genesis.length && seated < drawn.length; i++) {
                Seat storage first = _genesis[i];
                bool free = true;
                for (uint256 k = 0; k < seated && free; k++) {
                    bool owns = pass == 0 && k < staked && drawn[k].owner == first.owner;
                    free = drawn[k].key != first.key && !owns;
                }
                if (free) drawn[seated++] = first;
            }
        }
    }

    function _before(uint256 stake, address owner, uint256 otherStake, address other) private pure returns (bool) {
        return stake > otherStake || (stake == otherStake && owner < other);
    }

    /// Asks the chain whose key signed twice, and when.
    function _judge(bytes calldata evidence) private view returns (bytes32 key, uint64 epoch) {
        // Foreign code by nature: an answer of any other length than two words is a refusal.
        (bool ok, bytes memory answer) = EQUIVOCATION.staticcall(evidence);
        require(ok && answer.length == 64, EvidenceRefused());
        uint256 number;
        (key, number) = abi.decode(answer, (bytes32, uint256));
        require(number <= type(uint64).max, EvidenceRefused());
        epoch = uint64(number);
    }
}
