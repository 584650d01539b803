//! Manifests, read and written: a CSV or JSONL file of our own, or RELATE's or XACLE's CSV (`published`), which is
//! known by its columns.
//!
//! A column that is not known is an error, for it may be a misspelt one, and so is a broken row.

use std::fs;
use std::path::{Path, absolute};

use anyhow::{Context, Result, bail, ensure};
use clapd_core::files::{Access, Durability, folder_of, write_atomically};
use clapd_core::text::csv_field;
use serde::Deserialize;

use super::published;
use super::rating::{Rating, Ratings, Split};
use super::table::{CsvRow, CsvTable};

/// The columns of our own form, those that must be there first.
const COLUMNS: [&str; 9] = ["audio", "text", "score", "listener", "split", "kind", "category", "recording", "anchor"];

/// A line of a JSONL manifest; its names are frozen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRating {
    audio: String,
    text: String,
    score: f64,
    listener: Option<String>,
    split: Option<Split>,
    kind: Option<String>,
    category: Option<String>,
    recording: Option<String>,
    anchor: Option<bool>,
}

/// Reads a manifest. `audio,text,score[,listener,split,kind,category,recording,anchor]` as CSV, or JSONL with the same names;
/// RELATE's `REL.csv`, `IS.csv`, `OS.csv`; XACLE's `train.csv`, `validation.csv` and their `_average` forms. Names of audio
/// files are taken from `audio_root`, without it from the manifest's folder.
///
/// # Errors
/// A file that can't be read, columns of no known form, or the first row that is at fault, with its line.
pub fn read(manifest: &Path, audio_root: Option<&Path>) -> Result<Ratings> {
    let place = || manifest.display().to_string();
    let text = fs::read_to_string(manifest).with_context(|| format!("{}: can't read it", manifest.display()))?;
    let root = audio_root.or(manifest.parent()).unwrap_or(Path::new("."));
    let extension = manifest.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_lines = ["jsonl", "ndjson"].contains(&extension.as_str());
    let ratings = if is_lines { read_lines(&text, root) } else { read_csv(&text, manifest, root) };
    let ratings = ratings.with_context(place)?;
    ensure!(!ratings.rows.is_empty(), "{}: holds no ratings", place());
    Ok(ratings)
}

fn read_csv(text: &str, manifest: &Path, root: &Path) -> Result<Ratings> {
    let table = CsvTable::parse(text)?;
    if table.has("wavname") {
        return published::relate(&table, root);
    }
    if table.has("wav_file_name") || table.has("wave_file_name") {
        return published::xacle(&table, manifest, root);
    }
    let missing = COLUMNS[..3].iter().any(|name| !table.has(name));
    let unknown = table.columns().iter().any(|name| !COLUMNS.contains(&name.as_str()));
    if missing || unknown {
        bail!(
            "its columns are {}; audio,text,score and any of {} are needed, or RELATE's (wavname, ...) or XACLE's \
             (wav_file_name, ...)",
            table.columns().join(","),
            COLUMNS[3..].join(",")
        );
    }
    Ok(Ratings { rows: table.map(|row| JsonRating::of(row)?.rating(root))?, excluded: 0 })
}

fn read_lines(text: &str, root: &Path) -> Result<Ratings> {
    let mut rows = Vec::new();
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let rating = serde_json::from_str::<JsonRating>(line).map_err(Into::into).and_then(|line| line.rating(root));
        rows.push(rating.with_context(|| format!("line {}", number + 1))?);
    }
    Ok(Ratings { rows, excluded: 0 })
}

impl JsonRating {
    fn of(row: CsvRow<'_>) -> Result<Self> {
        let text = |name: &str| row.get(name).map(str::to_owned);
        let named = |name: &str| {
            Split::named(name).with_context(|| format!("split is {name:?}; train, validation or test is allowed"))
        };
        let anchor = |word: &str| match word {
            "true" | "false" => Ok(word == "true"),
            _ => bail!("anchor is {word:?}; true or false is allowed"),
        };
        Ok(Self {
            audio: row.need("audio")?.to_owned(),
            text: row.need("text")?.to_owned(),
            score: row.number("score")?,
            listener: text("listener"),
            split: row.get("split").map(named).transpose()?,
            kind: text("kind"),
            category: text("category"),
            recording: text("recording"),
            anchor: row.get("anchor").map(anchor).transpose()?,
        })
    }

    fn rating(self, root: &Path) -> Result<Rating> {
        Rating {
            audio: root.join(&self.audio),
            recording: self.recording.unwrap_or(self.audio),
            text: self.text,
            score: self.score,
            listener: self.listener,
            split: self.split,
            kind: self.kind,
            category: self.category,
            anchor: self.anchor.unwrap_or(false),
        }
        .checked()
    }
}

/// Writes ratings as a CSV of our own form. Audio files below the manifest's folder are named from there, others by their
/// whole path. The file is there whole or not at all.
///
/// # Errors
/// A folder that can't be written, or a path that is not UTF-8.
pub fn write(path: &Path, ratings: &[Rating]) -> Result<()> {
    let folder = absolute(folder_of(path)).with_context(|| path.display().to_string())?;
    let mut text = COLUMNS.join(",") + "\n";
    for rating in ratings {
        let optional = |field: &Option<String>| field.clone().unwrap_or_default();
        let fields = [
            name_from(&folder, &rating.audio)?,
            rating.text.clone(),
            rating.score.to_string(),
            optional(&rating.listener),
            rating.split.map_or_else(String::new, |split| split.to_string()),
            optional(&rating.kind),
            optional(&rating.category),
            rating.recording.clone(),
            rating.anchor.to_string(),
        ];
        text += &(fields.map(|field| csv_field(&field)).join(",") + "\n");
    }
    write_atomically(path, text.as_bytes(), Access::Public, Durability::Synced)
}

fn name_from(folder: &Path, audio: &Path) -> Result<String> {
    let whole = absolute(audio)?;
    let name = whole.strip_prefix(folder).unwrap_or(&whole);
    Ok(name.to_str().with_context(|| format!("{}: is no UTF-8; rename it", whole.display()))?.to_owned())
}
