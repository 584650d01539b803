//! What stands before the towers: `preprocessor_config.json` and the tokenizer's files become a front end for the
//! device and one tokenizer.json.
//!
//! All rates, hops and frequencies are read, none assumed, and a setting that the device can't follow is refused.
//!
//! Reference: transformers 5.23, models/clap/feature_extraction_clap.py.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_core::dsp::{FrontendSpec, ShortClipPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::stored_tensor::read_text;

/// A preprocessor_config.json has 500 bytes.
const MAX_SETTINGS: u64 = 1 << 20;
/// RoBERTa's tokenizer.json has 2.2 MB, its vocab.json 0.8 MB, its merges.txt 0.5 MB.
const MAX_TOKENIZER: u64 = 32 << 20;

/// The settings that decide a patch. Defaults: `ClapFeatureExtractor.__init__`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    feature_size: usize,
    sampling_rate: u32,
    hop_length: usize,
    max_length_s: usize,
    fft_window_size: usize,
    frequency_min: f64,
    frequency_max: f64,
    top_db: Value,
    truncation: String,
    padding: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            feature_size: 64,
            sampling_rate: 48_000,
            hop_length: 480,
            max_length_s: 10,
            fft_window_size: 1024,
            frequency_min: 0.0,
            frequency_max: 14_000.0,
            top_db: Value::Null,
            truncation: "fusion".into(),
            padding: "repeatpad".into(),
            rest: BTreeMap::new(),
        }
    }
}

/// Keys that the extractor does not use for a single clip.
const WITHOUT_EFFECT: [&str; 6] = [
    "_processor_class",
    "feature_extractor_type",
    "padding_side",
    "padding_value",
    "processor_class",
    "return_attention_mask",
];

/// The front end of a processor's folder, and whether its features are for a fused model.
///
/// # Errors
/// A folder without settings, or the list of all settings that the device can't follow.
pub fn frontend(folder: &Path) -> Result<(FrontendSpec, bool)> {
    let path = folder.join("preprocessor_config.json");
    let combined = folder.join("processor_config.json");
    let settings: Settings = if path.is_file() {
        serde_json::from_str(&read_text(&path, MAX_SETTINGS)?).with_context(|| path.display().to_string())?
    } else if combined.is_file() {
        let mut whole: Value = serde_json::from_str(&read_text(&combined, MAX_SETTINGS)?)?;
        serde_json::from_value(whole["feature_extractor"].take()).with_context(|| combined.display().to_string())?
    } else {
        bail!(
            "{} holds no preprocessor_config.json, which says how the model's mel spectrogram is made; name a folder or \
             repository that has it with --processor (for Human-CLAP: laion/clap-htsat-fused)",
            folder.display()
        );
    };
    let path = if path.is_file() { path } else { combined };
    settings.frontend().with_context(|| format!("{} is at fault", path.display()))
}

impl Settings {
    fn frontend(&self) -> Result<(FrontendSpec, bool)> {
        let samples = self.max_length_s.saturating_mul(self.sampling_rate as usize);
        let mut faults = self.contradictions(samples);
        if self.hop_length == 0 || !samples.is_multiple_of(self.hop_length.max(1)) {
            faults
                .push(format!("hop_length is {}; a whole number of hops must make {samples} samples", self.hop_length));
        }
        if !self.top_db.is_null() {
            faults.push(format!("top_db is {}; the device sets no such limit", self.top_db));
        }
        let (fused, spec) = match self.truncation.as_str() {
            "fusion" => (true, FrontendSpec::clap_fused()),
            "rand_trunc" => (false, FrontendSpec::clap_unfused()),
            other => {
                faults.push(format!("truncation is {other:?}; \"fusion\" or \"rand_trunc\" is known here"));
                (true, FrontendSpec::clap_fused())
            }
        };
        let short = match self.padding.as_str() {
            "repeatpad" => ShortClipPolicy::RepeatPad,
            "pad" => ShortClipPolicy::ZeroPad,
            other => {
                faults.push(format!("padding is {other:?}; \"repeatpad\" or \"pad\" is known here"));
                ShortClipPolicy::RepeatPad
            }
        };
        if !faults.is_empty() {
            bail!("{}", faults.join("\n  "));
        }
        let spec = FrontendSpec {
            sample_rate: self.sampling_rate,
            window_length: self.fft_window_size,
            fft_length: self.fft_window_size,
            hop_length: self.hop_length,
            mel_bins: self.feature_size,
            f_min: self.frequency_min,
            f_max: self.frequency_max,
            patch_frames: samples / self.hop_length + 1,
            short,
            ..spec
        };
        spec.validate().map_err(|e| anyhow!("{}", in_their_words(&e.to_string())))?;
        Ok((spec, fused))
    }

    /// Keys that are not known, and keys that repeat what others say and say otherwise. LAION's published settings hold more
    /// of the latter than transformers writes today.
    fn contradictions(&self, samples: usize) -> Vec<String> {
        let implied: [(&str, &str, usize); 5] = [
            ("nb_max_samples", "max_length_s and sampling_rate make it", samples),
            ("nb_max_frames", "max_length_s, sampling_rate and hop_length make it", samples / self.hop_length.max(1)),
            ("nb_frequency_bins", "fft_window_size makes it", self.fft_window_size / 2 + 1),
            ("n_fft", "fft_window_size is", self.fft_window_size),
            ("chunk_length_s", "max_length_s is", self.max_length_s),
        ];
        let mut faults = vec![];
        for (key, value) in &self.rest {
            match implied.iter().find(|(name, ..)| name == key) {
                Some((_, why, wanted)) if value.as_f64() != Some(*wanted as f64) => {
                    faults.push(format!("{key} is {value}, but {why} {wanted}"));
                }
                None if !WITHOUT_EFFECT.contains(&key.as_str()) => {
                    faults.push(format!("{key} is {value}; this key is not known"));
                }
                _ => {}
            }
        }
        faults
    }
}

/// What is said of a front end's fields, said of the keys that they come from.
fn in_their_words(message: &str) -> String {
    let words = [
        ("frontend.sample_rate", "sampling_rate"),
        ("frontend.fft_length", "fft_window_size"),
        ("frontend.window_length", "fft_window_size"),
        ("window_length", "fft_window_size"),
        ("frontend.hop_length", "hop_length"),
        ("frontend.mel_bins", "feature_size"),
        ("mel_bins", "feature_size"),
        ("frontend.f_min", "frequency_min"),
        ("f_min", "frequency_min"),
        ("f_max", "frequency_max"),
        ("frontend.patch_frames", "the number of frames that max_length_s makes"),
    ];
    words.iter().fold(message.to_string(), |text, (ours, theirs)| text.replace(ours, theirs))
}

/// The tokenizer.json of the first of these folders that has one, or one made of its vocab.json and merges.txt.
///
/// # Errors
/// Folders without a tokenizer, or a tokenizer that does not fit the network's vocabulary.
pub fn tokenizer(folders: &[&Path], vocabulary: usize, pad_id: usize) -> Result<Vec<u8>> {
    for folder in folders {
        let path = folder.join("tokenizer.json");
        if path.is_file() {
            let text = read_text(&path, MAX_TOKENIZER)?;
            check(&text, vocabulary, pad_id).with_context(|| path.display().to_string())?;
            return Ok(text.into_bytes());
        }
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if vocab.is_file() && merges.is_file() {
            let text = assemble(&read_text(&vocab, MAX_TOKENIZER)?, &read_text(&merges, MAX_TOKENIZER)?)
                .with_context(|| format!("making a tokenizer of {} and merges.txt", vocab.display()))?;
            check(&text, vocabulary, pad_id).with_context(|| vocab.display().to_string())?;
            return Ok(text.into_bytes());
        }
    }
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    bail!(
        "no tokenizer: neither tokenizer.json nor vocab.json with merges.txt is in {}; name a folder or repository that has \
         one with --processor",
        looked.join(" or ")
    )
}

/// Every token must have a row in the embedding table, and padding must be the token that positions pass over.
fn check(text: &str, vocabulary: usize, pad_id: usize) -> Result<()> {
    let tokenizer: Value = serde_json::from_str(text).context("it is no JSON")?;
    let model = tokenizer["model"]["vocab"].as_object().into_iter().flatten();
    let mut ids: BTreeMap<&str, u64> = model.filter_map(|(word, id)| Some((word.as_str(), id.as_u64()?))).collect();
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        ids.extend(token["content"].as_str().zip(token["id"].as_u64()));
    }
    ensure!(!ids.is_empty(), "it has no vocabulary");
    if let Some((word, id)) = ids.iter().find(|(_, id)| **id >= vocabulary as u64) {
        bail!("its token {word:?} has the id {id}, the network's vocabulary {vocabulary} tokens");
    }
    let pad = ids.get("<pad>");
    ensure!(
        pad == Some(&(pad_id as u64)),
        "its token <pad> has the id {pad:?}, config.json's pad_token_id is {pad_id}"
    );
    Ok(())
}

/// RoBERTa's tokenizer as the tokenizers library writes it: byte-level BPE, `<s>` and `</s>` around a text.
fn assemble(vocab: &str, merges: &str) -> Result<String> {
    let vocab: BTreeMap<String, u64> = serde_json::from_str(vocab).context("vocab.json")?;
    let merges: Vec<&str> = merges.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
    let mut added = vec![];
    for word in ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] {
        let id = vocab.get(word).with_context(|| format!("vocab.json has no token {word}"))?;
        // `<mask>` takes the space before it along.
        added
            .push(json!({"id": id, "content": word, "single_word": false, "lstrip": word == "<mask>", "rstrip": false,
            "normalized": word == "<mask>", "special": true}));
    }
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "decoder": level,
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", vocab["</s>"]], "cls": ["<s>", vocab["<s>"]],
            "trim_offsets": true, "add_prefix_space": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    Ok(whole.to_string())
}
