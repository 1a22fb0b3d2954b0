//! Measures matrix products on one thread: `cargo run --release -p assay-kernels --example gmacs`.
//!
//! Prints one row per instruction set, format and shape; with `--json`, one object per instruction
//! set, format and quantity instead. Both end with how fast one and two threads merely read weights that no
//! cache holds, which bounds a model's decoding. Times are medians of processor time where the system tells it (Linux),
//! else of wall time; the memory bandwidth of one row is honest only on an idle machine.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark has a clock and prints figures"
)]

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use assay_kernels::{Cpu, Format, GROUP, Isa, Quantised, Weights};

/// Output rows and columns of the matrices: a square one, and those of a model of 0.5 billion
/// parameters.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (4864, 896), (896, 4864)];
/// A matrix that no cache holds.
const LARGE: (usize, usize) = (65_536, 4096);
/// Rows of a batch that stands for a prompt.
const BATCH: usize = 96;
/// Samples that a median is taken of.
const SAMPLES: usize = 9;
/// Work of one sample, so that the clock's resolution, a few milliseconds, hardly matters.
const SAMPLE: Duration = Duration::from_millis(120);

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    if !json {
        println!("{:<11} {:>12} {:>12} {:>12} {:>12}", "path", "matrix", "batch", "one row", "");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let cpu = Cpu::new(isa, NonZeroUsize::MIN).expect("a supported path needs no threads");
        for format in Format::ALL {
            show(isa, format, &SHAPES.map(|shape| measure(&cpu, format, shape)), json);
        }
    }
    let large = weights(Format::W8, LARGE.0, LARGE.1);
    for threads in [1, 2] {
        let rate = bandwidth(&large, threads);
        if json {
            println!(
                "{{\"name\":\"bandwidth.read.{threads}t\",\"value\":{rate:.2},\"unit\":\"GB/s\"}}"
            );
        } else {
            println!("read, {threads} threads: {rate:.1} GB/s");
        }
    }
}

/// Prints the rates of one path in one format.
fn show(isa: Isa, format: Format, rates: &[(f64, f64, f64)], json: bool) {
    if json {
        let (batch, single, bytes) = mean(rates);
        let suffix = if format == Format::W8 { "" } else { "_w4" };
        let row = |name: &str, value: f64, unit: &str| {
            let name = format!("{name}{suffix}.{isa}");
            println!("{{\"name\":\"{name}\",\"value\":{value:.2},\"unit\":\"{unit}\"}}");
        };
        row("kernel.gmacs", batch, "GMAC/s");
        row("kernel.gmacs_single", single, "GMAC/s");
        row("kernel.weights_read", bytes, "GB/s");
        return;
    }
    for ((rows, columns), (batch, single, bytes)) in SHAPES.iter().zip(rates) {
        let (path, matrix) = (format!("{isa} {format}"), format!("{rows}×{columns}"));
        println!(
            "{path:<11} {matrix:>12} {batch:>5.1} GMAC/s {single:>5.1} GMAC/s {bytes:>7.1} GB/s"
        );
    }
}

/// Bytes per nanosecond of wall time that threads read, at best.
fn bandwidth(w: &Weights, threads: usize) -> f64 {
    let bytes = w.quants();
    let read = |part: &[u8]| part.chunks_exact(64).fold([0u8; 64], or_lines);
    let times = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(read(part)));
            }
        });
        start.elapsed().as_nanos() as f64
    });
    bytes.len() as f64 / times.fold(f64::INFINITY, f64::min)
}

/// A cheap operation on a whole cache line.
fn or_lines(mut all: [u8; 64], line: &[u8]) -> [u8; 64] {
    all.iter_mut().zip(line).for_each(|(all, byte)| *all |= byte);
    all
}

/// Products per nanosecond of a batch and of one row, and the bytes per nanosecond of the latter.
fn measure(cpu: &Cpu, format: Format, (rows, columns): (usize, usize)) -> (f64, f64, f64) {
    let w = weights(format, rows, columns);
    let products = (rows * columns) as f64;
    let batch = time(cpu, &w, BATCH);
    let single = time(cpu, &w, 1);
    let bytes = (w.quants().len() + 2 * w.scales().len()) as f64;
    (products * BATCH as f64 / batch, products / single, bytes / single)
}

/// Median time of a product, in nanoseconds.
fn time(cpu: &Cpu, w: &Weights, rows: usize) -> f64 {
    let x: Vec<i32> =
        (0..rows * w.columns()).map(|i| (i as i32).wrapping_mul(40_503) >> 12).collect();
    let mut quantised = Quantised::new();
    cpu.quantise(&x, w.columns(), w.columns(), &mut quantised);
    let mut y = vec![0; rows * w.rows()];
    let mut samples = [0.0; SAMPLES];
    for sample in &mut samples {
        let (start, mut times) = (now(), 0);
        while now() - start < SAMPLE {
            cpu.matmul(w, std::hint::black_box(&quantised), 12, 12, &mut y);
            times += 1;
        }
        *sample = (now() - start).as_nanos() as f64 / f64::from(times);
    }
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

/// Time that this thread has spent on a processor; time since the first call if that is unknown.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn weights(format: Format, rows: usize, columns: usize) -> Weights {
    let numbers = (0..rows * columns).map(|i| ((i * 104_729) % 255) as i8);
    let scales = (0..rows * columns.div_ceil(GROUP)).map(|i| (i * 7_919) as u16 | 1);
    let exponents = vec![30; rows];
    let weights = match format {
        Format::W8 => {
            let q: Vec<i8> = numbers.map(|q| q.max(-127)).collect();
            let scales: Vec<u16> = scales.collect();
            Weights::from_rows(rows, columns, &q, &scales, &exponents)
        }
        Format::W4 => {
            let q: Vec<i8> = numbers.map(|q| q >> 4).collect();
            let scales: Vec<i16> = scales.map(|scale| scale as i16).collect();
            Weights::from_rows_w4(rows, columns, &q, &scales, &exponents)
        }
    };
    weights.expect("a valid matrix")
}

/// Mean over the shapes.
fn mean(rates: &[(f64, f64, f64)]) -> (f64, f64, f64) {
    let sum = rates.iter().fold((0.0, 0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    let shapes = rates.len() as f64;
    (sum.0 / shapes, sum.1 / shapes, sum.2 / shapes)
}
