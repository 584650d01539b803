//! The mel filter bank: overlapping triangles that sum FFT bins into bands.
//!
//! A band stores the weights under its triangle and no others.
//!
//! Follows `transformers.audio_utils.mel_filter_bank` (itself after librosa and torchaudio) in f64. Triangles straight
//! in mels over the HTK scale are TensorFlow's `linear_to_mel_weight_matrix`, which YAMNet uses: its 1127 ln and our
//! 2595 log10 differ by a factor that cancels within a triangle, and its rule that 0 Hz weighs nothing holds by itself,
//! since no triangle begins below 0 Hz.

use std::f64::consts::LN_10;
use std::ops::Range;

use super::spec::{FrontendSpec, LogScale, MelNorm, MelScale, MelTriangles, Spectrum};

/// Where Slaney's scale turns from linear to logarithmic: 1 kHz, which is 15 mels of 200/3 Hz.
const SLANEY_KNEE_HZ: f64 = 1000.0;
const SLANEY_KNEE_MEL: f64 = 15.0;
const SLANEY_HZ_PER_MEL: f64 = 200.0 / 3.0;
/// Above the knee 27 mels multiply the frequency by 6.4.
const SLANEY_LOG_MELS: f64 = 27.0;
const SLANEY_LOG_RATIO: f64 = 6.4;

impl MelScale {
    fn mel(self, hz: f64) -> f64 {
        match self {
            Self::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
            Self::Slaney if hz < SLANEY_KNEE_HZ => hz / SLANEY_HZ_PER_MEL,
            Self::Slaney => SLANEY_KNEE_MEL + (hz / SLANEY_KNEE_HZ).ln() * SLANEY_LOG_MELS / SLANEY_LOG_RATIO.ln(),
        }
    }

    fn hz(self, mel: f64) -> f64 {
        match self {
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < SLANEY_KNEE_MEL => mel * SLANEY_HZ_PER_MEL,
            Self::Slaney => SLANEY_KNEE_HZ * ((mel - SLANEY_KNEE_MEL) * SLANEY_LOG_RATIO.ln() / SLANEY_LOG_MELS).exp(),
        }
    }
}

impl FrontendSpec {
    /// The frequency in hertz at which each band weighs the most, the lowest first.
    pub fn band_centres(&self) -> Vec<f64> {
        let hz = |edge: f64| match self.mel_triangles {
            MelTriangles::Hz => edge,
            MelTriangles::Mel => self.mel_scale.hz(edge),
        };
        edges(self).windows(3).map(|corner| hz(corner[1])).collect()
    }

    /// A band's value in decibels, where a tone of full scale in one band has about 0.
    pub fn band_decibels(&self, value: f32) -> f32 {
        let decibels = match (self.log, self.spectrum) {
            (LogScale::Decibel { .. }, Spectrum::Power) => f64::from(value),
            (LogScale::Decibel { .. }, Spectrum::Magnitude) => 2.0 * f64::from(value),
            (LogScale::NaturalOffset { .. }, Spectrum::Power) => 10.0 / LN_10 * f64::from(value),
            (LogScale::NaturalOffset { .. }, Spectrum::Magnitude) => 20.0 / LN_10 * f64::from(value),
        };
        // A Hann window's sum is half its length, and half of a tone's amplitude is at its own frequency.
        (decibels - 20.0 * (self.window_length as f64 / 4.0).log10()) as f32
    }
}

/// One triangle: its bins and their weights, which lie in the bank's one list.
struct Band {
    bins: Range<usize>,
    weights: Range<usize>,
}

/// The bands of a front end.
pub(super) struct MelBank {
    bands: Vec<Band>,
    weights: Vec<f64>,
}

impl MelBank {
    /// The bank of a checked `spec`. A band narrower than the distance between two bins may be empty: it is always 0.
    pub(super) fn new(spec: &FrontendSpec) -> Self {
        let edges = edges(spec);
        let bin_hz = f64::from(spec.sample_rate) / spec.fft_length as f64;
        let positions: Vec<f64> = (0..=spec.fft_length / 2).map(|k| position(spec, bin_hz * k as f64)).collect();
        let mut bank = Self { bands: Vec::with_capacity(spec.mel_bins), weights: Vec::new() };
        for corner in edges.windows(3) {
            bank.add(corner, &positions, spec.mel_norm);
        }
        bank
    }

    /// How many bins from 0 Hz up the bank looks at.
    pub(super) fn used_bins(&self) -> usize {
        self.bands.iter().map(|band| band.bins.end).max().unwrap_or(0)
    }

    /// Sums `spectrum` (at least `used_bins` values) into one value a band.
    pub(super) fn sums<'a>(&'a self, spectrum: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.bands.iter().map(|band| {
            let weights = &self.weights[band.weights.clone()];
            spectrum[band.bins.clone()].iter().zip(weights).map(|(value, weight)| value * weight).sum()
        })
    }

    fn add(&mut self, corner: &[f64], positions: &[f64], norm: MelNorm) {
        let (low, peak, high) = (corner[0], corner[1], corner[2]);
        let scale = match norm {
            MelNorm::None => 1.0,
            MelNorm::Slaney => 2.0 / (high - low),
        };
        let begin = positions.partition_point(|&p| p <= low);
        let end = positions.partition_point(|&p| p < high).max(begin);
        let first = self.weights.len();
        let triangle = |p: f64| ((p - low) / (peak - low)).min((high - p) / (high - peak));
        self.weights.extend(positions[begin..end].iter().map(|&p| triangle(p) * scale));
        self.bands.push(Band { bins: begin..end, weights: first..self.weights.len() });
    }
}

/// The corners of the triangles, two more than bands, in the space where their sides are straight.
fn edges(spec: &FrontendSpec) -> Vec<f64> {
    let (low, high) = (spec.mel_scale.mel(spec.f_min), spec.mel_scale.mel(spec.f_max));
    let step = (high - low) / (spec.mel_bins + 1) as f64;
    let mels = (0..spec.mel_bins + 2).map(|i| low + step * i as f64);
    match spec.mel_triangles {
        MelTriangles::Hz => mels.map(|mel| spec.mel_scale.hz(mel)).collect(),
        MelTriangles::Mel => mels.collect(),
    }
}

/// A frequency in the space where the triangles' sides are straight.
fn position(spec: &FrontendSpec, hz: f64) -> f64 {
    match spec.mel_triangles {
        MelTriangles::Hz => hz,
        MelTriangles::Mel => spec.mel_scale.mel(hz),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_go_there_and_back() {
        for scale in [MelScale::Htk, MelScale::Slaney] {
            for hz in [0.0, 20.0, 999.9, 1000.0, 1000.1, 14_000.0, 96_000.0] {
                assert!((scale.hz(scale.mel(hz)) - hz).abs() < 1e-8, "{scale:?} {hz}");
            }
        }
        assert!((MelScale::Htk.mel(1000.0) - 999.985).abs() < 0.01);
        assert!((MelScale::Slaney.mel(6400.0) - 42.0).abs() < 1e-9);
    }

    #[test]
    fn bands_have_frequencies_and_levels() {
        for spec in [FrontendSpec::clap_fused(), FrontendSpec::clap_unfused(), FrontendSpec::yamnet()] {
            let centres = spec.band_centres();
            assert_eq!(centres.len(), spec.mel_bins);
            assert!(centres.is_sorted() && centres[0] > spec.f_min && centres[spec.mel_bins - 1] < spec.f_max);
            // A full tone in one bin of a Hann window: a quarter of the length.
            let tone = (spec.window_length as f64 / 4.0) as f32;
            let value = match spec.log {
                LogScale::Decibel { .. } => 10.0 * (tone * tone).log10(),
                LogScale::NaturalOffset { .. } => tone.ln(),
            };
            assert!(spec.band_decibels(value).abs() < 1e-3, "{}", spec.band_decibels(value));
        }
    }

    #[test]
    fn no_weight_is_zero_and_neighbours_sum_to_one() {
        let spec = FrontendSpec::clap_fused();
        let bank = MelBank::new(&spec);
        assert!(bank.weights.iter().all(|&w| w > 0.0 && w <= 1.0));
        let mut total = vec![0.0; spec.fft_length / 2 + 1];
        for band in &bank.bands {
            for (bin, &weight) in band.bins.clone().zip(&bank.weights[band.weights.clone()]) {
                total[bin] += weight;
            }
        }
        // Between the peaks of the first and the last band every bin is shared out completely.
        assert!(total[10..280].iter().all(|t| (t - 1.0).abs() < 1e-9));
        assert_eq!(total[0], 0.0);
    }

    #[test]
    fn a_band_between_two_bins_is_empty_and_silent() {
        let spec = FrontendSpec { f_min: 50.0, f_max: 90.0, ..FrontendSpec::clap_fused() };
        let bank = MelBank::new(&spec);
        let spectrum = vec![1.0; bank.used_bins()];
        assert!(bank.sums(&spectrum).all(|sum| sum == 0.0));
    }
}
