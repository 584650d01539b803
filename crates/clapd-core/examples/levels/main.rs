//! At which levels a model hears, and what a gain does to that and to a quiet room.
//!
//! `cargo run -p clapd-core --example levels -- BUNDLE demo` measures with the 16 sounds of `tests/audio/demo.ogg`;
//! `... -- BUNDLE DIR [0|1]` with the sounds that `make tune-example-data` unpacks below DIR (`DIR/packages`), or one half of them (by
//! package and kind); `... -- BUNDLE DIR scenes [0|1]` and
//! `... -- BUNDLE DIR rooms [0|1]` compare the automatic gain with none, with halves by package.
//! It prints tables in Markdown. Everything that is drawn by chance has a seed.
//!
//! A sound's level is the RMS of its loudest second, as `level_db` in clapd's health. A faint sound is the whole recording made
//! quieter, its own noise too: that is what a microphone does whose gain is too low. Intervals are of 95%.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clippy.toml is for the library; this reads files"
)]

mod auto;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::detect::EventKind;
use clapd_core::dsp::resample_clip;
use clapd_core::embed::Model;
use clapd_core::level::{Gain, PowerSums, decibels};
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{self, Prompt, PromptId, PromptTable, Rule};
use clapd_core::samples::Samples;

const RATE: u32 = 16_000;
const SECOND: usize = RATE as usize;
/// Longest sound, and what stands before and behind it: a window each.
const MAX_SECONDS: usize = 10;
const PAD: usize = 2 * SECOND;
/// The recording's own noise, below its loudest second.
const OWN_NOISE_DB: f64 = -45.0;
const LEVELS_DB: [f64; 13] = [-60.0, -55.0, -50.0, -45.0, -40.0, -35.0, -30.0, -25.0, -20.0, -15.0, -10.0, -5.0, 0.0];
const ROOMS_DB: [f64; 12] = [-70.0, -65.0, -60.0, -55.0, -50.0, -45.0, -40.0, -35.0, -30.0, -25.0, -20.0, -15.0];
const ROOM_SECONDS: usize = 60;
/// The level that a fixed gain brings a faint sound to, and below which it is tried.
const GAIN_TO_DB: f64 = -20.0;
const GAIN_BELOW_DB: f64 = -40.0;
const DRAWS: usize = 1_000;

struct Clip {
    prompt: usize,
    /// What must not be taken for independent: takes of one sound in one package.
    group: String,
    /// With the loudest second at an RMS of 1.
    samples: Vec<f32>,
}

struct Bench {
    model: Model,
    table: Arc<PromptTable>,
    clips: Vec<Clip>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(arguments.len() >= 2, "give a bundle, and `demo` or the folder of `make tune-example-data`");
    let repository = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mode = arguments.get(2).map_or("", String::as_str);
    let is_auto = ["scenes", "rooms"].contains(&mode);
    let half = arguments.get(if is_auto { 3 } else { 2 }).map(|half| half.parse::<usize>()).transpose()?;
    let (mut texts, clips) = if arguments[1] == "demo" {
        demo(&repository.join("tests/audio"))?
    } else {
        let of_half: OfHalf = if is_auto { auto::half_by_package } else { half_by_kind };
        let folder = Path::new(&arguments[1]).join("packages");
        packages(&repository.join("tools/example"), &folder, half.map(|half| (of_half, half)))?
    };
    if is_auto {
        texts.extend(auto::GENERAL.map(str::to_owned));
    }
    let bundle = Bundle::open(Path::new(&arguments[0]))?;
    let model = Model::load(&bundle)?;
    let prompts: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| Prompt::of_text(PromptId::numbered(n), text, Rule::default()))
        .collect();
    let table = Arc::new(prompts::prepare(&prompts, &bundle, &model, &EmbeddingCache::none())?);
    println!("{} sounds, {} prompts", clips.len(), texts.len());
    let bench = Bench { model, table, clips };
    match mode {
        "scenes" => return bench.print_scenes(),
        "rooms" => return bench.print_quiet_rooms(),
        _ => bench.print_clips()?,
    }
    bench.print_rooms()
}

/// What a pipeline made of samples: the highest score of each prompt, and every start of an event.
struct Heard {
    peaks: Vec<f32>,
    starts: Vec<usize>,
}

impl Bench {
    fn hear(&self, samples: &[f32], gain_db: f32) -> Result<Heard> {
        let hop = Duration::from_secs(1);
        let mut pipeline = Pipeline::new(self.model.clone(), Arc::clone(&self.table), RATE, hop, Pace::Every)?
            .with_gain(Gain::Fixed(gain_db));
        let (mut peaks, mut starts) = (vec![0.0_f32; self.table.len()], Vec::new());
        let index = |id: &PromptId| self.table.prompts().iter().position(|prompt| prompt.id == *id).unwrap_or(0);
        let mut take = |output: Output<'_>| match output {
            Output::Window(window) => {
                peaks.iter_mut().zip(window.scores).for_each(|(peak, score)| *peak = peak.max(score.score));
            }
            Output::Event(event) if event.kind == EventKind::Started => {
                starts.push(index(&event.prompt));
            }
            Output::Event(_) => {}
        };
        pipeline.push(Samples::whole(samples), &mut take)?;
        pipeline.finish(&mut take)?;
        Ok(Heard { peaks, starts })
    }

    /// Sounds one by one, at each level.
    fn print_clips(&self) -> Result<()> {
        println!(
            "\n| RMS of the loudest second, dB | score of the right prompt | of 6 and more | an event | right of all |"
        );
        println!("|---|---|---|---|---|");
        for level in LEVELS_DB {
            println!("| {level} | {} |", self.row(level, 0.0, false)?);
        }
        for level in LEVELS_DB.into_iter().filter(|level| *level <= GAIN_BELOW_DB) {
            let gain_db = GAIN_TO_DB - level;
            println!("| {level}, gain_db = {gain_db} | {} |", self.row(level, gain_db, false)?);
        }
        for level in LEVELS_DB.into_iter().filter(|level| *level >= GAIN_TO_DB) {
            println!("| {level}, cut off at full scale | {} |", self.row(level, 0.0, true)?);
        }
        Ok(())
    }

    /// What is heard of all sounds at one level.
    fn row(&self, level: f64, gain_db: f64, is_cut_off: bool) -> Result<String> {
        let mut rows = Vec::new();
        for (n, clip) in self.clips.iter().enumerate() {
            let mut random = fastrand::Rng::with_seed(n as u64);
            let mut samples = vec![0.0; clip.samples.len() + 2 * PAD];
            samples[PAD..PAD + clip.samples.len()].copy_from_slice(&clip.samples);
            add(&mut samples, &pink(&mut random, clip.samples.len() + 2 * PAD), OWN_NOISE_DB);
            scale(&mut samples, level);
            if is_cut_off {
                samples.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
            }
            let heard = self.hear(&samples, gain_db as f32)?;
            let score = heard.peaks[clip.prompt];
            let best = heard.peaks.iter().fold(0.0_f32, |a, b| a.max(*b));
            let event = heard.starts.contains(&clip.prompt);
            let flags = [score >= 6.0, event, score >= best && score > 0.0].map(|flag| f64::from(u8::from(flag)));
            rows.push((clip.group.as_str(), [f64::from(score), flags[0], flags[1], flags[2]]));
        }
        let cells: Vec<_> = (0..4).map(|column| interval(&rows, column)).collect();
        Ok(cells.join(" | "))
    }

    /// Noise without a sound in it: what is heard there is a false alarm.
    fn print_rooms(&self) -> Result<()> {
        println!("\nFalse alarms of noise alone, {} prompts, {ROOM_SECONDS} s each.\n", self.table.len());
        println!("| level after the gain, dB | {} | an hour and prompt |", NOISES.map(|(name, _)| name).join(" | "));
        println!("|---|{}---|", "---|".repeat(NOISES.len()));
        for level in ROOMS_DB {
            let mut counts = Vec::new();
            for (n, (_, noise)) in NOISES.iter().enumerate() {
                let mut samples = noise(&mut fastrand::Rng::with_seed(100 + n as u64), ROOM_SECONDS * SECOND);
                scale(&mut samples, level);
                counts.push(self.hear(&samples, 0.0)?.starts.len());
            }
            let hours = (ROOM_SECONDS * NOISES.len() * self.table.len()) as f64 / 3600.0;
            let all = counts.iter().sum::<usize>();
            let cells: Vec<_> = counts.iter().map(usize::to_string).collect();
            println!(
                "| {level} | {} | {:.3} (at most {:.3}) |",
                cells.join(" | "),
                all as f64 / hours,
                most(all) / hours
            );
        }
        Ok(())
    }
}

type Noise = fn(&mut fastrand::Rng, usize) -> Vec<f32>;
const NOISES: [(&str, Noise); 4] = [("white", white), ("pink", pink), ("brown", brown), ("hum of 50 Hz", hum)];

fn white(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    let normal = |random: &mut fastrand::Rng| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0;
    (0..length).map(|_| normal(random)).collect()
}

/// Six poles an octave and more apart (Paul Kellet's filter), within 0.5 dB of 3 dB an octave.
fn pink(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    const POLES: [(f32, f32); 6] = [
        (0.998_86, 0.055_518),
        (0.993_32, 0.075_076),
        (0.969_00, 0.153_852),
        (0.866_50, 0.310_486),
        (0.550_00, 0.532_952),
        (-0.761_6, -0.016_898),
    ];
    let mut state = [0.0_f32; 6];
    let filter = |x: f32| {
        state.iter_mut().zip(POLES).for_each(|(s, (pole, gain))| *s = pole * *s + gain * x);
        state.iter().sum::<f32>() + 0.536 * x
    };
    unit(white(random, length).into_iter().map(filter).collect())
}

/// Falls by 6 dB an octave above 40 Hz: a room with a far-off fan.
fn brown(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    let mut state = 0.0;
    let filter = |x: f32| {
        state = 0.984 * state + x;
        state
    };
    unit(white(random, length).into_iter().map(filter).collect())
}

/// Mains with its harmonics, as a bad cable brings it, over a little noise.
fn hum(random: &mut fastrand::Rng, length: usize) -> Vec<f32> {
    let tone = |n: usize| (1..12).map(|k| (n as f32 * 0.019_635 * k as f32).sin() / k as f32).sum::<f32>();
    let mut samples: Vec<f32> = unit((0..length).map(|n| tone(n % SECOND)).collect());
    add(&mut samples, &pink(random, length), -20.0);
    unit(samples)
}

fn unit(mut samples: Vec<f32>) -> Vec<f32> {
    let level = decibels(power(&samples));
    scale(&mut samples, -level);
    samples
}

fn power(samples: &[f32]) -> f64 {
    let mut sums = PowerSums::default();
    samples.iter().for_each(|x| sums.push(*x));
    sums.power()
}

fn scale(samples: &mut [f32], by_db: f64) {
    let factor = 10_f64.powf(by_db / 20.0) as f32;
    samples.iter_mut().for_each(|x| *x *= factor);
}

/// Adds noise of a level of its own.
fn add(samples: &mut [f32], noise: &[f32], level: f64) {
    let factor = 10_f64.powf((level - decibels(power(noise))) / 20.0) as f32;
    samples.iter_mut().zip(noise).for_each(|(x, n)| *x += factor * n);
}

/// With its loudest second, at steps of 50 ms, at an RMS of 1; none where there is nothing in it.
fn normalised(mut samples: Vec<f32>) -> Option<Vec<f32>> {
    samples.truncate(MAX_SECONDS * SECOND);
    let mut padded = samples.clone();
    padded.resize(samples.len().max(SECOND), 0.0);
    let starts = (0..=padded.len() - SECOND).step_by(SECOND / 20);
    let loudest = starts.map(|from| power(&padded[from..from + SECOND])).fold(0.0, f64::max);
    (loudest > 1e-8).then(|| {
        scale(&mut samples, -decibels(loudest));
        samples
    })
}

fn read(path: &Path) -> Result<Vec<f32>> {
    let mut decoder = Decoder::open(path, Channel::Mix)?;
    let (rate, mut samples) = (decoder.rate(), Vec::new());
    while let Some(block) = decoder.next_block()? {
        samples.extend_from_slice(block.data);
        if samples.len() > rate as usize * 240 {
            break;
        }
    }
    resample_clip(&samples, rate, RATE)
}

fn rows(path: &Path) -> Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect())
}

/// The sounds of the recording of `clapd demo`, cut out of it.
fn demo(folder: &Path) -> Result<(Vec<String>, Vec<Clip>)> {
    let whole = read(&folder.join("demo.ogg"))?;
    let (mut texts, mut clips) = (Vec::new(), Vec::new());
    for row in rows(&folder.join("demo.csv"))? {
        let at = |column: usize| anyhow::Ok((row[column].parse::<f64>()? * f64::from(RATE)) as usize);
        if let Some(samples) = normalised(whole[at(0)?..at(1)?.min(whole.len())].to_vec()) {
            clips.push(Clip { prompt: texts.len(), group: row[2].clone(), samples });
        }
        texts.push(row[2].clone());
    }
    Ok((texts, clips))
}

/// Which half a sound of a package and a kind is in.
type OfHalf = fn(&str, &str) -> usize;

fn half_by_kind(package: &str, class: &str) -> usize {
    // FNV-1a: the same halves everywhere.
    let bytes = format!("{package}/{class}");
    let hash = bytes.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash >> 32) as usize % 2
}

/// The sounds of Debian packages that the worked example of tuning names, or one half of them.
fn packages(lists: &Path, folder: &Path, half: Option<(OfHalf, usize)>) -> Result<(Vec<String>, Vec<Clip>)> {
    let classes: BTreeMap<String, String> =
        rows(&lists.join("classes.csv"))?.into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    let names: Vec<&String> = classes.keys().collect();
    let mut clips = Vec::new();
    for row in rows(&lists.join("sounds.csv"))? {
        let [package, path, class] = &row[..] else { continue };
        if half.is_some_and(|(of_half, half)| of_half(package, class) != half) {
            continue;
        }
        let Some(prompt) = names.iter().position(|name| *name == class) else { continue };
        match read(&folder.join(package).join(path)).map(normalised) {
            Ok(Some(samples)) => clips.push(Clip { prompt, group: format!("{package}/{class}"), samples }),
            Ok(None) => eprintln!("{path}: silent"),
            Err(error) => eprintln!("{path}: {error:#}"),
        }
    }
    Ok((classes.values().cloned().collect(), clips))
}

/// A column's mean with its interval, by drawing groups with replacement.
fn interval<const N: usize>(rows: &[(&str, [f64; N])], column: usize) -> String {
    let mut groups: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (group, values) in rows {
        let sums = groups.entry(group).or_default();
        *sums = (sums.0 + values[column], sums.1 + 1.0);
    }
    let groups: Vec<_> = groups.into_values().collect();
    let mean = |sums: (f64, f64)| sums.0 / sums.1;
    let join = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
    let mut random = fastrand::Rng::with_seed(1);
    let mut draw = || mean(groups.iter().map(|_| &groups[random.usize(..groups.len())]).fold((0.0, 0.0), join));
    let mut draws: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    draws.sort_by(f64::total_cmp);
    let whole = mean(groups.iter().fold((0.0, 0.0), join));
    format!("{whole:.2} [{:.2}, {:.2}]", draws[DRAWS / 40], draws[DRAWS - 1 - DRAWS / 40])
}

/// The upper end of the 95% interval of a Poisson count, one-sided; by Wilson and Hilferty's approximation, exact for none.
fn most(count: usize) -> f64 {
    if count == 0 {
        return 3.0;
    }
    let n = count as f64 + 1.0;
    n * (1.0 - 1.0 / (9.0 * n) + 1.645 / (3.0 * n.sqrt())).powi(3)
}
