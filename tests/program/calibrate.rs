//! `clapd calibrate mic` and the keys of a source's microphone.

use std::fs;
use std::path::Path;
use std::process::Command;

use clapd::config::{self, Environment};

use crate::wav::Wav;

const CONFIG: &str = "# mine\n[node]\nid = \"x\"\n[[source]]\nid = \"mic\"\nfile = \"tone.wav\"\n[[source]]\nid = \"other\"\n\
                      file = \"noise.wav\"\ncorrection_file = \"umik.txt\"\n[[prompt]]\ntext = \"a dog barking\"\n";

/// A folder with a configuration, a calibrator's tone of -9 dB, and noise.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("clapd.toml", CONFIG.as_bytes());
    write("tone.wav", &Wav::tone(16_000, 1, 1, 16, 6 * 16_000).bytes());
    let mut random = fastrand::Rng::with_seed(1);
    write("noise.wav", &Wav::mono(16_000, (0..6 * 16_000).map(|_| random.i16(-9_000..9_000))).bytes());
    write("umik.txt", b"\"Sens Factor =-1.4dB, SERNO: 7000001\"\n20 -1\n1000 0.5\n20000 4\n");
    folder
}

/// Exit status, standard output and standard error.
fn calibrate(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["calibrate", "mic", "--config", "clapd.toml"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn full_scale(folder: &Path, source: usize) -> Option<f32> {
    let text = fs::read_to_string(folder.join("clapd.toml")).unwrap();
    let (settings, _) = config::parse(&text, &folder.join("clapd.toml"), &Environment::default()).unwrap();
    settings.sources[source].microphone.full_scale_db
}

#[test]
fn a_calibrator_gives_the_line_and_writes_it_where_it_is_asked_to() {
    let folder = folder();
    // The source itself, as the daemon would open it; then a recording of it.
    for more in [&[][..], &["--file", "tone.wav"]] {
        let (status, out, error) = calibrate(folder.path(), &[&["--level", "94"], more].concat());
        assert_eq!(status, Some(0), "{error}");
        assert!(out.contains("\nfull_scale_db = 103.0\n") && out.contains("1000 Hz at -9.0 dB"), "{out}");
        assert_eq!(full_scale(folder.path(), 0), None, "nobody asked to write it");
    }
    let (status, out, error) = calibrate(folder.path(), &["--level", "94", "--write"]);
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains("systemctl reload clapd"), "{out}");
    assert_eq!(full_scale(folder.path(), 0), Some(103.0));
    let written = fs::read_to_string(folder.path().join("clapd.toml")).unwrap();
    assert_eq!(written, CONFIG.replace("id = \"mic\"\n", "id = \"mic\"\nfull_scale_db = 103.0\n"));
    // Again, by another calibrator, and with a correction of 0.5 dB at 1 kHz.
    let (_, out, _) = calibrate(folder.path(), &["--level", "114", "--write"]);
    assert!(out.contains("before, it was 103.0 dB: +20.0 dB"), "{out}");
    assert_eq!(full_scale(folder.path(), 0), Some(123.0));
    let (status, out, error) = calibrate(folder.path(), &["--level", "94", "--source", "other", "--file", "tone.wav"]);
    assert!(status == Some(0) && out.contains("full_scale_db = 103.5"), "{out}{error}");
}

#[test]
fn what_is_no_calibrator_is_refused_with_the_remedy() {
    let folder = folder();
    for (arguments, status, words) in [
        (&["--level", "94", "--source", "other"][..], 4, "no clear tone of 1000 Hz"),
        (&["--level", "94", "--hz", "250"], 4, "no clear tone of 250 Hz"),
        (&["--level", "94", "--hz", "9000"], 4, "20 Hz to 7200 Hz"),
        (&["--level", "94", "--file", "none.wav"], 4, "none.wav"),
        (&["--level", "94", "--source", "cellar"], 2, "mic, other"),
        (&["--level", "30"], 2, "stands on them"),
        (&[], 2, "--level"),
    ] {
        let (code, out, error) = calibrate(folder.path(), arguments);
        assert!(code == Some(status) && error.contains(words), "{arguments:?}: {code:?} {out} {error}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("clapd.toml")).unwrap(), CONFIG);
}

#[test]
fn keys_of_the_microphone_levels_and_journal_are_checked() {
    let folder = folder();
    let faults = |text: &str| {
        let parsed = config::parse(text, &folder.path().join("clapd.toml"), &Environment::default());
        parsed.map(|_| ()).unwrap_err().to_string()
    };
    fs::write(folder.path().join("bad.txt"), "20 0\n10 0\n").unwrap();
    for (key, words) in [
        ("full_scale_db = 20.0", "from 40 to 200 dB; take what `clapd calibrate mic` prints"),
        ("correction_file = \"none.txt\"", "No such file"),
        ("correction_file = \"bad.txt\"", "bad.txt: line 2: 10 Hz stands behind 20 Hz"),
        ("correction_file = \"clapd.toml\"", "0 lines with a frequency and a gain"),
    ] {
        let text = CONFIG.replace("id = \"mic\"\n", &format!("id = \"mic\"\n{key}\n"));
        assert!(faults(&text).contains(words), "{key}: {}", faults(&text));
    }
    for (table, words) in [
        ("[levels]\npublish = \"hourly\"", "neither \"minute\" nor \"second\" nor \"off\""),
        ("[levels]\ninterval = 1", "did you mean"),
        ("[journal]\nmax_mb = 0", "from 1 to 10000"),
        ("[journal]\nmax_days = 1.5", "from 1 to 3660"),
    ] {
        let found = faults(&format!("{CONFIG}{table}\n"));
        assert!(found.contains(words) || found.contains("known here"), "{table}: {found}");
    }
}
