// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig} from "./IChannels.sol";
import {Doubt, Focus, Opening, Round} from "../libraries/dispute/Exhibits.sol";
import {StepLeaf} from "../libraries/dispute/Steps.sol";
import {Order} from "../types/Order.sol";
import {Receipt} from "../types/Receipt.sol";
import {Sampler} from "../types/Sampler.sol";
import {Tensor} from "../types/Manifest.sol";

/// @notice Where a dispute stands: whose turn it is, or how it ended.
enum Phase {
    None,
    /// The defender owes the root of its trace.
    Commit,
    /// The challenger owes a way down, or the name of a number.
    Pick,
    /// The defender owes the nodes below the one that was picked.
    Reveal,
    /// The defender owes a proof of the number, or a list.
    Prove,
    /// The challenger owes the entry of the list that it doubts.
    Choose,
    /// The challenger has lost; its bond is the provider's, and then was paid.
    Lost,
    Forfeited,
    /// The provider has lost; the bond goes back, and then has gone.
    Won,
    Returned
}

/// @notice When and where a receipt was posted, to show that it can still be disputed; an empty proof of period 0 and
/// `given` false where it was not, or where that does not matter.
struct Posting {
    bool given;
    uint256 period;
    uint256 index;
    bytes32[] proof;
}

/// @notice What a dispute begins with: both signed words, and what they hold the hashes of.
struct Filing {
    Order order;
    bytes orderSignature;
    Receipt receipt;
    bytes receiptSignature;
    Sampler sampler;
    Posting posting;
}

/// @notice A way down a tree of hashes: from the node where the dispute stands, by as many levels as there are
/// siblings.
struct Branch {
    /// The turns, the lowest bit the last one; 1 is right.
    uint128 turns;
    /// Where they lead.
    bytes32 node;
    /// The siblings from there up.
    bytes32[] proof;
}

/// @notice The step that an op carries out, opened in the model's program; of no meaning for the chained state.
struct OpenStep {
    StepLeaf leaf;
    bytes32[] proof;
    /// ABI encoding of the dispute's {Facts}.
    bytes facts;
}

/// @notice What a challenger names as wrong in the leaf that a branch leads to.
struct Accusation {
    OpenStep step;
    /// The tensor that the step reads, opened in the model's table; of no meaning where it reads none.
    Tensor tensor;
    bytes32[] tensorProof;
    /// Of a quantised leaf one of 4 groups, of others one of 32 numbers.
    uint8 element;
    Doubt doubt;
}

/// @notice Why an answer ends, or goes on, at one of its tokens.
struct Tail {
    /// The output token, counted from one, at which that shows.
    uint32 length;
    /// The last tokens up to it, 32 bits each, as many as the longest stop sequence has, or all.
    bytes tokens;
    /// Their neighbours in the output's tree, see {Trees.rangeRoot}.
    bytes32[] proof;
    /// The model's end tokens.
    uint32[] eos;
    /// What the sampler's `stops` is the hash of; empty for none.
    bytes stops;
}

/// @notice A dispute as others see it.
struct Dispute {
    Phase phase;
    /// Levels that were descended, and the turns taken.
    uint8 depth;
    /// Levels of the tree of the op's leaves, once a step was opened; 255 before.
    uint8 leafDepth;
    /// Lists revealed so far.
    uint8 rounds;
    /// The least depth that the next pick has to reach.
    uint8 reach;
    /// When the clock of the side that has to move was started, unix seconds.
    uint40 movedAt;
    /// Seconds left to each side.
    uint24 defenderLeft;
    uint24 challengerLeft;
    uint128 path;
    address challenger;
    /// Positions of the trace, and steps of the program.
    uint32 positions;
    uint32 steps;
    /// When it was opened, unix seconds.
    uint32 opened;
    /// Digest of the receipt.
    bytes32 receipt;
    /// The committed root.
    bytes32 trace;
    /// The node that was picked; once a number is named, the hash of focus and rounds.
    bytes32 point;
    /// The root of the position that the descent is in.
    bytes32 here;
    /// The way to the leaf that is to be shown, and its length; of length zero for none.
    uint128 asked;
    uint8 askedLevels;
    /// Leaves asked for so far.
    uint8 asks;
}

/// @notice What is known of a disputed receipt, or of a place in a period about which its provider was silent.
struct Case {
    /// Whose stake answers for it.
    address owner;
    /// Whether it was found false, and the stake slashed for it.
    bool guilty;
    bool punished;
    /// Whether it is a canary: no game can find it false any more.
    bool canary;
    /// The dispute whose challenger is paid the reward.
    uint64 first;
    /// Hash of what order, receipt and model say.
    bytes32 facts;
}

/// @notice The arbiter: decides by recomputing one number whether a signed receipt is false, and has the stake of who
/// signed it slashed.
/// @dev docs/protocol/dispute.md is the specification. Each side has a clock that runs while it is its turn; who lets
/// it run out loses. The challenger commits to nothing; the defender commits to one root. Everything that is judged
/// was signed or committed by the defender, or follows from the order and the model, so anyone may bring it.
/// @dev Money: holds bonds in ASY, one for each dispute that is not closed, and nothing else. A bond is paid exactly
/// once: to the provider's owner if its challenger lost, else back to the challenger. A receipt is slashed for at most
/// once. Amounts are base units of ASY (1e-18), times unix seconds.
/// @dev Trust: none beside the contracts of the suite. `Parameters` must name this contract as its arbiter, else
/// nothing can be slashed or refunded, while games go on and bonds are paid.
interface IDisputes {
    /// The bond or the clock is outside what the bytecode allows.
    error OutOfBounds(uint256 found, uint256 least, uint256 most);
    /// The receipt answers another order.
    error WrongOrder(bytes32 found, bytes32 expected);
    /// The word was signed by somebody else; zero for a malformed signature.
    error WrongSigner(address found, address expected);
    /// The order was made for another deployment.
    error WrongMarket(address found, address expected);
    /// The order names another sampler.
    error WrongSampler(bytes32 found, bytes32 expected);
    /// No provider ever had this key.
    error NoProvider(address operator);
    /// Only the buyer may have this answer checked.
    error NotBuyer(address found, address expected);
    /// Only answers of assurance 0 can be recomputed.
    error NotReplayable(uint8 found);
    /// The sampler asks for what no judge has a rule for, or for what no provider may accept.
    error BadSampler();
    /// Prompt and output do not make a trace of this model.
    error BadLengths(uint256 prompt, uint256 output, uint256 context);
    /// The receipt could be disputed until `last`.
    error OutOfReach(uint256 found, uint256 last);
    /// The receipt is not in the period that it is said to be in.
    error NotPosted(bytes32 receipt);
    /// The receipt was found false before.
    error AlreadyGuilty(bytes32 receipt);
    /// The receipt is a canary: who disputed it has its bond back.
    error IsCanary(bytes32 receipt);
    /// Nobody was left without an answer about this receipt.
    error NotSilent(address provider, uint256 period, uint256 index);
    /// The receipt was not found false.
    error NotGuilty(bytes32 receipt);
    /// The stake was slashed for this receipt before.
    error AlreadyPunished(bytes32 receipt);
    /// It is another move's turn, or the game is over.
    error WrongPhase(Phase found, Phase expected);
    /// Only the challenger may make this move.
    error NotChallenger(address found, address expected);
    /// Only the provider, or who has its signature, may make this move.
    error NotDefender(address found, address owner);
    /// The clock of the side to move ran out `found - left` seconds ago.
    error TooLate(uint256 found, uint256 left);
    /// The side to move has time left.
    error TooEarly(uint256 found, uint256 left);
    /// The branch does not hang from the node where the dispute stands.
    error NotBelow(bytes32 found, bytes32 expected);
    /// More turns than levels.
    error BadTurns(uint256 turns, uint256 levels);
    /// The branch ends at a depth that this move cannot go to.
    error WrongDepth(uint256 found, uint256 least, uint256 most);
    /// So many nodes are to be revealed.
    error WrongCount(uint256 found, uint256 expected);
    /// A trace of this order has nothing there.
    error Nowhere(uint256 position, uint256 op, uint256 leaf);
    /// A trace of this order has something there.
    error Somewhere(uint256 position, uint256 op, uint256 leaf);
    /// The node is empty, as it must be.
    error Empty();
    /// The facts are not the dispute's.
    error WrongFacts(bytes32 found, bytes32 expected);
    /// The step or the tensor is not in the model.
    error NotInModel(bytes32 found, bytes32 expected);
    /// A leaf of this kind has fewer elements.
    error NoElement(uint256 found, uint256 elements);
    /// The doubt does not concern this op.
    error NoSuchDoubt(Doubt doubt, uint256 kind);
    /// Focus and rounds are not the dispute's.
    error WrongFocus(bytes32 found, bytes32 expected);
    /// No rule has more rounds.
    error TooManyRounds(uint256 most);
    /// Nobody needs to see more leaves.
    error TooManyAsks(uint256 most);
    /// A leaf is to be shown, and not nodes.
    error IsAsked(uint256 turns);
    /// There is nothing to pay.
    error NothingDue(Phase phase);
    /// The words do not contradict each other.
    error NoContradiction();
    /// Only one receipt, or receipts of different orders or providers.
    error NotAPair();
    /// The receipt names another channel, or another's Till.
    error WrongChannel(bytes32 found, bytes32 expected);

    /// A receipt is disputed.
    event Opened(uint256 indexed id, bytes32 indexed receipt, address indexed owner, address challenger, bytes32 order);
    /// The defender committed to its trace.
    event Committed(uint256 indexed id, bytes32 trace);
    /// The challenger went down to this node.
    event Picked(uint256 indexed id, uint256 depth, uint128 path, bytes32 node);
    /// The defender's nodes below it.
    event Revealed(uint256 indexed id, bytes32[] nodes);
    /// The challenger wants to see this leaf.
    event Asked(uint256 indexed id, uint256 depth, uint128 path);
    /// The defender's leaf.
    event Shown(uint256 indexed id, bytes leaf);
    /// The number that the dispute is about.
    event Named(uint256 indexed id, Focus focus);
    /// A list that it follows from.
    event Listed(uint256 indexed id, bytes list);
    /// The entry that the challenger doubts.
    event Chosen(uint256 indexed id, uint32 entry);
    /// The game is over.
    event Decided(uint256 indexed id, bytes32 indexed receipt, Phase phase);
    /// The receipt is false. `id` is the dispute whose challenger has the reward.
    event Convicted(bytes32 indexed receipt, address indexed owner, uint256 indexed id);
    /// The receipt is a canary. `id` is the dispute whose challenger has the prize.
    event Excused(bytes32 indexed receipt, uint256 indexed id);
    /// A bond was paid.
    event Closed(uint256 indexed id, address indexed to, uint256 amount);

    /// @notice Disputes a receipt that its provider signed for an order that its buyer signed. Anyone may, but with
    /// `audit` 0 only the buyer. Takes the bond; the allowance must suffice.
    /// @dev In reach until `DisputeWindow` after the latest of the order's deadline, the receipt's end and its posting.
    function open(Filing calldata filing) external returns (uint256 id);

    /// @notice The defender commits to the root of its trace.
    /// @param signature Empty if the caller is the provider's owner or operator; else of one of them, see `moveDigest`.
    function commit(uint256 id, bytes32 trace, bytes calldata signature) external;

    /// @notice The challenger goes down to a node and asks for what is below it: no siblings to ask where the game
    /// stands, more than one round's worth if it has them from elsewhere.
    function pick(uint256 id, Branch calldata branch) external;

    /// @notice As `pick`, into the leaves of an op, whose step has to be opened for that.
    function pickWithin(uint256 id, Branch calldata branch, OpenStep calldata step) external;

    /// @notice The nodes below the picked one: four levels, or as many as its tree has left. Anyone may.
    function reveal(uint256 id, bytes32[] calldata nodes) external;

    /// @notice The challenger asks for the data of a leaf, without going there: to see which of its numbers is wrong, or
    /// which advice the trace follows. At most three times.
    /// @param turns The way there from where the dispute stands, as of a {Branch}.
    /// @param levels Its length.
    function ask(uint256 id, uint128 turns, uint8 levels, OpenStep calldata step) external;

    /// @notice The data of the leaf that was asked for, with the siblings up to where the dispute stands. Anyone may.
    function show(uint256 id, bytes calldata leaf, bytes32[] calldata proof) external;

    /// @notice The challenger goes down to a leaf and names what is wrong in it.
    function name(uint256 id, Branch calldata branch, Accusation calldata accusation) external;

    /// @notice Convicts if the node that a branch leads to belongs to nothing, and is not zero. Challenger only.
    /// @param step Needed below an op.
    function empty(uint256 id, Branch calldata branch, OpenStep calldata step) external;

    /// @notice Reveals the list that the named number follows from, where its rule has one. Defender only, as `commit`.
    function list(uint256 id, bytes calldata values, bytes calldata signature) external;

    /// @notice The challenger names the entry of the list that it doubts.
    function choose(uint256 id, uint32 entry) external;

    /// @notice Opens what the rule reads, and has it judged. Anyone may; the verdict is final.
    function prove(
        uint256 id,
        Focus calldata focus,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) external;

    /// @notice Ends a game whose side to move has let its clock run out. Anyone may.
    function timeout(uint256 id) external;

    /// @notice Convicts a receipt that contradicts its order or itself, by what is signed alone.
    function contradict(Filing calldata filing) external;

    /// @notice Convicts a receipt whose answer ended too early, too late or otherwise than it says.
    function misfinish(Filing calldata filing, Tail calldata tail) external;

    /// @notice Convicts two receipts of one provider for one order: equal outputs with different states, or outputs
    /// that differ at a token that both have.
    /// @param index The first such token; of no meaning for equal outputs.
    /// @param tokens The token of each, as leaf and siblings: see commitments.md.
    function equivocate(
        Receipt[2] calldata receipts,
        bytes[2] calldata signatures,
        uint32 index,
        Opening[2] calldata tokens
    ) external;

    /// @notice Convicts a provider that published nothing when a drawn auditor asked for a receipt that it had posted.
    /// The case's key is keccak256(abi.encode(provider, period, index)); the reward is the auditor's. Anyone may.
    function withhold(address provider, uint256 period, uint256 index) external;

    /// @notice Ends all games about a receipt that was unveiled in `Canaries`: bonds go back, and the prize to the first
    /// who opened and has not lost. Anyone may, while the clock of the side to move in dispute `id` has not run out.
    function excuse(uint256 id) external;

    /// @notice Pays the bond of a dispute that is decided, or about a receipt that was found false or is a
    /// canary. Anyone may.
    function close(uint256 id) external;

    /// @notice Has the stake slashed for a false receipt, or for silence, once. Anyone may.
    function punish(bytes32 receipt) external;

    /// @notice Has the money that a false receipt, or a canary, moved given back to who paid it. Anyone may, and again if the Till
    /// could not give all of it: it never gives a position twice.
    function refund(Receipt calldata receipt, ChannelConfig calldata config) external returns (uint128 amount);

    /// @notice What a defender signs to have its move made by another: EIP-712, `Move(address arbiter,uint256
    /// dispute,bytes32 point,bytes32 content)`.
    /// @param content The root, or the hash of the list.
    function moveDigest(uint256 id, bytes32 content) external view returns (bytes32);

    /// @notice A dispute; all zero if there is none.
    function disputeOf(uint256 id) external view returns (Dispute memory);

    /// @notice What is known of a receipt, by its digest; all zero if nothing is.
    function caseOf(bytes32 receipt) external view returns (Case memory);

    /// @notice What was burned of the provider's stake for a false receipt, base units of ASY: all that it lost for good,
    /// whoever disputed.
    function burnedOf(bytes32 receipt) external view returns (uint256);

    /// @notice Disputes so far; the first one is number 1.
    function count() external view returns (uint256);
}
