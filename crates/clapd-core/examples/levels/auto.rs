//! The automatic gain beside none: sounds one after the other, as a microphone hears them, and quiet rooms.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clapd_core::detect::EventKind;
use clapd_core::level::Gain;
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::samples::Samples;

use super::{Bench, NOISES, RATE, SECOND, add, interval, most, pink, scale};

/// Asked for beside the sounds' own kinds: what people ask for.
pub const GENERAL: [&str; 12] = [
    "a person speaking",
    "music playing",
    "a baby crying",
    "an alarm beeping",
    "a telephone ringing",
    "knocking on a door",
    "a vacuum cleaner",
    "a siren",
    "people applauding",
    "a person snoring",
    "a car passing by",
    "a kettle boiling",
];
const LEVELS_DB: [f64; 9] = [-60.0, -50.0, -45.0, -40.0, -36.0, -30.0, -22.0, -10.0, 0.0];
const ROOMS_DB: [f64; 6] = [-95.0, -85.0, -75.0, -65.0, -55.0, -45.0];
/// How far the loudest second of a sound stands out from the noise: one nearby, one across a room, a faint one.
const NEAR_DB: f64 = 45.0;
const FAR_DB: f64 = 30.0;
const FAINT_DB: f64 = 15.0;
/// Noise before each sound.
const PAUSE_SECONDS: usize = 6;
/// Sounds that are played before any is counted: the gain begins at none, as after each start of clapd.
const WARM_UP: usize = 25;
/// Of a quiet room: its sounds are rarer, and an hour of it is enough.
const QUIET_PAUSE_SECONDS: usize = 20;
const QUIET_SOUNDS: usize = 120;
const NOISE_SECONDS: usize = 120;

/// Packages in turn, in the order of their names.
pub fn half_by_package(package: &str, _: &str) -> usize {
    const PACKAGES: [&str; 12] = [
        "7kaa-data",
        "bambam",
        "lugaru-data",
        "megaglest-data",
        "minetest-data",
        "plee-the-bear-data",
        "scratch",
        "searchandrescue-data",
        "simutrans-pak64",
        "sound-icons",
        "wesnoth-1.16-data",
        "widelands-data",
    ];
    PACKAGES.iter().position(|name| *name == package).unwrap_or(0) % 2
}

/// Sounds over noise, and where each begins and ends, in samples.
struct Scene {
    samples: Vec<f32>,
    sounds: Vec<(usize, usize, usize)>,
}

/// What was heard of a scene.
struct Heard {
    /// For each sound the best score of its prompt, and whether it started an event.
    sounds: Vec<(f32, bool)>,
    /// Starts of prompts whose sound was not there.
    others: usize,
    gain_db: f32,
}

impl Bench {
    /// Sounds `order` over pink noise that is `below_db` fainter, at an RMS of `level` in the loudest second of each.
    fn scene(&self, order: &[usize], pause: usize, below_db: f64, level: f64) -> Scene {
        let (mut samples, mut sounds) = (Vec::new(), Vec::new());
        for n in order {
            samples.resize(samples.len() + pause * SECOND, 0.0);
            let begin = samples.len();
            samples.extend_from_slice(&self.clips[*n].samples);
            sounds.push((*n, begin, samples.len()));
        }
        // Behind the last one, for the windows that hold it.
        samples.resize(samples.len() + 2 * SECOND, 0.0);
        let noise = pink(&mut fastrand::Rng::with_seed(1), samples.len());
        add(&mut samples, &noise, -below_db);
        scale(&mut samples, level);
        samples.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        Scene { samples, sounds }
    }

    fn hear_scene(&self, scene: &Scene, gain: Gain) -> Result<Heard> {
        let hop = Duration::from_secs(1);
        let mut pipeline =
            Pipeline::new(self.model.clone(), Arc::clone(&self.table), RATE, hop, Pace::Every)?.with_gain(gain);
        let mut heard = Heard { sounds: vec![(0.0, false); scene.sounds.len()], others: 0, gain_db: 0.0 };
        // A window that ends a second behind a sound still holds some of it.
        let at = |sample: usize| {
            let known = scene.sounds.iter().position(|(_, begin, end)| (*begin..end + SECOND).contains(&sample));
            known.map(|index| (index, self.clips[scene.sounds[index].0].prompt))
        };
        let mut now = None;
        let mut take = |output: Output<'_>| match output {
            Output::Window(window) => {
                now = at((window.end.as_secs_f64() * f64::from(RATE)) as usize);
                if let Some((index, prompt)) = now {
                    let peak = &mut heard.sounds[index].0;
                    *peak = peak.max(window.scores[prompt].score);
                }
            }
            Output::Event(event) if event.kind == EventKind::Started => {
                let prompt = self.table.prompts().iter().position(|prompt| prompt.id == event.prompt);
                match now {
                    Some((index, right)) if prompt == Some(right) => heard.sounds[index].1 = true,
                    _ => heard.others += 1,
                }
            }
            Output::Event(_) => {}
        };
        pipeline.push(Samples::whole(&scene.samples), &mut take)?;
        pipeline.finish(&mut take)?;
        heard.gain_db = pipeline.gain_db();
        Ok(heard)
    }

    fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.clips.len()).collect();
        fastrand::Rng::with_seed(7).shuffle(&mut order);
        order
    }

    pub fn print_scenes(&self) -> Result<()> {
        let order = self.shuffled();
        let order: Vec<usize> = order.iter().chain(&order).take(WARM_UP + order.len()).copied().collect();
        println!(
            "\n| loudest second, dB | noise, dB | events | with auto | more | score | with auto | more | other starts | with auto | gain, dB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        for below_db in [NEAR_DB, FAR_DB] {
            for level in LEVELS_DB {
                let scene = self.scene(&order, PAUSE_SECONDS, below_db, level);
                let [none, auto] = [Gain::NONE, Gain::Auto].map(|gain| self.hear_scene(&scene, gain));
                let (none, auto) = (none?, auto?);
                let rows: Vec<_> = (WARM_UP..order.len())
                    .map(|index| {
                        let [(s0, e0), (s1, e1)] = [none.sounds[index], auto.sounds[index]];
                        let [e0, e1] = [e0, e1].map(|event| f64::from(u8::from(event)));
                        let [s0, s1] = [s0, s1].map(f64::from);
                        (self.clips[order[index]].group.as_str(), [e0, e1, e1 - e0, s0, s1, s1 - s0])
                    })
                    .collect();
                let cells: Vec<_> = (0..6).map(|column| interval(&rows, column)).collect();
                let [a, b] = [none.others, auto.others];
                println!(
                    "| {level} | {} | {} | {a} | {b} | {:.0} |",
                    level - below_db,
                    cells.join(" | "),
                    auto.gain_db
                );
            }
        }
        Ok(())
    }

    /// Starts an hour in rooms with faint sounds that nobody asked for by these prompts, and with noise alone.
    pub fn print_quiet_rooms(&self) -> Result<()> {
        let order: Vec<usize> = self.shuffled().into_iter().cycle().take(QUIET_SOUNDS).collect();
        println!("\n| noise, dB | faint sounds: starts an hour | with auto | gain, dB | noise alone | with auto |");
        println!("|---|---|---|---|---|---|");
        for room in ROOMS_DB {
            let mut scene = self.scene(&order, QUIET_PAUSE_SECONDS, FAINT_DB, room + FAINT_DB);
            let hours = scene.samples.len() as f64 / (3600.0 * SECOND as f64);
            // Nobody asked for them: every start counts.
            scene.sounds.clear();
            let [none, auto] = [Gain::NONE, Gain::Auto].map(|gain| self.hear_scene(&scene, gain));
            let (none, auto) = (none?, auto?);
            let alone = [Gain::NONE, Gain::Auto].map(|gain| self.starts_of_noise(room, gain));
            let noise_hours = (NOISE_SECONDS * NOISES.len()) as f64 / 3600.0;
            let [a, b] = [none.others, auto.others]
                .map(|count| format!("{:.0} (at most {:.0})", count as f64 / hours, most(count) / hours));
            let [c, d] = alone
                .map(|count| count.map(|count| format!("{count} (at most {:.0} an hour)", most(count) / noise_hours)));
            println!("| {room} | {a} | {b} | {:.0} | {} | {} |", auto.gain_db, c?, d?);
        }
        Ok(())
    }

    fn starts_of_noise(&self, room: f64, gain: Gain) -> Result<usize> {
        let mut starts = 0;
        for (n, (_, noise)) in NOISES.iter().enumerate() {
            let mut samples = noise(&mut fastrand::Rng::with_seed(200 + n as u64), NOISE_SECONDS * SECOND);
            scale(&mut samples, room);
            starts += self.hear_scene(&Scene { samples, sounds: Vec::new() }, gain)?.others;
        }
        Ok(starts)
    }
}
