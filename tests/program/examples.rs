//! Prompts by example: which recordings are examples, and what comes of them with the default model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clapd::config::{self, Environment};
use clapd::score_log::Form;
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::{self, Example, Prompt, PromptId, PromptScorer, Rule};
use serde_json::Value;

use crate::wav;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// 16-bit mono.
fn write(path: &Path, rate: u32, samples: &[f32]) {
    let data = samples.iter().flat_map(|x| ((x * 32_767.0) as i16).to_le_bytes()).collect();
    fs::write(path, wav::Wav { data, ..wav::Wav::tone(rate, 1, 1, 16, 0) }.bytes()).unwrap();
}

/// A stretch of the bundled recording.
fn cut(into: &Path, from_s: f64, to_s: f64) {
    let mut decoder = Decoder::open(&repository().join("tests/audio/demo.ogg"), Channel::Mix).unwrap();
    let (rate, mut all) = (decoder.rate(), Vec::new());
    while let Some(block) = decoder.next_block().unwrap() {
        all.extend_from_slice(block.data);
    }
    let at = |seconds: f64| (seconds * f64::from(rate)) as usize;
    write(into, rate, &all[at(from_s)..at(to_s)]);
}

fn noise(samples: usize, amplitude: f32) -> impl Iterator<Item = f32> {
    (0..samples as u32).map(move |n| (n.wrapping_mul(2_654_435_761) as i32 as f32 / i32::MAX as f32) * amplitude)
}

fn faults(folder: &Path, prompt: &str) -> Vec<String> {
    let text = format!("[[source]]\nid = \"mic\"\ndevice = \"default\"\n[[prompt]]\n{prompt}\n[node]\nid = \"pi\"\n");
    let path = folder.join("clapd.toml");
    fs::write(&path, text).unwrap();
    match clapd::prompts::load_settings(&path) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            faults.iter().map(|fault| fault.to_string().replace(&format!("{}/", folder.display()), "")).collect()
        }
    }
}

#[test]
fn every_recording_that_is_no_example_is_named_with_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("good.wav"), 16_000, &noise(16_000, 0.1).collect::<Vec<_>>());
    write(&folder.path().join("silent.wav"), 16_000, &[0.25; 16_000]);
    write(&folder.path().join("long.wav"), 8_000, &noise(8_000 * 61, 0.1).collect::<Vec<_>>());
    fs::write(folder.path().join("text.wav"), "no sound").unwrap();
    let seen = faults(
        folder.path(),
        "id = \"bell\"\naudio = [\n\"good.wav\",\n\"missing.wav\",\n\"silent.wav\",\n\"long.wav\",\n\"text.wav\",\n]",
    );
    assert_eq!(seen.len(), 4, "{seen:#?}");
    for (fault, words) in seen.iter().zip([
        ["clapd.toml:8: prompt[0].audio[1]", "missing.wav", "name a recording that this user may read"],
        ["clapd.toml:9: prompt[0].audio[2]", "is silent", "record it louder"],
        ["clapd.toml:10: prompt[0].audio[3]", "is longer than 60 s", "cut it to the sound"],
        ["clapd.toml:11: prompt[0].audio[4]", "text.wav", "name a recording that this user may read"],
    ]) {
        assert!(words.iter().all(|word| fault.contains(word)), "{fault}: {words:?}");
    }
    assert!(faults(folder.path(), "audio = []")[0].contains("has 0 recordings, and 1 to 32 are allowed"));
    assert!(faults(folder.path(), "audio = [1]")[0].contains("a list of texts"));
    assert!(faults(folder.path(), "start = 5")[0].contains("is missing, and so is `audio`"));
}

#[test]
fn a_prompt_of_recordings_alone_is_named_after_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Front Door.wav");
    write(&file, 16_000, &noise(16_000, 0.1).collect::<Vec<_>>());
    let text = "[[source]]\nid = \"mic\"\nstdin = true\n[[prompt]]\naudio = [\"Front Door.wav\"]\n\
                [[prompt]]\ntext = \"a dog\"\naudio = [\"Front Door.wav\"]\n[log]\nscores = \"scores.csv\"\nmax_mb = 3\n[node]\nid = \"n\"";
    let (settings, _) = config::parse(text, &folder.path().join("clapd.toml"), &Environment::default())
        .unwrap_or_else(|f| panic!("{f}"));
    let [door, dog] = &settings.prompts[..] else { panic!("two prompts") };
    assert_eq!(
        (door.id.as_str(), door.name(), &door.audio[..]),
        ("front_door", "front_door", std::slice::from_ref(&file))
    );
    assert_eq!((dog.id.as_str(), dog.name(), &dog.audio[..]), ("a_dog", "a dog", &[file][..]));
    assert_eq!(settings.texts(), ["a dog"]);
    let log = settings.log.unwrap();
    assert_eq!((log.path, log.form, log.max_bytes), (folder.path().join("scores.csv"), Form::Csv, 3_000_000));
}

#[test]
fn a_score_log_has_a_known_form_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (log, word) in [
        ("scores = \"scores.txt\"", "ends neither in .jsonl nor in .csv"),
        ("scores = \"none/scores.csv\"", "lies in one that is not there"),
        ("scores = \"a.csv\"\nmax_mb = 0", "is not a whole number from 1"),
        ("max_mb = 1", "log.scores: is missing"),
        ("scores = \"a.csv\"\nmax = 1", "did you mean `max_mb`"),
    ] {
        let seen = faults(folder.path(), &format!("text = \"a dog\"\n[log]\n{log}"));
        assert!(seen.len() == 1 && seen[0].contains(word), "{log}: {seen:?}");
    }
}

#[test]
fn an_example_is_cut_to_its_sound_and_windows_leave_its_pauses_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bark.wav");
    let second = |amplitude| noise(16_000, amplitude);
    let quiet = |count| (0..count).flat_map(move |_| second(0.0005));
    // 2 s of room, a bark of 1 s, 8 s of room, another bark, 1 s of room: 60 dB weaker, which is its own level, too.
    let samples: Vec<f32> = quiet(2).chain(second(0.5)).chain(quiet(8)).chain(second(0.5)).chain(quiet(1)).collect();
    write(&path, 16_000, &samples);
    let example = Example::open(&path).unwrap();
    assert_eq!((example.rate(), example.samples().len()), (16_000, 160_000));
    let windows = example.windows(Duration::from_secs(2));
    // Ten seconds in windows of two, one a second: the first holds a bark, the last two the other one or its first sample.
    assert_eq!(windows.len(), 3, "{}", windows.len());
    assert!(windows.iter().all(|window| window.len() == 32_001));
    assert!([0, 2].iter().all(|at| windows[*at].iter().any(|x| x.abs() > 0.3)));
    assert_eq!(example.windows(Duration::from_secs(20)), [example.samples()]);
    let copy = folder.path().join("copy.wav");
    write(&copy, 16_000, &samples[16_000..]);
    assert_eq!(Example::open(&copy).unwrap().content(), example.content(), "only the sound counts");
}

fn prompt(id: &str, text: Option<&str>, audio: &[&Path]) -> Prompt {
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (2, 3), cooldown: Duration::ZERO };
    let audio = audio.iter().map(PathBuf::from).collect();
    Prompt { id: PromptId::new(id).unwrap(), text: text.map(Into::into), audio, rule, contrast: Vec::new() }
}

/// Scores of windows of the recording for a prompt: the best during the rooster (2.5 to 4.05 s), and elsewhere.
fn best(arguments: &[&str]) -> (f64, f64) {
    let file = repository().join("tests/audio/demo.ogg");
    let output = Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["score", file.to_str().unwrap(), "--json", "--hop", "0.5"])
        .args(arguments)
        .env("XDG_CACHE_HOME", tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut inside, mut outside) = (0.0_f64, 0.0_f64);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (start, end) = (line["start_s"].as_f64().unwrap(), line["end_s"].as_f64().unwrap());
        let best = if end > 2.5 && start < 4.05 { &mut inside } else { &mut outside };
        *best = best.max(line["score"].as_f64().unwrap());
    }
    (inside, outside)
}

#[test]
fn a_recording_finds_its_sound_and_silence_matches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rooster = folder.path().join("rooster.wav");
    cut(&rooster, 2.4, 4.2);
    let (inside, outside) = best(&["--like", rooster.to_str().unwrap()]);
    assert!(inside >= 8.0 && inside > outside + 2.0, "{inside} {outside}");
}

#[test]
fn recordings_are_cached_by_content_and_text_beside_them_is_another_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let (rooster, cache_dir) = (folder.path().join("rooster.wav"), folder.path().join("cache"));
    cut(&rooster, 2.4, 4.2);
    let bundle = Bundle::open(repository().join("models/mini")).unwrap();
    let model = Model::load(&bundle).unwrap();
    let cache = EmbeddingCache::at(&cache_dir, 100);
    let entries = || fs::read_dir(&cache_dir).unwrap().count();
    let scores = |prompts: &[Prompt]| {
        let set = prompts::prepare(prompts, &bundle, &model, &cache).unwrap();
        let mut scorer = PromptScorer::new(set.into(), model.calibration.clone());
        // Heard: the example itself, as its window is embedded.
        let decoded = Example::open(&rooster).unwrap();
        let mut clip = clapd_core::embed::ClipEmbedder::new(model.clone(), decoded.rate()).unwrap();
        clip.push(clapd_core::samples::Samples::whole(decoded.samples())).unwrap();
        scorer.score(&clip.finish().unwrap().0).to_vec()
    };
    let first = scores(&[prompt("a", None, &[&rooster])]);
    assert_eq!(entries(), 1);
    let copy = folder.path().join("renamed.wav");
    fs::copy(&rooster, &copy).unwrap();
    let again = scores(&[
        prompt("a", None, &[&copy]),
        prompt("b", Some("a rooster crowing"), &[&rooster]),
        prompt("c", Some("rain"), &[]),
    ]);
    assert_eq!(entries(), 3, "two texts came, and no recording");
    assert_eq!(again[0], first[0]);
    assert!(first[0].score > 9.0 && again[1].score > 9.0 && again[2].score < 6.0, "{again:?}");
    assert!(again[1].cosine < again[0].cosine, "the text has its share: {again:?}");
}
