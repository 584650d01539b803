//! Exponential and GELU on vectors.
//!
//! In: f32 lanes. Out: the functions of them, within the errors that stand at each.
//! Never: branches on a lane.

use super::simd::Simd;

/// 2^x = e^(x ln 2) on -1/2..=1/2, by the method of Remez for the relative error: at most 2e-7 in f32 (see the test).
const EXP2: [f32; 7] = [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_410_9e-2, 2.402_265e-1, 6.931_471_8e-1, 1.0];

/// Below this, 2^x is taken as 2 to this. Smaller numbers are nothing beside any other share, but their products would be
/// denormal, and a CPU takes a hundred cycles over one of those.
const LEAST: f32 = -100.0;

/// 2^x for x in -100..=126, and 2^-100 for smaller x. Relative error at most 3e-7.
#[inline(always)]
pub(super) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(x, s.splat(LEAST));
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
/// With q(z) = 1 - Phi(z) for z >= 0, GELU(x) is max(x, 0) - |x| q(|x|). q is 7.1.26 of Abramowitz and Stegun (1964): a
/// polynomial in t = 1 / (1 + p z / sqrt 2), times e^(-z^2/2); its error is at most 1.5e-7.
#[inline(always)]
pub(super) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const HALVED: [f32; 4] = [-0.726_576_013_5, 0.710_706_870_5, -0.142_248_368, 0.127_414_796];
    let z = s.abs(x);
    // Beyond 100 the product |x| q is 0 anyway, and 1 + P z must stay in the range of `recip`.
    let near = s.min(z, s.splat(100.0));
    let t = s.recip(s.fma(near, s.splat(P), s.splat(1.0)));
    let mut p = s.splat(0.530_702_714_5);
    for c in HALVED {
        p = s.fma(p, t, s.splat(c));
    }
    let e = exp2(s, s.mul(s.mul(near, near), s.splat(-0.5 * std::f32::consts::LOG2_E)));
    let q = s.mul(s.mul(p, t), e);
    s.sub(s.max(x, s.splat(0.0)), s.mul(near, q))
}
