//! Levels, the journal and the diary of a daemon that hears the recording.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::node::{Daemon, RECORDING, mqtt};

/// A recording that is read faster than it was made, over and over, takes place in times to come.
const LATER: &str = "2100-01-01";

fn diary(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["diary", "--from", "2020-01-01", "--config"])
        .arg(folder.join("clapd.toml"))
        .args(arguments)
        .env("STATE_DIRECTORY", folder.join("state"))
        // Without summer time.
        .env("TZ", "Asia/Kolkata")
        .stdin(Stdio::null())
        .output()
        .expect("runs")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("is text")
}

#[test]
fn levels_are_published_stand_beside_events_and_are_in_the_diary() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let source = format!("[[source]]\nid = \"demo\"\nfile = {RECORDING:?}\nloop = true\nfull_scale_db = 110.0\n");
    let levels = "[levels]\npublish = \"second\"\n";
    let mut daemon = Daemon::start(&format!("{source}{levels}{}", mqtt(&broker)), |_, _| ());
    let object = |line: &str| -> Value {
        let payload = line.find('{').map(|at| &line[at..]).expect("has a payload");
        serde_json::from_str(payload).expect("is JSON")
    };
    let device = watcher.wait_for("0 1 homeassistant/device/attic_demo/config");
    let level = &object(&device)["components"]["level"];
    assert_eq!((&level["device_class"], &level["unit_of_measurement"]), (&"sound_pressure".into(), &"dBA".into()));
    assert_eq!(level["state_topic"], "clapd/attic/demo/level");
    let minute = object(&watcher.wait_for("0 0 clapd/attic/demo/level {"));
    let second = object(&watcher.wait_for("0 0 clapd/attic/demo/level/second {"));
    for level in [&minute, &second] {
        assert_eq!((&level["unit"], &level["calibrated"]), (&"dB(A)".into(), &true.into()), "{level}");
    }
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or_else(|| panic!("{key}: {value}"));
    // A recording of everyday sounds, whose full scale is 110 dB.
    assert!((60.0..110.0).contains(&number(&minute, "laeq")), "{minute}");
    let order = ["la90", "la50", "la10", "lafmax"].map(|key| number(&minute, key));
    assert!(order.is_sorted(), "{minute}");
    let ended = object(&watcher.wait_for_with("0 1 clapd/attic/demo/dog/event", "\"ended\""));
    assert_eq!(ended["level_unit"], "dB(A)");
    assert!(number(&ended, "lafmax") > number(&ended, "laeq") && number(&ended, "laeq") > 50.0, "{ended}");
    let started = object(&watcher.wait_for_with("0 1 clapd/attic/demo/dog/event", "\"started\""));
    assert!(started["laeq"].is_null() && started["level_unit"].is_null(), "{started}");
    daemon.signal("-TERM");
    daemon.process.wait().expect("ends");

    let folder = daemon.folder.path();
    let journal = fs::read_to_string(folder.join("state/events.jsonl")).expect("is written");
    let line = journal.lines().find(|line| line.contains(ended["id"].as_str().expect("a text"))).expect("is there");
    let line: Value = serde_json::from_str(line).expect("is JSON");
    for key in ["id", "prompt", "score", "peak", "started_at", "duration_s", "laeq", "lafmax", "level_unit"] {
        assert_eq!(line[key], ended[key], "{key}");
    }
    assert_eq!((&line["source"], &line["prompt_id"]), (&"demo".into(), &"dog".into()));
    let csv = text(&diary(folder, &["--csv", "--to", LATER]));
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 1 + journal.lines().count(), "{csv}");
    assert!(rows[0].starts_with("date,time,utc_offset,duration_s,") && rows[1].contains(",+05:30,"), "{csv}");
    assert!(rows.iter().any(|row| row.contains(line["id"].as_str().expect("a text"))), "{csv}");
    let page = text(&diary(folder, &["--html", "--to", LATER]));
    assert!(page.starts_with("<!doctype html>") && page.contains("a dog barking") && page.contains("dB(A)"), "{page}");
    assert_eq!(text(&diary(folder, &["--source", "other", "--csv", "--to", LATER])).lines().count(), 1);
    let refused = diary(folder, &["--to", "yesterday"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && words.contains("--to") && words.contains("2026-11-22"), "{words}");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
}

#[test]
fn without_a_calibration_nothing_claims_a_sound_pressure_and_without_a_table_nothing_is_published() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let source = format!("[[source]]\nid = \"demo\"\nfile = {RECORDING:?}\n");
    let daemon = Daemon::start(&format!("{source}[journal]\nmax_days = 0\n{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert!(watcher.received.iter().all(|line| !line.contains("/level")), "{:#?}", watcher.received);
    let events = watcher.payloads("clapd/attic/demo/dog/event");
    let ended: Vec<_> = events.iter().filter(|event| event.contains("\"ended\"")).collect();
    assert!(ended.iter().any(|event| event.contains("\"level_unit\":\"dBFS(A)\"")), "{ended:?}");
    assert!(!daemon.folder.path().join("state/events.jsonl").exists(), "nobody wants a journal");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
}
