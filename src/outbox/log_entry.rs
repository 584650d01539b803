//! The entries of the log, and their bytes.
//!
//! An entry is `length: u16 | crc32: u32 | kind: u8 | body`, numbers little-endian; length and checksum are of kind and
//! body. A power cut leaves a torn last entry, or a hole of zeros where a page was not written: reading goes on at the
//! next offset that holds a whole entry. Noise passes for an entry with a chance of 2^-32.
//!
//! A kind keeps its meaning and its fields for good, since a later version reads the log of an earlier one; a new
//! version of a kind is a new kind.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::EventRecord;
use crate::levels::{EventLevels, LevelReference};
use crate::time::BootTime;

/// Length and checksum.
const HEAD: usize = 6;
/// Configuration bounds the texts far below it: a prompt has 300 letters.
const MAX_TEXT: usize = 4096;
/// Three texts and some numbers.
const MAX_BODY: usize = 3 * (2 + MAX_TEXT) + 64;

/// A change of an event; `event` is its number in this log.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LogEntry {
    /// It began, and its start waits for the broker. The log has had it since `stored_at`, by the time of day.
    Started { event: u64, stored_at: SystemTime, topic: Arc<str>, record: EventRecord },
    /// It ended, and its end waits.
    Ended { event: u64, stored_at: SystemTime, score: f32, peak: f32, duration: Duration },
    /// The broker has its start.
    StartAcked { event: u64 },
    /// The broker has its end, or it was dropped over a bound.
    Removed { event: u64 },
    /// It is open still: the time and the score of the last window, and the highest score so far. Version 0.1.0 wrote it: where the clock
    /// was set in between, that time and the start's are not of one clock.
    TouchedAt { event: u64, at: SystemTime, score: f32, peak: f32 },
    /// The same, with how long it had lasted when the last window ended.
    Touched { event: u64, lasted: Duration, score: f32, peak: f32 },
    /// Times of day from here on are of a clock that said `wall` at `now` of this start of the computer. A second one of the same start
    /// tells how the clock was set; the times before it are of the clock before.
    Clock { boot_id: u128, now: BootTime, wall: SystemTime },
    /// Its start, or its end, was handed out with this time before the clock was set.
    Sent { event: u64, ended: bool, started_at: SystemTime },
    /// How loud it was; it stands before its end.
    Metered { event: u64, levels: EventLevels },
}

impl LogEntry {
    /// Appends its bytes. Longer texts than any configuration allows are cut.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let head = out.len();
        out.extend([0; HEAD]);
        match self {
            Self::Started { event, stored_at, topic, record } => {
                out.push(1);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*stored_at).to_le_bytes());
                out.extend(nanos(record.started_at).to_le_bytes());
                out.extend(record.score.to_le_bytes());
                out.extend(record.peak.to_le_bytes());
                [topic, record.id.as_str(), record.prompt.as_str()].iter().for_each(|text| write_text(text, out));
            }
            Self::Ended { event, stored_at, score, peak, duration } => {
                out.push(2);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*stored_at).to_le_bytes());
                out.extend(score.to_le_bytes());
                out.extend(peak.to_le_bytes());
                out.extend(length(*duration).to_le_bytes());
            }
            Self::StartAcked { event } => {
                out.push(3);
                out.extend(event.to_le_bytes());
            }
            Self::Removed { event } => {
                out.push(4);
                out.extend(event.to_le_bytes());
            }
            Self::TouchedAt { event, at, score, peak } => {
                out.push(5);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*at).to_le_bytes());
                out.extend(score.to_le_bytes());
                out.extend(peak.to_le_bytes());
            }
            Self::Touched { event, lasted, score, peak } => {
                out.push(6);
                out.extend(event.to_le_bytes());
                out.extend(length(*lasted).to_le_bytes());
                out.extend(score.to_le_bytes());
                out.extend(peak.to_le_bytes());
            }
            Self::Clock { boot_id, now, wall } => {
                out.push(7);
                out.extend(boot_id.to_le_bytes());
                out.extend(length(now.since_start()).to_le_bytes());
                out.extend(nanos(*wall).to_le_bytes());
            }
            Self::Sent { event, ended, started_at } => {
                out.push(8);
                out.extend(event.to_le_bytes());
                out.push(u8::from(*ended));
                out.extend(nanos(*started_at).to_le_bytes());
            }
            Self::Metered { event, levels: EventLevels { laeq, lafmax, reference } } => {
                out.push(9);
                out.extend(event.to_le_bytes());
                out.extend(laeq.to_le_bytes());
                out.extend(lafmax.to_le_bytes());
                out.push(u8::from(*reference == LevelReference::SoundPressure));
            }
        }
        let body = &out[head + HEAD..];
        let (length, sum) = (u16::try_from(body.len()).unwrap_or(u16::MAX), crc32fast::hash(body));
        out[head..head + 2].copy_from_slice(&length.to_le_bytes());
        out[head + 2..head + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    /// The entry at the beginning of `bytes`, and its length; none where there is no whole one.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        // Cheap to ask first, where noise is searched for entries.
        let likely = |body: &&[u8]| length <= MAX_BODY && matches!(body.first(), Some(1..=9));
        let body = rest.get(..length).filter(likely)?;
        let sum = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        if crc32fast::hash(body) != sum {
            return None;
        }
        let mut fields = Fields(body);
        let entry = fields.entry()?;
        Some((entry, HEAD + length))
    }

    /// Every entry in `bytes`, in order, and how many bytes belong to none.
    pub(super) fn read_all(mut bytes: &[u8]) -> (Vec<Self>, usize) {
        let (mut entries, mut damaged) = (Vec::new(), 0);
        while !bytes.is_empty() {
            let step = match Self::read(bytes) {
                Some((entry, length)) => {
                    entries.push(entry);
                    length
                }
                None => {
                    damaged += 1;
                    1
                }
            };
            bytes = &bytes[step..];
        }
        (entries, damaged)
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn entry(&mut self) -> Option<LogEntry> {
        let kind = self.bytes::<1>()?[0];
        if kind == 7 {
            let (boot_id, now) = (u128::from_le_bytes(self.bytes()?), BootTime::from_start(self.length()?));
            return Some(LogEntry::Clock { boot_id, now, wall: self.time()? });
        }
        let event = self.number()?;
        Some(match kind {
            1 => {
                let (stored_at, started_at) = (self.time()?, self.time()?);
                let (score, peak) = (self.score()?, self.score()?);
                let (topic, id, prompt) = (self.text()?, self.text()?, self.text()?);
                let record = EventRecord { id, prompt, score, peak, started_at, duration: None, levels: None };
                LogEntry::Started { event, stored_at, topic: topic.into(), record }
            }
            2 => LogEntry::Ended {
                event,
                stored_at: self.time()?,
                score: self.score()?,
                peak: self.score()?,
                duration: self.length()?,
            },
            3 => LogEntry::StartAcked { event },
            4 => LogEntry::Removed { event },
            5 => LogEntry::TouchedAt { event, at: self.time()?, score: self.score()?, peak: self.score()? },
            8 => LogEntry::Sent { event, ended: self.bytes::<1>()?[0] != 0, started_at: self.time()? },
            9 => LogEntry::Metered { event, levels: self.levels()? },
            6 => LogEntry::Touched { event, lasted: self.length()?, score: self.score()?, peak: self.score()? },
            _ => return None,
        })
    }

    fn levels(&mut self) -> Option<EventLevels> {
        let (laeq, lafmax) = (self.score()?, self.score()?);
        let is_pressure = self.bytes::<1>()?[0] != 0;
        let reference = if is_pressure { LevelReference::SoundPressure } else { LevelReference::FullScale };
        Some(EventLevels { laeq, lafmax, reference })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<SystemTime> {
        self.number().map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos))
    }

    fn length(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_nanos)
    }

    fn score(&mut self) -> Option<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.bytes()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Nanoseconds, so that a time comes back as it went and a message that is sent twice is the same message; until 2554.
/// A clock before 1970 was never set, and is shown as 1970 anyway.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of up to 584 years.
fn length(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = LogEntry> {
        let time = any::<u64>().prop_map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos));
        let score = 0.0_f32..10.0;
        let number = any::<u64>();
        prop_oneof![
            (
                number,
                time.clone(),
                "[a-z/]{0,40}",
                "[a-z0-9-]{0,30}",
                ".{0,40}",
                score.clone(),
                score.clone(),
                time.clone()
            )
                .prop_map(|(event, stored_at, topic, id, prompt, score, peak, started_at)| {
                    LogEntry::Started {
                        event,
                        stored_at,
                        topic: topic.into(),
                        record: EventRecord { id, prompt, score, peak, started_at, duration: None, levels: None },
                    }
                }),
            (number, time.clone(), score.clone(), score.clone(), number).prop_map(
                |(event, stored_at, score, peak, nanos)| {
                    LogEntry::Ended { event, stored_at, score, peak, duration: Duration::from_nanos(nanos) }
                }
            ),
            number.prop_map(|event| LogEntry::StartAcked { event }),
            number.prop_map(|event| LogEntry::Removed { event }),
            (number, time.clone(), score.clone(), score.clone())
                .prop_map(|(event, at, score, peak)| { LogEntry::TouchedAt { event, at, score, peak } }),
            (number, number, score.clone(), score).prop_map(|(event, nanos, score, peak)| {
                LogEntry::Touched { event, lasted: Duration::from_nanos(nanos), score, peak }
            }),
            (number, any::<bool>(), time.clone()).prop_map(|(event, ended, started_at)| LogEntry::Sent {
                event,
                ended,
                started_at
            }),
            (number, -144.0_f32..200.0, any::<bool>()).prop_map(|(event, laeq, is_pressure)| {
                let reference = if is_pressure { LevelReference::SoundPressure } else { LevelReference::FullScale };
                LogEntry::Metered { event, levels: EventLevels { laeq, lafmax: laeq + 3.0, reference } }
            }),
            (any::<u128>(), number, time).prop_map(|(boot_id, nanos, wall)| {
                LogEntry::Clock { boot_id, now: BootTime::from_start(Duration::from_nanos(nanos)), wall }
            }),
        ]
    }

    fn written(entries: &[LogEntry]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let ends = entries.iter().map(|entry| {
            entry.write(&mut bytes);
            bytes.len()
        });
        let ends = ends.collect();
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn records_come_back(entries in prop::collection::vec(entry(), 0..20)) {
            prop_assert_eq!(LogEntry::read_all(&written(&entries).0), (entries, 0));
        }

        #[test]
        fn a_torn_end_costs_the_torn_record_only(entries in prop::collection::vec(entry(), 1..10), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = written(&entries);
            let cut = cut.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let damaged = cut - ends.get(whole.wrapping_sub(1)).copied().unwrap_or(0);
            prop_assert_eq!(LogEntry::read_all(&bytes[..cut]), (entries[..whole].to_vec(), damaged));
        }

        #[test]
        fn a_hole_costs_the_records_in_it_only(entries in prop::collection::vec(entry(), 3..10), hole in any::<prop::sample::Index>()) {
            let (mut bytes, ends) = written(&entries);
            let hole = hole.index(entries.len());
            let begin = if hole == 0 { 0 } else { ends[hole - 1] };
            bytes[begin..ends[hole]].fill(0);
            let mut left = entries;
            left.remove(hole);
            prop_assert_eq!(LogEntry::read_all(&bytes), (left, ends[hole] - begin));
        }

        #[test]
        fn noise_is_no_record_and_no_panic(noise in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert_eq!(LogEntry::read_all(&noise), (Vec::new(), noise.len()));
        }
    }

    #[test]
    fn a_text_beyond_all_bounds_is_cut_at_a_letter() {
        let record = EventRecord {
            id: "i".into(),
            prompt: "ä".repeat(5000),
            score: 1.0,
            peak: 1.0,
            started_at: UNIX_EPOCH,
            duration: None,
            levels: None,
        };
        let mut bytes = Vec::new();
        LogEntry::Started { event: 1, stored_at: UNIX_EPOCH, topic: "t".into(), record }.write(&mut bytes);
        let (entries, damaged) = LogEntry::read_all(&bytes);
        assert_eq!(damaged, 0);
        assert!(matches!(&entries[..], [LogEntry::Started { record, .. }] if record.prompt == "ä".repeat(2048)));
    }
}
