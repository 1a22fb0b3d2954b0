// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {Draw, IBeacons} from "./interfaces/IBeacons.sol";
import {IProductions, Production, Showing, Stage, Texts} from "./interfaces/IProductions.sol";
import {IProviders} from "./interfaces/IProviders.sol";
import {IReceipts} from "./interfaces/IReceipts.sol";
import {Trees} from "./libraries/dispute/Trees.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Words} from "./libraries/Words.sol";
import {Sampler} from "./types/Sampler.sol";

/// @title Productions
/// @notice Has providers publish what they posted, where a drawn auditor asks: see `IProductions`.
/// @dev Every entry point writes before it calls, and what it calls is the suite's own.
contract Productions is IProductions, Multicall {
    using SafeERC20 for IERC20;

    /// Bounds of the bond, base units of ASY, and of the clock, seconds.
    uint256 public constant BOND_MIN = 1e15;
    uint256 public constant BOND_MAX = 100_000e18;
    uint256 public constant CLOCK_MIN = 5;
    uint256 public constant CLOCK_MAX = 7 days;

    IERC20 public immutable token;
    IReceipts public immutable receipts;
    IProviders public immutable providers;
    IBeacons public immutable auditors;
    /// What an auditor puts in: what publishing a long answer costs.
    uint256 public immutable bond;
    /// What a provider has for all of it.
    uint256 public immutable clock;

    mapping(bytes32 key => Production) private _productions;

    constructor(
        IERC20 token_,
        IReceipts receipts_,
        IProviders providers_,
        IBeacons auditors_,
        uint256 bond_,
        uint256 clock_
    ) {
        require(BOND_MIN <= bond_ && bond_ <= BOND_MAX, OutOfBounds(bond_, BOND_MIN, BOND_MAX));
        require(CLOCK_MIN <= clock_ && clock_ <= CLOCK_MAX, OutOfBounds(clock_, CLOCK_MIN, CLOCK_MAX));
        (token, receipts, providers, auditors) = (token_, receipts_, providers_, auditors_);
        (bond, clock) = (bond_, clock_);
    }

    /// @inheritdoc IProductions
    function produce(address provider, uint256 period, uint256 index) external {
        Draw memory draw = auditors.drawOf(provider, period, index);
        bool drawn = draw.drawn && (msg.sender == draw.first || msg.sender == draw.second);
        require(drawn, NotDrawn(msg.sender, draw.first, draw.second));
        uint256 epoch = auditors.epochNow();
        require(epoch <= draw.epoch + 3, WrongTime(epoch, draw.epoch + 2, draw.epoch + 3));
        Production storage production = _productions[_key(provider, period, index)];
        _requireStage(production, Stage.None);
        (production.stage, production.auditor) = (Stage.Asked, msg.sender);
        production.asked = uint48(block.timestamp);
        emit Asked(provider, period, index, msg.sender);
        token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @inheritdoc IProductions
    function show(address provider, uint256 period, uint256 index, Showing calldata showing) external {
        Production storage production = _inTime(provider, period, index, Stage.Asked);
        bytes32 receipt = _read(provider, showing);
        require(receipts.includes(provider, period, index, receipt, showing.proof), NotPosted(receipt));
        emit Shown(provider, period, index, showing);
        Texts memory texts;
        (texts.prompt, texts.promptTokens) = (showing.order.prompt, showing.order.promptTokens);
        (texts.output, texts.outputTokens) = (showing.receipt.output, showing.receipt.outputTokens);
        if (showing.order.audit == 0 || _count(texts) == 0) return _finish(production, provider, period, index);
        (production.stage, production.texts) = (Stage.Supplying, keccak256(abi.encode(texts)));
    }

    /// @inheritdoc IProductions
    function supply(
        address provider,
        uint256 period,
        uint256 index,
        Texts calldata texts,
        bytes calldata tokens,
        bytes32[] calldata proof
    ) external {
        Production storage production = _inTime(provider, period, index, Stage.Supplying);
        bytes32 found = keccak256(abi.encode(texts));
        require(found == production.texts, WrongTexts(found, production.texts));
        uint256 first = production.supplied;
        _requireRun(texts, first, tokens, proof);
        uint256 supplied = first + tokens.length / 4;
        production.supplied = uint40(supplied);
        emit Supplied(provider, period, index, first, tokens);
        if (supplied == _count(texts)) _finish(production, provider, period, index);
    }

    /// @inheritdoc IProductions
    function timeout(address provider, uint256 period, uint256 index) external {
        Production storage production = _productions[_key(provider, period, index)];
        bool waiting = production.stage == Stage.Asked || production.stage == Stage.Supplying;
        require(waiting, WrongStage(production.stage, Stage.Asked));
        uint256 elapsed = block.timestamp - production.asked;
        require(elapsed > clock, StillTime(elapsed, clock));
        production.stage = Stage.Forfeited;
        emit WasSilent(provider, period, index, production.auditor);
        token.safeTransfer(production.auditor, bond);
    }

    /// @inheritdoc IProductions
    function silentTo(address provider, uint256 period, uint256 index) external view returns (address auditor) {
        Production storage production = _productions[_key(provider, period, index)];
        return production.stage == Stage.Forfeited ? production.auditor : address(0);
    }

    /// @inheritdoc IProductions
    function forfeited(address provider, uint256 period, uint256 index) external view returns (bool) {
        return _productions[_key(provider, period, index)].stage == Stage.Forfeited;
    }

    /// @inheritdoc IProductions
    function productionOf(address provider, uint256 period, uint256 index) external view returns (Production memory) {
        return _productions[_key(provider, period, index)];
    }

    /// Checks that order, receipt and sampler were signed for each other and for this deployment.
    function _read(address provider, Showing calldata showing) private view returns (bytes32 receipt) {
        bytes32 order = Words.digest(showing.order);
        require(showing.receipt.order == order, WrongOrder(showing.receipt.order, order));
        _requireSigner(order, showing.orderSignature, showing.order.buyer);
        address market = showing.order.market;
        require(market == address(receipts), WrongMarket(market, address(receipts)));
        receipt = Words.digest(showing.receipt);
        _requireSigner(receipt, showing.receiptSignature, showing.receipt.provider);
        address owner = providers.providerOf(showing.receipt.provider);
        require(owner == provider, WrongOwner(owner, provider));
        Sampler memory sampler = showing.sampler;
        bytes32 found = Words.hash(sampler);
        require(found == showing.order.sampler, WrongSampler(found, showing.order.sampler));
    }

    function _requireSigner(bytes32 digest, bytes calldata signature, address expected) private pure {
        (address found,,) = ECDSA.tryRecoverCalldata(digest, signature);
        require(found == expected && found != address(0), WrongSigner(found, expected));
    }

    /// Checks that tokens are the next ones of the prompt, or of the output behind it.
    function _requireRun(Texts calldata texts, uint256 first, bytes calldata tokens, bytes32[] calldata proof)
        private
        pure
    {
        bool prompting = first < texts.promptTokens;
        if (!prompting) first -= texts.promptTokens;
        uint256 count = prompting ? texts.promptTokens : texts.outputTokens;
        bool fits = tokens.length != 0 && tokens.length % 4 == 0 && tokens.length / 4 <= count - first;
        require(fits, BadRun(tokens.length, count - first));
        bytes32 expected = prompting ? texts.prompt : texts.output;
        bytes32 found = Trees.rangeRoot(Trees.tokenHashes(tokens, first), first, Merkle.depth(count), proof);
        require(found == expected, WrongTexts(found, expected));
    }

    /// The production at this stage, its clock not run out; the last second counts.
    function _inTime(address provider, uint256 period, uint256 index, Stage stage)
        private
        view
        returns (Production storage production)
    {
        production = _productions[_key(provider, period, index)];
        _requireStage(production, stage);
        uint256 elapsed = block.timestamp - production.asked;
        require(elapsed <= clock, TooLate(elapsed, clock));
    }

    function _requireStage(Production storage production, Stage stage) private view {
        require(production.stage == stage, WrongStage(production.stage, stage));
    }

    function _count(Texts memory texts) private pure returns (uint256) {
        return uint256(texts.promptTokens) + texts.outputTokens;
    }

    /// Gives the provider the bond.
    function _finish(Production storage production, address provider, uint256 period, uint256 index) private {
        production.stage = Stage.Answered;
        emit Answered(provider, period, index);
        token.safeTransfer(provider, bond);
    }

    function _key(address provider, uint256 period, uint256 index) private pure returns (bytes32) {
        return keccak256(abi.encode(provider, period, index));
    }
}
