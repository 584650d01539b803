//! What a checkpoint calls the tensors of a CLAP.
//!
//! For a tower and a path in our network there is the tensor's name in the file, and which third of it is meant where
//! the file keeps query, key and value in one. There are two vocabularies: transformers' `ClapModel`, and LAION's own
//! training code.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py; LAION-AI/CLAP,
//! src/laion_clap/clap_module/{model,htsat}.py.

/// A half of a CLAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    /// [`crate::net::htsat::Htsat`].
    Audio,
    /// [`crate::net::roberta::Roberta`].
    Text,
}

impl Tower {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Text => "text",
        }
    }
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorLocation {
    /// Its name.
    pub name: String,
    /// Which of three equal parts along the first axis is meant; all of it if none.
    pub third: Option<usize>,
}

/// A vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `ClapModel`'s.
    Transformers,
    /// LAION's, behind this prefix (`state_dict.module.`, or less of it).
    Laion(String),
}

impl Naming {
    /// Where the file keeps the tensor at `path` of our `tower`.
    pub fn location(&self, tower: Tower, path: &str) -> TensorLocation {
        let mut name = match (path.strip_prefix("projection."), self) {
            (Some(rest), Self::Transformers) => format!("{}_projection.{rest}", tower.name()),
            // A sequence: linear, activation, linear.
            (Some(rest), Self::Laion(_)) => {
                format!("{}_projection.{}", tower.name(), rest.replace("linear1", "0").replace("linear2", "2"))
            }
            (None, _) => format!("{}{}", self.root(tower), self.inside(tower, path)),
        };
        // PyTorch calls a norm's factor weight, and its summand bias.
        for (ours, theirs) in [(".gamma", ".weight"), (".beta", ".bias")] {
            if let Some(layer) = name.strip_suffix(ours) {
                name = format!("{layer}{theirs}");
            }
        }
        let Self::Laion(prefix) = self else { return TensorLocation { name, third: None } };
        let parts = [".attn.query.", ".attn.key.", ".attn.value."];
        let third = parts.iter().position(|part| name.contains(part));
        if let Some(third) = third {
            name = name.replacen(parts[third], ".attn.qkv.", 1);
        }
        TensorLocation { name: format!("{prefix}{name}"), third }
    }

    /// Where the file keeps the temperature of a tower's logits.
    pub fn temperature(&self, tower: Tower) -> String {
        let prefix = if let Self::Laion(prefix) = self { prefix } else { "" };
        format!("{prefix}{}", TEMPERATURES[usize::from(tower == Tower::Text)])
    }

    /// The name of what is inside a tower, without its root.
    fn inside(&self, tower: Tower, path: &str) -> String {
        match (tower, self) {
            (Tower::Text, _) => replaced(path, &TEXT),
            (Tower::Audio, Self::Transformers) => replaced(&replaced(path, &AUDIO), &TRANSFORMERS),
            (Tower::Audio, Self::Laion(_)) => replaced(&replaced(path, &AUDIO), &LAION),
        }
    }

    /// What the names of a tower's tensors begin with, after the prefix.
    fn root(&self, tower: Tower) -> &'static str {
        match (self, tower) {
            (Self::Transformers, Tower::Audio) => "audio_model.audio_encoder.",
            (Self::Transformers, Tower::Text) => "text_model.",
            (Self::Laion(_), Tower::Audio) => "audio_branch.",
            (Self::Laion(_), Tower::Text) => "text_branch.",
        }
    }

    /// Whether a tensor of that name belongs to the tower, projection aside.
    pub fn is_of(&self, tower: Tower, name: &str) -> bool {
        let prefix = if let Self::Laion(prefix) = self { prefix } else { "" };
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(self.root(tower)))
    }

    /// Whether a tensor is no weight of the towers: a buffer that the network makes anew, a temperature of training, or, in
    /// LAION's files, a head for another task.
    pub fn is_unused(&self, name: &str) -> bool {
        let buffers = ["num_batches_tracked", "relative_position_index", "position_ids", "token_type_ids"];
        let Self::Laion(prefix) = self else {
            return buffers.iter().any(|end| name.ends_with(end)) || TEMPERATURES.contains(&name);
        };
        let Some(rest) = name.strip_prefix(prefix.as_str()) else {
            // Beside the weights, training keeps its optimizer and its loss scaler.
            return true;
        };
        buffers.iter().any(|end| rest.ends_with(end))
            || rest.ends_with(".attn_mask")
            || TEMPERATURES.contains(&rest)
            || LAION_HEADS.iter().any(|head| rest.starts_with(head))
    }
}

/// The temperatures of contrastive training, of audio's logits and of text's.
const TEMPERATURES: [&str; 2] = ["logit_scale_a", "logit_scale_t"];

/// LAION's own front end, AudioSet's classifier, and the transforms of a loss that embeddings don't pass.
const LAION_HEADS: [&str; 7] = [
    "audio_branch.spectrogram_extractor.",
    "audio_branch.logmel_extractor.",
    "audio_branch.tscam_conv.",
    "audio_branch.head.",
    "audio_transform.",
    "text_transform.",
    "logit_scale",
];

/// Pieces of our paths and theirs.
type Pieces = [(&'static str, &'static str)];

/// The audio tower, in both. The fusion block's layers have their places in the reference's sequences; the global one
/// begins with a pooling.
const AUDIO: [(&str, &str); 15] = [
    ("fusion.crops.", "patch_embed.mel_conv2d."),
    ("fusion.local.", "patch_embed.fusion_model.local_att."),
    ("fusion.global.", "patch_embed.fusion_model.global_att."),
    ("local_att.reduce.", "local_att.0."),
    ("local_att.reduce_norm.", "local_att.1."),
    ("local_att.expand.", "local_att.3."),
    ("local_att.expand_norm.", "local_att.4."),
    ("global_att.reduce.", "global_att.1."),
    ("global_att.reduce_norm.", "global_att.2."),
    ("global_att.expand.", "global_att.4."),
    ("global_att.expand_norm.", "global_att.5."),
    ("patch_norm.", "patch_embed.norm."),
    ("patch.", "patch_embed.proj."),
    ("stages.", "layers."),
    ("merge.", "downsample."),
];

/// A block of the audio tower in `ClapModel`.
const TRANSFORMERS: [(&str, &str); 9] = [
    ("norm_before.", "layernorm_before."),
    ("norm_after.", "layernorm_after."),
    ("attention.position_bias", "attention.self.relative_position_bias_table"),
    ("attention.output.", "attention.output.dense."),
    ("attention.query.", "attention.self.query."),
    ("attention.key.", "attention.self.key."),
    ("attention.value.", "attention.self.value."),
    ("inner.", "intermediate.dense."),
    ("outer.", "output.dense."),
];

/// A block of the audio tower in LAION's files; query, key and value are joined afterwards.
const LAION: [(&str, &str); 8] = [
    ("batch_norm.", "bn0."),
    ("norm_before.", "norm1."),
    ("norm_after.", "norm2."),
    ("attention.position_bias", "attn.relative_position_bias_table"),
    ("attention.output.", "attn.proj."),
    ("attention.", "attn."),
    ("inner.", "mlp.fc1."),
    ("outer.", "mlp.fc2."),
];

/// The text tower, in both.
const TEXT: [(&str, &str); 14] = [
    ("bert.words.", "embeddings.word_embeddings."),
    ("bert.positions", "embeddings.position_embeddings.weight"),
    ("bert.types", "embeddings.token_type_embeddings.weight"),
    ("bert.norm.", "embeddings.LayerNorm."),
    ("bert.layers.", "encoder.layer."),
    (".query.", ".attention.self.query."),
    (".key.", ".attention.self.key."),
    (".value.", ".attention.self.value."),
    (".output.", ".attention.output.dense."),
    (".attention_norm.", ".attention.output.LayerNorm."),
    (".norm.", ".output.LayerNorm."),
    (".inner.", ".intermediate.dense."),
    (".outer.", ".output.dense."),
    ("pooler.", "pooler.dense."),
];

/// Each piece once, in an order in which none finds what another one wrote.
fn replaced(path: &str, pieces: &Pieces) -> String {
    let mut name = path.to_string();
    for (ours, theirs) in pieces {
        name = name.replacen(ours, theirs, 1);
    }
    name
}

/// Whether the tensor of one of our paths is a linear's weight, which PyTorch keeps as [out, in] and Burn as [in, out].
pub fn is_transposed(path: &str, rank: usize) -> bool {
    rank == 2 && path.ends_with(".weight") && path != "bert.words.weight"
}
