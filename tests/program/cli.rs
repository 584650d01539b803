//! clapd as a user meets it: what it prints, and what it exits with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const CLAPD: &str = env!("CARGO_BIN_EXE_clapd");

fn demo_audio() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audio/demo.ogg")
}

/// Runs clapd far from the repository, with a cache of its own.
fn clapd(arguments: &[&str], input: &[u8]) -> Output {
    clapd_with("", arguments, input)
}

/// The same with this in `CLAPD_KERNEL`.
fn clapd_with(kernel: &str, arguments: &[&str], input: &[u8]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut child = Command::new(CLAPD)
        .args(arguments)
        .current_dir("/")
        .env("XDG_CACHE_HOME", cache.path())
        .env("CLAPD_KERNEL", kernel)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments closes its input before all is written.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn fails(arguments: &[&str], status: i32, words: &[&str]) {
    let output = clapd(arguments, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word:?} is not in: {said}");
    }
}

/// A 16-bit mono wav.
fn wav(rate: u32, samples: impl Iterator<Item = f32>) -> Vec<u8> {
    let data: Vec<u8> = samples.flat_map(|x| ((x * 32_767.0) as i16).to_le_bytes()).collect();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn tone(rate: u32, seconds: f32) -> Vec<u8> {
    wav(
        rate,
        (0..(rate as f32 * seconds) as u32)
            .map(move |i| (i as f32 * 1000.0 * std::f32::consts::TAU / rate as f32).sin() * 0.3),
    )
}

/// Start, end and prompt of the sounds in the recording.
fn truth() -> Vec<(f64, f64, String)> {
    let text = std::fs::read_to_string(demo_audio().with_extension("csv")).unwrap();
    let rows = text.lines().skip(1).map(|line| line.splitn(4, ',').map(str::to_owned).collect::<Vec<_>>());
    rows.map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap(), row[2].clone())).collect()
}

#[test]
fn the_demo_names_most_sounds_at_their_times() {
    let printed = stdout(&clapd(&["demo"], &[]));
    let starts: Vec<f64> = printed
        .lines()
        .filter(|line| line.contains("started"))
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(starts.len(), printed.lines().filter(|line| line.contains("ended")).count(), "{printed}");
    let found = |line: &str, from: f64, to: f64, prompt: &str| {
        let at: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        // Words that tell the sounds of the recording apart: the demo asks in a household's words, the truth in others.
        let word =
            prompt.split_whitespace().find(|word| !["a", "person", "steam", "car", "people"].contains(word)).unwrap();
        line.contains("started") && line.contains(word) && (from - 2.0..=to).contains(&at)
    };
    let heard =
        truth().iter().filter(|(from, to, prompt)| printed.lines().any(|line| found(line, *from, *to, prompt))).count();
    assert!(heard >= 12, "only {heard} of {} sounds were named:\n{printed}", truth().len());
}

#[test]
fn the_best_window_is_where_the_sound_is() {
    let file = demo_audio();
    let prompts = ["a toilet flushing", "a dog barking", "people applauding"];
    let mut arguments = vec!["score", file.to_str().unwrap(), "--json", "--hop", "0.5"];
    prompts.iter().for_each(|prompt| arguments.extend(["-p", prompt]));
    let lines: Vec<Value> =
        stdout(&clapd(&arguments, &[])).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() % prompts.len(), 0);
    for line in &lines {
        let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["cosine", "end_s", "file", "prompt", "score", "start_s"]);
        assert!((0.0..=10.0).contains(&line["score"].as_f64().unwrap()), "{line}");
    }
    for (prompt, word) in prompts.iter().zip(["toilet", "dog", "applauding"]) {
        let own = lines.iter().filter(|line| line["prompt"] == *prompt);
        let best = own.max_by(|a, b| a["cosine"].as_f64().unwrap().total_cmp(&b["cosine"].as_f64().unwrap())).unwrap();
        let middle = f64::midpoint(best["start_s"].as_f64().unwrap(), best["end_s"].as_f64().unwrap());
        let (from, to, _) = truth().into_iter().find(|(.., name)| name.contains(word)).unwrap();
        assert!((from..=to).contains(&middle), "{prompt}: best at {middle} s, true {from} to {to} s");
    }
}

#[test]
fn a_whole_recording_is_one_line_a_prompt() {
    let audio = tone(44_100, 3.0);
    let printed = stdout(&clapd(&["score", "-", "-p", "a beep", "-p", "rain", "--json", "--whole"], &audio));
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert_eq!((&lines[0]["file"], &lines[0]["start_s"]), (&Value::from("-"), &Value::from(0.0)));
    assert!(lines[0]["cosine"].as_f64() > lines[1]["cosine"].as_f64(), "{printed}");
}

#[test]
fn silence_and_short_clips_have_scores_and_they_are_low() {
    for audio in [wav(48_000, std::iter::repeat_n(0.0, 480_000)), wav(8_000, std::iter::repeat_n(0.0, 100))] {
        let printed = stdout(&clapd(&["score", "-", "-p", "a dog barking", "-p", "glass breaking", "--json"], &audio));
        assert!(printed.lines().count() >= 2);
        for line in printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            assert!(line["score"].as_f64().unwrap() < 3.0, "{line}");
        }
    }
}

#[test]
fn a_recording_of_one_sample_has_a_score_and_an_empty_one_says_why_not() {
    let one = stdout(&clapd(&["score", "-", "-p", "rain", "--json", "--whole"], &wav(16_000, std::iter::once(0.5))));
    assert_eq!(one.lines().count(), 1, "{one}");
    for more in [&["--whole"][..], &[]] {
        let arguments = [&["score", "-", "-p", "rain", "--json"], more].concat();
        let output = clapd(&arguments, &wav(16_000, std::iter::empty()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(4) && said.contains("holds no sound: 0 samples"), "{said}");
    }
}

#[test]
fn embeddings_are_unit_vectors_of_one_space() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tone.wav");
    std::fs::write(&file, tone(96_000, 1.5)).unwrap();
    let printed = stdout(&clapd(&["embed", "--audio", file.to_str().unwrap(), "--text", "a beep", "--json"], &[]));
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["kind"], &lines[1]["kind"]), (&Value::from("audio"), &Value::from("text")));
    let vectors: Vec<Vec<f64>> =
        lines.iter().map(|line| serde_json::from_value(line["embedding"].clone()).unwrap()).collect();
    assert_eq!(vectors[0].len(), vectors[1].len());
    for vector in &vectors {
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn raw_pcm_on_standard_input_is_what_it_is_declared_to_be() {
    let wav = tone(16_000, 2.0);
    let embed = |arguments: &[&str], input: &[u8]| {
        let output = clapd(&[&["embed", "--json", "--audio", "-"], arguments].concat(), input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        stdout(&output)
    };
    // Past the header of 44 bytes.
    assert_eq!(embed(&["--raw", "16000:s16:1"], &wav[44..]), embed(&[], &wav));
    fails(&["score", "x.wav", "-p", "a dog", "--raw", "16000:s16:1"], 2, &["--raw", "no FILE is `-`"]);
    fails(&["watch", "x.wav", "-p", "a dog", "--raw", "16000:s16:1"], 2, &["--raw", "no FILE is `-`"]);
    fails(&["score", "-", "-p", "a dog", "--raw", "16000"], 2, &["RATE:FORMAT:CHANNELS"]);
}

#[test]
fn bench_reports_what_it_promises() {
    let report: Value = serde_json::from_str(&stdout(&clapd(&["bench", "--json"], &[]))).unwrap();
    for number in ["audio_ms", "text_ms", "real_time_factor", "rss_mb", "load_ms", "threads", "audio_runs", "text_runs"]
    {
        assert!(report[number].as_f64().is_some_and(|value| value > 0.0), "{number}: {report}");
    }
    for word in ["kernel", "precision", "bundle"] {
        assert!(report[word].as_str().is_some_and(|value| !value.is_empty()), "{word}: {report}");
    }
    let fastest = report["kernel"].as_str().unwrap();
    for kernel in ["scalar", fastest] {
        let report: Value = serde_json::from_str(&stdout(&clapd_with(kernel, &["bench", "--json"], &[]))).unwrap();
        assert_eq!(report["kernel"], kernel, "the one that is asked for");
    }
}

#[test]
fn a_kernel_that_is_not_there_is_refused() {
    let file = demo_audio();
    let lacking = if cfg!(target_arch = "x86_64") { "dotprod" } else { "avx2" };
    for (kernel, why) in [("sse9", "no such kernel"), (lacking, "lacks")] {
        for arguments in [&["bench", "--json"][..], &["score", file.to_str().unwrap(), "-p", "rain"]] {
            let output = clapd_with(kernel, arguments, &[]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{arguments:?} with {kernel}: {said}");
            for word in ["CLAPD_KERNEL", kernel, why, "scalar"] {
                assert!(said.contains(word), "{word:?} is not in: {said}");
            }
        }
    }
}

#[test]
fn each_kind_of_failure_has_its_status() {
    let file = demo_audio();
    let audio = file.to_str().unwrap();
    fails(&["score", audio], 2, &["--prompt"]);
    fails(&["score", audio, "-p", "rain", "--hop", "0"], 2, &["0.01"]);
    fails(&["embed"], 2, &["--audio"]);
    fails(&["run", "--config", "/none.toml"], 2, &["/none.toml"]);
    fails(&["check", "--config", "/none.toml"], 2, &["/none.toml"]);
    fails(&["score", audio, "-p", "rain", "--bundle", "/none"], 3, &["/none", "bundle.toml"]);
    fails(&["score", "/none.wav", "-p", "rain"], 4, &["/none.wav"]);
    fails(&["score", "/dev/null", "-p", "rain"], 4, &["/dev/null"]);
}

#[test]
fn one_broken_file_does_not_cost_the_others() {
    let file = demo_audio();
    let output = clapd(&["score", "/none.wav", file.to_str().unwrap(), "-p", "rain", "--json"], &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).lines().count() > 50);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/none.wav"));
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let file = demo_audio();
    let command = format!("'{CLAPD}' score '{}' -p rain --json | head -n 1; echo ${{PIPESTATUS[0]}}", file.display());
    let output = Command::new("bash").args(["-c", &command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.trim_end().ends_with("\n0"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn check_warns_of_what_the_model_cannot_hear() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clapd.toml");
    let text = "[scoring]\nhop_s = 5.0\n[[source]]\nid = \"mic\"\nstdin = true\n[[prompt]]\ntext = \"a dog barking\"\n[[prompt]]\ntext = \"quarterly tax return\"\n";
    std::fs::write(&file, text).unwrap();
    let printed = stdout(&clapd(&["check", "--config", file.to_str().unwrap()], &[]));
    let warned: Vec<_> = printed.lines().filter(|line| line.contains("knows no sound like it")).collect();
    assert!(warned.len() == 1 && warned[0].contains("quarterly tax return"), "{printed}");
    assert!(printed.contains("hop_s is 5") && printed.contains("1.94"), "{printed}");
}

/// Runs clapd with this as its standard output.
fn status_into(arguments: &[&str], cache: &Path, stdout: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(CLAPD);
    command.args(arguments).current_dir("/").env("XDG_CACHE_HOME", cache);
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    // Where it is a pipe, its reader goes at once.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_full_disk_has_a_status_of_its_own_and_a_closed_pipe_is_no_failure() {
    let audio = demo_audio();
    let audio = audio.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clapd.toml");
    let prompt = "[[prompt]]\nid = \"dog\"\ntext = \"a dog\"\n";
    std::fs::write(&file, format!("{prompt}[[source]]\nid = \"a\"\nfile = {audio:?}\n")).unwrap();
    for arguments in [
        &["--version"][..],
        &["score", "--help"],
        &["score", audio, "-p", "a dog", "--json"],
        &["score", audio, audio, "-p", "a dog", "--whole"],
        &["embed", "--text", "a dog", "--json"],
        &["embed", "--audio", audio],
        &["demo"],
        &["bench", "--json"],
        &["check", "--config", file.to_str().unwrap()],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (status, said) = status_into(arguments, folder.path(), full.into());
        assert_eq!(status, Some(6), "{arguments:?}: {said}");
        assert!(said.contains("clapd: standard output cannot be written: No space left"), "{arguments:?}: {said}");
        assert_eq!(said.matches("No space left").count(), 1, "{arguments:?}: once is enough: {said}");
        let (status, said) = status_into(arguments, folder.path(), Stdio::piped());
        assert_eq!(status, Some(0), "{arguments:?}: {said}");
    }
    // A recording that is none is the input's fault, also where the disk is full.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(status_into(&["score", "/dev/null", "-p", "a dog"], folder.path(), full.into()).0, Some(4));

    let log = folder.path().join("scores.jsonl");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let watch = ["watch", audio, "-p", "a dog", "--log", log.to_str().unwrap()];
    let (status, said) = status_into(&watch, folder.path(), Stdio::null());
    assert!(status == Some(6) && said.contains("scores.jsonl") && said.contains("could not be written"), "{said}");
}

#[test]
fn the_demo_shows_itself_on_a_page_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["demo", "--page", "--prompt", "a \"dog\" barking"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(demo.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{line}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    write!(stream, "GET /api/v1/prompts HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""text":"a \"dog\" barking""#), "{answer}");
    let status = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(status.success() && demo.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
