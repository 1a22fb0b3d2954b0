//! The reference and every path give the numbers of `tests/vectors/kernels.json`, which anyone who
//! implements the arithmetic again can check against.

use std::num::NonZeroUsize;

use assay_kernels::tables::att_q30;
use assay_kernels::{
    Angles, Attention, Cpu, Isa, KvLayer, Met, Norm, Pairing, Quantised, Query, Rope, Weights,
    WeightsError, reference,
};
use serde_json::Value;

/// The cases of one operation.
fn cases(operation: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/kernels.json"))
        .expect("valid JSON");
    let cases = vectors[operation].as_array().expect("a list of cases").clone();
    assert!(!cases.is_empty());
    cases
}

/// A field that is a number.
fn number<T: TryFrom<i64>>(case: &Value, field: &str) -> T {
    as_number(&case[field])
}

/// A field that is a list of numbers.
fn list<T: TryFrom<i64>>(case: &Value, field: &str) -> Vec<T> {
    case[field].as_array().expect("a list").iter().map(as_number).collect()
}

fn as_number<T: TryFrom<i64>>(value: &Value) -> T {
    let number = value.as_i64().expect("an integer");
    T::try_from(number).ok().expect("an integer of the right size")
}

/// A field that is a quantised row.
fn record(value: &Value) -> (Vec<i8>, Vec<u16>) {
    (list(value, "q"), list(value, "scales"))
}

fn views(records: &[(Vec<i8>, Vec<u16>)]) -> Vec<(&[i8], &[u16])> {
    records.iter().map(|(q, scales)| (&q[..], &scales[..])).collect()
}

fn cpus() -> impl Iterator<Item = Cpu> {
    let supported = Isa::ALL.into_iter().filter(|isa| isa.is_supported());
    supported.map(|isa| Cpu::new(isa, NonZeroUsize::MIN).expect("a supported path"))
}

/// Rows with the given numbers and scales, from the products of both; nothing if those would be
/// quantised to something else. Rows are filled up to `columns`.
fn quantised(cpu: &Cpu, rows: &[(Vec<i8>, Vec<u16>)], columns: usize) -> Option<Quantised> {
    let mut x = Vec::new();
    for (q, scales) in rows {
        x.extend(q.iter().enumerate().map(|(i, q)| i32::from(*q) * i32::from(scales[i / 32])));
    }
    let mut quantised = Quantised::new();
    cpu.quantise(&x, rows[0].0.len(), columns, &mut quantised);
    // Only rows with a 127 in each group are their own quantisation.
    let same = |(i, (q, scales)): (usize, &(Vec<i8>, Vec<u16>))| {
        let row = quantised.row(i);
        row.0[..q.len()] == q[..] && row.1[..scales.len()] == scales[..]
    };
    rows.iter().enumerate().all(same).then_some(quantised)
}

#[test]
fn powers() {
    for case in cases("exp2neg") {
        let power = reference::exp2neg(number(&case, "u"), number(&case, "fraction"));
        assert_eq!(power, number::<u32>(&case, "power"), "{case}");
    }
}

#[test]
fn gates() {
    for case in cases("sigmoid24") {
        assert_eq!(reference::sigmoid24(number(&case, "x")), number::<i32>(&case, "y"), "{case}");
    }
    for case in cases("silu_mul") {
        let (gate, up, frac_out) =
            (number(&case, "gate"), number(&case, "up"), number(&case, "frac_out"));
        let expected: i32 = number(&case, "y");
        assert_eq!(reference::silu_mul(gate, up, frac_out), expected, "{case}");
        for cpu in cpus() {
            let mut y = [0];
            cpu.swiglu(&[gate], &[up], frac_out, &mut y);
            assert_eq!(y, [expected], "{cpu:?} {case}");
        }
    }
}

#[test]
fn quantisation() {
    for case in cases("quantise") {
        let x: Vec<i32> = list(&case, "x");
        let (q, scales): (Vec<i8>, Vec<u16>) = record(&case);
        assert_eq!(reference::quantise(&x, x.len()), (q.clone(), scales.clone()));
        for cpu in cpus() {
            let mut out = Quantised::new();
            cpu.quantise(&x, x.len(), x.len(), &mut out);
            assert_eq!(out.row(0), (&q[..], &scales[..]), "{cpu:?}");
        }
    }
}

#[test]
fn products() {
    check_products::<u16>("matmul", |q, scales, exponents| {
        Weights::from_rows(1, q.len(), q, scales, exponents)
    });
}

#[test]
fn products_of_four_bits() {
    check_products::<i16>("matmul_w4", |q, scales, exponents| {
        Weights::from_rows_w4(1, q.len(), q, scales, exponents)
    });
}

/// Checks the products of a format whose scales are `S`.
fn check_products<S: Copy + Into<i64> + TryFrom<i64>>(
    operation: &str,
    pack: impl Fn(&[i8], &[S], &[i8]) -> Result<Weights, WeightsError>,
) {
    let mut computed = 0;
    for case in cases(operation) {
        let x: (Vec<i8>, Vec<u16>) = (list(&case, "x"), list(&case, "x_scales"));
        let w: (Vec<i8>, Vec<S>) = (list(&case, "w"), list(&case, "w_scales"));
        let (shift, expected): (i8, i32) = (number(&case, "shift"), number(&case, "y"));
        let sum = reference::dot((&w.0, &w.1), (&x.0, &x.1));
        assert_eq!(Value::from(sum.to_string()), case["sum"]);
        let y = reference::matmul((&w.0, &w.1), (&x.0, &x.1), shift.into());
        assert_eq!(y, expected, "{case}");

        let weights = pack(&w.0, &w.1, &[shift]).expect("valid weights");
        for cpu in cpus() {
            let Some(x) = quantised(&cpu, std::slice::from_ref(&x), 128) else { continue };
            let mut y = [0];
            cpu.matmul(&weights, &x, 12, 12, &mut y);
            assert_eq!(y, [expected], "{cpu:?} {case}");
            computed += 1;
        }
    }
    assert!(computed > 0, "no path has computed a product");
}

#[test]
fn norms() {
    for case in cases("rmsnorm") {
        let (x, gain): (Vec<i32>, Vec<i32>) = (list(&case, "x"), list(&case, "gain"));
        let (eps_q, frac_out) = (number(&case, "eps_q"), number(&case, "frac_out"));
        let expected: Vec<i32> = list(&case, "y");
        assert_eq!(reference::rmsnorm(&x, &gain, eps_q, frac_out), expected, "{case}");
        for cpu in cpus() {
            let mut y = vec![0; x.len()];
            cpu.rmsnorm(&x, &gain, &Norm { frac_residual: 16, frac_out, eps_q }, &mut y);
            assert_eq!(y, expected, "{cpu:?} {case}");
        }
    }
}

#[test]
fn turns() {
    let rope = Rope { row_stride: 2, heads: 1, head_dim: 2, pairing: Pairing::Halves };
    for case in cases("rope") {
        let (a, b, cos, sin): (i32, i32, i32, i32) =
            (number(&case, "a"), number(&case, "b"), number(&case, "cos"), number(&case, "sin"));
        let expected: Vec<i32> = list(&case, "y");
        let (y0, y1) = reference::rope(a, b, cos, sin);
        assert_eq!(vec![y0, y1], expected, "{case}");
        for cpu in cpus() {
            let mut x = [a, b];
            cpu.rope(&mut x, &rope, &[Angles { cos: &[cos], sin: &[sin] }]);
            assert_eq!(x[..], expected, "{cpu:?} {case}");
        }
    }
}

#[test]
fn attention() {
    for case in cases("attend") {
        let head_dim: usize = number(&case, "head_dim");
        let [frac_q, frac_v, frac_out] =
            ["frac_q", "frac_v", "frac_out"].map(|field| number(&case, field));
        let att_q30 = att_q30(head_dim);
        let query = record(&case["query"]);
        let records = |field: &str| -> Vec<(Vec<i8>, Vec<u16>)> {
            case[field].as_array().expect("a list").iter().map(record).collect()
        };
        let (keys, values) = (records("keys"), records("values"));
        let expected: Vec<i32> = list(&case, "y");

        let (key_views, value_views) = (views(&keys), views(&values));
        let query_view = (&query.0[..], &query.1[..]);
        let scores: Vec<i32> = key_views
            .iter()
            .map(|key| reference::score(reference::dot(query_view, *key), frac_q, att_q30))
            .collect();
        assert_eq!(reference::softmax(&scores), (list(&case, "weights"), number(&case, "sum")));
        let fractions = [frac_q, frac_v, frac_out];
        let y = reference::attend(query_view, &key_views, &value_views, att_q30, fractions);
        assert_eq!(y, expected);

        for cpu in cpus() {
            let read = |records: &[(Vec<i8>, Vec<u16>)]| quantised(&cpu, records, head_dim);
            let rows = (read(std::slice::from_ref(&query)), read(&keys), read(&values));
            let (Some(query), Some(keys), Some(values)) = rows else {
                panic!("the records of the vectors are their own quantisation");
            };
            let mut cache = KvLayer::new(1, head_dim);
            for position in 0..keys.rows() {
                cache.push(&keys, position, &values, position);
            }
            let attention =
                Attention { heads: 1, kv_heads: 1, head_dim, att_q30, frac_q, frac_v, frac_out };
            let mut y = vec![0; head_dim];
            let queries = [Query { cache: &cache, first: 0, positions: cache.len() }];
            cpu.attend(&query, &queries, &attention, &mut y);
            assert_eq!(y, expected, "{cpu:?}");
        }
    }
}

#[test]
fn embeddings() {
    for case in cases("embed") {
        let (q, scale): (i8, u16) = (number(&case, "q"), number(&case, "scale"));
        let (exponent, frac): (i8, u8) =
            (number(&case, "exponent"), number(&case, "frac_residual"));
        let expected: i32 = number(&case, "x");
        let weights = Weights::from_rows(1, 1, &[q], &[scale], &[exponent]).expect("valid weights");
        let mut x = [0];
        weights.embed(0, frac, &mut x);
        assert_eq!(x, [expected], "{case}");
    }
}

#[test]
fn routes() {
    for case in cases("route") {
        let logits: Vec<i32> = list(&case, "logits");
        let (experts, shares): (Vec<usize>, Vec<i32>) =
            (list(&case, "experts"), list(&case, "shares"));
        let expected: Vec<(usize, i32)> = experts.into_iter().zip(shares).collect();
        let chosen = number(&case, "chosen");
        assert_eq!(reference::route(&logits, chosen), expected, "{case}");
        for cpu in cpus() {
            let found = cpu.route(&logits, logits.len(), chosen);
            assert!(found.iter().map(|it| (it.expert, it.share)).eq(expected.iter().copied()));
        }
    }
}

#[test]
fn mixes() {
    for case in cases("mix") {
        let (shares, found): (Vec<i32>, Vec<i32>) = (list(&case, "shares"), list(&case, "found"));
        let expected: i32 = number(&case, "y");
        let pairs = found.iter().copied().zip(shares.iter().copied());
        assert_eq!(reference::mix(pairs), expected, "{case}");
        let met: Vec<Met> =
            shares.iter().enumerate().map(|(at, share)| Met { at, share: *share }).collect();
        for cpu in cpus() {
            let mut y = [0];
            cpu.mix(&found, 1, &met, met.len(), &mut y);
            assert_eq!(y, [expected], "{case}");
        }
    }
}
