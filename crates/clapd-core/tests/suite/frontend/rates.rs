//! Every input rate: level, phase, length, images and aliases.

use clapd_core::dsp::{Frontend, FrontendSpec, clip_patch, resample_clip};
use clapd_core::samples::Samples;

use super::signals::sine;

const RATES: [u32; 11] = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];
const MODEL_RATES: [u32; 2] = [16_000, 48_000];

/// Largest absolute value, leaving out a tenth of a second at both ends, where a tone's sudden beginning is spread.
fn peak(samples: impl ExactSizeIterator<Item = f32>, rate: u32) -> f32 {
    let margin = rate as usize / 10;
    let inner = samples.len() - 2 * margin;
    samples.skip(margin).take(inner).fold(0.0, |peak, x| peak.max(x.abs()))
}

#[test]
fn a_tone_is_the_same_tone_at_the_other_rate() {
    for from in RATES {
        for to in MODEL_RATES {
            // Up to 0.94 of the lower Nyquist frequency: YAMNet's highest band ends there.
            for hz in [100.0, 1000.0, 0.47 * f64::from(from.min(to))] {
                let resampled = resample_clip(&sine(hz, from, from as usize), from, to).unwrap();
                let made = sine(hz, to, to as usize);
                assert_eq!(resampled.len(), made.len());
                let error = peak(resampled.iter().zip(&made).map(|(a, b)| a - b).collect::<Vec<_>>().into_iter(), to);
                // -120 dB of the tone, images among it.
                assert!(error < 0.5e-6, "{hz} Hz from {from} to {to}: off by {error}");
            }
        }
    }
}

#[test]
fn what_the_model_rate_cannot_hold_is_gone() {
    for from in RATES {
        for to in MODEL_RATES.into_iter().filter(|&to| to < from) {
            for ratio in [0.5005, 0.52, 0.6, 0.9] {
                let hz = ratio * f64::from(to);
                if hz >= 0.5 * f64::from(from) {
                    continue;
                }
                let alias = peak(resample_clip(&sine(hz, from, from as usize), from, to).unwrap().into_iter(), to);
                println!("{hz} Hz from {from} to {to}: {:.1} dB", 20.0 * (alias / 0.5).log10());
                assert!(alias < 0.5 * 3.2e-5, "{hz} Hz from {from} to {to}: alias of {alias}, over -90 dB");
            }
        }
    }
}

#[test]
fn a_kilohertz_stands_in_the_same_band_at_the_same_level_from_every_rate() {
    for spec in [FrontendSpec::clap_fused(), FrontendSpec::clap_unfused(), FrontendSpec::yamnet()] {
        let frames = spec.patch_frames;
        let direct = clip_patch(&spec, &sine(1000.0, spec.sample_rate, spec.patch_samples())).unwrap();
        for rate in RATES {
            let mut front_end = Frontend::new(&spec, rate, frames + 100).unwrap();
            let length = spec.patch_samples() * rate as usize / spec.sample_rate as usize + 1;
            front_end.push(Samples::whole(&sine(1000.0, rate, length))).unwrap();
            front_end.finish().unwrap();
            let mut patch = vec![0.0; direct.len()];
            front_end.patch(0, &mut patch).unwrap();
            let row = |patch: &[f32]| patch[frames / 2 * spec.mel_bins..][..spec.mel_bins].to_vec();
            let loudest = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            let (ours, expected) = (row(&patch), row(&direct));
            let band = loudest(&expected);
            assert_eq!(loudest(&ours), band, "{rate}");
            assert!((ours[band] - expected[band]).abs() < 1e-4, "{rate}: {} {}", ours[band], expected[band]);
        }
    }
}

#[test]
fn a_stream_has_its_length_at_any_rate() {
    // Rates without a common divisor too: a whole number of blocks is never assumed.
    for rate in RATES.into_iter().chain([44_056, 12_345, 47_999, 191_999]) {
        for length in [0_u64, 1, 777, 30_001] {
            let mut front_end = Frontend::new(&FrontendSpec::yamnet(), rate, 96).unwrap();
            front_end.push(Samples::whole(&vec![0.1; length as usize])).unwrap();
            front_end.finish().unwrap();
            let expected = (length as f64 * 16_000.0 / f64::from(rate)).round() as u64;
            assert_eq!(front_end.samples(), expected, "{length} at {rate}");
        }
    }
}

#[test]
fn rates_outside_the_range_are_errors() {
    for rate in [0, 7_999, 192_001, u32::MAX] {
        let Err(error) = Frontend::new(&FrontendSpec::yamnet(), rate, 96) else { panic!("{rate} was accepted") };
        assert!(error.to_string().contains(&rate.to_string()), "{error}");
    }
}
