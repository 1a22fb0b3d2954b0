//! What must hold before a model computes anything.
//!
//! The arithmetic promises that every intermediate fits its integer, for models within these
//! bounds. They are checked once, here; what does not fit is refused with the name of the tensor.

use std::ops::{Range, RangeInclusive};

use assay_kernels::{COLUMNS_MAX, COLUMNS_STEP, GROUP, HEAD_DIM_MAX, NORM_COLUMNS_MAX, Weights};

use crate::binary::Binary;
use crate::convert::ZERO_ROW_EXPONENT;
use crate::family::Family;
use crate::rope::RopeError;
use crate::shape::{Experts, Precision, Role, Shape};
use crate::tensors::Tensors;

/// Most fraction bits of any fixed-point intermediate.
const FRAC_MAX: u8 = 16;
/// Fewest fraction bits of queries, so that a score in `Fx<16>` is a right shift of a product.
const FRAC_QUERY_MIN: u8 = 8;
/// Most positions of a sequence, so that sums over positions fit 64 bits.
const CONTEXT_MAX: usize = 1 << 17;
/// Most layers, which number steps with 16 bits.
const LAYERS_MAX: usize = 1 << 15;
/// Most token ids, which are 32-bit words everywhere.
const VOCAB_MAX: usize = 1 << 31;
/// Most experts of a layer: the sum of what they find fits 64 bits many times over.
const EXPERTS_MAX: usize = 1 << 10;
/// Range of the right shift that takes a sum of products to fixed point.
const SHIFTS: RangeInclusive<i32> = 1..=62;
/// One in the rope tables.
const ONE_Q30: u32 = 1 << 30;

/// Why a model is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// A size outside what the arithmetic or its formats can take.
    #[error("{what} is {found}, expected 1 to {most}")]
    Size {
        /// Which size.
        what: &'static str,
        /// The size.
        found: usize,
        /// The largest possible.
        most: usize,
    },
    /// Heads are not whole groups.
    #[error("heads have {found} elements, expected a multiple of {GROUP} up to {HEAD_DIM_MAX}")]
    HeadDim {
        /// Elements per head.
        found: usize,
    },
    /// Query heads cannot be shared out evenly.
    #[error("{heads} query heads cannot share {kv_heads} key and value heads evenly")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// Experts in a family that has none, or none in one that has.
    #[error("a {family} model with {found} experts")]
    Routed {
        /// The family.
        family: Family,
        /// How many experts a layer has.
        found: usize,
    },
    /// The matrices of experts are not whole groups of rows.
    #[error("{what} of experts is {found}, expected a multiple of {GROUP}")]
    ExpertRows {
        /// Which size.
        what: &'static str,
        /// The size.
        found: usize,
    },
    /// A list does not have one entry per layer.
    #[error("{what} of {found} layers, expected {expected}")]
    Layers {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// A site with more or fewer fraction bits than the arithmetic can take.
    #[error("{site} has {found} fraction bits, expected {least} to {FRAC_MAX}")]
    Fraction {
        /// The site, with its layer if it has one.
        site: String,
        /// Fraction bits.
        found: u8,
        /// The fewest possible.
        least: u8,
    },
    /// Epsilon has no fixed-point form.
    #[error("epsilon {found} does not fit 32 bits with {fraction} fraction bits")]
    Epsilon {
        /// The epsilon of the norms.
        found: f32,
        /// Twice the fraction bits of the residual stream.
        fraction: u8,
    },
    /// A tensor that the shape demands is not there.
    #[error("{tensor} is missing")]
    Missing {
        /// The tensor.
        tensor: Role,
    },
    /// A tensor that the shape has no use for.
    #[error("{tensor} has no place in this model")]
    Unknown {
        /// The tensor.
        tensor: Role,
    },
    /// The angles of layers with a window cannot be made.
    #[error(transparent)]
    Rope(#[from] RopeError),
    /// A tensor of another size than the shape says.
    #[error(
        "{tensor} has {} rows of {}, expected {} of {}",
        .found.0, .found.1, .expected.0, .expected.1
    )]
    Extent {
        /// The tensor.
        tensor: Role,
        /// Its rows and columns; columns with padding for a matrix.
        found: (usize, usize),
        /// What the shape says, padded likewise.
        expected: (usize, usize),
    },
    /// A row whose products cannot be brought to the wanted fraction bits.
    #[error("{tensor} row {row} needs a shift by {found}, expected 1 to 62")]
    Shift {
        /// The tensor.
        tensor: Role,
        /// The row.
        row: usize,
        /// Exponent of the row plus fraction bits in minus fraction bits out.
        found: i32,
    },
    /// Padding that is not neutral would be hashed but never computed with.
    #[error("{tensor} row {row} is padded with something other than zeros of scale 1")]
    Padding {
        /// The tensor.
        tensor: Role,
        /// The row, which may itself be padding.
        row: usize,
    },
    /// A row of zeros in another form than the canonical one.
    #[error(
        "{tensor} row {row} is zero, but its exponent is not {ZERO_ROW_EXPONENT} or a scale is not 1"
    )]
    ZeroRow {
        /// The tensor.
        tensor: Role,
        /// The row.
        row: usize,
    },
    /// A rope table that does not have an entry per position and pair.
    #[error("rope table has {found} numbers, expected {expected}")]
    RopeLength {
        /// Its length.
        found: usize,
        /// Positions times pairs.
        expected: usize,
    },
    /// A cosine or sine beyond one.
    #[error("rope table holds {found} at {at}, beyond 1 in Q30")]
    Angle {
        /// The number.
        found: i32,
        /// Its index.
        at: usize,
    },
}

/// Checks everything that can be wrong with a model; gives the epsilon of its norms in fixed
/// point, with twice the fraction bits of the residual stream.
pub(crate) fn check(
    shape: &Shape,
    precision: &Precision,
    tensors: &Tensors,
) -> Result<u32, ModelError> {
    sizes(shape)?;
    fractions(shape, precision)?;
    let eps_q = eps_q(shape.norm_eps, precision.residual)?;
    rope(shape, tensors)?;
    let roles = shape.roles();
    for &role in &roles {
        match (tensors.vector(role), tensors.weights(role)) {
            (Some(vector), _) => extent(role, (1, vector.len()), shape.extent(role))?,
            (None, Some(weights)) => matrix(shape, precision, role, weights)?,
            (None, None) => return Err(ModelError::Missing { tensor: role }),
        }
    }
    let mut given = tensors.vectors.keys().chain(tensors.matrices.keys());
    if let Some(&tensor) = given.find(|role| !roles.contains(role)) {
        return Err(ModelError::Unknown { tensor });
    }
    Ok(eps_q)
}

/// Epsilon with twice the fraction bits of what a norm takes in, halves away from zero.
pub(crate) fn eps_q(eps: f32, residual: u8) -> Result<u32, ModelError> {
    let fraction = 2 * residual;
    let error = ModelError::Epsilon { found: eps, fraction };
    let binary = Binary::from_f32(eps.to_bits()).filter(|binary| !binary.negative);
    let Some(Binary { mantissa, exponent, .. }) = binary else { return Err(error) };
    let (mantissa, left) = (u128::from(mantissa), exponent + i32::from(fraction));
    let rounded = match left {
        // A mantissa has 24 bits, so these shifts lose nothing or all of it.
        0.. => mantissa << left.min(100),
        _ => (mantissa + (1 << (-left - 1).min(100))) >> (-left).min(101),
    };
    u32::try_from(rounded).map_err(|_| error)
}

impl Shape {
    /// Refuses sizes that the arithmetic or its formats cannot take. Whoever reads a shape from
    /// foreign bytes asks this before it multiplies them.
    ///
    /// # Errors
    /// The first size that is out of bounds.
    pub fn check(&self) -> Result<(), ModelError> {
        sizes(self)
    }
}

fn sizes(shape: &Shape) -> Result<(), ModelError> {
    let Shape { width, layers, heads, kv_heads, head_dim, hidden, vocab, context, .. } = *shape;
    let queries = heads.saturating_mul(head_dim);
    for (what, found, most) in [
        ("width", width, NORM_COLUMNS_MAX),
        ("number of layers", layers, LAYERS_MAX),
        ("number of heads", heads, COLUMNS_MAX),
        ("number of key and value heads", kv_heads, COLUMNS_MAX),
        ("width of all heads", queries, COLUMNS_MAX),
        ("hidden width", hidden, COLUMNS_MAX),
        ("vocabulary", vocab, VOCAB_MAX),
        ("context", context, CONTEXT_MAX),
    ] {
        if !(1..=most).contains(&found) {
            return Err(ModelError::Size { what, found, most });
        }
    }
    if head_dim % GROUP != 0 || head_dim > HEAD_DIM_MAX {
        return Err(ModelError::HeadDim { found: head_dim });
    }
    if heads % kv_heads != 0 {
        return Err(ModelError::Heads { heads, kv_heads });
    }
    experts(shape)?;
    if let Some(window) = shape.window {
        for (what, found) in [("window", window.size), ("step of windows", window.every)] {
            if !(1..=CONTEXT_MAX).contains(&found) {
                return Err(ModelError::Size { what, found, most: CONTEXT_MAX });
            }
        }
    }
    Ok(())
}

fn experts(shape: &Shape) -> Result<(), ModelError> {
    if shape.experts.is_some() != shape.graph().routed {
        let found = shape.experts.map_or(0, |experts| experts.count);
        return Err(ModelError::Routed { family: shape.family, found });
    }
    let Some(Experts { count, chosen }) = shape.experts else { return Ok(()) };
    for (what, found, most) in
        [("number of experts", count, EXPERTS_MAX), ("number of chosen experts", chosen, count)]
    {
        if !(1..=most).contains(&found) {
            return Err(ModelError::Size { what, found, most });
        }
    }
    // Each expert's rows begin a panel of their own.
    for (what, found) in [("width", shape.width), ("hidden width", shape.hidden)] {
        if found % GROUP != 0 {
            return Err(ModelError::ExpertRows { what, found });
        }
    }
    Ok(())
}

fn fractions(shape: &Shape, precision: &Precision) -> Result<(), ModelError> {
    let (found, expected) = (precision.layers.len(), shape.layers);
    if found != expected {
        return Err(ModelError::Layers { what: "precision", found, expected });
    }
    site("residual stream", None, precision.residual, 0)?;
    site("last norm", None, precision.output_norm, 0)?;
    for (layer, sites) in precision.layers.iter().enumerate() {
        site("attention norm", Some(layer), sites.attention_norm, 0)?;
        site("query", Some(layer), sites.query, FRAC_QUERY_MIN)?;
        site("value", Some(layer), sites.value, 0)?;
        site("attention", Some(layer), sites.attention, 0)?;
        site("hidden norm", Some(layer), sites.hidden_norm, 0)?;
        site("hidden", Some(layer), sites.hidden, 0)?;
    }
    Ok(())
}

fn site(name: &str, layer: Option<usize>, found: u8, least: u8) -> Result<(), ModelError> {
    if (least..=FRAC_MAX).contains(&found) {
        return Ok(());
    }
    let site = layer.map_or_else(|| name.to_owned(), |layer| format!("{name} of layer {layer}"));
    Err(ModelError::Fraction { site, found, least })
}

fn rope(shape: &Shape, tensors: &Tensors) -> Result<(), ModelError> {
    let turned = if shape.graph().pairing.is_some() { shape.context } else { 0 };
    let expected = turned * (shape.head_dim / 2);
    for table in [&tensors.rope.cos, &tensors.rope.sin] {
        if table.len() != expected {
            return Err(ModelError::RopeLength { found: table.len(), expected });
        }
        if let Some(at) = table.iter().position(|value| value.unsigned_abs() > ONE_Q30) {
            return Err(ModelError::Angle { found: table[at], at });
        }
    }
    Ok(())
}

fn extent(tensor: Role, found: (usize, usize), expected: (usize, usize)) -> Result<(), ModelError> {
    if found == expected { Ok(()) } else { Err(ModelError::Extent { tensor, found, expected }) }
}

fn matrix(
    shape: &Shape,
    precision: &Precision,
    tensor: Role,
    weights: &Weights,
) -> Result<(), ModelError> {
    let (rows, columns) = shape.extent(tensor);
    let padded = columns.next_multiple_of(COLUMNS_STEP);
    extent(tensor, (weights.rows(), weights.columns()), (rows, padded))?;
    // A table that is no output matrix is looked up, which takes any exponent.
    let looked_up = match tensor {
        Role::Embedding => !shape.tied || !shape.graph().causal,
        Role::Positions | Role::TokenType => true,
        _ => false,
    };
    let product = (!looked_up).then(|| shape.fractions(precision, tensor));
    for row in 0..rows {
        if let Some((frac_in, frac_out)) = product {
            shift(tensor, row, weights.exponent(row), frac_in, frac_out)?;
        }
        let padding_groups = columns.div_ceil(GROUP)..padded / GROUP;
        if !zeros(weights, row, columns..padded) || !ones(weights, row, padding_groups) {
            return Err(ModelError::Padding { tensor, row });
        }
        let canonical =
            weights.exponent(row) == ZERO_ROW_EXPONENT && ones(weights, row, 0..padded / GROUP);
        if !canonical && zeros(weights, row, 0..columns) {
            return Err(ModelError::ZeroRow { tensor, row });
        }
    }
    match weights.exponents()[rows..].iter().position(|exponent| *exponent != 0) {
        Some(row) => Err(ModelError::Padding { tensor, row: rows + row }),
        None => Ok(()),
    }
}

/// Whether these columns of a row are zero.
fn zeros(weights: &Weights, row: usize, mut columns: Range<usize>) -> bool {
    columns.all(|column| weights.q(row, column) == 0)
}

/// Whether these scales of a row are 1.
fn ones(weights: &Weights, row: usize, mut groups: Range<usize>) -> bool {
    groups.all(|group| weights.scale(row, group) == 1)
}

fn shift(
    tensor: Role,
    row: usize,
    exponent: i8,
    frac_in: u8,
    frac_out: u8,
) -> Result<(), ModelError> {
    let found = i32::from(exponent) + i32::from(frac_in) - i32::from(frac_out);
    if SHIFTS.contains(&found) { Ok(()) } else { Err(ModelError::Shift { tensor, row, found }) }
}

#[cfg(test)]
mod tests {
    use assay_kernels::Format;

    use super::*;
    use crate::model::Model;
    use crate::shape::LayerRole as R;
    use crate::testing;

    /// Changes the small model of the tests and gives the error, or "fine".
    fn check(change: impl FnOnce(&mut Shape, &mut Precision, &mut Tensors)) -> String {
        let (mut shape, mut precision) = (testing::shape(), testing::precision());
        let mut tensors = testing::tensors(&shape, 1);
        change(&mut shape, &mut precision, &mut tensors);
        match Model::new(shape, precision, tensors) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Builds a matrix of ones anew, with numbers, scales and exponents changed.
    fn matrix(
        rows: usize,
        columns: usize,
        change: impl FnOnce(&mut [i8], &mut [u16], &mut [i8]),
    ) -> Weights {
        let mut q = vec![1; rows * columns];
        let mut scales = vec![1; rows * columns.div_ceil(GROUP)];
        let mut exponents = vec![20; rows];
        change(&mut q, &mut scales, &mut exponents);
        Weights::from_rows(rows, columns, &q, &scales, &exponents).unwrap()
    }

    #[test]
    fn the_small_model_is_fine() {
        assert_eq!(check(|_, _, _| ()), "fine");
    }

    #[test]
    fn sizes_are_named() {
        for (change, message) in [
            ((|shape| shape.width = 0) as fn(&mut Shape), "width is 0, expected 1 to 32768"),
            (|shape| shape.hidden = 131_073, "hidden width is 131073, expected 1 to 131072"),
            (|shape| shape.context = 131_073, "context is 131073, expected 1 to 131072"),
            (
                |shape| shape.heads = usize::MAX,
                "number of heads is 18446744073709551615, expected 1 to 131072",
            ),
            (|shape| shape.heads = 8192, "width of all heads is 262144, expected 1 to 131072"),
            (
                |shape| shape.kv_heads = 0,
                "number of key and value heads is 0, expected 1 to 131072",
            ),
            (|shape| shape.kv_heads = 3, "2 query heads cannot share 3 key and value heads evenly"),
            (
                |shape| shape.head_dim = 48,
                "heads have 48 elements, expected a multiple of 32 up to 256",
            ),
            (
                |shape| shape.head_dim = 288,
                "heads have 288 elements, expected a multiple of 32 up to 256",
            ),
            (|shape| shape.layers = 3, "precision of 2 layers, expected 3"),
            (|shape| shape.tied = false, "output.weight is missing"),
            (|shape| shape.vocab = 51, "token_embd.weight has 50 rows of 128, expected 51 of 128"),
            (
                |shape| shape.hidden = 97,
                "blk.0.ffn_gate.weight has 96 rows of 128, expected 97 of 128",
            ),
            (
                |shape| shape.norm_eps = f32::NAN,
                "epsilon NaN does not fit 32 bits with 32 fraction bits",
            ),
        ] {
            assert_eq!(check(|shape, _, _| change(shape)), message);
        }
    }

    #[test]
    fn experts_are_counted() {
        let with = |change: fn(&mut Shape)| {
            let mut shape = testing::shape_with_experts();
            change(&mut shape);
            match shape.check() {
                Ok(()) => "fine".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(with(|_| ()), "fine");
        assert_eq!(with(|shape| shape.experts = None), "a qwen3moe model with 0 experts");
        assert_eq!(with(|shape| shape.family = Family::Qwen3), "a qwen3 model with 5 experts");
        for (count, chosen, message) in [
            (0, 0, "number of experts is 0, expected 1 to 1024"),
            (1025, 1, "number of experts is 1025, expected 1 to 1024"),
            (4, 0, "number of chosen experts is 0, expected 1 to 4"),
            (4, 5, "number of chosen experts is 5, expected 1 to 4"),
            (4, usize::MAX, "number of chosen experts is 18446744073709551615, expected 1 to 4"),
            (1, 1, "fine"),
        ] {
            let experts = Some(Experts { count, chosen });
            let shape = Shape { experts, ..testing::shape_with_experts() };
            let found = shape.check().map_or_else(|error| error.to_string(), |()| "fine".into());
            assert_eq!(found, message);
        }
        let odd = "hidden width of experts is 33, expected a multiple of 32";
        assert_eq!(with(|shape| shape.hidden = 33), odd);
        let odd = "width of experts is 80, expected a multiple of 32";
        assert_eq!(with(|shape| shape.width = 80), odd);
    }

    #[test]
    fn fraction_bits_are_named() {
        for (change, message) in [
            (
                (|precision| precision.residual = 17) as fn(&mut Precision),
                "residual stream has 17 fraction bits, expected 0 to 16",
            ),
            (
                |precision| precision.layers[1].hidden = 200,
                "hidden of layer 1 has 200 fraction bits, expected 0 to 16",
            ),
            (
                |precision| precision.layers[0].query = 7,
                "query of layer 0 has 7 fraction bits, expected 8 to 16",
            ),
        ] {
            assert_eq!(check(|_, precision, _| change(precision)), message);
        }
    }

    #[test]
    fn tensors_are_named() {
        let norm = Role::Layer(1, R::HiddenNorm);
        let wrong_gain =
            check(|_, _, tensors| tensors.vectors.get_mut(&norm).unwrap().truncate(60));
        assert_eq!(wrong_gain, "blk.1.ffn_norm.weight has 1 rows of 60, expected 1 of 64");
        let missing = check(|_, _, tensors| drop(tensors.matrices.remove(&Role::Layer(1, R::Up))));
        assert_eq!(missing, "blk.1.ffn_up.weight is missing");
        let short = check(|_, _, tensors| tensors.rope.sin.truncate(1535));
        assert_eq!(short, "rope table has 1535 numbers, expected 1536");
        let large = check(|_, _, tensors| tensors.rope.cos[5] = i32::MIN);
        assert_eq!(large, "rope table holds -2147483648 at 5, beyond 1 in Q30");
        let output = check(|_, _, tensors| {
            let embedding = tensors.matrices[&Role::Embedding].clone();
            tensors.matrices.insert(Role::Output, embedding);
        });
        assert_eq!(output, "output.weight has no place in this model");
    }

    #[test]
    fn shifts_end_at_1_and_62() {
        // Gate: 12 fraction bits in, 16 out.
        let with = |row: usize, exponent: i8| {
            check(|_, _, tensors| {
                let gate = matrix(96, 64, |_, _, e| e[row] = exponent);
                tensors.matrices.insert(Role::Layer(1, R::Gate), gate);
            })
        };
        assert_eq!(with(95, 5), "fine");
        assert_eq!(with(0, 66), "fine");
        let tensor = "blk.1.ffn_gate.weight";
        assert_eq!(with(95, 4), format!("{tensor} row 95 needs a shift by 0, expected 1 to 62"));
        assert_eq!(with(0, 67), format!("{tensor} row 0 needs a shift by 63, expected 1 to 62"));
        assert_eq!(
            with(7, -128),
            format!("{tensor} row 7 needs a shift by -132, expected 1 to 62")
        );
    }

    #[test]
    fn an_untied_embedding_takes_any_exponent() {
        let extremes = check(|shape, _, tensors| {
            shape.tied = false;
            let table = matrix(50, 64, |_, _, e| (e[0], e[49]) = (-128, 127));
            let output = tensors.matrices.insert(Role::Embedding, table).unwrap();
            tensors.matrices.insert(Role::Output, output);
        });
        assert_eq!(extremes, "fine");
    }

    #[test]
    fn rows_of_zeros_have_one_form() {
        let with = |exponent: i8, scale: u16| {
            check(|_, _, tensors| {
                let value = matrix(32, 64, |q, scales, exponents| {
                    q[5 * 64..6 * 64].fill(0);
                    (scales[5 * 2 + 1], exponents[5]) = (scale, exponent);
                });
                tensors.matrices.insert(Role::Layer(0, R::Value), value);
            })
        };
        let other =
            "blk.0.attn_v.weight row 5 is zero, but its exponent is not 31 or a scale is not 1";
        assert_eq!(with(31, 1), "fine");
        assert_eq!(with(30, 1), other);
        assert_eq!(with(31, 2), other);
    }

    #[test]
    fn padding_is_neutral() {
        let padded = |row: usize, column: usize| {
            check(|_, _, tensors| {
                let role = Role::Layer(0, R::Query);
                let plain = &tensors.matrices[&role];
                let (rows, columns) = (plain.rows(), plain.columns());
                let mut q = vec![0; rows * columns];
                for (row, q) in q.chunks_mut(columns).enumerate() {
                    plain.row_q(row, q);
                }
                q[row * columns + column] = 1;
                let scales = vec![1; rows * columns / GROUP];
                let padded = Weights::from_rows(rows, columns, &q, &scales, &vec![20; rows]);
                tensors.matrices.insert(role, padded.unwrap());
            })
        };
        assert_eq!(padded(3, 63), "fine");
        let other =
            "blk.0.attn_q.weight row 3 is padded with something other than zeros of scale 1";
        assert_eq!(padded(3, 64), other);
        assert_eq!(padded(3, 127), other);

        let exponents = check(|_, _, tensors| {
            let plain = &tensors.matrices[&Role::Embedding];
            let mut exponents = plain.exponents().to_vec();
            exponents[50] = 1;
            let (quants, scales) = (plain.quants(), plain.scales());
            let changed =
                Weights::from_parts(Format::W8, 50, plain.columns(), &exponents, quants, scales);
            tensors.matrices.insert(Role::Embedding, changed.unwrap());
        });
        assert_eq!(
            exponents,
            "token_embd.weight row 50 is padded with something other than zeros of scale 1"
        );
    }

    #[test]
    fn epsilon_is_rounded_once() {
        for (eps, residual, expected) in [
            (1e-5, 16, Some(42_950)),
            (1e-6, 16, Some(4295)),
            (1e-5, 14, Some(2684)),
            (0.0, 16, Some(0)),
            (f32::from_bits(1), 16, Some(0)),
            // Halves go up: 1.5, 2.5 and 0.5 in units of 2^-2.
            (0.375, 1, Some(2)),
            (0.625, 1, Some(3)),
            (0.125, 1, Some(1)),
            (0.124_999_99, 1, Some(0)),
            (1.0, 15, Some(1 << 30)),
            (1.0, 16, None),
            (f32::MAX, 0, None),
            (-1e-5, 16, None),
            (f32::INFINITY, 0, None),
        ] {
            assert_eq!(eps_q(eps, residual).ok(), expected, "{eps} at {residual}");
        }
    }

    #[test]
    fn roles_have_either_weights_or_a_vector() {
        let shape = testing::shape();
        let tensors = testing::tensors(&shape, 1);
        for role in shape.roles() {
            assert_eq!(tensors.vector(role).is_some(), role.is_vector(), "{role}");
            assert_eq!(tensors.weights(role).is_some(), !role.is_vector(), "{role}");
        }
        for role in [Role::Output, Role::Layer(2, R::Query)] {
            assert!(tensors.weights(role).is_none(), "{role}");
        }
        assert!(tensors.vector(Role::Layer(2, R::HiddenNorm)).is_none());
    }
}
