//! What is listened for: prompts, their rules, recordings as examples, and the table that windows are compared with.
//!
//! A [`Prompt`] says it in words or by recordings. [`prepare`] embeds a list of them into a [`PromptTable`], which never
//! changes and is shared by everything that scores or names a prompt; its [`PromptId`] is what events and topics carry.

mod bank;
mod example;
mod id;
mod prepare;
mod rule;
mod table;

use std::path::PathBuf;

pub use bank::PromptBank;
pub use example::{Example, ExampleError, MAX_LENGTH};
pub use id::{MAX_ID, PromptId, is_id};
pub use prepare::prepare;
pub use rule::{DEFAULT_CONFIRM, DEFAULT_COOLDOWN, DEFAULT_START, Rule, usual_stop};
pub use table::{PreparedPrompt, PromptScorer, PromptTable};

/// A sound that is listened for.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its name in topics.
    pub id: PromptId,
    /// The sound in words; none where recordings alone say what it is.
    pub text: Option<String>,
    /// Recordings of the sound; with a text, both count. Never both none and empty.
    pub audio: Vec<PathBuf>,
    /// When it is an event.
    pub rule: Rule,
    /// Sounds in words that it must not be taken for; scored against, never published.
    pub contrast: Vec<String>,
}

impl Prompt {
    /// A prompt in words alone.
    pub fn of_text(id: PromptId, text: impl Into<String>, rule: Rule) -> Self {
        Self { id, text: Some(text.into()), audio: Vec::new(), rule, contrast: Vec::new() }
    }

    /// What people call it: its text, or its id where there is none.
    pub fn name(&self) -> &str {
        self.text.as_deref().unwrap_or(self.id.as_str())
    }

    /// The texts that have to be embedded for it: its own, if it has one, and then those that it is contrasted with.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.text.iter().chain(&self.contrast).map(String::as_str)
    }

    /// Whether both mean the same sound by the same id, whatever their rules are.
    pub fn is_same_sound(&self, other: &Self) -> bool {
        let Self { id, text, audio, rule: _, contrast } = self;
        (id, text, audio, contrast) == (&other.id, &other.text, &other.audio, &other.contrast)
    }
}
