//! Lock-free rings: between the audio callback and a stream's thread, and between that and the pipeline's.
//!
//! The writer writes whole blocks with the moment at which each was captured; it does not allocate, lock, log or block. A
//! block for which there is no room is not written and is counted, and the reader learns how many samples were lost
//! before which of those that it gets.

use std::sync::Arc;
use std::time::Instant;

use rtrb::{Consumer, Producer, RingBuffer};

use super::counters::SourceCounters;

/// Seconds that a source's ring holds. Loading a text tower or a new bundle can keep the pipeline away for some ten seconds on
/// a small computer; 30 s outlast that and cost 5.8 MB at 48 kHz.
const SOURCE_SECONDS: usize = 30;
/// A mark every tenth of a second is what the clock's smoothing expects.
const MARKS_A_SECOND: u64 = 10;

/// Something the reader must know about the sample with index `at`.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Samples written before it.
    at: u64,
    /// Samples lost immediately before it.
    lost: u64,
    /// When it was captured.
    captured: Instant,
}

/// The writer's end.
pub(super) struct RingWriter {
    samples: Producer<f32>,
    marks: Producer<Mark>,
    counters: Arc<SourceCounters>,
    mark_every: u64,
    written: u64,
    next_mark: u64,
    lost: u64,
}

/// The reader's end.
pub(super) struct RingReader {
    samples: Consumer<f32>,
    marks: Consumer<Mark>,
    /// Samples a second.
    pub rate: u32,
    read: u64,
    /// Samples read and samples lost: the position on the stream's time line.
    position: u64,
}

/// A source's ring, for `rate` samples a second.
pub(super) fn ring(rate: u32, counters: Arc<SourceCounters>) -> (RingWriter, RingReader) {
    ring_of(SOURCE_SECONDS, rate, counters)
}

/// A ring of so many seconds, for `rate` samples a second.
pub(super) fn ring_of(seconds: usize, rate: u32, counters: Arc<SourceCounters>) -> (RingWriter, RingReader) {
    let (samples_in, samples_out) = RingBuffer::new(rate as usize * seconds);
    // Room for the marks of a full ring, and as many again for those after losses.
    let (marks_in, marks_out) = RingBuffer::new(2 * seconds * MARKS_A_SECOND as usize);
    let mark_every = u64::from(rate) / MARKS_A_SECOND;
    (
        RingWriter { samples: samples_in, marks: marks_in, counters, mark_every, written: 0, next_mark: 0, lost: 0 },
        RingReader { samples: samples_out, marks: marks_out, rate, read: 0, position: 0 },
    )
}

impl RingWriter {
    /// Counts samples that were lost before what is written next.
    pub fn lose(&mut self, samples: u64) {
        self.lost += samples;
        self.counters.samples_lost.add(samples);
    }

    /// Writes a block whose first sample was captured at `captured`: all of it or, where there is no room, none.
    pub fn write(&mut self, captured: Instant, block: impl ExactSizeIterator<Item = f32>) {
        let len = block.len();
        if len == 0 {
            return;
        }
        let marked = self.lost > 0 || self.written >= self.next_mark;
        if self.samples.slots() < len || (marked && self.marks.slots() == 0) {
            self.lost += len as u64;
            self.counters.samples_lost.add(len as u64);
            return;
        }
        if marked {
            // The mark goes first: whoever sees the samples sees their mark.
            let mark = Mark { at: self.written, lost: self.lost, captured };
            if self.marks.push(mark).is_ok() {
                self.lost = 0;
                self.next_mark = self.written + self.mark_every;
            }
        }
        if let Ok(chunk) = self.samples.write_chunk_uninit(len) {
            self.written += chunk.fill_from_iter(block) as u64;
        }
    }
}

impl RingReader {
    /// Takes all samples up to the next loss into `out` (replacing what is in it) and returns how many were lost before
    /// them; `None` where there are none. `observe` is told position and moment of marked samples.
    pub fn read(&mut self, out: &mut Vec<f32>, mut observe: impl FnMut(u64, Instant)) -> Option<u64> {
        out.clear();
        let ready = self.samples.slots() as u64;
        if ready == 0 {
            return None;
        }
        let (mut lost, mut until) = (0, self.read + ready);
        while let Ok(&mark) = self.marks.peek() {
            if mark.at >= until {
                break;
            }
            if mark.lost > 0 && mark.at > self.read {
                until = mark.at;
                break;
            }
            lost += mark.lost;
            self.position += mark.lost;
            observe(self.position + (mark.at - self.read), mark.captured);
            let _ = self.marks.pop();
        }
        let chunk = self.samples.read_chunk((until - self.read) as usize).ok()?;
        let (first, second) = chunk.as_slices();
        out.extend_from_slice(first);
        out.extend_from_slice(second);
        chunk.commit_all();
        self.position += until - self.read;
        self.read = until;
        Some(lost)
    }

    /// Position on the stream's time line, in samples: those read and those lost.
    pub fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 8_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the sizes of blocks and however often the reader reads, every sample comes out at its place on the time
        /// line: a sample's value is its true index (small numbers, exact in f32).
        #[test]
        fn every_sample_keeps_its_place(steps in prop::collection::vec((1_usize..70_000, any::<bool>()), 1..60)) {
            let counters = Arc::new(SourceCounters::default());
            let (mut writer, mut reader) = ring(RATE, counters.clone());
            let (mut next, mut place, mut seen_lost, mut out) = (0_u64, 0_u64, 0_u64, Vec::new());
            for (len, drain) in steps {
                writer.write(Instant::now(), (next..next + len as u64).map(|index| index as f32).collect::<Vec<_>>().into_iter());
                next += len as u64;
                while let Some(lost) = drain.then(|| reader.read(&mut out, |_, _| ())).flatten() {
                    place += lost;
                    seen_lost += lost;
                    prop_assert_eq!(out[0], place as f32);
                    place += out.len() as u64;
                    prop_assert_eq!(out[out.len() - 1], (place - 1) as f32);
                    prop_assert_eq!(reader.position(), place);
                }
            }
            while let Some(lost) = reader.read(&mut out, |_, _| ()) {
                place += lost + out.len() as u64;
                seen_lost += lost;
            }
            // Losses after the last written block are still to come with the next one.
            prop_assert_eq!(place + writer.lost, next);
            prop_assert_eq!(seen_lost + writer.lost, counters.samples_lost.get());
        }
    }

    #[test]
    fn marks_come_every_tenth_of_a_second() {
        let (mut writer, mut reader) = ring(RATE, Arc::new(SourceCounters::default()));
        for _ in 0..100 {
            writer.write(Instant::now(), vec![0.0; 80].into_iter());
        }
        let mut marks = Vec::new();
        reader.read(&mut Vec::new(), |position, _| marks.push(position));
        assert_eq!(marks, (0..10).map(|mark| mark * 800).collect::<Vec<u64>>());
    }
}
