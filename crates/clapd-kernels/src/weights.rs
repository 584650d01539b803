//! A linear's weights in the order in which tiles read them, for one instruction set.
//!
//! They come as `[n][k]`, row by row, as PyTorch holds a linear's weight, and are packed into panels of as many columns
//! (outputs) as a tile is wide; in a panel, for each group of consecutive k, that group of every column. No value is changed, and
//! what is missing to a whole panel or group is zero.

use super::activations::ActivationFormat;
use super::buffer::{Aligned, Pod};
use super::isa::SupportedIsa;
use super::simd::{Kernel, Simd};

/// Packed int8 weights.
#[derive(Clone, Debug)]
pub(super) struct Int8Weights {
    pub(super) panels: Aligned<i8>,
    /// [spans][n rounded up to panels].
    pub(super) scales: Aligned<f32>,
    /// Of each column, the sum of its weights times their scales: what a row's shift is multiplied with.
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
    Int8(Int8Weights),
    F32(Aligned<f32>),
    F16(Aligned<u16>),
}

/// What a product with rows of activations needs to know of a linear.
#[derive(Clone, Debug)]
pub(super) struct PackedLinear {
    /// Outputs of a row.
    pub(super) n: usize,
    /// Inputs of a row.
    pub(super) k: usize,
    pub(super) weights: Weights,
    /// The format of the rows that go in.
    pub(super) format: ActivationFormat,
    /// [n rounded up to panels].
    pub(super) bias: Aligned<f32>,
}

impl PackedLinear {
    /// Int8 `weights` `[n][k]` with `scales` `[spans][n]`, all checked by the caller.
    pub(super) fn int8(isa: SupportedIsa, [n, k]: [usize; 2], weights: &[i8], scales: &[f32], bias: &[f32]) -> Self {
        let (shape, spans) = (PanelShape::of(isa), scales.len() / n);
        let (width, span) = (shape.width(n), k / spans);
        let mut int8 = Int8Weights {
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
        Self { n, k, weights: Weights::Int8(int8), format: ActivationFormat::U8, bias: Aligned::padded(bias, width) }
    }

    /// Floating-point `weights` `[n][k]`, which `into` makes one of [`Weights`].
    pub(super) fn float<T: Pod + Default>(
        isa: SupportedIsa,
        [n, k]: [usize; 2],
        weights: &[T],
        bias: &[f32],
        into: fn(Aligned<T>) -> Weights,
    ) -> Self {
        let shape = PanelShape::of(isa);
        let weights = into(pack(weights, k, shape.panel, 1, k));
        Self { n, k, weights, format: ActivationFormat::F32, bias: Aligned::padded(bias, shape.width(n)) }
    }
}

/// How one instruction set's tiles read weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PanelShape {
    /// Columns of a panel.
    pub(super) panel: usize,
    /// Consecutive int8 weights of a column.
    pub(super) group: usize,
}

struct ReadShape;

impl Kernel for ReadShape {
    type Output = PanelShape;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> PanelShape {
        PanelShape { panel: S::VECTORS * S::LANES, group: S::GROUP }
    }
}

impl PanelShape {
    /// Of an instruction set.
    pub(super) fn of(isa: SupportedIsa) -> Self {
        isa.run(ReadShape)
    }

    /// `n` rounded up to whole panels.
    pub(super) fn width(self, n: usize) -> usize {
        n.next_multiple_of(self.panel)
    }
}

/// Panels of `weights` [n][k], `group` consecutive weights of a column at a time, k cut into spans of `span` (each of them
/// padded to whole groups).
pub(super) fn pack<T: Pod + Default>(weights: &[T], k: usize, panel: usize, group: usize, span: usize) -> Aligned<T> {
    let n = weights.len() / k.max(1);
    let spans = k.div_ceil(span);
    let padded = span.next_multiple_of(group);
    let mut packed = Aligned::zeros(n.next_multiple_of(panel) * spans * padded);
    let out = packed.as_mut_slice();
    for (column, row) in weights.chunks_exact(k).enumerate() {
        for (i, weight) in row.iter().enumerate() {
            let at = i / span * padded + i % span;
            let panel_start = column / panel * panel * spans * padded;
            out[panel_start + (at / group * panel + column % panel) * group + at % group] = *weight;
        }
    }
    packed
}
