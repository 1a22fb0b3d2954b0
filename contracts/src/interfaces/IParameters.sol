// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Names of the values that governance may move. The order is part of the ABI: append only.
/// @dev Shares are in basis points (bps, 1/10,000), times in seconds, stakes in base units of ASY (1e-18).
enum Value {
    /// Share of every payment that goes to the network, bps. 200, within 0..500.
    NetworkFee,
    /// Share of every payment that goes to governance's treasury, bps. 500, within 0..1000.
    GovernanceShare,
    /// Smallest slash, bps of the stake at risk. 500, within 100..2000.
    SlashLeast,
    /// Largest slash, bps of the stake at risk. 2000, within 500..5000.
    SlashMost,
    /// Share of a slash that its challenger is paid, bps of the slash. 1000, within 0..5000.
    ChallengerReward,
    /// How long money that receipts cover and its Till has seen claimed can be disputed before it is released,
    /// seconds. One day. Applies at once, also to what is waiting.
    DisputeWindow,
    /// How long a provider has to post receipts for what it claimed before the payer may take it
    /// back, seconds. Seven days.
    CoverWindow,
    /// How long stake stays slashable after its owner asked for it back, seconds. 14 days; longer than
    /// the dispute window.
    UnbondingDelay,
    /// Longest silence of a provider before it counts as absent, seconds. 72 hours.
    AbsenceLimit,
    /// Shortest stay in jail, seconds. Seven days.
    JailTime,
    /// Least stake for a seat in the consensus, ASY.
    SeatStake,
    /// Most seats in the consensus. 100, within 1..100.
    Seats,
    /// Least stake of a provider, ASY.
    TierBronze,
    /// Least stake of the middle tier, ASY; not below bronze.
    TierSilver,
    /// Least stake of the highest tier, ASY; not below silver.
    TierGold
}

/// @notice What the other contracts read instead of holding constants: typed, bounded values and the
/// addresses of those who judge and collect.
/// @dev Trust: `governor` may move each value within bounds that stand in the bytecode, and name the
/// arbiter and the two receivers of shares. By itself it touches no money that a contract holds for others; through
/// an arbiter of its choice it reaches all that Tills have not released, most of it if it makes the dispute window
/// long first, and stakes, slash after slash. Every such step waits in the timelock for all to see, in which time
/// what is due can be released and stake can ask to leave.
interface IParameters {
    /// The value is outside what the bytecode allows for its key.
    error OutOfBounds(Value key, uint256 found, uint256 min, uint256 max);
    /// The value contradicts another one: `lower` must stay below (for tiers and slashes, not above) `upper`.
    error OutOfOrder(Value lower, uint256 lowerValue, Value upper, uint256 upperValue);
    /// A deployment gave too few or too many initial values.
    error WrongCount(uint256 found, uint256 expected);
    /// Only the governor may do this.
    error NotGovernor(address found, address expected);
    /// The zero address cannot hold this office.
    error NoAddress();

    /// A value was set; `before` is zero at deployment.
    event ValueSet(Value indexed key, uint256 before, uint256 present);
    /// The office of governor was handed over.
    event GovernorSet(address indexed before, address indexed present);
    /// Another address may pass verdicts; zero means nobody may.
    event ArbiterSet(address indexed before, address indexed present);
    /// Governance's share is paid to another address.
    event TreasurySet(address indexed before, address indexed present);
    /// The network fee is paid to another address.
    event FeeRecipientSet(address indexed before, address indexed present);

    /// @notice The present value of `key`, in the unit that `Value` states.
    function value(Value key) external view returns (uint256);

    /// @notice The bounds, both included, that the bytecode sets for `key`.
    function bounds(Value key) external pure returns (uint256 min, uint256 max);

    /// @notice Who may change values and offices: the timelock. Never zero.
    function governor() external view returns (address);

    /// @notice Who may pass verdicts on receipts and slash stakes; zero while nobody may.
    function arbiter() external view returns (address);

    /// @notice Who is paid governance's share. Never zero.
    function treasury() external view returns (address);

    /// @notice Who is paid the network fee. Never zero.
    function feeRecipient() external view returns (address);

    /// @notice Sets `key` to `present`. Only the governor.
    /// @dev Fails with `OutOfBounds` or `OutOfOrder`. What is under way is judged by the new value from then on.
    function set(Value key, uint256 present) external;

    /// @notice Hands the office of governor to `present`, at once. Only the governor.
    function setGovernor(address present) external;

    /// @notice Names who may pass verdicts; zero takes the office away. Only the governor.
    function setArbiter(address present) external;

    /// @notice Names who is paid governance's share. Only the governor.
    function setTreasury(address present) external;

    /// @notice Names who is paid the network fee. Only the governor.
    function setFeeRecipient(address present) external;
}
