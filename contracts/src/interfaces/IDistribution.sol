// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssayToken} from "../AssayToken.sol";
import {IParameters} from "./IParameters.sol";
import {Part} from "../libraries/Allocation.sol";

/// @notice Holds the whole supply of ASY at first and gives each part to its beneficiary as its schedule allows.
/// @dev Amounts in base units of ASY (1e-18), times in Unix seconds. Anyone may release, because the money
/// has only one place to go. Rounding: what is due is rounded down, and the last wei comes with the last
/// second, so every part pays out exactly its size.
/// Trust: the beneficiaries and the start are the deployer's word, the start within 366 days of the deployment, so
/// nothing is free years early or for nobody alive. From then on a beneficiary can be
/// changed only by itself, the nodes' one only by governance; schedules and sizes by nobody.
interface IDistribution {
    /// The schedules may begin within a year of the deployment, Unix seconds.
    error StartOutOfBounds(uint64 found, uint256 min, uint256 max);
    /// Nothing is due at this time.
    error NothingDue(Part part);
    /// The part has no beneficiary yet.
    error NoBeneficiary(Part part);
    /// Only this account may name another beneficiary.
    error NotBeneficiary(Part part, address found, address expected);

    /// `amount` of `part` was paid.
    event Released(Part indexed part, address indexed beneficiary, uint256 amount);
    /// From now on `part` is paid to `present`.
    event BeneficiarySet(Part indexed part, address indexed before, address indexed present);

    /// @notice The token, made by this contract.
    function token() external view returns (AssayToken);

    /// @notice Who the governor is, for the nodes' part.
    function parameters() external view returns (IParameters);

    /// @notice When the schedules begin.
    function start() external view returns (uint64);

    /// @notice Who is paid `part`; zero for the nodes until governance names who emits.
    function beneficiary(Part part) external view returns (address);

    /// @notice What `part` has been paid so far.
    function released(Part part) external view returns (uint256);

    /// @notice What `release(part)` would pay now.
    function due(Part part) external view returns (uint256);

    /// @notice Pays `part` what its schedule has freed and returns the amount. Anyone may call.
    function release(Part part) external returns (uint256 amount);

    /// @notice Names who is paid `part` from now on; what is due and not yet released goes to them too.
    /// Only the present beneficiary; for the nodes' part only the governor.
    /// @dev At once and without the receiver's consent: a wrong address is lost, like a wrong transfer.
    function setBeneficiary(Part part, address present) external;
}
