//! What the default model consists of besides its networks: captions, class priors and a few numbers.
//!
//! In: the data files beside this one. Out: typed and checked.
//! Never: holds a number of its own; each stands, with its reason, in `method.toml`.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::tune::net::yamnet::CLASSES;

/// `method.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Version of the bundle's content.
    pub version: String,
    /// The shared space.
    pub space: SpaceMethod,
    /// From mean class probabilities to an embedding.
    pub pool: PoolMethod,
    /// From a sentence embedding to the same space.
    pub text: TextMethod,
    /// How patches make windows.
    pub window: Window,
    /// Cosine to score.
    pub calibration: Calibration,
    /// Measurements, for the card.
    #[serde(default)]
    pub quality: toml::Table,
}

/// What both towers agree on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceMethod {
    /// Share of the classes in the agreement; the rest is the direction among sentences.
    pub class_share: f64,
}

/// Weight of class c: p^power / prior^prior_power.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMethod {
    /// Exponent of the probability.
    pub power: f64,
    /// Exponent of the prior.
    pub prior_power: f64,
    /// Length of the part that says "nothing is heard clearly", beside that of the classes.
    pub unclear: f64,
}

/// Whitened similarity to the best caption of each class, to a power.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextMethod {
    /// Added to the eigenvalues of the captions' covariance, as a share of the largest.
    pub ridge: f64,
    /// Exponent of the similarity.
    pub power: f64,
    /// The similarity that the part which says "no caption says this" stands for.
    pub silent_similarity: f64,
    /// Best similarity below which a prompt is not covered.
    pub coverage_min: f32,
    /// Longest prompt, in tokens.
    pub max_tokens: usize,
}

/// How patches make windows.
    pub window: Window,
    /// Cosine to score.
    pub calibration: Calibration,
    /// Measurements, for the card.
    #[serde(default)]
    pub quality: toml::Table,
}

/// Weight of class c: p^power / prior^prior_power.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMethod {
    /// Exponent of the probability.
    pub power: f64,
    /// Exponent of the prior.
    pub prior_power: f64,
}

/// Whitened similarity to each class's captions, then a softmax over the best classes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextMethod {
    /// Added to the eigenvalues of the captions' covariance, as a share of the largest.
    pub whitening_floor: f64,
    /// Temperature of the softmax.
    pub temperature: f64,
    /// Classes that a prompt may name.
    pub top: usize,
    /// Best similarity below which a prompt is not covered.
    pub coverage_min: f32,
    /// Longest prompt, in tokens.
    pub max_tokens: usize,
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
        toml::from_str(include_str!("method.toml")).context("src/tune/mini/method.toml")
    }
}

/// The captions of all classes, in the checkpoint's order.
///
/// # Errors
/// Classes that are missing, or that the checkpoint calls by other names.
pub fn classes(class_map: &[u8]) -> Result<Vec<Class>> {
    #[derive(Deserialize)]
    struct File {
        class: Vec<Class>,
    }
    let file: File = toml::from_str(include_str!("captions.toml")).context("src/tune/mini/captions.toml")?;
    let names = display_names(class_map)?;
    ensure!(file.class.len() == names.len(), "{} classes have captions, not {}", file.class.len(), names.len());
    for (i, (class, name)) in file.class.iter().zip(&names).enumerate() {
        ensure!(class.name == *name, "class {i} is called {name:?} by the checkpoint and {:?} here", class.name);
        ensure!(!class.captions.is_empty(), "class {i} ({name}) has no caption");
    }
    Ok(file.class)
}

/// The third column of YAMNet's class map, which is quoted where it holds a comma.
fn display_names(class_map: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(class_map).context("the class map is not UTF-8")?;
    let names: Option<Vec<String>> =
        text.lines().skip(1).map(|line| line.splitn(3, ',').nth(2).map(|n| n.trim().trim_matches('"').into())).collect();
    let names = names.context("a line of the class map has fewer than three columns")?;
    ensure!(names.len() == CLASSES, "the class map has {} classes, not {CLASSES}", names.len());
    Ok(names)
}

/// The mean probability of every class over sound of all kinds: lines of `index,name,prior`.
///
/// # Errors
/// Lines that are missing, out of order, or no probability.
pub fn priors() -> Result<Vec<f32>> {
    let mut priors = vec![];
    for line in include_str!("priors.csv").lines().filter(|l| !l.starts_with('#')).skip(1) {
        // The name in between may hold commas.
        let (index, prior) = (line.split(',').next(), line.rsplit(',').next());
        match (index.and_then(|i| i.parse::<usize>().ok()), prior.and_then(|p| p.parse::<f32>().ok())) {
            (Some(index), Some(prior)) if index == priors.len() && prior > 0.0 && prior <= 1.0 => priors.push(prior),
            _ => bail!("src/tune/mini/priors.csv: `{line}` is not `{},name,` and a number of 0 to 1", priors.len()),
        }
    }
    ensure!(priors.len() == CLASSES, "src/tune/mini/priors.csv has {} classes, not {CLASSES}", priors.len());
    Ok(priors)
}
