//! `claptune tune`'s arguments.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use burn::prelude::Device;

use super::args::{ListenerPolicy, PrecisionName, ProcessorArgs, ScreeningArgs};
use crate::checkpoint::source::locate;
use crate::train::backend::{self, Backend};
use crate::train::clap::{Choices, TrainableClap};
use crate::train::mini::TrainableMini;
use crate::train::parts::FreezablePart;
use crate::train::recipe::Recipe;
use crate::train::run::train;
use crate::train::settings::RunSettings;

/// Fine-tune a CLAP checkpoint on people's ratings
#[derive(clap::Args)]
pub(super) struct TuneArgs {
    /// Ratings with splits, as claptune split writes them: CSV or JSONL (audio,text,score,split[,listener,kind,category,recording,
    /// anchor]), or RELATE's or XACLE's CSV; may be given several times
    #[arg(long, value_name = "MANIFEST", required = true)]
    data: Vec<PathBuf>,
    /// Where the audio lies, if not beside its manifest
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// The checkpoint to begin with: a folder that `ClapModel.save_pretrained` wrote, LAION's .pt, a repository in Hugging
    /// Face's hub, or a mini bundle (models/mini), whose space of sounds and words is trained and its networks are not
    #[arg(long, value_name = "SRC")]
    init: String,
    #[command(flatten)]
    processor: ProcessorArgs,
    /// What it is trained for: a sum of sce, wsce, mse, mae and spo, with weights if need be (wsce+0.5*mae)
    #[arg(long, value_name = "LOSS", default_value = "wsce+mae")]
    loss: String,
    /// The folder of the run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the run that is in the folder, if there is one
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    rates: RateArgs,
    /// What stays as it is: audio, text, temperature, audio:N or text:N for the input and the first N stages or layers; may be
    /// given several times
    #[arg(long, value_name = "PART")]
    freeze: Vec<FreezablePart>,
    /// Train low-rank factors of this rank instead of the weights (8 is usual; with a --rate of 1e-4 or so)
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// Mask stripes of time and frequency
    #[arg(long)]
    spec_augment: bool,
    /// Save memory: compute cheap activations again on the way back instead of keeping them
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Where it trains: flex (the processor), or cuda, vulkan, wgpu or metal, each of which is a cargo feature; cuda:1 is the second
    #[arg(long, value_name = "DEVICE", default_value = "flex")]
    device: Backend,
    /// Of the order of pairs, of masks and of LoRA's factors
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    screening: ScreeningArgs,
    /// Whether listeners have to be in one split each
    #[arg(long, value_enum, default_value = "apart")]
    listeners: ListenerPolicy,
    #[command(flatten)]
    storage: StorageArgs,
}

#[derive(clap::Args)]
struct LengthArgs {
    /// Passes over the training split; early stopping usually ends it sooner
    #[arg(long, value_name = "N", default_value_t = 20)]
    epochs: u64,
    /// Steps in all, instead of --epochs
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Pairs embedded at once: the more, the more mismatches sce and wsce see, and the more memory it takes
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Batches a step: larger steps in the same memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Steps from one validation to the next; without it, an epoch
    #[arg(long, value_name = "STEPS")]
    validate_every: Option<u64>,
    /// Validations without a better SRCC after which it stops
    #[arg(long, value_name = "N", default_value_t = 5)]
    patience: u64,
}

#[derive(clap::Args)]
struct RateArgs {
    /// Learning rate after warm-up; the default is the lowest with which BERT's authors fine-tune
    #[arg(long, value_name = "RATE", default_value_t = 2e-5)]
    rate: f64,
    /// Share of the steps in which the rate grows from 0; then it falls along a cosine
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    warm_up: f64,
    /// The text tower's rate over the audio tower's
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    text_rate: f64,
    /// Each layer's rate over that of the layer behind it; below 1, what lies near the input changes less
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    layer_decay: f64,
    /// Weight decay of AdamW; biases, norms and temperatures have none
    #[arg(long, value_name = "DECAY", default_value_t = 0.01)]
    weight_decay: f32,
    /// Length that all gradients together are cut to; 0 for none
    #[arg(long, value_name = "LENGTH", default_value_t = 1.0)]
    clip: f64,
}

#[derive(clap::Args)]
struct StorageArgs {
    /// Folder of decoded recordings, which runs on the same recordings may share [default: OUT/mels]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Its bound in GB; a recording of 10 s takes 0.26 MB
    #[arg(long, value_name = "GB", default_value_t = 10.0)]
    cache_size: f64,
    /// Minutes from one saved state to the next, beside those at validations: what a kill can cost
    #[arg(long, value_name = "MIN", default_value_t = 10.0)]
    save_every: f64,
    /// How the bundle's weights are stored
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
}

pub(super) fn tune(args: &TuneArgs) -> Result<()> {
    let recipe = recipe(args)?;
    let (storage, out) = (&args.storage, absolute(&args.out)?);
    let setting = RunSettings {
        cache: storage.cache.clone().unwrap_or_else(|| out.join("mels")),
        out,
        resume: args.resume,
        cache_bytes: (storage.cache_size * 1e9) as u64,
        save_every: Duration::try_from_secs_f64(storage.save_every * 60.0)
            .with_context(|| format!("--save-every is {}; minutes, 0 or more, are needed", storage.save_every))?,
        precision: storage.precision.into(),
    };
    let device = recipe.device.open()?;
    if let Some(name) = backend::name(&device) {
        eprintln!("training on {name}");
    }
    if Path::new(&args.init).join("bundle.toml").is_file() {
        return train(mini(&recipe, device)?, &recipe, &setting);
    }
    let source = locate(&args.init, args.processor.processor.as_deref())?;
    let choices = Choices {
        freeze: recipe.freeze.clone(),
        depth: recipe.depth(),
        lora: recipe.lora,
        seed: recipe.seed,
        gradient_checkpointing: recipe.gradient_checkpointing,
    };
    train(TrainableClap::open(&source, choices, device)?, &recipe, &setting)
}

/// A mini bundle in training; what only other models have is refused.
fn mini(recipe: &Recipe, device: Device) -> Result<TrainableMini> {
    for (option, given) in [
        ("--lora", recipe.lora.is_some()),
        ("--spec-augment", recipe.spec_augment),
        ("--gradient-checkpointing", recipe.gradient_checkpointing),
        ("--processor", recipe.processor.is_some()),
    ] {
        ensure!(!given, "{option}: {} is a mini bundle, which has no use for it; leave it away", recipe.init);
    }
    TrainableMini::open(Path::new(&recipe.init), recipe.freeze.clone(), recipe.text_rate, device)
}

fn recipe(args: &TuneArgs) -> Result<Recipe> {
    let (length, rates) = (&args.length, &args.rates);
    // Whole paths: a resume or a report may be asked for in another folder.
    let whole = |path: &PathBuf| absolute(path).with_context(|| path.display().to_string());
    let place = |name: &String| match Path::new(name).exists() {
        true => absolute(name).map(|path| path.display().to_string()),
        false => Ok(name.clone()),
    };
    let recipe = Recipe {
        data: args.data.iter().map(whole).collect::<Result<_>>()?,
        audio_root: args.audio_root.as_ref().map(whole).transpose()?,
        init: place(&args.init)?,
        processor: args.processor.processor.as_ref().map(place).transpose()?,
        loss: args.loss.clone(),
        epochs: length.epochs,
        steps: length.steps,
        batch: length.batch,
        accumulate: length.accumulate,
        rate: rates.rate,
        warm_up: rates.warm_up,
        text_rate: rates.text_rate,
        layer_decay: rates.layer_decay,
        weight_decay: rates.weight_decay,
        clip: rates.clip,
        freeze: args.freeze.clone(),
        lora: args.lora,
        spec_augment: args.spec_augment,
        gradient_checkpointing: args.gradient_checkpointing,
        device: args.device,
        validate_every: length.validate_every,
        patience: length.patience,
        seed: args.seed,
        screen: args.screening.screen,
        listeners_shared: args.listeners == ListenerPolicy::Shared,
        skip: args.screening.skip,
    };
    // Before anything is fetched or read.
    recipe.check()?;
    Ok(recipe)
}
