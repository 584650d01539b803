//! Cards as people have them, made up by `support/card.c`: formats that few read, channels that are dead or cancel each other, a rate that
//! is not the one that is claimed, one that is busy, one that goes; and a slip in ALSA's configuration.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Command;

use serde_json::Value;

use crate::capture::{CaptureProcess, TONE_HZ, TONE_PEAK, assert_is_our_tone};
use crate::support::broker::{Broker, Watcher};
use crate::support::node::{Daemon, mqtt};
use crate::support::setup_run::{CLAPD, SetupFolder};
use crate::support::sound_card::{SoundCards, frames, integers};
use crate::support::sound_server::SoundServer;

/// Our tone, of ten seconds, which is a whole number of its periods.
fn tone(channels: usize) -> Vec<Vec<f64>> {
    let phase = |at: u32| (f64::from(at) * TONE_HZ / 48_000.0).fract() * std::f64::consts::TAU;
    frames(10, |at| vec![phase(at).sin() * TONE_PEAK; channels])
}

/// Noise that is loud for a second and 30 dB quieter for the next, as a room with somebody in it: one value for all channels, which
/// `place` spreads over them.
fn talk(seconds: u32, mut place: impl FnMut(f64) -> Vec<f64>) -> Vec<Vec<f64>> {
    let mut random = fastrand::Rng::with_seed(5);
    frames(seconds, |at| {
        let loudness = if (at / 48_000).is_multiple_of(2) { 0.2 } else { 0.006 };
        place((random.f64() - 0.5) * loudness)
    })
}

fn source(id: &str, device: &str, more: &str) -> String {
    format!("[[source]]\nid = \"{id}\"\ndevice = \"{device}\"\n{more}\n")
}

/// The sources' health in the first message for which `matches` holds.
#[track_caller]
fn health(watcher: &mut Watcher, matches: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = watcher.wait_for("0 1 clapd/attic/health");
        let health: Value = serde_json::from_str(&line[line.find('{').expect("is JSON")..]).expect("is JSON");
        if matches(&health["sources"]) {
            return health["sources"].clone();
        }
    }
}

#[test]
fn every_format_of_a_card_is_heard_as_it_is() {
    let mut cards = SoundCards::new();
    let tone = tone(1);
    let big = |little: Vec<u8>, bytes: usize| -> Vec<u8> {
        little.chunks(bytes).flat_map(|sample| sample.iter().rev().copied().collect::<Vec<_>>()).collect()
    };
    let float: Vec<u8> = tone.iter().flatten().flat_map(|sample| (*sample as f32).to_le_bytes()).collect();
    let unsigned: Vec<u8> = integers(&tone, 1, 8).iter().map(|sample| sample ^ 0x80).collect();
    let formats = [
        ("S24_3LE", integers(&tone, 3, 24)),
        ("S24_3BE", big(integers(&tone, 3, 24), 3)),
        ("S24_LE", integers(&tone, 4, 24)),
        ("S20_3LE", integers(&tone, 3, 20)),
        ("S32_LE", integers(&tone, 4, 32)),
        ("S16_BE", big(integers(&tone, 2, 16), 2)),
        ("FLOAT_LE", float),
        ("U8", unsigned),
    ];
    for (format, samples) in &formats {
        cards.add(&format!("card_{format}"), 1, format, samples, "");
    }
    let name = |format: &str| format!("alsa:card_{format}");
    let start = |format: &str| CaptureProcess::start_in(cards.environment(), &[("CLAPD_TEST_DEVICE", &name(format))]);
    let running: Vec<_> = formats.iter().map(|(format, _)| (*format, start(format))).collect();
    for (format, process) in running {
        let (line, _) = process
            .wait_for(format, |line| line.kind == "block" && line.number("at") > 1.0 && line.number("len") > 2_000.0);
        assert_is_our_tone(&line, TONE_PEAK);
        process.end();
    }
}

#[test]
fn channels_are_looked_at_and_one_card_serves_several_sources() {
    let (broker, mut cards) = (Broker::start(), SoundCards::new());
    let owner = format!("owner {:?}", cards.path("owner"));
    cards.add("balanced", 2, "S16_LE", &integers(&talk(10, |sound| vec![sound, -sound]), 2, 16), "");
    // Locked by the first that opens it: sources that fight for it would be lost.
    cards.add("half", 2, "S24_3LE", &integers(&talk(10, |sound| vec![0.0, sound]), 3, 24), &owner);
    let array = |sound: f64| vec![0.05 * sound, 0.05 * sound, 0.0, 0.02 * sound, sound, 0.0];
    cards.add("array", 6, "S16_LE", &integers(&talk(10, array), 2, 16), "");
    let sources = [
        source("mixed", "balanced", ""),
        source("left", "half", "channel = 0"),
        source("right", "half", "channel = 1"),
        source("both", "half", ""),
        source("third", "half", "channel = 2"),
        source("best", "array", "channel = \"auto\""),
    ];
    let mut watcher = broker.watch();
    let more = format!("{}{}", sources.join(""), mqtt(&broker));
    let daemon = Daemon::start(&more, |command, _| {
        command.envs(cards.environment());
    });
    let warnings = |sources: &Value, id: &str| sources[id]["warnings"].to_string();
    let found = |sources: &Value| {
        warnings(sources, "mixed").contains("cancel each other")
            && ["left", "both"].iter().all(|id| warnings(sources, id).contains("channel 0 is dead"))
            && sources["best"]["channel"] == 4
            && sources["right"]["state"] == "live"
    };
    let sources = health(&mut watcher, found);
    let mixed = warnings(&sources, "mixed");
    assert!(mixed.contains("channels 0 and 1") && mixed.contains("write `channel = 0`"), "{mixed}");
    let left = warnings(&sources, "left");
    assert!(left.contains("nothing is in it") && left.contains("write `channel = 1`"), "{left}");
    let both = warnings(&sources, "both");
    assert!(both.contains("takes 6 dB") && both.contains("write `channel = 1`"), "{both}");
    assert_eq!(sources["best"]["state"], "live");
    assert_eq!((&sources["right"]["warnings"], &sources["right"]["reopens"]), (&Value::Null, &0.into()));
    assert_eq!(sources["third"]["state"], "lost");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    for line in [
        "\"mixed\": channels 0 and 1 cancel",
        "channel 4 of \"array\" sounds best",
        "has 2 channels, channel 2 was asked for",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert!(!log.contains("in use by"), "{log}");
}

#[test]
fn a_card_that_runs_at_another_rate_than_it_says_is_taken_at_that() {
    let mut cards = SoundCards::new();
    cards.add("slow", 1, "S16_LE", &integers(&tone(1), 2, 16), "true_rate 44100");
    let process = CaptureProcess::start_in(cards.environment(), &[("CLAPD_TEST_DEVICE", "slow")]);
    let (line, before) =
        process.wait_for("the true rate", |line| line.kind == "block" && line.number("rate") == 44_100.0);
    assert!(before.iter().any(|line| line.kind == "block" && line.number("rate") == 48_000.0));
    assert!(line.fields["warnings"].contains("48000_Hz_and_delivers_44"), "{line:?}");
    let began = line.number("at");
    let (later, lines) =
        process.wait_for("ten seconds more", |line| line.kind == "block" && line.number("at") > began + 10.0);
    assert!(
        lines.iter().skip(1).all(|line| line.kind != "block" || line.number("lost") == 0.0),
        "its clock is right now"
    );
    assert_eq!(later.fields["state"], "Live");
    process.end();
}

#[test]
fn a_card_that_is_busy_or_goes_is_waited_for_and_the_reason_said() {
    let (broker, mut cards) = (Broker::start(), SoundCards::new());
    let path = cards.path("owner");
    let sound = integers(&talk(2, |sound| vec![sound]), 2, 16);
    cards.add("busy", 1, "S16_LE", &sound, &format!("owner {path:?}")).add(
        "loose",
        1,
        "S16_LE",
        &sound,
        "gone_after_s 3",
    );
    let owner = File::create(&path).expect("a file");
    owner.lock().expect("is locked");
    let mut watcher = broker.watch();
    let more = format!("{}{}{}", source("taken", "busy", ""), source("wobbly", "loose", ""), mqtt(&broker));
    let daemon = Daemon::start(&more, |command, _| {
        command.envs(cards.environment());
    });
    health(&mut watcher, |sources| sources["taken"]["state"] == "lost");
    drop(owner);
    health(&mut watcher, |sources| ["recovering", "live"].iter().any(|state| sources["taken"]["state"] == *state));
    health(&mut watcher, |sources| sources["wobbly"]["state"] == "lost");
    health(&mut watcher, |sources| sources["wobbly"]["state"] == "recovering");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("device \"busy\" is in use by another program"), "{log}");
    assert!(log.contains("device \"loose\": it is gone"), "{log}");
}

#[test]
fn setup_says_what_is_wrong_with_a_card() {
    let mut cards = SoundCards::new();
    cards.add("three_bytes", 1, "S24_3LE", &integers(&talk(10, |sound| vec![sound]), 3, 24), "");
    cards.add("balanced", 2, "S16_LE", &integers(&talk(10, |sound| vec![sound, -sound]), 2, 16), "");
    // 24 bits where 32 should be.
    cards.add("lower_end", 1, "S32_LE", &integers(&talk(10, |sound| vec![sound / 256.0]), 4, 32), "");
    for (device, words) in [
        ("three_bytes", &["48000 Hz; level"][..]),
        ("balanced", &["warning", "channels 0 and 1 cancel each other", "write `channel = 0`"]),
        ("lower_end", &["warning", "only the lower 24 have moved", "docs/microphones.md"]),
    ] {
        let folder = SetupFolder::new();
        let arguments = ["--yes", "--device", device, "--broker", "none"];
        folder
            .setup_with(&arguments, |command| {
                command.env("RUST_LOG", "warn").envs(cards.environment());
            })
            .is(0, words);
    }
}

#[test]
fn a_slip_in_alsas_configuration_is_named_with_its_file_and_line() {
    let mut cards = SoundCards::new();
    cards.add_text("pcm.!default { type hw card 2");
    let place = format!("{}:", cards.path("asound.conf").display());
    let folder = SetupFolder::new();
    let arguments = ["--yes", "--device", "default", "--broker", "none"];
    folder
        .setup_with(&arguments, |command| {
            command.envs(cards.environment());
        })
        .is(4, &["can't be read", &place]);
    let output = Command::new(CLAPD).arg("devices").envs(cards.environment()).output().expect("clapd runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&place) && said.contains("mend the file there"), "{said}");
    assert_eq!(output.status.code(), Some(4), "{said}");
    // The daemon waits until it is mended.
    let mut daemon = Daemon::start(&source("mic", "default", ""), |command, _| {
        command.envs(cards.environment());
    });
    let lines = BufReader::new(daemon.process.stderr.take().expect("is piped")).lines().map_while(Result::ok);
    let told = lines.into_iter().find(|line| line.contains(&place) || line.contains("panicked")).unwrap_or_default();
    assert!(told.contains("source \"mic\": ALSA's configuration can't be read"), "{told}");
    daemon.signal("-TERM");
    assert!(daemon.process.wait().expect("ends").success());
}

fn devices(server: &SoundServer, arguments: &[&str]) -> (String, String) {
    let output = Command::new(CLAPD).arg("devices").args(arguments).envs(server.client_environment()).output();
    let output = output.expect("clapd runs");
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn sources_of_a_sound_server_are_listed_and_taken_by_name() {
    let server = SoundServer::start(true);
    server.control(&[
        "load-module",
        "module-null-sink",
        "sink_name=porch",
        "rate=48000",
        "sink_properties=device.description=Porch",
    ]);
    let (list, noise) = devices(&server, &[]);
    assert!(list.contains("pulse:porch.monitor") && list.contains("Monitor of Porch"), "{list}");
    for plumbing in ["null", "jack", "surround", "speex"] {
        assert!(!list.contains(plumbing), "{plumbing} is in\n{list}");
    }
    let (all, more_noise) = devices(&server, &["--all"]);
    assert!(all.lines().count() > list.lines().count() && all.contains("null"), "{all}");
    assert_eq!((noise.as_str(), more_noise.as_str()), ("", ""));
    let environment = || server.client_environment();
    let tone = server.path().join("porch.wav");
    crate::capture::write_tone_to(&tone, TONE_PEAK, TONE_PEAK);
    let mut player =
        Command::new("paplay").arg("--device=porch").arg(&tone).envs(environment()).spawn().expect("paplay runs");
    let porch = CaptureProcess::start_in(environment(), &[("CLAPD_TEST_DEVICE", "pulse:porch.monitor")]);
    let mic = CaptureProcess::start_in(environment(), &[("CLAPD_TEST_DEVICE", "pulse:mic.monitor")]);
    let heard =
        |line: &crate::capture::Line| line.kind == "block" && line.number("at") > 4.0 && line.number("len") > 2_000.0;
    assert_is_our_tone(&porch.wait_for("the porch", heard).0, TONE_PEAK);
    assert_eq!(mic.wait_for("the other", heard).0.number("rms"), 0.0);
    porch.end();
    mic.end();
    let _ = player.kill();
    let _ = player.wait();
}
