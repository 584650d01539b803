//! The merging between two stages of a Swin transformer: four neighbours become one token of twice the channels.
//!
//! An image must have even sides: nothing is padded.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapAudioPatchMerging`.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::activations::RowOffsets;
use super::gemm::{Epilogue, Gemm, OutputRows};
use super::linear::Linear;
use super::norm::Norm;
use super::scratch::Scratch;
use super::simd::{Kernel, Simd};
use super::workspace::{DisjointRows, Workspace};

/// Tokens out that are made at a time: four times their floats in stay in the second cache.
const BLOCK: usize = 64;

/// A merging.
#[derive(Clone, Debug)]
pub struct PatchMerge {
    height: usize,
    width: usize,
    norm: Norm,
    reduction: Linear,
}

impl PatchMerge {
    /// For an image of `height` x `width` tokens; `norm` and `reduction` take 4 * channels.
    ///
    /// # Errors
    /// Sizes that don't fit each other.
    pub fn new(height: usize, width: usize, norm: Norm, reduction: Linear) -> Result<Self> {
        ensure!(
            height > 0 && width > 0 && height.is_multiple_of(2) && width.is_multiple_of(2),
            "an image of {height} x {width} tokens can't be halved"
        );
        ensure!(
            reduction.k().is_multiple_of(4),
            "a merging takes {} floats, which four tokens don't make",
            reduction.k()
        );
        norm.check(reduction.k())?;
        Ok(Self { height, width, norm, reduction })
    }

    /// `x` `[height * width][channels]` to `out` `[height/2 * width/2][n]`.
    ///
    /// # Errors
    /// Wrong lengths, a number that is not finite or beyond 1e18, or a thread that panics; `out` is then of no use.
    pub fn run(&self, x: &[f32], out: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let tokens = self.height * self.width / 4;
        let expected = (tokens * self.reduction.k(), tokens * self.reduction.n());
        ensure!(
            (x.len(), out.len()) == expected,
            "a merging got {} floats in and {} out instead of {expected:?}",
            x.len(),
            out.len()
        );
        let out = DisjointRows::new(out);
        let isa = self.reduction.supported_isa();
        let finite = workspace.run_pieces(tokens.div_ceil(BLOCK), |piece, scratch| {
            let tokens = piece * BLOCK..((piece + 1) * BLOCK).min(tokens);
            isa.run(MergedTokens { merge: self, x, out, tokens, scratch })
        })?;
        if !finite {
            bail!("a token of the input of a merging has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }
}

/// Some tokens of the output.
struct MergedTokens<'a> {
    merge: &'a PatchMerge,
    x: &'a [f32],
    out: DisjointRows,
    tokens: Range<usize>,
    scratch: &'a mut Scratch,
}

impl Kernel for MergedTokens<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Self { merge, x, out, tokens, scratch } = self;
        let reduction = merge.reduction.packed();
        let (k, n, m) = (reduction.k, reduction.n, tokens.len());
        let (channels, width) = (k / 4, merge.width);
        let (input, gathered) = scratch.input_and_gathered::<S>(m, reduction, m * k);
        for (token, row) in tokens.clone().zip(gathered.chunks_exact_mut(k)) {
            let (y, x_at) = (token / (width / 2) * 2, token % (width / 2) * 2);
            // The four stand column by column: (0, 0), (1, 0), (0, 1), (1, 1), as (row, column).
            for (part, part_of_row) in row.chunks_exact_mut(channels).enumerate() {
                let from = ((y + part % 2) * width + x_at + part / 2) * channels;
                part_of_row.copy_from_slice(&x[from..from + channels]);
            }
        }
        // SAFETY: `gathered` has m rows of k and `input` room for them; `out` has the tokens' rows, which no other piece has; the
        // linear is packed for S.
        unsafe {
            let finite = input.set_normalized(s, &merge.norm, gathered.as_ptr(), RowOffsets::Strided(k), m);
            let out = OutputRows { base: out.as_ptr().add(tokens.start * n), offsets: RowOffsets::Strided(n) };
            s.run(Gemm::new(reduction, input, m, out, Epilogue::Store));
            finite
        }
    }
}
