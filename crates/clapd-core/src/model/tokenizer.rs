//! Text to tokens, as the model's own tokenizer.json says (byte-level BPE, WordPiece, ...).

use anyhow::{Result, anyhow};
use tokenizers::{Tokenizer as Inner, TruncationParams};

/// A tokenizer with the model's limit.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// Reads a tokenizer.json; texts are cut to `max_tokens`, special tokens kept.
    pub fn new(json: &[u8], max_tokens: usize) -> Result<Self> {
        let mut inner = Inner::from_bytes(json).map_err(|error| anyhow!("not a tokenizer: {error}"))?;
        let cut = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        inner.with_truncation(Some(cut)).map_err(|error| anyhow!("{max_tokens} tokens are too few: {error}"))?;
        // The graph says whether it wants padding; a file from training often asks for it.
        inner.with_padding(None);
        Ok(Self { inner })
    }

    /// Ids of a text.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.inner.encode(text, true).map_err(|error| anyhow!("cannot tokenise {text:?}: {error}"))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }
}
