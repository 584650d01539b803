//! `bundle.toml`: what a bundle says of itself.
//!
//! [`Manifest::parse`] reads the file's text and names all its faults at once; every field of what it gives is within
//! bounds.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::dsp::{FrontendSpec, LogScale, MelNorm, MelScale, MelTriangles, ShortClipPolicy, Spectrum};
use crate::files::sha256_hex;
use crate::level::LevelRange;
use crate::score::Calibration;

/// See [`Manifest::recordings_scale`].
const RECORDINGS_OF_FORMAT_1: &str = include_str!("recordings_of_format_1.toml");

/// The newest format that this version reads; it reads the older ones, too. Format 2 came with `[recordings]`, format 3 with `[level]`,
/// tables that may be absent.
pub const FORMAT: u32 = 3;
/// Raised whenever our own code changes a score for the same bundle and sound.
pub(super) const CODE_REVISION: u32 = 1;

/// A patch of CLAP has 4 x 1001 x 64 numbers; eight times that leaves room for models to come, and bounds memory.
const MAX_INPUT: usize = 2 << 20;
/// CLAP's embeddings have 512 numbers, AudioSet has 527 classes.
const MAX_OUTPUT: usize = 8192;
/// Longest text, in tokens: 77 in CLAP, 512 in the longest BERT.
const MAX_TOKENS: usize = 512;
/// A window of more patches than this would be minutes long.
const MAX_PATCHES: usize = 256;

/// Levels of sounds: what 24 bits resolve, to full scale.
const LEVELS_DB: std::ops::RangeInclusive<f32> = -144.0..=0.0;

/// A bundle's identity and everything that decides its scores, as written in `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, at most [`FORMAT`].
    pub format: u32,
    /// ShortClipPolicy name, such as `mini`.
    pub name: String,
    /// Version of the content.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// SPDX expression for the weights.
    pub licence: String,
    /// Family of the network, for people and reports; nothing on the device branches on it.
    pub encoder: String,
    /// [`Manifest::computed_pipeline_id`], as the writer found it.
    pub pipeline_id: String,
    /// Where the weights came from.
    #[serde(default)]
    pub source: Vec<WeightsSource>,
    /// From samples to log-mel patches.
    pub frontend: FrontendTable,
    /// From patches to windows.
    pub window: WindowTable,
    /// The audio tower: a patch in, features out.
    pub audio: AudioTable,
    /// From the mean features of a window's patches to its embedding; absent where that is the identity.
    pub pool: Option<PoolTable>,
    /// The text tower: tokens in, an embedding out.
    pub text: TextTable,
    /// From cosine to score.
    pub calibration: CalibrationTable,
    /// How prompts with recordings are scored; absent where nobody measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<RecordingsTable>,
    /// The levels at which the model hears; absent where nobody measured them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LevelTable>,
    /// Measured quality, for the card; free in form.
    #[serde(default)]
    pub quality: toml::Table,
}

/// Where weights came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSource {
    /// Name of the package, repository or file.
    pub name: String,
    /// Its version, where it has one.
    #[serde(default)]
    pub version: String,
    /// Its hash, hexadecimal.
    pub sha256: String,
    /// Its licence, an SPDX expression.
    pub licence: String,
}

/// [`FrontendSpec`] as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are FrontendSpec's, documented there")]
pub struct FrontendTable {
    pub sample_rate: u32,
    pub window_length: usize,
    pub fft_length: usize,
    pub hop_length: usize,
    pub centered: bool,
    pub spectrum: SpectrumName,
    pub mel_bins: usize,
    pub mel_scale: MelScaleName,
    pub mel_triangles: MelTrianglesName,
    pub mel_norm: MelNormName,
    pub f_min: f64,
    pub f_max: f64,
    pub log: LogTable,
    pub patch_frames: usize,
    pub short: ShortClipPolicyName,
}

/// An enumeration of `dsp` and its names in the file, in one place.
macro_rules! names {
    ($name:ident = $domain:ident { $($variant:ident),+ }) => {
        #[doc = concat!("[`", stringify!($domain), "`] as written, in snake case.")]
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "the variants are documented where they are defined")]
        pub enum $name { $($variant),+ }
        impl From<$name> for $domain {
            fn from(name: $name) -> Self { match name { $($name::$variant => Self::$variant),+ } }
        }
        impl From<$domain> for $name {
            fn from(domain: $domain) -> Self { match domain { $($domain::$variant => Self::$variant),+ } }
        }
    };
}
names!(SpectrumName = Spectrum { Magnitude, Power });
names!(MelScaleName = MelScale { Htk, Slaney });
names!(MelTrianglesName = MelTriangles { Hz, Mel });
names!(MelNormName = MelNorm { None, Slaney });
names!(ShortClipPolicyName = ShortClipPolicy { RepeatPad, ZeroPad });

/// [`LogScale`] as written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "documented at LogScale")]
pub enum LogTable {
    Decibel { floor: f64 },
    NaturalOffset { offset: f64 },
}

/// How patches make windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowTable {
    /// Samples from one patch to the next; 0 where a window is one patch, taken anywhere.
    pub patch_hop: usize,
    /// Patches in a full window.
    pub patches: usize,
}

/// The audio tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioTable {
    /// Name of the graph's file inside the bundle.
    pub file: String,
    /// Hash of that file, hexadecimal.
    pub sha256: String,
    /// Shape of the input: `[1, copies, frames, mels]`.
    pub input: Vec<usize>,
    /// Features a patch.
    pub output: usize,
    /// How the weights are stored.
    pub precision: String,
    /// Copies of the patch in the input's second axis: 4 for a fused CLAP, else 1.
    pub copies: usize,
    /// What a fused CLAP was told of a clip's length; recorded because it moves every score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_longer: Option<bool>,
}

/// The pooling graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolTable {
    /// Name of the graph's file inside the bundle.
    pub file: String,
    /// Hash of that file, hexadecimal.
    pub sha256: String,
}

/// The text tower and its tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextTable {
    /// Name of the graph's file inside the bundle.
    pub file: String,
    /// Hash of that file, hexadecimal.
    pub sha256: String,
    /// How the weights are stored.
    pub precision: String,
    /// Length of an embedding.
    pub output: usize,
    /// Name of the tokenizer's file inside the bundle.
    pub tokenizer: String,
    /// Hash of that file, hexadecimal.
    pub tokenizer_sha256: String,
    /// Longest text in tokens, special ones included; longer texts are cut there.
    pub max_tokens: usize,
    /// Token that fills the rest of a graph with a fixed length.
    pub pad_id: u32,
    /// Coverage below which a prompt is outside what the model knows; absent where the tower does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_min: Option<f32>,
}

/// The curve from cosine to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationTable {
    /// `[cosine, score]`, rising.
    pub points: Vec<[f32; 2]>,
}

/// Where prompts with recordings stand on the human scale.
///
/// Two sounds are nearer to each other than a sound and a sentence, so that the curve of the texts would give recordings far too
/// high a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingsTable {
    /// Name of the bundle that it was measured with. A bundle that is made from that one keeps the table as the nearest there is.
    pub measured_with: String,
    /// Share of the text, 0 to 1, where a prompt has both.
    pub text_share: f32,
    /// `[cosine, score]`, rising, for recordings alone.
    pub points: Vec<[f32; 2]>,
    /// The same for recordings beside a text.
    pub points_with_text: Vec<[f32; 2]>,
}

/// [`LevelRange`] as written. It is no part of the pipeline's id: without a gain it changes no score, and a gain is the user's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are LevelRange's, documented there")]
pub struct LevelTable {
    pub faint_db: f32,
    pub clear_db: f32,
}

impl From<&FrontendTable> for FrontendSpec {
    fn from(t: &FrontendTable) -> Self {
        Self {
            sample_rate: t.sample_rate,
            window_length: t.window_length,
            fft_length: t.fft_length,
            hop_length: t.hop_length,
            centered: t.centered,
            spectrum: t.spectrum.into(),
            mel_bins: t.mel_bins,
            mel_scale: t.mel_scale.into(),
            mel_triangles: t.mel_triangles.into(),
            mel_norm: t.mel_norm.into(),
            f_min: t.f_min,
            f_max: t.f_max,
            log: match t.log {
                LogTable::Decibel { floor } => LogScale::Decibel { floor },
                LogTable::NaturalOffset { offset } => LogScale::NaturalOffset { offset },
            },
            patch_frames: t.patch_frames,
            short: t.short.into(),
        }
    }
}

impl From<&FrontendSpec> for FrontendTable {
    fn from(s: &FrontendSpec) -> Self {
        Self {
            sample_rate: s.sample_rate,
            window_length: s.window_length,
            fft_length: s.fft_length,
            hop_length: s.hop_length,
            centered: s.centered,
            spectrum: s.spectrum.into(),
            mel_bins: s.mel_bins,
            mel_scale: s.mel_scale.into(),
            mel_triangles: s.mel_triangles.into(),
            mel_norm: s.mel_norm.into(),
            f_min: s.f_min,
            f_max: s.f_max,
            log: match s.log {
                LogScale::Decibel { floor } => LogTable::Decibel { floor },
                LogScale::NaturalOffset { offset } => LogTable::NaturalOffset { offset },
            },
            patch_frames: s.patch_frames,
            short: s.short.into(),
        }
    }
}

impl Manifest {
    /// Reads and checks the text of a `bundle.toml`.
    ///
    /// # Errors
    /// A newer format, a missing or unknown key, or values out of bounds; of the last, all are named.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct FormatNumber {
            format: u32,
        }
        let header: FormatNumber = toml::from_str(text).context("no readable `format` number")?;
        ensure!(
            (1..=FORMAT).contains(&header.format),
            "format {} is not readable by this version, which reads formats 1 to {FORMAT}; update clapd or export the bundle anew",
            header.format
        );
        let manifest: Self = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Hash over everything that can change a score: front end, windows, graphs, tokenizer and curves.
    pub fn computed_pipeline_id(&self) -> String {
        let id = self.id_without_recordings();
        self.recordings.as_ref().map_or_else(|| id.clone(), |recordings| hash_of(&(&id, recordings)))
    }

    /// The same without the table of recordings, which changes no embedding and is younger than many a bundle's id.
    pub(super) fn id_without_recordings(&self) -> String {
        let text = &self.text;
        hash_of(&(
            (&self.frontend, &self.window, &self.calibration),
            (&self.audio.sha256, &self.audio.input, self.audio.copies, self.audio.is_longer),
            self.pool.as_ref().map(|pool| &pool.sha256),
            (&text.sha256, &text.tokenizer_sha256, text.max_tokens, text.pad_id),
        ))
    }

    /// Where prompts with recordings stand on the scale: as the bundle says, or, for a bundle of format 1, as programs of its time
    /// had it, so that its scores stay what they were. None where a bundle of format 2 does not say.
    ///
    /// # Errors
    /// None: what is read is a part of the program, and a test reads it.
    pub fn recordings_scale(&self) -> Result<Option<Cow<'_, RecordingsTable>>> {
        match &self.recordings {
            Some(table) => Ok(Some(Cow::Borrowed(table))),
            None if self.format == 1 => {
                Ok(Some(Cow::Owned(toml::from_str(RECORDINGS_OF_FORMAT_1).context("recordings_of_format_1.toml")?)))
            }
            None => Ok(None),
        }
    }

    /// Whether it was measured with this very bundle where prompts with recordings stand on the scale.
    pub fn has_measured_recordings(&self) -> bool {
        self.recordings_scale().is_ok_and(|scale| scale.is_some_and(|scale| scale.measured_with == self.name))
    }

    /// The levels at which the model hears; none where nobody measured them.
    pub fn level_range(&self) -> Option<LevelRange> {
        let LevelTable { faint_db, clear_db } = *self.level.as_ref()?;
        Some(LevelRange { faint_db, clear_db })
    }

    /// Length of an embedding, audio's and text's.
    pub fn embedding_len(&self) -> usize {
        self.text.output
    }

    fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        self.check_shapes(&mut faults);
        self.check_files(&mut faults);
        if let Err(error) = FrontendSpec::from(&self.frontend).validate() {
            faults.push(format!("[frontend] {error:#}"));
        }
        if let Err(error) = Calibration::new(self.calibration.points.clone()) {
            faults.push(format!("[calibration] {error:#}"));
        }
        if let Some(recordings) = &self.recordings {
            check_recordings(recordings, &mut faults);
        }
        if let Some(LevelTable { faint_db, clear_db }) = &self.level
            && !(LEVELS_DB.contains(faint_db) && LEVELS_DB.contains(clear_db) && faint_db <= clear_db)
        {
            faults.push(format!(
                "[level] has faint_db {faint_db} and clear_db {clear_db}; both are from {} to {}, the first not above the second",
                LEVELS_DB.start(),
                LEVELS_DB.end()
            ));
        }
        let id = self.computed_pipeline_id();
        if self.pipeline_id != id {
            faults.push(format!(
                "pipeline_id is {:?} but the content makes {id:?}; export the bundle anew",
                self.pipeline_id
            ));
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("\n  "));
        }
        Ok(())
    }

    fn check_shapes(&self, faults: &mut Vec<String>) {
        let expected = [1, self.audio.copies, self.frontend.patch_frames, self.frontend.mel_bins];
        let numbers = expected.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        if self.audio.input != expected {
            faults.push(format!(
                "audio.input is {:?}; with this front end and copies it must be {expected:?}",
                self.audio.input
            ));
        }
        if !numbers.is_some_and(|n| (1..=MAX_INPUT).contains(&n)) {
            faults.push(format!("audio.input {expected:?} has too many numbers; 1 to {MAX_INPUT} are allowed"));
        }
        for (key, seen, most) in [
            ("audio.output", self.audio.output, MAX_OUTPUT),
            ("text.output", self.text.output, MAX_OUTPUT),
            ("text.max_tokens", self.text.max_tokens, MAX_TOKENS),
            ("window.patches", self.window.patches, MAX_PATCHES),
        ] {
            if seen == 0 || seen > most {
                faults.push(format!("{key} is {seen}; 1 to {most} are allowed"));
            }
        }
        if self.pool.is_none() && self.audio.output != self.text.output {
            faults.push(format!(
                "audio.output is {} and text.output {}; without a [pool] they must be equal",
                self.audio.output, self.text.output
            ));
        }
        let hop = self.frontend.hop_length.max(1);
        if !self.window.patch_hop.is_multiple_of(hop) || self.window.patch_hop > self.frontend.sample_rate as usize * 60
        {
            faults.push(format!(
                "window.patch_hop is {}; it must be a multiple of frontend.hop_length ({hop}) of at most a minute",
                self.window.patch_hop
            ));
        }
        if self.window.patch_hop == 0 && self.window.patches != 1 {
            faults.push(format!("window.patches is {} but window.patch_hop is 0; give the hop", self.window.patches));
        }
    }

    fn check_files(&self, faults: &mut Vec<String>) {
        let files = [
            ("audio.file", &self.audio.file),
            ("text.file", &self.text.file),
            ("text.tokenizer", &self.text.tokenizer),
        ];
        let pool = self.pool.as_ref().map(|pool| ("pool.file", &pool.file));
        for (key, file) in files.into_iter().chain(pool) {
            // Only names beside bundle.toml: a bundle from elsewhere must not make us open anything outside it.
            let plain = !file.is_empty()
                && !file.starts_with('.')
                && file.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            if !plain {
                faults.push(format!(
                    "{key} is {file:?}; a plain file name of letters, digits, `.`, `_` and `-` is allowed"
                ));
            }
        }
    }
}

fn check_recordings(table: &RecordingsTable, faults: &mut Vec<String>) {
    if !(0.0..=1.0).contains(&table.text_share) {
        faults.push(format!("recordings.text_share is {}; 0 to 1 are allowed", table.text_share));
    }
    for (key, points) in [("points", &table.points), ("points_with_text", &table.points_with_text)] {
        if let Err(error) = Calibration::new(points.clone()) {
            faults.push(format!("recordings.{key}: {error:#}"));
        }
    }
}

fn hash_of(material: &impl Serialize) -> String {
    // Serialisation of plain numbers and strings cannot fail; an empty text would still only fail the comparison.
    sha256_hex(&serde_json::to_vec(material).unwrap_or_default())
}
