//! `claptune import` and `claptune export`: a CLAP checkpoint becomes a bundle, or ONNX files.
//!
//! The towers are made one after the other, so that only one is in memory, and nothing is written before the checkpoint
//! is known to be sound.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::prelude::*;
use clapd_core::files::{Access, Durability, write_atomically};
use clapd_core::model::manifest::{
    AudioTable, CalibrationTable, FORMAT, FrontendTable, Manifest, RecordingsTable, TextTable, WeightsSource,
    WindowTable,
};
use tract_onnx::prelude::TypedModel;

use super::bundle::BundleWriter;
use super::checkpoint::clap::ClapCheckpoint;
use super::checkpoint::clap_config::MAX_TOKENS;
use super::checkpoint::source::CheckpointSource;
use super::export::onnx::Graph;
use super::export::{self, Precision, SymbolicLength};
use super::layout;
use super::mini::method::Method;
use super::mini::recordings_table;
use super::progress::bar;

/// From cosine to score. Human-CLAP regresses the cosine on a rating of 0 to 10, divided by 10 (arXiv 2506.23553); what is
/// below 0 has no rating.
const CALIBRATION: [[f32; 2]; 3] = [[-1.0, 0.0], [0.0, 0.0], [1.0, 10.0]];

/// Imports a checkpoint to `out`.
///
/// # Errors
/// Says what of the checkpoint is at fault, or which step failed. Nothing is written then.
pub fn import(source: &CheckpointSource, out: &Path, precision: Precision) -> Result<()> {
    import_with(source, out, precision, |_| ())
}

/// The same, with `change` having the last word on the bundle's manifest.
///
/// # Errors
/// As [`import`], or a manifest that the device would refuse.
pub fn import_with(
    source: &CheckpointSource,
    out: &Path,
    precision: Precision,
    change: impl FnOnce(&mut Manifest),
) -> Result<()> {
    let checkpoint = ClapCheckpoint::open(source)?;
    let writer = BundleWriter::new(out)?;
    let progress = bar(checkpoint.bytes()?);
    progress.set_message("hashing the weights");
    let sha256 = checkpoint.sha256(|bytes| progress.inc(bytes))?;
    let source = WeightsSource {
        name: source.name.clone(),
        version: source.version.clone(),
        sha256,
        // A checkpoint's files do not say; its page does.
        licence: "NOASSERTION".into(),
    };
    type LayOut = fn(&ClapCheckpoint, Precision) -> Result<TypedModel>;
    let store = |lay_out: LayOut, file: &str| -> Result<String> {
        let graph = lay_out(&checkpoint, precision)?;
        writer.add_with(file, |to| export::nnef::write(graph, to))
    };
    progress.set_message("audio tower");
    let audio = store(layout::audio, "audio.nnef.tar")?;
    progress.set_message("text tower");
    let text = store(layout::text, "text.nnef.tar")?;
    let tokenizer = writer.add("tokenizer.json", &checkpoint.tokenizer)?;
    let name = out.file_name().map_or_else(|| "clap".into(), |n| n.to_string_lossy().into_owned());
    let recordings = recordings_table(&Method::load()?);
    let mut manifest = manifest(&checkpoint, name, precision, source, recordings, [audio, text, tokenizer]);
    change(&mut manifest);
    writer.finish(manifest)?;
    progress.finish_and_clear();
    eprintln!("wrote {}", out.display());
    Ok(())
}

/// Makes a bundle of what is in `folder`: if that is a run of `claptune tune`, with the name, description and calibration that
/// its own bundle has.
///
/// # Errors
/// As [`import_with`], or a run's bundle that can't be read.
pub fn export_bundle(source: &CheckpointSource, folder: &Path, out: &Path, precision: Precision) -> Result<()> {
    let own = folder.join("bundle").join("bundle.toml");
    if !own.is_file() {
        return import(source, out, precision);
    }
    let place = || format!("reading {}", own.display());
    let run = Manifest::parse(&fs::read_to_string(&own).with_context(place)?).with_context(place)?;
    import_with(source, out, precision, |manifest| {
        manifest.name = run.name;
        manifest.description = run.description;
        manifest.calibration = run.calibration;
        manifest.quality = run.quality;
    })
}

/// Writes both towers as ONNX files: into the folder `out`, or as NAME-audio.onnx and NAME-text.onnx for NAME.onnx.
///
/// # Errors
/// Says what of the checkpoint is at fault, or which file can't be written.
pub fn export_onnx(source: &CheckpointSource, out: &Path) -> Result<()> {
    let checkpoint = ClapCheckpoint::open(source)?;
    let (folder, stem) = if out.extension().is_some_and(|e| e == "onnx") {
        let stem = out.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        (out.parent().map(Path::to_path_buf).unwrap_or_default(), format!("{stem}-"))
    } else {
        (out.to_path_buf(), String::new())
    };
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    type Make = fn(&ClapCheckpoint) -> Result<Graph>;
    for (tower, make) in [("audio", audio_graph as Make), ("text", text_graph)] {
        let path = folder.join(format!("{stem}{tower}.onnx"));
        let bytes = make(&checkpoint)?.into_bytes();
        write_atomically(&path, &bytes, Access::Public, Durability::Synced)?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// The audio tower's graph.
///
/// # Errors
/// A weight that can't be read or is not finite.
pub fn audio_graph(checkpoint: &ClapCheckpoint) -> Result<Graph> {
    let network = checkpoint.audio(&Device::flex()).context("loading the audio tower")?;
    export::export("audio", network, |net, tracer| net.trace(&checkpoint.config.audio, tracer))
}

/// The text tower's graph, for texts of any length.
///
/// # Errors
/// As [`audio_graph`].
pub fn text_graph(checkpoint: &ClapCheckpoint) -> Result<Graph> {
    let network = checkpoint.text(&Device::flex()).context("loading the text tower")?;
    let length = SymbolicLength { symbol: "S", input: "ids", axis: 1 };
    export::export_any_length("text", network, &length, |net, tracer, n| net.trace(tracer, n))
}

fn manifest(
    checkpoint: &ClapCheckpoint,
    name: String,
    precision: Precision,
    source: WeightsSource,
    recordings: RecordingsTable,
    [audio, text, tokenizer]: [String; 3],
) -> Manifest {
    let sizes = &checkpoint.config.audio;
    let fused = sizes.fusion.is_some();
    Manifest {
        format: FORMAT,
        name,
        version: "1".into(),
        description: format!("CLAP ({}), imported from {}", if fused { "fused" } else { "unfused" }, source.name),
        licence: source.licence.clone(),
        encoder: "clap".into(),
        pipeline_id: String::new(),
        source: vec![source],
        frontend: FrontendTable::from(&checkpoint.frontend),
        window: WindowTable { patch_hop: 0, patches: 1 },
        audio: AudioTable {
            file: "audio.nnef.tar".into(),
            sha256: audio,
            input: vec![1, sizes.input_channels(), sizes.frames, sizes.mels],
            output: sizes.projection.output,
            precision: precision.name().into(),
            copies: sizes.input_channels(),
            is_longer: fused.then_some(true),
        },
        pool: None,
        text: TextTable {
            file: "text.nnef.tar".into(),
            sha256: text,
            precision: precision.name().into(),
            output: checkpoint.config.text.projection.output,
            tokenizer: "tokenizer.json".into(),
            tokenizer_sha256: tokenizer,
            max_tokens: MAX_TOKENS,
            pad_id: checkpoint.config.pad_id as u32,
            coverage_min: None,
        },
        calibration: CalibrationTable { points: CALIBRATION.to_vec() },
        recordings: Some(recordings),
        // Nobody measured that for an import.
        level: None,
        quality: notes(),
    }
}

/// What a user of the scores should know.
fn notes() -> toml::Table {
    let mut notes = toml::Table::new();
    notes.insert("calibration".into(), "score = 10 * max(cosine, 0), as Human-CLAP was trained".into());
    notes.insert("clips".into(), "each is scored alone; of one longer than a patch, the beginning".into());
    notes
}
