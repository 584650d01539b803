//! YAMNet: a MobileNet (version 1) over log-mel patches of 0.96 s, giving the probabilities of AudioSet's 521 classes.
//!
//! [N, 1, 96, 64] log-mel (frames by bands) to [N, 521] probabilities, each class on its own (sigmoid). Batch
//! normalisation has fixed statistics and no scale here; [`crate::checkpoint`] folds it into the convolutions, so the
//! module has none.
//!
//! Architecture: tensorflow/models, research/audioset/yamnet (Apache-2.0).

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::{relu, sigmoid};

/// Frames of a patch.
pub const FRAMES: usize = 96;
/// Mel bands of a frame.
pub const BANDS: usize = 64;
/// AudioSet classes.
pub const CLASSES: usize = 521;
/// Epsilon of the batch normalisations.
pub const BATCH_NORM_EPSILON: f32 = 1e-4;

/// Widths of the network; the published one is [`YamnetConfig::published`].
#[derive(Clone, Debug)]
pub struct YamnetConfig {
    /// Channels after the first convolution.
    pub stem: usize,
    /// Stride and output channels of each separable convolution.
    pub blocks: Vec<(usize, usize)>,
    /// Classes.
    pub classes: usize,
}

impl YamnetConfig {
    /// YAMNet as published.
    pub fn published() -> Self {
        let mut blocks = vec![(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)];
        blocks.extend([(1, 512); 5]);
        blocks.extend([(2, 1024), (1, 1024)]);
        Self { stem: 32, blocks, classes: CLASSES }
    }

    /// The network with zeros for weights, to be loaded.
    pub fn init(&self, device: &Device) -> Yamnet {
        let mut blocks = vec![];
        let mut channels = self.stem;
        for &(stride, width) in &self.blocks {
            blocks.push(Separable {
                depthwise: conv(channels, channels, 3, stride, channels, device),
                pointwise: conv(channels, width, 1, 1, 1, device),
            });
            channels = width;
        }
        Yamnet {
            stem: conv(1, self.stem, 3, 2, 1, device),
            blocks,
            classes: LinearConfig::new(channels, self.classes).with_initializer(Initializer::Zeros).init(device),
        }
    }
}

/// TensorFlow's "same" padding. All that is halved here has even size (96 x 64 down to 6 x 4), and then the one row
/// and column that is missing goes below and to the right.
fn conv(from: usize, to: usize, kernel: usize, stride: usize, groups: usize, device: &Device) -> Conv2d {
    let padding = match (kernel, stride) {
        (1, _) => PaddingConfig2d::Valid,
        (_, 1) => PaddingConfig2d::Explicit(1, 1, 1, 1),
        _ => PaddingConfig2d::Explicit(0, 0, 1, 1),
    };
    Conv2dConfig::new([from, to], [kernel, kernel])
        .with_stride([stride, stride])
        .with_groups(groups)
        .with_padding(padding)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// A 3x3 convolution of each channel by itself, then a 1x1 that mixes them.
#[derive(Module, Debug)]
pub struct Separable {
    depthwise: Conv2d,
    pointwise: Conv2d,
}

/// The network.
#[derive(Module, Debug)]
pub struct Yamnet {
    stem: Conv2d,
    blocks: Vec<Separable>,
    classes: Linear,
}

impl Yamnet {
    /// [N, 1, 96, 64] log-mel to [N, classes] probabilities.
    pub fn forward(&self, mel: Tensor<4>) -> Tensor<2> {
        let mut x = relu(self.stem.forward(mel));
        for block in &self.blocks {
            x = relu(block.depthwise.forward(x));
            x = relu(block.pointwise.forward(x));
        }
        let [n, channels, _, _] = x.dims();
        let x = x.mean_dim(3).mean_dim(2).reshape([n, channels]);
        sigmoid(self.classes.forward(x))
    }
}
