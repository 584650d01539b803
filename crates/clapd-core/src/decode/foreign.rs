//! What files are that are no sound, or sound that is not read: a name for them, and what to do.

use super::REMEDY;

/// What a file is, as its first bytes show, and the remedy; `None` where they show nothing.
pub(super) fn recognize(head: &[u8]) -> Option<String> {
    let begins = |with: &[u8]| head.starts_with(with);
    let text = head.trim_ascii_start().to_ascii_lowercase();
    let is_html = [b"<!doctype html".as_slice(), b"<html"].iter().any(|tag| text.starts_with(tag));
    let remedy = if begins(b"version https://git-lfs") {
        "is a Git LFS pointer, and the recording that it stands for was not fetched; run `git lfs pull`"
    } else if is_html {
        "is a web page, not a recording: the download gave a page instead; open it in a browser and download the sound itself"
    } else if text.starts_with(b"<?xml") || text.starts_with(b"{") {
        "is a text (XML or JSON), not a recording; look into it: it may be a server's error message"
    } else if begins(b"\x1F\x8B") {
        "is compressed with gzip; unpack it: gunzip FILE"
    } else if begins(b"PK\x03\x04") {
        "is a zip archive; unpack it: unzip FILE"
    } else if begins(b"\xFD7zXZ\0") {
        "is compressed with xz; unpack it: unxz FILE"
    } else if begins(b"BZh") {
        "is compressed with bzip2; unpack it: bunzip2 FILE"
    } else if begins(b"\x28\xB5\x2F\xFD") {
        "is compressed with zstd; unpack it: unzstd FILE"
    } else if begins(b"%PDF") || begins(b"\x89PNG") || begins(b"\xFF\xD8\xFF") || begins(b"GIF8") {
        "is a document or a picture, not a recording; name the recording"
    } else if begins(b"MThd") {
        "is MIDI: notes, and no sound; render it to wav with a synthesizer first"
    } else {
        let format = FORMATS.iter().find(|(magic, _)| begins(magic)).map(|(_, name)| *name)?;
        return Some(format!("is {format}, which is not read; {REMEDY}"));
    };
    Some(remedy.to_owned())
}

/// Sound that has no decoder here.
const FORMATS: [(&[u8], &str); 9] = [
    (b"#!AMR", "AMR, as telephones record calls"),
    (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media (asf, wma)"),
    (b"MAC ", "Monkey's Audio (ape)"),
    (b"wvpk", "WavPack"),
    (b"DSD ", "DSD (dsf)"),
    (b"FRM8", "DSD (dff)"),
    (b"TTA", "True Audio"),
    (b"riff\x2E\x91\xCF\x11", "Wave64 (w64)"),
    (b"FLV", "Flash video"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sound_is_named_with_its_remedy() {
        for (head, said) in [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:".as_slice(), "git lfs pull"),
            (b"\n <!DOCTYPE HTML><title>404", "web page"),
            (b"\x1F\x8B\x08\0", "gunzip"),
            (b"PK\x03\x04\x14", "unzip"),
            (b"#!AMR\n\x3C", "AMR"),
            (b"MThd\0\0\0\x06", "MIDI"),
        ] {
            let named = recognize(head).unwrap();
            assert!(named.contains(said), "{named}");
        }
        assert_eq!(recognize(b"OggS\0"), None);
        assert_eq!(recognize(b""), None);
    }
}
