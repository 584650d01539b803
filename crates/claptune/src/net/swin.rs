//! The stages of a Swin transformer: attention inside windows that every second block shifts.
//!
//! Tokens [N, height * width, channels] of an image become the same after a stage's blocks, and after its merging a
//! quarter of the tokens with twice the channels. [`crate::net::htsat`] refuses sizes that windows don't tile, so
//! nothing is padded.
//!
//! Architecture: Liu et al., arXiv 2103.14030. Reference: transformers 5.23, models/clap/modeling_clap.py,
//! `ClapAudioSelfAttention`, `ClapAudioLayer`, `ClapAudioPatchMerging`.

use burn::module::Param;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::norm::{EPSILON, Norm};
use super::observer::ActivationObserver;
use super::ops::{Order, gelu, softmax};

/// Added to the score of two tokens that the shift brought together from opposite edges of the image.
const SHIFT_MASK: f32 = -100.0;

/// Sizes of a stage.
#[derive(Clone, Debug)]
pub struct StageConfig {
    /// Tokens down and across.
    pub grid: [usize; 2],
    /// Channels of a token.
    pub channels: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a window, in tokens.
    pub window: usize,
    /// Width between the two linears of a block.
    pub inner: usize,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Epsilon of the blocks' norms.
    pub epsilon: f64,
    /// Whether a merging follows.
    pub merge: bool,
}

impl StageConfig {
    /// The stage with zeros for weights, to be loaded.
    pub fn init(&self, device: &Device) -> Stage {
        Stage {
            blocks: (0..self.depth).map(|i| self.block(i, device)).collect(),
            merge: self.merge.then(|| Merge {
                // The reference builds this norm without the configured epsilon, so it has PyTorch's.
                norm: Norm::new(4 * self.channels, EPSILON, device),
                reduction: linear(4 * self.channels, 2 * self.channels, false, device),
                height: self.grid[0],
                width: self.grid[1],
            }),
        }
    }

    /// By how many tokens the windows of block `index` are shifted, down and across.
    pub fn shift(&self, index: usize) -> usize {
        // A window that is the whole image has nowhere to go.
        if index.is_multiple_of(2) || self.grid[0].min(self.grid[1]) <= self.window { 0 } else { self.window / 2 }
    }

    fn block(&self, index: usize, device: &Device) -> Block {
        let (channels, [height, width]) = (self.channels, self.grid);
        let norm = || Norm::new(channels, self.epsilon, device);
        let square = (2 * self.window - 1).pow(2);
        Block {
            norm_before: norm(),
            attention: Attention {
                query: linear(channels, channels, self.qkv_bias, device),
                key: linear(channels, channels, self.qkv_bias, device),
                value: linear(channels, channels, self.qkv_bias, device),
                output: linear(channels, channels, true, device),
                position_bias: Initializer::Zeros.init([square, self.heads], device),
                heads: self.heads,
                window: self.window,
            },
            norm_after: norm(),
            inner: linear(channels, self.inner, true, device),
            outer: linear(self.inner, channels, true, device),
            height,
            width,
            shift: self.shift(index),
        }
    }
}

fn linear(from: usize, to: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(from, to).with_bias(bias).with_initializer(Initializer::Zeros).init(device)
}

/// A linear over all rows at once. Left to itself Burn makes a product for each window, and of the weight's gradient as many
/// matrices, to be summed.
fn dense(linear: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [n, rows, width] = x.dims();
    let y = linear.forward(x.reshape([n * rows, width]));
    let [_, width] = y.dims();
    y.reshape([n, rows, width])
}

/// Blocks, then the merging.
#[derive(Module, Debug)]
pub struct Stage {
    blocks: Vec<Block>,
    merge: Option<Merge>,
}

impl Stage {
    /// [N, height * width, channels] to the next stage's tokens; `observer` sees what goes into the linears.
    pub fn forward(&self, mut x: Tensor<3>, observer: &mut ActivationObserver) -> Tensor<3> {
        for block in &self.blocks {
            x = block.forward(x, observer);
        }
        match &self.merge {
            Some(merge) => merge.forward(x, observer),
            None => x,
        }
    }
}

/// Attention inside windows, then two linears, each with a norm before it and a residual.
#[derive(Module, Debug)]
pub struct Block {
    norm_before: Norm,
    attention: Attention,
    norm_after: Norm,
    inner: Linear,
    outer: Linear,
    height: usize,
    width: usize,
    shift: usize,
}

impl Block {
    fn forward(&self, x: Tensor<3>, observer: &mut ActivationObserver) -> Tensor<3> {
        let x = x.clone() + self.attend(self.norm_before.forward(x), observer);
        let tokens = self.norm_after.forward(x.clone());
        observer(&[&self.inner], &tokens);
        let inner = gelu(dense(&self.inner, tokens));
        observer(&[&self.outer], &inner);
        x + dense(&self.outer, inner)
    }

    fn attend(&self, x: Tensor<3>, observer: &mut ActivationObserver) -> Tensor<3> {
        let [n, tokens, channels] = x.dims();
        let square = self.attention.window.pow(2);
        let device = x.device();
        let order = Order::new(&self.windows(), &device);
        let windows = order.apply(x).reshape([n * tokens / square, square, channels]);
        let shift_mask = (self.shift > 0).then(|| self.shift_mask(&device));
        let mixed = self.attention.forward(windows, shift_mask, observer);
        order.invert(mixed.reshape([n, tokens, channels]))
    }

    /// The tokens of an image window by window, after the image was moved up and to the left by the shift.
    fn windows(&self) -> Vec<usize> {
        let (window, across) = (self.attention.window, self.width / self.attention.window);
        let token = |place: usize| {
            let (index, inside) = (place / window.pow(2), place % window.pow(2));
            let y = index / across * window + inside / window + self.shift;
            let x = index % across * window + inside % window + self.shift;
            y % self.height * self.width + x % self.width
        };
        (0..self.height * self.width).map(token).collect()
    }

    /// For each window 0 where two of its tokens were neighbours before the shift and [`SHIFT_MASK`] where not: [W, 1, T, T].
    fn shift_mask(&self, device: &Device) -> Tensor<4> {
        let window = self.attention.window;
        // Along an axis: windows that the shift left whole, then the two parts of the last one.
        let region =
            |at: usize, length: usize| usize::from(at >= length - window) + usize::from(at >= length - self.shift);
        let origin = |window_index: usize, token: usize| {
            let across = self.width / window;
            let y = window_index / across * window + token / window;
            let x = window_index % across * window + token % window;
            (region(y, self.height), region(x, self.width))
        };
        let (windows, tokens) = (self.height * self.width / window.pow(2), window.pow(2));
        let mut values = Vec::with_capacity(windows * tokens * tokens);
        for w in 0..windows {
            for i in 0..tokens {
                values.extend((0..tokens).map(|j| if origin(w, i) == origin(w, j) { 0.0 } else { SHIFT_MASK }));
            }
        }
        Tensor::from_data(TensorData::new(values, [windows, 1, tokens, tokens]), device)
    }
}

/// Attention with a bias for each head and each distance of two tokens.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    position_bias: Param<Tensor<2>>,
    heads: usize,
    window: usize,
}

impl Attention {
    /// Windows [N * W, T, channels] and what their tokens' scores differ by, [W, 1, T, T], to the same shape.
    fn forward(&self, x: Tensor<3>, shift_mask: Option<Tensor<4>>, observer: &mut ActivationObserver) -> Tensor<3> {
        observer(&[&self.query, &self.key, &self.value], &x);
        let [n, tokens, channels] = x.dims();
        let size = channels / self.heads;
        let heads = |x: Tensor<3>| x.reshape([n, tokens, self.heads, size]).swap_dims(1, 2);
        let query = heads(dense(&self.query, x.clone())).mul_scalar((size as f64).powf(-0.5));
        let (key, value) = (heads(dense(&self.key, x.clone())), heads(dense(&self.value, x)));
        let mut scores = query.matmul(key.swap_dims(2, 3)) + self.bias();
        if let Some(shift_mask) = shift_mask {
            let (shape, shift_mask) = (scores.dims(), shift_mask.unsqueeze::<5>());
            let windows = shift_mask.dims()[1];
            // Of all images at once.
            scores = (scores.reshape([n / windows, windows, self.heads, tokens, tokens]) + shift_mask).reshape(shape);
        }
        let mixed = softmax(scores).matmul(value).swap_dims(1, 2).reshape([n, tokens, channels]);
        observer(&[&self.output], &mixed);
        dense(&self.output, mixed)
    }

    /// The table's rows for every pair of tokens of a window: [1, heads, T, T].
    fn bias(&self) -> Tensor<4> {
        let (window, tokens) = (self.window, self.window.pow(2));
        let row = |i: usize, j: usize| {
            let down = i / window + window - 1 - j / window;
            let across = i % window + window - 1 - j % window;
            (down * (2 * window - 1) + across) as i64
        };
        let rows: Vec<i64> = (0..tokens * tokens).map(|pair| row(pair / tokens, pair % tokens)).collect();
        let table = self.position_bias.val();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [tokens * tokens]), &table.device());
        table.select(0, rows).swap_dims(0, 1).reshape([1, self.heads, tokens, tokens])
    }
}

/// Four neighbours become one token of twice the channels.
#[derive(Module, Debug)]
pub struct Merge {
    norm: Norm,
    reduction: Linear,
    height: usize,
    width: usize,
}

impl Merge {
    fn forward(&self, x: Tensor<3>, observer: &mut ActivationObserver) -> Tensor<3> {
        let [n, tokens, channels] = x.dims();
        // The four stand column by column: (0, 0), (1, 0), (0, 1), (1, 1), as (row, column).
        let x = x.reshape([n, self.height / 2, 2, self.width / 2, 2, channels]).permute([0, 1, 3, 4, 2, 5]).reshape([
            n,
            tokens / 4,
            4 * channels,
        ]);
        let x = self.norm.forward(x);
        observer(&[&self.reduction], &x);
        dense(&self.reduction, x)
    }
}
