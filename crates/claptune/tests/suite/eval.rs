//! `claptune eval` and `claptune split` as a user meets them, on the default bundle and the sounds of the demonstration's
//! recording. The ratings are made up: 9 for a sound's own name, 1 for another's, each by several invented listeners.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clapd_core::model::{Bundle, Encode};
use claptune::data;
use claptune::eval::BundleScorer;
use serde_json::Value;

use crate::support::demo_ratings::{claptune, dataset, fails, root, sounds};

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let output = claptune(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_models_agreement_with_people() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dataset(dir.path(), "L");
    let (manifest, bundle) = (manifest.to_str().unwrap(), root().join("models/mini"));
    let mini = bundle.to_str().unwrap();
    let arguments = ["eval", "--data", manifest, "--model", mini, "--against", mini, "--resamples", "200"];
    let found = json(&[&arguments[..], &["--json"]].concat());
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&found), "alarms excluded groups listeners models ratings resamples screened seed skipped split");
    let groups = found["groups"].as_array().unwrap();
    let names: Vec<&str> = groups.iter().map(|group| group["group"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "natural", "synthesised", "generator:tango", "category:first", "category:rest"]);
    let all = &groups[0];
    assert_eq!(keys(all), "ceiling difference group models pairs recordings");
    assert_eq!((all["pairs"].as_u64(), all["recordings"].as_u64()), (Some(64), Some(16)));
    assert_eq!((found["ratings"].as_u64(), found["listeners"].as_u64()), (Some(192), Some(3)));
    let srcc = &all["models"][0]["srcc"];
    assert_eq!((keys(&all["models"][0]), keys(srcc)), ("ktau lcc mse srcc".into(), "high low value".into()));
    let [low, value, high] = ["low", "value", "high"].map(|key| srcc[key].as_f64().unwrap());
    // One right name in four: with ties, a perfect order gives some 0.75.
    // (Draws of a perfect order differ by their ties alone, so the interval may miss the value by a little.)
    assert!(low < high && (value - low).abs() < 0.01 && value > 0.5, "{srcc}");
    assert_eq!(all["difference"]["srcc"]["p"], 1.0, "a model against itself");
    assert_eq!(
        (keys(&all["difference"]["mse"]), keys(&all["ceiling"])),
        ("high low p value".into(), "halves model pairs reliability".into())
    );
    let table = claptune(&arguments);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("SRCC") && table.contains("generator:tango") && table.contains("people"), "{table}");
    fails(&["eval", "--data", manifest, "--model", mini, "--split", "train"], &["split train", "--split"]);
    fs::write(dir.path().join("3.wav"), b"no sound").unwrap();
    fails(&["eval", "--data", manifest, "--model", mini], &["1 of 16", "3.wav", "--skip"]);
    let skipped = json(&["eval", "--data", manifest, "--model", mini, "--skip", "0.1", "--resamples", "100", "--json"]);
    assert_eq!((skipped["groups"][0]["pairs"].as_u64(), skipped["skipped"].as_array().unwrap().len()), (Some(60), 1));
    assert!(skipped["groups"][0]["difference"].is_null());
}

#[test]
fn false_alarms_and_misses_on_a_long_recording() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = "recording,prompt,start_s,end_s\n".to_owned();
    for (start, end, name) in
        sounds().iter().filter(|(.., name)| ["a steam train whistle", "people applauding"].contains(&name.as_str()))
    {
        writeln!(events, "demo.ogg,{name},{start},{end}").unwrap();
    }
    events += "demo.ogg,a violin playing,,\n";
    let manifest = dir.path().join("events.csv");
    fs::write(&manifest, events).unwrap();
    let (audio, bundle) = (root().join("tests/audio"), root().join("models/mini"));
    let [manifest, audio, bundle] = [&manifest, &audio, &bundle].map(|path| path.to_str().unwrap());
    let rules = ["--start", "6", "--start", "2", "--hop", "0.5"];
    let found = json(
        &[&["eval", "--events", manifest, "--audio-root", audio, "--model", bundle, "--json"][..], &rules].concat(),
    );
    let [six, two] = [0, 1].map(|n| &found["alarms"][n]["all"]);
    assert_eq!((six["events"].as_u64(), six["found"].as_u64()), (Some(2), Some(2)), "{six}");
    // 118.7 s for three prompts.
    assert!((six["hours"].as_f64().unwrap() - 3.0 * 118.0 / 3600.0).abs() < 0.01, "{six}");
    assert!(two["false_alarms"].as_u64() > six["false_alarms"].as_u64(), "all kinds of sounds score 2: {two}");
    assert_eq!(found["alarms"][0]["prompts"].as_array().unwrap().len(), 3);
    fails(&["eval", "--model", bundle], &["--events"]);
}

#[test]
fn a_manifest_is_split() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = "audio,text,score,listener\n".to_owned();
    for n in 0..60 {
        writeln!(manifest, "{n}.wav,\"a hum, then rain\",{},L{}", n % 11, n / 6).unwrap();
    }
    let (from, to) = (dir.path().join("m.csv"), dir.path().join("split.csv"));
    fs::write(&from, manifest).unwrap();
    let [from, to] = [&from, &to].map(|path| path.to_str().unwrap());
    let output = claptune(&["split", "--data", from, "--out", to, "--shares", "0.5,0.25,0.25"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = data::read(Path::new(to), None).unwrap().rows;
    assert_eq!(data::split::crossing(&made), data::split::Crossing::default());
    assert!(made.len() >= 45 && made.iter().all(|rating| rating.audio.starts_with(dir.path())), "{}", made.len());
    fails(&["split", "--data", from, "--out", from], &["--out is one of --data"]);
    fails(&["split", "--data", from, "--out", to, "--shares", "1"], &["train,validation,test"]);
}

/// Training looks at the patches of `data::Clips`; clapd listens through `ClipEmbedder`. They are the same sound.
#[test]
fn training_sees_what_clapd_hears() {
    let dir = tempfile::tempdir().unwrap();
    dataset(dir.path(), "L");
    let bundle = Bundle::open(root().join("models/mini")).unwrap();
    let scorer = BundleScorer::open(&root().join("models/mini")).unwrap();
    let encoder = bundle.audio_encoder().unwrap();
    for n in [0, 1, 15] {
        let file = dir.path().join(format!("{n}.wav"));
        let patches = data::patches(&file, &bundle.frontend(), bundle.windowing().patch_hop).unwrap();
        let (mut sum, mut features) = (vec![0.0; encoder.feature_len()], vec![0.0; encoder.feature_len()]);
        let patches: Vec<&[f32]> = patches.chunks_exact(bundle.frontend().patch_len()).collect();
        for patch in &patches {
            encoder.encode(patch, &mut features).unwrap();
            sum.iter_mut().zip(&features).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / patches.len() as f64) as f32).collect();
        let mut embedding = vec![0.0; encoder.embedding_len()];
        encoder.embed(&mean, &mut embedding).unwrap();
        assert_eq!(embedding, scorer.clip(&file).unwrap(), "sound {n}");
    }
}
