//! Every path, thread count and batch gives the bits of the reference.

use std::num::NonZeroUsize;

use assay_kernels::tables::att_q30;
use assay_kernels::{
    Angles, Attention, COLUMNS_STEP, Cpu, GROUP, Isa, KvLayer, Norm, Pairing, Product, Quantised,
    Query, Rope, Weights, reference,
};
use proptest::prelude::*;

/// Reproducible numbers: xorshift.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Numbers of many sizes: each is cut to a random length of at most `bits`.
    fn numbers(&mut self, len: usize, bits: u32) -> Vec<i32> {
        (0..len)
            .map(|_| {
                let (number, cut) = (self.next() as i32, self.next() >> 33);
                number >> (32 - bits + (cut % u64::from(bits)) as u32 % 8)
            })
            .collect()
    }

    /// A matrix with all numbers and scales, shifted so that outputs fill 32 bits.
    fn weights(&mut self, rows: usize, columns: usize) -> Weights {
        let q: Vec<i8> = (0..rows * columns)
            .map(|_| ((self.next() >> 20) % 255) as i8)
            .map(|q| q.max(-127))
            .collect();
        let groups = columns.div_ceil(GROUP);
        let scales: Vec<u16> = (0..rows * groups).map(|_| (self.next() >> 40) as u16 | 1).collect();
        let exponents: Vec<i8> = (0..rows).map(|_| (self.next() % 40) as i8 + 1).collect();
        Weights::from_rows(rows, columns, &q, &scales, &exponents).expect("a valid matrix")
    }

    /// The same in four bits.
    fn weights_w4(&mut self, rows: usize, columns: usize) -> Weights {
        let q: Vec<i8> = (0..rows * columns).map(|_| (self.next() >> 60) as i8 - 8).collect();
        let groups = columns.div_ceil(GROUP);
        let scales: Vec<i16> =
            (0..rows * groups).map(|_| ((self.next() >> 40) as i16 | 1).max(-32_767)).collect();
        let exponents: Vec<i8> = (0..rows).map(|_| (self.next() % 40) as i8 + 1).collect();
        Weights::from_rows_w4(rows, columns, &q, &scales, &exponents).expect("a valid matrix")
    }
}

/// Every path that this machine has, with one, two and three threads.
fn cpus() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_supported());
    isas.flat_map(|isa| [1, 2, 3].map(|threads| cpu(isa, threads))).collect()
}

fn cpu(isa: Isa, threads: usize) -> Cpu {
    let threads = NonZeroUsize::new(threads).expect("at least one thread");
    Cpu::new(isa, threads).expect("a supported path")
}

/// A row of weights in row-major order.
fn weight_row(w: &Weights, row: usize) -> (Vec<i8>, Vec<i32>) {
    let mut q = vec![0; w.columns()];
    w.row_q(row, &mut q);
    (q, (0..w.columns() / GROUP).map(|group| w.scale(row, group)).collect())
}

fn check_quantise(cpu: &Cpu, x: &[i32], columns: usize, padded: usize) {
    let mut out = Quantised::new();
    cpu.quantise(x, columns, padded, &mut out);
    assert_eq!((out.rows(), out.columns()), (x.len() / columns, padded));
    for (row, x) in x.chunks(columns).enumerate() {
        let (q, scales) = reference::quantise(x, padded);
        assert_eq!(out.row(row), (&q[..], &scales[..]), "{cpu:?} row {row}");
    }
}

fn check_matmul(cpu: &Cpu, w: &Weights, x: &[i32], [frac_in, frac_out]: [u8; 2]) {
    let columns = w.columns();
    let mut rows = Quantised::new();
    cpu.quantise(x, columns, columns, &mut rows);
    let mut y = vec![-1; rows.rows() * w.rows()];
    cpu.matmul(w, &rows, frac_in, frac_out, &mut y);
    for output in 0..w.rows() {
        let (q, scales) = weight_row(w, output);
        let shift = i32::from(w.exponent(output)) + i32::from(frac_in) - i32::from(frac_out);
        for row in 0..rows.rows() {
            let expected = reference::matmul((&q, &scales), rows.row(row), shift);
            assert_eq!(y[row * w.rows() + output], expected, "{cpu:?} row {row} output {output}");
        }
    }
}

/// Several matrices at once give what each of them gives alone.
fn check_matmul_all(cpu: &Cpu, matrices: &[Weights], x: &[i32]) {
    let columns = matrices[0].columns();
    let mut rows = Quantised::new();
    cpu.quantise(x, columns, columns, &mut rows);
    let outputs = |w: &Weights| vec![-1; rows.rows() * w.rows()];
    let mut together: Vec<Vec<i32>> = matrices.iter().map(outputs).collect();
    let products = matrices.iter().zip(&mut together).zip(10..);
    cpu.matmul_all(
        &rows,
        14,
        products.map(|((weights, y), frac_out)| Product { weights, frac_out, y }),
    );
    for ((w, together), frac_out) in matrices.iter().zip(together).zip(10..) {
        let mut alone = outputs(w);
        cpu.matmul(w, &rows, 14, frac_out, &mut alone);
        assert_eq!(together, alone, "{cpu:?}, {} rows", rows.rows());
    }
}

fn check_rmsnorm(cpu: &Cpu, x: &[i32], gain: &[i32], norm: Norm) {
    let mut y = vec![0; x.len()];
    cpu.rmsnorm(x, gain, &norm, &mut y);
    for (row, x) in x.chunks(gain.len()).enumerate() {
        let expected = reference::rmsnorm(x, gain, norm.eps_q, norm.frac_out);
        assert_eq!(y[row * gain.len()..][..gain.len()], expected, "{cpu:?} row {row}");
    }
}

fn check_swiglu(cpu: &Cpu, gate: &[i32], up: &[i32], frac_out: u8) {
    let expected: Vec<i32> =
        gate.iter().zip(up).map(|(g, u)| reference::silu_mul(*g, *u, frac_out)).collect();
    let mut y = vec![0; gate.len()];
    cpu.swiglu(gate, up, frac_out, &mut y);
    assert_eq!(y, expected, "{cpu:?}");
}

fn check_rope(cpu: &Cpu, x: &[i32], rope: Rope, cos: &[i32], sin: &[i32]) {
    let half = rope.head_dim / 2;
    let rows = x.len() / rope.row_stride;
    let angles: Vec<Angles<'_>> = (0..rows)
        .map(|row| Angles { cos: &cos[row * half..][..half], sin: &sin[row * half..][..half] })
        .collect();
    let mut y = x.to_vec();
    cpu.rope(&mut y, &rope, &angles);

    let mut expected = x.to_vec();
    for (row, angles) in expected.chunks_mut(rope.row_stride).zip(&angles) {
        for head in row.chunks_mut(rope.head_dim).take(rope.heads) {
            for i in 0..half {
                let (a, b) = match rope.pairing {
                    Pairing::Halves => (i, i + half),
                    Pairing::Adjacent => (2 * i, 2 * i + 1),
                };
                (head[a], head[b]) =
                    reference::rope(head[a], head[b], angles.cos[i], angles.sin[i]);
            }
        }
    }
    assert_eq!(y, expected, "{cpu:?} {rope:?}");
}

/// Sequences of quantised keys and values, and what the reference makes of queries into them.
struct Sequences {
    attention: Attention,
    caches: Vec<KvLayer>,
}

impl Sequences {
    fn new(noise: &mut Noise, attention: Attention, lengths: &[usize], bits: u32) -> Sequences {
        let Attention { kv_heads, head_dim, .. } = attention;
        let cpu = cpu(Isa::Scalar, 1);
        let (mut keys, mut values) = (Quantised::new(), Quantised::new());
        let caches = lengths.iter().map(|&len| {
            let numbers = len * kv_heads * head_dim;
            cpu.quantise(&noise.numbers(numbers, bits), head_dim, head_dim, &mut keys);
            cpu.quantise(&noise.numbers(numbers, bits), head_dim, head_dim, &mut values);
            let mut cache = KvLayer::new(kv_heads, head_dim);
            for position in 0..len {
                cache.push(&keys, position * kv_heads, &values, position * kv_heads);
            }
            cache
        });
        Sequences { attention, caches: caches.collect() }
    }

    /// `looks`: sequence and positions of each query. `q`: (looks, rows per look, head_dim).
    /// Queries see all positions up to theirs, then only the last 70, then their own.
    fn check(&self, cpus: &[Cpu], looks: &[(usize, usize)], q: &[i32]) {
        for window in [usize::MAX, 70, 1] {
            self.check_window(cpus, looks, q, window);
        }
    }

    fn check_window(&self, cpus: &[Cpu], looks: &[(usize, usize)], q: &[i32], window: usize) {
        let Attention { heads, kv_heads, head_dim, att_q30, frac_q, frac_v, frac_out } =
            self.attention;
        let queries: Vec<Query<'_>> = looks
            .iter()
            .map(|&(cache, positions)| {
                let first = positions.saturating_sub(window);
                Query { cache: &self.caches[cache], first, positions }
            })
            .collect();
        let mut rows = Quantised::new();
        cpus[0].quantise(q, head_dim, head_dim, &mut rows);
        let stride = rows.rows() / looks.len();

        let mut expected = Vec::new();
        for (i, query) in queries.iter().enumerate() {
            for head in 0..heads {
                let kv_head = head / (heads / kv_heads);
                let record = |read: &dyn Fn(usize) -> (Vec<i8>, Vec<u16>)| -> Vec<_> {
                    (0..query.positions).map(read).collect()
                };
                let keys = record(&|position| query.cache.key(kv_head, position));
                let values = record(&|position| query.cache.value(kv_head, position));
                expected.extend(reference::attend_from(
                    query.first,
                    rows.row(i * stride + head),
                    &keys.iter().map(|(q, s)| (&q[..], &s[..])).collect::<Vec<_>>(),
                    &values.iter().map(|(q, s)| (&q[..], &s[..])).collect::<Vec<_>>(),
                    att_q30,
                    [frac_q, frac_v, frac_out],
                ));
            }
        }
        for cpu in cpus {
            let mut y = vec![0; expected.len()];
            cpu.attend(&rows, &queries, &self.attention, &mut y);
            assert_eq!(y, expected, "{cpu:?} {looks:?} {window}");
        }
    }
}

fn attention(heads: usize, kv_heads: usize, head_dim: usize) -> Attention {
    let att_q30 = att_q30(head_dim);
    Attention { heads, kv_heads, head_dim, att_q30, frac_q: 12, frac_v: 12, frac_out: 11 }
}

const EXTREMES: [i32; 10] =
    [i32::MIN, i32::MIN + 1, -127 * 32_767 - 1, -127 * 32_767, -1, 0, 1, 63, 1 << 24, i32::MAX];

#[test]
fn quantising_agrees() {
    let mut noise = Noise::new(1);
    for (rows, columns, padded) in [(1, 32, 128), (3, 96, 128), (5, 70, 256), (70, 896, 896)] {
        let mut x = noise.numbers(rows * columns, 32);
        x[..10].copy_from_slice(&EXTREMES);
        x[32..64.min(columns)].fill(0);
        for cpu in cpus() {
            check_quantise(&cpu, &x, columns, padded);
        }
    }
}

/// The fast division is monotone in its numerator, so the numerators on both sides of every step
/// decide all of them.
#[test]
fn every_step_of_the_division_is_where_it_should_be() {
    let cpu = cpu(Isa::detect(), 1);
    let mut out = Quantised::new();
    let mut x = Vec::new();
    for scale in 1..=32_767 {
        x.clear();
        for group in 0..9 {
            // The largest number of a group fixes its scale.
            x.push(127 * scale);
            for step in group * 15..group * 15 + 15 {
                let below = ((2 * step + 1) * scale - 1) / 2;
                x.extend([below.min(127 * scale), (below + 1).min(127 * scale)]);
            }
            x.push(-127 * scale);
        }
        cpu.quantise(&x, x.len(), x.len(), &mut out);
        let (q, scales) = out.row(0);
        assert!(scales.iter().all(|s| i32::from(*s) == scale));
        for (x, q) in x.iter().zip(q) {
            let expected = (2 * x.abs() + scale) / (2 * scale);
            assert_eq!(i32::from(*q), expected * x.signum(), "{x} / {scale}");
        }
    }
}

#[test]
fn products_agree_for_every_shape_of_batch() {
    let mut noise = Noise::new(2);
    for w in [noise.weights(83, 300), noise.weights_w4(83, 300)] {
        for rows in [1, 2, 3, 4, 5, 6, 7, 12, 13, 61] {
            let x = noise.numbers(rows * w.columns(), 32);
            for cpu in cpus() {
                check_matmul(&cpu, &w, &x, [16, 14]);
            }
        }
    }
}

/// Enough products that threads share them: by panels, with and without a batch, and by rows.
#[test]
fn matrices_that_share_their_input_are_multiplied_as_if_alone() {
    let mut noise = Noise::new(17);
    // Together enough for several threads, the small ones alone not.
    let matrices = [
        noise.weights(200, 256),
        noise.weights_w4(16, 256),
        noise.weights(5, 256),
        noise.weights_w4(1100, 256),
    ];
    for rows in [1, 3, 13, 100] {
        let x = noise.numbers(rows * 256, 24);
        cpus().iter().for_each(|cpu| check_matmul_all(cpu, &matrices, &x));
    }
}

#[test]
fn products_agree_when_threads_share_them() {
    let mut noise = Noise::new(3);
    for w in [noise.weights(1_100, 1_000), noise.weights_w4(1_100, 1_000)] {
        for rows in [1, 2, 50] {
            let x = noise.numbers(rows * w.columns(), 24);
            for cpu in cpus() {
                check_matmul(&cpu, &w, &x, [12, 12]);
            }
        }
    }
}

#[test]
fn the_largest_products_are_exact() {
    for columns in [COLUMNS_STEP, assay_kernels::COLUMNS_MAX] {
        for (q, x) in [(127, i32::MAX), (-127, i32::MAX), (127, i32::MIN), (-127, i32::MIN)] {
            let groups = columns / GROUP;
            // Both ends of the shifts, and one that leaves the largest sums just saturated.
            let exponents = [1, 31, 32, 62];
            let (q, scales) = (vec![q; 4 * columns], vec![u16::MAX; 4 * groups]);
            let w = Weights::from_rows(4, columns, &q, &scales, &exponents).unwrap();
            for cpu in cpus() {
                check_matmul(&cpu, &w, &vec![x; 2 * columns], [10, 10]);
            }
        }
    }
}

/// Both ends of the numbers and of the scales, with inputs of both signs: a group's sum reaches
/// 8 · 127 · 32, all that 16 bits may be asked to hold.
#[test]
fn the_largest_products_of_four_bits_are_exact() {
    for columns in [COLUMNS_STEP, assay_kernels::COLUMNS_MAX] {
        for (q, scale) in [(-8, 32_767), (-8, -32_767), (7, 32_767), (7, -32_767)] {
            let exponents = [1, 31, 32, 62];
            let (q, scales) = (vec![q; 4 * columns], vec![scale; 4 * columns / GROUP]);
            let w = Weights::from_rows_w4(4, columns, &q, &scales, &exponents).unwrap();
            for (cpu, x) in cpus().iter().zip([i32::MAX, i32::MIN].into_iter().cycle()) {
                check_matmul(cpu, &w, &vec![x; 2 * columns], [10, 10]);
                check_matmul(cpu, &w, &vec![!x; columns], [10, 10]);
            }
        }
    }
}

#[test]
fn norms_agree() {
    let mut noise = Noise::new(4);
    for (rows, columns) in [(1, 32), (3, 100), (80, 896), (1, 1 << 15)] {
        for bits in [3, 20, 32] {
            let mut x = noise.numbers(rows * columns, bits);
            x[..columns.min(10)].copy_from_slice(&EXTREMES[..columns.min(10)]);
            x[columns / 2..columns].fill(0);
            let gain = noise.numbers(columns, 32);
            let norm = Norm { frac_residual: 16, frac_out: 12, eps_q: 42_950 };
            for cpu in cpus() {
                check_rmsnorm(&cpu, &x, &gain, norm);
                check_rmsnorm(&cpu, &vec![0; x.len()], &gain, norm);
                check_rmsnorm(&cpu, &vec![i32::MIN; x.len()], &gain, norm);
                check_rmsnorm(&cpu, &vec![-1; x.len()], &gain, Norm { eps_q: 0, ..norm });
            }
        }
    }
}

/// The factor of a norm is `2^31`, one more than a 32-bit multiplication takes, if and only if the
/// mean square is a power of four.
#[test]
fn norms_agree_at_the_largest_factor() {
    for (x, eps_q) in [(0, 1), (0, 4), (0, 1 << 30)] {
        for cpu in cpus() {
            let mut row = vec![x; 64];
            row[3] = 1;
            check_rmsnorm(
                &cpu,
                &row,
                &[1 << 12; 64],
                Norm { frac_residual: 16, frac_out: 12, eps_q },
            );
        }
    }
}

#[test]
fn gates_agree() {
    let mut noise = Noise::new(5);
    let mut gate = noise.numbers(40_000, 32);
    let up = noise.numbers(40_000, 32);
    gate.splice(..EXTREMES.len(), EXTREMES);
    gate[10..1_000].iter_mut().for_each(|g| *g >>= 12);
    for cpu in cpus() {
        for frac_out in [0, 8, 12, 16] {
            check_swiglu(&cpu, &gate, &up, frac_out);
        }
    }
}

/// Small gates, at every distance of a step of the tables.
#[test]
fn all_small_gates_agree() {
    let gate: Vec<i32> = (-400_000..400_000).step_by(3).collect();
    let up = vec![1 << 20; gate.len()];
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        check_swiglu(&cpu(isa, 1), &gate, &up, 12);
    }
}

#[test]
fn turns_agree() {
    let mut noise = Noise::new(6);
    for pairing in [Pairing::Halves, Pairing::Adjacent] {
        for (rows, heads, head_dim, row_stride) in
            [(1, 1, 32, 32), (3, 5, 96, 500), (60, 9, 64, 704)]
        {
            let rope = Rope { row_stride, heads, head_dim, pairing };
            let mut x = noise.numbers(rows * row_stride, 32);
            x[..10].copy_from_slice(&EXTREMES);
            let mut cos = noise.numbers(rows * head_dim / 2, 31);
            let sin = noise.numbers(rows * head_dim / 2, 31);
            (cos[0], cos[1]) = (1 << 30, -(1 << 30));
            for cpu in cpus() {
                check_rope(&cpu, &x, rope, &cos, &sin);
            }
        }
    }
}

#[test]
fn sums_saturate() {
    let mut noise = Noise::new(7);
    let (x, mut y) = (noise.numbers(70_000, 32), noise.numbers(70_000, 32));
    y[..10].copy_from_slice(&EXTREMES);
    let expected: Vec<i32> = x.iter().zip(&y).map(|(x, y)| reference::add(*x, *y)).collect();
    for cpu in cpus() {
        let mut sum = x.clone();
        cpu.add(&mut sum, &y);
        assert_eq!(sum, expected, "{cpu:?}");
    }
}

#[test]
fn attention_agrees_at_the_edges_of_blocks() {
    let mut noise = Noise::new(9);
    for (heads, kv_heads, head_dim) in [(1, 1, 32), (14, 2, 64), (4, 4, 96), (3, 1, 128)] {
        let attention = attention(heads, kv_heads, head_dim);
        let sequences = Sequences::new(&mut noise, attention, &[200], 19);
        for positions in [1, 15, 16, 17, 63, 64, 65, 200] {
            let q = noise.numbers(heads * head_dim, 19);
            sequences.check(&cpus(), &[(0, positions)], &q);
        }
    }
}

#[test]
fn attention_agrees_in_mixed_batches() {
    let mut noise = Noise::new(10);
    let attention = attention(6, 2, 32);
    let sequences = Sequences::new(&mut noise, attention, &[70, 3, 150], 20);
    let looks = [(0, 70), (2, 1), (2, 149), (2, 150), (1, 3), (0, 64), (0, 65), (0, 66), (0, 67)];
    // Two rows of each query are no queries.
    let q = noise.numbers(looks.len() * 8 * 32, 20);
    sequences.check(&cpus(), &looks, &q);
}

/// A prompt of 64 tokens: enough for threads to share tiles of queries.
#[test]
fn attention_agrees_over_a_prompt() {
    let mut noise = Noise::new(11);
    let sequences = Sequences::new(&mut noise, attention(14, 2, 64), &[96], 18);
    let looks: Vec<(usize, usize)> = (33..=96).map(|positions| (0, positions)).collect();
    let q = noise.numbers(looks.len() * 14 * 64, 18);
    sequences.check(&cpus(), &looks, &q);
}

/// So much for so few queries that threads share the heads.
#[test]
fn attention_agrees_when_threads_share_heads() {
    let mut noise = Noise::new(14);
    let sequences = Sequences::new(&mut noise, attention(14, 2, 64), &[400, 320], 18);
    for looks in [&[(0, 400)][..], &[(1, 320), (0, 399)]] {
        let q = noise.numbers(looks.len() * 14 * 64, 18);
        sequences.check(&cpus(), looks, &q);
    }
}

#[test]
fn attention_agrees_at_the_extremes() {
    let mut noise = Noise::new(12);
    for (frac_q, frac_v, frac_out) in [(8, 16, 16), (16, 0, 16), (12, 16, 0)] {
        let attention = Attention { frac_q, frac_v, frac_out, ..attention(2, 1, 256) };
        let sequences = Sequences::new(&mut noise, attention, &[130], 32);
        for extreme in [i32::MIN, -1, 0, i32::MAX] {
            sequences.check(&cpus(), &[(0, 130)], &vec![extreme; 2 * 256]);
        }
        let q = noise.numbers(2 * 256, 32);
        sequences.check(&cpus(), &[(0, 129)], &q);
    }
}

#[test]
fn a_shorter_look_is_the_look_at_a_shorter_sequence() {
    let mut noise = Noise::new(13);
    let attention = attention(2, 1, 64);
    let mut sequences = Sequences::new(&mut noise, attention, &[140], 18);
    let mut rows = Quantised::new();
    let cpu = cpu(Isa::detect(), 1);
    cpu.quantise(&noise.numbers(2 * 64, 18), 64, 64, &mut rows);
    let attend = |cache: &KvLayer| {
        let mut y = vec![0; 128];
        cpu.attend(&rows, &[Query { cache, first: 0, positions: 77 }], &attention, &mut y);
        y
    };
    let whole = attend(&sequences.caches[0]);
    sequences.caches[0].truncate(77);
    assert_eq!(attend(&sequences.caches[0]), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_agree(seed: u64, rows in 1usize..20, outputs in 1usize..70, columns in 1usize..400) {
        let mut noise = Noise::new(seed);
        for w in [noise.weights(outputs, columns), noise.weights_w4(outputs, columns)] {
            let x = noise.numbers(rows * w.columns(), 32);
            for cpu in cpus() {
                check_matmul(&cpu, &w, &x, [12, 12]);
            }
        }
    }

    #[test]
    fn elements_agree(seed: u64, rows in 1usize..4, columns in 1usize..200, bits in 1u32..33) {
        let mut noise = Noise::new(seed);
        let x = noise.numbers(rows * columns, bits);
        let other = noise.numbers(rows * columns, 32);
        let norm = Norm { frac_residual: 16, frac_out: 13, eps_q: seed as u32 >> 10 };
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let cpu = cpu(isa, 1);
            check_quantise(&cpu, &x, columns, columns.next_multiple_of(GROUP) + GROUP);
            check_rmsnorm(&cpu, &x, &other[..columns], norm);
            if columns > 1 {
                check_swiglu(&cpu, &x, &other, 12);
            }
        }
    }

    #[test]
    fn attention_agrees(
        seed: u64,
        kv_heads in 1usize..3,
        group in 1usize..10,
        chunks in 1usize..4,
        lengths in prop::collection::vec(1usize..140, 1..4),
        bits in 8u32..24,
    ) {
        let mut noise = Noise::new(seed);
        let (heads, head_dim) = (kv_heads * group, chunks * GROUP);
        let sequences = Sequences::new(&mut noise, attention(heads, kv_heads, head_dim), &lengths, bits);
        let looks: Vec<(usize, usize)> = lengths
            .iter()
            .enumerate()
            .flat_map(|(cache, len)| [(cache, len.div_ceil(2)), (cache, *len)])
            .collect();
        let q = noise.numbers(looks.len() * heads * head_dim, bits);
        sequences.check(&[cpu(Isa::Scalar, 1), cpu(Isa::detect(), 1)], &looks, &q);
    }
}
