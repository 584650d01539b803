//! `config.json` of a `ClapModel`: what it says of both towers, or all that is wrong with it.
//!
//! A key that is not known is a fault: what it means could decide whether embeddings are right.
//!
//! Keys and defaults: transformers 5.23, models/clap/configuration_clap.py. Keys of older versions are known too.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::net::bert::BertConfig;
use crate::net::htsat::HtsatConfig;
use crate::net::projection::{Activation, ProjectionConfig};
use crate::net::roberta::RobertaConfig;

/// The largest known config.json, with all the keys of older versions, has 6 KB.
pub const MAX_CONFIG: u64 = 1 << 20;
/// Tokens of a text, special ones included: what CLAP was trained with (LAION's training code cuts at 77).
pub const MAX_TOKENS: usize = 77;
/// The parameters of the text tower: RoBERTa-large has 355 M.
const MAX_PARAMETERS: usize = 512 << 20;
/// Walls against absurd sizes of the text tower; each is twice or more what the largest RoBERTa, XLM-R XXL, has.
const TEXT_MAX: [(&str, usize); 7] = [
    ("vocab_size", 1 << 20),
    ("max_position_embeddings", 1 << 16),
    ("type_vocab_size", 1 << 8),
    ("hidden_size", 1 << 14),
    ("num_hidden_layers", 96),
    ("num_attention_heads", 1 << 8),
    ("intermediate_size", 1 << 16),
];

/// Both towers.
#[derive(Clone, Debug)]
pub struct ClapConfig {
    /// The audio tower.
    pub audio: HtsatConfig,
    /// The text tower.
    pub text: RobertaConfig,
    /// The text tower's padding token.
    pub pad_id: usize,
    /// Rows of the checkpoint's position table; the network keeps as many as [`MAX_TOKENS`] needs.
    pub positions: usize,
}

/// Keys that change nothing about an embedding: of training, of generation, of bookkeeping. `PreTrainedConfig` of
/// transformers 4 wrote all of its own into each part.
const WITHOUT_EFFECT: &str = "_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures \
    attention_probs_dropout_prob attn_implementation audio_config_dict bad_words_ids begin_suppress_tokens bos_token_id \
    classifier_dropout cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample drop_path_rate dtype \
    early_stopping enable_patch_fusion encoder_no_repeat_ngram_size eos_token_id \
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id fusion_hidden_act \
    fusion_num_hidden_layers hidden_dropout_prob id2label initializer_factor initializer_range is_composition label2id \
    length_penalty logit_scale_init_value max_length min_length no_repeat_ngram_size num_beam_groups num_beams \
    num_classes num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type \
    projection_hidden_size pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate \
    sep_token_id suppress_tokens task_specific_params temperature text_config_dict tf_legacy_loss tie_encoder_decoder \
    tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p \
    use_bfloat16 use_cache";

/// One table of the file: keys are taken out of it, and what is left is a fault.
struct ConfigTable<'a> {
    name: &'static str,
    keys: Map<String, Value>,
    faults: &'a mut Vec<String>,
}

impl ConfigTable<'_> {
    fn get<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        match self.keys.remove(key) {
            None => default,
            Some(value) => serde_json::from_value(value.clone()).unwrap_or_else(|e| {
                self.faults.push(format!("{}{key} is {value}: {e}", self.name));
                default
            }),
        }
    }

    /// A key that only has one meaning here.
    fn only(&mut self, key: &str, allowed: &[Value]) {
        if let Some(value) = self.keys.remove(key)
            && !allowed.contains(&value)
        {
            let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.faults.push(format!("{}{key} is {value}; {} is known here", self.name, allowed.join(" or ")));
        }
    }

    /// A key that must repeat what another one said.
    fn same(&mut self, key: &str, value: &Value, other: &str) {
        if let Some(seen) = self.keys.remove(key)
            && seen != *value
        {
            self.faults.push(format!("{}{key} is {seen}, but {other} is {value}", self.name));
        }
    }

    /// A number, or two for height and width.
    fn pair(&mut self, key: &str, default: usize) -> [usize; 2] {
        match self.keys.get(key) {
            Some(Value::Number(_)) => [self.get(key, default); 2],
            _ => self.get(key, [default; 2]),
        }
    }

    /// What is left over must be known to change nothing.
    fn finish(mut self) {
        self.only("chunk_size_feed_forward", &[0.into()]);
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            self.only(key, &[false.into()]);
        }
        // Only the text tower's is a token.
        self.get("pad_token_id", Value::Null);
        let known: Vec<&str> = WITHOUT_EFFECT.split_whitespace().collect();
        for (key, value) in self.keys {
            if !known.contains(&key.as_str()) {
                self.faults.push(format!("{}{key} is {value}; this key is not known", self.name));
            }
        }
    }
}

/// Reads `config.json`; `frames` and `mels` are the front end's.
///
/// # Errors
/// A file that is no `ClapModel`'s, or the list of all keys that are unknown, contradict each other, or describe a network
/// that can't be built.
pub fn parse(text: &str, frames: usize, mels: usize) -> Result<ClapConfig> {
    let Value::Object(mut root) = serde_json::from_str(text).context("it is no JSON")? else {
        bail!("it is no table of keys");
    };
    let model_type = root.get("model_type").cloned().unwrap_or(Value::Null);
    if model_type != "clap" {
        bail!("model_type is {model_type}; a ClapModel, which has both towers, says \"clap\"");
    }
    let mut part = |name: &str| match root.remove(name) {
        Some(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    let (audio, text) = (part("audio_config"), part("text_config"));
    let mut faults = vec![];
    let mut table = ConfigTable { name: "", keys: root, faults: &mut faults };
    table.only("model_type", &["clap".into()]);
    // Sums over both towers, that nothing reads.
    table.get("hidden_size", Value::Null);
    table.get("num_hidden_layers", Value::Null);
    let output: usize = table.get("projection_dim", 512);
    let activation: String = table.get("projection_hidden_act", "relu".to_string());
    table.finish();
    let projection = |input| ProjectionConfig {
        input,
        output,
        activation: if activation == "gelu" { Activation::Gelu } else { Activation::Relu },
    };
    if !["relu", "gelu"].contains(&activation.as_str()) {
        faults.push(format!("projection_hidden_act is {activation:?}; \"relu\" or \"gelu\" is known here"));
    }
    let shared = [("projection_dim", Value::from(output)), ("projection_hidden_act", Value::from(activation.clone()))];
    let audio = parse_audio(
        ConfigTable { name: "audio_config.", keys: audio, faults: &mut faults },
        &shared,
        projection,
        frames,
    );
    let (text, pad_id, positions) =
        parse_text(ConfigTable { name: "text_config.", keys: text, faults: &mut faults }, &shared, projection);
    if audio.mels != mels {
        faults.push(format!("audio_config.num_mel_bins is {}, the front end's feature_size {mels}", audio.mels));
    }
    faults.extend(audio.faults().into_iter().map(|f| format!("audio_config: {f}")));
    if !faults.is_empty() {
        bail!("{}", faults.join("\n  "));
    }
    Ok(ClapConfig { audio, text, pad_id, positions })
}

fn parse_audio(
    mut table: ConfigTable,
    shared: &[(&str, Value)],
    projection: impl Fn(usize) -> ProjectionConfig,
    frames: usize,
) -> HtsatConfig {
    table.only("model_type", &["clap_audio_model".into()]);
    table.only("hidden_act", &["gelu".into()]);
    table.only("flatten_patch_embeds", &[true.into()]);
    table.only("patch_embed_input_channels", &[1.into()]);
    // The reference fuses by attention whatever the type; `channel_map` alone changes its network, into one that can't run.
    table.only("fusion_type", &[Value::Null, "aff_2d".into()]);
    shared.iter().for_each(|(key, value)| table.same(key, value, key));
    let channels: usize = table.get("patch_embeds_hidden_size", 96);
    let reduction: usize = table.get("aff_block_r", 4);
    let fused: bool = table.get("enable_fusion", false);
    let depths: Vec<usize> = table.get("depths", vec![2, 2, 6, 2]);
    table.same("num_hidden_layers", &depths.len().into(), "the number of audio_config.depths");
    let config = HtsatConfig {
        frames,
        mels: table.get("num_mel_bins", 64),
        image: table.get("spec_size", 256),
        patch: table.pair("patch_size", 4),
        stride: table.pair("patch_stride", 4),
        channels,
        depths,
        heads: table.get("num_attention_heads", vec![4, 8, 16, 32]),
        window: table.get("window_size", 8),
        inner_ratio: table.get("mlp_ratio", 4.0),
        qkv_bias: table.get("qkv_bias", true),
        patch_norm: table.get("enable_patch_layer_norm", true),
        fusion: fused.then(|| channels / reduction.max(1)),
        epsilon: table.get("layer_norm_eps", 1e-5),
        projection: projection(table.get("hidden_size", 768)),
    };
    table.finish();
    config
}

/// The text tower, its padding token and the rows of its position table.
fn parse_text(
    mut table: ConfigTable,
    shared: &[(&str, Value)],
    projection: impl Fn(usize) -> ProjectionConfig,
) -> (RobertaConfig, usize, usize) {
    table.only("model_type", &["clap_text_model".into()]);
    table.only("hidden_act", &["gelu".into()]);
    table.only("position_embedding_type", &["absolute".into()]);
    shared.iter().for_each(|(key, value)| table.same(key, value, key));
    let width: usize = table.get("hidden_size", 768);
    let pad_id: usize = table.get("pad_token_id", 1);
    let positions: usize = table.get("max_position_embeddings", 514);
    let bert = BertConfig {
        vocabulary: table.get("vocab_size", 50265),
        positions: MAX_TOKENS.saturating_add(pad_id).saturating_add(1).min(positions),
        pad_id: Some(pad_id),
        types: table.get("type_vocab_size", 1),
        width,
        layers: table.get("num_hidden_layers", 12),
        heads: table.get("num_attention_heads", 12),
        inner: table.get("intermediate_size", 3072),
        epsilon: table.get("layer_norm_eps", 1e-12),
    };
    check_text(&bert, positions, pad_id, table.faults);
    table.finish();
    (RobertaConfig { bert, projection: projection(width) }, pad_id, positions)
}

/// Adds what can't be built, under config.json's own names.
fn check_text(bert: &BertConfig, positions: usize, pad_id: usize, faults: &mut Vec<String>) {
    let sizes = [bert.vocabulary, positions, bert.types, bert.width, bert.layers, bert.heads, bert.inner];
    let before = faults.len();
    for ((key, most), size) in TEXT_MAX.into_iter().zip(sizes) {
        if !(1..=most).contains(&size) {
            faults.push(format!("text_config.{key} is {size}; 1 to {most} are possible"));
        }
    }
    if faults.len() > before {
        return;
    }
    let layer = bert.width * (4 * bert.width + 2 * bert.inner);
    let parameters = layer.saturating_mul(bert.layers).saturating_add(bert.vocabulary * bert.width);
    if parameters > MAX_PARAMETERS {
        faults.push(format!(
            "text_config: vocab_size {}, hidden_size {}, intermediate_size {} and num_hidden_layers {} make {parameters} \
             parameters; at most {MAX_PARAMETERS} are possible",
            bert.vocabulary, bert.width, bert.inner, bert.layers
        ));
    }
    if !bert.width.is_multiple_of(bert.heads) {
        faults.push(format!(
            "text_config.hidden_size is {}, which num_attention_heads ({} heads) does not divide",
            bert.width, bert.heads
        ));
    }
    if positions <= pad_id.saturating_add(1) || pad_id >= bert.vocabulary {
        faults.push(format!(
            "text_config.pad_token_id is {pad_id}; vocab_size {} and max_position_embeddings {positions} leave it no room",
            bert.vocabulary
        ));
    }
}
