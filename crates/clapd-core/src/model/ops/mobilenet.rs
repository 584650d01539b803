//! A MobileNet over a log-mel patch, as operators: YAMNet's layers.
//!
//! Between the first and the last the image is `[1, pixels, channels]`, row by row.
//! Batch norms are inside the weights: when nothing is trained they are a factor and a summand of a channel.
//! Where the stride is 2 nothing is padded above or to the left, as in TensorFlow's "same" for even sizes.
//!
//! Architecture: Howard et al., arXiv 1704.04861; tensorflow/models, research/audioset/yamnet.

use anyhow::{Result, ensure};
use clapd_kernels::{Epilogue, Linear, SeparableBlock, Workspace};
use tract_nnef::internal::*;

use super::OpParams;
use super::schema::{Field, OpSpec, PackedLayer, Signature};

/// Frames or mels of a patch: YAMNet has 96 and 64.
const MAX_SIDE: usize = 4096;
/// Numbers in a tensor that a run makes: 98,304 at most in YAMNet.
const MAX_NUMBERS: usize = 1 << 24;
/// Side of the kernel of the first convolution.
const SIDE: usize = 3;

/// A 3x3 convolution with a stride of 2, then ReLU.
pub(super) static STEM: OpSpec = OpSpec {
    name: "clapd_mobilenet_stem",
    inputs: &["mel"],
    fields: &[Field::Size("frames"), Field::Size("mels"), Field::Linear("kernel")],
    signature: |params| {
        let (sides, channels) = (sides(params, "frames", "mels")?, params.matrix("kernel_weight")?[0]);
        ensure!(sides.iter().all(|side| side % 2 == 0), "a patch of {sides:?} can't be halved");
        let [frames, mels] = sides;
        Ok(Signature {
            inputs: vec![(f32::datum_type(), [1, 1, frames, mels].map(Some).to_vec())],
            output: image(frames * mels / 4, channels)?,
        })
    },
    pack: |params, compute| {
        let kernel = params.linear("kernel", compute.isa())?;
        ensure!(kernel.k() == SIDE * SIDE, "a kernel takes {} numbers; {} are expected", kernel.k(), SIDE * SIDE);
        Ok(Box::new(Stem { sides: sides(params, "frames", "mels")?, kernel }))
    },
};

/// A 3x3 convolution of each channel by itself, then a linear; ReLU after each.
pub(super) static SEPARABLE_BLOCK: OpSpec = OpSpec {
    name: "clapd_separable_block",
    inputs: &["pixels"],
    fields: &[
        Field::Size("height"),
        Field::Size("width"),
        Field::Size("stride"),
        // [9, channels], the kernel row by row; and [channels].
        Field::Table("depthwise_weight"),
        Field::Table("depthwise_bias"),
        Field::Linear("pointwise"),
    ],
    signature: |params| {
        let [height, width] = sides(params, "height", "width")?;
        let (stride, [n, k]) = (params.size("stride", 1, 2)?, params.matrix("pointwise_weight")?);
        let input = image(height * width, k)?;
        Ok(Signature {
            inputs: vec![(f32::datum_type(), input)],
            output: image((height / stride) * (width / stride), n)?,
        })
    },
    pack: |params, compute| {
        let (pointwise, stride) = (params.linear("pointwise", compute.isa())?, params.size("stride", 1, 2)?);
        let taps = params.floats("depthwise_weight", SIDE * SIDE * pointwise.k())?;
        let bias = params.floats("depthwise_bias", pointwise.k())?;
        let channels = pointwise.n();
        let block = SeparableBlock::new(sides(params, "height", "width")?, stride, taps, bias, pointwise)?;
        Ok(Box::new(Separable { block, channels }))
    },
};

/// The mean over all pixels, a linear, and a sigmoid of each class.
pub(super) static HEAD: OpSpec = OpSpec {
    name: "clapd_mobilenet_head",
    inputs: &["pixels"],
    fields: &[Field::Size("count"), Field::Linear("classes")],
    signature: |params| {
        let [classes, channels] = params.matrix("classes_weight")?;
        let pixels = params.size("count", 1, MAX_NUMBERS)?;
        Ok(Signature {
            inputs: vec![(f32::datum_type(), image(pixels, channels)?)],
            output: vec![Some(1), Some(classes)],
        })
    },
    pack: |params, compute| Ok(Box::new(Head(params.linear("classes", compute.isa())?))),
};

fn sides(params: &OpParams, height: &str, width: &str) -> Result<[usize; 2]> {
    Ok([params.size(height, 1, MAX_SIDE)?, params.size(width, 1, MAX_SIDE)?])
}

/// The shape of an image's pixels.
fn image(pixels: usize, channels: usize) -> Result<Vec<Option<usize>>> {
    ensure!(
        pixels.checked_mul(channels).is_some_and(|n| n <= MAX_NUMBERS),
        "{pixels} pixels of {channels} channels; {MAX_NUMBERS} numbers are allowed"
    );
    Ok(vec![Some(1), Some(pixels), Some(channels)])
}

struct Stem {
    sides: [usize; 2],
    kernel: Linear,
}

impl PackedLayer for Stem {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let input = inputs[0].try_as_plain_ram()?;
        let mel = input.as_slice::<f32>()?;
        let [height, width] = self.sides;
        let pixels = height * width / 4;
        let mut places = Vec::with_capacity(pixels * SIDE * SIDE);
        for (y, x) in (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (y, x))) {
            for row in y..y + SIDE {
                let line = mel.get(row * width..(row + 1) * width);
                places.extend((x..x + SIDE).map(|x| line.and_then(|line| line.get(x)).copied().unwrap_or(0.0)));
            }
        }
        let mut output = Tensor::zero::<f32>(&[1, pixels, self.kernel.n()])?;
        self.kernel.run(&places, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, Epilogue::Relu, workspace)?;
        Ok(output)
    }
}

struct Separable {
    block: SeparableBlock,
    channels: usize,
}

impl PackedLayer for Separable {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let mut output = Tensor::zero::<f32>(&[1, self.block.pixels(), self.channels])?;
        let pixels = inputs[0].try_as_plain_ram()?;
        self.block.run(pixels.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, workspace)?;
        Ok(output)
    }
}

struct Head(Linear);

impl PackedLayer for Head {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let input = inputs[0].try_as_plain_ram()?;
        let pixels = input.as_slice::<f32>()?;
        let mut mean = vec![0.0; self.0.k()];
        let count = pixels.len() / mean.len();
        for pixel in pixels.chunks_exact(mean.len()) {
            mean.iter_mut().zip(pixel).for_each(|(mean, x)| *mean += x);
        }
        mean.iter_mut().for_each(|mean| *mean /= count as f32);
        let mut classes = vec![0.0; self.0.n()];
        self.0.run(&mean, &mut classes, Epilogue::Store, workspace)?;
        classes.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
        Tensor::from_shape(&[1, classes.len()], &classes)
    }
}
