//! A log-mel patch as a square image, and an image as patches.
//!
//! Nothing here has weights; all follows from sizes.
//!
//! Resizing: the cubic convolution of Keys (1981) with a = -0.75 and aligned corners, in f32 step by step like PyTorch's
//! `aten/src/ATen/native/UpSample.h`; `claptune::net::resize` says the same as a graph.

use anyhow::{Result, ensure};

/// Keys' parameter, as PyTorch has it.
const A: f32 = -0.75;

/// Pieces of the time line in an image: 4 in every CLAP.
const MAX_FOLD: usize = 64;

/// Where the four inputs of an output lie, and their weights.
type Taps = [(usize, f32); 4];

/// From frames of mels to an image: pieces of the time line, laid above each other.
pub(super) struct Image {
    pub(super) frames: usize,
    pub(super) mels: usize,
    pub(super) side: usize,
    /// Pieces.
    fold: usize,
    /// Empty where nothing is resized.
    in_time: Vec<Taps>,
    in_mels: Vec<Taps>,
}

impl Image {
    pub(super) fn new(frames: usize, mels: usize, side: usize) -> Result<Self> {
        let fold = side / mels;
        ensure!(
            (1..=MAX_FOLD).contains(&fold) && side.is_multiple_of(fold) && frames <= side * fold,
            "a patch of {frames} frames of {mels} mels does not fold into an image of {side}, or into over {MAX_FOLD} pieces"
        );
        let resized = |from, to| if from < to { taps(from, to) } else { vec![] };
        Ok(Self {
            frames,
            mels,
            side,
            fold,
            in_time: resized(frames, side * fold),
            in_mels: resized(mels, side / fold),
        })
    }

    /// `[frames][mels]` to `[side][side]`.
    pub(super) fn fold(&self, mut mel: Vec<f32>) -> Vec<f32> {
        if !self.in_time.is_empty() {
            let row = |at: usize| &mel[at * self.mels..][..self.mels];
            let resized = self.in_time.iter().flat_map(|[a, b, c, d]| {
                let rows = row(a.0).iter().zip(row(b.0)).zip(row(c.0)).zip(row(d.0));
                rows.map(|(((w, x), y), z)| w * a.1 + x * b.1 + y * c.1 + z * d.1)
            });
            mel = resized.collect();
        }
        if !self.in_mels.is_empty() {
            let resized = mel.chunks_exact(self.mels).flat_map(|row| {
                self.in_mels
                    .iter()
                    .map(|[a, b, c, d]| row[a.0] * a.1 + row[b.0] * b.1 + row[c.0] * c.1 + row[d.0] * d.1)
            });
            mel = resized.collect();
        }
        let (side, height) = (self.side, self.side / self.fold);
        let mut image = vec![0.0; side * side];
        for (time, bands) in mel.chunks_exact(height).enumerate() {
            let (piece, column) = (time / side, time % side);
            for (band, value) in bands.iter().enumerate() {
                image[(piece * height + band) * side + column] = *value;
            }
        }
        image
    }
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
    let tap = |i: usize| {
        let position = scale * i as f32;
        let left = (position.floor() as usize).min(from - 1);
        let t = (position - left as f32).clamp(0.0, 1.0);
        // The neighbours of an edge are the edge itself.
        let place = |k: usize| (left + k).saturating_sub(1).min(from - 1);
        let [a, b, c, d] = weights(t);
        [(place(0), a), (place(1), b), (place(2), c), (place(3), d)]
    };
    (0..to).map(tap).collect()
}

/// The weights of the inputs at distance t + 1, t, 1 - t and 2 - t.
fn weights(t: f32) -> [f32; 4] {
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let rest = 1.0 - t;
    [far(t + 1.0), near(t), near(rest), far(rest + 1.0)]
}

/// How an image is cut into patches, as a convolution does.
pub(super) struct PatchGrid {
    pub(super) side: usize,
    pub(super) patch: [usize; 2],
    pub(super) stride: [usize; 2],
    /// Zeros above and below, and left and right.
    pub(super) padding: [usize; 2],
}

impl PatchGrid {
    /// Patches down and across.
    pub(super) fn size(&self) -> [usize; 2] {
        [0, 1].map(|i| match (self.side + 2 * self.padding[i]).checked_sub(self.patch[i]) {
            Some(rest) => rest / self.stride[i] + 1,
            None => 0,
        })
    }

    /// Patches.
    pub(super) fn tokens(&self) -> usize {
        self.size().iter().product()
    }

    /// Numbers in a patch.
    pub(super) fn patch_len(&self) -> usize {
        self.patch.iter().product()
    }

    /// An image `[side][side]` as patches, each row by row.
    pub(super) fn patches(&self, image: &[f32]) -> Vec<f32> {
        let ([down, across], [height, width]) = (self.size(), self.patch);
        let mut patches = Vec::with_capacity(down * across * height * width);
        for (row, column) in (0..down * across).map(|i| (i / across, i % across)) {
            for y in (0..height).map(|y| row * self.stride[0] + y) {
                let line = y.checked_sub(self.padding[0]).and_then(|y| image.get(y * self.side..(y + 1) * self.side));
                patches.extend((0..width).map(|x| {
                    let x = (column * self.stride[1] + x).checked_sub(self.padding[1]);
                    line.and_then(|line| line.get(x?)).copied().unwrap_or(0.0)
                }));
            }
        }
        patches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_its_length_keeps_its_values() {
        let mel: Vec<f32> = (0..16 * 4).map(|i| i as f32).collect();
        let image = Image::new(16, 4, 8).unwrap().fold(mel);
        // Time 0 to 7 above time 8 to 15, a band a row.
        assert_eq!(image[..8], [0., 4., 8., 12., 16., 20., 24., 28.]);
        assert_eq!(image[8], 1.0);
        assert_eq!(image[4 * 8], 32.0);
    }

    #[test]
    fn a_resized_line_keeps_its_ends() {
        let taps = taps(1001, 1024);
        assert_eq!(taps[0].map(|t| t.0), [0, 0, 1, 2]);
        assert_eq!(taps[1023][1], (1000, 1.0));
        for tap in taps {
            assert!((tap.iter().map(|t| t.1).sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn patches_overlap_and_have_zeros_around() {
        let grid = PatchGrid { side: 4, patch: [4, 4], stride: [2, 2], padding: [1, 1] };
        assert_eq!(grid.size(), [2, 2]);
        let patches = grid.patches(&(1..=16).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(patches[..8], [0., 0., 0., 0., 0., 1., 2., 3.]);
        assert_eq!(patches[3 * 16..][..8], [6., 7., 8., 0., 10., 11., 12., 0.]);
    }
}
