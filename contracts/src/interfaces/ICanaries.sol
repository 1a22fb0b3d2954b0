// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Order} from "../types/Order.sol";
import {Receipt} from "../types/Receipt.sol";

/// @notice A hidden canary as it was planted.
struct Plant {
    /// Who put the prize in, and has it back if nobody wins it.
    address funder;
    /// Unix seconds.
    uint48 planted;
    /// When its receipt was unveiled, unix seconds; zero before.
    uint48 unveiled;
    /// Base units of ASY; zero once it was paid.
    uint128 prize;
}

/// @notice Receipts that are false on purpose, planted beforehand and hidden, so that who calls receipts true without
/// checking them is found out.
/// @dev A canary's buyer and provider work together. The buyer draws a secret salt and signs `consentDigest`; the
/// provider answers the order and signs as its last state `mark(order, salt)`: the hash of four words, while a chained
/// state is the hash of 68 bytes. So a canary is false by construction, nobody can make one of a true receipt, and who
/// recomputes the answer finds the state wrong; to everybody else a mark is as random as any state.
/// @dev A provider cannot make one of a false receipt either: it would need the buyer's consent before it was planted,
/// and have planted before the receipt says that work began. The only buyer that a canary harms is the one that
/// consented to it.
/// @dev Money: holds the prizes, in base units of ASY (1e-18), each paid once: to the challenger that {award} names, or
/// back to its funder.
/// @dev Trust: the arbiter of `Parameters` says who has won a prize. It cannot mark a receipt.
interface ICanaries {
    /// The prize is below the least one.
    error PrizeTooSmall(uint256 found, uint256 least);
    /// There is a plant under this commitment already.
    error AlreadyPlanted(bytes32 commitment);
    /// There is none, or it was taken out.
    error NotPlanted(bytes32 commitment);
    /// The receipt answers another order.
    error WrongOrder(bytes32 found, bytes32 expected);
    /// The order's buyer did not consent.
    error WrongSigner(address found, address expected);
    /// The receipt's last state is not the mark.
    error WrongMark(bytes32 found, bytes32 expected);
    /// Strangers may not check this answer, or cannot: it catches nobody.
    error NotCheckable(uint8 audit, uint8 assurance);
    /// The plant is no older than what it has to come before. Unix milliseconds.
    error PlantedTooLate(uint256 planted, uint256 before);
    /// A plant stands for one receipt, which was unveiled.
    error AlreadyUnveiled(bytes32 commitment);
    /// The receipt is no canary, or was not unveiled yet.
    error NotUnveiled(bytes32 receipt);
    /// Only the arbiter may do this.
    error NotArbiter(address found, address expected);
    /// Only who put the prize in may do this.
    error NotFunder(address found, address expected);
    /// This can be done from `due` on, unix seconds.
    error TooEarly(uint256 found, uint256 due);
    /// The prize was paid.
    error NothingLeft(bytes32 commitment);

    /// A canary is hidden somewhere.
    event Planted(bytes32 indexed commitment, address indexed funder, uint128 prize);
    /// The receipt is a canary.
    event Unveiled(bytes32 indexed receipt, bytes32 indexed commitment);
    /// A prize was paid.
    event PrizePaid(bytes32 indexed commitment, address indexed to, uint128 prize);

    /// @notice Plants a canary, with a prize for who disputes it. Anyone may: whose it is stays hidden.
    /// @param commitment `commitmentOf` order, salt and consent.
    function plant(bytes32 commitment, uint128 prize) external;

    /// @notice Shows that a receipt is a canary. Anyone may who knows the salt.
    /// @param consent The buyer's signature of `consentDigest`.
    function unveil(Order calldata order, Receipt calldata receipt, bytes32 salt, bytes calldata consent) external;

    /// @notice Pays the prize of an unveiled canary, if it is still there. Only the arbiter.
    /// @param to The challenger.
    /// @param opened When it opened its dispute, unix seconds: later than the planting.
    function award(bytes32 receipt, address to, uint256 opened) external;

    /// @notice Pays a prize that nobody won back to its funder: `DisputeWindow` after the canary was unveiled, or, by the
    /// funder itself, `LIFE` after it was planted, if it was not; a plant without a prize hides nothing any more.
    function recover(bytes32 commitment) external;

    /// @notice What is committed to.
    function commitmentOf(bytes32 order, bytes32 salt, bytes calldata consent) external view returns (bytes32);

    /// @notice The last state of a canary's receipt: keccak256(abi.encode(keccak256("Assay canary"), this contract,
    /// order, salt)).
    function mark(bytes32 order, bytes32 salt) external view returns (bytes32);

    /// @notice What the buyer signs: EIP-712, `Canary(address canaries,bytes32 order,bytes32 salt)`.
    function consentDigest(bytes32 order, bytes32 salt) external view returns (bytes32);

    /// @notice The plant under a commitment; all zero if there is none.
    function plantOf(bytes32 commitment) external view returns (Plant memory);

    /// @notice The commitment whose canary a receipt was unveiled as; zero if it was not.
    function canaryOf(bytes32 receipt) external view returns (bytes32);
}
