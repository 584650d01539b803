//! RELATE's and XACLE's files, as published.
//!
//! RELATE (Kanamori et al., Interspeech 2025), `scores/{REL,IS,OS}.csv`: a row a rating, `wavname` below the folder of
//! its wave archive, `audio type` natural or a generator, and in REL.csv which of its splits the pair is in. Anchors
//! are pairs that don't fit, by which listeners were screened. RELATE states no licence, so no row of it is in this
//! repository.
//!
//! XACLE (ICASSP 2026), `meta_data/{train,validation}.csv`: a row a rating; `_average.csv`: a row a pair. The split is
//! the file's name, the audio lies in a folder of that name; `--audio-root` is `XACLE_dataset/wav`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::rating::{Rating, Ratings, Split};
use super::table::{CsvRow, CsvTable};

/// Names of XACLE's columns: its files', and those that its README gives them.
const XACLE_AUDIO: [&str; 2] = ["wav_file_name", "wave_file_name"];
const XACLE_SCORES: [&str; 4] =
    ["score", "average_score", "11-point semantic-alignment score", "average_semantic_alignement_score"];

/// Reads RELATE's. Rows that it excludes are dropped and counted, but for anchors, which tell of their listeners.
pub(super) fn relate(table: &CsvTable, root: &Path) -> Result<Ratings> {
    // IS.csv and OS.csv have no splits of RELATE's; there the split is AudioCaps'.
    let split = if table.has("in RELATE dataset") { "in RELATE dataset" } else { "in AudioCaps" };
    let rows = table.map(|row| relate_row(row, split, root))?;
    let excluded = rows.iter().filter(|row| row.is_none()).count();
    Ok(Ratings { rows: rows.into_iter().flatten().collect(), excluded })
}

fn relate_row(row: CsvRow<'_>, split: &str, root: &Path) -> Result<Option<Rating>> {
    let (name, kind) = (row.need("wavname")?, row.need("audio type")?);
    // The first revision called the type of an anchor "anchor" and had no label.
    let anchor = row.get("anchor label") == Some("True") || kind == "anchor";
    let split = match row.get(split) {
        _ if anchor => None,
        Some("excluded") => return Ok(None),
        Some(name) if Split::named(name).is_some() => Split::named(name),
        other => bail!("{split:?} is {other:?}; train, validation, test or excluded were published"),
    };
    // AudioCaps' number: what the generators made for one caption, and the clip that it was written for.
    let recording = Path::new(name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let rating = Rating {
        audio: root.join(name.trim_start_matches('/')),
        recording: recording.unwrap_or_default(),
        text: row.need("text")?.to_owned(),
        score: row.number("score")?,
        listener: Some(row.need("listener_id")?.to_owned()),
        split,
        kind: Some(kind.to_owned()),
        category: None,
        anchor,
    };
    rating.checked().map(Some)
}

/// Reads XACLE's; `manifest` names the split. Which sounds are natural was not published.
pub(super) fn xacle(table: &CsvTable, manifest: &Path, root: &Path) -> Result<Ratings> {
    let stem = manifest.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let split = Split::named(stem.trim_end_matches("_average"));
    let folder = split.map_or_else(|| root.to_path_buf(), |split| root.join(split.to_string()));
    let column = |names: &[&'static str]| names.iter().copied().find(|name| table.has(name));
    let audio = column(&XACLE_AUDIO).context("there is no column wav_file_name")?;
    let score =
        column(&XACLE_SCORES).context("there is no column score or average_score; XACLE's test.csv has no ratings")?;
    let rows = table.map(|row| {
        let name = row.need(audio)?;
        let rating = Rating {
            audio: folder.join(name.trim_start_matches('/')),
            recording: name.to_owned(),
            text: row.need("text")?.to_owned(),
            score: row.number(score)?,
            listener: row.get("listener_id").map(str::to_owned),
            split,
            kind: None,
            category: None,
            anchor: false,
        };
        rating.checked()
    })?;
    Ok(Ratings { rows, excluded: 0 })
}
