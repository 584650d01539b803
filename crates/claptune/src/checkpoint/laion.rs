//! LAION's own checkpoints: the `.pt` that its training saved.
//!
//! Such a file has no configuration, so the config.json that a `ClapModel` of the same sizes would have is read off the
//! tensors' shapes. The optimizer's moments, two thirds of a published file, are not read.
//!
//! Reference: LAION-AI/CLAP, src/laion_clap/clap_module/{model,htsat,feature_fusion}.py; transformers 5.23,
//! models/clap/convert_clap_original_pytorch_to_hf.py.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::clap_config::MAX_CONFIG;
use super::clap_names::{Naming, Tower};
use super::stored_tensor::{self, Inventory};
use super::weights::fail_on_faults;

/// Where a state dict can be in the file: trained on several devices, and saved with or without the optimizer.
const PREFIXES: [&str; 4] = ["state_dict.module.", "state_dict.", "module.", ""];
/// What RoBERTa of every size has in a head.
const TEXT_HEAD: usize = 64;

/// Opens a file.
///
/// # Errors
/// A file that is damaged or is no CLAP of LAION's.
pub fn open(path: &Path) -> Result<(Inventory, Naming)> {
    let inventory = stored_tensor::open_pytorch(path)?;
    let naming = PREFIXES.iter().map(|prefix| Naming::Laion((*prefix).into())).find(|naming| {
        inventory.keys().any(|name| naming.is_of(Tower::Audio, name) || naming.is_of(Tower::Text, name))
    });
    match naming {
        Some(naming) => Ok((inventory, naming)),
        None if inventory.keys().any(|name| name.contains("audio_model.") || name.contains("text_model.")) => bail!(
            "{} has a ClapModel's tensors; name its folder, with its config.json, instead of the file",
            path.display()
        ),
        None => bail!(
            "{} is no CLAP of LAION's: none of its {} tensors is called audio_branch... or text_branch...",
            path.display(),
            inventory.len()
        ),
    }
}

/// The config.json that the shapes make. `beside` is a folder whose config.json, if it is of the same text tower, tells what
/// no shape does: its attention heads and the epsilon of its norms.
///
/// # Errors
/// Lists the tensors that would tell a size and are missing.
pub fn config(inventory: &Inventory, naming: &Naming, beside: &Path) -> Result<String> {
    let Naming::Laion(prefix) = naming else { bail!("only LAION's files are without a config.json") };
    let mut shapes = ShapeReader { inventory, prefix, missing: BTreeSet::new() };
    let output = shapes.size("audio_projection.2.weight", 0);
    let (audio, text) = (audio(&mut shapes), text(&mut shapes, beside)?);
    let missing: Vec<String> = shapes.missing.iter().map(|name| format!("missing  {name}")).collect();
    fail_on_faults(&missing)?;
    let config = json!({"model_type": "clap", "projection_dim": output, "audio_config": audio, "text_config": text});
    Ok(config.to_string())
}

struct ShapeReader<'a> {
    inventory: &'a Inventory,
    prefix: &'a str,
    missing: BTreeSet<String>,
}

impl ShapeReader<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.inventory.get(&format!("{}{name}", self.prefix)).map(|stored| stored.shape.as_slice())
    }

    /// A size of a tensor that every CLAP has; without it 0, and its name is kept.
    fn size(&mut self, name: &str, axis: usize) -> usize {
        let size = self.shape(name).and_then(|shape| shape.get(axis)).copied();
        size.unwrap_or_else(|| {
            self.missing.insert(format!("{}{name}", self.prefix));
            0
        })
    }

    /// How many different numbers follow `stem` in names.
    fn count(&self, stem: &str) -> usize {
        let stem = format!("{}{stem}", self.prefix);
        let number = |name: &String| name.strip_prefix(&stem)?.split('.').next()?.parse::<usize>().ok();
        self.inventory.keys().filter_map(number).collect::<BTreeSet<usize>>().len()
    }
}

fn audio(shapes: &mut ShapeReader) -> Value {
    let channels = shapes.size("audio_branch.patch_embed.proj.weight", 0);
    let patch = [2, 3].map(|axis| shapes.size("audio_branch.patch_embed.proj.weight", axis));
    let (mut depths, mut heads) = (vec![], vec![]);
    for stage in 0..shapes.count("audio_branch.layers.") {
        let layer = format!("audio_branch.layers.{stage}.blocks.");
        depths.push(shapes.count(&layer));
        heads.push(shapes.size(&format!("{layer}0.attn.relative_position_bias_table"), 1));
    }
    // One row for each distance of two tokens of a window: (2 window - 1)^2.
    let first = "audio_branch.layers.0.blocks.0.";
    let window = shapes.size(&format!("{first}attn.relative_position_bias_table"), 0).isqrt().div_ceil(2);
    let inner = shapes.size(&format!("{first}mlp.fc1.weight"), 0);
    let reduced = shapes
        .shape("audio_branch.patch_embed.fusion_model.local_att.0.weight")
        .and_then(|shape| shape.first().copied());
    json!({
        "model_type": "clap_audio_model",
        "num_mel_bins": shapes.size("audio_branch.bn0.weight", 0),
        "hidden_size": shapes.size("audio_branch.norm.weight", 0),
        "patch_embeds_hidden_size": channels, "patch_size": patch, "patch_stride": patch,
        "depths": depths, "num_attention_heads": heads, "window_size": window,
        "mlp_ratio": inner as f64 / channels.max(1) as f64,
        "qkv_bias": shapes.shape(&format!("{first}attn.qkv.bias")).is_some(),
        "enable_patch_layer_norm": shapes.shape("audio_branch.patch_embed.norm.weight").is_some(),
        "enable_fusion": reduced.is_some(),
        "aff_block_r": channels / reduced.unwrap_or(1).max(1),
    })
}

fn text(shapes: &mut ShapeReader, beside: &Path) -> Result<Value> {
    let table = "text_branch.embeddings.word_embeddings.weight";
    let (vocabulary, width) = (shapes.size(table, 0), shapes.size(table, 1));
    let path = beside.join("config.json");
    let mut known = Value::Null;
    if path.is_file() {
        let text = stored_tensor::read_text(&path, MAX_CONFIG)?;
        let config: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if config["text_config"]["hidden_size"].as_u64().unwrap_or(768) == width as u64 {
            known = config["text_config"].clone();
        }
    }
    let said = |key: &str, otherwise: Value| if known[key].is_null() { otherwise } else { known[key].clone() };
    Ok(json!({
        "model_type": "clap_text_model", "vocab_size": vocabulary, "hidden_size": width,
        "max_position_embeddings": shapes.size("text_branch.embeddings.position_embeddings.weight", 0),
        "type_vocab_size": shapes.size("text_branch.embeddings.token_type_embeddings.weight", 0),
        "num_hidden_layers": shapes.count("text_branch.encoder.layer."),
        "intermediate_size": shapes.size("text_branch.encoder.layer.0.intermediate.dense.weight", 0),
        "num_attention_heads": said("num_attention_heads", (width / TEXT_HEAD).max(1).into()),
        // What transformers' conversion of these files gives the norms; LAION's training had RoBERTa's 1e-5.
        "layer_norm_eps": said("layer_norm_eps", 1e-12.into()),
    }))
}
