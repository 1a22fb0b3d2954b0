// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Unbonding} from "../libraries/Stakes.sol";

/// @notice How much a provider has at stake, by the thresholds in `Parameters`.
enum Tier {
    None,
    Bronze,
    Silver,
    Gold
}

/// @notice A provider as others see it.
struct Provider {
    /// Key that signs receipts and heartbeats now.
    address operator;
    /// Where its offers are found.
    string endpoint;
    /// Stake that counts, base units of ASY.
    uint128 bonded;
    /// Stake on its way out, base units of ASY: counts for nothing, and can be slashed.
    uint128 unbonding;
    /// By `bonded`.
    Tier tier;
    /// Last time it was heard of, unix seconds.
    uint64 heartbeat;
    /// When jail can be left at the earliest, unix seconds; zero if it is not in jail.
    uint64 jailedUntil;
}

/// @notice Who sells answers, where, and what they stand to lose.
/// @dev Two keys: the owner, kept cold, moves stake and names the operator; the operator, on the machine that
/// serves, signs receipts and heartbeats and can move nothing. An operator serves one owner for good, so a
/// receipt leads to a stake however often the key was changed since.
/// @dev Amounts are base units of ASY (1e-18), times are unix seconds, bps are 1/10,000. Shares are rounded down,
/// each in favour of who did not call: a slash for the one slashed, a reward for what is burned.
/// @dev Trust: the arbiter named by `Parameters` slashes within `SlashLeast` and `SlashMost`; nobody can move stake
/// anywhere but to its owner, to a challenger, or out of existence.
interface IProviders {
    /// No owner, or no operator, of this address is known.
    error NotRegistered(address account);
    /// The owner is registered.
    error AlreadyRegistered(address owner);
    /// One address cannot be both an owner and an operator.
    error KeysNotApart(address key);
    /// The operator serves `owner`, for good.
    error OperatorTaken(address operator, address owner);
    /// The operator has been replaced by `expected`.
    error NotOperator(address found, address expected);
    /// The operator's word was signed by somebody else; zero for a malformed signature.
    error WrongSigner(address found, address expected);
    /// An endpoint is one to `most` bytes long.
    error EndpointLength(uint256 found, uint256 most);
    /// More stake is needed than is bonded.
    error StakeShort(uint256 found, uint256 expected);
    /// The provider is in jail.
    error InJail(address owner, uint256 until);
    /// The provider is not in jail.
    error NotInJail(address owner);
    /// The provider was silent for `found` seconds, and may be for `limit`.
    error NotAbsent(uint256 found, uint256 limit);
    /// Only the arbiter passes verdicts.
    error NotArbiter(address found, address expected);
    /// A slash is a share between `least` and `most`, bps.
    error SlashOutOfBounds(uint256 found, uint256 least, uint256 most);

    /// A provider exists.
    event Registered(address indexed owner, address indexed operator, string endpoint);
    /// Another key signs for the owner from now on.
    event OperatorSet(address indexed owner, address indexed before, address indexed present);
    /// The provider is found elsewhere.
    event EndpointSet(address indexed owner, string endpoint);
    /// Stake was added; `bonded` is the sum.
    event Staked(address indexed owner, uint256 amount, uint256 bonded);
    /// Stake is on its way out, due at `release`; `bonded` is what is left.
    event Unbonded(address indexed owner, uint256 amount, uint256 bonded, uint256 release);
    /// Stake went back to its owner.
    event Withdrawn(address indexed owner, uint256 amount);
    /// Stake was taken: `reward` of `amount` was paid to `challenger`, the rest burned.
    event Slashed(
        address indexed owner, address indexed challenger, uint256 amount, uint256 reward, bytes32 indexed reason
    );
    /// The provider may not serve before `until`, and until it asks to.
    event Jailed(address indexed owner, uint256 until);
    /// The provider serves again.
    event Unjailed(address indexed owner);
    /// The provider is there.
    event Heartbeat(address indexed owner);

    /// @notice Registers the caller as an owner, served by `operator`.
    /// @param operator Key that signs receipts; never an owner, and never another owner's operator.
    /// @param endpoint Where offers are found, 1 to 256 bytes; its form is the network's affair.
    /// @param signature The operator's over `Serve {registry: this, owner: caller}`: 65 bytes, r ‖ s ‖ v. Without it
    /// anyone could take a stranger's key out of use.
    function register(address operator, string calldata endpoint, bytes calldata signature) external;

    /// @notice Names another operator, by the same rules; an earlier one of the caller's may come back. Owner only.
    /// @dev What the old key signed still leads to the caller's stake.
    function rotate(address operator, bytes calldata signature) external;

    /// @notice Says where the provider is found now. Present operator only: its machine knows.
    function announce(string calldata endpoint) external;

    /// @notice Says that the provider is there. Present operator only.
    function heartbeat() external;

    /// @notice Adds `amount` from the caller's balance to its stake. Owner only; the allowance must suffice.
    function stake(uint128 amount) external;

    /// @notice As `stake`, with an EIP-2612 permit of the caller's for exactly `amount`.
    /// @dev A permit that somebody else has already handed in has set the allowance, so its failure is ignored
    /// and the allowance decides.
    function stakeWithPermit(uint128 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Starts taking `amount` out: it counts no more, can be slashed until withdrawn, and is due after
    /// `UnbondingDelay` as it is now. Owner only, in jail too.
    /// @dev At most `Stakes.QUEUE_MAX` amounts may be on their way at once.
    function unbond(uint128 amount) external;

    /// @notice Pays the caller all stake that is due.
    /// @return amount What was paid; never zero, or the call fails with `NothingDue`.
    function withdraw() external returns (uint256 amount);

    /// @notice Jails a provider that was silent for more than `AbsenceLimit`, and slashes `SlashLeast` of its stake
    /// at risk. Once per absence, for jail ends the duty to be heard.
    /// @dev Anyone may call, and is paid the challenger's share. Duty begins with a stake of `TierBronze`; who has
    /// unbonded below has left, not failed. A heartbeat before the report ends the absence. Lowering `TierBronze`
    /// puts owners on duty at once; the timelock's delay is their time to say that they are there.
    function reportAbsence(address owner) external;

    /// @notice Leaves jail. Owner only, after `JailTime`, with at least `TierBronze` bonded.
    function unjail() external;

    /// @notice Takes `bps` of the whole stake at risk, bonded and on its way out alike, and jails. Arbiter only.
    /// @param challenger Who is paid `ChallengerReward` of it; zero to burn everything.
    /// @param reason What the verdict rests on; for the log.
    function slash(address owner, uint256 bps, address challenger, bytes32 reason) external;

    /// @notice The provider of `owner`; fails if there is none.
    function provider(address owner) external view returns (Provider memory);

    /// @notice The owner that `operator` serves or served; zero for a stranger.
    function providerOf(address operator) external view returns (address owner);

    /// @notice Whether `owner` can be bought from: registered, at least bronze, not in jail, and heard of within
    /// `AbsenceLimit`. Never fails.
    function active(address owner) external view returns (bool);

    /// @notice What is on its way out to `owner`, in the order asked for.
    function unbondings(address owner) external view returns (Unbonding[] memory);

    /// @notice How many owners ever registered.
    function count() external view returns (uint256);

    /// @notice Owners `from` to `from + most`, in the order of registration; shorter at the end.
    function owners(uint256 from, uint256 most) external view returns (address[] memory);
}
