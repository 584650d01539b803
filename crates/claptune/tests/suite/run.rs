//! `claptune tune` as a user meets it, on a tiny checkpoint with seeded weights and a made-up study.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use claptune::checkpoint::clap_names::{Naming, Tower};
use claptune::data::{self, Pair, Split};
use claptune::eval::BundleScorer;
use claptune::metrics::spearman;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::copy::golden;
use crate::support::training;
use crate::support::training::{dataset, fails, succeeds};

/// A folder with a study, in which runs can be made.
struct TensorLocation {
    folder: tempfile::TempDir,
    init: String,
}

impl TensorLocation {
    fn new(form: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        dataset(folder.path());
        Self { folder, init: golden(form).display().to_string() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The arguments of a short run to the folder `out`, and more of them.
    fn arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let (data, out, cache) = (self.path("study.csv"), self.path(out), self.path("mels"));
        let own = ["tune", "--data", &data, "--init", &self.init, "--out", &out, "--cache", &cache, "--rate", "1e-3"];
        own.iter().chain(more).map(|text| (*text).to_owned()).collect()
    }

    #[track_caller]
    fn tune(&self, out: &str, more: &[&str]) -> String {
        succeeds(&self.arguments(out, more).iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[track_caller]
    fn refuses(&self, out: &str, more: &[&str], words: &[&str]) {
        fails(&self.arguments(out, more).iter().map(String::as_str).collect::<Vec<_>>(), words);
    }

    fn lines(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join(out).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The journal without what a clock says, and the best weights.
    fn outcome(&self, out: &str) -> (Vec<Value>, Vec<u8>) {
        let mut lines = self.lines(out);
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            line.remove("seconds").unwrap();
            line.remove("pairs_per_second");
        }
        (lines, fs::read(self.folder.path().join(out).join("best/model.safetensors")).unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.folder.path().join(name), text).unwrap();
        self.path(name)
    }
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_run_leaves_a_journal_a_checkpoint_and_a_bundle() {
    let place = TensorLocation::new("fused");
    let said = place.tune("run", &["--epochs", "4", "--patience", "9"]);
    assert!(said.contains("SRCC") && said.contains("KTAU"), "lines where there is no terminal: {said}");
    let out = place.folder.path().join("run");
    let run: Value = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!((run["loss"].as_str(), run["seed"].as_u64()), (Some("wsce+mae"), Some(1)));
    let train = &run["splits"]["train"];
    assert_eq!((train["pairs"].as_u64(), train["recordings"].as_u64()), (Some(30), Some(10)));
    assert_eq!((train["listeners"].as_u64(), run["splits"]["test"]["pairs"].as_u64()), (Some(3), Some(6)));
    let lines = place.lines("run");
    let (steps, validations) = (of_kind(&lines, "step"), of_kind(&lines, "validation"));
    assert_eq!(steps.len() as u64, run["steps_in_all"].as_u64().unwrap());
    assert!(steps.iter().zip(1..).all(|(line, step)| line["step"] == step), "each once, in order");
    for key in ["loss", "rate", "gradient", "pairs_per_second", "seconds"] {
        assert!(steps.iter().all(|line| line[key].as_f64().unwrap() > 0.0), "{key}");
    }
    assert_eq!(validations.len(), 5, "the start and four epochs");
    assert_eq!((validations[0]["step"].as_u64(), validations[0]["best"].as_bool()), (Some(0), Some(true)));
    let mean = |lines: &[&Value]| lines.iter().map(|l| l["loss"].as_f64().unwrap()).sum::<f64>() / lines.len() as f64;
    let (first, last) = (mean(&steps[..4]), mean(&steps[steps.len() - 4..]));
    assert!(last < first, "the loss falls: {first} to {last}");

    assert!(said.contains("scores on recordings that the curve was not fitted to"), "{said}");
    // What training measured is what clapd will hear: the bundle's own ranks of the same pairs.
    let rows = data::read(Path::new(&place.path("study.csv")), None).unwrap().rows;
    let pairs: Vec<Pair> = data::pairs(&rows).unwrap();
    let pairs: Vec<Pair> = pairs.into_iter().filter(|pair| pair.split == Some(Split::Validation)).collect();
    let (scored, _) = BundleScorer::open(&out).unwrap().score(&pairs, 0.0).unwrap();
    let cosines: Vec<f64> = scored.iter().map(|(cosine, _)| f64::from(*cosine)).collect();
    let ratings: Vec<f64> = pairs.iter().map(Pair::mean).collect();
    let best = validations.iter().rfind(|line| line["best"] == true).unwrap()["srcc"].as_f64().unwrap();
    let heard = spearman(&cosines, &ratings);
    assert!((heard - best).abs() < 0.05, "{heard} by the bundle, {best} by the journal");

    place.refuses("run", &["--epochs", "4", "--patience", "9"], &["holds a run", "--resume"]);
    place.refuses("run", &["--epochs", "4", "--patience", "9", "--seed", "2", "--resume"], &["seed is 2", "with 1"]);
    place.tune("run", &["--epochs", "4", "--patience", "9", "--resume"]);
    assert_eq!(place.lines("run"), lines, "a run that has ended is left as it is");
    fs::remove_file(out.join("run.json")).unwrap();
    place.refuses("run", &["--epochs", "4", "--resume"], &["holds the state of a run without its run.json"]);
}

/// Kills a run now and then, and lets it end.
fn interrupted(place: &TensorLocation, out: &str, more: &[&str], random: &mut fastrand::Rng) -> usize {
    let metrics_log = place.folder.path().join(out).join("metrics.jsonl");
    let lines = || fs::read_to_string(&metrics_log).map_or(0, |text| text.lines().count());
    let mut kills = 0;
    while kills < 4 {
        // While it gets ready, after the next line or some later one, and then at any moment of a step or of what it saves.
        let (more_lines, later) = (random.usize(0..5), Duration::from_micros(random.u64(0..60_000)));
        let until = lines() + more_lines;
        let mut running = Command::new(env!("CARGO_BIN_EXE_claptune"))
            .args(place.arguments(out, &[more, &["--resume"]].concat()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut status = None;
        // A resume cuts the journal back first, so that there may be fewer lines than before.
        while (more_lines > 0 && lines() < until) && status.is_none() {
            std::thread::sleep(Duration::from_millis(1));
            status = running.try_wait().unwrap();
        }
        std::thread::sleep(later);
        if let Some(status) = status.or(running.try_wait().unwrap()) {
            assert!(status.success(), "{status}");
            break;
        }
        running.kill().unwrap();
        running.wait().unwrap();
        kills += 1;
    }
    place.tune(out, &[more, &["--resume"]].concat());
    kills
}

#[test]
fn a_run_that_was_killed_ends_as_one_that_was_not() {
    let place = TensorLocation::new("unfused");
    let options = [
        "--epochs",
        "3",
        "--patience",
        "9",
        "--batch",
        "4",
        "--accumulate",
        "2",
        "--validate-every",
        "3",
        "--save-every",
        "0",
        "--spec-augment",
        "--layer-decay",
        "0.8",
        "--loss",
        "wsce+0.5*spo",
    ];
    place.tune("whole", &options);
    let unbroken = place.outcome("whole");
    let mut kills = 0;
    for seed in 1..=2 {
        let out = format!("killed{seed}");
        kills += interrupted(&place, &out, &options, &mut fastrand::Rng::with_seed(seed));
        let outcome = place.outcome(&out);
        assert_eq!(outcome.0, unbroken.0, "seed {seed}");
        assert!(outcome.1 == unbroken.1, "seed {seed}: the weights differ");
        let state = fs::read_dir(place.folder.path().join(&out).join("state")).unwrap();
        assert_eq!(state.count(), 1, "one state is left");
    }
    println!("{kills} kills");
    assert!(kills > 2, "{kills} kills in two runs");
}

#[test]
fn a_run_stays_on_its_device() {
    let place = TensorLocation::new("unfused");
    place.refuses("run", &["--device", "gpu"], &["\"gpu\" is no device", "cuda, vulkan, wgpu and metal"]);
    // A build that can would look for one.
    if cfg!(not(feature = "metal")) {
        let remedy = "cargo build --release --features metal";
        place.refuses("run", &["--device", "metal"], &["--device metal", "without the feature metal", remedy]);
    }
    let path = place.folder.path().join("run/run.json");
    assert!(!path.exists(), "refused before a run begins");
    let options = ["--steps", "1", "--resume"];
    place.tune("run", &options);
    let (text, line) = (fs::read_to_string(&path).unwrap(), "  \"device\": \"flex\",\n");
    assert!(text.contains(line), "{text}");
    fs::write(&path, text.replace("flex", "cuda:1")).unwrap();
    place.refuses("run", &options, &["device is \"flex\"", "begun with \"cuda:1\"", "another --out"]);
    // As runs were written before there was a choice.
    fs::write(&path, text.replace(line, "")).unwrap();
    place.tune("run", &options);
}

/// Needs a device that Vulkan finds; Mesa's drivers have one in software.
#[cfg(feature = "vulkan")]
#[test]
fn vulkan_trains_as_the_processor_does_and_goes_on_after_a_kill() {
    let place = TensorLocation::new("unfused");
    let options = ["--steps", "8", "--validate-every", "4", "--save-every", "0", "--loss", "wsce+0.5*mae+0.5*spo"];
    let on = [&options[..], &["--device", "vulkan"]].concat();
    place.tune("flex", &options);
    let said = place.tune("vulkan", &on);
    assert!(said.contains("training on "), "{said}");
    let (flex, vulkan) = (place.lines("flex"), place.lines("vulkan"));
    for (a, b) in flex.iter().zip(&vulkan) {
        println!(
            "{} {}: loss {} {}, gradient {} {}",
            a["kind"], a["step"], a["loss"], b["loss"], a["gradient"], b["gradient"]
        );
    }
    for (key, bound) in [("loss", 1e-4), ("gradient", 1e-2)] {
        for (a, b) in of_kind(&flex, "step").iter().zip(of_kind(&vulkan, "step")) {
            let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((a - b).abs() < bound * a.abs(), "{key}: {a} on the processor, {b} on the GPU");
        }
    }
    place.refuses("vulkan", &[&options[..], &["--resume"]].concat(), &["device is \"flex\"", "begun with \"vulkan\""]);
    let kills = interrupted(&place, "killed", &on, &mut fastrand::Rng::with_seed(1));
    assert!(kills > 0);
    assert_eq!(place.outcome("killed").0, place.outcome("vulkan").0);
    assert!(place.outcome("killed").1 == place.outcome("vulkan").1, "the weights differ");
}

/// Tensors of the best model that are not those of the beginning.
fn changed(place: &TensorLocation, out: &str) -> BTreeSet<String> {
    let begin = fs::read(Path::new(&place.init).join("model.safetensors")).unwrap();
    let (_, best) = place.outcome(out);
    let (begin, best) = (SafeTensors::deserialize(&begin).unwrap(), SafeTensors::deserialize(&best).unwrap());
    let differs = |name: &String| best.tensor(name).unwrap().data() != begin.tensor(name).unwrap().data();
    best.names()
        .into_iter()
        .map(|name| name.to_string())
        .filter(|name| begin.tensor(name).is_ok())
        .filter(differs)
        .collect()
}

fn name(tower: Tower, path: &str) -> String {
    Naming::Transformers.location(tower, path).name
}

#[test]
fn frozen_parts_stay_bit_for_bit() {
    let place = TensorLocation::new("fused");
    let options = ["--steps", "6", "--validate-every", "1"];
    place.tune("all", &options);
    let all = changed(&place, "all");
    place.tune(
        "some",
        &[&options[..], &["--freeze", "text", "--freeze", "audio:1", "--freeze", "temperature"]].concat(),
    );
    let some = changed(&place, "some");
    let (stages, projection) =
        (name(Tower::Audio, "stages.1.blocks.0.inner.weight"), name(Tower::Audio, "projection.linear1.weight"));
    assert!(some.contains(&stages) && some.contains(&projection), "{some:?}");
    for (tower, path) in [
        (Tower::Audio, "stages.0.blocks.0.inner.weight"),
        (Tower::Audio, "patch.weight"),
        (Tower::Text, "bert.layers.1.inner.weight"),
        (Tower::Text, "projection.linear1.weight"),
    ] {
        let name = name(tower, path);
        assert!(all.contains(&name) && !some.contains(&name), "{name}");
    }
    assert!(!some.contains("logit_scale_a") && all.contains("logit_scale_a"));
    let everything = ["--steps", "1", "--freeze", "text", "--freeze", "audio", "--freeze", "temperature"];
    place.refuses("none", &everything, &["--freeze leaves nothing to train"]);
    let cosines = ["--steps", "1", "--loss", "mae", "--freeze", "text", "--freeze", "audio"];
    place.refuses("cosines", &cosines, &["no", "part in the loss mae"]);
    place.refuses("deep", &["--freeze", "text:3"], &["text:3", "2 layers"]);
}

#[test]
fn batches_of_a_step_count_as_one() {
    let place = TensorLocation::new("unfused");
    let mut text = "audio,text,score,split\n".to_owned();
    for n in 0..14 {
        text += &format!("{n}.wav,a sound of kind {n},{},{}\n", (3 * n) % 11, training::split(n));
    }
    let data = place.write("once.csv", &text);
    let losses = |out: &str, more: &[&str]| -> Vec<f64> {
        let arguments = place.arguments(out, &[&["--epochs", "2", "--loss", "mae"], more].concat());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        succeeds(&[&arguments[..1], &["--data", &data], &arguments[3..]].concat());
        let lines = place.lines(out);
        of_kind(&lines, "step").iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let at_once = losses("once", &["--batch", "4"]);
    let in_parts = losses("parts", &["--batch", "2", "--accumulate", "2"]);
    assert_eq!(at_once.len(), 6, "10 pairs in batches of 4, twice");
    for (a, b) in at_once.iter().zip(&in_parts) {
        assert!((a - b).abs() < 1e-4, "{at_once:?} {in_parts:?}");
    }
    let masked = losses("masked", &["--batch", "4", "--spec-augment"]);
    assert!(masked[0] != at_once[0] && masked == losses("again", &["--batch", "4", "--spec-augment"]), "{masked:?}");
}

#[test]
fn a_run_becomes_a_bundle_of_any_precision() {
    let place = TensorLocation::new("fused");
    place.tune("run", &["--steps", "2"]);
    let (run, out) = (place.path("run"), place.path("small"));
    succeeds(&["export", &run, "--bundle", &out, "--precision", "f16"]);
    let toml = |folder: &str| -> toml::Table {
        fs::read_to_string(Path::new(folder).join("bundle.toml")).unwrap().parse().unwrap()
    };
    let (own, small) = (toml(&format!("{run}/bundle")), toml(&out));
    assert_eq!((own["name"].as_str(), small["name"].as_str()), (Some("run"), Some("run")));
    assert_eq!(small["calibration"], own["calibration"], "fitted once");
    assert_eq!(own["quality"]["calibration"]["pairs"].as_integer(), Some(12));
    assert_eq!(small["audio"]["precision"].as_str(), Some("f16"));
    fails(&["export", &run], &["--onnx", "--bundle"]);
}

#[test]
fn what_can_not_be_trained_on_is_said() {
    let place = TensorLocation::new("unfused");
    let with = |name: &str, text: &str, more: &[&str], words: &[&str]| {
        let data = place.write(name, text);
        let (out, cache) = (place.path("bad"), place.path("mels"));
        let arguments = ["tune", "--data", &data, "--init", &place.init, "--out", &out, "--cache", &cache];
        fails(&[&arguments[..], more].concat(), words);
    };
    let text = fs::read_to_string(place.path("study.csv")).unwrap();
    let only = |split: &str| -> String {
        text.lines()
            .filter(|line| line.ends_with("split") || line.ends_with(split))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    with("plain.csv", "audio,text,score\n0.wav,a hum,5\n", &[], &["no rating has a split", "claptune split"]);
    with("train.csv", &only("train"), &[], &["validation split has 0 pairs"]);
    with("validation.csv", &only("validation"), &[], &["train split has 0 pairs"]);
    with("eleven.csv", &text.replacen(",0,", ",11,", 1), &[], &["score is 11", "0 to 10"]);
    let recording = text.clone() + "0.wav,a gong,4,validation1,validation\n";
    with("recording.csv", &recording, &[], &["1 recordings are in several splits", "0.wav"]);
    let listener = text.clone() + "11.wav,a gong,4,train1,validation\n";
    with("listener.csv", &listener, &[], &["1 listeners are in several splits", "train1", "--listeners shared"]);
    with("shared.csv", &listener, &["--listeners", "shared", "--rate", "0"], &["--rate is 0"]);
    let missing = text.clone() + "nowhere.wav,a gong,4,train1,train\n";
    with("missing.csv", &missing, &[], &["1 of 15", "nowhere.wav", "--skip"]);
    place.refuses("bad", &["--loss", "wsce+mad"], &["mad", "is no term"]);
    place.refuses("bad", &["--batch", "0"], &["--batch is 0", "1 to"]);
    place.refuses("bad", &["--freeze", "heads"], &["is no part"]);
    assert!(!place.folder.path().join("bad/run.json").exists());
    // A share of broken audio may be skipped, and a text that is too long is cut; both are told.
    let long = "rain and wind, ".repeat(40);
    let data = place.write("some.csv", &(missing + "2.wav,\"" + &long + "\",3,train1,train\n"));
    let (out, cache) = (place.path("some"), place.path("mels"));
    let said = succeeds(&[
        "tune",
        "--data",
        &data,
        "--init",
        &place.init,
        "--out",
        &out,
        "--cache",
        &cache,
        "--steps",
        "1",
        "--skip",
        "0.1",
    ]);
    assert!(
        said.contains("1 audio files can't be used") && said.contains("1 texts are longer than the model allows"),
        "{said}"
    );
    let run: Value = serde_json::from_slice(&fs::read(place.folder.path().join("some/run.json")).unwrap()).unwrap();
    assert!(run["skipped"][0].as_str().unwrap().contains("nowhere.wav") && run["texts_cut"] == 1, "{run}");
}
