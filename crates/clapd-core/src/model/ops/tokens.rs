//! The beginning of HTSAT as one operator: from a log-mel patch to tokens.
//!
//! A fused model takes four patches: the whole clip shrunk, then three crops. For a clip of one patch all four are the same; they
//! are compared, so that none is computed twice.
//!
//! A mel band is scaled and shifted (the batch norm), resized bicubically, folded into a square image, and cut into patches
//! whose linear is the convolution. A fused model blends the tokens of the whole with those of its crops.
//! Defined by `claptune::net::htsat`; reference: transformers 5.23, models/clap/modeling_clap.py.

use anyhow::{Result, ensure};
use clapd_kernels::{Epilogue, Isa, Linear, Norm, Workspace, blend_rows, norm_rows};
use tract_nnef::internal::*;

use super::OpParams;
use super::image::{Image, PatchGrid};
use super::schema::{Field, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;

/// Crops of a fused model's input.
const CROPS: usize = 3;
/// Side of the image, and mels: 256 and 64 in every CLAP.
const MAX_SIDE: usize = 2048;
/// Frames: 1001 in every CLAP.
const MAX_FRAMES: usize = 1 << 17;
/// Side of a patch: 4 in every CLAP.
const MAX_PATCH: usize = 64;
/// Numbers in a tensor that a run makes: 393,216 in every CLAP.
const MAX_NUMBERS: usize = 1 << 24;

/// The operator.
pub(super) static HTSAT_TOKENS: OpSpec = OpSpec {
    name: "clapd_htsat_tokens",
    inputs: &["mel"],
    fields: &[
        Field::Size("frames"),
        Field::Size("mels"),
        Field::Size("image"),
        Field::Size("patch_height"),
        Field::Size("patch_width"),
        Field::Size("stride_height"),
        Field::Size("stride_width"),
        Field::Real("epsilon"),
        // Of each mel band.
        Field::Table("mel_scale"),
        Field::Table("mel_shift"),
        // A patch row by row, to channels.
        Field::Linear("patch"),
        // Perhaps none.
        Field::Norm("patch_norm"),
        // Of a fused model: patches three times as wide, and the two squeezes, their batch norms folded in.
        Field::Linear("crops"),
        Field::Linear("local_reduce"),
        Field::Linear("local_expand"),
        Field::Linear("global_reduce"),
        Field::Linear("global_expand"),
    ],
    signature: |params| {
        let sizes = Sizes::new(params)?;
        let channels = params.matrix("patch_weight")?[0];
        let tokens = sizes.whole().tokens();
        ensure!(
            tokens.checked_mul(channels).is_some_and(|n| n <= MAX_NUMBERS),
            "{tokens} tokens of {channels} channels; {MAX_NUMBERS} numbers are allowed"
        );
        let pictures = if params.has("crops_weight") { 1 + CROPS } else { 1 };
        let mel = [1, pictures, sizes.image.frames, sizes.image.mels];
        Ok(Signature {
            inputs: vec![(f32::datum_type(), mel.map(Some).to_vec())],
            output: vec![Some(1), Some(tokens), Some(channels)],
        })
    },
    pack: |params, compute| Ok(Box::new(HtsatTokens::new(params, compute)?)),
};

/// Sizes of the image and of its patches.
struct Sizes {
    image: Image,
    patch: [usize; 2],
    stride: [usize; 2],
}

impl Sizes {
    fn new(params: &OpParams) -> Result<Self> {
        let side = |name| params.size(name, 1, MAX_SIDE);
        let image = Image::new(params.size("frames", 1, MAX_FRAMES)?, side("mels")?, side("image")?)?;
        let short = |name| params.size(name, 1, MAX_PATCH);
        let patch = [short("patch_height")?, short("patch_width")?];
        let stride = [short("stride_height")?, short("stride_width")?];
        for (patch, stride) in patch.into_iter().zip(stride) {
            ensure!(
                stride <= patch && patch <= image.side,
                "patches of {patch} every {stride} of an image of {}",
                image.side
            );
        }
        let sizes = Self { image, patch, stride };
        for grid in [sizes.grid(1), sizes.grid(CROPS)] {
            let numbers = grid.tokens() * grid.patch_len();
            ensure!(numbers <= MAX_NUMBERS, "the patches have {numbers} numbers; {MAX_NUMBERS} are allowed");
        }
        Ok(sizes)
    }

    /// How the whole is cut.
    fn whole(&self) -> PatchGrid {
        self.grid(1)
    }

    /// How patches are cut that are `widen` times as wide.
    fn grid(&self, widen: usize) -> PatchGrid {
        let ([height, width], [down, across]) = (self.patch, self.stride);
        PatchGrid {
            side: self.image.side,
            patch: [height, widen * width],
            stride: [down, widen * across],
            padding: [(height - down) / 2, (width - across) / 2],
        }
    }
}

/// The operator, ready to run.
struct HtsatTokens {
    isa: Isa,
    image: Image,
    scale: Vec<f32>,
    shift: Vec<f32>,
    grid: PatchGrid,
    patch: Linear,
    norm: Option<Norm>,
    fusion: Option<Fusion>,
}

struct Fusion {
    grid: PatchGrid,
    crops: Linear,
    local: [Linear; 2],
    global: [Linear; 2],
}

impl HtsatTokens {
    fn new(params: &OpParams, compute: Compute) -> Result<Self> {
        let (sizes, isa) = (Sizes::new(params)?, compute.isa());
        let mels = sizes.image.mels;
        let patch = fitting(params, "patch", isa, None, sizes.whole().patch_len())?;
        let channels = patch.n();
        let norm = params.has("patch_norm_weight").then(|| params.norm("patch_norm", channels)).transpose()?;
        let fusion = params.has("crops_weight").then(|| Fusion::new(params, isa, &sizes, channels)).transpose()?;
        Ok(Self {
            isa,
            scale: params.floats("mel_scale", mels)?.to_vec(),
            shift: params.floats("mel_shift", mels)?.to_vec(),
            grid: sizes.whole(),
            image: sizes.image,
            patch,
            norm,
            fusion,
        })
    }

    /// A log-mel patch as an image.
    fn picture(&self, mel: &[f32]) -> Vec<f32> {
        let bands = self.scale.iter().zip(&self.shift);
        let rows = mel.chunks_exact(self.scale.len());
        let scaled = rows.flat_map(|row| row.iter().zip(bands.clone()).map(|(x, (scale, shift))| x * scale + shift));
        self.image.fold(scaled.collect())
    }
}

/// A linear that must take `k` floats and, where it is known, give `n`.
fn fitting(params: &OpParams, name: &str, isa: Isa, n: Option<usize>, k: usize) -> Result<Linear> {
    let linear = params.linear(name, isa)?;
    let n = n.unwrap_or(linear.n());
    ensure!(
        (linear.n(), linear.k()) == (n, k),
        "{name} is a linear of {} to {} instead of {k} to {n}",
        linear.k(),
        linear.n()
    );
    Ok(linear)
}

impl Fusion {
    fn new(params: &OpParams, isa: Isa, sizes: &Sizes, channels: usize) -> Result<Self> {
        let grid = sizes.grid(CROPS);
        let ([height, width], [down, across]) = (sizes.whole().size(), grid.size());
        ensure!(
            height == down && CROPS * across <= width,
            "crops of {down} x {across} tokens don't fit beside each other into {height} x {width}"
        );
        let squeeze = |reduce, expand| -> Result<[Linear; 2]> {
            let reduce = fitting(params, reduce, isa, None, channels)?;
            let inner = reduce.n();
            Ok([reduce, fitting(params, expand, isa, Some(channels), inner)?])
        };
        Ok(Self {
            crops: fitting(params, "crops", isa, Some(channels), grid.patch_len())?,
            local: squeeze("local_reduce", "local_expand")?,
            global: squeeze("global_reduce", "global_expand")?,
            grid,
        })
    }

    /// Tokens of the crops side by side, in a picture `width` tokens wide; what is left at the right is zero.
    fn side(&self, crops: &[&[f32]; CROPS], width: usize, workspace: &mut Workspace) -> Result<Vec<f32>> {
        let (channels, [height, narrow]) = (self.crops.n(), self.grid.size());
        let mut side = vec![0.0; height * width * channels];
        let mut tokens = vec![0.0; height * narrow * channels];
        for (at, crop) in crops.iter().enumerate() {
            // The same crop has the same tokens.
            if at == 0 || *crop != crops[at - 1] {
                self.crops.run(&self.grid.patches(crop), &mut tokens, Epilogue::Store, workspace)?;
            }
            for (row, tokens) in side.chunks_exact_mut(width * channels).zip(tokens.chunks_exact(narrow * channels)) {
                row[at * tokens.len()..][..tokens.len()].copy_from_slice(tokens);
            }
        }
        Ok(side)
    }

    /// The tokens of the whole become those of the whole and its crops.
    fn blend(&self, isa: Isa, whole: &mut [f32], side: &[f32], workspace: &mut Workspace) -> Result<()> {
        let channels = self.crops.n();
        let sum: Vec<f32> = whole.iter().zip(side).map(|(a, b)| a + b).collect();
        let tokens = sum.len() / channels;
        let mut mean = vec![0.0; channels];
        for token in sum.chunks_exact(channels) {
            mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += x);
        }
        mean.iter_mut().for_each(|mean| *mean /= tokens as f32);
        let mut squeeze = |[reduce, expand]: &[Linear; 2], x: &[f32], rows: usize| -> Result<Vec<f32>> {
            let (mut inner, mut out) = (vec![0.0; rows * reduce.n()], vec![0.0; rows * channels]);
            reduce.run(x, &mut inner, Epilogue::Relu, workspace)?;
            expand.run(&inner, &mut out, Epilogue::Store, workspace)?;
            Ok(out)
        };
        let global = squeeze(&self.global, &mean, 1)?;
        let local = squeeze(&self.local, &sum, tokens)?;
        blend_rows(isa, whole, side, &local, &global)
    }
}

impl PackedLayer for HtsatTokens {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let input = inputs[0].try_as_plain_ram()?;
        let mel = input.as_slice::<f32>()?;
        let size = self.image.frames * self.image.mels;
        let channels = self.patch.n();
        let mut output = Tensor::zero::<f32>(&[1, self.grid.tokens(), channels])?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let tokens = plain.as_slice_mut::<f32>()?;
        let mels: Vec<&[f32]> = mel.chunks_exact(size).collect();
        let whole = self.picture(mels[0]);
        self.patch.run(&self.grid.patches(&whole), tokens, Epilogue::Store, workspace)?;
        if let (Some(fusion), &[_, first, second, third]) = (&self.fusion, mels.as_slice()) {
            // A picture for each mel that is not the same as the one before it.
            let mut others: Vec<Vec<f32>> = vec![];
            let mut which = [0; CROPS];
            let mut last = mels[0];
            for (which, crop) in which.iter_mut().zip([first, second, third]) {
                if crop != last {
                    others.push(self.picture(crop));
                    last = crop;
                }
                *which = others.len();
            }
            let crops = which.map(|at| if at == 0 { whole.as_slice() } else { others[at - 1].as_slice() });
            let side = fusion.side(&crops, self.grid.size()[1], workspace)?;
            fusion.blend(self.isa, tokens, &side, workspace)?;
        }
        if let Some(norm) = &self.norm {
            norm_rows(self.isa, norm, tokens)?;
        }
        Ok(output)
    }
}
