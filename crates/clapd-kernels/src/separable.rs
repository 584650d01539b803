//! A block of a MobileNet: a 3x3 convolution of each channel by itself, then a linear that mixes them; ReLU after each.
//!
//! The channels of a pixel lie side by side, so a vector is a few channels of one pixel and the linear's rows need no gathering.
//!
//! Architecture: Howard et al., arXiv 1704.04861 (MobileNets).

use std::ops::Range;

use anyhow::{Result, ensure};

use super::activations::RowOffsets;
use super::buffer::Aligned;
use super::gemm::{Epilogue, Gemm, OutputRows};
use super::linear::{Linear, ensure_finite};
use super::norm::vectors;
use super::scratch::Scratch;
use super::simd::{Kernel, Simd};
use super::workspace::{DisjointRows, Workspace};

/// Pixels out that are made at a time: what they are between the two convolutions stays in the second cache.
const BLOCK: usize = 96;
/// Elements of a 3x3 kernel.
const TAPS: usize = 9;

/// A block.
#[derive(Clone, Debug)]
pub struct SeparableBlock {
    height: usize,
    width: usize,
    stride: usize,
    /// [TAPS][channels], row by row of the kernel.
    taps: Aligned<f32>,
    bias: Vec<f32>,
    pointwise: Linear,
}

impl SeparableBlock {
    /// For an image of `height` x `width` pixels. `taps` are `[9][channels]`, the kernel row by row; `bias` is `[channels]`;
    /// `pointwise` takes the channels. A `stride` of 1 has a pixel of zeros all around, one of 2 only below and to the right, where
    /// TensorFlow has it.
    ///
    /// # Errors
    /// Sizes that don't fit each other, a stride other than 1 or 2, a number that is not finite.
    pub fn new(
        [height, width]: [usize; 2],
        stride: usize,
        taps: &[f32],
        bias: &[f32],
        pointwise: Linear,
    ) -> Result<Self> {
        ensure!(
            height > 0
                && width > 0
                && matches!(stride, 1 | 2)
                && height.is_multiple_of(stride)
                && width.is_multiple_of(stride),
            "an image of {height} x {width} pixels can't be convolved with a stride of {stride}"
        );
        let channels = pointwise.k();
        ensure!(
            (taps.len(), bias.len()) == (TAPS * channels, channels),
            "a 3x3 convolution of {channels} channels has {} weights and {} biases",
            taps.len(),
            bias.len()
        );
        ensure!(taps.iter().chain(bias).all(|x| x.is_finite()), "a weight of a 3x3 convolution is not finite");
        Ok(Self { height, width, stride, taps: Aligned::padded(taps, taps.len()), bias: bias.to_vec(), pointwise })
    }

    /// Pixels out.
    pub fn pixels(&self) -> usize {
        (self.height / self.stride) * (self.width / self.stride)
    }

    /// `x` `[height * width][channels]` to `out` `[pixels][n]`.
    ///
    /// # Errors
    /// Wrong lengths, a number that is not finite, or a thread that panics; `out` is then of no use.
    pub fn run(&self, x: &[f32], out: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let (channels, pixels) = (self.pointwise.k(), self.pixels());
        let expected = (self.height * self.width * channels, pixels * self.pointwise.n());
        ensure!(
            (x.len(), out.len()) == expected,
            "a separable block got {} floats in and {} out instead of {expected:?}",
            x.len(),
            out.len()
        );
        ensure_finite(x, channels)?;
        let out = DisjointRows::new(out);
        let isa = self.pointwise.supported_isa();
        workspace.run_pieces(pixels.div_ceil(BLOCK), |piece, scratch| {
            let pixels = piece * BLOCK..((piece + 1) * BLOCK).min(pixels);
            isa.run(SeparablePixels { block: self, x, out, pixels, scratch });
            true
        })?;
        Ok(())
    }

    /// The elements of the kernel that lie on the image for an output pixel: where in `taps`, and where in the image; how many.
    fn taps_of(&self, pixel: usize) -> ([(usize, usize); TAPS], usize) {
        let across = self.width / self.stride;
        // With a stride of 1 the kernel begins a pixel before the image, with 2 at its edge.
        let before = 2 - self.stride;
        let (top, left) = (pixel / across * self.stride, pixel % across * self.stride);
        let (mut taps, mut count, channels) = ([(0, 0); TAPS], 0, self.bias.len());
        for tap in 0..TAPS {
            let (y, x) = (top + tap / 3, left + tap % 3);
            if (before..self.height + before).contains(&y) && (before..self.width + before).contains(&x) {
                taps[count] = (tap * channels, ((y - before) * self.width + x - before) * channels);
                count += 1;
            }
        }
        (taps, count)
    }
}

/// Some pixels of the output.
struct SeparablePixels<'a> {
    block: &'a SeparableBlock,
    x: &'a [f32],
    out: DisjointRows,
    pixels: Range<usize>,
    scratch: &'a mut Scratch,
}

impl Kernel for SeparablePixels<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { block, x, out, pixels, scratch } = self;
        let pointwise = block.pointwise.packed();
        let (k, n, m) = (pointwise.k, pointwise.n, pixels.len());
        let input = scratch.input::<S>(m, pointwise);
        let (floats, stride) = input.floats_mut();
        for (row, pixel) in floats.chunks_exact_mut(stride).zip(pixels.clone()) {
            let (taps, count) = block.taps_of(pixel);
            // SAFETY: the row has room for k floats, and every tap lies on the image.
            unsafe { depthwise(s, block, &taps[..count], x, row) };
        }
        // SAFETY: `input` has m rows of k, `out` the pixels' rows, which no other piece has; the linear is packed for S.
        unsafe {
            input.quantize_rows(s, m, k);
            let out = OutputRows { base: out.as_ptr().add(pixels.start * n), offsets: RowOffsets::Strided(n) };
            s.run(Gemm::new(pointwise, input, m, out, Epilogue::Relu));
        }
    }
}

/// One pixel of the first convolution, after ReLU.
///
/// # Safety
/// `out` must have as many floats as there are channels, and `x` a pixel for each of `taps`.
#[inline(always)]
unsafe fn depthwise<S: Simd>(s: S, block: &SeparableBlock, taps: &[(usize, usize)], x: &[f32], out: &mut [f32]) {
    let (bias, weights) = (block.bias.as_ptr(), block.taps.as_slice().as_ptr());
    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
    // SAFETY: offsets are below the channels, of which every tap, pixel and bias has as many.
    unsafe {
        vectors!(
            S,
            block.bias.len(),
            |i| {
                let mut sum = s.load(bias.add(i));
                for &(tap, pixel) in taps {
                    sum = s.fma(s.load(x.add(pixel + i)), s.load(weights.add(tap + i)), sum);
                }
                s.store(out.add(i), s.max(sum, s.splat(0.0)));
            },
            |i, left| {
                let mut sum = s.load_part(bias.add(i), left);
                for &(tap, pixel) in taps {
                    let (x, weight) = (s.load_part(x.add(pixel + i), left), s.load_part(weights.add(tap + i), left));
                    sum = s.fma(x, weight, sum);
                }
                s.store_part(out.add(i), s.max(sum, s.splat(0.0)), left);
            },
        );
    }
}
