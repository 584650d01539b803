//! What the default model consists of besides its networks: captions, class priors and a few numbers, typed and
//! checked. Each number stands, with its reason, in `method.toml`.

use anyhow::{Context, Result, ensure};
use clapd_core::model::manifest::LevelTable;
use serde::Deserialize;

use crate::net::minilm::WIDTH;
use crate::net::yamnet::CLASSES;

/// `method.toml`; what each number does is said there and in models/mini/METHOD.md.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Classes of the audio network, for the reader; checked.
    pub classes: usize,
    /// Width of a sentence embedding, for the reader; checked.
    pub text_len: usize,
    /// Most captions of a class, for the reader; checked.
    pub captions_per_class_max: usize,
    /// From mean class probabilities to an embedding.
    pub pool: PoolMethod,
    /// From a sentence embedding to the same space.
    pub text: TextMethod,
    /// How patches make windows.
    pub window: Window,
    /// When a prompt is outside what the model knows.
    pub coverage: Coverage,
    /// Cosine to score.
    pub calibration: Calibration,
    /// The same for prompts with recordings.
    pub recordings: Recordings,
    /// The levels at which it hears.
    pub level: LevelTable,
    /// Measurements, for the card.
    #[serde(default)]
    pub quality: toml::Table,
}

/// Weight of class c: p^probability_exponent / prior^prior_exponent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMethod {
    /// Probabilities are raised to at least this.
    pub probability_min: f32,
    /// Exponent of the probability.
    pub probability_exponent: f64,
    /// Exponent of the prior.
    pub prior_exponent: f64,
    /// Share of the classes in the agreement; the rest is the direction among sentences.
    pub anchor_weight: f64,
    /// Length of the part that says "nothing is heard clearly", beside that of the classes.
    pub kappa: f64,
    /// Weight of the part that says "this sounds like background".
    pub background_weight: f64,
    /// Cosine with a background above which it counts.
    pub background_cosine: f64,
}

/// Whitened similarity to the best caption of each class, to a power.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextMethod {
    /// Added to the eigenvalues of the captions' covariance, as a share of the largest.
    pub whitening_ridge: f64,
    /// Exponent of the similarity.
    pub similarity_exponent: f64,
    /// The similarity that the part which says "no caption says this" stands for.
    pub null_similarity: f64,
}

/// When a prompt is outside what the model knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Best similarity to a caption below which it is.
    pub min: f32,
}

/// How patches make windows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Samples between patches.
    pub patch_hop: usize,
    /// Patches in a full window.
    pub patches: usize,
}

/// Cosine to score.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [cosine, score], rising.
    pub points: Vec<[f32; 2]>,
}

/// Cosine to score where a prompt has recordings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recordings {
    /// Share of the text where a prompt has both.
    pub text_share: f32,
    /// [cosine, score], rising, for recordings alone.
    pub points: Vec<[f32; 2]>,
    /// The same for recordings beside a text.
    pub points_with_text: Vec<[f32; 2]>,
}

/// A class and what it sounds like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// AudioSet's display name.
    pub name: String,
    /// What one may call it.
    pub captions: Vec<String>,
}

impl Method {
    /// The method of this version of claptune.
    ///
    /// # Errors
    /// A data file that was edited wrongly.
    pub fn load() -> Result<Self> {
        let method: Self =
            toml::from_str(include_str!("method.toml")).context("crates/claptune/src/mini/method.toml")?;
        let sizes = (method.classes, method.text_len);
        ensure!(
            sizes == (CLASSES, WIDTH),
            "crates/claptune/src/mini/method.toml is for {sizes:?} classes and text numbers"
        );
        Ok(method)
    }
}

/// The captions of all classes, in the checkpoint's order.
///
/// # Errors
/// Classes that are missing, or that the checkpoint calls by other names.
pub fn classes(class_map: &str) -> Result<Vec<Class>> {
    #[derive(Deserialize)]
    struct File {
        class: Vec<Class>,
    }
    let file: File = toml::from_str(include_str!("captions.toml")).context("crates/claptune/src/mini/captions.toml")?;
    let names = display_names(class_map)?;
    ensure!(file.class.len() == names.len(), "{} classes have captions, not {}", file.class.len(), names.len());
    for (i, (class, name)) in file.class.iter().zip(&names).enumerate() {
        ensure!(class.name == *name, "class {i} is called {name:?} by the checkpoint and {:?} here", class.name);
        ensure!(!class.captions.is_empty(), "class {i} ({name}) has no caption");
    }
    Ok(file.class)
}

/// The third column of YAMNet's class map, which is quoted where it holds a comma.
fn display_names(class_map: &str) -> Result<Vec<String>> {
    let names: Option<Vec<String>> = class_map
        .lines()
        .skip(1)
        .map(|line| line.splitn(3, ',').nth(2).map(|n| n.trim().trim_matches('"').into()))
        .collect();
    let names = names.context("a line of the class map has fewer than three columns")?;
    ensure!(names.len() == CLASSES, "the class map has {} classes, not {CLASSES}", names.len());
    Ok(names)
}

/// The mean probability of every class over sound of all kinds.
///
/// # Errors
/// Lines that are missing, out of order, or no probability.
pub fn priors() -> Result<Vec<f32>> {
    let rows = probabilities(include_str!("priors.csv")).context("crates/claptune/src/mini/priors.csv")?;
    Ok(rows.into_iter().flatten().collect())
}

/// The mean probabilities of each of some synthetic backgrounds (noise, hum, fans): one row each.
///
/// # Errors
/// As [`priors`].
pub fn backgrounds() -> Result<Vec<Vec<f32>>> {
    let classes = probabilities(include_str!("background.csv")).context("crates/claptune/src/mini/background.csv")?;
    let count = classes.first().map_or(0, Vec::len);
    Ok((0..count).map(|j| classes.iter().map(|row| row[j]).collect()).collect())
}

/// Lines of `index,probability,...` under a head line, one for each class in order.
fn probabilities(text: &str) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = vec![];
    for line in text.lines().skip(1) {
        let (index, rest) = line.split_once(',').context("a line without a comma")?;
        ensure!(index == rows.len().to_string(), "line {} begins with {index}", rows.len());
        let row = rest.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>();
        let row = row.with_context(|| format!("class {index}"))?;
        ensure!(row.iter().all(|p| (0.0..=1.0).contains(p)), "class {index} has numbers outside 0 to 1");
        ensure!(rows.first().is_none_or(|first| first.len() == row.len()), "class {index} has {} numbers", row.len());
        rows.push(row);
    }
    ensure!(rows.len() == CLASSES, "it has {} classes, not {CLASSES}", rows.len());
    Ok(rows)
}
