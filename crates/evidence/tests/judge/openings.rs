//! Random openings: most of them sound, many at the edges, some that no leaf can be.

use alloy_sol_types::SolCall;
use assay_protocol::{B256, U256, activation_leaf, fixed_leaf, weight_leaf};

use crate::twin::{BlockWords, ExtentWords, HitWords, IRules::*, KeptWords, PenaltyWords};

/// Every rule, by the name of its function.
pub(crate) const RULES: [&str; 41] = [
    "embed",
    "add",
    "rope",
    "activate",
    "quantise",
    "maximum",
    "maximumSigned",
    "total",
    "largestMagnitude",
    "sumOfSquares",
    "normShift",
    "inverseRoot",
    "norm",
    "chunk",
    "product",
    "chunkOfRecords",
    "score",
    "largestScore",
    "weightSum",
    "blockShift",
    "blockSum",
    "attend",
    "adjust",
    "bestKey",
    "keyToken",
    "rank",
    "isKth",
    "heat",
    "mass",
    "isNucleus",
    "mark",
    "draw",
    "drawToken",
    "link",
    "state",
    "drawKey",
    "uniform",
    "finish",
    "leaves",
    "treeLeaves",
    "treeWord",
];

/// A small generator of numbers that cluster where rules could break.
pub(crate) struct Noise {
    state: u64,
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Noise {
        Noise { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// SplitMix64.
    fn u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.u64() % bound
    }

    /// One in so many.
    fn rarely(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// A number in a range, its ends more often than others.
    fn within(&mut self, least: i64, most: i64) -> i64 {
        let span = most.wrapping_sub(least) as u64;
        match self.below(8) {
            0 => least,
            1 => most,
            _ if span == u64::MAX => self.u64() as i64,
            _ => least.wrapping_add((self.u64() % (span + 1)) as i64),
        }
    }

    /// As [`Noise::within`], rarely one beside it.
    fn around(&mut self, least: i64, most: i64) -> i64 {
        match self.below(40) {
            0 => least.saturating_sub(1),
            1 => most.saturating_add(1),
            _ => self.within(least, most),
        }
    }

    /// Any magnitude as likely as any other.
    fn i32(&mut self) -> i32 {
        match self.below(12) {
            0 => i32::MIN,
            1 => i32::MAX,
            2 => 0,
            _ => (self.u64() as i32) >> self.below(32),
        }
    }

    fn word(&mut self) -> u64 {
        match self.below(12) {
            0 => u64::MAX,
            1 => 0,
            2 => i64::MIN as u64,
            _ => self.u64() >> self.below(64),
        }
    }

    fn i32s(&mut self) -> [i32; 32] {
        match self.below(4) {
            // Numbers of one magnitude, as vectors have them.
            0 | 1 => {
                let shift = self.below(32);
                std::array::from_fn(|_| (self.u64() as i32) >> shift)
            }
            2 => {
                let all = self.i32();
                [all; 32]
            }
            _ => std::array::from_fn(|_| self.i32()),
        }
    }

    /// A leaf, or rarely something of another length.
    fn spoilt(&mut self, mut leaf: Vec<u8>) -> Vec<u8> {
        match self.below(60) {
            0 => drop(leaf.pop()),
            1 => leaf.push(0),
            2 => leaf.clear(),
            _ => {}
        }
        leaf
    }

    fn fixed(&mut self) -> Vec<u8> {
        let values = self.i32s();
        self.spoilt(fixed_leaf(&values).to_vec())
    }

    fn wide(&mut self, most: u64) -> Vec<u8> {
        let words: Vec<u64> = (0..32).map(|_| self.word().min(most)).collect();
        let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.spoilt(bytes)
    }

    fn quants(&mut self) -> [i8; 128] {
        let edge = self.rarely(4);
        std::array::from_fn(|_| {
            if edge {
                if self.rarely(2) { -127 } else { 127 }
            } else {
                self.within(-127, 127) as i8
            }
        })
    }

    fn scales(&mut self, most: i64) -> [u16; 4] {
        std::array::from_fn(|_| self.within(1, most) as u16)
    }

    fn activation(&mut self) -> Vec<u8> {
        let mut leaf = activation_leaf(&self.scales(32_767), &self.quants()).to_vec();
        match self.below(40) {
            0 => leaf[8 + self.below(128) as usize] = 0,
            1 => leaf[2 * self.below(4) as usize..][..2].fill(0),
            2 => leaf[2 * self.below(4) as usize] |= 0x80,
            _ => {}
        }
        self.spoilt(leaf)
    }

    fn weights(&mut self) -> Vec<u8> {
        let exponent = self.within(-128, 127) as i8;
        let mut leaf = weight_leaf(exponent, &self.scales(65_535), &self.quants()).to_vec();
        match self.below(40) {
            0 => leaf[10 + self.below(128) as usize] = 0,
            1 => leaf[2 + 2 * self.below(4) as usize..][..2].fill(0),
            2 => leaf[0] = self.u64() as u8,
            _ => {}
        }
        self.spoilt(leaf)
    }

    fn partials(&mut self) -> Vec<u8> {
        let narrow = self.below(64);
        let count = self.below(40);
        let words = (0..count).map(|_| (self.u64() as i64) >> narrow);
        let bytes: Vec<u8> =
            words.collect::<Vec<_>>().iter().flat_map(|w| w.to_be_bytes()).collect();
        self.spoilt(bytes)
    }

    fn count(&mut self) -> U256 {
        U256::from(self.around(1, 32))
    }

    fn fraction(&mut self, least: i64) -> u8 {
        self.around(least, 16).max(0) as u8
    }

    fn b256(&mut self) -> B256 {
        let words: Vec<u8> = (0..4).flat_map(|_| self.u64().to_be_bytes()).collect();
        B256::from_slice(&words)
    }

    /// Scores below a largest one, which rarely is too low.
    fn scores(&mut self) -> (Vec<i32>, i64) {
        let top = self.within(-(1 << 24), 1 << 24) as i32;
        let spread = 1 << self.within(0, 23);
        let scores: Vec<i32> = (0..64).map(|_| top - self.within(0, spread) as i32).collect();
        let largest = match self.below(60) {
            0 => i64::from(top) - spread,
            1 => i64::MAX,
            2 => i64::from(i32::MAX),
            _ => i64::from(top),
        };
        (scores, largest)
    }

    fn block(&mut self) -> (BlockWords, usize) {
        let (scores, largest) = self.scores();
        let count = self.around(1, 64) as usize;
        let upper = if count > 32 { fixed_leaf(&scores[32..]).to_vec() } else { Vec::new() };
        let lower = self.spoilt(fixed_leaf(&scores[..32]).to_vec()).into();
        let upper = self.spoilt(upper).into();
        (BlockWords { lower, upper, count: U256::from(count), largest }, count)
    }

    /// Entries of a scale and, if so wanted, a number.
    fn values(&mut self, count: usize, numbers: bool) -> Vec<u8> {
        let mut list = Vec::new();
        let same = self.rarely(4).then(|| self.within(1, 32_767));
        for _ in 0..count {
            let scale = same.unwrap_or_else(|| self.within(1, 32_767)) as u16;
            let scale = if self.rarely(2_000) { self.within(0, 1) as u16 * 0x8000 } else { scale };
            list.extend(scale.to_be_bytes());
            if numbers {
                let quant = if self.rarely(2_000) { -128 } else { self.within(-127, 127) as i8 };
                list.push(quant as u8 ^ 0x80);
            }
        }
        self.spoilt(list)
    }

    /// Logits below a best one, and what is kept of them.
    fn logits(&mut self) -> (Vec<u8>, KeptWords) {
        let inv_t = if self.rarely(6) { u32::MAX } else { (self.u64() as u32) >> self.below(32) };
        let top = self.i32();
        let bits = self.below(32);
        let spread = self.below(1 << bits) as i64 + 1;
        let below = |noise: &mut Noise| (i64::from(top) - noise.within(0, spread)).max(-(1 << 31));
        let values: Vec<i32> = (0..32).map(|_| below(self) as i32).collect();
        let best = if self.rarely(60) { i64::from(top) - spread } else { i64::from(top) };
        let best = if self.rarely(4) { best + self.within(0, spread) } else { best };
        let best = best.clamp(-(1 << 31), (1 << 31) - 1) as i32;
        let least_heat = match self.below(3) {
            0 => i64::MIN,
            _ => assay_evidence::op::heat(below(self) as i32, inv_t),
        };
        let least = self.around(0, 1 << 30).max(0) as u32;
        let least_weight = if self.rarely(2) { 0 } else { least };
        let kept =
            KeptWords { invT: inv_t, best, leastHeat: least_heat, leastWeight: least_weight };
        (self.spoilt(fixed_leaf(&values).to_vec()), kept)
    }
}

/// A call of a rule with a random opening.
pub(crate) fn call(rule: &str, n: &mut Noise) -> Vec<u8> {
    match rule {
        "embed" => {
            let column = U256::from(n.around(0, 127).max(0));
            let weights = n.weights().into();
            embedCall { weights, column, fraction: n.fraction(0) }.abi_encode()
        }
        "add" => addCall { x: n.i32(), y: n.i32() }.abi_encode(),
        "rope" => {
            let cos = n.around(-(1 << 30), 1 << 30) as i32;
            let sin = n.around(-(1 << 30), 1 << 30) as i32;
            ropeCall { a: n.i32(), b: n.i32(), cos, sin }.abi_encode()
        }
        "activate" => {
            activateCall { gate: n.i32(), up: n.i32(), fraction: n.fraction(0) }.abi_encode()
        }
        "quantise" => quantiseCall { x: n.fixed().into() }.abi_encode(),
        "maximum" => maximumCall { words: n.wide(u64::MAX).into(), count: n.count() }.abi_encode(),
        "maximumSigned" => {
            maximumSignedCall { words: n.wide(u64::MAX).into(), count: n.count() }.abi_encode()
        }
        "total" => totalCall { words: n.wide(u64::MAX).into(), count: n.count() }.abi_encode(),
        "largestMagnitude" => {
            largestMagnitudeCall { x: n.fixed().into(), count: n.count() }.abi_encode()
        }
        "sumOfSquares" => {
            let shift = n.around(0, 8).max(0) as u64;
            sumOfSquaresCall { x: n.fixed().into(), count: n.count(), shift }.abi_encode()
        }
        "normShift" => normShiftCall { largest: n.word() }.abi_encode(),
        "inverseRoot" => {
            let width = n.around(1, 1 << 15) as u32;
            // Sums of squares of rows: rarely a mean of 50 bits.
            let sum = if n.rarely(20) { n.word() } else { n.word() >> 13 };
            let shift = n.around(0, 8).max(0) as u64;
            inverseRootCall { sum, width, eps: n.word() as u32, shift }.abi_encode()
        }
        "norm" => normCall {
            x: n.i32(),
            gain: n.i32(),
            shift: n.around(0, 8).max(0) as u64,
            factor: n.around(1 << 30, 1 << 31) as u64,
            right: n.around(11, 35) as u64,
            fraction: n.fraction(0),
        }
        .abi_encode(),
        "chunk" => chunkCall { weights: n.weights().into(), x: n.activation().into() }.abi_encode(),
        "product" => {
            let shift = n.around(1, 62) as i32;
            productCall { partials: n.partials().into(), shift }.abi_encode()
        }
        "chunkOfRecords" => {
            let (query, key) = (n.activation().into(), n.activation().into());
            chunkOfRecordsCall { query, key }.abi_encode()
        }
        _ => call_of_attention(rule, n),
    }
}

fn call_of_attention(rule: &str, n: &mut Noise) -> Vec<u8> {
    match rule {
        "score" => {
            let factor = n.around(0, (1 << 29) - 1).max(0) as u32;
            scoreCall { partials: n.partials().into(), fraction: n.fraction(8), factor }
                .abi_encode()
        }
        "largestScore" => {
            largestScoreCall { scores: n.fixed().into(), count: n.count() }.abi_encode()
        }
        "weightSum" => {
            let (scores, largest) = n.scores();
            let scores = n.spoilt(fixed_leaf(&scores[..32]).to_vec()).into();
            weightSumCall { scores, count: n.count(), largest }.abi_encode()
        }
        "blockShift" => {
            let (b, count) = n.block();
            blockShiftCall { b, scales: n.values(count, false).into() }.abi_encode()
        }
        "blockSum" => {
            let (b, count) = n.block();
            let shift = n.around(0, 22).max(0) as u64;
            blockSumCall { b, shift, values: n.values(count, true).into() }.abi_encode()
        }
        "attend" => attendCall {
            sums: n.partials().into(),
            weights: n.word(),
            fractionIn: n.fraction(0),
            fractionOut: n.fraction(0),
        }
        .abi_encode(),
        _ => call_of_sampling(rule, n),
    }
}

fn call_of_sampling(rule: &str, n: &mut Noise) -> Vec<u8> {
    match rule {
        "adjust" => {
            let rep = n.around(1 << 12, 1 << 20) as u32;
            let penalties = PenaltyWords { rep, freq: n.i32(), pres: n.i32() };
            let mut hit = || if n.rarely(2) { 0 } else { n.word() as u32 };
            let hits = HitWords { prompt: hit(), output: hit() };
            adjustCall { logit: n.i32(), penalties, hits, bias: n.i32() }.abi_encode()
        }
        "bestKey" => {
            let first = n.around(0, (1 << 31) - 32).max(0) as u32;
            bestKeyCall { logits: n.fixed().into(), count: n.count(), first }.abi_encode()
        }
        "keyToken" => keyTokenCall { key: n.word() as i64 }.abi_encode(),
        "rank" => {
            let (logits, kept) = n.logits();
            rankCall { logits: logits.into(), count: n.count(), threshold: kept.best }.abi_encode()
        }
        "isKth" => {
            let (above, from) = (n.below(9), n.below(9));
            isKthCall { ranks: (above << 32) + from, topK: n.below(9) as u32 }.abi_encode()
        }
        "heat" => heatCall { logit: n.i32(), invT: n.word() as u32 }.abi_encode(),
        "mass" => {
            let (logits, kept) = n.logits();
            massCall { logits: logits.into(), count: n.count(), kept }.abi_encode()
        }
        "isNucleus" => {
            let all = n.word();
            let wanted = n.around(1, 1 << 16) as u32;
            let exact = ((u128::from(all) * u128::from(wanted)) >> 16) as u64;
            let mut near = || exact.wrapping_add(n.below(3)).wrapping_sub(1);
            isNucleusCall { above: near(), from: near(), all, topP: wanted }.abi_encode()
        }
        "mark" => markCall { uniform: n.word(), mass: n.word() }.abi_encode(),
        "draw" => {
            let most = u64::MAX >> n.below(64);
            let words = n.wide(most).into();
            drawCall { words, count: n.count(), mark: n.word().min(most) }.abi_encode()
        }
        "drawToken" => {
            let (logits, kept) = n.logits();
            let mark = n.word() >> 32;
            drawTokenCall { logits: logits.into(), count: n.count(), kept, mark }.abi_encode()
        }
        "link" => {
            let answered = n.word() as u32;
            let drawn = if n.rarely(2) { u64::from(answered) } else { n.word() };
            linkCall { drawn, answered }.abi_encode()
        }
        "state" => {
            let hidden: Vec<u8> = (0..n.below(4)).flat_map(|_| n.activation()).collect();
            stateCall { before: n.b256(), token: n.word() as u32, hidden: hidden.into() }
                .abi_encode()
        }
        "drawKey" => {
            let [seed, model, prompt, sampler] = std::array::from_fn(|_| n.b256());
            drawKeyCall { seed, model, prompt, sampler }.abi_encode()
        }
        "uniform" => uniformCall { key: n.b256(), index: n.word() as u32 }.abi_encode(),
        "leaves" => {
            let mut size = |most: i64| n.within(1, most) as u32;
            let (heads, kv_heads, dim) = (size(64), size(64), 32 * size(8));
            let (vocab, attended) = (size(1 << 20), size(1 << 17));
            let (kind, outputs, terms) = (size(36) - 1, size(1 << 17), size(1 << 15));
            let [answers, adjusted, greedy, top_k, top_p] = std::array::from_fn(|_| n.rarely(2));
            let extent = ExtentWords {
                heads,
                kvHeads: kv_heads,
                headDim: dim,
                vocab,
                attended,
                answers,
                adjusted,
                greedy,
                topK: top_k,
                topP: top_p,
            };
            leavesCall { kind, outputs, terms, extent }.abi_encode()
        }
        "treeLeaves" => treeLeavesCall { elements: n.within(1, 1 << 31) as u64 }.abi_encode(),
        "treeWord" => {
            let bits = n.below(31);
            let elements = 1 + n.below(1 << bits);
            let leaf = n.around(0, elements as i64 / 512 + 2).max(0) as u64;
            treeWordCall { elements, leaf, word: n.below(32) as u8 }.abi_encode()
        }
        "finish" => {
            // Few tokens, so that sequences and ends are met.
            let token = |n: &mut Noise| (n.below(3) as u32).to_be_bytes();
            let (mut stops, mut longest) = ((n.below(3) as u32).to_be_bytes().to_vec(), 1);
            for _ in 0..stops[3] {
                let length = n.below(4) as u32;
                longest = longest.max(length);
                stops.extend(length.to_be_bytes());
                (0..length).for_each(|_| stops.extend(token(n)));
            }
            let stops = if n.rarely(3) { Vec::new() } else { n.spoilt(stops) };
            let longest = if stops.is_empty() { 1 } else { longest };
            let length = n.around(1, 6).max(0) as u32;
            let tail: Vec<u8> = (0..length.min(longest)).flat_map(|_| token(n)).collect();
            let eos = (0..n.below(2)).map(|_| n.below(3) as u32).collect();
            let tail = n.spoilt(tail).into();
            finishCall { tail, length, eos, stops: stops.into(), tokensMax: 5 }.abi_encode()
        }
        _ => panic!("no openings of {rule}"),
    }
}
