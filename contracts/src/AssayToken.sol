// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";

/// @title ASY, the token of the network.
/// @notice One billion, made once and never again: there is no minter, no owner, no pause and no fee.
/// Holders may burn what is theirs, so the supply can only fall. 18 decimals.
/// @dev Approvals by signature (ERC-2612), transfers by signature (ERC-3009, which x402's `exact` scheme
/// pays with) in both forms that clients send: (v, r, s), and bytes that a contract account can check
/// too (ERC-1271). Votes are counted by timestamp, because blocks come at different paces on different
/// chains. The EIP-712 domain is {name: "Assay", version: "1", chainId, verifyingContract: this}.
contract AssayToken is ERC20, ERC20Burnable, ERC20Permit, ERC20Votes, ERC3009 {
    /// @notice Everything there ever was, in base units: 1,000,000,000 ASY.
    uint256 public constant SUPPLY = 1_000_000_000e18;

    /// @notice Gives the whole supply to the account that deploys: the `Distribution`.
    constructor() ERC20("Assay", "ASY") ERC20Permit("Assay") {
        _mint(msg.sender, SUPPLY);
    }

    /// @notice Moves `amount` from `from` to `to` because `from` signed it; anyone may bring the signature.
    /// @dev Valid strictly between `validAfter` and `validBefore`, Unix seconds, once per (from, nonce).
    /// Fails with `ERC3009InvalidSignature`, `ERC3009InvalidAuthorizationTime` or `ERC3009UsedAuthorization`.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        _requireSigned(
            from,
            keccak256(
                abi.encode(TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, amount, validAfter, validBefore, nonce)
            ),
            signature
        );
        _transferWithAuthorization(from, to, amount, validAfter, validBefore, nonce);
    }

    /// @notice As `transferWithAuthorization`, but only the receiver may bring the signature, so nobody
    /// can run ahead of a contract that does more than receive.
    /// @dev Fails also with `ERC20InvalidReceiver` when the caller is not `to`.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external {
        require(to == msg.sender, ERC20InvalidReceiver(to));
        _requireSigned(
            from,
            keccak256(
                abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, amount, validAfter, validBefore, nonce)
            ),
            signature
        );
        _transferWithAuthorization(from, to, amount, validAfter, validBefore, nonce);
    }

    /// @notice Makes the authorization `nonce` of `authorizer` void before it is used; anyone may bring the signature.
    function cancelAuthorization(address authorizer, bytes32 nonce, bytes calldata signature) external {
        _requireSigned(authorizer, keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)), signature);
        _cancelAuthorization(authorizer, nonce);
    }

    /// @notice Next number that a permit or a delegation of `account` must carry.
    function nonces(address account) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(account);
    }

    /// @notice What votes are counted by: Unix seconds (ERC-6372).
    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    /// @notice The clock in the words of ERC-6372.
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    function _update(address from, address to, uint256 amount) internal override(ERC20, ERC20Votes) {
        super._update(from, to, amount);
    }

    function _requireSigned(address signer, bytes32 structHash, bytes calldata signature) private view {
        require(
            SignatureChecker.isValidSignatureNowCalldata(signer, _hashTypedDataV4(structHash), signature),
            ERC3009InvalidSignature()
        );
    }
}
