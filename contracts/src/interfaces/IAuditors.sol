// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice What an auditor found.
enum Verdict {
    None,
    /// The receipt's last state follows from order, output and model.
    True,
    /// It does not, or the receipt contradicts its order or itself.
    False,
    /// The provider gave nothing to check.
    Silent,
    /// The order lets no stranger check the answer, or nobody can recompute it.
    Unable
}

/// @notice A verdict about a posted receipt, as its auditor reveals it.
struct Said {
    address provider;
    uint256 period;
    uint256 index;
    Verdict verdict;
}

/// @notice What is kept of one auditor's verdict.
struct Opinion {
    Verdict verdict;
    bool paid;
    bool fined;
}

/// @notice What one auditor did about all that one epoch drew for it.
struct Attendance {
    bytes32 commitment;
    bool revealed;
    bool fined;
    /// Verdicts that were paid.
    uint32 paid;
}

/// @notice A posted receipt, shown to be at its place.
struct Place {
    address provider;
    uint256 period;
    uint256 index;
    /// The receipt's digest, and its siblings in the period's tree.
    bytes32 receipt;
    bytes32[] proof;
}

/// @notice What drawn auditors say about posted receipts, what they are paid for it, and what it costs to say what is
/// not so.
/// @dev What epoch n drew is judged in epoch n + 2: each auditor commits to one list of all its verdicts, and reveals it in
/// epoch n + 3, so nobody can copy another's, or choose among its own. Money follows from epoch n + 4 on.
/// @dev Whoever says True answers for it with a share of its bond. Of an unveiled canary it loses that, whenever it turns
/// out: a canary is false by construction. Of a receipt that the arbiter found false it loses at most half of what was burned
/// of the provider for it: a provider can have itself convicted of a true receipt, and the two auditors that called it true
/// must not lose more by that than it has.
/// @dev Money: holds stakes, and a pool that anyone funds. A verdict is paid once: True, if it stands alone or the other
/// auditor did not say False, of what was not found false; False, of what was. What is taken from an auditor is burned, but
/// for half of what a canary takes, which goes to who planted it.
/// @dev Trust: who is arbiter of `Parameters` says what was found false and what was burned for it, and so can have those
/// who said True lose half a bond for each.
interface IAuditors {
    /// The auditor has committed to a list for this epoch.
    error AlreadyJudged(address auditor, uint256 epoch);
    /// The list is not what was committed to.
    error WrongList(bytes32 found, bytes32 expected);
    /// A list says nothing about a place, or says it twice.
    error BadVerdict(address provider, uint256 period, uint256 index);
    /// The auditor was not drawn for this receipt by this epoch's beacon.
    error NotDrawnFor(address auditor, uint256 epoch);
    /// The auditor revealed its list, or was fined before.
    error NotAbsent(address auditor, uint256 epoch);
    /// The period has another receipt at this place.
    error NotThere(bytes32 receipt);
    /// The verdict was paid, or is not one that is.
    error NothingEarned(Verdict verdict);
    /// The verdict was fined, or is not one that can be.
    error NothingToFine(Verdict verdict);
    /// The auditor was paid for as many verdicts of the epoch as one can be.
    error EnoughPaid(uint256 most);
    /// The pool has less than a fee.
    error PoolEmpty(uint256 found, uint256 fee);

    /// The pool has more.
    event Funded(address indexed by, uint256 amount, uint256 pool);
    /// An auditor committed to its verdicts.
    event VerdictsCommitted(uint256 indexed epoch, address indexed auditor, bytes32 commitment);
    /// An auditor's verdict.
    event VerdictRevealed(
        address indexed provider, uint256 indexed period, uint256 indexed index, address auditor, Verdict verdict
    );
    /// A verdict was paid.
    event VerdictPaid(bytes32 indexed key, address indexed auditor, uint256 amount);

    /// @notice Adds to the pool that verdicts are paid from. There is no way out but verdicts.
    function fund(uint256 amount) external;

    /// @notice Commits to the caller's verdicts on all that the epoch drew for it.
    /// @param commitment keccak256(abi.encode(list, salt, auditor, epoch)).
    function commitVerdicts(uint256 epoch, bytes32 commitment) external;

    /// @notice Reveals them. An empty list says that there was nothing to check.
    function revealVerdicts(uint256 epoch, Said[] calldata list, bytes32 salt) external;

    /// @notice Pays a verdict. Anyone may.
    function pay(address auditor, Place calldata place) external;

    /// @notice Fines an auditor that was drawn for something in an epoch, and revealed nothing about anything. Once for an
    /// epoch. Anyone may.
    function absent(address auditor, address provider, uint256 period, uint256 index) external;

    /// @notice Fines an auditor that called a canary true. Anyone may.
    function careless(address auditor, Place calldata place) external;

    /// @notice Fines an auditor that called true what the arbiter found false, once the provider's stake was slashed for it.
    /// Anyone may.
    function mistaken(address auditor, Place calldata place) external;

    /// @notice An auditor's verdict about a place; all zero if it revealed none.
    function opinionOf(address auditor, address provider, uint256 period, uint256 index)
        external
        view
        returns (Opinion memory);

    /// @notice What an auditor did about an epoch.
    function attendanceOf(address auditor, uint256 epoch) external view returns (Attendance memory);

    /// @notice What verdicts can be paid from.
    function pool() external view returns (uint256);
}
