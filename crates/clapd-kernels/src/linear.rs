//! y = x W^T + b with packed weights: int8, f32 or f16.
//!
//! Weights are packed once, for one instruction set ([`super::weights`]); activations are quantised row by row as they come
//! ([`super::activations`]). Scales are the caller's: whoever makes the weights chooses them.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use half::f16;

use super::activations::{ActivationFormat, RowOffsets};
use super::gemm::{Epilogue, Gemm, OutputRows};
use super::isa::{Isa, SupportedIsa};
use super::scratch::Scratch;
use super::simd::{Kernel, Simd};
use super::weights::{PackedLinear, Weights};
use super::workspace::{DisjointRows, Workspace};

/// The number of k for which an int8 sum is exact: 255 * 127 * k must stay below 2^31.
pub const MAX_K: usize = 65_536;

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    isa: SupportedIsa,
    packed: PackedLinear,
}

impl Linear {
    /// Int8Weights `weights` `[n][k]` in -127..=127. `scales` are `[n]`, or `[k / span][n]` where a scale is for `span` consecutive k (a
    /// multiple of 4). `W[o][i]` = `weights[o][i]` * `scales[i / span][o]`. `bias` is `[n]`, or empty for none.
    ///
    /// # Errors
    /// Lengths that don't fit n and k, a weight of -128, k over [`MAX_K`], a number that is not finite, an instruction set
    /// that the CPU lacks.
    pub fn int8(isa: Isa, n: usize, k: usize, weights: &[i8], scales: &[f32], bias: &[f32]) -> Result<Self> {
        check(n, k, weights.len(), bias)?;
        ensure!(k <= MAX_K, "an int8 linear has k = {k}; its sums are exact up to {MAX_K}");
        ensure!(
            scales.len() >= n && scales.len().is_multiple_of(n),
            "{} scales for n = {n}: one or more for each",
            scales.len()
        );
        let spans = scales.len() / n;
        ensure!(
            spans == 1 || (k.is_multiple_of(spans) && (k / spans).is_multiple_of(4)),
            "{spans} scales a column for k = {k}: k / {spans} must be a multiple of 4"
        );
        ensure!(scales.iter().all(|s| s.is_finite()), "a scale of an int8 linear is not finite");
        // -128 is left out so that the range is symmetric and the bound of MAX_K holds for either sign.
        ensure!(weights.iter().all(|w| *w != i8::MIN), "an int8 weight is -128; -127..=127 are allowed");
        let isa = isa.supported()?;
        Ok(Self { isa, packed: PackedLinear::int8(isa, [n, k], weights, scales, bias) })
    }

    /// f32 `weights` `[n][k]`; `bias` `[n]`, or empty for none.
    ///
    /// # Errors
    /// As [`int8`](Self::int8).
    pub fn f32(isa: Isa, n: usize, k: usize, weights: &[f32], bias: &[f32]) -> Result<Self> {
        check(n, k, weights.len(), bias)?;
        ensure!(weights.iter().all(|w| w.is_finite()), "a weight of a linear is not finite");
        let isa = isa.supported()?;
        Ok(Self { isa, packed: PackedLinear::float(isa, [n, k], weights, bias, Weights::F32) })
    }

    /// Half-precision `weights` `[n][k]`, computed with in f32: half the memory of f32, where memory is what takes time.
    ///
    /// # Errors
    /// As [`int8`](Self::int8).
    pub fn f16(isa: Isa, n: usize, k: usize, weights: &[f16], bias: &[f32]) -> Result<Self> {
        check(n, k, weights.len(), bias)?;
        ensure!(weights.iter().all(|w| w.is_finite()), "a weight of a linear is not finite");
        let isa = isa.supported()?;
        let bits: Vec<u16> = weights.iter().map(|w| w.to_bits()).collect();
        Ok(Self { isa, packed: PackedLinear::float(isa, [n, k], &bits, bias, Weights::F16) })
    }

    /// If its weights are int8: with activations in 16 bits instead of 8, for rows whose few largest numbers would leave
    /// the others no steps. It takes twice the multiply-adds, of the same weights.
    #[must_use]
    pub fn with_16bit_activations(mut self) -> Self {
        if self.packed.format == ActivationFormat::U8 {
            self.packed.format = ActivationFormat::U16;
        }
        self
    }

    /// Outputs of a row.
    pub fn n(&self) -> usize {
        self.packed.n
    }

    /// Inputs of a row.
    pub fn k(&self) -> usize {
        self.packed.k
    }

    /// The instruction set that it was packed for.
    pub fn isa(&self) -> Isa {
        self.isa.isa()
    }

    /// Bytes of its packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.packed.weights {
            Weights::Int8(w) => w.panels.as_slice().len(),
            Weights::F32(w) => size_of_val(w.as_slice()),
            Weights::F16(w) => size_of_val(w.as_slice()),
        }
    }

    pub(super) fn supported_isa(&self) -> SupportedIsa {
        self.isa
    }

    pub(super) fn packed(&self) -> &PackedLinear {
        &self.packed
    }

    /// x `[m][k]` to `out` `[m][n]`, row by row.
    ///
    /// # Errors
    /// Lengths that don't fit, an x that is not finite, a thread that panics; `out` is then of no use.
    pub fn run(&self, x: &[f32], out: &mut [f32], epilogue: Epilogue, workspace: &mut Workspace) -> Result<()> {
        let (n, k) = (self.n(), self.k());
        let m = x.len() / k;
        if x.len() != m * k || out.len() != m * n {
            bail!("a linear of {k} to {n} got {} floats in and {} out", x.len(), out.len());
        }
        ensure_finite(x, k)?;
        let out = DisjointRows::new(out);
        workspace.run_pieces(m.div_ceil(BLOCK), |piece, scratch| {
            let rows = piece * BLOCK..((piece + 1) * BLOCK).min(m);
            self.isa.run(LinearRows { linear: &self.packed, x, out, rows, epilogue, scratch });
            true
        })?;
        Ok(())
    }
}

/// Rows that are quantised and multiplied at a time: they stay in the second cache beside a panel.
const BLOCK: usize = 192;

/// Some rows of x.
struct LinearRows<'a> {
    linear: &'a PackedLinear,
    x: &'a [f32],
    out: DisjointRows,
    rows: Range<usize>,
    epilogue: Epilogue,
    scratch: &'a mut Scratch,
}

impl Kernel for LinearRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { linear, x, out, rows, epilogue, scratch } = self;
        let (n, k, m) = (linear.n, linear.k, rows.len());
        let input = scratch.input::<S>(m, linear);
        // SAFETY: `input` has room for m rows of k. `out` has the m rows from the first on, which no other piece has; the linear
        // was packed for S, as `run` is called by its own instruction set.
        unsafe {
            input.set(s, &x[rows.start * k..rows.end * k], k);
            let out = OutputRows { base: out.as_ptr().add(rows.start * n), offsets: RowOffsets::Strided(n) };
            s.run(Gemm::new(linear, input, m, out, epilogue));
        }
    }
}

fn check(n: usize, k: usize, weights: usize, bias: &[f32]) -> Result<()> {
    ensure!(n > 0 && k > 0, "a linear of {k} to {n}: neither may be 0");
    ensure!(Some(weights) == n.checked_mul(k), "a linear of {k} to {n} has {weights} weights instead of n * k");
    ensure!(bias.is_empty() || bias.len() == n, "a linear of {k} to {n} has {} biases", bias.len());
    ensure!(bias.iter().all(|b| b.is_finite()), "a bias of a linear of {k} to {n} is not finite");
    Ok(())
}

/// Refuses linears (queries, keys and values; output; inner; outer) that don't make a block of `width`.
pub(super) fn check_block(width: usize, linears: [&Linear; 4]) -> Result<()> {
    let (first, inner) = (linears[0], linears[2].n());
    let expected = [(3 * width, width), (width, width), (inner, width), (width, inner)];
    for (linear, (n, k)) in linears.iter().zip(expected) {
        ensure!(
            (linear.n(), linear.k()) == (n, k),
            "a block {width} wide has a linear of {} to {} instead of {k} to {n}",
            linear.k(),
            linear.n()
        );
        let (one, other) = (linear.isa().name(), first.isa().name());
        ensure!(one == other, "a block's linears are packed for {one} and for {other}");
    }
    Ok(())
}

/// Refuses what is not finite.
pub(super) fn ensure_finite(x: &[f32], width: usize) -> Result<()> {
    // Without an early exit it is vectorised.
    let bad = |x: &[f32]| x.iter().fold(false, |bad, x| bad | !x.is_finite());
    match x.chunks(width.max(1)).position(bad) {
        None => Ok(()),
        Some(row) => bail!("row {row} of the input has a number that is not finite"),
    }
}
