//! Operations on elements that only some model families have: norms about the mean, biases, GELU.
//!
//! They are a small part of any model's work, so every instruction set does them in the plain form
//! of [`crate::reference`]; only threads share them out.

use crate::cpu::Cpu;
use crate::reference;

/// What a feed-forward layer does between its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU by its approximation with the hyperbolic tangent.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
}

impl Cpu {
    /// `y = activation(gate) · up`, or `activation(gate)` without an `up`, element by element, in
    /// `Fx<frac_out>` from `Fx<16>`.
    ///
    /// # Panics
    /// If the lengths differ, or `frac_out` is above 31.
    pub fn activate(
        &self,
        activation: Activation,
        gate: &[i32],
        up: Option<&[i32]>,
        frac_out: u8,
        y: &mut [i32],
    ) {
        if let (Activation::Silu, Some(up)) = (activation, up) {
            return self.swiglu(gate, up, frac_out, y);
        }
        assert_eq!(gate.len(), y.len(), "inputs and outputs differ in length");
        assert!(frac_out < 32, "{frac_out} fraction bits");
        let up_at = |first: usize| up.map(|up| &up[first..]);
        assert!(up.is_none_or(|up| up.len() == y.len()), "gate and up differ in length");
        let step = self.rows_per_piece(y.len(), 1);
        let pieces = gate.chunks(step).zip(y.chunks_mut(step)).enumerate();
        self.share(pieces, |(piece, (gate, y))| {
            let up = up_at(piece * step);
            for (at, (gate, y)) in gate.iter().zip(y).enumerate() {
                let up = up.map_or(1 << reference::WIDE_FRAC, |up| up[at]);
                *y = reference::gated(reference::activate(activation, *gate), up, frac_out);
            }
        });
    }

    /// Subtracts from each row of `x`: (rows, columns) its mean.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn centre(&self, x: &mut [i32], columns: usize) {
        let rows = crate::cpu::count(x.len(), columns, "numbers");
        let step = self.rows_per_piece(rows, columns) * columns;
        self.share(x.chunks_mut(step), |x| {
            x.chunks_exact_mut(columns).for_each(reference::centre);
        });
    }

    /// Adds a bias in `Fx<16>` to each row of `x`: (rows, bias) in `Fx<frac>`.
    ///
    /// # Panics
    /// If `x` is not whole rows, or `frac` is above 16.
    pub fn add_bias(&self, x: &mut [i32], bias: &[i32], frac: u8) {
        let rows = crate::cpu::count(x.len(), bias.len(), "numbers");
        assert!(frac <= reference::WIDE_FRAC, "{frac} fraction bits");
        let step = self.rows_per_piece(rows, bias.len()) * bias.len();
        self.share(x.chunks_mut(step), |x| {
            for row in x.chunks_exact_mut(bias.len()) {
                for (x, bias) in row.iter_mut().zip(bias) {
                    *x = reference::add_bias(*x, *bias, frac);
                }
            }
        });
    }

    /// Multiplies every number with a factor in Q16, on the way from `Fx<frac + 6>` to `Fx<frac>`.
    pub fn scale(&self, x: &mut [i32], factor_q16: i64) {
        let step = self.rows_per_piece(x.len(), 1);
        self.share(x.chunks_mut(step), |x| {
            x.iter_mut().for_each(|x| *x = reference::scaled(*x, factor_q16));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds an activation against its formula in binary64, from -20 to 20.
    fn check(activation: Activation, formula: impl Fn(f64) -> f64) {
        let unit = 65536.0;
        let mut worst = 0.0f64;
        for step in -20_000..=20_000 {
            let x = step * 65 + step % 65;
            let found = f64::from(reference::activate(activation, x)) / unit;
            worst = worst.max((found - formula(f64::from(x) / unit)).abs());
        }
        assert!(worst < 4e-5, "{activation:?} is {worst} away");
    }

    /// The error function by its series, which alternates: for small arguments only.
    fn erf(x: f64) -> f64 {
        if x.abs() > 5.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn activations_are_near_their_formulas() {
        check(Activation::Silu, |x| x / (1.0 + (-x).exp()));
        check(Activation::GeluErf, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())));
        check(Activation::GeluTanh, |x| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        });
    }

    #[test]
    fn activations_of_extremes_are_the_number_or_nothing() {
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            assert_eq!(reference::activate(activation, i32::MAX), i32::MAX, "{activation:?}");
            assert_eq!(reference::activate(activation, i32::MIN), 0, "{activation:?}");
            assert_eq!(reference::activate(activation, 0), 0, "{activation:?}");
        }
    }

    #[test]
    fn a_centred_row_has_no_mean() {
        let mut row = [7, -3, 0, 1];
        reference::centre(&mut row);
        // The mean of 1.25 rounds to 1.
        assert_eq!(row, [6, -4, -1, 0]);
        let mut edge = [i32::MAX, i32::MIN];
        reference::centre(&mut edge);
        assert_eq!(edge, [i32::MAX, i32::MIN]);
    }

    #[test]
    fn a_bias_is_rounded_to_the_fraction_bits_around_it() {
        assert_eq!(reference::add_bias(10, 0x18000, 12), 10 + 0x1800);
        assert_eq!(reference::add_bias(10, 8, 12), 11);
        assert_eq!(reference::add_bias(10, -8, 12), 10);
        assert_eq!(reference::add_bias(i32::MAX, 1 << 30, 16), i32::MAX);
    }
}
