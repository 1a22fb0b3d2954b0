// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Order} from "../types/Order.sol";
import {Receipt} from "../types/Receipt.sol";
import {Sampler} from "../types/Sampler.sol";

/// @notice Where a production stands.
enum Stage {
    None,
    /// The provider owes order, receipt and sampler.
    Asked,
    /// It owes tokens as well.
    Supplying,
    /// All was published, and the bond is the provider's.
    Answered,
    /// The provider was silent, and the bond went back.
    Forfeited
}

/// @notice What was asked for, and how much of it was published.
struct Production {
    Stage stage;
    /// The drawn auditor that asked.
    address auditor;
    /// When, unix seconds.
    uint48 asked;
    /// Tokens published so far, the prompt's first.
    uint40 supplied;
    /// Hash of the {Texts} that are owed; zero before the receipt was shown.
    bytes32 texts;
}

/// @notice The tokens of prompt and output, by commitment.
struct Texts {
    bytes32 prompt;
    uint32 promptTokens;
    bytes32 output;
    uint32 outputTokens;
}

/// @notice What a provider shows of a posted receipt.
struct Showing {
    Order order;
    bytes orderSignature;
    Receipt receipt;
    bytes receiptSignature;
    Sampler sampler;
    /// The receipt's siblings in the period's tree.
    bytes32[] proof;
}

/// @notice Where a drawn auditor has a provider publish what stands behind a posted receipt.
/// @dev A provider that answers auditors off chain is never asked here. Asked, it has one clock to show order and
/// receipt with their signatures, the sampler and, unless the order's `audit` is 0, all tokens of prompt and output, in
/// as many calls as it likes: each brings a run of tokens, with its neighbours in the tree, so no answer is too long
/// for a block. All of it is public and follows from the period's root, so anyone may publish for a provider.
/// @dev Who posts a root has to be able to show every leaf of it: receipts signed by an operator of the owner that
/// posted, for orders signed by their buyers and made for this deployment. A leaf that is anything else cannot be shown.
/// @dev Money: holds a bond in ASY for each production that is under way, and nothing else. It goes to the provider's
/// owner for an answer, and back to the auditor for silence. Amounts in base units (1e-18), times in unix seconds.
/// @dev Trust: none beside the contracts of the suite. It judges nobody: the arbiter reads who was silent.
interface IProductions {
    /// The bond or the clock is outside what the bytecode allows.
    error OutOfBounds(uint256 found, uint256 least, uint256 most);
    /// The caller was not drawn for this receipt.
    error NotDrawn(address found, address first, address second);
    /// Draws of this epoch can be acted upon in epochs `from` to `until`.
    error WrongTime(uint256 found, uint256 from, uint256 until);
    /// The receipt is in another stage.
    error WrongStage(Stage found, Stage expected);
    /// The clock ran out `found - clock` seconds ago.
    error TooLate(uint256 found, uint256 clock);
    /// The provider has time left.
    error StillTime(uint256 found, uint256 clock);
    /// The period has another receipt at this place.
    error NotPosted(bytes32 receipt);
    /// The receipt answers another order.
    error WrongOrder(bytes32 found, bytes32 expected);
    /// The word was signed by somebody else; zero for a malformed signature.
    error WrongSigner(address found, address expected);
    /// The order was made for another deployment.
    error WrongMarket(address found, address expected);
    /// The order names another sampler.
    error WrongSampler(bytes32 found, bytes32 expected);
    /// The receipt is of another provider.
    error WrongOwner(address found, address expected);
    /// These are not the tokens that are owed, or not the next ones.
    error WrongTexts(bytes32 found, bytes32 expected);
    /// A run has one token at least, 4 bytes each, and ends within prompt or output.
    error BadRun(uint256 bytes_, uint256 left);

    /// A drawn auditor asked for a receipt.
    event Asked(address indexed provider, uint256 indexed period, uint256 indexed index, address auditor);
    /// Order, receipt and sampler were published.
    event Shown(address indexed provider, uint256 indexed period, uint256 indexed index, Showing showing);
    /// Tokens were published; `first` counts through prompt and output.
    event Supplied(
        address indexed provider, uint256 indexed period, uint256 indexed index, uint256 first, bytes tokens
    );
    /// All was published.
    event Answered(address indexed provider, uint256 indexed period, uint256 indexed index);
    /// The provider was silent.
    event WasSilent(address indexed provider, uint256 indexed period, uint256 indexed index, address auditor);

    /// @notice Asks for the receipt at a place of a period. Only an auditor that was drawn for it, while draws of its
    /// epoch can be acted upon, and once for a receipt. Takes the bond; the allowance must suffice.
    function produce(address provider, uint256 period, uint256 index) external;

    /// @notice Shows order, receipt and sampler. Anyone may.
    function show(address provider, uint256 period, uint256 index, Showing calldata showing) external;

    /// @notice Publishes the next tokens. Anyone may.
    /// @param tokens 32 bits each, big-endian.
    /// @param proof Their neighbours in the tree, see {Trees.rangeRoot}.
    function supply(
        address provider,
        uint256 period,
        uint256 index,
        Texts calldata texts,
        bytes calldata tokens,
        bytes32[] calldata proof
    ) external;

    /// @notice Ends a production whose clock ran out. Anyone may.
    function timeout(address provider, uint256 period, uint256 index) external;

    /// @notice The auditor to whom a provider was silent about a receipt; zero if it was not.
    function silentTo(address provider, uint256 period, uint256 index) external view returns (address auditor);

    /// @notice Whether a provider was silent about a receipt; for good.
    function forfeited(address provider, uint256 period, uint256 index) external view returns (bool);

    /// @notice A production; all zero if nobody asked.
    function productionOf(address provider, uint256 period, uint256 index) external view returns (Production memory);
}
