//! The description of a front end: every number that decides what a patch looks like. No other file of `dsp` has one.

use anyhow::{Result, ensure};

use crate::samples::RATES;

/// Longest FFT: 65,536 points are 0.34 s at 192 kHz, 64 times what any known model uses.
const MAX_FFT: usize = 1 << 16;
/// Most mel bins: 8 times the 128 of the largest known models.
const MAX_MEL_BINS: usize = 1024;
/// Longest patch in seconds: 6 times CLAP's; bounds a window's raw samples to 46 MB at 192 kHz.
const MAX_PATCH_SECONDS: usize = 60;
/// Most values in a patch (frames times bins), 4 MiB of f32: CLAP has 64,064.
const MAX_PATCH_VALUES: usize = 1 << 20;

/// What of a frame's spectrum the mel bank sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spectrum {
    /// The absolute value of each FFT bin.
    Magnitude,
    /// Its square.
    Power,
}

/// How hertz become mels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MelScale {
    /// Logarithmic throughout: 2595 log10(1 + f/700).
    Htk,
    /// Linear below 1 kHz and logarithmic above, as in Slaney's Auditory Toolbox.
    Slaney,
}

/// In which space the sides of a mel band are straight lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MelTriangles {
    /// Straight in hertz (torchaudio, librosa, transformers).
    Hz,
    /// Straight in mels (TensorFlow, hence YAMNet).
    Mel,
}

/// How a mel band's weights are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MelNorm {
    /// Each triangle peaks at 1.
    None,
    /// Each triangle is divided by half its width, so that it has the same area.
    Slaney,
}

/// How a band's value becomes a logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogScale {
    /// 10 log10(max(x, floor)).
    Decibel {
        /// The smallest value told apart.
        floor: f64,
    },
    /// ln(x + offset).
    NaturalOffset {
        /// What is added first, so that silence has a logarithm.
        offset: f64,
    },
}

/// What a clip shorter than one patch becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortClipPolicy {
    /// As many whole copies as fit, then zeros (transformers' `repeatpad`).
    RepeatPad,
    /// Zeros after the clip.
    ZeroPad,
}

/// Everything that decides what a patch looks like. The window is always a periodic Hann.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrontendSpec {
    /// The model's rate, in samples a second.
    pub sample_rate: u32,
    /// Samples in a frame.
    pub window_length: usize,
    /// Points of the FFT, at least `window_length`, even; a shorter frame is followed by zeros.
    pub fft_length: usize,
    /// Samples between the beginnings of two frames.
    pub hop_length: usize,
    /// Whether frame k has its middle at sample k * hop, the clip being reflected at its ends; otherwise frame k begins
    /// at sample k * hop.
    pub centered: bool,
    /// What is summed by the mel bank.
    pub spectrum: Spectrum,
    /// Mel bands, the values of a frame.
    pub mel_bins: usize,
    /// The scale on which the bands are equally wide.
    pub mel_scale: MelScale,
    /// Where their sides are straight.
    pub mel_triangles: MelTriangles,
    /// How their weights are scaled.
    pub mel_norm: MelNorm,
    /// Lower edge of the lowest band, in hertz.
    pub f_min: f64,
    /// Upper edge of the highest band, in hertz, at most half the sample rate.
    pub f_max: f64,
    /// The logarithm.
    pub log: LogScale,
    /// Frames in a patch.
    pub patch_frames: usize,
    /// What a clip shorter than one patch becomes.
    pub short: ShortClipPolicy,
}

impl FrontendSpec {
    /// `ClapFeatureExtractor` with `truncation = "fusion"` (Human-CLAP, `laion/clap-htsat-fused`): HTK scale, no
    /// normalisation. `f_min` and `f_max` are transformers' defaults; a checkpoint's own preprocessor settings win.
    pub fn clap_fused() -> Self {
        Self {
            sample_rate: 48_000,
            window_length: 1024,
            fft_length: 1024,
            hop_length: 480,
            centered: true,
            spectrum: Spectrum::Power,
            mel_bins: 64,
            mel_scale: MelScale::Htk,
            mel_triangles: MelTriangles::Hz,
            mel_norm: MelNorm::None,
            f_min: 0.0,
            f_max: 14_000.0,
            log: LogScale::Decibel { floor: 1e-10 },
            patch_frames: 1001,
            short: ShortClipPolicy::RepeatPad,
        }
    }

    /// `ClapFeatureExtractor` with `truncation = "rand_trunc"` (`laion/clap-htsat-unfused`): Slaney scale and
    /// normalisation, otherwise as [`FrontendSpec::clap_fused`].
    pub fn clap_unfused() -> Self {
        Self { mel_scale: MelScale::Slaney, mel_norm: MelNorm::Slaney, ..Self::clap_fused() }
    }

    /// YAMNet: 25 ms windows every 10 ms at 16 kHz, magnitudes, patches of 0.96 s.
    pub fn yamnet() -> Self {
        Self {
            sample_rate: 16_000,
            window_length: 400,
            fft_length: 512,
            hop_length: 160,
            centered: false,
            spectrum: Spectrum::Magnitude,
            mel_bins: 64,
            mel_scale: MelScale::Htk,
            mel_triangles: MelTriangles::Mel,
            mel_norm: MelNorm::None,
            f_min: 125.0,
            f_max: 7_500.0,
            log: LogScale::NaturalOffset { offset: 0.001 },
            patch_frames: 96,
            short: ShortClipPolicy::ZeroPad,
        }
    }

    /// Samples, at the model's rate, that make one patch: 480,000 for CLAP, 15,600 for YAMNet.
    pub fn patch_samples(&self) -> usize {
        let before_last = self.patch_frames.saturating_sub(1).saturating_mul(self.hop_length);
        if self.centered { before_last } else { before_last.saturating_add(self.window_length) }
    }

    /// Values in a patch: frames times bins.
    pub fn patch_len(&self) -> usize {
        self.patch_frames.saturating_mul(self.mel_bins)
    }

    /// How far before sample k * hop frame k begins.
    pub(super) fn frame_lead(&self) -> usize {
        if self.centered { self.window_length / 2 } else { 0 }
    }

    /// Whether a front end can be built from this description, and within bounded memory.
    ///
    /// # Errors
    /// The first field that is out of its range, with its value and the range.
    pub fn validate(&self) -> Result<()> {
        self.validate_framing()?;
        self.validate_mel()?;
        self.validate_patch()
    }

    fn validate_framing(&self) -> Result<()> {
        ensure!(
            RATES.contains(&self.sample_rate),
            "frontend.sample_rate is {}; a rate from {} to {} is needed",
            self.sample_rate,
            RATES.start(),
            RATES.end()
        );
        ensure!(
            self.fft_length.is_multiple_of(2) && (2..=MAX_FFT).contains(&self.fft_length),
            "frontend.fft_length is {}; an even length from 2 to {MAX_FFT} is needed",
            self.fft_length
        );
        ensure!(
            (2..=self.fft_length).contains(&self.window_length),
            "frontend.window_length is {}; 2 to fft_length ({}) samples are needed",
            self.window_length,
            self.fft_length
        );
        ensure!(
            !self.centered || self.window_length.is_multiple_of(2),
            "frontend.window_length is {}; a centred front end needs an even one, which has a middle",
            self.window_length
        );
        ensure!(
            (1..=MAX_FFT).contains(&self.hop_length),
            "frontend.hop_length is {}; 1 to {MAX_FFT} samples are needed",
            self.hop_length
        );
        Ok(())
    }

    fn validate_mel(&self) -> Result<()> {
        ensure!(
            (1..=MAX_MEL_BINS).contains(&self.mel_bins),
            "frontend.mel_bins is {}; 1 to {MAX_MEL_BINS} are needed",
            self.mel_bins
        );
        let nyquist = f64::from(self.sample_rate) / 2.0;
        // Written so that a NaN fails.
        ensure!(
            self.f_min >= 0.0 && self.f_min < self.f_max && self.f_max <= nyquist,
            "frontend.f_min is {} and f_max is {}; 0 <= f_min < f_max <= {nyquist} (half the sample rate) is needed",
            self.f_min,
            self.f_max
        );
        let (name, value) = match self.log {
            LogScale::Decibel { floor } => ("floor", floor),
            LogScale::NaturalOffset { offset } => ("offset", offset),
        };
        ensure!(
            value.is_normal() && value > 0.0,
            "frontend.log.{name} is {value}; a positive number is needed, so that silence has a logarithm"
        );
        Ok(())
    }

    fn validate_patch(&self) -> Result<()> {
        ensure!(
            self.patch_frames >= 1 && self.patch_len() <= MAX_PATCH_VALUES,
            "frontend.patch_frames is {} with {} mel_bins; 1 to {MAX_PATCH_VALUES} values a patch are needed",
            self.patch_frames,
            self.mel_bins
        );
        let longest = MAX_PATCH_SECONDS * self.sample_rate as usize;
        ensure!(
            self.patch_samples() <= longest,
            "frontend.patch_frames is {} every {} samples, a patch of {} samples; at most {longest} ({MAX_PATCH_SECONDS} s) are allowed",
            self.patch_frames,
            self.hop_length,
            self.patch_samples()
        );
        // A reflection shows the clip once: what is shown must lie inside it.
        ensure!(
            !self.centered || self.patch_samples() > self.window_length,
            "frontend.patch_frames is {}, a patch of {} samples; a centred front end reflects its ends: over window_length ({}) is needed",
            self.patch_frames,
            self.patch_samples(),
            self.window_length
        );
        Ok(())
    }
}
