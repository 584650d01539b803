//! Ids made from what a person wrote, and the known name that a wrong one most likely meant.

use clapd_core::prompts::MAX_ID;
use strsim::levenshtein;

/// The nearest valid id: lower case, every run of anything else one `_`. None where no letter or digit of ASCII is left.
pub(super) fn slug(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("_");
    slug.truncate(MAX_ID);
    slug.bytes().any(|byte| byte.is_ascii_alphanumeric()).then_some(slug)
}

/// The candidate that a wrong name most likely meant: at most a third of its letters differ, or it begins with that name.
pub(super) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len().max(3))
        .min()
        .map(|(_, candidate)| candidate)
        .or_else(|| candidates.iter().copied().find(|candidate| name.len() > 2 && candidate.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use clapd_core::prompts::is_id;

    use super::*;

    #[test]
    fn slugs_are_valid_ids() {
        assert_eq!(slug("A dog, barking!").as_deref(), Some("a_dog_barking"));
        assert_eq!(slug("  two-stroke  ").as_deref(), Some("two-stroke"));
        assert_eq!(slug("犬の声"), None);
        assert_eq!(slug("--"), None);
        let long = slug(&"word ".repeat(50));
        assert!(long.is_some_and(|slug| is_id(&slug)));
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        let keys = ["start", "stop", "confirm", "cooldown_s"];
        assert_eq!(nearest("cooldown", &keys), Some("cooldown_s"));
        assert_eq!(nearest("idd", &["id"]), Some("id"));
        assert_eq!(nearest("stat", &keys), Some("start"));
        assert_eq!(nearest("password", &["url", "password_file"]), Some("password_file"));
        assert_eq!(nearest("threshold", &keys), None);
    }
}
