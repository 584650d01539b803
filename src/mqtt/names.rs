//! Names that Home Assistant wants to be one word, made of several ids.
//!
//! No two lists of ids make one name, though ids hold the `_` that joins them: where `pi` with `kitchen_mic` and `pi_kitchen`
//! with `mic` were one, the second would remove the first from Home Assistant. Of those only one can be the name that is read
//! off simply, and it is the one that is known best, with plain words in front; the others carry a mark.

use clapd_core::files::sha256_hex;

/// What stands for a source in the topic of its discovery. It is split at its first `_`, so a node that holds none comes before it
/// as it is. Another is preceded by its length, and that by a `_`, with which no node of the first kind begins.
pub(super) fn device_name(node: &str, source: &str) -> String {
    if node.contains('_') { format!("_{}_{node}_{source}", node.len()) } else { format!("{node}_{source}") }
}

/// What former versions had in place of [`device_name`], where it was another.
pub(super) fn former_device_name(node: &str, source: &str) -> Option<String> {
    node.contains('_').then(|| format!("{node}_{source}"))
}

/// An entity's id on this platform, which Home Assistant takes for entities that it meets for the first time: lower case, digits and
/// single underscores. Node and source are plain words in one that carries no mark, so it is split at its first two `_`.
pub(super) fn entity_id(platform: &str, ids: [&str; 2], prompt: Option<&str>, leaf: &str) -> String {
    let is_plain = ids.iter().all(|id| is_word(id)) && prompt.is_none_or(|prompt| prompt.split('_').all(is_word));
    let all: Vec<&str> = ids.into_iter().chain(prompt).collect();
    let mark = if is_plain { String::new() } else { mark(&all) };
    let joined = [&all[..], &[&mark, leaf]].concat().join("_").to_ascii_lowercase();
    let words: Vec<&str> = joined.split(['_', '-']).filter(|word| !word.is_empty()).collect();
    format!("{platform}.{}", words.join("_"))
}

/// What stands as it is in an entity's id, and splits nowhere.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Of exactly these ids; no id holds a slash. In a home 32 bits are of no two of them.
fn mark(ids: &[&str]) -> String {
    sha256_hex(ids.join("/").as_bytes())[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_in_use_stay_where_they_are_of_one_kind_only() {
        assert_eq!(device_name("kitchen", "mic"), "kitchen_mic");
        assert_eq!(device_name("kitchen-2", "left-mic"), "kitchen-2_left-mic");
        assert_eq!(former_device_name("kitchen", "mic"), None);
        let id = |node, source, prompt| entity_id("sensor", [node, source], Some(prompt), "score");
        assert_eq!(id("kitchen", "mic", "dog"), "sensor.kitchen_mic_dog_score");
        assert_eq!(id("kitchen", "mic", "a_dog_barking"), "sensor.kitchen_mic_a_dog_barking_score");
        assert_eq!(entity_id("event", ["kitchen", "mic"], Some("dog"), ""), "event.kitchen_mic_dog");
        assert_eq!(entity_id("sensor", ["kitchen", "mic"], None, "status"), "sensor.kitchen_mic_status");
    }

    #[test]
    fn what_ran_together_differs() {
        assert_eq!(device_name("pi", "kitchen_mic"), "pi_kitchen_mic");
        assert_eq!(device_name("pi_kitchen", "mic"), "_10_pi_kitchen_mic");
        assert_eq!(former_device_name("pi_kitchen", "mic").as_deref(), Some("pi_kitchen_mic"));
        let ids = [
            ["pi", "kitchen_mic", "dog"],
            ["pi_kitchen", "mic", "dog"],
            ["pi-kitchen", "mic", "dog"],
            ["pi", "kitchen", "mic_dog"],
            ["pi", "kitchen", "mic-dog"],
            ["Pi", "kitchen", "mic_dog"],
            ["pi", "kitchen", "mic__dog"],
        ];
        let names: std::collections::BTreeSet<String> =
            ids.iter().map(|[node, source, prompt]| entity_id("event", [node, source], Some(prompt), "")).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
    }

    proptest! {
        #[test]
        fn no_two_pairs_make_one_name(a in "[ab1_-]{1,4}", b in "[ab1_-]{1,4}", c in "[ab1_-]{1,4}", d in "[ab1_-]{1,4}") {
            prop_assert_eq!(device_name(&a, &b) == device_name(&c, &d), (&a, &b) == (&c, &d));
        }
    }
}
