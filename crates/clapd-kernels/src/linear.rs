//! y = x W^T + b with packed weights: int8, f32 or f16.
//!
//! In: rows of f32. Out: rows of f32, after GELU or ReLU or added to what is there.
//! Weights are packed once, for one instruction set; activations are coded row by row as they come ([`super::norm`]).
//! Never: chooses scales; who makes the weights does.

use anyhow::{Result, bail, ensure};
use half::f16;

use super::buffer::Aligned;
use super::gemm::{Gemm, Out};
use super::isa::{Checked, Isa};
use super::norm::Coding;
use super::pack::{Shape, pack};
use super::simd::{Kernel, Simd};
use super::workspace::{Scratch, Shared, Workspace};

/// What is done with a sum before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    Store,
    /// x/2 (1 + erf(x / sqrt 2)).
    Gelu,
    /// max(x, 0).
    Relu,
    /// Added to what is in the output.
    Add,
}

/// The number of k for which an int8 sum is exact: 255 * 127 * k must stay below 2^31.
pub const MAX_K: usize = 65_536;

/// Packed int8 weights.
#[derive(Clone, Debug)]
pub(super) struct Int8 {
    pub(super) panels: Aligned<i8>,
    /// [spans][n rounded up to panels].
    pub(super) scales: Aligned<f32>,
    /// Of each column, the sum of its weights times their scales: what a code's zero is multiplied with.
    pub(super) shifts: Aligned<f32>,
    /// Of each span and column, the sum of its weights.
    pub(super) sums: Aligned<i32>,
    pub(super) spans: usize,
    /// k of a span.
    pub(super) span: usize,
    /// The same, rounded up to whole groups.
    pub(super) padded: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Weights {
    Int8(Int8),
    F32(Aligned<f32>),
    F16(Aligned<u16>),
}

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    isa: Checked,
    n: usize,
    k: usize,
    pub(super) weights: Weights,
    pub(super) coding: Coding,
    pub(super) bias: Aligned<f32>,
}

impl Linear {
    /// Int8 `weights` `[n][k]` in -127..=127. `scales` are `[n]`, or `[k / span][n]` where a scale is for `span` consecutive k (a
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
        let isa = isa.checked()?;
        let (shape, span) = (Shape::of(isa), k / spans);
        let width = shape.width(n);
        let mut int8 = Int8 {
            panels: pack(weights, k, shape.panel, shape.group, span),
            scales: Aligned::zeros(spans * width),
            shifts: Aligned::zeros(width),
            sums: Aligned::zeros(spans * width),
            spans,
            span,
            padded: span.next_multiple_of(shape.group),
        };
        for (o, row) in weights.chunks_exact(k).enumerate() {
            for (at, part) in row.chunks_exact(span).enumerate() {
                let sum = part.iter().map(|w| i32::from(*w)).sum::<i32>();
                let scale = scales[at * n + o];
                int8.sums.as_mut_slice()[at * width + o] = sum;
                int8.scales.as_mut_slice()[at * width + o] = scale;
                int8.shifts.as_mut_slice()[o] += scale * sum as f32;
            }
        }
        Ok(Self { isa, n, k, weights: Weights::Int8(int8), coding: Coding::Byte, bias: Aligned::padded(bias, width) })
    }

    /// f32 `weights` `[n][k]`; `bias` `[n]`, or empty for none.
    ///
    /// # Errors
    /// As [`int8`](Self::int8).
    pub fn f32(isa: Isa, n: usize, k: usize, weights: &[f32], bias: &[f32]) -> Result<Self> {
        check(n, k, weights.len(), bias)?;
        ensure!(weights.iter().all(|w| w.is_finite()), "a weight of a linear is not finite");
        let isa = isa.checked()?;
        let shape = Shape::of(isa);
        let weights = Weights::F32(pack(weights, k, shape.panel, 1, k));
        Ok(Self { isa, n, k, weights, coding: Coding::Floats, bias: Aligned::padded(bias, shape.width(n)) })
    }

    /// Half-precision `weights` `[n][k]`, computed with in f32: half the memory of f32, where memory is what takes time.
    ///
    /// # Errors
    /// As [`int8`](Self::int8).
    pub fn f16(isa: Isa, n: usize, k: usize, weights: &[f16], bias: &[f32]) -> Result<Self> {
        check(n, k, weights.len(), bias)?;
        ensure!(weights.iter().all(|w| w.is_finite()), "a weight of a linear is not finite");
        let isa = isa.checked()?;
        let shape = Shape::of(isa);
        let bits: Vec<u16> = weights.iter().map(|w| w.to_bits()).collect();
        let weights = Weights::F16(pack(&bits, k, shape.panel, 1, k));
        Ok(Self { isa, n, k, weights, coding: Coding::Floats, bias: Aligned::padded(bias, shape.width(n)) })
    }

    /// If its weights are int8: with activations in 16 bits instead of 8, for rows whose few largest numbers would leave
    /// the others no steps. It takes twice the multiply-adds, of the same weights.
    #[must_use]
    pub fn fine(mut self) -> Self {
        if self.coding == Coding::Byte {
            self.coding = Coding::TwoBytes;
        }
        self
    }

    /// Outputs of a row.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The instruction set that it was packed for.
    pub fn isa(&self) -> Isa {
        self.isa.isa()
    }

    /// Bytes of its packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.weights {
            Weights::Int8(w) => w.panels.as_slice().len(),
            Weights::F32(w) => size_of_val(w.as_slice()),
            Weights::F16(w) => size_of_val(w.as_slice()),
        }
    }

    pub(super) fn checked(&self) -> Checked {
        self.isa
    }

    /// x `[m][k]` to `out` `[m][n]`, row by row.
    ///
    /// # Errors
    /// Lengths that don't fit, an x that is not finite.
    pub fn run(&self, x: &[f32], out: &mut [f32], finish: Finish, workspace: &mut Workspace) -> Result<()> {
        let m = x.len() / self.k;
        if x.len() != m * self.k || out.len() != m * self.n {
            bail!("a linear of {} to {} got {} floats in and {} out", self.k, self.n, x.len(), out.len());
        }
        finite(x, self.k)?;
        let shared = Shared(out.as_mut_ptr());
        workspace.each(m.div_ceil(BLOCK), |piece, scratch| {
            let rows = piece * BLOCK..((piece + 1) * BLOCK).min(m);
            self.isa.run(Run { linear: self, x, out: shared, rows, finish, scratch });
            true
        });
        Ok(())
    }
}

/// Rows that are coded and multiplied at a time: their codes stay in the second cache beside a panel.
const BLOCK: usize = 192;

/// Some rows of x.
struct Run<'a> {
    linear: &'a Linear,
    x: &'a [f32],
    out: Shared,
    rows: std::ops::Range<usize>,
    finish: Finish,
    scratch: &'a mut Scratch,
}

impl Kernel for Run<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { linear, x, out, rows, finish, scratch } = self;
        let Scratch { input, places, .. } = scratch;
        let (n, k, m) = (linear.n, linear.k, rows.len());
        input.fit::<S>(m, k, linear.coding);
        places.clear();
        places.extend(rows.clone().map(|row| row * n));
        for (i, x) in x[rows.start * k..rows.end * k].chunks_exact(k).enumerate() {
            if input.coded() {
                // SAFETY: x has k floats, and `fit` made room for m rows.
                unsafe { input.code(s, i, x.as_ptr(), k) };
            } else {
                input.floats.as_mut_slice()[i * input.float_stride..][..k].copy_from_slice(x);
            }
        }
        // SAFETY: the m rows are there; `out` has the rows at the places, which no other piece has; the linear was packed for
        // S, as `run` is called by its own instruction set.
        s.run(unsafe { Gemm::new(linear, input, m, Out { base: out.0, places }, finish) });
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
    let (first, inner) = (linears[0], linears[2].n);
    let expected = [(3 * width, width), (width, width), (inner, width), (width, inner)];
    for (linear, (n, k)) in linears.iter().zip(expected) {
        ensure!(
            (linear.n, linear.k) == (n, k),
            "a block {width} wide has a linear of {} to {} instead of {k} to {n}",
            linear.k,
            linear.n
        );
        let (one, other) = (linear.isa().name(), first.isa().name());
        ensure!(one == other, "a block's linears are packed for {one} and for {other}");
    }
    Ok(())
}

/// Refuses what is not finite.
pub(super) fn finite(x: &[f32], width: usize) -> Result<()> {
    // Without an early exit it is vectorised.
    let bad = |x: &[f32]| x.iter().fold(false, |bad, x| bad | !x.is_finite());
    match x.chunks(width.max(1)).position(bad) {
        None => Ok(()),
        Some(row) => bail!("row {row} of the input has a number that is not finite"),
    }
}
