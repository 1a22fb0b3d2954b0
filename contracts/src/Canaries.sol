// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {ICanaries, Plant} from "./interfaces/ICanaries.sol";
import {IParameters, Value} from "./interfaces/IParameters.sol";
import {Words} from "./libraries/Words.sol";
import {Order} from "./types/Order.sol";
import {Receipt} from "./types/Receipt.sol";

/// @title Canaries
/// @notice Keeps hidden canaries and their prizes: see `ICanaries`.
/// @dev Every entry point writes before it calls, and what it calls is ASY, which calls nobody back.
contract Canaries is ICanaries {
    using SafeERC20 for IERC20;

    /// Least prize, base units of ASY: what immunity from one dispute costs two who conspire.
    uint256 public constant PRIZE_LEAST = 1e18;
    /// How long a plant that is not unveiled binds its prize.
    uint256 public constant LIFE = 60 days;
    /// The answers that anyone can recompute.
    uint8 private constant REPLAYABLE = 0;
    bytes32 private constant MARK = keccak256("Assay canary");
    bytes32 private constant CONSENT = keccak256("Canary(address canaries,bytes32 order,bytes32 salt)");

    /// What prizes are in: the ASY token.
    IERC20 public immutable token;
    /// Where the arbiter and the dispute window are read.
    IParameters public immutable parameters;

    mapping(bytes32 commitment => Plant) private _plants;
    /// @inheritdoc ICanaries
    mapping(bytes32 receipt => bytes32) public canaryOf;

    constructor(IERC20 token_, IParameters parameters_) {
        (token, parameters) = (token_, parameters_);
    }

    /// @inheritdoc ICanaries
    function plant(bytes32 commitment, uint128 prize) external {
        require(prize >= PRIZE_LEAST, PrizeTooSmall(prize, PRIZE_LEAST));
        require(_plants[commitment].planted == 0, AlreadyPlanted(commitment));
        _plants[commitment] = Plant(msg.sender, uint48(block.timestamp), 0, prize);
        emit Planted(commitment, msg.sender, prize);
        token.safeTransferFrom(msg.sender, address(this), prize);
    }

    /// @inheritdoc ICanaries
    function unveil(Order calldata order, Receipt calldata receipt, bytes32 salt, bytes calldata consent) external {
        bytes32 name = Words.digest(order);
        require(receipt.order == name, WrongOrder(receipt.order, name));
        _requireCheckable(order, receipt);
        require(receipt.state == mark(name, salt), WrongMark(receipt.state, mark(name, salt)));
        (address found,,) = ECDSA.tryRecoverCalldata(consentDigest(name, salt), consent);
        require(found == order.buyer && found != address(0), WrongSigner(found, order.buyer));

        bytes32 commitment = commitmentOf(name, salt, consent);
        Plant storage planted = _plants[commitment];
        require(planted.prize != 0, NotPlanted(commitment));
        require(planted.unveiled == 0, AlreadyUnveiled(commitment));
        uint256 time = uint256(planted.planted) * 1000;
        require(time < receipt.started, PlantedTooLate(time, receipt.started));
        planted.unveiled = uint48(block.timestamp);
        bytes32 digest = Words.digest(receipt);
        canaryOf[digest] = commitment;
        emit Unveiled(digest, commitment);
    }

    /// @inheritdoc ICanaries
    function award(bytes32 receipt, address to, uint256 opened) external {
        address arbiter = parameters.arbiter();
        require(msg.sender == arbiter, NotArbiter(msg.sender, arbiter));
        bytes32 commitment = canaryOf[receipt];
        require(commitment != 0, NotUnveiled(receipt));
        uint256 time = uint256(_plants[commitment].planted) * 1000;
        require(time < opened * 1000, PlantedTooLate(time, opened * 1000));
        // Nothing is left where the funder was given its prize back, a window after all could see the canary.
        if (_plants[commitment].prize != 0) _pay(commitment, to);
    }

    /// @inheritdoc ICanaries
    function recover(bytes32 commitment) external {
        Plant storage planted = _plants[commitment];
        require(planted.planted != 0, NotPlanted(commitment));
        require(planted.prize != 0, NothingLeft(commitment));
        bool seen = planted.unveiled != 0;
        if (!seen) require(msg.sender == planted.funder, NotFunder(msg.sender, planted.funder));
        uint256 due = seen ? planted.unveiled + parameters.value(Value.DisputeWindow) : planted.planted + LIFE;
        require(block.timestamp > due, TooEarly(block.timestamp, due));
        _pay(commitment, planted.funder);
    }

    /// @inheritdoc ICanaries
    function commitmentOf(bytes32 order, bytes32 salt, bytes calldata consent) public pure returns (bytes32) {
        return keccak256(abi.encode(order, salt, keccak256(consent)));
    }

    /// @inheritdoc ICanaries
    function mark(bytes32 order, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(MARK, address(this), order, salt));
    }

    /// @inheritdoc ICanaries
    function consentDigest(bytes32 order, bytes32 salt) public view returns (bytes32) {
        bytes32 hash = keccak256(abi.encode(CONSENT, address(this), order, salt));
        return MessageHashUtils.toTypedDataHash(Words.domain(), hash);
    }

    /// @inheritdoc ICanaries
    function plantOf(bytes32 commitment) external view returns (Plant memory) {
        return _plants[commitment];
    }

    /// An answer that an auditor may check and can, so that calling it true was its own fault.
    function _requireCheckable(Order calldata order, Receipt calldata receipt) private pure {
        uint8 assurance = order.assurance == REPLAYABLE ? receipt.assurance : order.assurance;
        bool checkable = order.audit != 0 && assurance == REPLAYABLE;
        require(checkable && order.promptTokens != 0 && receipt.outputTokens != 0, NotCheckable(order.audit, assurance));
    }

    function _pay(bytes32 commitment, address to) private {
        uint128 prize = _plants[commitment].prize;
        _plants[commitment].prize = 0;
        emit PrizePaid(commitment, to, prize);
        token.safeTransfer(to, prize);
    }
}
