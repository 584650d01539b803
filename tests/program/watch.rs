//! `clapd watch` and the score log, as a user meets them, over the bundled recording.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::wav::Wav;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audio/demo.ogg")
}

fn clapd(arguments: &[&str]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_clapd")).args(arguments).env("XDG_CACHE_HOME", cache.path()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_recording_gives_a_start_above_what_is_in_it_and_says_what_that_is_worth() {
    let file = demo();
    let file = file.to_str().unwrap();
    // What is not in the recording, and what is.
    let prompts = ["-p", "a cow mooing", "-p", "a dog barking"];
    let lines: Vec<Value> = stdout(&clapd(&[&["watch", file, "--json"][..], &prompts].concat()))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let heard = line["heard_s"].as_f64().unwrap();
        assert!((110.0..120.0).contains(&heard), "{line}");
        // Two minutes show fewer than 3 / (2 / 60) = 90 an hour.
        assert!((90.0..98.0).contains(&line["at_most_per_hour"].as_f64().unwrap()), "{line}");
        assert_eq!((&line["false_alarms"], &line["shown"]), (&Value::from(0), &Value::from(false)));
        let (start, stop) = (line["start"].as_f64().unwrap(), line["stop"].as_f64().unwrap());
        assert!((3.0..=10.0).contains(&start) && stop < start, "{line}");
    }
    let of = |key: &str| lines.iter().map(|line| line[key].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(of("start")[1] > of("start")[0] && of("false_alarms_as_it_is")[1] >= 1.0, "{lines:?}");
    // The very same rule, in the very same pipeline, is silent with it.
    let toml = stdout(&clapd(&[&["watch", file][..], &prompts].concat()));
    assert!(toml.contains("too short") && toml.contains("only if none of these sounds occurred"), "{toml}");
    let snippet: String =
        toml.split("\n\n").filter(|part| part.starts_with("[[prompt]]")).map(|part| format!("{part}\n")).collect();
    let (settings, _) = clapd::config::parse(
        &format!("[[source]]\nid = \"mic\"\nstdin = true\n[node]\nid = \"n\"\n{snippet}"),
        Path::new("pasted.toml"),
        &clapd::config::Environment::default(),
    )
    .unwrap_or_else(|faults| panic!("{faults}\n{toml}"));
    let starts: Vec<f64> = settings.prompts.iter().map(|p| (f64::from(p.rule.start) * 100.0).round() / 100.0).collect();
    assert_eq!(starts, of("start"));
}

#[test]
fn a_configuration_is_watched_for_a_time_and_its_scores_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (folder.path().join("clapd.toml"), folder.path().join("scores.csv"));
    let text = format!(
        "[node]\nid = \"n\"\n[[source]]\nid = \"demo\"\nfile = {:?}\n[[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\n\
         [[prompt]]\ntext = \"rain\"\n",
        demo()
    );
    fs::write(&config, text).unwrap();
    let (config, log_name) = (config.to_str().unwrap(), log.to_str().unwrap());
    let printed =
        stdout(&clapd(&["watch", "--config", config, "--for", "30s", "--log", log_name, "--false-alarms", "2"]));
    assert!(printed.contains("started") && printed.contains("a dog barking"), "{printed}");
    assert!(printed.contains("text = \"rain\"\nstart = 3.0\nstop = 1.5\n"), "{printed}");
    let text = fs::read_to_string(&log).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["at", "source", "prompt", "score", "cosine"]);
    assert!((61..=65).contains(&rows.len()), "{} rows for 30 s of two prompts", rows.len());
    assert!(rows[1..].iter().all(|row| row[1] == "demo" && (row[2] == "dog" || row[2] == "rain")), "{rows:?}");
}

#[test]
fn a_faint_recording_is_named_with_its_remedy_and_is_not_with_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("faint.wav");
    let mut wav = Wav::tone(16_000, 1, 3, 32, 16_000 * 70);
    let quieter = wav.data.as_chunks::<4>().0.iter().map(|sample| f32::from_le_bytes(*sample) * 1e-3);
    wav.data = quieter.flat_map(f32::to_le_bytes).collect();
    fs::write(&path, wav.bytes()).unwrap();
    let config = folder.path().join("clapd.toml");
    let said = |gain_db: f64| {
        let text = format!(
            "[node]\nid = \"n\"\n[[source]]\nid = \"attic\"\nfile = {path:?}\ngain_db = {gain_db:.1}\n[[prompt]]\ntext = \"rain\"\n"
        );
        fs::write(&config, text).unwrap();
        let output = clapd(&["watch", "--config", config.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // A sine with a peak of 0.5e-3 has an RMS of -69 dB; clear_db of the default model is -25.
    let faint = said(0.0);
    assert!(
        faint.contains("attic: faint: nothing was louder than -69 dB") && faint.contains("gain_db = 44.0"),
        "{faint}"
    );
    assert!(!said(44.0).contains("faint"), "the remedy is one");
}

#[test]
fn what_cannot_be_watched_says_why() {
    let file = demo();
    let file = file.to_str().unwrap();
    for (arguments, status, word) in [
        (&["watch", file, "-p", "rain", "--false-alarms", "0"][..], 2, "0.001 to 60"),
        (&["watch", file, "-p", "rain", "--log", "x.txt"], 2, ".jsonl"),
        (&["watch", file, "--config", "/none.toml"], 2, "/none.toml"),
        (&["watch", "/none.wav", "-p", "rain"], 4, "/none.wav"),
        (&["watch", file, "-p", "rain", "--for", "5s"], 1, "listen longer"),
    ] {
        let output = clapd(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(status) && said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn the_daemon_writes_its_scores_down() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("clapd.toml");
    let text = format!(
        "[node]\nid = \"n\"\n[[source]]\nid = \"demo\"\nfile = {:?}\n[[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\n\
         [log]\nscores = \"scores.jsonl\"\n",
        demo()
    );
    fs::write(&config, text).unwrap();
    stdout(&clapd(&["run", "--config", config.to_str().unwrap()]));
    let text = fs::read_to_string(folder.path().join("scores.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!((110..120).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line["source"] == "demo" && line["prompt"] == "dog" && line["at"].is_string()));
    assert!(lines.iter().any(|line| line["score"].as_f64().unwrap() >= 6.0));
}
