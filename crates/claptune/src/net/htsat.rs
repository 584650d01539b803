//! HTSAT, the audio tower of CLAP: a log-mel patch as an image, a Swin transformer over it, and a projection.
//!
//! It brings [N, 1, frames, mels] log-mel, or [N, 4, frames, mels] for a fused model (the whole clip shrunk, then three
//! crops; four times the same for a clip of one patch), to unit embeddings [N, output]. A fused model always takes its
//! fusion branch: that is what `transformers` computes for a clip alone, whose `is_longer` its feature extractor sets
//! to true whatever the clip's length.
//!
//! Architecture: Chen et al., arXiv 2202.00874, and Wu et al., arXiv 2211.06687. Reference: transformers 5.23,
//! models/clap/modeling_clap.py, `ClapAudioEncoder`, `ClapAudioPatchEmbed`, `ClapAudioAFFBlock`.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::{relu, sigmoid};

use super::norm::{EPSILON, Norm};
use super::observer::{ActivationObserver, ignore_activations};
use super::projection::{Projection, ProjectionConfig};
use super::resize::resize;
use super::swin::{Stage, StageConfig};
use crate::export::Tracer;

/// Channels of a fused model's input: the whole clip and three crops.
const FUSED_CHANNELS: usize = 4;
/// A crop's patch is as wide as three of the whole clip's.
const CROPS: usize = 3;

/// Sizes of the tower.
#[derive(Clone, Debug, PartialEq)]
pub struct HtsatConfig {
    /// Frames of a log-mel patch.
    pub frames: usize,
    /// Mel bands of a frame.
    pub mels: usize,
    /// Side of the square image that the patch is folded into.
    pub image: usize,
    /// Height and width of the image's patches, which become tokens.
    pub patch: [usize; 2],
    /// Pixels from one patch to the next.
    pub stride: [usize; 2],
    /// Channels of the first stage; each stage has twice those of the one before.
    pub channels: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage.
    pub heads: Vec<usize>,
    /// Side of an attention window, in tokens.
    pub window: usize,
    /// Width between the two linears of a block, in channels.
    pub inner_ratio: f64,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether tokens are normalised before the first stage.
    pub patch_norm: bool,
    /// Channels inside the fusion block; none for an unfused model.
    pub fusion: Option<usize>,
    /// Epsilon of the blocks' norms.
    pub epsilon: f64,
    /// The projection; its input has the last stage's channels.
    pub projection: ProjectionConfig,
}

impl HtsatConfig {
    /// How many pieces of the patch's time lie above each other in the image.
    fn fold(&self) -> usize {
        self.image / self.mels
    }

    /// Tokens down and across in the first stage.
    pub fn grid(&self) -> [usize; 2] {
        [self.image / self.stride[0], self.image / self.stride[1]]
    }

    /// Channels of the input.
    pub fn input_channels(&self) -> usize {
        if self.fusion.is_some() { FUSED_CHANNELS } else { 1 }
    }

    /// Sizes of stage `i`, from 0.
    pub fn stage(&self, i: usize) -> StageConfig {
        let channels = self.channels << i;
        StageConfig {
            grid: self.grid().map(|side| side >> i),
            channels,
            depth: self.depths[i],
            heads: self.heads[i],
            window: self.window,
            inner: (self.inner_ratio * channels as f64) as usize,
            qkv_bias: self.qkv_bias,
            epsilon: self.epsilon,
            merge: i + 1 < self.depths.len(),
        }
    }

    /// The tower with zeros for weights, to be loaded. The sizes must be free of [`faults`](Self::faults).
    pub fn init(&self, device: &Device) -> Htsat {
        let channels = self.channels;
        let patch_norm = self.patch_norm.then(|| Norm::new(channels, EPSILON, device));
        let stages = (0..self.depths.len()).map(|i| self.stage(i).init(device));
        Htsat {
            batch_norm: BatchNormConfig::new(self.mels).init(device),
            patch: self.conv(1, device),
            fusion: self.fusion.map(|inner| Fusion {
                crops: self.conv(CROPS, device),
                local: Squeeze::new(channels, inner, device),
                global: Squeeze::new(channels, inner, device),
            }),
            patch_norm,
            stages: stages.collect(),
            norm: Norm::new(channels << (self.depths.len() - 1), EPSILON, device),
            projection: self.projection.init(device),
            image: self.image,
            fold: self.fold(),
        }
    }

    /// The convolution that makes tokens of an image, `widen` times as wide as usual.
    fn conv(&self, widen: usize, device: &Device) -> Conv2d {
        let ([down, across], [patch_height, patch_width]) = (self.stride, self.patch);
        let (y, x) = ((patch_height - down) / 2, (patch_width - across) / 2);
        Conv2dConfig::new([1, self.channels], [patch_height, widen * patch_width])
            .with_stride([down, widen * across])
            .with_padding(PaddingConfig2d::Explicit(y, x, y, x))
            .with_initializer(Initializer::Zeros)
            .init(device)
    }

    /// Why this can't be built, or would not be what the reference computes, in the words of a `ClapModel`'s audio_config;
    /// empty if it can.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.size_faults();
        if faults.is_empty() {
            faults.extend(self.image_faults());
            faults.extend(self.stage_faults());
        }
        faults
    }

    fn size_faults(&self) -> Vec<String> {
        // Walls against absurd sizes: the largest published tower has half of these.
        let ([down, across], [patch_height, patch_width]) = (self.stride, self.patch);
        let sizes = [
            ("spec_size", self.image),
            ("num_mel_bins", self.mels),
            ("window_size", self.window),
            ("patch_embeds_hidden_size", self.channels),
            ("patch_stride", down),
            ("patch_stride", across),
            ("patch_size", patch_height),
            ("patch_size", patch_width),
            ("projection_dim", self.projection.output),
        ];
        let mut faults = vec![];
        for (key, size) in sizes.iter().filter(|(_, size)| !(1..=4096).contains(size)) {
            faults.push(format!("{key} is {size}; 1 to 4096 are possible"));
        }
        let mut need = |holds: bool, text: String| {
            if !holds {
                faults.push(text);
            }
        };
        let (depths, heads) = (&self.depths, &self.heads);
        need(
            depths.len() == heads.len(),
            format!("depths {depths:?} and num_attention_heads {heads:?} differ in length"),
        );
        need((1..=8).contains(&depths.len()), format!("depths {depths:?} are {}; 1 to 8 are possible", depths.len()));
        need(depths.iter().all(|d| (1..=64).contains(d)), format!("depths are {depths:?}; 1 to 64 each are possible"));
        let ratio = self.inner_ratio;
        need(ratio > 0.0 && ratio <= 64.0, format!("mlp_ratio is {ratio}; above 0 to 64 is possible"));
        need(self.fusion != Some(0), "aff_block_r leaves the fusion block no channels".into());
        faults
    }

    fn stage_faults(&self) -> Vec<String> {
        let mut faults = vec![];
        let (last, window) = (self.depths.len() - 1, self.window);
        for (i, &heads) in self.heads.iter().enumerate() {
            let (grid, channels) = (self.grid().map(|side| side >> i), self.channels << i);
            if heads == 0 || channels % heads != 0 {
                faults.push(format!(
                    "num_attention_heads[{i}] is {heads} heads for the {channels} channels of stage {i}"
                ));
            }
            let even = i == last || self.grid().iter().all(|side| (side >> i).is_multiple_of(2));
            if grid.iter().any(|side| *side == 0 || side % window != 0) || !even {
                faults.push(format!("window_size {window} does not tile the {grid:?} tokens of stage {i}"));
            }
        }
        let width = self.channels << last;
        if self.projection.input != width {
            faults.push(format!("hidden_size is {}, the last stage has {width} channels", self.projection.input));
        }
        faults
    }

    fn image_faults(&self) -> Vec<String> {
        let (image, mels, frames) = (self.image, self.mels, self.frames);
        let mut faults = vec![];
        let fold = self.fold();
        if fold == 0 || image % fold != 0 || mels > image / fold || frames > image * fold {
            faults.push(format!(
                "a patch of {frames} frames of {mels} mels does not fold into an image of spec_size {image}"
            ));
        }
        for axis in 0..2 {
            let (patch, stride) = (self.patch[axis], self.stride[axis]);
            if patch < stride
                || image % stride != 0
                || (image + (patch - stride) / 2 * 2).saturating_sub(patch) / stride + 1 != image / stride
            {
                faults.push(format!("patch_size {patch} every patch_stride {stride} does not tile spec_size {image}"));
            }
        }
        faults
    }
}

/// A patch as tokens, stages, mean and projection.
#[derive(Module, Debug)]
pub struct Htsat {
    batch_norm: BatchNorm,
    patch: Conv2d,
    fusion: Option<Fusion>,
    patch_norm: Option<Norm>,
    stages: Vec<Stage>,
    norm: Norm,
    projection: Projection,
    image: usize,
    fold: usize,
}

impl Htsat {
    /// [N, channels, frames, mels] to unit embeddings [N, output].
    pub fn forward(&self, mel: Tensor<4>) -> Tensor<2> {
        self.forward_observed(mel, &mut ignore_activations)
    }

    /// The same, while `observer` sees what goes into the stages' linears.
    pub fn forward_observed(&self, mel: Tensor<4>, observer: &mut ActivationObserver) -> Tensor<2> {
        // The norm is over mel bands, which must stand where channels do.
        let mel = self.batch_norm.forward(mel.swap_dims(1, 3)).swap_dims(1, 3);
        let image = self.fold(mel);
        let [n, images, height, width] = image.dims();
        let whole = self.patch.forward(image.clone().narrow(1, 0, 1));
        let tokens = match &self.fusion {
            Some(fusion) => {
                let crops = image.narrow(1, 1, images - 1).reshape([n * (images - 1), 1, height, width]);
                fusion.forward(whole, crops)
            }
            None => whole,
        };
        let [_, channels, down, across] = tokens.dims();
        let mut x = tokens.reshape([n, channels, down * across]).swap_dims(1, 2);
        if let Some(norm) = &self.patch_norm {
            x = norm.forward(x);
        }
        for stage in &self.stages {
            x = stage.forward(x, observer);
        }
        // The reference groups tokens by frequency and then takes the mean of all: the order does not matter.
        let x = self.norm.forward(x).mean_dim(1);
        let [n, _, channels] = x.dims();
        self.projection.forward(x.reshape([n, channels]))
    }

    /// Frames become columns, and pieces of the time line are laid above each other: [N, C, image, image].
    fn fold(&self, mut mel: Tensor<4>) -> Tensor<4> {
        let (width, height) = (self.image * self.fold, self.image / self.fold);
        if mel.dims()[2] < width {
            mel = resize(&mel, 2, width);
        }
        if mel.dims()[3] < height {
            mel = resize(&mel, 3, height);
        }
        let [n, channels, _, _] = mel.dims();
        mel.reshape([n, channels * self.fold, self.image, height])
            .swap_dims(2, 3)
            .reshape([n, channels, self.image, self.image])
    }

    /// What is exported: one clip's patch in, its embedding out.
    pub fn trace(&self, config: &HtsatConfig, tracer: &mut Tracer) {
        let mel = tracer.float_input("mel", [1, config.input_channels(), config.frames, config.mels]);
        tracer.output("embedding", &self.forward(mel));
    }
}

/// Attentional feature fusion: how much of the whole clip and how much of its crops, for each token and channel.
#[derive(Module, Debug)]
pub struct Fusion {
    crops: Conv2d,
    local: Squeeze,
    global: Squeeze,
}

impl Fusion {
    /// Tokens of the whole clip [N, C, h, w] and crops [N * 3, 1, height, width] to tokens [N, C, h, w].
    fn forward(&self, whole: Tensor<4>, crops: Tensor<4>) -> Tensor<4> {
        let [n, channels, height, width] = whole.dims();
        let crops = self.crops.forward(crops);
        let [_, _, _, narrow] = crops.dims();
        // Side by side, and zeros for the columns that are left.
        let mut side = crops.reshape([n, CROPS, channels, height, narrow]).permute([0, 2, 3, 1, 4]).reshape([
            n,
            channels,
            height,
            CROPS * narrow,
        ]);
        if CROPS * narrow < width {
            let rest = Tensor::zeros([n, channels, height, width - CROPS * narrow], &side.device());
            side = Tensor::cat(vec![side, rest], 3);
        }
        let sum = whole.clone() + side.clone();
        let mean = sum.clone().mean_dim(3).mean_dim(2);
        let share = sigmoid(self.local.forward(sum) + self.global.forward(mean));
        let rest = share.clone().mul_scalar(-1.0).add_scalar(1.0);
        (whole * share + side * rest).mul_scalar(2.0)
    }
}

/// Two 1x1 convolutions with batch norms, through fewer channels.
#[derive(Module, Debug)]
pub struct Squeeze {
    reduce: Conv2d,
    reduce_norm: BatchNorm,
    expand: Conv2d,
    expand_norm: BatchNorm,
}

impl Squeeze {
    fn new(channels: usize, inner: usize, device: &Device) -> Self {
        let conv = |from, to| Conv2dConfig::new([from, to], [1, 1]).with_initializer(Initializer::Zeros).init(device);
        Self {
            reduce: conv(channels, inner),
            reduce_norm: BatchNormConfig::new(inner).init(device),
            expand: conv(inner, channels),
            expand_norm: BatchNormConfig::new(channels).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = relu(self.reduce_norm.forward(self.reduce.forward(x)));
        self.expand_norm.forward(self.expand.forward(x))
    }
}
