//! Lists of urls that stand for one stream: `.m3u` and `.pls`, as radio stations and Icecast hand them out.

use anyhow::{Context, Result, bail};

/// What a list may hold of bytes: one of a station's has a handful of lines.
pub(super) const MAX_LIST: u64 = 64 * 1024;

/// Whether what a server sends under this type, from this path, is a list and no sound.
pub(super) fn is_list(content_type: &str, url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    ["mpegurl", "x-scpls"].iter().any(|kind| content_type.contains(kind))
        || [".m3u", ".m3u8", ".pls"].iter().any(|end| path.ends_with(end))
}

/// The first entry, as it stands there.
///
/// # Errors
/// A list of segments (HLS), or one without an entry.
pub(super) fn first_entry(text: &str) -> Result<&str> {
    if text.contains("#EXT-X-") {
        bail!(
            "it is HLS, a list of short files, which is not read; take the stream's Icecast or RTSP url, or let go2rtc or ffmpeg \
             make one of it"
        );
    }
    let lines = || text.lines().map(str::trim);
    let pls = lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        key.trim().to_ascii_lowercase().starts_with("file").then(|| value.trim())
    });
    let is_entry = |line: &&str| !line.is_empty() && !line.starts_with(['#', '[']);
    pls.or_else(|| lines().find(is_entry)).filter(|entry| !entry.is_empty()).context("it is a list without an entry")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_counts() {
        assert_eq!(first_entry("#EXTM3U\r\n#EXTINF:-1,x\r\nhttp://a/b\r\nhttp://c\r\n").unwrap(), "http://a/b");
        assert_eq!(first_entry("[playlist]\nNumberOfEntries=1\nFile1=http://a/b=c\n").unwrap(), "http://a/b=c");
        assert_eq!(first_entry("http://a/b?c=d\n").unwrap(), "http://a/b?c=d");
        for empty in ["", "#EXTM3U\n", "[playlist]\nFile1=\n"] {
            assert!(first_entry(empty).is_err(), "{empty:?}");
        }
        assert!(first_entry("#EXTM3U\n#EXT-X-TARGETDURATION:6\na.ts\n").unwrap_err().to_string().contains("HLS"));
    }

    #[test]
    fn lists_are_told_from_sound() {
        assert!(is_list("audio/x-mpegurl", "http://a/b") && is_list("", "http://a/b.PLS?c"));
        assert!(!is_list("audio/mpeg", "http://a/b.mp3"));
    }
}
