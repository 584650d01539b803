//! Separable convolutions, against a convolution in f64 that walks over the whole image.

use proptest::prelude::*;

use super::super::{Isa, Linear, SeparableBlock, Workspace};
use super::noise;

/// An image and what is done with it.
struct Case {
    sides: [usize; 2],
    stride: usize,
    taps: Vec<f32>,
    bias: Vec<f32>,
    weights: Vec<f32>,
    mixed_bias: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new(sides: [usize; 2], stride: usize, channels: usize, n: usize, seed: u64) -> Self {
        let scale = (channels as f32).sqrt();
        Self {
            sides,
            stride,
            taps: noise(seed, 9 * channels),
            bias: noise(seed ^ 1, channels),
            weights: noise(seed ^ 2, n * channels).iter().map(|w| w * 2.0 / scale).collect(),
            mixed_bias: noise(seed ^ 3, n),
            x: noise(seed ^ 4, sides[0] * sides[1] * channels),
        }
    }

    fn block(&self, linear: Linear) -> SeparableBlock {
        SeparableBlock::new(self.sides, self.stride, &self.taps, &self.bias, linear).unwrap()
    }

    fn f32(&self, isa: Isa) -> Linear {
        Linear::f32(isa, self.mixed_bias.len(), self.bias.len(), &self.weights, &self.mixed_bias).unwrap()
    }

    fn int8(&self, isa: Isa) -> Linear {
        let (n, k) = (self.mixed_bias.len(), self.bias.len());
        let most = self.weights.iter().fold(1e-9_f32, |most, w| most.max(w.abs()));
        let weights: Vec<i8> = self.weights.iter().map(|w| (w / most * 127.0).round() as i8).collect();
        Linear::int8(isa, n, k, &weights, &vec![most / 127.0; n], &self.mixed_bias).unwrap()
    }

    /// TensorFlow's "same": as many zeros as are missing, half of them before, the odd one behind.
    fn expected(&self) -> Vec<f64> {
        let ([height, width], channels) = (self.sides, self.bias.len());
        let before = |side: usize| ((side.div_ceil(self.stride) - 1) * self.stride + 3 - side) / 2;
        let pixel = |y: usize, x: usize, c: usize| -> f64 {
            let inside =
                y >= before(height) && y < height + before(height) && x >= before(width) && x < width + before(width);
            if !inside {
                return 0.0;
            }
            f64::from(self.x[((y - before(height)) * width + x - before(width)) * channels + c])
        };
        let mut out = vec![];
        for (top, left) in
            (0..height).step_by(self.stride).flat_map(|y| (0..width).step_by(self.stride).map(move |x| (y, x)))
        {
            let middle: Vec<f64> = (0..channels)
                .map(|c| {
                    let sum =
                        |tap: usize| pixel(top + tap / 3, left + tap % 3, c) * f64::from(self.taps[tap * channels + c]);
                    ((0..9).map(sum).sum::<f64>() + f64::from(self.bias[c])).max(0.0)
                })
                .collect();
            for (row, bias) in self.weights.chunks_exact(channels).zip(&self.mixed_bias) {
                let sum: f64 = row.iter().zip(&middle).map(|(w, x)| f64::from(*w) * x).sum();
                out.push((sum + f64::from(*bias)).max(0.0));
            }
        }
        out
    }
}

fn run(block: &SeparableBlock, case: &Case, threads: usize) -> Vec<f32> {
    let mut out = vec![0.0; block.pixels() * case.mixed_bias.len()];
    block.run(&case.x, &mut out, &mut Workspace::new(threads)).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn separable_blocks_are_near(
        (down, across, stride) in (1usize..9, 1usize..9, 1usize..3),
        (channels, n, seed) in (1usize..70, 1usize..40, any::<u64>()),
    ) {
        let case = Case::new([down * stride, across * stride], stride, channels, n, seed);
        let expected = case.expected();
        for isa in Isa::available() {
            for (linear, bound) in [(case.f32(isa), 2e-5), (case.int8(isa), 0.1)] {
                let block = case.block(linear);
                let found = run(&block, &case, 1);
                prop_assert!(found == run(&block, &case, 3), "{}: threads change a result", isa.name());
                let size = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
                for (f, e) in found.iter().zip(&expected) {
                    prop_assert!((f64::from(*f) - e).abs() <= bound * (1.0 + size), "{}: {f} and {e}", isa.name());
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new([4, 6], 2, 5, 3, 1);
    let new = |sides, stride, taps: &[f32], bias: &[f32]| {
        SeparableBlock::new(sides, stride, taps, bias, case.f32(Isa::Scalar))
    };
    assert!(new([4, 6], 2, &case.taps, &case.bias).is_ok());
    for (sides, stride) in [([0, 6], 1), ([5, 6], 2), ([4, 7], 2), ([4, 6], 3), ([4, 6], 0)] {
        assert!(new(sides, stride, &case.taps, &case.bias).is_err(), "{sides:?} {stride}");
    }
    assert!(new([4, 6], 2, &case.taps[1..], &case.bias).is_err());
    assert!(new([4, 6], 2, &case.taps, &[f32::NAN; 5]).is_err());
    for isa in Isa::available() {
        let block = case.block(case.int8(isa));
        let mut out = vec![0.0; 2 * 3 * 3];
        assert!(block.run(&case.x[1..], &mut out, &mut Workspace::new(1)).is_err());
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = case.x.clone();
            x[77] = bad;
            assert!(block.run(&x, &mut out, &mut Workspace::new(1)).is_err(), "{}: {bad}", isa.name());
        }
    }
}
