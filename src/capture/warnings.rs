//! What is wrong with a source's sound beside its state: each in words, with its remedy.

use std::sync::{Mutex, PoisonError};

/// What a warning is about. A source has at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningKind {
    /// Channels that cancel each other, or are dead.
    Channels,
    /// A device that is slower or faster than it says.
    Rate,
    /// Samples at the wrong end of their bits.
    Bits,
    /// Too faint for the model, or cut off at full scale.
    Level,
}

impl WarningKind {
    /// In a word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Rate => "rate",
            Self::Bits => "bits",
            Self::Level => "level",
        }
    }
}

/// Warnings of one source that hold now. Written by the threads of its device and by the one that scores it, which may wait for a
/// moment, and read by any.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<(WarningKind, String)>>);

impl Warnings {
    /// Replaces the warning of this kind, or takes it away. Returns whether that changed anything.
    pub fn set(&self, kind: WarningKind, text: Option<&str>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.iter().position(|(other, _)| *other == kind);
        if before.map(|at| all[at].1.as_str()) == text {
            return false;
        }
        if let Some(at) = before {
            all.remove(at);
        }
        all.extend(text.map(|text| (kind, text.to_owned())));
        true
    }

    /// The texts, in the order in which they came up.
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, text)| text.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_news_once_and_goes_away() {
        let warnings = Warnings::default();
        assert!(!warnings.set(WarningKind::Rate, None));
        assert!(warnings.set(WarningKind::Rate, Some("slow")));
        assert!(!warnings.set(WarningKind::Rate, Some("slow")));
        assert!(warnings.set(WarningKind::Channels, Some("dead")));
        assert_eq!(warnings.texts(), ["slow", "dead"]);
        assert!(warnings.set(WarningKind::Rate, None));
        assert_eq!(warnings.texts(), ["dead"]);
    }
}
