//! Weights in the order in which tiles read them.
//!
//! In: [n][k], row by row, as PyTorch holds a linear's weight. Out: panels of as many columns (outputs) as a tile is wide;
//! in a panel, for each group of consecutive k, that group of every column.
//! Never: changes a value. What is missing to a whole panel or group is zero.

use super::buffer::{Aligned, Plain};
use super::isa::Checked;
use super::simd::{Kernel, Simd};

/// How one instruction set's tiles read weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Columns of a panel.
    pub(super) panel: usize,
    /// Consecutive int8 weights of a column.
    pub(super) group: usize,
}

struct Ask;

impl Kernel for Ask {
    type Output = Shape;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Shape {
        Shape { panel: S::VECTORS * S::LANES, group: S::GROUP }
    }
}

impl Shape {
    /// Of an instruction set.
    pub(super) fn of(isa: Checked) -> Self {
        isa.run(Ask)
    }

    /// `n` rounded up to whole panels.
    pub(super) fn width(self, n: usize) -> usize {
        n.next_multiple_of(self.panel)
    }
}

/// Panels of `weights` [n][k], `group` consecutive weights of a column at a time, k cut into spans of `span` (each of them
/// padded to whole groups).
pub(super) fn pack<T: Plain + Default>(weights: &[T], k: usize, panel: usize, group: usize, span: usize) -> Aligned<T> {
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
