//! Text files as the editors of all systems save them: the configuration, and the files beside it.
//!
//! A byte order mark is no part of the text, and UTF-16, which Windows saves when it is asked for "Unicode", is recognised and
//! named: read as anything else it would be a wrong password, or a syntax error in the first line.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What begins a text that Windows saved as UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why a file is no text. It holds nothing of what the file says, since that may be a password.
#[derive(Debug)]
pub(super) enum TextFault {
    /// There is no such file, or this user may not open it.
    Unopened(io::Error),
    /// It is a folder, or its disk has failed.
    Unread(io::Error),
    /// It has more bytes than the file is allowed.
    TooLong(u64),
    /// It is in UTF-16.
    Utf16,
    /// It is not in UTF-8 on this line, from 1.
    NotUtf8(usize),
}

impl TextFault {
    /// What to do about it; `open` is what to do where it cannot be read at all.
    pub(super) fn remedy<'a>(&self, open: &'a str) -> &'a str {
        match self {
            Self::Unopened(_) | Self::Unread(_) | Self::TooLong(_) => open,
            Self::Utf16 | Self::NotUtf8(_) => "save the file as UTF-8",
        }
    }
}

impl fmt::Display for TextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unopened(error) | Self::Unread(error) => write!(f, "{error}"),
            Self::TooLong(max) => write!(f, "is longer than {max} bytes"),
            Self::Utf16 => f.write_str("is in UTF-16, as Windows saves \"Unicode\""),
            Self::NotUtf8(line) => write!(f, "is not UTF-8 on line {line}"),
        }
    }
}

/// The text of a file of at most `max` bytes.
pub(super) fn read(path: &Path, max: u64) -> Result<String, TextFault> {
    String::from_utf8(read_bytes(path, max)?).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        TextFault::NotUtf8(1 + good.iter().filter(|byte| **byte == b'\n').count())
    })
}

/// The same where only parts of it need be text.
pub(super) fn read_bytes(path: &Path, max: u64) -> Result<Vec<u8>, TextFault> {
    let file = File::open(path).map_err(TextFault::Unopened)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(TextFault::Unread)?;
    if bytes.len() as u64 > max {
        return Err(TextFault::TooLong(max));
    }
    if is_utf16(&bytes) {
        return Err(TextFault::Utf16);
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

/// By its own byte order mark, or by the zero that is half of its first letter: none of our files begins beyond ASCII.
fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(bytes: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path(), 20).map_err(|fault| fault.to_string())
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_text_is_read_as_any_editor_saves_it() {
        assert_eq!(saved(b"a\r\n\xc3\xa9\n"), Ok("a\r\n\u{e9}\n".into()));
        assert_eq!(saved(b"\xEF\xBB\xBFa\n"), Ok("a\n".into()));
        assert_eq!(saved(b""), Ok(String::new()));
        for text in ["\u{feff}hunter2", "hunter2"] {
            for wide in [utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes)] {
                assert_eq!(saved(&wide), Err("is in UTF-16, as Windows saves \"Unicode\"".into()), "{wide:?}");
            }
        }
        assert_eq!(saved(b"a\ncaf\xe9\n"), Err("is not UTF-8 on line 2".into()));
        assert_eq!(saved(&[b'x'; 21]), Err("is longer than 20 bytes".into()));
    }
}
