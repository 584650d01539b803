//! What a measuring microphone's maker measured of it, and a filter that takes it off again.
//!
//! The files are those of miniDSP (UMIK), Dayton Audio and others, which REW reads: a line for each frequency, with the frequency in
//! Hz and the microphone's gain there in dB, perhaps a phase behind it. Lines that begin with no number are comments.

use std::f64::consts::PI;
use std::fmt;

use crate::text::shorten;

/// Frequencies of a file, in Hz: a microphone that was measured lower or higher was measured in another unit.
const FREQUENCIES: std::ops::RangeInclusive<f64> = 1.0..=100_000.0;
/// The most that a microphone is off, in dB. Files go to 20 dB at the ends; what is off by more hears nothing there that could be
/// corrected.
const MAX_GAIN_DB: f64 = 30.0;
/// UMIK's files have 600 to 1,000 lines; more than this is no such file.
const MAX_POINTS: usize = 20_000;
/// How long the filter reaches to either side, in seconds: it then tells frequencies 50 Hz apart, and costs, at 48 kHz, 960
/// multiplications a sample. A-weighted levels have nothing finer below that, where A is 30 dB down.
const REACH_S: f64 = 0.01;
/// Products that are added side by side: what a CPU's vector registers take at once, twice.
const LANES: usize = 16;
/// Samples that are filtered at once.
const BLOCK: usize = 1024;

/// A microphone's gain over frequency.
#[derive(Debug, Clone, PartialEq)]
pub struct MicrophoneCorrection {
    /// Frequency in Hz, ascending, and gain in dB.
    points: Vec<(f64, f64)>,
}

/// What is wrong with a correction file, and on which line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrectionError {
    /// None: of the file as a whole.
    pub line: Option<usize>,
    /// What was seen, and what is allowed.
    pub message: String,
}

impl fmt::Display for CorrectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for CorrectionError {}

impl MicrophoneCorrection {
    /// Reads a file's text.
    ///
    /// # Errors
    /// A line that begins with a number and is no pair of a frequency and a gain; frequencies that do not ascend; values out of
    /// bounds; fewer than two pairs.
    pub fn parse(text: &str) -> Result<Self, CorrectionError> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |message: String| CorrectionError { line: Some(index + 1), message };
            let Some((hz, gain_db)) = parse_line(line).map_err(at_line)? else { continue };
            if let Some((before, _)) = points.last()
                && *before >= hz
            {
                return Err(at_line(format!("{hz} Hz stands behind {before} Hz, and frequencies must ascend")));
            }
            if points.len() == MAX_POINTS {
                return Err(at_line(format!("more than {MAX_POINTS} frequencies, the most that is read")));
            }
            points.push((hz, gain_db));
        }
        if points.len() < 2 {
            let seen = points.len();
            let message = format!("{seen} lines with a frequency and a gain; a correction needs two at least");
            return Err(CorrectionError { line: None, message });
        }
        Ok(Self { points })
    }

    /// The microphone's gain in dB at a frequency in Hz: between two points straight over the logarithm of the frequency, and beyond the
    /// last one as there.
    pub fn gain_db(&self, hz: f64) -> f64 {
        let above = self.points.partition_point(|(point, _)| *point < hz);
        match (above.checked_sub(1).and_then(|below| self.points.get(below)), self.points.get(above)) {
            (Some((low, at_low)), Some((high, at_high))) => {
                at_low + (at_high - at_low) * (hz / low).ln() / (high / low).ln()
            }
            (Some((_, gain)), None) | (None, Some((_, gain))) => *gain,
            (None, None) => 0.0,
        }
    }
}

/// The pair on a line; none where it is empty or a comment.
fn parse_line(line: &str) -> Result<Option<(f64, f64)>, String> {
    let line = line.trim();
    if !line.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return Ok(None);
    }
    // "20,5 -1,2" would be read as 20 Hz and 5 dB.
    let has_decimal_comma =
        line.split_whitespace().take(2).filter(|word| word.trim_end_matches(',').contains(',')).count();
    if has_decimal_comma > 0 && line.split_whitespace().count() > 1 {
        return Err(format!("\"{}\" has commas within numbers; write 20.5 for 20,5", shorten(line)));
    }
    let mut words = line.split(|c: char| c.is_whitespace() || ",;".contains(c)).filter(|word| !word.is_empty());
    let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).filter(|number| number.is_finite());
    let (Some(hz), Some(gain_db)) = (number(), number()) else {
        let expected = "is not a frequency in Hz and a gain in dB, as in \"1000 -0.25\"";
        return Err(format!("\"{}\" {expected}", shorten(line)));
    };
    if !FREQUENCIES.contains(&hz) {
        return Err(format!("{hz} is not a frequency from {} to {} Hz", FREQUENCIES.start(), FREQUENCIES.end()));
    }
    if gain_db.abs() > MAX_GAIN_DB {
        return Err(format!("{gain_db} dB at {hz} Hz; a microphone is off by at most {MAX_GAIN_DB} dB"));
    }
    Ok(Some((hz, gain_db)))
}

/// The filter for one rate, with its memory: symmetric, so that all frequencies come [`REACH_S`] later and none more than others.
#[derive(Debug, Clone)]
pub(super) struct CorrectionFilter {
    /// A multiple of [`LANES`]; the last ones are zero.
    taps: Vec<f32>,
    /// The newest samples: as many as there are taps, but for one, and behind them those of the block in work.
    samples: Vec<f32>,
}

impl CorrectionFilter {
    pub(super) fn new(correction: &MicrophoneCorrection, rate: u32) -> Self {
        let rate = f64::from(rate);
        let reach = (REACH_S * rate).round().max(1.0) as usize;
        // Four times as fine as what the taps can follow.
        let bands = 4 * reach;
        let gains: Vec<f64> = (0..bands)
            .map(|band| (band as f64 + 0.5) / bands as f64 * rate / 2.0)
            .map(|hz| 10_f64.powf(-correction.gain_db(hz) / 20.0))
            .collect();
        let cosines: Vec<f64> = (0..4 * bands).map(|n| (PI * n as f64 / (2 * bands) as f64).cos()).collect();
        let half: Vec<f64> = (0..=reach)
            .map(|n| {
                let terms = gains.iter().enumerate();
                let sum: f64 = terms.map(|(band, gain)| gain * cosines[(2 * band + 1) * n % (4 * bands)]).sum();
                // Hann's window: cut off at once, the gain would ripple.
                sum / bands as f64 * 0.5 * (1.0 + (PI * n as f64 / (reach + 1) as f64).cos())
            })
            .collect();
        let mut taps: Vec<f32> = half.iter().rev().chain(&half[1..]).map(|tap| *tap as f32).collect();
        taps.resize(taps.len().next_multiple_of(LANES), 0.0);
        Self { samples: Vec::with_capacity(taps.len() + BLOCK), taps }
    }

    /// Begins anew with a signal that has always been `sample`.
    pub(super) fn reset(&mut self, sample: f32) {
        self.samples.clear();
        self.samples.resize(self.taps.len() - 1, sample);
    }

    /// Takes samples; `sink` gets as many, corrected.
    pub(super) fn push(&mut self, data: &[f32], sink: &mut dyn FnMut(&[f32])) {
        let memory = self.taps.len() - 1;
        let mut corrected = [0.0_f32; BLOCK];
        for block in data.chunks(BLOCK) {
            self.samples.extend_from_slice(block);
            for (n, sample) in corrected[..block.len()].iter_mut().enumerate() {
                *sample = dot(&self.taps, &self.samples[n..n + self.taps.len()]);
            }
            self.samples.drain(..self.samples.len() - memory);
            sink(&corrected[..block.len()]);
        }
    }
}

/// The sum of products, always in the same order.
fn dot(taps: &[f32], samples: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (taps, samples) in taps.chunks_exact(LANES).zip(samples.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += taps[lane] * samples[lane];
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As miniDSP and others write them; the numbers are made up.
    const UMIK: &str =
        "\"Sens Factor =-1.378dB, SERNO: 7000001\"\r\n20.00\t-2.0\r\n100.00\t0.0\r\n1000\t0.0\r\n16000\t5.0\r\n";
    const DAYTON: &str = "*1000Hz\t-41.2\n# comment\n; comment\nFreq(Hz) SPL(dB) Phase\n20, -2.0, 11.5\n\n1e3;0.5;0\n";

    #[test]
    fn files_are_read_as_makers_write_them() {
        let umik = MicrophoneCorrection::parse(UMIK).unwrap();
        assert_eq!(umik.points, [(20.0, -2.0), (100.0, 0.0), (1_000.0, 0.0), (16_000.0, 5.0)]);
        assert_eq!((umik.gain_db(5.0), umik.gain_db(20.0), umik.gain_db(30_000.0)), (-2.0, -2.0, 5.0));
        assert!((umik.gain_db(4_000.0) - 2.5).abs() < 1e-9, "halfway in octaves: {}", umik.gain_db(4_000.0));
        let dayton = MicrophoneCorrection::parse(DAYTON).unwrap();
        assert_eq!(dayton.points, [(20.0, -2.0), (1_000.0, 0.5)]);
    }

    #[test]
    fn what_is_no_correction_is_refused_with_its_line() {
        for (text, line, words) in [
            ("", None, "0 lines"),
            ("100 0\n", None, "1 lines"),
            ("20 0\n20 1\n", Some(2), "ascend"),
            ("# a\n20\n", Some(2), "as in \"1000 -0.25\""),
            ("20 x\n", Some(1), "as in"),
            ("20 NaN\n", Some(1), "as in"),
            ("20,5 -1,2\n30,5 -1,2\n", Some(1), "write 20.5"),
            ("20 -31\n", Some(1), "at most 30 dB"),
            ("0.5 1\n", Some(1), "from 1 to 100000"),
            ("-20 1\n", Some(1), "from 1 to 100000"),
        ] {
            let error = MicrophoneCorrection::parse(text).unwrap_err();
            assert!(error.line == line && error.message.contains(words), "{text:?}: {error}");
        }
        let many: String = (0..=MAX_POINTS).map(|n| format!("{} 0\n", 1.0 + n as f64)).collect();
        assert!(MicrophoneCorrection::parse(&many).unwrap_err().message.contains("20000"));
    }

    /// The gain of the filter in dB at a frequency.
    fn filter_gain(filter: &CorrectionFilter, hz: f64, rate: f64) -> f64 {
        let angle = 2.0 * PI * hz / rate;
        let (mut re, mut im) = (0.0, 0.0);
        for (n, tap) in filter.taps.iter().enumerate() {
            re += f64::from(*tap) * (angle * n as f64).cos();
            im += f64::from(*tap) * (angle * n as f64).sin();
        }
        10.0 * (re * re + im * im).log10()
    }

    /// What is finer than 50 Hz it cannot follow.
    #[test]
    fn the_filter_takes_off_what_the_microphone_added() {
        let umik = MicrophoneCorrection::parse(UMIK).unwrap();
        for rate in [8_000_u32, 16_000, 44_100, 48_000, 96_000] {
            let filter = CorrectionFilter::new(&umik, rate);
            for hz in [60.0, 100.0, 250.0, 1_000.0, 2_000.0, 5_000.0, 12_000.0, 18_000.0] {
                if hz < 0.45 * f64::from(rate) {
                    let error = filter_gain(&filter, hz, f64::from(rate)) + umik.gain_db(hz);
                    let allowed = if hz <= 100.0 { 0.3 } else { 0.1 };
                    assert!(error.abs() < allowed, "{hz} Hz at {rate}: off by {error:.3} dB");
                }
            }
        }
    }
}
