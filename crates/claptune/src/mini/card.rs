//! The model card that lies in the bundle: README.md, whose figures are those of the manifest.

use anyhow::Result;
use clapd_core::model::manifest::Manifest;

/// The licence of both networks' weights.
pub const APACHE: &str = include_str!("LICENSE-APACHE");

/// The card: fixed text, then the sources and the measurements of this very bundle.
///
/// # Errors
/// Measurements that can't be written as TOML.
pub fn card(manifest: &Manifest) -> Result<String> {
    let mut sources = String::new();
    for origin in &manifest.source {
        sources += &format!("| {} | {} | {} | `{}` |\n", origin.name, origin.version, origin.licence, origin.sha256);
    }
    let quality = toml::to_string(&manifest.quality)?;
    Ok(include_str!("card.md")
        .replace("{version}", &manifest.version)
        .replace("{sources}", &sources)
        .replace("{quality}", &quality))
}
