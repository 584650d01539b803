//! What the channels of a card are worth: dead ones, those that cancel each other in a mix, the best.
//!
//! A mix halves a microphone that hangs at one of two channels, and loses one whose channels are each other's inverse: a balanced
//! microphone at a stereo input, or one wire turned round. Levels and correlations are taken over whole seconds and judged over several;
//! times are counts of samples, so that the same sound gives the same verdict however it is cut.

use std::collections::VecDeque;

use clapd_core::channel::Channel;
use clapd_core::level::decibels;

use super::level::{CLIPPED_SHARE, FULL_SCALE, MIN_SWING};

/// Channels that are judged, the first of them: with 28 pairs a second of sound costs 1.7 million products, and an array has no more.
const MAX_JUDGED: usize = 8;
/// A channel this far below the loudest hears nothing of what that hears. Two microphones at one card are some 20 dB apart where one
/// is ten times as far away; cheap codecs let 40 dB less of one input into the other.
const DEAD_DB: f64 = -30.0;
/// A channel that comes so near to the loudest lives.
const ALIVE_DB: f64 = -20.0;
/// A second is loud that is this far above the quietest of its channel: in a quiet one there is only noise to compare.
const LOUD_DB: f64 = 10.0;
/// How fast the quietest second is forgotten, in dB a second: a fan that goes on is the new quiet after some minutes.
const FLOOR_RISE_DB: f64 = 0.05;
/// Channels correlated like this leave at most as much in the mix as half of one of them would: (1 + r)/2 of its power. Two microphones
/// in one room are between 0 and 1, those of different rooms at 0.
const CANCELLING: f64 = -0.5;
/// Channels correlated like this in a loud second don't cancel each other. Between the two nothing is changed.
const NOT_CANCELLING: f64 = -0.3;
/// What dead channels take off the mix before it is worth a word: one of eight takes 1 dB, two take 2.5.
const MIN_LOSS_DB: f64 = 2.0;
/// Seconds that have to agree: a beep can be out of phase at two microphones, and a voice be nearer to one, for a moment.
const SECONDS: u32 = 5;
/// Seconds over which channels are compared to find the best.
const COMPARED: usize = 10;
/// Another channel is better that hears four times the power, 6 dB, above its noise; less is not worth a change of place.
const BETTER: f64 = 4.0;
/// The highest sample of 24 bits at the lower end of 32: 48 dB below full scale.
const LOW_BITS_PEAK: f32 = 1.0 / 256.0;

/// Judges the channels of one stream.
#[derive(Debug)]
pub(super) struct ChannelMeter {
    rate: u32,
    channels: usize,
    /// Samples are integers of 32 bits, whose ends can be told.
    wide: bool,
    second: Second,
    states: Vec<ChannelState>,
    /// For each pair of judged channels, seconds in which they cancelled each other, up to [`SECONDS`].
    cancelling: Vec<u32>,
    is_cancelling: Vec<bool>,
    /// What the second in which that became certain showed.
    correlation: Vec<f64>,
    /// How much quieter the mix was than the best channel, then, in dB.
    mix_loss_db: f64,
    low_bits: u32,
    /// The upper bits have moved once, so they are used.
    has_high_bits: bool,
    best: Option<usize>,
    better: u32,
}

#[derive(Debug, Clone, Default)]
struct ChannelState {
    /// Seconds in which it heard nothing of what another did, up to [`SECONDS`].
    dead: u32,
    is_dead: bool,
    /// It held one value all the time.
    constant: bool,
    floor_db: Option<f64>,
    /// Power and whether it was clipped, of the last seconds.
    recent: VecDeque<(f64, bool)>,
}

/// Sums over a second.
#[derive(Debug)]
struct Second {
    frames: u32,
    sums: Vec<f64>,
    /// For each pair, a channel with itself included.
    products: Vec<f64>,
    lowest: Vec<f32>,
    highest: Vec<f32>,
    full: Vec<u32>,
    moves_low_bits: bool,
}

impl Second {
    fn new(channels: usize) -> Self {
        Self {
            frames: 0,
            sums: vec![0.0; channels],
            products: vec![0.0; channels * channels],
            lowest: vec![f32::INFINITY; channels],
            highest: vec![f32::NEG_INFINITY; channels],
            full: vec![0; channels],
            moves_low_bits: false,
        }
    }

    fn covariance(&self, a: usize, b: usize) -> f64 {
        let frames = f64::from(self.frames.max(1));
        let (a, b) = (a.min(b), a.max(b));
        self.products[a * self.sums.len() + b] / frames - self.sums[a] / frames * (self.sums[b] / frames)
    }

    fn power(&self, channel: usize) -> f64 {
        self.covariance(channel, channel).max(0.0)
    }

    fn is_constant(&self, channel: usize) -> bool {
        self.highest[channel] - self.lowest[channel] < MIN_SWING
    }

    fn peak(&self) -> f32 {
        let ends = self.lowest.iter().chain(&self.highest);
        ends.fold(0.0, |peak, end| peak.max(end.abs()))
    }
}

impl ChannelMeter {
    /// For frames of so many channels. `wide`: samples were integers of 32 bits.
    pub fn new(rate: u32, channels: usize, wide: bool) -> Self {
        let judged = channels.min(MAX_JUDGED);
        Self {
            rate,
            channels,
            wide,
            second: Second::new(judged),
            states: vec![ChannelState::default(); judged],
            cancelling: vec![0; judged * judged],
            is_cancelling: vec![false; judged * judged],
            correlation: vec![0.0; judged * judged],
            mix_loss_db: 0.0,
            low_bits: 0,
            has_high_bits: false,
            best: None,
            better: 0,
        }
    }

    /// Takes the next frames. Returns whether a second was completed, after which verdicts may be others.
    pub fn push(&mut self, frames: &[f32]) -> bool {
        let mut judged = false;
        for frame in frames.chunks_exact(self.channels.max(1)) {
            self.add(frame);
            if self.second.frames >= self.rate {
                let second = std::mem::replace(&mut self.second, Second::new(self.states.len()));
                self.judge(&second);
                judged = true;
            }
        }
        judged
    }

    fn add(&mut self, frame: &[f32]) {
        let Self { second, states, wide, .. } = self;
        let channels = states.len();
        second.frames += 1;
        for (a, &sample) in frame.iter().take(channels).enumerate() {
            let value = f64::from(sample);
            second.sums[a] += value;
            second.lowest[a] = second.lowest[a].min(sample);
            second.highest[a] = second.highest[a].max(sample);
            second.full[a] += u32::from(sample.abs() >= FULL_SCALE);
            for (b, &other) in frame.iter().enumerate().take(channels).skip(a) {
                second.products[a * channels + b] += value * f64::from(other);
            }
            if *wide && sample.abs() < LOW_BITS_PEAK {
                // Below this the float holds all 32 bits of the sample.
                second.moves_low_bits |= (sample * 2_147_483_648.0) as i32 & 0xff != 0;
            }
        }
    }

    fn judge(&mut self, second: &Second) {
        let levels: Vec<f64> = (0..self.states.len()).map(|channel| level_db(second.power(channel))).collect();
        let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let moves = (0..levels.len()).any(|channel| !second.is_constant(channel));
        let mut loud = false;
        for (channel, state) in self.states.iter_mut().enumerate() {
            let level = levels[channel];
            let floor = state.floor_db.map_or(level, |floor| (floor + FLOOR_RISE_DB).min(level));
            let is_loud = level >= floor + LOUD_DB;
            let constant = second.is_constant(channel);
            if moves && (constant || level < loudest + DEAD_DB) {
                state.dead = (state.dead + 1).min(SECONDS);
                // Once it is said, it stays said like that.
                state.constant = if state.is_dead { state.constant } else { constant };
            } else if is_loud && level >= loudest + ALIVE_DB {
                state.dead = 0;
            }
            // Entered when it is certain, left at the first sign of life.
            state.is_dead = state.dead == SECONDS || (state.is_dead && state.dead > 0);
            loud |= is_loud;
            if !constant {
                state.floor_db = Some(floor);
            }
            let clipped = f64::from(second.full[channel]) > CLIPPED_SHARE * f64::from(second.frames);
            state.recent.push_back((second.power(channel), clipped && !constant));
            state.recent.drain(..state.recent.len().saturating_sub(COMPARED));
        }
        self.judge_pairs(second, &levels, loud);
        self.judge_bits(second);
        self.choose_best(&levels);
    }

    fn judge_pairs(&mut self, second: &Second, levels: &[f64], loud: bool) {
        let channels = self.states.len();
        for a in 0..channels {
            for b in a + 1..channels {
                let pair = a * channels + b;
                let power = (second.power(a) * second.power(b)).sqrt();
                let silent = second.is_constant(a) || second.is_constant(b) || power <= 0.0;
                let correlation = if silent { 0.0 } else { second.covariance(a, b) / power };
                let count = &mut self.cancelling[pair];
                // What is far below the other takes nothing of it away.
                let matters = !silent && (levels[a] - levels[b]).abs() < -DEAD_DB;
                if matters && correlation <= CANCELLING {
                    *count = (*count + 1).min(SECONDS);
                    // Once it is said, it stays said with these figures.
                    if !self.is_cancelling[pair] {
                        self.correlation[pair] = correlation;
                        self.mix_loss_db = mix_loss_db(second, levels);
                    }
                } else if (loud && correlation > NOT_CANCELLING) || correlation > -NOT_CANCELLING {
                    *count = count.saturating_sub(1);
                }
                self.is_cancelling[pair] = *count == SECONDS || (self.is_cancelling[pair] && *count > 0);
            }
        }
    }

    /// Samples of 32 bits of which only the lower 24 ever move, the lowest among them. A converter of 24 bits at the upper end leaves the
    /// lowest eight still.
    fn judge_bits(&mut self, second: &Second) {
        self.has_high_bits |= second.peak() >= LOW_BITS_PEAK;
        if !self.wide || self.has_high_bits {
            self.low_bits = 0;
        } else if second.moves_low_bits {
            self.low_bits = (self.low_bits + 1).min(SECONDS);
        }
    }

    fn choose_best(&mut self, levels: &[f64]) {
        let usable = |state: &ChannelState| !(state.is_dead || state.constant && state.dead > 0);
        let scores: Vec<f64> = self.states.iter().map(ChannelState::heard).collect();
        let Some(best) = self.best else {
            // To begin with, the one that is loudest now; of equals the first.
            let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let alive = self.states.iter().any(|state| state.floor_db.is_some());
            self.best = levels.iter().position(|level| alive && *level >= loudest - 1.0);
            return;
        };
        let others = (0..scores.len()).filter(|&channel| channel != best && usable(&self.states[channel]));
        let Some(other) = others.reduce(|a, b| if scores[b] > scores[a] { b } else { a }) else { return };
        let is_better = scores[other] > 0.0 && scores[other] >= BETTER * scores[best];
        self.better = if is_better { self.better + 1 } else { 0 };
        if self.better >= SECONDS || (self.states[best].is_dead && is_better) {
            (self.best, self.better) = (Some(other), 0);
        }
    }

    /// The channel to take of those that there are, where the best is wanted.
    pub fn best(&self) -> usize {
        self.best.unwrap_or(0)
    }

    /// Whether only the lower 24 of 32 bits move.
    pub fn is_low_bits(&self) -> bool {
        self.low_bits == SECONDS
    }

    /// What is wrong with the channels for somebody who takes `channel`, with the remedy.
    pub fn warning(&self, channel: Channel) -> Option<String> {
        let best = self.best();
        match channel {
            Channel::Mix => self.cancelling_warning(best).or_else(|| self.dead_warning(best)),
            Channel::Index(index) => {
                let state = self.states.get(index).filter(|state| state.is_dead)?;
                let how = if state.constant { "nothing is in it" } else { "only noise is in it" };
                Some(format!("channel {index} is dead ({how}), and channel {best} has sound: write `channel = {best}`"))
            }
            Channel::Auto => None,
        }
    }

    fn cancelling_warning(&self, best: usize) -> Option<String> {
        let channels = self.states.len();
        let pair = self.is_cancelling.iter().position(|is| *is)?;
        let (a, b, loss) = (pair / channels, pair % channels, self.mix_loss_db);
        let much = if loss < 60.0 { format!("{loss:.0} dB less than channel {best} has") } else { "nothing".into() };
        Some(format!(
            "channels {a} and {b} cancel each other (correlation {:.2}): mixed, they leave {much}; write `channel = {best}`, or \
             \"auto\"",
            self.correlation[pair]
        ))
    }

    fn dead_warning(&self, best: usize) -> Option<String> {
        let is_dead = |(_, state): &(usize, &ChannelState)| state.is_dead;
        let dead: Vec<String> =
            self.states.iter().enumerate().filter(is_dead).map(|(channel, _)| channel.to_string()).collect();
        let alive = self.states.len() - dead.len();
        if dead.is_empty() || alive == 0 {
            return None;
        }
        let loss = 20.0 * (self.states.len() as f64 / alive as f64).log10();
        let (noun, verbs) =
            if dead.len() == 1 { ("channel", "is dead and takes") } else { ("channels", "are dead and take") };
        let dead = dead.join(", ");
        (loss >= MIN_LOSS_DB)
            .then(|| format!("{noun} {dead} {verbs} {loss:.0} dB off the mix: write `channel = {best}`, or \"auto\""))
    }
}

impl ChannelState {
    /// The power that it heard of late above its own noise: the loudest second less twice the quietest. None for what is clipped in more than
    /// a fifth of the time.
    fn heard(&self) -> f64 {
        let loudest = self.recent.iter().map(|(power, _)| *power).fold(0.0, f64::max);
        let quietest = self.recent.iter().map(|(power, _)| *power).fold(f64::INFINITY, f64::min);
        let clipped = self.recent.iter().filter(|(_, clipped)| *clipped).count();
        if clipped * 5 > COMPARED { 0.0 } else { (loudest - 2.0 * quietest).max(0.0) }
    }
}

/// How much quieter the mean of all channels is than the loudest of them, in dB.
fn mix_loss_db(second: &Second, levels: &[f64]) -> f64 {
    let channels = levels.len();
    let mut mix = 0.0;
    for a in 0..channels {
        for b in 0..channels {
            mix += second.covariance(a, b);
        }
    }
    let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    loudest - level_db(mix / (channels * channels) as f64)
}

/// A level that can be compared with any: no power at all is what 24 bits can't resolve.
fn level_db(power: f64) -> f64 {
    decibels(power.max(1e-15))
}

#[cfg(test)]
mod tests;
