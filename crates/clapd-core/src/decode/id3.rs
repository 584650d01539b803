//! ID3v2 tags in front of a sound: they are skipped, pictures and all. symphonia looks for sound in the first megabyte of a
//! file and no further, and a cover may be larger than that.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// Tags that are skipped one behind the other: two or three programs may each have put theirs, and a gigabyte of empty ones is
/// made up.
const MAX_TAGS: usize = 16;
/// Bytes of a tag's header, and of its footer.
const HEADER: u64 = 10;

/// The length of the tag that `head` begins with, footer and all; `None` where there is none.
fn tag_length(head: &[u8]) -> Option<u64> {
    let &[b'I', b'D', b'3', major, minor, flags, a, b, c, d] = head.first_chunk::<10>()? else { return None };
    // Lengths have seven bits a byte, so that nothing in a header looks like the beginning of sound.
    let plausible = major < 0xFF && minor < 0xFF && [a, b, c, d].iter().all(|byte| *byte < 0x80);
    let length = [a, b, c, d].iter().fold(0, |length, byte| length << 7 | u64::from(*byte));
    let footer = if flags & 0x10 == 0 { 0 } else { HEADER };
    plausible.then_some(HEADER + length + footer)
}

/// Where the sound begins in a file: behind all tags that stand in front of it.
pub(super) fn end_of_tags(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let mut end = 0;
    for _ in 0..MAX_TAGS {
        file.seek(SeekFrom::Start(end))?;
        let mut head = Vec::new();
        file.take(HEADER).read_to_end(&mut head)?;
        let Some(length) = tag_length(&head) else { break };
        end += length;
    }
    Ok(end)
}

/// The same for a stream that can't seek: tags are read and dropped; what was read behind them is returned.
pub(super) fn skip_tags(mut head: Vec<u8>, bytes: &mut impl Read) -> io::Result<Vec<u8>> {
    let wanted = head.len() as u64;
    for _ in 0..MAX_TAGS {
        let Some(length) = tag_length(&head) else { break };
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(head.len());
        head.drain(..here);
        io::copy(&mut bytes.take(length - here as u64), &mut io::sink())?;
        let missing = wanted.saturating_sub(head.len() as u64);
        bytes.take(missing).read_to_end(&mut head)?;
    }
    Ok(head)
}

/// A file from a place on, as if it began there.
pub(super) struct Behind<F> {
    file: F,
    begin: u64,
}

impl<F: Seek> Behind<F> {
    pub fn new(mut file: F, begin: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(begin))?;
        Ok(Self { file, begin })
    }
}

impl<F: Read> Read for Behind<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl<F: Seek> Seek for Behind<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(at.saturating_add(self.begin)),
            other => other,
        };
        Ok(self.file.seek(to)?.saturating_sub(self.begin))
    }
}

impl MediaSource for Behind<std::fs::File> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.file.metadata().ok().map(|file| file.len().saturating_sub(self.begin))
    }
}
