//! One source's way from samples to scores and events.
//!
//! ```text
//! Samples -> Frontend -> patches -> Encode -> mean -> embedding -> PromptBank -> Calibration -> Detector -> Output
//! ```
//! A pipeline takes [`Samples`] in order and gives [`Output`]s to the caller's closure, on the source's own clock. It does no
//! I/O, starts no thread and reads no clock: the same samples give the same outputs, however they are cut.

mod auto_gain;
mod gate;
mod level_track;
mod seconds;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::detect::{Detector, Event, Verdict};
use crate::dsp::Frontend;
use crate::embed::{CHUNK, Embedder, Model, Schedule, Span};
use crate::level::{Gain, LevelRange};
use crate::model::Encode;
use crate::prompts::{PromptId, PromptScorer, PromptTable, Rule};
use crate::samples::Samples;
use crate::score::Score;
use crate::time::SampleTime;
use gate::Gate;
use level_track::LevelTrack;

/// An outage after which open events end where the sound was last heard. Shorter ones are held: a sound server restarts
/// in seconds, and the dog is still barking. For longer ones nobody knows, and a house must not be told ON for hours.
pub const MAX_OUTAGE: Duration = Duration::from_secs(30);

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
    /// The prompts that it was scored for.
    pub prompts: &'a Arc<PromptTable>,
    /// A score a prompt, in the table's order.
    pub scores: &'a [Score],
    /// What it meant for each prompt's event.
    pub verdicts: &'a [Verdict],
    /// Its embedding, of unit length; none where it was not encoded.
    pub embedding: Option<&'a [f32]>,
    /// The detector goes on from the window before. False for the first window, and after an interruption, at which open events ended
    /// with the window before.
    pub continues: bool,
}

impl<'a> ScoredWindow<'a> {
    /// Every prompt's id with its score.
    pub fn by_prompt(&self) -> impl Iterator<Item = (&'a PromptId, Score)> + use<'a> {
        self.prompts.prompts().iter().map(|prompt| &prompt.id).zip(self.scores.iter().copied())
    }
}

/// What comes out.
#[derive(Debug, Clone)]
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
    prompts: Arc<PromptTable>,
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
    failed: u64,
    gate: Option<Gate>,
    levels: LevelTrack,
    /// The levels at which the model hears.
    range: Option<LevelRange>,
    gated: u64,
    /// Where the last window ended that got scores.
    last_end: u64,
    /// Where the last window ended that was to get some.
    tried_end: u64,
    /// There was a window, and no interruption since.
    continues: bool,
    input_rate: u32,
    /// A score of 0 a prompt.
    nothing: Vec<Score>,
    verdicts: Vec<Verdict>,
    /// Events of one window, which come behind it.
    events: Vec<Event>,
    step: Arc<OnStep>,
}

/// Called between two parts of a window's computation. An error of it leaves that window unscored.
pub type OnStep = dyn Fn() -> Result<()> + Send + Sync;

impl Pipeline {
    /// A pipeline for samples at `input_rate` a second, with a window every `hop` (rounded to whole frames).
    ///
    /// # Errors
    /// An input rate that the front end does not take.
    pub fn new(model: Model, prompts: Arc<PromptTable>, input_rate: u32, hop: Duration, pace: Pace) -> Result<Self> {
        let schedule = Schedule::new(&model, hop);
        let frontend = Frontend::new(&model.frontend, input_rate, schedule.keep_frames(CHUNK))?;
        Ok(Self {
            nothing: vec![Score::default(); prompts.len()],
            verdicts: Vec::new(),
            events: Vec::new(),
            gate: None,
            levels: LevelTrack::new(Gain::NONE, None, input_rate, 0.0),
            range: model.level,
            gated: 0,
            input_rate,
            frontend,
            schedule,
            embedder: Embedder::new(&model),
            detector: Detector::new(rules(&prompts)),
            scorer: PromptScorer::new(Arc::clone(&prompts), model.calibration),
            prompts,
            encoder: model.encoder,
            rate: model.frontend.sample_rate,
            pace,
            chunk: (CHUNK.as_secs_f64() * f64::from(input_rate)) as usize,
            longest_outage: MAX_OUTAGE.as_secs() * u64::from(input_rate),
            skipped: 0,
            failed: 0,
            last_end: 0,
            tried_end: 0,
            continues: false,
            step: Arc::new(|| Ok(())),
        })
    }

    /// Leaves windows unencoded in which no 50 ms reach `gate_db` (RMS in dB below full scale, whose RMS is 1): they count
    /// as end, with a score of 0 for every prompt. To be said before the first samples.
    #[must_use]
    pub fn with_gate(mut self, gate_db: f32) -> Self {
        let keep = self.schedule.keep(CHUNK);
        self.gate = Some(Gate::new(gate_db, self.input_rate, keep));
        self
    }

    /// Makes the source louder for the model, patch by patch; the gate sees what came. To be said before the first samples. Patches
    /// whose samples would exceed full scale get as much as they have room for.
    #[must_use]
    pub fn with_gain(mut self, gain: Gain) -> Self {
        let keep = self.schedule.keep(CHUNK).as_secs_f64();
        self.levels = LevelTrack::new(gain, self.range, self.input_rate, keep);
        self
    }

    /// Has `step` called between the parts of each window that is encoded, on the thread that pushes.
    #[must_use]
    pub fn with_step(mut self, step: Arc<OnStep>) -> Self {
        self.step = step;
        self
    }

    /// Takes samples and gives what is due to `sink`.
    ///
    /// # Errors
    /// The first window whose encoding failed; [`windows_failed`](Self::windows_failed) counts all. It gets no scores, and
    /// that is all that is lost: the samples are taken, and the windows behind it are scored.
    pub fn push(&mut self, samples: Samples<'_>, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        if samples.lost > 0 {
            if samples.lost > self.longest_outage {
                self.interrupt(sink);
            }
            self.frontend.push(Samples { lost: samples.lost, data: &[] })?;
            self.levels.push_lost(samples.lost);
            if let Some(gate) = &mut self.gate {
                gate.push_silence(samples.lost);
            }
            // Nothing was end, so nothing of what fell due was skipped.
            self.schedule.forget_until(self.frontend.samples());
        }
        let mut scored = Ok(());
        for chunk in samples.data.chunks(self.chunk) {
            self.frontend.push(Samples::whole(chunk))?;
            self.levels.push(chunk);
            if let Some(gate) = &mut self.gate {
                gate.push(chunk);
            }
            if self.pace == Pace::Every {
                scored = scored.and(self.score_due(sink));
            }
        }
        scored.and(self.score_due(sink))
    }

    /// Listens for other prompts from the next window on, whose sound is kept. Prompts of the same id and sound go on, open
    /// event and all, by the rule that they have now; open events of the others end where the last scored window did.
    pub fn change_prompts(&mut self, prompts: Arc<PromptTable>, sink: &mut dyn FnMut(Output<'_>)) {
        let end = SampleTime::from_samples(self.last_end, self.rate);
        let is_same = |id: &PromptId| prompts.is_same_sound(&self.prompts, id);
        self.detector.change(rules(&prompts), is_same, end, |event| sink(Output::Event(event)));
        self.nothing = vec![Score::default(); prompts.len()];
        self.scorer.change_prompts(Arc::clone(&prompts));
        self.prompts = prompts;
    }

    /// Nobody listens any more, or nothing has been heard for [`MAX_OUTAGE`]: open events end where the last scored window did.
    pub fn interrupt(&mut self, sink: &mut dyn FnMut(Output<'_>)) {
        self.continues = false;
        let end = SampleTime::from_samples(self.last_end, self.rate);
        self.detector.finish(end, |event| sink(Output::Event(event)));
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

    /// Windows that were due and got no scores, because their encoding failed.
    pub fn windows_failed(&self) -> u64 {
        self.failed
    }

    /// Windows that were silent and not encoded, see [`with_gate`](Self::with_gate).
    pub fn windows_gated(&self) -> u64 {
        self.gated
    }

    /// Gives every log-mel frame from number `from` on that is still kept, as the front end has it (without the gain), in order: when
    /// it is, and its values. Returns the number of the next: what to ask for the next time. What shows a spectrogram asks this, and it
    /// costs nothing where nobody does.
    pub fn mel_rows(&self, from: u64, sink: &mut dyn FnMut(SampleTime, &[f32])) -> u64 {
        self.frontend.rows_since(from, &mut |sample, row| sink(SampleTime::from_samples(sample, self.rate), row))
    }

    /// The gain in dB that the newest sound is heard with.
    pub fn gain_db(&self) -> f32 {
        self.levels.gain_db()
    }

    /// The loudest of the last 60 whole seconds as the model hears it, gain and all: RMS in dB below full scale. None before there
    /// were as many. Seconds of which something was lost are left out.
    pub fn loudest_db(&self) -> Option<f32> {
        self.levels.loudest_db()
    }

    fn score_rest(&mut self, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        self.frontend.finish()?;
        let scored = self.score_due(sink);
        let last = self.schedule.last_window(self.frontend.samples(), self.tried_end);
        scored.and(last.map_or(Ok(()), |span| self.score(&span, sink)))
    }

    /// All of them, whatever becomes of each; the first failure.
    fn score_due(&mut self, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        let mut scored = Ok(());
        while let Some(mut span) = self.schedule.next(self.frontend.samples()) {
            while self.pace == Pace::Live
                && let Some(newer) = self.schedule.next(self.frontend.samples())
            {
                self.skipped += 1;
                span = newer;
            }
            scored = scored.and(self.score(&span, sink));
        }
        scored
    }

    fn score(&mut self, span: &Span, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        self.tried_end = span.end;
        let scored = self.score_window(span, sink);
        if scored.is_err() {
            self.failed += 1;
            // Nobody knows what goes on, as in an outage of the source.
            if span.end - self.last_end > MAX_OUTAGE.as_secs() * u64::from(self.rate) {
                self.interrupt(sink);
            }
        }
        scored
    }

    fn score_window(&mut self, span: &Span, sink: &mut dyn FnMut(Output<'_>)) -> Result<()> {
        let gated = self.is_gated(span);
        let embedding = if gated {
            self.gated += 1;
            None
        } else {
            let [ours, theirs] = [self.rate, self.input_rate].map(u64::from);
            let gain = |end: u64| self.levels.gain_at(end * theirs / ours);
            let embedding = self.embedder.embed(&*self.encoder, &mut self.frontend, span, &gain, &*self.step)?;
            self.scorer.score(embedding);
            Some(embedding)
        };
        let scores = if gated { &self.nothing } else { self.scorer.scores() };
        self.last_end = span.end;
        let [start, end] = [span.start, span.end].map(|sample| SampleTime::from_samples(sample, self.rate));
        let lost = self.frontend.lost_share(span.start, span.end);
        self.detector.observe(start, end, lost, scores, |event| self.events.push(event));
        self.verdicts.clear();
        let own = if gated { &[] } else { self.scorer.own_scores() };
        let alone = own.iter().copied().chain(std::iter::repeat(0.0)).zip(self.prompts.prompts());
        self.verdicts.extend(self.detector.verdicts().iter().zip(alone).map(
            |(verdict, (own, prompt))| match verdict {
                Verdict::Below if own >= prompt.rule.start => Verdict::Contrasted(own),
                verdict => *verdict,
            },
        ));
        let (prompts, verdicts) = (&self.prompts, &self.verdicts);
        let continues = std::mem::replace(&mut self.continues, true);
        let window = ScoredWindow { start, end, lost, gated, prompts, scores, verdicts, embedding, continues };
        sink(Output::Window(window));
        self.events.drain(..).for_each(|event| sink(Output::Event(event)));
        Ok(())
    }

    fn is_gated(&self, span: &Span) -> bool {
        // Of the model's sample, rounded outwards: where it began and ended in the samples that came.
        let [ours, theirs] = [self.rate, self.input_rate].map(u64::from);
        let (start, end) = (span.start * theirs / ours, (span.end * theirs).div_ceil(ours));
        self.gate.as_ref().is_some_and(|gate| gate.is_silent(start, end))
    }
}

fn rules(prompts: &PromptTable) -> impl Iterator<Item = (PromptId, Rule)> {
    prompts.prompts().iter().map(|prompt| (prompt.id.clone(), prompt.rule))
}
