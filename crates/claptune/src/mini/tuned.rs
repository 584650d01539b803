//! A trained `mini` as a bundle that clapd runs as it runs the first. Figures that were measured of the first are left
//! out.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use burn::prelude::Device;
use clapd_core::model::Bundle;
use clapd_core::model::manifest::{Manifest, WeightsSource};
use tract_onnx::prelude::TypedModel;

use super::space_graphs::SpaceGraphs;
use crate::bundle::BundleWriter;
use crate::export::{Precision, nnef};
use crate::net::captions::CaptionNetwork;

/// What a bundle has for people; the card of the first says what is no longer true.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// What a trained bundle is called, after its start.
const SUFFIX: &str = "-tuned";
/// Of the content: counted anew from the bundle that comes with clapd.
const VERSION: &str = "1";

/// Writes the bundle; `precision` is that of the numbers that were trained. Its calibration is that of `start`.
///
/// # Errors
/// A file that can't be read or written, or numbers that the device refuses.
pub fn write(
    start: &Bundle,
    heads: &SpaceGraphs,
    net: &CaptionNetwork,
    precision: Precision,
    out: &Path,
) -> Result<()> {
    let mut manifest = start.manifest().clone();
    manifest.source.push(WeightsSource {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        sha256: manifest.pipeline_id.clone(),
        licence: manifest.licence.clone(),
    });
    if !manifest.name.ends_with(SUFFIX) {
        manifest.name += SUFFIX;
        manifest.description += ", fine-tuned on ratings by claptune";
    }
    manifest.version = VERSION.into();
    manifest.quality = toml::Table::new();
    store(manifest, start.dir(), heads.with(net, precision)?, out)
}

/// Writes a trained bundle once more, its trained numbers in another precision; all else stays, the calibration too.
///
/// # Errors
/// As [`write()`], and a bundle of another kind.
pub fn convert(bundle: &Path, precision: Precision, out: &Path) -> Result<()> {
    let bundle = Bundle::open(bundle)?;
    let heads = SpaceGraphs::open(&bundle)?;
    let graphs = heads.with(&heads.network(&Device::flex())?, precision)?;
    store(bundle.manifest().clone(), bundle.dir(), graphs, out)
}

/// The bundle of `manifest`: both graphs, and beside them what lies in the folder `from`.
fn store(mut manifest: Manifest, from: &Path, [pool, text]: [TypedModel; 2], out: &Path) -> Result<()> {
    let writer = BundleWriter::new(out)?;
    let copy = |name: &str| {
        let path = from.join(name);
        let mut from = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        writer.add_with(name, |to| Ok(io::copy(&mut from, to).map(drop)?))
    };
    let add = |file: &str, graph: TypedModel| writer.add_with(file, |to| nnef::write(graph, to));
    manifest.audio.sha256 = copy(&manifest.audio.file)?;
    manifest.text.tokenizer_sha256 = copy(&manifest.text.tokenizer)?;
    manifest.text.sha256 = add(&manifest.text.file, text)?;
    if let Some(table) = &mut manifest.pool {
        table.sha256 = add(&table.file, pool)?;
    }
    for licence in LICENCES.into_iter().filter(|licence| from.join(licence).is_file()) {
        copy(licence)?;
    }
    writer.finish(manifest)
}
