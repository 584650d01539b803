//! GELU and its derivative over a slice, against f64.

use super::super::{Gelu, Isa};
use super::math::erf;

/// The distribution function of the normal distribution.
fn below(x: f64) -> f64 {
    0.5 + 0.5 * erf(x / std::f64::consts::SQRT_2)
}

/// Its density.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn gelu_and_its_derivative_are_their_formulas_on_every_instruction_set() {
    // 16 lanes and a rest, from -8 to 8.
    let x: Vec<f32> = (0..2005).map(|i| (i - 1002) as f32 / 125.25).collect();
    for isa in Isa::available() {
        let (mut y, mut slope) = (x.clone(), vec![3.0; x.len()]);
        let gelu = Gelu::new(isa).unwrap();
        gelu.forward(&mut y);
        gelu.backward(&x, &mut slope);
        for ((x, y), slope) in x.iter().zip(y).zip(slope) {
            let x = f64::from(*x);
            let bound = 1.0 + x.abs();
            assert!((f64::from(y) - x * below(x)).abs() <= 3e-7 * bound, "{isa:?}: {x} {y}");
            let exact = below(x) + x * density(x);
            assert!((f64::from(slope) / 3.0 - exact).abs() <= 5e-7 * bound, "{isa:?}: {x} {slope} {exact}");
        }
    }
}

#[test]
fn far_out_it_is_a_line_and_what_is_not_finite_becomes_nan() {
    for isa in Isa::available() {
        let mut y = [1e30, -1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let x = y;
        let mut slope = [1.0; 5];
        let gelu = Gelu::new(isa).unwrap();
        gelu.forward(&mut y);
        gelu.backward(&x, &mut slope);
        assert!(
            y[0] == 1e30 && y[1].abs() < 1e-20 && slope[0] == 1.0 && slope[1].abs() < 1e-20,
            "{isa:?}: {y:?} {slope:?}"
        );
        assert!(y[2..].iter().chain(&slope[2..]).all(|y| y.is_nan()), "{isa:?}: {y:?} {slope:?}");
    }
}
