//! Whether this machine's processor computes the numbers that everybody agreed on.

use std::num::NonZeroUsize;

use assay_kernels::{
    Angles, Attention, Cpu, Isa, KvLayer, Norm, Pairing, Quantised, Query, Rope, Weights, tables,
};
use assay_protocol::keccak256;

/// keccak256 of [`results`], from the plain definitions.
const EXPECTED: &str = "0x6f4b8456b5d260fec5a6c7fe2671e590ec5e1d5e48bed2c15a0b537710049f88";

const ROWS: usize = 5;
const WIDTH: usize = 192;
const HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const POSITIONS: usize = 70;

/// How one instruction set did.
pub(crate) struct Tested {
    /// Which.
    pub(crate) isa: Isa,
    /// Whether every number was the right one.
    pub(crate) agrees: bool,
}

/// Computes the same numbers with every instruction set of this machine.
pub(crate) fn run() -> Vec<Tested> {
    let here = Isa::ALL.into_iter().filter(|isa| isa.is_supported());
    here.map(|isa| Tested { isa, agrees: digest(isa).as_deref() == Some(EXPECTED) }).collect()
}

fn digest(isa: Isa) -> Option<String> {
    let cpu = Cpu::new(isa, NonZeroUsize::MIN).ok()?;
    let bytes: Vec<u8> = results(&cpu).into_iter().flat_map(i32::to_be_bytes).collect();
    Some(keccak256(bytes).to_string())
}

/// Every operation once, on numbers from small to extreme, with odd sizes so that remainders of
/// blocks and lanes are met.
fn results(cpu: &Cpu) -> Vec<i32> {
    let mut noise = Noise(1);
    let mut all = Vec::new();
    let input = noise.numbers(ROWS * WIDTH, 1 << 22);
    let mut quantised = Quantised::new();
    cpu.quantise(&input, WIDTH, WIDTH.next_multiple_of(128), &mut quantised);

    let weights = weights(&mut noise, 2 * WIDTH);
    let mut product = vec![0; ROWS * 2 * WIDTH];
    cpu.matmul(&weights, &quantised, 14, 16, &mut product);
    all.extend(&product);

    let gain = noise.numbers(WIDTH, 1 << 13);
    let mut normed = vec![0; ROWS * WIDTH];
    let norm = Norm { frac_residual: 16, frac_out: 12, eps_q: 43_000 };
    cpu.rmsnorm(&input, &gain, &norm, &mut normed);
    cpu.add(&mut normed, &input);
    all.extend(&normed);

    let mut active = vec![0; ROWS * WIDTH];
    let (gate, up) = product.split_at(ROWS * WIDTH);
    cpu.swiglu(gate, up, 12, &mut active);
    all.extend(&active);
    all.extend(attended(cpu, &mut noise));
    all
}

/// Attention of one query, turned by its position, over a cache that spans two blocks.
fn attended(cpu: &Cpu, noise: &mut Noise) -> Vec<i32> {
    let mut cache = KvLayer::new(1, HEAD_DIM);
    let (mut key, mut value, mut query) = (Quantised::new(), Quantised::new(), Quantised::new());
    for _ in 0..POSITIONS {
        cpu.quantise(&noise.numbers(HEAD_DIM, 1 << 15), HEAD_DIM, HEAD_DIM, &mut key);
        cpu.quantise(&noise.numbers(HEAD_DIM, 1 << 15), HEAD_DIM, HEAD_DIM, &mut value);
        cache.push(&key, 0, &value, 0);
    }
    let mut turned = noise.numbers(HEADS * HEAD_DIM, 1 << 15);
    let (cos, sin) = (noise.numbers(HEAD_DIM / 2, 1 << 30), noise.numbers(HEAD_DIM / 2, 1 << 30));
    let rope = Rope {
        row_stride: HEADS * HEAD_DIM,
        heads: HEADS,
        head_dim: HEAD_DIM,
        pairing: Pairing::Halves,
    };
    cpu.rope(&mut turned, &rope, &[Angles { cos: &cos, sin: &sin }]);
    cpu.quantise(&turned, HEAD_DIM, HEAD_DIM, &mut query);
    let attention = Attention {
        heads: HEADS,
        kv_heads: 1,
        head_dim: HEAD_DIM,
        att_q30: tables::att_q30(HEAD_DIM),
        frac_q: 12,
        frac_v: 12,
        frac_out: 12,
    };
    let mut output = vec![0; HEADS * HEAD_DIM];
    let query_at = Query { cache: &cache, first: 0, positions: POSITIONS };
    cpu.attend(&query, &[query_at], &attention, &mut output);
    output
}

fn weights(noise: &mut Noise, rows: usize) -> Weights {
    let quants: Vec<i8> =
        noise.numbers(rows * WIDTH, 128).into_iter().map(|q| q.clamp(-127, 127) as i8).collect();
    let scales: Vec<u16> = noise
        .numbers(rows * WIDTH / 32, 1 << 15)
        .into_iter()
        .map(|s| (s + 32_769) as u16)
        .collect();
    // Few results saturate; those that do are part of the test.
    let exponents: Vec<i8> = (0..rows).map(|row| 22 + (row % 8) as i8).collect();
    Weights::from_rows(rows, WIDTH, &quants, &scales, &exponents).expect("the numbers are in range")
}

/// The same numbers everywhere (SplitMix64).
struct Noise(u64);

impl Noise {
    /// `count` numbers from `-limit` up to `limit`, exclusive.
    fn numbers(&mut self, count: usize, limit: i64) -> Vec<i32> {
        (0..count)
            .map(|_| (self.next() % (2 * limit as u64)) as i64 - limit)
            .map(|n| n as i32)
            .collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_numbers_are_the_plain_definitions() {
        assert_eq!(digest(Isa::Scalar).as_deref(), Some(EXPECTED));
    }

    #[test]
    fn the_numbers_are_many_and_different() {
        let mut numbers = results(&Cpu::new(Isa::Scalar, NonZeroUsize::MIN).unwrap());
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() * 10 > count * 7, "{} of {count}", numbers.len());
    }

    #[test]
    fn every_instruction_set_agrees() {
        assert!(run().iter().all(|tested| tested.agrees));
    }
}
