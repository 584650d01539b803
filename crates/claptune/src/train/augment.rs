//! SpecAugment: stripes of a spectrogram that a step does not see (Park et al., arXiv 1904.08779).
//!
//! The time warping of the paper is left out: it adds least there, and moves what listeners rated. Stripes are a
//! function of their seed, so that those of a pair in an epoch are the same after a resume as without one.

use fastrand::Rng;

/// Stripes along each axis, as HTSAT's authors train with (arXiv 2202.00874).
const STRIPES: usize = 2;
/// The widest stripe of time: the same authors' 64 frames of 1024.
const FRAMES_PART: usize = 16;
/// The widest stripe of frequency: the same authors' 8 bands of 64.
const BANDS_PART: usize = 8;

/// The seed of a pair's mask in an epoch.
pub fn seed(run: u64, epoch: u64, pair: usize) -> u64 {
    // Three odd constants with no small relation (of SplitMix64): neighbours get seeds that lie far apart.
    run.wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(epoch.wrapping_mul(0xBF58_476D_1CE4_E5B9))
        .wrapping_add((pair as u64).wrapping_mul(0x94D0_49BB_1331_11EB))
}

/// Masks a patch of `bands` mel bands, row = frame. The mean stands for "nothing to see", as 0 does where features are centred.
pub fn mask(patch: &mut [f32], bands: usize, seed: u64) {
    let frames = patch.len() / bands.max(1);
    if frames == 0 {
        return;
    }
    let mean = (patch.iter().map(|x| f64::from(*x)).sum::<f64>() / patch.len() as f64) as f32;
    let mut random = Rng::with_seed(seed);
    for _ in 0..STRIPES {
        let (first, width) = stripe(&mut random, frames, frames / FRAMES_PART);
        patch[first * bands..(first + width) * bands].fill(mean);
        let (first, width) = stripe(&mut random, bands, bands / BANDS_PART);
        for frame in patch.chunks_exact_mut(bands) {
            frame[first..first + width].fill(mean);
        }
    }
}

/// The first of `width` rows, 0 to `most`, out of `all`.
fn stripe(random: &mut Rng, all: usize, most: usize) -> (usize, usize) {
    let width = random.usize(0..=most);
    (random.usize(0..=all - width), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_are_the_seeds_alone_and_leave_most_of_a_patch() {
        let patch: Vec<f32> = (0..1001 * 64).map(|i| (i % 977) as f32).collect();
        let masked = |seed| {
            let mut copy = patch.clone();
            mask(&mut copy, 64, seed);
            copy
        };
        let mut different = 0;
        for pair in 0..20 {
            let (one, other) = (masked(seed(1, 0, pair)), masked(seed(1, 1, pair)));
            assert_eq!(one, masked(seed(1, 0, pair)));
            different += usize::from(one != other);
            let hidden = one.iter().zip(&patch).filter(|(a, b)| a != b).count();
            assert!(hidden * 2 < patch.len(), "{hidden}");
        }
        assert!(different > 15, "epochs have stripes of their own: {different}");
    }

    #[test]
    fn a_patch_too_small_for_stripes_stays() {
        let mut patch = vec![1.0, 2.0, 3.0, 4.0];
        mask(&mut patch, 2, 7);
        assert_eq!(patch, [1.0, 2.0, 3.0, 4.0]);
    }
}
