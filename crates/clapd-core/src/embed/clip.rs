//! A whole recording as one embedding, as its model was trained to see a clip.
//!
//! The recording comes in pieces and is not held: memory does not grow with its length.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Model;
use super::window::{Embedder, Schedule, Span};
use crate::dsp::Frontend;
use crate::samples::Samples;

/// Collects a recording. Where a window is one patch (`clap`), that is the first patch, 10 s; where it is many
/// (`mini`), the mean over the patches of the whole recording.
pub struct ClipEmbedder {
    model: Model,
    frontend: Frontend,
    schedule: Schedule,
    embedder: Embedder,
    chunk: usize,
    sum: Vec<f64>,
    patches: u64,
    end: u64,
}

impl ClipEmbedder {
    /// For samples at `input_rate` a second.
    ///
    /// # Errors
    /// An input rate that the front end does not take.
    pub fn new(model: Model, input_rate: u32) -> Result<Self> {
        let step = if model.windowing.patch_hop == 0 { model.windowing.patch } else { model.windowing.patch_hop };
        let hop = Duration::from_secs_f64(step as f64 / f64::from(model.frontend.sample_rate));
        let mut single = model.clone();
        single.windowing.patches = 1;
        let schedule = Schedule::new(&single, hop);
        let frontend = Frontend::new(&model.frontend, input_rate, schedule.keep_frames(super::CHUNK))?;
        Ok(Self {
            frontend,
            schedule,
            embedder: Embedder::new(&model),
            chunk: (super::CHUNK.as_secs_f64() * f64::from(input_rate)) as usize,
            sum: vec![0.0; model.encoder.feature_len()],
            patches: 0,
            end: 0,
            model,
        })
    }

    /// Takes samples; false once the rest of the recording changes nothing.
    ///
    /// # Errors
    /// An encoder that fails.
    pub fn push(&mut self, samples: Samples<'_>) -> Result<bool> {
        self.frontend.push(Samples { lost: samples.lost, data: &[] })?;
        for chunk in samples.data.chunks(self.chunk) {
            if self.is_full() {
                return Ok(false);
            }
            self.frontend.push(Samples::whole(chunk))?;
            self.take_due()?;
        }
        Ok(!self.is_full())
    }

    /// The recording is over; its embedding, and the seconds of sound that went into it.
    ///
    /// # Errors
    /// A recording without a sample at the model's rate, or an encoder that fails.
    pub fn finish(mut self) -> Result<(Vec<f32>, f64)> {
        if !self.is_full() {
            self.frontend.finish()?;
            self.take_due()?;
        }
        if self.patches == 0 {
            let span = self.schedule.last_window(self.frontend.samples(), 0);
            ensure!(
                span.is_some(),
                "the recording holds no sound: 0 samples at the model's {} Hz; at least 1 is needed",
                self.model.frontend.sample_rate
            );
            if let Some(span) = span {
                self.take(&span)?;
            }
        }
        let mean: Vec<f32> = self.sum.iter().map(|sum| (sum / self.patches as f64) as f32).collect();
        let mut embedding = vec![0.0; self.model.encoder.embedding_len()];
        self.model.encoder.embed(&mean, &mut embedding)?;
        let seconds = self.end as f64 / f64::from(self.model.frontend.sample_rate);
        Ok((embedding, seconds))
    }

    fn is_full(&self) -> bool {
        self.model.windowing.patch_hop == 0 && self.patches > 0
    }

    fn take_due(&mut self) -> Result<()> {
        while !self.is_full()
            && let Some(span) = self.schedule.next(self.frontend.samples())
        {
            self.take(&span)?;
        }
        Ok(())
    }

    fn take(&mut self, span: &Span) -> Result<()> {
        let features = self.embedder.features(&*self.model.encoder, &mut self.frontend, span, &|_| 0.0, &|| Ok(()))?;
        self.sum.iter_mut().zip(features).for_each(|(sum, x)| *sum += f64::from(*x));
        self.patches += 1;
        self.end = span.end;
        Ok(())
    }
}
