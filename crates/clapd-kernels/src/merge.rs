//! The merging between two stages of a Swin transformer: four neighbours become one token of twice the channels.
//!
//! In: tokens [height * width][channels]. Out: tokens [height/2 * width/2][n], n being twice the channels in every published
//! model.
//! Never: pads.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapAudioPatchMerging`.

use anyhow::{Result, bail, ensure};

use super::gemm::{Gemm, Out};
use super::linear::{Finish, Linear};
use super::norm::Norm;
use super::simd::{Kernel, Simd};
use super::swin::normalized;
use super::workspace::{Scratch, Shared, Workspace};

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
    /// Wrong lengths, or a number that is not finite or beyond 1e18.
    pub fn run(&self, x: &[f32], out: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let tokens = self.height * self.width / 4;
        let expected = (tokens * self.reduction.k(), tokens * self.reduction.n());
        ensure!(
            (x.len(), out.len()) == expected,
            "a merging got {} floats in and {} out instead of {expected:?}",
            x.len(),
            out.len()
        );
        let shared = Shared(out.as_mut_ptr());
        let isa = self.reduction.checked();
        let fine = workspace.each(tokens.div_ceil(BLOCK), |piece, scratch| {
            let tokens = piece * BLOCK..((piece + 1) * BLOCK).min(tokens);
            isa.run(Piece { merge: self, x, out: shared, tokens, scratch })
        });
        if !fine {
            bail!("a token of the input of a merging has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }
}

struct Piece<'a> {
    merge: &'a PatchMerge,
    x: &'a [f32],
    out: Shared,
    tokens: std::ops::Range<usize>,
    scratch: &'a mut Scratch,
}

impl Kernel for Piece<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Self { merge, x, out, tokens, scratch } = self;
        let Scratch { input, qkv: gathered, dense, places, .. } = scratch;
        let (k, n, m) = (merge.reduction.k(), merge.reduction.n(), tokens.len());
        let (channels, width) = (k / 4, merge.width);
        gathered.fit(m * k);
        for (token, row) in tokens.clone().zip(gathered.as_mut_slice().chunks_exact_mut(k)) {
            let (y, x_at) = (token / (width / 2) * 2, token % (width / 2) * 2);
            // The four stand column by column: (0, 0), (1, 0), (0, 1), (1, 1), as (row, column).
            for (part, part_of_row) in row.chunks_exact_mut(channels).enumerate() {
                let from = ((y + part % 2) * width + x_at + part / 2) * channels;
                part_of_row.copy_from_slice(&x[from..from + channels]);
            }
        }
        dense.clear();
        dense.extend((0..m).map(|i| i * k));
        places.clear();
        places.extend(tokens.map(|token| token * n));
        input.fit::<S>(m, k, merge.reduction.coding);
        // SAFETY: `gathered` has m rows of k, `out` the tokens' rows, which no other piece has; the linear is packed for S.
        unsafe {
            let from = gathered.as_slice().as_ptr();
            let fine = normalized(s, &merge.norm, from, dense, input);
            s.run(Gemm::new(&merge.reduction, input, m, Out { base: out.0, places }, Finish::Store));
            fine
        }
    }
}
