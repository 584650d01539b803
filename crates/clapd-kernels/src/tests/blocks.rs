//! Fused blocks, against the layers one by one in f64.

use proptest::prelude::*;

use super::super::{
    Isa, Linear, Norm, PatchMerge, SwinBlock, SwinLayers, SwinShape, TransformerLayer, TransformerLayers, Workspace,
};
use super::noise;

/// A matrix of rows in f64.
type Rows = Vec<Vec<f64>>;

/// Weights of a block in their plain form.
struct BlockWeights {
    width: usize,
    inner: usize,
    heads: usize,
    qkv: Vec<f32>,
    qkv_bias: Vec<f32>,
    output: Vec<f32>,
    output_bias: Vec<f32>,
    first: (Vec<f32>, Vec<f32>),
    fc1: Vec<f32>,
    fc1_bias: Vec<f32>,
    fc2: Vec<f32>,
    fc2_bias: Vec<f32>,
    second: (Vec<f32>, Vec<f32>),
}

impl BlockWeights {
    fn new(width: usize, inner: usize, heads: usize, seed: u64) -> Self {
        let scaled =
            |seed, n: usize, k: usize| noise(seed, n * k).iter().map(|w| w * 2.0 / (k as f32).sqrt()).collect();
        let norm = |seed| (noise(seed, width).iter().map(|w| 1.0 + 0.3 * w).collect(), noise(seed ^ 9, width));
        Self {
            width,
            inner,
            heads,
            qkv: scaled(seed, 3 * width, width),
            qkv_bias: noise(seed ^ 1, 3 * width),
            output: scaled(seed ^ 2, width, width),
            output_bias: noise(seed ^ 3, width),
            first: norm(seed ^ 4),
            fc1: scaled(seed ^ 5, inner, width),
            fc1_bias: noise(seed ^ 6, inner),
            fc2: scaled(seed ^ 7, width, inner),
            fc2_bias: noise(seed ^ 8, width),
            second: norm(seed ^ 10),
        }
    }

    fn linears(&self, isa: Isa, int8: bool) -> [Linear; 4] {
        let one = |n, k, w: &[f32], b: &[f32]| {
            if int8 { quantized(isa, n, k, w, b) } else { Linear::f32(isa, n, k, w, b).unwrap() }
        };
        [
            one(3 * self.width, self.width, &self.qkv, &self.qkv_bias),
            one(self.width, self.width, &self.output, &self.output_bias),
            one(self.inner, self.width, &self.fc1, &self.fc1_bias),
            one(self.width, self.inner, &self.fc2, &self.fc2_bias),
        ]
    }

    fn norms(&self) -> [Norm; 2] {
        [&self.first, &self.second].map(|(w, b)| Norm::new(w.clone(), b.clone(), 1e-5))
    }

    /// softmax(q k^T / sqrt(size) + bias) v and the output linear, for rows that attend to each other.
    fn attend(&self, rows: &Rows, bias: impl Fn(usize, usize, usize) -> f64) -> Rows {
        let size = self.width / self.heads;
        let qkv = linear(rows, &self.qkv, &self.qkv_bias);
        let mut mixed = vec![vec![0.0; self.width]; rows.len()];
        for head in 0..self.heads {
            let part = |i: usize, which: usize| &qkv[i][which * self.width + head * size..][..size];
            for i in 0..rows.len() {
                let dot = |j: usize| part(i, 0).iter().zip(part(j, 1)).map(|(q, k)| q * k).sum::<f64>();
                let shares: Vec<f64> =
                    (0..rows.len()).map(|j| (dot(j) / (size as f64).sqrt() + bias(head, i, j)).exp()).collect();
                let sum: f64 = shares.iter().sum();
                for (j, share) in shares.iter().enumerate() {
                    for (d, v) in part(j, 2).iter().enumerate() {
                        mixed[i][head * size + d] += share / sum * v;
                    }
                }
            }
        }
        linear(&mixed, &self.output, &self.output_bias)
    }

    fn feed_forward(&self, rows: &Rows) -> Rows {
        let mut hidden = linear(rows, &self.fc1, &self.fc1_bias);
        hidden.iter_mut().flatten().for_each(|x| *x *= 0.5 * (1.0 + erf(*x / std::f64::consts::SQRT_2)));
        linear(&hidden, &self.fc2, &self.fc2_bias)
    }
}

fn erf(x: f64) -> f64 {
    // The series; arguments here are small.
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    if x.abs() > 4.5 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
}

fn quantized(isa: Isa, n: usize, k: usize, w: &[f32], b: &[f32]) -> Linear {
    let scales: Vec<f32> = w.chunks_exact(k).map(|r| r.iter().fold(1e-9f32, |m, w| m.max(w.abs())) / 127.0).collect();
    let weights: Vec<i8> = w.iter().enumerate().map(|(at, w)| (w / scales[at / k]).round() as i8).collect();
    Linear::int8(isa, n, k, &weights, &scales, b).unwrap()
}

fn linear(rows: &Rows, w: &[f32], b: &[f32]) -> Rows {
    let k = rows[0].len();
    let one = |x: &Vec<f64>, (o, w): (usize, &[f32])| {
        x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>() + b.get(o).map_or(0.0, |b| f64::from(*b))
    };
    rows.iter().map(|x| w.chunks_exact(k).enumerate().map(|w| one(x, w)).collect()).collect()
}

fn norm(rows: &Rows, (weight, bias): &(Vec<f32>, Vec<f32>)) -> Rows {
    let one = |x: &Vec<f64>| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scaled = |i: usize| (x[i] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
        (0..x.len()).map(scaled).collect()
    };
    rows.iter().map(one).collect()
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn rows(x: &[f32], width: usize) -> Rows {
    x.chunks_exact(width).map(|x| x.iter().map(|x| f64::from(*x)).collect()).collect()
}

/// The largest difference, and the root of the mean of squares of what is expected.
fn compared(found: &[f32], expected: &Rows) -> (f64, f64) {
    let expected: Vec<f64> = expected.iter().flatten().copied().collect();
    assert_eq!(found.len(), expected.len());
    let size = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    (found.iter().zip(&expected).fold(0.0, |most, (f, e)| (f64::from(*f) - e).abs().max(most)), size)
}

/// A Swin block in the words of the reference: roll, cut into windows, attend with a mask, put together, roll back.
fn swin(plain: &BlockWeights, shape: SwinShape, table: &[f32], x: &Rows) -> Rows {
    let SwinShape { height, width, window, shift, heads } = shape;
    let before = norm(x, &plain.first);
    let region = |at: usize, len: usize| usize::from(at >= len - window) + usize::from(at >= len - shift);
    let mut attended = vec![vec![]; x.len()];
    for (top, left) in (0..height).step_by(window).flat_map(|y| (0..width).step_by(window).map(move |x| (y, x))) {
        let rolled: Vec<_> = (0..window * window).map(|t| (top + t / window, left + t % window)).collect();
        let offsets: Vec<_> = rolled.iter().map(|(y, x)| (y + shift) % height * width + (x + shift) % width).collect();
        let own: Rows = offsets.iter().map(|token| before[*token].clone()).collect();
        let mixed = plain.attend(&own, |head, i, j| {
            let (down, across) = (i / window + window - 1 - j / window, i % window + window - 1 - j % window);
            let bias = f64::from(table[(down * (2 * window - 1) + across) * heads + head]);
            let part = |t: usize| (region(rolled[t].0, height), region(rolled[t].1, width));
            if shift > 0 && part(i) != part(j) { bias - 100.0 } else { bias }
        });
        offsets.iter().zip(mixed).for_each(|(token, row)| attended[*token] = row);
    }
    let x = sum(x, &attended);
    sum(&x, &plain.feed_forward(&norm(&x, &plain.second)))
}

fn swin_block(plain: &BlockWeights, shape: SwinShape, table: &[f32], isa: Isa, int8: bool) -> SwinBlock {
    let [qkv, output, inner, outer] = plain.linears(isa, int8);
    let [norm_before, norm_after] = plain.norms();
    SwinBlock::new(shape, SwinLayers { norm_before, qkv, output, norm_after, inner, outer }, table).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn swin_blocks_are_near(
        (down, across, window, heads) in (1usize..4, 1usize..4, 2usize..6, 1usize..4),
        (size, inner, seed, shifted) in (1usize..12, 1usize..40, any::<u64>(), any::<bool>()),
    ) {
        let shape = SwinShape {
            height: down * window, width: across * window, window, shift: if shifted { window / 2 } else { 0 }, heads,
        };
        // At least 4 channels: norms of fewer blow roundings up.
        let channels = heads * size.max(4);
        let plain = BlockWeights::new(channels, inner, heads, seed);
        let table = noise(seed ^ 20, (2 * window - 1).pow(2) * heads);
        let x = noise(seed ^ 21, shape.height * shape.width * channels);
        let expected = swin(&plain, shape, &table, &rows(&x, channels));
        for isa in Isa::available() {
            let mut y = x.clone();
            swin_block(&plain, shape, &table, isa, false).run(&mut y, &mut Workspace::new(1)).unwrap();
            let (error, size) = compared(&y, &expected);
            prop_assert!(error <= 2e-5 * (1.0 + size), "{}: {error} of {size}", isa.name());
            let block = swin_block(&plain, shape, &table, isa, true);
            let (mut one, mut three) = (x.clone(), x.clone());
            block.run(&mut one, &mut Workspace::new(1)).unwrap();
            block.run(&mut three, &mut Workspace::new(3)).unwrap();
            prop_assert!(one == three, "{}: threads change a result", isa.name());
            let (error, size) = compared(&one, &expected);
            prop_assert!(error <= 0.15 * (1.0 + size), "{} in int8: {error} of {size}", isa.name());
        }
    }

    #[test]
    fn text_layers_are_near(tokens in 1usize..40, heads in 1usize..4, size in 4usize..40, inner in 1usize..50, seed: u64) {
        let width = heads * size;
        let plain = BlockWeights::new(width, inner, heads, seed);
        let x = noise(seed ^ 21, tokens * width);
        let mask: Vec<f32> = (0..tokens).map(|i| if i > 0 && (seed >> (i % 60)) & 1 == 1 { -1e4 } else { 0.0 }).collect();
        let input = rows(&x, width);
        let first = norm(&sum(&input, &plain.attend(&input, |_, _, j| f64::from(mask[j]))), &plain.first);
        let expected = norm(&sum(&first, &plain.feed_forward(&first)), &plain.second);
        for isa in Isa::available() {
            for (int8, bound) in [(false, 2e-5), (true, 0.15)] {
                let [qkv, output, inner, outer] = plain.linears(isa, int8);
                let [attention_norm, norm] = plain.norms();
                let layers = TransformerLayers { qkv, output, attention_norm, inner, outer, norm };
                let mut y = x.clone();
                TransformerLayer::new(heads, layers).unwrap().run(&mut y, &mask, &mut Workspace::new(1)).unwrap();
                let (error, size) = compared(&y, &expected);
                prop_assert!(error <= bound * (1.0 + size), "{} int8 {int8}: {error} of {size}", isa.name());
            }
        }
    }

    #[test]
    fn mergings_are_near(down in 1usize..9, across in 1usize..9, channels in 1usize..20, n in 1usize..40, seed: u64) {
        let (height, width, k) = (2 * down, 2 * across, 4 * channels);
        let x = noise(seed, height * width * channels);
        let (w, norms) = (noise(seed ^ 1, n * k), (noise(seed ^ 2, k), noise(seed ^ 3, k)));
        let at = |y: usize, column: usize| &x[(y * width + column) * channels..][..channels];
        let gathered = |token: usize| {
            let (y, c) = (token / across * 2, token % across * 2);
            [at(y, c), at(y + 1, c), at(y, c + 1), at(y + 1, c + 1)].concat().iter().map(|x| f64::from(*x)).collect()
        };
        let expected = linear(&norm(&(0..down * across).map(gathered).collect(), &norms), &w, &[]);
        for isa in Isa::available() {
            let own = Norm::new(norms.0.clone(), norms.1.clone(), 1e-5);
            let merge = PatchMerge::new(height, width, own, Linear::f32(isa, n, k, &w, &[]).unwrap()).unwrap();
            let (mut y, mut z) = (vec![0.0; down * across * n], vec![0.0; down * across * n]);
            merge.run(&x, &mut y, &mut Workspace::new(1)).unwrap();
            merge.run(&x, &mut z, &mut Workspace::new(2)).unwrap();
            prop_assert!(y == z);
            let (error, size) = compared(&y, &expected);
            prop_assert!(error <= 2e-5 * (1.0 + size), "{}: {error} of {size}", isa.name());
        }
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let shape = SwinShape { height: 8, width: 8, window: 4, shift: 2, heads: 2 };
    let plain = BlockWeights::new(20, 30, 2, 1);
    let table = noise(2, 49 * 2);
    for isa in Isa::available() {
        let block = swin_block(&plain, shape, &table, isa, true);
        for at in [0, 20 * 63 + 19, 640] {
            for bad in [f32::NAN, f32::INFINITY, 3e38] {
                let mut x = noise(3, 64 * 20);
                x[at] = bad;
                assert!(block.run(&mut x, &mut Workspace::new(1)).is_err(), "{} at {at}: {bad}", isa.name());
            }
        }
        for fill in [0.0, 1e-40, 1e-20, 1e15] {
            let mut x = vec![fill; 64 * 20];
            block.run(&mut x, &mut Workspace::new(1)).unwrap();
            assert!(x.iter().all(|x| x.is_finite()), "{}: {fill}", isa.name());
        }
        assert!(block.run(&mut [0.0; 20], &mut Workspace::new(1)).is_err());
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let plain = BlockWeights::new(20, 30, 2, 1);
    let table = noise(2, 49 * 2);
    let shape = SwinShape { height: 8, width: 8, window: 4, shift: 2, heads: 2 };
    let build = |shape: SwinShape, isa: Isa, table: &[f32]| {
        let [qkv, output, inner, outer] = plain.linears(isa, false);
        let [norm_before, norm_after] = plain.norms();
        SwinBlock::new(shape, SwinLayers { norm_before, qkv, output, norm_after, inner, outer }, table)
    };
    assert!(build(shape, Isa::Scalar, &table).is_ok());
    assert!(build(SwinShape { height: 9, ..shape }, Isa::Scalar, &table).is_err());
    assert!(build(SwinShape { shift: 4, ..shape }, Isa::Scalar, &table).is_err());
    assert!(build(SwinShape { heads: 3, ..shape }, Isa::Scalar, &table).is_err());
    assert!(build(shape, Isa::Scalar, &table[1..]).is_err());
}
