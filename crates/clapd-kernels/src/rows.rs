//! Layer norm of rows, and the blend of attentional feature fusion, in place: what stands between a tower's linears.

use anyhow::{Result, bail, ensure};

use super::isa::Isa;
use super::linear::ensure_finite;
use super::math::exp2;
use super::norm::{Norm, layer_norm, vectors};
use super::simd::{Kernel, Simd};

/// Layer norm of rows as long as `norm`, in place.
///
/// # Errors
/// A norm or rows of the wrong length, a number that is not finite or beyond 1e18, an instruction set that the CPU lacks.
pub fn norm_rows(isa: Isa, norm: &Norm, rows: &mut [f32]) -> Result<()> {
    norm.check(norm.len())?;
    ensure!(
        !norm.is_empty() && rows.len().is_multiple_of(norm.len()),
        "{} floats in rows of {}",
        rows.len(),
        norm.len()
    );
    if !isa.supported()?.run(NormRows { norm, rows }) {
        bail!("a row to be normalised has a number that is not finite or beyond 1e18");
    }
    Ok(())
}

struct NormRows<'a> {
    norm: &'a Norm,
    rows: &'a mut [f32],
}

impl Kernel for NormRows<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let mut finite = true;
        for row in self.rows.chunks_exact_mut(self.norm.len()) {
            let row = row.as_mut_ptr();
            // SAFETY: a row has as many floats as the norm, which was checked.
            finite &= unsafe { layer_norm(s, self.norm, row, row) };
        }
        finite
    }
}

/// `whole` becomes 2 (whole * share + side * (1 - share)) with share = 1 / (1 + e^-(score + offset)). All but `offset` are
/// rows of its length. For shares above 1e-6; smaller ones may be off by as much.
///
/// Dai et al., arXiv 2009.14082 (attentional feature fusion), as transformers 5.23 has it in `ClapAudioAFFBlock`.
///
/// # Errors
/// Wrong lengths, a number that is not finite, an instruction set that the CPU lacks.
pub fn blend_rows(isa: Isa, whole: &mut [f32], side: &[f32], score: &[f32], offset: &[f32]) -> Result<()> {
    let width = offset.len();
    ensure!(
        width > 0 && whole.len().is_multiple_of(width) && side.len() == whole.len() && score.len() == whole.len(),
        "a blend of {}, {} and {} floats in rows of {width}",
        whole.len(),
        side.len(),
        score.len()
    );
    for rows in [&*whole, side, score, offset] {
        ensure_finite(rows, width)?;
    }
    isa.supported()?.run(Blend { whole, side, score, offset });
    Ok(())
}

struct Blend<'a> {
    whole: &'a mut [f32],
    side: &'a [f32],
    score: &'a [f32],
    offset: &'a [f32],
}

impl Kernel for Blend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.offset.len();
        let offset = self.offset.as_ptr();
        let rows = self.whole.chunks_exact_mut(width).zip(self.side.chunks_exact(width));
        for ((whole, side), score) in rows.zip(self.score.chunks_exact(width)) {
            let (whole, side, score) = (whole.as_mut_ptr(), side.as_ptr(), score.as_ptr());
            // SAFETY: all four have `width` floats.
            unsafe {
                vectors!(
                    S,
                    width,
                    |i| {
                        let score = s.add(s.load(score.add(i)), s.load(offset.add(i)));
                        s.store(whole.add(i), blend(s, s.load(whole.add(i)), s.load(side.add(i)), score));
                    },
                    |i, left| {
                        let score = s.add(s.load_part(score.add(i), left), s.load_part(offset.add(i), left));
                        let (x, y) = (s.load_part(whole.add(i), left), s.load_part(side.add(i), left));
                        s.store_part(whole.add(i), blend(s, x, y, score), left);
                    },
                );
            }
        }
    }
}

/// 2^19.9 is the largest number that `Simd::recip` takes.
const RECIP_MAX_LOG2: f32 = 19.9;

#[inline(always)]
fn blend<S: Simd>(s: S, whole: S::F, side: S::F, score: S::F) -> S::F {
    let power = exp2(s, s.min(s.mul(score, s.splat(-std::f32::consts::LOG2_E)), s.splat(RECIP_MAX_LOG2)));
    let share = s.recip(s.add(power, s.splat(1.0)));
    let sum = s.fma(s.sub(whole, side), share, side);
    s.add(sum, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blend_is_its_formula_on_every_instruction_set() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut numbers = |n: usize, scale: f32| (0..n).map(|_| scale * (random.f32() - 0.5)).collect::<Vec<f32>>();
        for width in [1, 7, 96] {
            let (x, y, score, offset) =
                (numbers(5 * width, 4.0), numbers(5 * width, 4.0), numbers(5 * width, 40.0), numbers(width, 8.0));
            for isa in Isa::available() {
                let mut out = x.clone();
                blend_rows(isa, &mut out, &y, &score, &offset).unwrap();
                for i in 0..out.len() {
                    let share = 1.0 / (1.0 + (-f64::from(score[i]) - f64::from(offset[i % width])).exp());
                    let exact = 2.0 * (f64::from(x[i]) * share + f64::from(y[i]) * (1.0 - share));
                    assert!((f64::from(out[i]) - exact).abs() <= 1e-5, "{isa:?} {} {exact}", out[i]);
                }
            }
        }
    }

    #[test]
    fn rows_that_are_not_finite_are_refused() {
        let norm = Norm::new(vec![1.0; 3], vec![0.0; 3], 1e-5);
        for isa in Isa::available() {
            assert!(norm_rows(isa, &norm, &mut [1.0, 2.0, f32::NAN]).is_err());
            assert!(norm_rows(isa, &norm, &mut [1.0, 2.0]).is_err());
            let mut row = [1.0, 2.0, 3.0];
            norm_rows(isa, &norm, &mut row).unwrap();
            assert!((row[2] - 1.224_74).abs() < 1e-4 && row[1].abs() < 1e-6);
            assert!(blend_rows(isa, &mut [1.0], &[f32::INFINITY], &[0.0], &[0.0]).is_err());
        }
    }
}
