// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IDepositCollector} from "../interfaces/IDepositCollector.sol";
import {DepositCollector} from "./DepositCollector.sol";

/// @notice Deposits without a transaction of the payer in tokens that know EIP-2612 permits.
/// @dev A permit alone names no channel: whoever saw it could spend it on a channel of his own. So the payer signs
/// a second word, EIP-712 domain {name: "Assay Deposit", version: "1", chainId, verifyingContract: this}:
/// `Deposit(bytes32 channelId,address token,uint256 amount,uint256 nonce,uint256 deadline)`, good once.
/// `collectorData = abi.encode(uint256 nonce, uint256 deadline, bytes signature, Permit permit)`. A permit that was
/// used by someone else first, or a standing allowance, serves as well: the permit may fail, the transfer not.
contract PermitDepositCollector is DepositCollector, EIP712 {
    using SafeERC20 for IERC20;

    /// The consent is too old (Unix seconds).
    error Expired(uint256 found, uint256 deadline);
    /// The consent is not the payer's.
    error NotConsented(address payer, bytes32 digest);
    /// The consent was used before.
    error AlreadyUsed(bytes32 digest);

    /// @notice An EIP-2612 permit with this contract as spender.
    struct Permit {
        uint256 value;
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    bytes32 private constant DEPOSIT =
        keccak256("Deposit(bytes32 channelId,address token,uint256 amount,uint256 nonce,uint256 deadline)");

    /// @notice Consents that were used, by payer and digest.
    mapping(address payer => mapping(bytes32 digest => bool)) public used;

    constructor(address channels_) DepositCollector(channels_) EIP712("Assay Deposit", "1") {}

    /// @inheritdoc IDepositCollector
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata collectorData)
        external
        onlyChannels
    {
        (uint256 nonce, uint256 deadline, bytes memory signature, Permit memory permit) =
            abi.decode(collectorData, (uint256, uint256, bytes, Permit));
        require(block.timestamp <= deadline, Expired(block.timestamp, deadline));
        bytes32 digest = depositDigest(channelId, token, amount, nonce, deadline);
        require(SignatureChecker.isValidSignatureNow(payer, digest, signature), NotConsented(payer, digest));
        require(!used[payer][digest], AlreadyUsed(digest));
        used[payer][digest] = true;

        try IERC20Permit(token)
            .permit(payer, address(this), permit.value, permit.deadline, permit.v, permit.r, permit.s) {}
            catch {}
        IERC20(token).safeTransferFrom(payer, msg.sender, amount);
    }

    /// @notice What the payer signs beside the permit; times in Unix seconds, amounts in base units.
    function depositDigest(bytes32 channelId, address token, uint256 amount, uint256 nonce, uint256 deadline)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(DEPOSIT, channelId, token, amount, nonce, deadline)));
    }
}
