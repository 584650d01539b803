//! Pieces of text as messages and files have them.

/// Characters of somebody's text that a message shows: enough to recognise it by.
pub const SHORTENED_CHARS: usize = 40;

/// The first [`SHORTENED_CHARS`] characters without control characters, so that a message stays a line; `...` stands for more.
pub fn shorten(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = characters.by_ref().take(SHORTENED_CHARS).collect();
    if characters.next().is_some() { format!("{short}...") } else { short }
}

/// A field of a CSV file, in quotes where RFC 4180 asks for them.
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_a_line() {
        assert_eq!(shorten("a\nb\u{7}"), "a b ");
        assert_eq!(shorten(&"ä".repeat(SHORTENED_CHARS)), "ä".repeat(SHORTENED_CHARS));
        assert_eq!(shorten(&"ä".repeat(SHORTENED_CHARS + 1)), format!("{}...", "ä".repeat(SHORTENED_CHARS)));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (text, field) in
            [("a dog", "a dog"), ("a, b", "\"a, b\""), ("\"x\"", "\"\"\"x\"\"\""), ("a\nb", "\"a\nb\"")]
        {
            assert_eq!(csv_field(text), field);
        }
    }
}
