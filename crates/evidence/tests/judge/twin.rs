//! The rules in Rust behind the contract's interface.

use alloy_sol_types::{SolCall, SolError, SolInterface, sol};
use assay_evidence::op::{
    self, ActivationLeaf, Block, FixedLeaf, Hits, Kept, Penalties, RuleError, WeightLeaf, WideLeaf,
};
use assay_protocol::{B256, U256, keccak256};

sol! {
    error BadLength(uint256 found, uint256 expected);
    error BadKind(uint256 found);
    error BadScale(uint256 group, uint256 found);
    error BadQuant(uint256 group);
    error OutOfBounds(uint8 what, int256 found);

    struct BlockWords { bytes lower; bytes upper; uint256 count; int64 largest; }
    struct PenaltyWords { uint32 rep; int32 freq; int32 pres; }
    struct HitWords { uint32 prompt; uint32 output; }
    struct KeptWords { uint32 invT; int32 best; int64 leastHeat; uint32 leastWeight; }

    struct ExtentWords { uint32 heads; uint32 kvHeads; uint32 headDim; uint32 vocab; uint32 attended; bool answers; bool adjusted; bool greedy; bool topK; bool topP; }
    error NotInTree(uint256 leaf, uint256 leaves);

    interface IRules {
        function embed(bytes weights, uint256 column, uint8 fraction) external returns (int32);
        function add(int32 x, int32 y) external returns (int32);
        function rope(int32 a, int32 b, int32 cos, int32 sin) external returns (int32, int32);
        function activate(int32 gate, int32 up, uint8 fraction) external returns (int32);
        function quantise(bytes x) external returns (uint16, bytes32);
        function maximum(bytes words, uint256 count) external returns (uint256);
        function maximumSigned(bytes words, uint256 count) external returns (int64);
        function total(bytes words, uint256 count) external returns (uint256);
        function largestMagnitude(bytes x, uint256 count) external returns (uint256);
        function sumOfSquares(bytes x, uint256 count, uint64 shift) external returns (uint256);
        function normShift(uint64 largest) external returns (uint256);
        function inverseRoot(uint64 sum, uint32 width, uint32 eps, uint64 shift) external returns (uint256, uint256);
        function norm(int32 x, int32 gain, uint64 shift, uint64 factor, uint64 right, uint8 fraction) external returns (int32);
        function chunk(bytes weights, bytes x) external returns (int64);
        function product(bytes partials, int32 shift) external returns (int32);
        function chunkOfRecords(bytes query, bytes key) external returns (int64);
        function score(bytes partials, uint8 fraction, uint32 factor) external returns (int32);
        function largestScore(bytes scores, uint256 count) external returns (int64);
        function weightSum(bytes scores, uint256 count, int64 largest) external returns (uint256);
        function blockShift(BlockWords b, bytes scales) external returns (uint256);
        function blockSum(BlockWords b, uint64 shift, bytes values) external returns (int64);
        function attend(bytes sums, uint64 weights, uint8 fractionIn, uint8 fractionOut) external returns (int32);
        function adjust(int32 logit, PenaltyWords penalties, HitWords hits, int32 bias) external returns (int32);
        function bestKey(bytes logits, uint256 count, uint32 first) external returns (int64);
        function keyToken(int64 key) external returns (uint32, int32);
        function rank(bytes logits, uint256 count, int32 threshold) external returns (uint64);
        function isKth(uint64 ranks, uint32 topK) external returns (bool);
        function heat(int32 logit, uint32 invT) external returns (int64);
        function mass(bytes logits, uint256 count, KeptWords kept) external returns (uint64);
        function isNucleus(uint64 above, uint64 from, uint64 all, uint32 topP) external returns (bool);
        function mark(uint64 uniform, uint64 mass) external returns (uint64);
        function draw(bytes words, uint256 count, uint64 mark) external returns (uint32, uint64);
        function drawToken(bytes logits, uint256 count, KeptWords kept, uint64 mark) external returns (uint32);
        function link(uint64 drawn, uint32 answered) external returns (bool);
        function state(bytes32 before, uint32 token, bytes hidden) external returns (bytes32);
        function drawKey(bytes32 seed, bytes32 model, bytes32 prompt, bytes32 sampler) external returns (bytes32);
        function uniform(bytes32 key, uint32 index) external returns (uint64);
        function leaves(uint32 kind, uint32 outputs, uint32 terms, ExtentWords extent) external returns (uint256);
        function treeLeaves(uint64 elements) external returns (uint256);
        function treeWord(uint64 elements, uint64 leaf, uint8 word) external returns (uint256, uint256, uint256);
        function finish(bytes tail, uint32 length, uint32[] eos, bytes stops, uint32 tokensMax) external returns (uint8);
    }
}

/// What the contract says of an answer that does not end.
const GOES_ON: u8 = 255;

/// The first four bytes of the hash of a signature.
pub(crate) fn selector(signature: &str) -> [u8; 4] {
    let hash = keccak256(signature);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What the contract should answer: returned bytes, or those of the error it reverts with.
pub(crate) fn twin(call: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    match IRules::IRulesCalls::abi_decode(call).unwrap() {
        IRules::IRulesCalls::treeWord(call) => tree_word(&call),
        call => answer(call).map_err(refusal),
    }
}

/// A tree that has no such leaf is the caller's affair in Rust, and an error on chain.
fn tree_word(call: &IRules::treeWordCall) -> Result<Vec<u8>, Vec<u8>> {
    let IRules::treeWordCall { elements, leaf, word } = *call;
    let Some((level, read, joined)) = op::tree_word(elements, leaf, word.into()) else {
        let leaves = U256::from(op::tree_leaves(elements));
        return Err(NotInTree { leaf: U256::from(leaf), leaves }.abi_encode());
    };
    let words = IRules::treeWordReturn {
        _0: U256::from(level),
        _1: U256::from(read),
        _2: U256::from(joined),
    };
    Ok(IRules::treeWordCall::abi_encode_returns(&words))
}

/// The layout of a step of that code, or of the chained state.
fn layout(call: &IRules::leavesCall) -> Result<op::Layout, RuleError> {
    let words = &call.extent;
    let extent = op::Extent {
        heads: words.heads,
        kv_heads: words.kvHeads,
        head_dim: words.headDim,
        vocab: words.vocab,
        attended: words.attended,
        answers: words.answers,
        sampling: op::Sampling {
            adjusted: words.adjusted,
            greedy: words.greedy,
            top_k: words.topK,
            top_p: words.topP,
        },
    };
    let step = op::Kind::ALL.get(call.kind as usize).map(|kind| op::Step {
        kind: *kind,
        inputs: [0; 4],
        tensor: 0,
        outputs: call.outputs,
        terms: call.terms,
        frac_in: 0,
        frac_out: 0,
    });
    if call.kind as usize > op::Kind::ALL.len() {
        let found = i128::from(call.kind);
        return Err(RuleError::OutOfBounds { what: op::Quantity::Kind, found });
    }
    Ok(op::Layout::of(step.as_ref(), &extent))
}

fn refusal(error: RuleError) -> Vec<u8> {
    let word = |found: usize| U256::from(found);
    match error {
        RuleError::Length { found, expected } => {
            BadLength { found: word(found), expected: word(expected) }.abi_encode()
        }
        RuleError::Kind { found } => BadKind { found: U256::from(found) }.abi_encode(),
        RuleError::Scale { group, found } => {
            BadScale { group: word(group), found: U256::from(found) }.abi_encode()
        }
        RuleError::Quant { group } => BadQuant { group: word(group) }.abi_encode(),
        RuleError::OutOfBounds { what, found } => {
            OutOfBounds { what: what as u8, found: found.try_into().unwrap() }.abi_encode()
        }
    }
}

fn count(word: U256) -> usize {
    word.saturating_to()
}

fn fixed(bytes: &[u8]) -> Result<FixedLeaf, RuleError> {
    FixedLeaf::read(bytes)
}

fn wide(bytes: &[u8]) -> Result<WideLeaf, RuleError> {
    WideLeaf::read(bytes)
}

fn block(words: &BlockWords) -> Result<Block, RuleError> {
    Block::read(&words.lower, &words.upper, count(words.count), words.largest)
}

fn kept(words: &KeptWords) -> Kept {
    Kept {
        inv_t_q16: words.invT,
        best: words.best,
        least_heat: words.leastHeat,
        least_weight: words.leastWeight,
    }
}

/// The bytes of a group as leaves hold them.
fn biased(quants: [i8; 32]) -> B256 {
    B256::from(quants.map(|q| q as u8 ^ 0x80))
}

fn answer(call: IRules::IRulesCalls) -> Result<Vec<u8>, RuleError> {
    use IRules::IRulesCalls as Call;
    use IRules::*;
    Ok(match call {
        Call::embed(c) => {
            let leaf = WeightLeaf::read(&c.weights)?;
            embedCall::abi_encode_returns(&op::embed(&leaf, count(c.column), c.fraction)?)
        }
        Call::add(c) => addCall::abi_encode_returns(&op::add(c.x, c.y)),
        Call::rope(c) => {
            let (a, b) = op::rope(c.a, c.b, c.cos, c.sin)?;
            ropeCall::abi_encode_returns(&ropeReturn { _0: a, _1: b })
        }
        Call::activate(c) => {
            activateCall::abi_encode_returns(&op::activate(c.gate, c.up, c.fraction)?)
        }
        Call::quantise(c) => {
            let group = op::quantise(&fixed(&c.x)?);
            let words = quantiseReturn { _0: group.scale, _1: biased(group.quants) };
            quantiseCall::abi_encode_returns(&words)
        }
        Call::maximum(c) => {
            let word = op::maximum(&wide(&c.words)?, count(c.count))?;
            maximumCall::abi_encode_returns(&U256::from(word))
        }
        Call::maximumSigned(c) => {
            let word = op::maximum_signed(&wide(&c.words)?, count(c.count))?;
            maximumSignedCall::abi_encode_returns(&word)
        }
        Call::total(c) => {
            let word = op::total(&wide(&c.words)?, count(c.count))?;
            totalCall::abi_encode_returns(&U256::from(word))
        }
        Call::largestMagnitude(c) => {
            let word = op::largest_magnitude(&fixed(&c.x)?, count(c.count))?;
            largestMagnitudeCall::abi_encode_returns(&U256::from(word))
        }
        Call::sumOfSquares(c) => {
            let word = op::sum_of_squares(&fixed(&c.x)?, count(c.count), c.shift)?;
            sumOfSquaresCall::abi_encode_returns(&U256::from(word))
        }
        Call::normShift(c) => {
            normShiftCall::abi_encode_returns(&U256::from(op::norm_shift(c.largest)))
        }
        Call::inverseRoot(c) => {
            let (factor, right) = op::inverse_root(c.sum, c.width, c.eps, c.shift)?;
            let words = inverseRootReturn { _0: U256::from(factor), _1: U256::from(right) };
            inverseRootCall::abi_encode_returns(&words)
        }
        Call::norm(c) => normCall::abi_encode_returns(&op::norm(
            c.x, c.gain, c.shift, c.factor, c.right, c.fraction,
        )?),
        Call::chunk(c) => {
            let weights = WeightLeaf::read(&c.weights)?;
            chunkCall::abi_encode_returns(&op::chunk(&weights, &ActivationLeaf::read(&c.x)?))
        }
        Call::product(c) => {
            productCall::abi_encode_returns(&op::product(&op::partials(&c.partials)?, c.shift)?)
        }
        Call::chunkOfRecords(c) => {
            let query = ActivationLeaf::read(&c.query)?;
            let key = ActivationLeaf::read(&c.key)?;
            chunkOfRecordsCall::abi_encode_returns(&op::chunk_of_records(&query, &key))
        }
        other => return attention(other),
    })
}

fn attention(call: IRules::IRulesCalls) -> Result<Vec<u8>, RuleError> {
    use IRules::IRulesCalls as Call;
    use IRules::*;
    Ok(match call {
        Call::score(c) => scoreCall::abi_encode_returns(&op::score(
            &op::partials(&c.partials)?,
            c.fraction,
            c.factor,
        )?),
        Call::largestScore(c) => {
            let word = op::largest_score(&fixed(&c.scores)?, count(c.count))?;
            largestScoreCall::abi_encode_returns(&word)
        }
        Call::weightSum(c) => {
            let word = op::weight_sum(&fixed(&c.scores)?, count(c.count), c.largest)?;
            weightSumCall::abi_encode_returns(&U256::from(word))
        }
        Call::blockShift(c) => {
            let word = op::block_shift(&block(&c.b)?, &c.scales)?;
            blockShiftCall::abi_encode_returns(&U256::from(word))
        }
        Call::blockSum(c) => {
            let sum = op::block_sum(&block(&c.b)?, c.shift, &c.values)?;
            blockSumCall::abi_encode_returns(&sum)
        }
        Call::attend(c) => attendCall::abi_encode_returns(&op::attend(
            &op::partials(&c.sums)?,
            c.weights,
            c.fractionIn,
            c.fractionOut,
        )?),
        other => return sampling(other),
    })
}

fn sampling(call: IRules::IRulesCalls) -> Result<Vec<u8>, RuleError> {
    use IRules::IRulesCalls as Call;
    use IRules::*;
    Ok(match call {
        Call::adjust(c) => {
            let PenaltyWords { rep, freq, pres } = c.penalties;
            let penalties = Penalties { rep_q16: rep, freq_q16: freq, pres_q16: pres };
            let hits = Hits { prompt: c.hits.prompt, output: c.hits.output };
            adjustCall::abi_encode_returns(&op::adjust(c.logit, &penalties, hits, c.bias)?)
        }
        Call::bestKey(c) => {
            let key = op::best_key(&fixed(&c.logits)?, count(c.count), c.first)?;
            bestKeyCall::abi_encode_returns(&key)
        }
        Call::keyToken(c) => {
            let (token, logit) = op::key_token(c.key);
            keyTokenCall::abi_encode_returns(&keyTokenReturn { _0: token, _1: logit })
        }
        Call::rank(c) => {
            let ranks = op::rank(&fixed(&c.logits)?, count(c.count), c.threshold)?;
            rankCall::abi_encode_returns(&ranks)
        }
        Call::isKth(c) => isKthCall::abi_encode_returns(&op::is_kth(c.ranks, c.topK)),
        Call::heat(c) => heatCall::abi_encode_returns(&op::heat(c.logit, c.invT)),
        Call::mass(c) => {
            let mass = op::mass(&fixed(&c.logits)?, count(c.count), &kept(&c.kept))?;
            massCall::abi_encode_returns(&mass)
        }
        Call::isNucleus(c) => {
            isNucleusCall::abi_encode_returns(&op::is_nucleus(c.above, c.from, c.all, c.topP))
        }
        Call::mark(c) => markCall::abi_encode_returns(&op::mark(c.uniform, c.mass)),
        Call::draw(c) => {
            let (index, rest) = op::draw(&wide(&c.words)?, count(c.count), c.mark)?;
            drawCall::abi_encode_returns(&drawReturn { _0: index, _1: rest })
        }
        Call::drawToken(c) => {
            let logits = fixed(&c.logits)?;
            let index = op::draw_token(&logits, count(c.count), &kept(&c.kept), c.mark)?;
            drawTokenCall::abi_encode_returns(&index)
        }
        Call::link(c) => linkCall::abi_encode_returns(&op::link(c.drawn, c.answered)),
        Call::state(c) => stateCall::abi_encode_returns(&op::state(c.before, c.token, &c.hidden)?),
        Call::drawKey(c) => {
            let key = op::draw_key(c.seed, c.model, c.prompt, c.sampler);
            drawKeyCall::abi_encode_returns(&key)
        }
        Call::uniform(c) => uniformCall::abi_encode_returns(&op::uniform(c.key, c.index)),
        Call::leaves(c) => leavesCall::abi_encode_returns(&U256::from(op::leaves(&layout(&c)?))),
        Call::treeLeaves(c) => {
            treeLeavesCall::abi_encode_returns(&U256::from(op::tree_leaves(c.elements)))
        }
        Call::finish(c) => {
            let ended = op::finish(&c.tail, c.length, &c.eos, &c.stops, c.tokensMax)?;
            finishCall::abi_encode_returns(&ended.map_or(GOES_ON, |finish| finish.code()))
        }
        _ => unreachable!("every rule has a twin"),
    })
}
