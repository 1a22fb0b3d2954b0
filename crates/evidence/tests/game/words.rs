//! The words of a dispute as the contracts read them.

#![allow(missing_docs, clippy::too_many_arguments, reason = "the names are those of the contracts")]

use alloy_sol_types::{SolValue, sol};
use assay_evidence::dispute::Proof;
use assay_protocol as words;

sol! {
    struct Order { address buyer; address market; bytes32 model; bytes32 request; bytes32 prompt; uint32 promptTokens; uint32 maxTokens; bytes32 sampler; uint8 assurance; uint8 audit; address asset; uint128 maxPrice; uint64 deadline; uint256 nonce; bytes32 grant; }
    struct Receipt { bytes32 order; address provider; bytes32 output; uint32 outputTokens; bytes32 text; uint8 finish; bytes32 state; uint8 assurance; address asset; uint128 price; bytes32 channel; uint128 channelBefore; uint128 channelAfter; uint64 started; uint64 finished; }
    struct Sampler { uint32 invT_q16; uint32 topK; uint32 topP_q16; uint32 minP_q16; uint32 rep_q16; int32 freq_q16; int32 pres_q16; bytes32 stops; bytes32 bias; bytes32 grammar; bytes32 seed; uint32 choice; }
    struct Posting { bool given; uint256 period; uint256 index; bytes32[] proof; }
    struct Filing { Order order; bytes orderSignature; Receipt receipt; bytes receiptSignature; Sampler sampler; Posting posting; }
    struct Branch { uint128 turns; bytes32 node; bytes32[] proof; }
    struct StepLeaf { bytes32 head; bytes6 tail; }
    struct OpenStep { StepLeaf leaf; bytes32[] proof; bytes facts; }
    struct Tensor { uint8 kind; uint32 rows; uint32 columns; uint64 leaf; }
    struct Accusation { OpenStep step; Tensor tensor; bytes32[] tensorProof; uint8 element; uint8 doubt; }
    struct Focus { uint32 position; uint32 op; uint64 leaf; uint8 element; uint8 doubt; uint8 positionDepth; uint8 opDepth; bytes32 node; bytes32 here; StepLeaf step; bytes32 weights; uint8 weightDepth; uint64 tensorLeaf; }
    struct Opening { bytes data; bytes32[] proof; }
    struct Round { bytes list; uint32 entry; }
    struct Tail { uint32 length; bytes tokens; bytes32[] proof; uint32[] eos; bytes stops; }

    interface ICourt {
        event Revealed(uint256 indexed id, bytes32[] nodes);
        event Asked(uint256 indexed id, uint256 depth, uint128 path);
        event Shown(uint256 indexed id, bytes leaf);
        event Named(uint256 indexed id, Focus focus);
        event Listed(uint256 indexed id, bytes list);
        event Chosen(uint256 indexed id, uint32 entry);

        function open(Filing filing) external returns (uint256 id);
        function commit(uint256 id, bytes32 trace, bytes signature) external;
        function pick(uint256 id, Branch branch) external;
        function pickWithin(uint256 id, Branch branch, OpenStep step) external;
        function reveal(uint256 id, bytes32[] nodes) external;
        function ask(uint256 id, uint128 turns, uint8 levels, OpenStep step) external;
        function show(uint256 id, bytes leaf, bytes32[] proof) external;
        function name(uint256 id, Branch branch, Accusation accusation) external;
        function empty(uint256 id, Branch branch, OpenStep step) external;
        function list(uint256 id, bytes values, bytes signature) external;
        function choose(uint256 id, uint32 entry) external;
        function prove(uint256 id, Focus focus, bytes facts, Round[] rounds, Opening[] openings) external;
        function timeout(uint256 id) external;
        function contradict(Filing filing) external;
        function misfinish(Filing filing, Tail tail) external;
        function equivocate(Receipt[2] receipts, bytes[2] signatures, uint32 index, Opening[2] tokens) external;
        function close(uint256 id) external;
        function punish(bytes32 receipt) external;
    }
    interface IJudge {
        function judge(bytes32 trace, Focus focus, bytes facts, Round[] rounds, Opening[] openings) external view returns (bool right);
    }
    interface ISuite {
        function file(bytes manifest) external returns (bytes32 model);
        function factsOf(Filing filing) external view returns (bytes);
        function setArbiter(address present) external;
        function transfer(address to, uint256 amount) external returns (bool);
        function approve(address spender, uint256 amount) external returns (bool);
        function register(address operator, string endpoint, bytes signature) external;
        function stake(uint128 amount) external;
        function disputeOf(uint256 id) external view returns (bytes);
        function caseOf(bytes32 receipt) external view returns (bytes);
    }
}

pub(crate) fn order(order: &words::Order) -> Order {
    Order::abi_decode(&order.encode()).unwrap()
}

pub(crate) fn receipt(receipt: &words::Receipt) -> Receipt {
    Receipt::abi_decode(&receipt.encode()).unwrap()
}

pub(crate) fn sampler(sampler: &words::Sampler) -> Sampler {
    Sampler::abi_decode(&sampler.encode()).unwrap()
}

pub(crate) fn branch(branch: &words::Branch) -> Branch {
    Branch { turns: branch.turns, node: branch.node, proof: branch.proof.clone() }
}

fn step_leaf(step: &words::StepLeaf) -> StepLeaf {
    StepLeaf { head: step.head, tail: step.tail.into() }
}

pub(crate) fn open_step(step: &words::OpenStep) -> OpenStep {
    let facts = step.facts.clone().into();
    OpenStep { leaf: step_leaf(&step.leaf), proof: step.proof.clone(), facts }
}

pub(crate) fn accusation(accusation: &words::Accusation) -> Accusation {
    let (tensor, proof) = accusation
        .tensor
        .clone()
        .unwrap_or((words::Tensor { kind: 0, rows: 0, columns: 0, leaf: 0 }, Vec::new()));
    Accusation {
        step: open_step(&accusation.step),
        tensor: Tensor {
            kind: tensor.kind,
            rows: tensor.rows,
            columns: tensor.columns,
            leaf: tensor.leaf,
        },
        tensorProof: proof,
        element: accusation.element,
        doubt: accusation.doubt as u8,
    }
}

pub(crate) fn focus(focus: &words::Focus) -> Focus {
    Focus {
        position: focus.position,
        op: focus.op,
        leaf: focus.leaf,
        element: focus.element,
        doubt: focus.doubt as u8,
        positionDepth: focus.position_depth,
        opDepth: focus.op_depth,
        node: focus.node,
        here: focus.here,
        step: step_leaf(&focus.step),
        weights: focus.weights,
        weightDepth: focus.weight_depth,
        tensorLeaf: focus.tensor_leaf,
    }
}

/// The focus that an event tells.
pub(crate) fn told(focus: &Focus) -> words::Focus {
    use words::Doubt::{Element, FinalState, Kth, Link, Nucleus};
    words::Focus {
        position: focus.position,
        op: focus.op,
        leaf: focus.leaf,
        element: focus.element,
        doubt: [Element, Link, Kth, Nucleus, FinalState][usize::from(focus.doubt)],
        position_depth: focus.positionDepth,
        op_depth: focus.opDepth,
        node: focus.node,
        here: focus.here,
        step: words::StepLeaf { head: focus.step.head, tail: focus.step.tail.0 },
        weights: focus.weights,
        weight_depth: focus.weightDepth,
        tensor_leaf: focus.tensorLeaf,
    }
}

pub(crate) fn opening(opening: &words::Opening) -> Opening {
    Opening { data: opening.data.clone().into(), proof: opening.proof.clone() }
}

pub(crate) fn round(round: &words::Round) -> Round {
    Round { list: round.list.clone().into(), entry: round.entry }
}

pub(crate) fn proof(id: alloy_sol_types::private::U256, proof: &Proof) -> ICourt::proveCall {
    ICourt::proveCall {
        id,
        focus: focus(&proof.focus),
        facts: proof.facts.clone().into(),
        rounds: proof.rounds.iter().map(round).collect(),
        openings: proof.openings.iter().map(opening).collect(),
    }
}
