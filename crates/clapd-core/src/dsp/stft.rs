//! One frame of sound into its spectrum: periodic Hann window, zeros up to the FFT's length, real FFT.
//!
//! The FFT runs in f64. In f32 the rounding of a full-scale steady sound stands above the floor of -100 dB in bands
//! where there is nothing: measured with scipy's f32 FFT, 3.9 dB off on a 440.3 Hz tone and 0.7 dB on a constant,
//! against the 0.01 dB that parity allows.

use std::f64::consts::TAU;
use std::sync::Arc;

use anyhow::{Context, Result};
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::spec::{FrontendSpec, Spectrum};

/// The transform of one frame, with its buffers.
pub(super) struct Stft {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    time: Vec<f64>,
    bins: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    kind: Spectrum,
    spectrum: Vec<f64>,
}

impl Stft {
    /// Plans the transform of a checked `spec`; `used_bins` are looked at, the rest are not worked out.
    pub(super) fn new(spec: &FrontendSpec, used_bins: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(spec.fft_length);
        let step = TAU / spec.window_length as f64;
        Self {
            window: (0..spec.window_length).map(|i| 0.5 - 0.5 * (step * i as f64).cos()).collect(),
            time: fft.make_input_vec(),
            bins: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            kind: spec.spectrum,
            spectrum: vec![0.0; used_bins],
            fft,
        }
    }

    /// The spectrum of `frame` (`window_length` samples): `used_bins` values from 0 Hz up, linear.
    pub(super) fn spectrum(&mut self, frame: &[f32]) -> Result<&[f64]> {
        // The transform uses its input as scratch, so the zeros are written anew.
        let (head, tail) = self.time.split_at_mut(self.window.len());
        for ((out, &sample), &weight) in head.iter_mut().zip(frame).zip(&self.window) {
            *out = f64::from(sample) * weight;
        }
        tail.fill(0.0);
        self.fft.process_with_scratch(&mut self.time, &mut self.bins, &mut self.scratch).context("FFT of a frame")?;
        for (out, bin) in self.spectrum.iter_mut().zip(&self.bins) {
            *out = match self.kind {
                Spectrum::Power => bin.norm_sqr(),
                Spectrum::Magnitude => bin.norm_sqr().sqrt(),
            };
        }
        Ok(&self.spectrum)
    }
}
