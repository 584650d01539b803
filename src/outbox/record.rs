//! The records of the log, and their bytes.
//!
//! In: what became of an event. Out: bytes, and the records that a file's bytes still hold, whatever befell them.
//! A record is `length: u16 | crc32: u32 | kind: u8 | body`, numbers little-endian; length and checksum are of kind and body.
//! A power cut leaves a torn last record, or a hole of zeros where a page was not written: reading goes on at the next
//! offset that holds a whole record. Noise passes for a record with a chance of 2^-32.
//! Never: a kind changes its meaning or its fields; a new version of one is a new kind.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Notice;

/// Length and checksum.
const HEAD: usize = 6;
/// Configuration bounds the texts far below it: a prompt has 300 letters.
const MAX_TEXT: usize = 4096;
/// Three texts and some numbers.
const MAX_BODY: usize = 3 * (2 + MAX_TEXT) + 64;

/// What became of an event; `event` is its number in this log.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// It began, and its start waits for the broker. Held by the log since `kept_at`, by the time of day.
    Started { event: u64, kept_at: SystemTime, topic: Arc<str>, notice: Notice },
    /// It ended, and its end waits.
    Ended { event: u64, kept_at: SystemTime, score: f32, peak: f32, duration: Duration },
    /// The broker has its start.
    StartTold { event: u64 },
    /// The broker has its end, or it was dropped over a bound: it is forgotten.
    Forgotten { event: u64 },
    /// It is open still: the last window that was heard, and the highest score so far.
    Heard { event: u64, at: SystemTime, score: f32, peak: f32 },
}

impl Record {
    /// Appends its bytes. Longer texts than any configuration allows are cut.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let head = out.len();
        out.extend([0; HEAD]);
        match self {
            Self::Started { event, kept_at, topic, notice } => {
                out.push(1);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*kept_at).to_le_bytes());
                out.extend(nanos(notice.started_at).to_le_bytes());
                out.extend(notice.score.to_le_bytes());
                out.extend(notice.peak.to_le_bytes());
                [topic, notice.id.as_str(), notice.prompt.as_str()].iter().for_each(|text| write_text(text, out));
            }
            Self::Ended { event, kept_at, score, peak, duration } => {
                out.push(2);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*kept_at).to_le_bytes());
                out.extend(score.to_le_bytes());
                out.extend(peak.to_le_bytes());
                out.extend(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
            }
            Self::StartTold { event } => {
                out.push(3);
                out.extend(event.to_le_bytes());
            }
            Self::Forgotten { event } => {
                out.push(4);
                out.extend(event.to_le_bytes());
            }
            Self::Heard { event, at, score, peak } => {
                out.push(5);
                out.extend(event.to_le_bytes());
                out.extend(nanos(*at).to_le_bytes());
                out.extend(score.to_le_bytes());
                out.extend(peak.to_le_bytes());
            }
        }
        let body = &out[head + HEAD..];
        let (length, sum) = (u16::try_from(body.len()).unwrap_or(u16::MAX), crc32fast::hash(body));
        out[head..head + 2].copy_from_slice(&length.to_le_bytes());
        out[head + 2..head + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    /// The record at the beginning of `bytes`, and its length; none where there is no whole one.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        // Cheap to ask first, where noise is searched for records.
        let likely = |body: &&[u8]| length <= MAX_BODY && matches!(body.first(), Some(1..=5));
        let body = rest.get(..length).filter(likely)?;
        let sum = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        if crc32fast::hash(body) != sum {
            return None;
        }
        let mut fields = Fields(body);
        let record = fields.record()?;
        Some((record, HEAD + length))
    }

    /// Every record in `bytes`, in order, and how many bytes belong to none.
    pub(super) fn read_all(mut bytes: &[u8]) -> (Vec<Self>, usize) {
        let (mut records, mut damaged) = (Vec::new(), 0);
        while !bytes.is_empty() {
            let step = match Self::read(bytes) {
                Some((record, length)) => {
                    records.push(record);
                    length
                }
                None => {
                    damaged += 1;
                    1
                }
            };
            bytes = &bytes[step..];
        }
        (records, damaged)
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn record(&mut self) -> Option<Record> {
        let (kind, event) = (self.bytes::<1>()?[0], self.number()?);
        Some(match kind {
            1 => {
                let (kept_at, started_at) = (self.time()?, self.time()?);
                let (score, peak) = (self.score()?, self.score()?);
                let (topic, id, prompt) = (self.text()?, self.text()?, self.text()?);
                let notice = Notice { id, prompt, score, peak, started_at, duration: None };
                Record::Started { event, kept_at, topic: topic.into(), notice }
            }
            2 => Record::Ended {
                event,
                kept_at: self.time()?,
                score: self.score()?,
                peak: self.score()?,
                duration: Duration::from_nanos(self.number()?),
            },
            3 => Record::StartTold { event },
            4 => Record::Forgotten { event },
            5 => Record::Heard { event, at: self.time()?, score: self.score()?, peak: self.score()? },
            _ => return None,
        })
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

fn write_text(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
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
                .prop_map(|(event, kept_at, topic, id, prompt, score, peak, started_at)| Record::Started {
                    event,
                    kept_at,
                    topic: topic.into(),
                    notice: Notice { id, prompt, score, peak, started_at, duration: None },
                }),
            (number, time.clone(), score.clone(), score.clone(), number).prop_map(
                |(event, kept_at, score, peak, nanos)| {
                    Record::Ended { event, kept_at, score, peak, duration: Duration::from_nanos(nanos) }
                }
            ),
            number.prop_map(|event| Record::StartTold { event }),
            number.prop_map(|event| Record::Forgotten { event }),
            (number, time, score.clone(), score).prop_map(|(event, at, score, peak)| Record::Heard {
                event,
                at,
                score,
                peak
            }),
        ]
    }

    fn written(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let ends = records.iter().map(|record| {
            record.write(&mut bytes);
            bytes.len()
        });
        let ends = ends.collect();
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn records_come_back(records in prop::collection::vec(record(), 0..20)) {
            prop_assert_eq!(Record::read_all(&written(&records).0), (records, 0));
        }

        #[test]
        fn a_torn_end_costs_the_torn_record_only(records in prop::collection::vec(record(), 1..10), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = written(&records);
            let cut = cut.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let damaged = cut - ends.get(whole.wrapping_sub(1)).copied().unwrap_or(0);
            prop_assert_eq!(Record::read_all(&bytes[..cut]), (records[..whole].to_vec(), damaged));
        }

        #[test]
        fn a_hole_costs_the_records_in_it_only(records in prop::collection::vec(record(), 3..10), hole in any::<prop::sample::Index>()) {
            let (mut bytes, ends) = written(&records);
            let hole = hole.index(records.len());
            let begin = if hole == 0 { 0 } else { ends[hole - 1] };
            bytes[begin..ends[hole]].fill(0);
            let mut left = records;
            left.remove(hole);
            prop_assert_eq!(Record::read_all(&bytes), (left, ends[hole] - begin));
        }

        #[test]
        fn noise_is_no_record_and_no_panic(noise in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert_eq!(Record::read_all(&noise), (Vec::new(), noise.len()));
        }
    }

    #[test]
    fn a_text_beyond_all_bounds_is_cut_at_a_letter() {
        let notice = Notice {
            id: "i".into(),
            prompt: "ä".repeat(5000),
            score: 1.0,
            peak: 1.0,
            started_at: UNIX_EPOCH,
            duration: None,
        };
        let mut bytes = Vec::new();
        Record::Started { event: 1, kept_at: UNIX_EPOCH, topic: "t".into(), notice }.write(&mut bytes);
        let (records, damaged) = Record::read_all(&bytes);
        assert_eq!(damaged, 0);
        assert!(matches!(&records[..], [Record::Started { notice, .. }] if notice.prompt == "ä".repeat(2048)));
    }
}
