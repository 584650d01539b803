//! One source's way from samples to scores and events.
//!
//! ```text
//! Samples -> Frontend -> patches -> Encode -> mean -> embedding -> PromptBank -> Calibration -> Detector -> Output
//! ```
//! In: [`Samples`] in order. Out: [`Output`]s through the caller's closure, on the source's own clock.
//! Never: no I/O, no thread, no clock; the same samples give the same outputs, however they are cut.

mod clip;
mod gate;
mod window;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::clap::{Bundle, Encode, PromptBank, TextEmbedding, Windowing};
use crate::detect::{Calibration, Detector, Event, Rule, Score, contrasted};
use crate::dsp::{Frontend, FrontendSpec};
use crate::samples::Samples;
use crate::time::SampleTime;

pub use clip::ClipEmbedder;
use gate::Gate;
use window::{Embedder, Schedule, Span};

/// Samples are taken in runs of this length, so that the front end has to keep little more than a window.
const CHUNK: Duration = Duration::from_millis(250);

/// An outage after which open events end where the sound was last heard. Shorter ones are held: a sound server restarts
/// in seconds, and the dog is still barking. For longer ones nobody knows, and a house must not be told ON for hours.
pub const MAX_OUTAGE: Duration = Duration::from_secs(30);

/// A model that listens, shared by all sources.
#[derive(Clone)]
pub struct Model {
    /// The audio tower.
    pub encoder: Arc<dyn Encode>,
    /// From samples to patches.
    pub frontend: FrontendSpec,
    /// From patches to windows.
    pub windowing: Windowing,
    /// From cosine to score.
    pub calibration: Calibration,
}

impl Model {
    /// Loads the audio side of a bundle.
    ///
    /// # Errors
    /// A file that is missing, altered, or does not fit the manifest.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        Ok(Self {
            encoder: Arc::new(bundle.audio_encoder()?),
            frontend: bundle.frontend(),
            windowing: bundle.windowing(),
            calibration: bundle.calibration()?,
        })
    }
}

/// What is listened for: prompts with their rules, and the texts that each is contrasted with.
#[derive(Debug, Clone, Default)]
pub struct PromptSet {
    bank: PromptBank,
    contrasts: Vec<Vec<usize>>,
    rules: Vec<Rule>,
    /// A curve a prompt that is not on the scale of the model's texts.
    curves: Vec<Option<Calibration>>,
}

impl PromptSet {
    /// `prompts` are an embedding, a rule, and the embeddings of the contrasts, each.
    ///
    /// # Errors
    /// An embedding whose length is not `width`.
    pub fn new<'a>(
        width: usize,
        prompts: impl IntoIterator<Item = (&'a TextEmbedding, Rule, &'a [TextEmbedding])>,
    ) -> Result<Self> {
        let prompts: Vec<_> = prompts.into_iter().collect();
        let own = prompts.iter().map(|(embedding, ..)| embedding.vector.as_slice());
        let others = prompts.iter().flat_map(|(.., contrast)| contrast.iter().map(|text| text.vector.as_slice()));
        let bank = PromptBank::new(width, own.chain(others))?;
        // The prompts' rows come first, then those of the first prompt's contrasts, and so on.
        let mut next = prompts.len();
        let mut rows = |count: usize| {
            next += count;
            (next - count..next).collect()
        };
        let contrasts = prompts.iter().map(|(.., contrast)| rows(contrast.len())).collect();
        let rules: Vec<Rule> = prompts.iter().map(|(_, rule, _)| *rule).collect();
        Ok(Self { bank, contrasts, curves: vec![None; rules.len()], rules })
    }

    /// Has the cosines of a prompt whose embedding does not come from words alone scored by a curve of their own.
    #[must_use]
    pub fn with_curve(mut self, prompt: usize, curve: Calibration) -> Self {
        if let Some(own) = self.curves.get_mut(prompt) {
            *own = Some(curve);
        }
        self
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True where nothing is listened for.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Scores embeddings against a [`PromptSet`], with buffers of its own.
pub struct PromptScorer {
    prompts: PromptSet,
    calibration: Calibration,
    cosines: Vec<f32>,
    scores: Vec<Score>,
}

impl PromptScorer {
    /// A scorer with this curve.
    pub fn new(prompts: PromptSet, calibration: Calibration) -> Self {
        let (cosines, scores) = (vec![0.0; prompts.bank.len()], vec![Score::default(); prompts.len()]);
        Self { prompts, calibration, cosines, scores }
    }

    /// Scores for other prompts from now on.
    fn change_prompts(&mut self, prompts: PromptSet) {
        self.cosines.resize(prompts.bank.len(), 0.0);
        self.scores.resize(prompts.len(), Score::default());
        self.prompts = prompts;
    }

    /// A score a prompt, in order.
    pub fn score(&mut self, embedding: &[f32]) -> &[Score] {
        self.prompts.bank.cosines(embedding, &mut self.cosines);
        let PromptSet { contrasts, curves, .. } = &self.prompts;
        for (prompt, (out, (contrasts, curve))) in self.scores.iter_mut().zip(contrasts.iter().zip(curves)).enumerate()
        {
            let own = curve.as_ref().unwrap_or(&self.calibration).score(self.cosines[prompt]);
            *out = contrasted(own, contrasts.iter().map(|row| self.calibration.score(self.cosines[*row]).score));
        }
        &self.scores
    }
}

/// What to do with windows that have become due while the last one was being scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Only the newest window of a push is scored, the others are counted: late news is no news.
    Live,
    /// Every window is scored; the caller waits.
    Every,
}

/// A scored window.
#[derive(Debug, Clone, Copy)]
pub struct ScoredWindow<'a> {
    /// First sample of the window.
    pub start: SampleTime,
    /// Just after its last sample.
    pub end: SampleTime,
    /// Share of it that was lost, 0 to 1.
    pub lost: f32,
    /// It was silent and was not encoded: its cosines and scores are 0, as of something that is not there.
    pub gated: bool,
    /// A score a prompt, in the prompts' order.
    pub scores: &'a [Score],
}

/// What comes out.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// A window was scored.
    Window(ScoredWindow<'a>),
    /// A sound began or ended.
    Event(Event),
}

/// The pipeline of one source.
pub struct Pipeline {
    encoder: Arc<dyn Encode>,
    rate: u32,
    scorer: PromptScorer,
    frontend: Frontend,
    embedder: Embedder,
    schedule: Schedule,
    detector: Detector,
    pace: Pace,
    chunk: usize,
    /// [`MAX_OUTAGE`] in samples at the input's rate.
    longest_outage: u64,
    skipped: u64,
    gate: Option<Gate>,
    gated: u64,
    last_end: u64,
    input_rate: u32,
    /// A score of 0 a prompt.
    nothing: Vec<Score>,
}

impl Pipeline {
    /// A pipeline for samples at `input_rate` a second, with a window every `hop` (rounded to whole frames).
    ///
    /// # Errors
    /// An input rate that the front end does not take.
    pub fn new(model: Model, prompts: PromptSet, input_rate: u32, hop: Duration, pace: Pace) -> Result<Self> {
        let schedule = Schedule::new(&model, hop);
        let frontend = Frontend::new(&model.frontend, input_rate, schedule.keep_frames(CHUNK))?;
        Ok(Self {
            nothing: vec![Score::default(); prompts.len()],
            gate: None,
            gated: 0,
            input_rate,
            frontend,
            schedule,
            embedder: Embedder::new(&model),
            detector: Detector::new(prompts.rules.iter().copied()),
            scorer: PromptScorer::new(prompts, model.calibration),
            encoder: model.encoder,
            rate: model.frontend.sample_rate,
            pace,
            chunk: (CHUNK.as_secs_f64() * f64::from(input_rate)) as usize,
            longest_outage: MAX_OUTAGE.as_secs() * u64::from(input_rate),
            skipped: 0,
            last_end: 0,
        })
    }

    /// Leaves windows unencoded in which no 50 ms reach `gate_db` (RMS in dB below full scale, whose RMS is 1): they count
    /// as heard, with a score of 0 for every prompt. To be said before the first samples.
    #[must_use]
    pub fn with_gate(mut self, gate_db: f32) -> Self {
        let keep = self.schedule.keep(CHUNK);
        self.gate = Some(Gate::new(gate_db, self.input_rate, keep));
        self
    }

    /// Takes samples and gives what is due to `sink`.
    ///
    /// # Errors
    /// An encoder that fails; the samples are taken all the same, and the next push may go well.
    pub fn push(&mut self, samples: Samples<'_>, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        if samples.lost > 0 {
            if samples.lost > self.longest_outage {
                self.interrupt(sink);
            }
            self.frontend.push(Samples { lost: samples.lost, data: &[] })?;
            if let Some(gate) = &mut self.gate {
                gate.push_silence(samples.lost);
            }
            // Nothing was heard, so nothing of what fell due was skipped.
            self.schedule.forget_until(self.frontend.samples());
        }
        for chunk in samples.data.chunks(self.chunk) {
            self.frontend.push(Samples::whole(chunk))?;
            if let Some(gate) = &mut self.gate {
                gate.push(chunk);
            }
            if self.pace == Pace::Every {
                self.score_due(sink)?;
            }
        }
        self.score_due(sink)
    }

    /// Listens for other prompts from the next window on, whose sound is kept. `kept` names, for each of them, the prompt
    /// before that it continues; open events of the others end where the last scored window did, under their old index.
    pub fn change_prompts(
        &mut self,
        prompts: PromptSet,
        kept: impl IntoIterator<Item = Option<usize>>,
        sink: &mut dyn FnMut(Output<'_>),
    ) {
        let heard = SampleTime::from_samples(self.last_end, self.rate);
        let rules = prompts.rules.iter().copied().zip(kept);
        self.detector.change(rules, heard, |event| sink(Output::Event(event)));
        self.nothing = vec![Score::default(); prompts.len()];
        self.scorer.change_prompts(prompts);
    }

    /// Nobody listens any more, or nothing has been heard for [`MAX_OUTAGE`]: open events end where the last scored window did.
    pub fn interrupt(&mut self, sink: &mut dyn FnMut(Output<'_>)) {
        let heard = SampleTime::from_samples(self.last_end, self.rate);
        self.detector.finish(heard, |event| sink(Output::Event(event)));
    }

    /// The source is over: scores what is left and ends open events, whatever comes of the scoring.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        let scored = self.score_rest(sink);
        let end = SampleTime::from_samples(self.frontend.samples(), self.rate);
        self.detector.finish(end, |event| sink(Output::Event(event)));
        scored
    }

    /// Windows that were due and not scored, because a newer one was due as well.
    pub fn windows_skipped(&self) -> u64 {
        self.skipped
    }

    /// Windows that were silent and not encoded, see [`with_gate`](Self::with_gate).
    pub fn windows_gated(&self) -> u64 {
        self.gated
    }

    fn score_rest(&mut self, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        self.frontend.finish()?;
        self.score_due(sink)?;
        let last = self.schedule.last_window(self.frontend.samples(), self.last_end);
        last.map_or(Ok(()), |span| self.score(&span, sink))
    }

    fn score_due(&mut self, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        while let Some(mut span) = self.schedule.next(self.frontend.samples()) {
            while self.pace == Pace::Live
                && let Some(newer) = self.schedule.next(self.frontend.samples())
            {
                self.skipped += 1;
                span = newer;
            }
            self.score(&span, sink)?;
        }
        Ok(())
    }

    fn score(&mut self, span: &Span, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        let gated = self.is_gated(span);
        let scores = if gated {
            self.gated += 1;
            &self.nothing
        } else {
            self.scorer.score(self.embedder.embed(&*self.encoder, &mut self.frontend, span)?)
        };
        self.last_end = span.end;
        let [start, end] = [span.start, span.end].map(|sample| SampleTime::from_samples(sample, self.rate));
        let lost = self.frontend.lost_share(span.start, span.end);
        sink(Output::Window(ScoredWindow { start, end, lost, gated, scores }));
        self.detector.observe(start, end, lost, scores, |event| sink(Output::Event(event)));
        Ok(())
    }

    fn is_gated(&self, span: &Span) -> bool {
        // Of the model's sample, rounded outwards: where it began and ended in the samples that came.
        let [ours, theirs] = [self.rate, self.input_rate].map(u64::from);
        let (start, end) = (span.start * theirs / ours, (span.end * theirs).div_ceil(ours));
        self.gate.as_ref().is_some_and(|gate| gate.is_silent(start, end))
    }
}
