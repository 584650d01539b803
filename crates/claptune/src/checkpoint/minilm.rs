//! all-MiniLM-L6-v2's tensors, named as in Hugging Face's `BertModel`, under the names and layouts of
//! [`crate::net::minilm`]: linear weights are [in, out]. A name that is not known stays as it is, and loading reports
//! it.

use super::weights::Weights;

/// Tensors of the file that the sentence encoder does not use: a pooling layer that it replaces, and a counter.
pub fn is_unused(name: &str) -> bool {
    name.starts_with("pooler.") || name == "embeddings.position_ids"
}

/// Renames and transposes.
pub fn rename(mut source: Weights) -> Weights {
    let names: Vec<String> = source.names().map(str::to_string).collect();
    let mut renamed = Weights::default();
    for name in names {
        let Some(weight) = source.take(&name) else { continue };
        let path = path(&name);
        // Embedding tables have no path ending in `.weight` but `words`; all other matrices are linears.
        let linear = path.contains(".layers.") && path.ends_with(".weight");
        renamed.insert(path, if linear { weight.transposed() } else { weight });
    }
    renamed
}

/// Our name for one of theirs; a name that is not known comes back as it is.
pub fn path(name: &str) -> String {
    let exact = match name {
        "embeddings.word_embeddings.weight" => Some("words.weight"),
        "embeddings.position_embeddings.weight" => Some("positions"),
        "embeddings.token_type_embeddings.weight" => Some("types"),
        "embeddings.LayerNorm.weight" => Some("norm.gamma"),
        "embeddings.LayerNorm.bias" => Some("norm.beta"),
        _ => None,
    };
    if let Some(ours) = exact {
        return format!("bert.{ours}");
    }
    let Some((layer, rest)) = name.strip_prefix("encoder.layer.").and_then(|n| n.split_once('.')) else {
        return name.to_string();
    };
    let ours = match rest {
        "attention.self.query.weight" => "query.weight",
        "attention.self.query.bias" => "query.bias",
        "attention.self.key.weight" => "key.weight",
        "attention.self.key.bias" => "key.bias",
        "attention.self.value.weight" => "value.weight",
        "attention.self.value.bias" => "value.bias",
        "attention.output.dense.weight" => "output.weight",
        "attention.output.dense.bias" => "output.bias",
        "attention.output.LayerNorm.weight" => "attention_norm.gamma",
        "attention.output.LayerNorm.bias" => "attention_norm.beta",
        "intermediate.dense.weight" => "inner.weight",
        "intermediate.dense.bias" => "inner.bias",
        "output.dense.weight" => "outer.weight",
        "output.dense.bias" => "outer.bias",
        "output.LayerNorm.weight" => "norm.gamma",
        "output.LayerNorm.bias" => "norm.beta",
        _ => return name.to_string(),
    };
    format!("bert.layers.{layer}.{ours}")
}
