//! From a source's rate to the model's, as a stream.
//!
//! The output is on the input's time line (the filter's delay is taken off) and has, after [`Resampler::finish`],
//! exactly `round(samples * to / from)` samples. The work is done in blocks of fixed size, so the chunks in which
//! samples come can't change a bit of the result; a silence, however long, costs three blocks.

use anyhow::{Context, Result, ensure};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::samples::RATES;

/// Least length of the filter in samples of the slower rate. Its transition is then 2.7% of the band wide: sound passes
/// unchanged up to 97% of the lower Nyquist frequency (7,780 Hz for YAMNet, whose bands end at 7,500 Hz), and a
/// block is 64 ms at 16 kHz, which a live score can wait for.
const MIN_TAPS: u64 = 1024;

/// Most samples of a stream: 2^56 are 11,900 years at 192 kHz, and no product of rates can overflow.
const MAX_SAMPLES: u64 = 1 << 56;

/// A piece of the output.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    /// Samples.
    Sound(&'a [f32]),
    /// So many samples of silence.
    Silence(u64),
}

/// Where a sample of one rate lies at another, to the nearest sample: `round(samples * to / from)`.
pub(super) fn rescale(samples: u64, from: u32, to: u32) -> Result<u64> {
    ensure!(
        samples <= MAX_SAMPLES,
        "a stream of {samples} samples; at most {MAX_SAMPLES} can be counted, start a new stream"
    );
    let (from, to) = (u128::from(from.max(1)), u128::from(to));
    Ok(((2 * u128::from(samples) * to + from) / (2 * from)) as u64)
}

/// Whether a source's rate is one that can be resampled.
pub(super) fn check_rate(rate: u32) -> Result<()> {
    ensure!(
        RATES.contains(&rate),
        "a sample rate of {rate} Hz; {} to {} Hz are supported, convert the sound first",
        RATES.start(),
        RATES.end()
    );
    Ok(())
}

/// A stream on its way from one rate to another.
pub(super) struct Resampler {
    fft: Fft<f64>,
    from: u32,
    to: u32,
    input: Vec<f64>,
    filled: usize,
    output: Vec<f64>,
    piece: Vec<f32>,
    /// Samples of the output that are still to be dropped: the filter's delay.
    delay: usize,
    received: u64,
    produced: u64,
}

impl Resampler {
    /// A resampler between two different rates.
    ///
    /// # Errors
    /// A rate outside [`RATES`].
    pub(super) fn new(from: u32, to: u32) -> Result<Self> {
        check_rate(from)?;
        check_rate(to)?;
        let block = block_length(from, to);
        // f64 and the squared Blackman-Harris window: aliases and rounding lie below -140 dB, under the floor of what
        // follows. One block is one FFT.
        let fft =
            Fft::new_custom(from as usize, to as usize, block, 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Both)
                .with_context(|| format!("resampling from {from} to {to} Hz"))?;
        Ok(Self {
            input: vec![0.0; fft.input_frames_max()],
            output: vec![0.0; fft.output_frames_max()],
            piece: vec![0.0; fft.output_frames_max()],
            delay: fft.output_delay(),
            fft,
            from,
            to,
            filled: 0,
            received: 0,
            produced: 0,
        })
    }

    /// The most samples by which the output lags behind the input, in samples of the output.
    pub(super) fn max_lag(&self) -> usize {
        2 * self.output.len()
    }

    /// Takes samples; `sink` gets what is ready.
    pub(super) fn push(&mut self, mut data: &[f32], sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        self.received += data.len() as u64;
        while !data.is_empty() {
            let free = self.input.len() - self.filled;
            let (now, later) = data.split_at(free.min(data.len()));
            for (slot, &sample) in self.input[self.filled..].iter_mut().zip(now) {
                *slot = f64::from(sample);
            }
            self.filled += now.len();
            data = later;
            if self.filled == self.input.len() {
                self.block(u64::MAX, sink)?;
            }
        }
        Ok(())
    }

    /// Takes `count` samples of silence.
    pub(super) fn push_silence(&mut self, count: u64, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        let block = self.input.len() as u64;
        let mut left = count;
        // The open block and one more empty the filter; from then on silence gives silence, block for block.
        let to_drain = block - self.filled as u64 + 2 * block;
        if left > to_drain {
            self.zeros(to_drain, sink)?;
            left -= to_drain;
            let blocks = left / block;
            let silence = blocks * self.output.len() as u64;
            self.received += blocks * block;
            self.produced += silence;
            left -= blocks * block;
            sink(Piece::Silence(silence))?;
        }
        self.zeros(left, sink)
    }

    /// Ends the stream: gives the rest, so that the output has its whole length.
    pub(super) fn finish(&mut self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        let whole = rescale(self.received, self.from, self.to)?;
        while self.produced < whole {
            self.input[self.filled..].fill(0.0);
            self.filled = self.input.len();
            self.block(whole - self.produced, sink)?;
        }
        Ok(())
    }

    fn zeros(&mut self, count: u64, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        const ZEROS: [f32; 256] = [0.0; 256];
        let mut left = count;
        while left > 0 {
            let now = left.min(ZEROS.len() as u64);
            self.push(&ZEROS[..now as usize], sink)?;
            left -= now;
        }
        Ok(())
    }

    /// Resamples the block that is full and gives at most `most` samples of it.
    fn block(&mut self, most: u64, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        let input = SequentialSlice::new(&self.input, 1, self.input.len()).context("resampler's input")?;
        let length = self.output.len();
        let mut output = SequentialSlice::new_mut(&mut self.output, 1, length).context("resampler's output")?;
        self.fft.process_into_buffer(&input, &mut output, None).context("resampling a block")?;
        self.filled = 0;
        for (slot, &sample) in self.piece.iter_mut().zip(&self.output) {
            *slot = sample as f32;
        }
        let dropped = self.delay.min(length);
        self.delay -= dropped;
        let ready = &self.piece[dropped..];
        let ready = &ready[..ready.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
        self.produced += ready.len() as u64;
        sink(Piece::Sound(ready))
    }
}

/// Input samples in a block: the filter is at least [`MIN_TAPS`] of the slower rate long, a block is a whole number of
/// samples at both rates, and even at both, so that the delay of half a block is a whole number too.
///
/// Two rates without a common divisor make a block of two seconds. Nothing that records sound has such a rate; a
/// file that has is scored all the same.
fn block_length(from: u32, to: u32) -> usize {
    let divisor = gcd(from, to);
    let slower = u64::from(from.min(to) / divisor);
    let units = MIN_TAPS.div_ceil(slower).next_multiple_of(2);
    (units * u64::from(from / divisor)) as usize
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One-shot: `clip` at rate `from` becomes `round(len * to / from)` samples at rate `to`, the same that the streaming
/// front end sees.
///
/// # Errors
/// A rate outside [`RATES`].
pub fn resample_clip(clip: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    if from == to {
        return Ok(clip.to_vec());
    }
    let mut resampler = Resampler::new(from, to)?;
    let mut out = Vec::with_capacity(rescale(clip.len() as u64, from, to)? as usize);
    let mut sink = |piece: Piece<'_>| {
        if let Piece::Sound(samples) = piece {
            out.extend_from_slice(samples);
        }
        Ok(())
    };
    resampler.push(clip, &mut sink)?;
    resampler.finish(&mut sink)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a resampler gives for `before`, `gap` zeros and `after`; silence skipped or written out.
    fn run(from: u32, to: u32, before: &[f32], gap: u64, after: &[f32], skip: bool) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut out = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            match piece {
                Piece::Sound(samples) => out.extend_from_slice(samples),
                Piece::Silence(count) => out.extend(std::iter::repeat_n(0.0, count as usize)),
            }
            Ok(())
        };
        resampler.push(before, &mut sink).unwrap();
        if skip {
            resampler.push_silence(gap, &mut sink).unwrap();
        } else {
            resampler.zeros(gap, &mut sink).unwrap();
        }
        resampler.push(after, &mut sink).unwrap();
        resampler.finish(&mut sink).unwrap();
        out
    }

    #[test]
    fn a_long_silence_is_skipped_without_a_trace() {
        let sound: Vec<f32> = (0..10_000).map(|i| (i as f32 * 0.1).sin()).collect();
        for (from, to) in [(44_100, 48_000), (48_000, 16_000), (8_000, 48_000)] {
            for gap in [0, 1, 5_000, 20_000, 100_003] {
                let slow = run(from, to, &sound, gap, &sound, false);
                assert_eq!(run(from, to, &sound, gap, &sound, true), slow, "{from} {to} {gap}");
                assert_eq!(slow.len() as u64, rescale(20_000 + gap, from, to).unwrap());
            }
        }
    }

    #[test]
    fn blocks_are_even_and_long_enough() {
        for from in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 88_200, 96_000, 176_400, 192_000, 44_056, 47_999] {
            for to in [16_000, 48_000] {
                let (from_wide, to_wide) = (u64::from(from), u64::from(to));
                let block = block_length(from, to) as u64;
                assert!(block.is_multiple_of(2) && (block * to_wide).is_multiple_of(from_wide), "{from} {to}");
                assert!((block * to_wide / from_wide).is_multiple_of(2), "{from} {to}");
                assert!(block.min(block * to_wide / from_wide) >= MIN_TAPS, "{from} {to}");
            }
        }
    }

    #[test]
    fn a_stream_too_long_to_count_is_an_error() {
        assert!(rescale(u64::MAX, 8_000, 192_000).is_err());
        assert_eq!(rescale(3, 2, 1).unwrap(), 2);
    }
}
