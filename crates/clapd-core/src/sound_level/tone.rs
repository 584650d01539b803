//! The tone of a sound calibrator in a recording: how strong it is, and whether it is one.
//!
//! A calibrator sits tightly on the microphone and gives one steady tone (IEC 60942: 94 or 114 dB at 1 kHz, pistonphones at 250 Hz).
//! What is no steady tone is a calibrator that is off, not tight, or runs out of battery, and would spoil every level from then on.

use std::f64::consts::TAU;
use std::fmt;

use super::correction::MicrophoneCorrection;
use crate::level::{PowerSums, decibels};

/// The recording is judged in pieces of this length, in seconds: long enough to tell 1 kHz from a hum, short enough to see it waver.
const PIECE_S: f64 = 0.25;
/// Pieces at the beginning and the end are left out: there somebody lets go of the microphone.
const TRIMMED_PIECES: usize = 2;
/// Pieces that are needed between them: 3 s.
const MIN_PIECES: usize = 12;
/// How far the tone may lie from its frequency: calibrators of class 2 hold theirs within 2%, and a sound card's clock costs nothing beside
/// that.
const FREQUENCY_SHARE: f64 = 0.03;
/// By how much the tone must be stronger than all else, in dB: what is beside it then adds 0.04 dB at most.
const MIN_CLEARANCE_DB: f64 = 20.0;
/// The strongest piece may exceed the weakest by this, in dB. Calibrators of class 2 waver by 0.2 dB.
const MAX_SPREAD_DB: f64 = 0.5;
/// Samples from here up are cut off, or nearly.
const CLIPPED: f32 = 0.99;

/// A calibrator's tone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tone {
    /// RMS in dB below full scale, where full scale is an RMS of 1.
    pub level_db: f64,
    /// By how much it is stronger than all else, in dB.
    pub clearance_db: f64,
    /// By how much its strongest quarter of a second exceeds the weakest, in dB.
    pub spread_db: f64,
}

/// Why a recording is not of a calibrator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ToneError {
    /// It has so many seconds; so many are needed.
    Short(f64, f64),
    /// The frequency in Hz is none that can be looked for at this rate.
    Frequency(f64, u32),
    /// It is cut off at full scale.
    Clipped,
    /// The tone is stronger than all else by so many dB only, or weaker.
    NotClear(f64, f64),
    /// Its level changes by so many dB.
    Unsteady(f64),
}

impl fmt::Display for ToneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(seconds, needed) => {
                write!(f, "{seconds:.1} s of sound, and {needed:.1} s are needed: record for longer")
            }
            Self::Frequency(hz, rate) => write!(
                f,
                "{hz} Hz is not a tone from 20 Hz to {:.0} Hz, which sound with {rate} samples a second can hold",
                0.45 * f64::from(*rate)
            ),
            Self::Clipped => f.write_str(
                "the tone is cut off at full scale: lower the capture volume, or take the calibrator's lower level",
            ),
            Self::NotClear(hz, clearance) => write!(
                f,
                "there is no clear tone of {hz} Hz: it is {clearance:.1} dB above all else, and {MIN_CLEARANCE_DB} dB are needed; \
                 switch the calibrator on, push the microphone all the way in, and name another tone with --hz"
            ),
            Self::Unsteady(spread) => write!(
                f,
                "the tone wavers by {spread:.1} dB, and {MAX_SPREAD_DB} dB are allowed: seat the calibrator tightly, hold it still, \
                 look at its battery, and switch off an automatic gain"
            ),
        }
    }
}

impl std::error::Error for ToneError {}

/// Measures the tone of `hz` in a recording of a calibrator; a microphone's correction is applied at that frequency.
///
/// # Errors
/// A recording in which there is no steady tone of that frequency, or that is cut off or too short.
pub fn measure_tone(
    samples: &[f32],
    rate: u32,
    hz: f64,
    correction: Option<&MicrophoneCorrection>,
) -> Result<Tone, ToneError> {
    if !(20.0..=0.45 * f64::from(rate)).contains(&hz) {
        return Err(ToneError::Frequency(hz, rate));
    }
    let length = (PIECE_S * f64::from(rate)) as usize;
    let pieces: Vec<&[f32]> = samples.chunks_exact(length.max(1)).collect();
    let needed = MIN_PIECES + 2 * TRIMMED_PIECES;
    if pieces.len() < needed {
        let seconds = samples.len() as f64 / f64::from(rate);
        return Err(ToneError::Short(seconds, needed as f64 * PIECE_S));
    }
    let pieces = &pieces[TRIMMED_PIECES..pieces.len() - TRIMMED_PIECES];
    if pieces.iter().any(|piece| piece.iter().any(|sample| sample.abs() >= CLIPPED)) {
        return Err(ToneError::Clipped);
    }
    let (mut tones, mut rests) = (Vec::with_capacity(pieces.len()), 0.0);
    for piece in pieces {
        let (tone, all) = tone_and_all(piece, rate, hz);
        rests += (all - tone).max(0.0);
        tones.push(tone);
    }
    let sum: f64 = tones.iter().sum();
    let clearance_db = decibels(sum / rests.max(f64::MIN_POSITIVE)).min(144.0);
    if clearance_db.is_nan() || clearance_db < MIN_CLEARANCE_DB {
        return Err(ToneError::NotClear(hz, if clearance_db.is_nan() { f64::NEG_INFINITY } else { clearance_db }));
    }
    let (low, high) = tones.iter().fold((f64::MAX, 0.0_f64), |(low, high), tone| (low.min(*tone), high.max(*tone)));
    let spread_db = decibels(high / low);
    if spread_db > MAX_SPREAD_DB {
        return Err(ToneError::Unsteady(spread_db));
    }
    let correction_db = correction.map_or(0.0, |correction| correction.gain_db(hz));
    Ok(Tone { level_db: decibels(sum / tones.len() as f64) - correction_db, clearance_db, spread_db })
}

/// The power of what lies close to `hz`, and the power of all, both around the mean. Hann's window keeps the tone together; its own power is
/// taken off again.
fn tone_and_all(piece: &[f32], rate: u32, hz: f64) -> (f64, f64) {
    let mut sums = PowerSums::default();
    piece.iter().for_each(|sample| sums.push(*sample));
    let (mean, length) = (sums.mean(), piece.len() as f64);
    let windowed: Vec<f64> = piece
        .iter()
        .enumerate()
        .map(|(n, sample)| (f64::from(*sample) - mean) * (0.5 - 0.5 * (TAU * n as f64 / length).cos()))
        .collect();
    let all = windowed.iter().map(|sample| sample * sample).sum::<f64>();
    // Bins are 4 Hz apart, and the window spreads a tone over two of them to either side.
    let bin = f64::from(rate) / length;
    let reach = (FREQUENCY_SHARE * hz / bin).ceil() as i32 + 2;
    let centre = (hz / bin).round();
    let tone: f64 = (-reach..=reach)
        .map(|offset| centre + f64::from(offset))
        .filter(|index| *index >= 1.0 && *index < length / 2.0)
        .map(|index| 2.0 * bin_power(&windowed, index / length) / length)
        .sum();
    // The mean square of Hann's window is 3/8.
    let scale = 8.0 / 3.0 / length;
    (tone * scale, all * scale)
}

/// The squared magnitude of the Fourier transform at a frequency in cycles a sample.
fn bin_power(samples: &[f64], cycles: f64) -> f64 {
    let coefficient = 2.0 * (TAU * cycles).cos();
    let (mut before, mut last) = (0.0, 0.0);
    for sample in samples {
        (before, last) = (last, sample + coefficient * last - before);
    }
    last * last + before * before - coefficient * last * before
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    fn tone(hz: f64, amplitude: impl Fn(f64) -> f64, noise: f32) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(5);
        (0..RATE * 5)
            .map(|n| f64::from(n) / f64::from(RATE))
            .map(|at| (amplitude(at) * (TAU * hz * at).sin()) as f32 + noise * (random.f32() - 0.5) + 0.05)
            .collect()
    }

    #[test]
    fn a_calibrator_is_measured_also_where_its_frequency_is_a_little_off() {
        for hz in [980.0, 1_000.0, 1_001.7, 1_020.0] {
            let found = measure_tone(&tone(hz, |_| 0.1, 0.01), RATE, 1_000.0, None).unwrap();
            assert!((found.level_db + 23.01).abs() < 0.02 && found.spread_db < 0.1, "{hz} Hz: {found:?}");
            assert!((20.0..40.0).contains(&found.clearance_db), "{hz} Hz: {found:?}");
        }
        let pistonphone = measure_tone(&tone(250.0, |_| 0.5, 0.001), RATE, 250.0, None).unwrap();
        assert!((pistonphone.level_db + 9.03).abs() < 0.02, "{pistonphone:?}");
        let correction = MicrophoneCorrection::parse("100 2.0\n1000 0.5\n2000 0\n").unwrap();
        let corrected = measure_tone(&tone(1_000.0, |_| 0.1, 0.0), RATE, 1_000.0, Some(&correction)).unwrap();
        assert!((corrected.level_db + 23.51).abs() < 0.02, "{corrected:?}");
    }

    #[test]
    fn what_is_no_calibrator_is_refused_with_the_reason() {
        let judge = |samples: &[f32], hz| measure_tone(samples, RATE, hz, None);
        let good = tone(1_000.0, |_| 0.1, 0.0);
        assert_eq!(judge(&good[..RATE as usize], 1_000.0), Err(ToneError::Short(1.0, 4.0)));
        assert!(matches!(judge(&good, 8_000.0), Err(ToneError::Frequency(..))));
        assert!(matches!(judge(&good, 500.0), Err(ToneError::NotClear(..))), "another tone");
        assert!(matches!(judge(&tone(1_000.0, |_| 0.0, 0.1), 1_000.0), Err(ToneError::NotClear(..))), "noise");
        assert!(matches!(judge(&vec![0.0; 80_000], 1_000.0), Err(ToneError::NotClear(..))), "silence");
        assert!(matches!(judge(&tone(1_000.0, |_| 0.1, 0.05), 1_000.0), Err(ToneError::NotClear(..))), "loud noise");
        assert_eq!(judge(&tone(1_000.0, |_| 0.97, 0.0), 1_000.0), Err(ToneError::Clipped));
        let fading = judge(&tone(1_000.0, |at| 0.1 - 0.005 * at, 0.0), 1_000.0);
        let Err(error @ ToneError::Unsteady(spread)) = fading else { panic!("{fading:?}") };
        assert!(spread > 1.0 && error.to_string().contains("battery"), "{error}");
        for error in [judge(&good, 500.0), judge(&good, 1.0), judge(&good[..9], 1_000.0)] {
            assert!(error.unwrap_err().to_string().len() > 40);
        }
    }
}
