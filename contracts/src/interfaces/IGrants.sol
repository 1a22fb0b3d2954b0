// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice Where issuers take their grants back.
/// @dev A grant itself never comes here: it is a signed word (`Grant`), and whoever is shown it asks here whether it
/// still holds. A grant is void as soon as one of those that it stands on is.
///
/// Trust: none; nobody but the issuer can take back, and nothing taken back returns. An issuer that takes back after
/// an answer was begun does not undo that answer.
interface IGrants {
    /// `issuer` took back the grant with this digest, whether it ever gave it or not.
    event Revoked(address indexed issuer, bytes32 indexed grant);

    /// @notice Takes grants of the caller back, for good. Those that are taken back already are passed over.
    /// @param grants EIP-712 digests.
    function revoke(bytes32[] calldata grants) external;

    /// @notice Whether `issuer` took the grant back.
    function isRevoked(address issuer, bytes32 grant) external view returns (bool);
}
