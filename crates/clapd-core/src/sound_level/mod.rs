//! A sound level meter as a value: A-weighted levels of every second and every minute of a source.
//!
//! ```text
//! samples -> correction -> A -> square -> mean of a second           -> LAeq
//!                       |           \---> time weighting F (125 ms)  -> LAFmax, LA10, LA50, LA90
//!                       \-> mean square, largest sample of a second  -> LZeq, peak
//! ```
//!
//! Levels are in decibels below full scale, where full scale is an RMS of 1: a full sine has -3.0 dB. They become sound pressure
//! levels where somebody knows which one digital full scale stands for, and adds it ([`measure_tone`] finds it out).
//!
//! No level claims a class of IEC 61672: the filter and the time weighting are within class 2, and microphones, their housings and
//! everything before the samples are not this module's.

mod correction;
mod tone;
mod weighting;

use crate::level::{PowerSums, decibels};
use crate::samples::{RATES, Samples};
use crate::time::SampleTime;
use correction::CorrectionFilter;
pub use correction::{CorrectionError, MicrophoneCorrection};
pub use tone::{Tone, ToneError, measure_tone};
use weighting::AWeighting;
pub use weighting::a_weighting_db;

/// The time constant of the time weighting F (IEC 61672-1, 5.8), in seconds.
const FAST_S: f64 = 0.125;
/// How often in a second the F-weighted level is looked at for LA10, LA50 and LA90: more often than its time constant, so that no
/// event hides between two looks, and 600 values a minute are enough for a percentile.
const LOOKS_A_SECOND: u64 = 10;
/// Seconds in a minute.
const MINUTE: u64 = 60;
/// A second, or a minute, of which more than this share was lost has no levels. Windows are judged by the same share.
const MAX_LOST_SHARE: f64 = 0.2;
/// The lowest level that is given, in dB: what 24 bits resolve. Digital silence has none at all.
const LOWEST_DB: f64 = -144.0;

/// The levels of a second, in dB below full scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SecondLevels {
    /// Where the second ends on the source's clock.
    pub end: SampleTime,
    /// LAeq: equivalent continuous A-weighted level.
    pub laeq: f32,
    /// LAFmax: the highest A-weighted level with time weighting F.
    pub lafmax: f32,
    /// LZeq: equivalent continuous level without weighting, around the mean.
    pub lzeq: f32,
    /// The largest sample, from the mean: 0 dB is full scale.
    pub peak: f32,
}

/// The levels of a minute, in dB below full scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinuteLevels {
    /// Where the minute ends on the source's clock.
    pub end: SampleTime,
    /// LAeq of all that was not lost.
    pub laeq: f32,
    /// LAFmax.
    pub lafmax: f32,
    /// The F-weighted level that was exceeded in 10% of the time.
    pub la10: f32,
    /// In half of the time.
    pub la50: f32,
    /// In 90% of the time: the background.
    pub la90: f32,
}

/// What a meter has measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// Another second.
    Second(SecondLevels),
    /// Another minute, behind its last second.
    Minute(MinuteLevels),
}

/// Meters one source. The same samples give the same levels, however they are cut.
#[derive(Debug, Clone)]
pub struct SoundLevelMeter {
    rate: u32,
    correction: Option<CorrectionFilter>,
    stages: Stages,
}

/// What comes behind the correction.
#[derive(Debug, Clone)]
struct Stages {
    rate: u64,
    weighting: AWeighting,
    /// What is taken off every sample before the weighting: the first one behind a loss. A card's constant would else be a bang.
    offset: Option<f32>,
    /// The F-weighted power.
    fast: f64,
    /// What a new sample has of it.
    fast_share: f64,
    /// Samples so far, lost ones included.
    index: u64,
    second: Interval,
    minute: Interval,
    /// F-weighted powers of the minute, one a look.
    looks: Vec<f64>,
}

/// The sums of a second or a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Interval {
    a_squares: f64,
    fast_max: f64,
    lost: u64,
    sums: PowerSums,
    extremes: Option<(f32, f32)>,
}

impl SoundLevelMeter {
    /// A meter for `rate` samples a second, whose microphone is corrected where somebody measured it. With a correction, levels are of
    /// 10 ms before.
    ///
    /// # Errors
    /// A rate outside [`RATES`].
    pub fn new(rate: u32, correction: Option<&MicrophoneCorrection>) -> anyhow::Result<Self> {
        anyhow::ensure!(
            RATES.contains(&rate),
            "a sample rate of {rate} Hz; {} to {} Hz are metered",
            RATES.start(),
            RATES.end()
        );
        let correction = correction.map(|correction| CorrectionFilter::new(correction, rate));
        Ok(Self { rate, correction, stages: Stages::new(rate) })
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes samples; `sink` gets every second and minute that they complete and of which enough came.
    pub fn push(&mut self, samples: Samples<'_>, sink: &mut dyn FnMut(Measured)) {
        let stages = &mut self.stages;
        if samples.lost > 0 {
            stages.push_lost(samples.lost, sink);
        }
        let Some(first) = samples.data.first() else { return };
        match &mut self.correction {
            Some(correction) => {
                if stages.offset.is_none() {
                    correction.reset(*first);
                }
                correction.push(samples.data, &mut |corrected| stages.push(corrected, sink));
            }
            None => stages.push(samples.data, sink),
        }
    }
}

impl Stages {
    fn new(rate: u32) -> Self {
        Self {
            rate: u64::from(rate),
            weighting: AWeighting::new(rate),
            offset: None,
            fast: 0.0,
            fast_share: -(-1.0 / (FAST_S * f64::from(rate))).exp_m1(),
            index: 0,
            second: Interval::default(),
            minute: Interval::default(),
            looks: Vec::with_capacity((MINUTE * LOOKS_A_SECOND) as usize),
        }
    }

    fn push(&mut self, mut data: &[f32], sink: &mut dyn FnMut(Measured)) {
        while !data.is_empty() {
            let left = self.next_look() - self.index % self.rate;
            let (now, later) = data.split_at(data.len().min(left as usize));
            self.measure(now);
            data = later;
            if now.len() as u64 == left {
                self.looks.push(self.fast);
            }
            self.end_second(sink);
        }
    }

    /// The place within the second at which the level is looked at next.
    fn next_look(&self) -> u64 {
        let within = self.index % self.rate;
        // The last of them is the second's end. Of rates that ten does not divide, looks are a sample apart from even.
        (1..=LOOKS_A_SECOND)
            .map(|look| look * self.rate / LOOKS_A_SECOND)
            .find(|look| *look > within)
            .unwrap_or(self.rate)
    }

    fn measure(&mut self, data: &[f32]) {
        let Some(first) = data.first() else { return };
        let offset = f64::from(*self.offset.get_or_insert(*first));
        let Interval { mut a_squares, mut fast_max, mut sums, extremes, .. } = self.second;
        let (mut low, mut high) = extremes.unwrap_or((*first, *first));
        let mut fast = self.fast;
        for &sample in data {
            let weighted = self.weighting.filter(f64::from(sample) - offset);
            let square = weighted * weighted;
            a_squares += square;
            fast += self.fast_share * (square - fast);
            fast_max = fast_max.max(fast);
            sums.push(sample);
            low = low.min(sample);
            high = high.max(sample);
        }
        self.fast = fast;
        self.second = Interval { a_squares, fast_max, sums, extremes: Some((low, high)), ..self.second };
        self.index += data.len() as u64;
    }

    /// So many samples were lost: what the filters remember is no more what was there just before, and the F-weighted level has
    /// fallen as in silence.
    fn push_lost(&mut self, count: u64, sink: &mut dyn FnMut(Measured)) {
        self.fast *= (count as f64 * (-self.fast_share).ln_1p()).exp();
        self.weighting.reset();
        self.offset = None;
        let minute = MINUTE * self.rate;
        let to_end = minute - self.index % minute;
        let mut left = count;
        if left > to_end {
            self.pass(to_end, sink);
            left -= to_end;
            // Of whole minutes that were lost there is nothing to say.
            self.index += left - left % minute;
            left %= minute;
        }
        self.pass(left, sink);
    }

    /// So many lost samples pass, second by second.
    fn pass(&mut self, mut left: u64, sink: &mut dyn FnMut(Measured)) {
        while left > 0 {
            let now = left.min(self.rate - self.index % self.rate);
            self.second.lost += now;
            self.index += now;
            left -= now;
            self.end_second(sink);
        }
    }

    /// Ends the second, and the minute, where they are complete.
    fn end_second(&mut self, sink: &mut dyn FnMut(Measured)) {
        if !self.index.is_multiple_of(self.rate) {
            return;
        }
        let second = std::mem::take(&mut self.second);
        let end = SampleTime::from_samples(self.index, u32::try_from(self.rate).unwrap_or(u32::MAX));
        if second.is_enough(self.rate) {
            sink(Measured::Second(second.levels(end)));
        }
        self.minute.add(second);
        let length = MINUTE * self.rate;
        if !self.index.is_multiple_of(length) {
            return;
        }
        let minute = std::mem::take(&mut self.minute);
        if minute.is_enough(length) && !self.looks.is_empty() {
            self.looks.sort_unstable_by(f64::total_cmp);
            let exceeded = |share: f64| percentile_db(&self.looks, 1.0 - share);
            sink(Measured::Minute(MinuteLevels {
                end,
                laeq: minute.laeq(),
                lafmax: level(minute.fast_max),
                la10: exceeded(0.1),
                la50: exceeded(0.5),
                la90: exceeded(0.9),
            }));
        }
        self.looks.clear();
    }
}

impl Interval {
    fn is_enough(&self, length: u64) -> bool {
        self.sums.count() > 0.0 && self.lost as f64 <= MAX_LOST_SHARE * length as f64
    }

    fn add(&mut self, other: Self) {
        self.a_squares += other.a_squares;
        self.fast_max = self.fast_max.max(other.fast_max);
        self.lost = self.lost.saturating_add(other.lost);
        self.sums.merge(other.sums);
    }

    fn laeq(&self) -> f32 {
        level(self.a_squares / self.sums.count())
    }

    fn levels(&self, end: SampleTime) -> SecondLevels {
        let mean = self.sums.mean();
        let (low, high) = self.extremes.unwrap_or_default();
        let largest = (mean - f64::from(low)).max(f64::from(high) - mean);
        SecondLevels {
            end,
            laeq: self.laeq(),
            lafmax: level(self.fast_max),
            lzeq: level(self.sums.power()),
            peak: level(largest * largest),
        }
    }
}

/// A power in dB, from [`LOWEST_DB`] up.
fn level(power: f64) -> f32 {
    decibels(power).max(LOWEST_DB) as f32
}

/// The level below which this share of the sorted powers lies, straight between the two that are nearest.
fn percentile_db(sorted: &[f64], share: f64) -> f32 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).map_or(LOWEST_DB, |power| f64::from(level(*power)));
    let (low, high) = (at(place.floor() as usize), at(place.ceil() as usize));
    (low + (high - low) * place.fract()) as f32
}

/// The mean of levels of equal length, as of their powers; none where there are none.
pub fn mean_level(levels: impl IntoIterator<Item = f32>) -> Option<f32> {
    let powers = levels.into_iter().map(|level| crate::level::power(f64::from(level)));
    let (sum, count) = powers.fold((0.0, 0_u32), |(sum, count), power| (sum + power, count + 1));
    (count > 0).then(|| level(sum / f64::from(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(meter: &mut SoundLevelMeter, samples: Samples<'_>) -> Vec<Measured> {
        let mut measured = Vec::new();
        meter.push(samples, &mut |levels| measured.push(levels));
        measured
    }

    fn sine(hz: f64, rate: u32, seconds: u32, amplitude: f64) -> Vec<f32> {
        let angle = std::f64::consts::TAU * hz / f64::from(rate);
        (0..rate * seconds).map(|n| (amplitude * (angle * f64::from(n)).sin()) as f32).collect()
    }

    fn seconds(measured: &[Measured]) -> Vec<SecondLevels> {
        let second = |levels: &Measured| if let Measured::Second(second) = levels { Some(*second) } else { None };
        measured.iter().filter_map(second).collect()
    }

    #[test]
    fn a_full_sine_of_a_kilohertz_has_its_levels_at_every_rate_and_on_any_constant() {
        for rate in [8_000, 11_025, 16_000, 44_100, 48_000, 192_000] {
            for constant in [0.0_f32, 0.3] {
                let mut meter = SoundLevelMeter::new(rate, None).unwrap();
                let tone: Vec<f32> = sine(1_000.0, rate, 2, 0.5).iter().map(|sample| sample + constant).collect();
                let of_tone = seconds(&measure(&mut meter, Samples::whole(&tone)));
                assert_eq!(of_tone.len(), 2);
                for levels in [of_tone[1].laeq, of_tone[1].lzeq, of_tone[1].lafmax, of_tone[1].peak - 3.01] {
                    assert!((levels + 9.03).abs() < 0.1, "{rate}, on {constant}: {of_tone:?}");
                }
                assert!((of_tone[0].laeq + 9.03).abs() < 0.1, "the constant is no bang: {of_tone:?}");
            }
        }
    }

    #[test]
    fn the_time_weighting_rises_and_falls_as_f_does() {
        let rate = 48_000;
        let mut meter = SoundLevelMeter::new(rate, None).unwrap();
        let tone = sine(4_000.0, rate, 1, 0.5);
        // IEC 61672-1, table 4: a tone burst of 200 ms reaches 1.0 dB below the steady tone, one of 50 ms 4.8 dB; it falls by 34.7 dB/s.
        let steady = seconds(&measure(&mut meter, Samples::whole(&tone)))[0].lafmax;
        for (milliseconds, below) in [(200, 1.0), (50, 4.8), (10, 11.1)] {
            let mut meter = SoundLevelMeter::new(rate, None).unwrap();
            let mut burst = vec![0.0; 2 * rate as usize];
            let length = rate as usize * milliseconds / 1_000;
            burst[1_000..1_000 + length].copy_from_slice(&tone[..length]);
            let levels = seconds(&measure(&mut meter, Samples::whole(&burst)));
            assert!((steady - levels[0].lafmax - below).abs() < 0.3, "{milliseconds} ms: {levels:?}, {steady}");
        }
        let after = seconds(&measure(&mut meter, Samples::whole(&vec![0.0; 2 * rate as usize])));
        assert!((after[0].lafmax - after[1].lafmax - 34.7).abs() < 0.5, "{after:?}");
    }

    #[test]
    fn what_was_lost_counts_for_nothing_and_too_much_of_it_leaves_no_levels() {
        let rate = 8_000;
        let tone = sine(1_000.0, rate, 3, 0.5);
        let mut meter = SoundLevelMeter::new(rate, None).unwrap();
        let mut measured = measure(&mut meter, Samples::whole(&tone[..8_000]));
        // 20% of the next second, and 21% of the one behind it.
        measured.extend(measure(&mut meter, Samples { lost: 1_600, data: &tone[..6_400] }));
        measured.extend(measure(&mut meter, Samples { lost: 1_680, data: &tone[..6_320] }));
        let whole = seconds(&measured);
        assert_eq!(whole.iter().map(|second| second.end.as_secs_f64()).collect::<Vec<_>>(), [1.0, 2.0]);
        assert!((whole[1].laeq - whole[0].laeq).abs() < 0.05, "{whole:?}");
        // A long loss takes no time; what was there before it is of its own second, and no maximum behind it.
        let rest = measure(&mut meter, Samples::whole(&tone[..7_200]));
        let hours = 5_000 * u64::from(rate) + 800;
        measured = measure(&mut meter, Samples { lost: hours, data: &vec![0.0; 8_000] });
        let [loud, silent] = seconds(&measured)[..] else { panic!("{rest:?} {measured:?}") };
        assert_eq!((loud.end.as_secs_f64(), silent.end.as_secs_f64(), silent.lafmax), (4.0, 5_005.0, LOWEST_DB as f32));
        assert!((loud.laeq - whole[0].laeq).abs() < 0.05, "{loud:?}");
        assert!(measure(&mut meter, Samples { lost: 1 << 50, data: &[] }).is_empty());
    }

    #[test]
    fn a_minute_has_the_levels_that_were_exceeded() {
        let rate = 8_000;
        let (quiet, loud) = (sine(1_000.0, rate, 1, 0.005), sine(1_000.0, rate, 1, 0.5));
        let mut meter = SoundLevelMeter::new(rate, None).unwrap();
        let mut measured = Vec::new();
        for second in 0..120 {
            let sound = if second % 60 < 42 { &quiet } else { &loud };
            // A minute of which too much is lost has no levels.
            let samples =
                if (70..83).contains(&second) { Samples { lost: 8_000, data: &[] } } else { Samples::whole(sound) };
            measured.extend(measure(&mut meter, samples));
        }
        let minutes: Vec<MinuteLevels> = measured
            .iter()
            .filter_map(|levels| if let Measured::Minute(minute) = levels { Some(*minute) } else { None })
            .collect();
        let [minute] = minutes[..] else { panic!("{minutes:?}") };
        assert_eq!((minute.end.as_secs_f64(), seconds(&measured).len()), (60.0, 107));
        for (level, expected) in [
            (minute.la10, -9.03),
            (minute.la50, -49.03),
            (minute.la90, -49.03),
            (minute.lafmax, -9.03),
            (minute.laeq, -9.03 - 5.23),
        ] {
            assert!((level - expected).abs() < 0.1, "{minute:?}");
        }
    }

    #[test]
    fn levels_are_averaged_as_powers() {
        assert_eq!(mean_level([]), None);
        assert!((mean_level([-10.0, -10.0, -100.0, -100.0]).unwrap() + 13.01).abs() < 0.01);
        assert!(SoundLevelMeter::new(7_999, None).is_err());
    }

    mod chunks {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn no_bit_changes(
                cuts in prop::collection::vec(1_usize..5_000, 1..20),
                lost in 0_u64..20_000,
                rate in prop::sample::select(vec![8_000_u32, 11_025, 16_000]),
                corrected in any::<bool>(),
            ) {
                let mut random = fastrand::Rng::with_seed(3);
                let sound: Vec<f32> = (0..3 * rate).map(|_| random.f32() - 0.5).collect();
                let correction = MicrophoneCorrection::parse("100 3\n1000 0\n").unwrap();
                let meter = SoundLevelMeter::new(rate, corrected.then_some(&correction)).unwrap();
                let (mut once, mut pieces) = (meter.clone(), meter);
                let mut whole = measure(&mut once, Samples::whole(&sound));
                whole.extend(measure(&mut once, Samples { lost, data: &sound }));
                let mut cut = Vec::new();
                let mut lengths = cuts.into_iter().cycle();
                for lost_before in [0, lost] {
                    let (mut rest, mut lost_before) = (&sound[..], lost_before);
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(rest.len().min(lengths.next().unwrap_or(1)));
                        cut.extend(measure(&mut pieces, Samples { lost: std::mem::take(&mut lost_before), data: now }));
                        rest = later;
                    }
                }
                prop_assert_eq!(whole, cut);
            }
        }
    }
}
