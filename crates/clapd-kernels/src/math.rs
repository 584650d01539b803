//! Exponential and GELU on vectors.
//! No function branches on a lane.

use super::simd::Simd;

/// ln 2, whose powers over factorials are the Taylor series of 2^x; from the sixth power down. On -1/2..=1/2 what is left out
/// is at most (ln 2 / 2)^7 / 7! = 1.2e-7.
const L: f64 = std::f64::consts::LN_2;
const EXP2: [f32; 7] = [
    (L * L * L * L * L * L / 720.0) as f32,
    (L * L * L * L * L / 120.0) as f32,
    (L * L * L * L / 24.0) as f32,
    (L * L * L / 6.0) as f32,
    (L * L / 2.0) as f32,
    L as f32,
    1.0,
];

/// Below this, 2^x is taken as 2 to this. Smaller numbers are nothing beside any other share, but their products would be
/// denormal, and a CPU takes a hundred cycles over one of those.
const EXP2_MIN: f32 = -100.0;

/// 2^x for x in -100..=126, and 2^-100 for smaller x. Relative error at most 3e-7.
#[inline(always)]
pub(super) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(x, s.splat(EXP2_MIN));
    let n = s.round(x);
    let f = s.sub(x, n);
    let mut p = s.splat(EXP2[0]);
    for c in &EXP2[1..] {
        p = s.fma(p, f, s.splat(*c));
    }
    s.scale2(p, n)
}

/// x/2 (1 + erf(x / sqrt 2)), to 3e-7 (1 + |x|).
///
/// With q(z) = 1 - Phi(z) for z >= 0, GELU(x) is max(x, 0) - |x| q(|x|).
#[inline(always)]
pub(super) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let (near, share, e) = tail(s, x);
    s.sub(s.max(x, s.splat(0.0)), s.mul(near, s.mul(share, e)))
}

/// The derivative of GELU, Phi(x) + x phi(x), to 5e-7 (1 + |x|).
///
/// Phi(x) is 1/2 + (1/2 - q(|x|)) sign(x), and |x| phi(x) has the sign of x, too.
#[inline(always)]
pub(super) fn gelu_slope<S: Simd>(s: S, x: S::F) -> S::F {
    const DENSITY: f32 = (std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 / 2.0) as f32;
    let (near, share, e) = tail(s, x);
    let half = s.add(s.sub(s.splat(0.5), s.mul(share, e)), s.mul(s.mul(near, s.splat(DENSITY)), e));
    // The sign, to 1e-30: a product that is cut off at -1 and 1.
    let sign = s.max(s.min(s.mul(x, s.splat(1e30)), s.splat(1.0)), s.splat(-1.0));
    s.fma(half, sign, s.splat(0.5))
}

/// z = |x|, but at most 100; and a share and e^(-z^2/2), whose product is q(z) = 1 - Phi(z) to 1.5e-7.
///
/// The share is that of 7.1.26 of Abramowitz and Stegun (1964): a polynomial in t = 1 / (1 + p z / sqrt 2).
#[inline(always)]
fn tail<S: Simd>(s: S, x: S::F) -> (S::F, S::F, S::F) {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const HALVED: [f32; 4] = [0.5 * -1.453_152, 0.5 * 1.421_413_7, 0.5 * -0.284_496_75, 0.5 * 0.254_829_6];
    // Beyond 100 the product |x| q is 0 anyway, and 1 + P z must stay in the range of `recip`.
    let near = s.min(s.abs(x), s.splat(100.0));
    let t = s.recip(s.fma(near, s.splat(P), s.splat(1.0)));
    let mut p = s.splat(0.5 * 1.061_405_4);
    for c in HALVED {
        p = s.fma(p, t, s.splat(c));
    }
    let e = exp2(s, s.mul(s.mul(near, near), s.splat(-0.5 * std::f32::consts::LOG2_E)));
    (near, s.mul(p, t), e)
}
