//! The name of a prompt, the same from the pipeline to the topic.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use anyhow::{Result, ensure};

/// Longest name. Home Assistant and most brokers' tools show the whole topic in one line; three names of this length still fit.
pub const MAX_ID: usize = 64;

/// Whether `text` can be a part of a topic as it is: 1 to [`MAX_ID`] letters and digits of ASCII, `_` and `-`. A `/`, `+`,
/// `#` or a space means something there.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The id of a prompt; [`is_id`] holds for it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptId(Arc<str>);

impl PromptId {
    /// An id as it is written.
    ///
    /// # Errors
    /// A text for which [`is_id`] does not hold.
    pub fn new(text: &str) -> Result<Self> {
        ensure!(is_id(text), "{text:?} is not an id: 1 to {MAX_ID} letters, digits, `_` and `-`");
        Ok(Self(text.into()))
    }

    /// An id for a prompt that nobody has named.
    pub fn numbered(number: usize) -> Self {
        Self(number.to_string().into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for PromptId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_topic_safe_names_are_ids() {
        assert!(is_id("Kitchen_2-left") && PromptId::new("dog").is_ok() && is_id(PromptId::numbered(7).as_str()));
        for bad in ["", "a/b", "a b", "+", "#", "ä", &"x".repeat(65)] {
            assert!(PromptId::new(bad).unwrap_err().to_string().contains("is not an id"), "{bad:?}");
        }
    }
}
