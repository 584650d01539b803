//! The encoder's delay that an mp4 file states in its edit list, which symphonia leaves unread.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

/// Boxes looked at on one level: an index stands among the first few, and the boxes of a track are about ten.
const MAX_BOXES: usize = 256;
/// Longer ones are no encoder's delay but a person's cut: what was cut away is in the file, and it is heard.
const MAX_DELAY_S: u64 = 1;

/// A time at the beginning of a track that is no sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    ticks: u64,
    /// Ticks a second.
    rate: u32,
}

impl Delay {
    /// The delay in frames of `rate`.
    pub fn frames(self, rate: u32) -> usize {
        let frames = u128::from(self.ticks) * u128::from(rate) / u128::from(self.rate.max(1));
        usize::try_from(frames).unwrap_or(0)
    }
}

/// Whether a file begins as mp4 does.
pub(super) fn is_mp4(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}

/// The delay of the first audio track of an mp4 file; `None` where none is stated.
pub(super) fn delay(file: &mut (impl Read + Seek)) -> Option<Delay> {
    let end = file.seek(SeekFrom::End(0)).ok()?;
    let moov = find(file, 0..end, b"moov")?;
    let tracks = boxes(file, moov).into_iter().filter(|(name, _)| name == b"trak");
    let sound = tracks.map(|(_, range)| range).find(|track| is_sound(file, track.clone()).unwrap_or(false))?;
    let rate = time_scale(file, sound.clone())?;
    let edits = find(file, sound, b"edts").and_then(|edits| find(file, edits, b"elst"))?;
    let ticks = first_edit(file, edits)?;
    (ticks <= MAX_DELAY_S * u64::from(rate)).then_some(Delay { ticks, rate })
}

fn is_sound(file: &mut (impl Read + Seek), track: Range<u64>) -> Option<bool> {
    let media = find(file, track, b"mdia")?;
    let handler = find(file, media, b"hdlr")?;
    let [.., a, b, c, d] = read::<12>(file, handler.start)?;
    Some([a, b, c, d] == *b"soun")
}

fn time_scale(file: &mut (impl Read + Seek), track: Range<u64>) -> Option<u32> {
    let media = find(file, track, b"mdia")?;
    let header = find(file, media, b"mdhd")?;
    let [version, ..] = read::<4>(file, header.start)?;
    // Behind two times, of 32 or 64 bits.
    let at = header.start + if version == 1 { 20 } else { 12 };
    read(file, at).map(u32::from_be_bytes)
}

/// Where in the track the first edit begins that shows something of it.
fn first_edit(file: &mut (impl Read + Seek), edits: Range<u64>) -> Option<u64> {
    let [version, .., a, b, c, d] = read::<8>(file, edits.start)?;
    let count = u32::from_be_bytes([a, b, c, d]).min(4);
    for edit in 0..u64::from(count) {
        let time = if version == 1 {
            read(file, edits.start + 8 + edit * 20 + 8).map(i64::from_be_bytes)?
        } else {
            read(file, edits.start + 8 + edit * 12 + 4).map(i32::from_be_bytes)?.into()
        };
        // -1: a pause.
        if let Ok(time) = u64::try_from(time) {
            return Some(time);
        }
    }
    None
}

fn find(file: &mut (impl Read + Seek), within: Range<u64>, name: &[u8; 4]) -> Option<Range<u64>> {
    boxes(file, within).into_iter().find(|(here, _)| here == name).map(|(_, content)| content)
}

/// The boxes in a range of the file, each with the range of its content.
fn boxes(file: &mut (impl Read + Seek), within: Range<u64>) -> Vec<([u8; 4], Range<u64>)> {
    let (mut at, mut found) = (within.start, Vec::new());
    while at < within.end && found.len() < MAX_BOXES {
        let Some([a, b, c, d, name @ ..]) = read::<8>(file, at) else { break };
        let (header, length) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, within.end - at),
            1 => (16, read(file, at + 8).map_or(0, u64::from_be_bytes)),
            length => (8, length.into()),
        };
        let end = at.saturating_add(length).min(within.end);
        if length < header || at + header > end {
            break;
        }
        found.push((name, at + header..end));
        at = end;
    }
    found
}

fn read<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
