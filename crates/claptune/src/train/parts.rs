//! Parts of a model as patterns of its parameters' paths: which are trained, and which faster.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use burn::module::{Flag, Module, ModuleMapper, Param};
use serde::{Deserialize, Serialize};

use super::optimizer::RateGroup;

/// A part that can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FreezablePart {
    /// The audio tower.
    Audio,
    /// The audio tower's input and its first so many stages.
    AudioBelow(usize),
    /// The text tower.
    Text,
    /// The text tower's embeddings and its first so many layers.
    TextBelow(usize),
    /// Both temperatures.
    Temperature,
}

impl FreezablePart {
    /// Checks the number of layers against a model's.
    ///
    /// # Errors
    /// More than the model has.
    pub fn check(self, stages: usize, layers: usize) -> Result<()> {
        let (count, most, what) = match self {
            Self::AudioBelow(count) => (count, stages, "stages in the audio tower"),
            Self::TextBelow(count) => (count, layers, "layers in the text tower"),
            _ => return Ok(()),
        };
        ensure!(count <= most, "--freeze {self}: the model has {most} {what}");
        Ok(())
    }
}

impl FromStr for FreezablePart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count.parse().ok().filter(|count| *count > 0))),
            None => (text, None),
        };
        match (name, count) {
            ("audio", None) => Ok(Self::Audio),
            ("audio", Some(Some(count))) => Ok(Self::AudioBelow(count)),
            ("text", None) => Ok(Self::Text),
            ("text", Some(Some(count))) => Ok(Self::TextBelow(count)),
            ("temperature", None) => Ok(Self::Temperature),
            _ => Err(format!(
                "{text:?} is no part: audio, text and temperature are, and audio:2 for the first 2 stages, text:6 for the first \
                 6 layers"
            )),
        }
    }
}

impl fmt::Display for FreezablePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audio => f.write_str("audio"),
            Self::AudioBelow(count) => write!(f, "audio:{count}"),
            Self::Text => f.write_str("text"),
            Self::TextBelow(count) => write!(f, "text:{count}"),
            Self::Temperature => f.write_str("temperature"),
        }
    }
}

impl TryFrom<String> for FreezablePart {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FreezablePart> for String {
    fn from(part: FreezablePart) -> Self {
        part.to_string()
    }
}

/// Patterns of what a part holds.
pub fn frozen(part: FreezablePart) -> Vec<String> {
    let first = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>().join("|");
    match part {
        FreezablePart::Audio => vec![r"^audio\.".into()],
        FreezablePart::AudioBelow(count) => vec![
            r"^audio\.(batch_norm|patch|fusion|patch_norm)\.".into(),
            format!(r"^audio\.stages\.({})\.", first(count)),
        ],
        FreezablePart::Text => vec![r"^text\.".into()],
        FreezablePart::TextBelow(count) => vec![
            r"^text\.bert\.(words|positions|types|norm)\b".into(),
            format!(r"^text\.bert\.layers\.({})\.", first(count)),
        ],
        FreezablePart::Temperature => vec![r"^(audio|text)_scale$".into()],
    }
}

/// Rates by tower and layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerRates {
    /// The text tower's, over the audio tower's.
    pub text: f64,
    /// Each layer's, over the one behind it; 1 for the same everywhere.
    pub layer_decay: f64,
}

impl Default for LayerRates {
    fn default() -> Self {
        Self { text: 1.0, layer_decay: 1.0 }
    }
}

impl LayerRates {
    /// For so many stages in the audio tower and layers in the text tower.
    pub fn groups(&self, stages: usize, layers: usize) -> Vec<RateGroup> {
        let mut groups = vec![];
        for (tower, layer, depth, factor) in
            [("audio", "stages", stages, 1.0), ("text", r"bert\.layers", layers, self.text)]
        {
            let decayed = |distance: usize| factor * self.layer_decay.powi(i32::try_from(distance).unwrap_or(i32::MAX));
            // What is before all layers; then the layers; then what is behind them.
            groups.push((format!(r"^{tower}\."), decayed(depth + 1)));
            for i in 0..depth {
                groups.push((format!(r"^{tower}\.{layer}\.{i}\."), decayed(depth - i)));
            }
            groups.push((format!(r"^{tower}\.(norm|pooler|projection)\."), decayed(0)));
        }
        groups
    }
}

/// The module with batch norms that keep their statistics: a fine-tuning's batches are too small and too alike to be taken for
/// the world. Their factors and summands are still trained.
pub fn freeze_batch_statistics<M: Module>(module: M) -> M {
    struct FreezeStatistics;
    impl ModuleMapper for FreezeStatistics {
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.with_value(false)
        }
    }
    module.map(&mut FreezeStatistics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_it_is_written() {
        for text in ["audio", "audio:3", "text", "text:8", "temperature"] {
            assert_eq!(text.parse::<FreezablePart>().unwrap().to_string(), text);
        }
        for text in ["", "audio:0", "audio:x", "heads", "temperature:1"] {
            assert!(text.parse::<FreezablePart>().unwrap_err().contains("is no part"), "{text}");
        }
        assert!(FreezablePart::TextBelow(3).check(4, 2).unwrap_err().to_string().contains("2 layers"));
    }
}
