//! The rules of the house that a machine can check. src/lib.rs tells them in prose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A source file: its path below src/, and its text without the tests at its end.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "only {} files found below {}", files.len(), root.display());
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code = own.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            Source { path, text, code }
        })
        .collect()
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Files whose code holds `word` and whose path begins with none of `rooms`.
fn strays(sources: &[Source], word: &str, rooms: &[&str]) -> Vec<String> {
    let outside = |path: &str| !rooms.iter().any(|room| path.starts_with(room));
    sources.iter().filter(|s| outside(&s.path) && s.code.contains(word)).map(|s| s.path.clone()).collect()
}

#[test]
fn each_library_has_its_room() {
    let sources = sources();
    for (library, rooms) in [
        ("alsa::", vec!["capture/alsa_log.rs"]),
        ("cpal::", vec!["capture/device.rs"]),
        ("symphonia::", vec!["capture/decode"]),
        ("rubato::", vec!["dsp/resample.rs"]),
        ("realfft::", vec!["dsp/stft.rs"]),
        ("tokenizers::", vec!["clap/tokenizer.rs"]),
        ("rumqttc_v4::", vec!["mqtt/"]),
        ("rumqttc_v5::", vec!["mqtt/"]),
        ("crc32fast::", vec!["outbox/record.rs"]),
        ("tract_nnef::", vec!["clap/", "tune/"]),
        ("tract_onnx::", vec!["tune/"]),
        ("burn::", vec!["tune/"]),
    ] {
        let users = sources.iter().filter(|s| s.code.contains(library)).count();
        assert!(users > 0, "nothing uses {library}: is this test still about this tree?");
        assert_eq!(strays(&sources, library, &rooms), Vec::<String>::new(), "{library} belongs in {rooms:?}");
    }
}

/// What each room may know of the others.
const LAYERS: [(&str, &[&str]); 15] = [
    ("time.rs", &[]),
    ("samples.rs", &[]),
    ("dsp", &["samples", "time"]),
    ("detect", &["time"]),
    ("clap", &["detect", "dsp"]),
    ("pipeline", &["clap", "detect", "dsp", "samples", "time"]),
    ("capture", &["samples", "time"]),
    ("prompts", &["capture", "clap", "detect", "pipeline", "samples"]),
    ("health", &["time"]),
    ("outbox", &["time"]),
    ("score_log", &["detect"]),
    ("config", &["capture", "detect", "outbox", "score_log"]),
    ("mqtt", &["config", "detect", "health", "outbox", "time"]),
    (
        "daemon",
        &[
            "capture",
            "clap",
            "config",
            "detect",
            "health",
            "mqtt",
            "outbox",
            "pipeline",
            "prompts",
            "samples",
            "score_log",
            "time",
        ],
    ),
    ("tune", &["clap", "dsp", "detect", "samples", "time", "pipeline", "capture"]),
];

#[test]
fn rooms_know_only_what_lies_below_them() {
    let sources = sources();
    for (room, below) in LAYERS {
        let own = room.trim_end_matches(".rs");
        for source in sources.iter().filter(|s| s.path.starts_with(room)) {
            for used in source.code.split("crate::").skip(1) {
                let used = used.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                assert!(
                    used == own || below.contains(&used),
                    "{} uses crate::{used}; {own} may use {below:?}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn only_the_binary_uses_tune() {
    assert_eq!(strays(&sources(), "tune::", &["tune/", "bin/claptune.rs", "lib.rs"]), Vec::<String>::new());
}

#[test]
fn the_pipeline_has_no_clock_no_threads_and_no_files() {
    for source in sources() {
        if ["dsp/", "detect/", "pipeline"].iter().any(|room| source.path.starts_with(room)) {
            for word in ["SystemTime", "Instant", "std::thread", "std::fs", "std::net", "std::sync::mpsc"] {
                assert!(!source.code.contains(word), "{} names {word}", source.path);
            }
        }
    }
}

#[test]
fn domain_types_are_not_wire_types() {
    let wire = ["mqtt/message", "mqtt/discovery", "clap/manifest.rs", "cli/", "tune/"];
    assert_eq!(strays(&sources(), "Serialize", &wire), Vec::<String>::new());
}

#[test]
fn every_queue_has_a_bound() {
    for word in ["mpsc::channel", "unbounded"] {
        assert_eq!(strays(&sources(), word, &[]), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn unsafe_code_has_one_room_and_says_why() {
    for source in sources() {
        let blocks = source.code.matches("unsafe {").count();
        assert!(blocks == 0 || source.path.starts_with("clap/kernels/"), "{} has unsafe code", source.path);
        assert!(
            source.text.matches("// SAFETY:").count() >= blocks,
            "{}: a block without its SAFETY line",
            source.path
        );
    }
}

#[test]
fn features_are_chosen_at_the_edges() {
    for word in ["cfg(feature", "cfg!(feature"] {
        let edges = ["lib.rs", "capture/mod.rs", "cli/", "tune/train/backend.rs"];
        assert_eq!(strays(&sources(), word, &edges), Vec::<String>::new());
    }
}

#[test]
fn no_room_is_a_junk_drawer() {
    for source in sources() {
        for name in ["utils", "util", "helpers", "manager", "common", "core"] {
            assert!(!source.path.split(['/', '.']).any(|part| part == name), "{}", source.path);
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_is_small() {
    let mut lines = BTreeMap::new();
    for source in sources() {
        assert!(source.text.starts_with("//! "), "{} has no header", source.path);
        lines.insert(source.path, source.text.lines().count());
    }
    let longest = lines.iter().max_by_key(|(_, lines)| **lines).unwrap();
    assert!(*longest.1 <= 400, "{} has {} lines; 400 are allowed", longest.0, longest.1);
    let mut sorted: Vec<_> = lines.values().collect();
    sorted.sort();
    let median = sorted[sorted.len() / 2];
    assert!(*median <= 200, "the median file has {median} lines; 200 are allowed");
}

/// Lines of every function, by file and first line. rustfmt closes a body at the indentation of its `fn`.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let lines: Vec<_> = source.text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let is_function = code.split("fn ").next().is_some_and(|before| {
            code.contains("fn ")
                && before
                    .split_whitespace()
                    .all(|word| ["pub", "const", "async", "unsafe"].contains(&word) || word.starts_with("pub("))
        });
        if is_function {
            let end = (first..lines.len()).find(|&at| {
                let closes = lines[at].trim_end().ends_with(['}', ';']);
                closes && lines[at].len() - lines[at].trim_start().len() == indent
            });
            found.push((first + 1, end.unwrap_or(first) + 1 - first));
        }
    }
    found
}

#[test]
fn functions_fit_on_a_screen() {
    let mut all = Vec::new();
    for source in sources() {
        for (line, length) in functions(&source) {
            assert!(length <= 80, "{}:{line}: {length} lines; 80 are allowed", source.path);
            all.push(length);
        }
    }
    let long = all.iter().filter(|length| **length > 40).count();
    assert!(long * 10 <= all.len(), "{long} of {} functions have more than 40 lines; one in ten is allowed", all.len());
}

/// The names of the crates in a build without features, of the given kinds of dependencies.
fn device_tree(edges: &str) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", edges, "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("tract-nnef v"), "cargo tree said nothing useful: {tree}");
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_device_carries_no_training() {
    let tree = device_tree("normal");
    for name in ["burn", "tract-onnx", "safetensors", "nalgebra", "indicatif", "prost", "hf-hub"] {
        assert!(!tree.iter().any(|found| found.starts_with(name)), "{name} is in the device's build");
    }
}

#[test]
fn the_device_builds_with_rust_a_c_compiler_and_alsa_alone() {
    let tree = device_tree("normal,build");
    for name in ["cmake", "bindgen", "aws-lc-sys", "openssl-sys", "onig_sys", "nasm-rs", "protobuf-src"] {
        assert!(!tree.iter().any(|found| found == name), "{name} wants more than a Pi's owner has installed");
    }
    let found: Vec<_> = tree.iter().filter(|name| name.ends_with("-sys")).collect();
    // Headers of ALSA; numbers of Linux, written in Rust.
    assert!(found.iter().all(|name| ["alsa-sys", "linux-raw-sys"].contains(&name.as_str())), "{found:?}");
}

/// A closure in a kernel that the compiler leaves a function of its own is compiled without the instruction set, and calls a
/// function for every vector instruction (`vectors!` in src/clap/kernels/norm.rs says what that costs).
#[test]
fn kernels_are_inlined_into_their_instruction_sets() {
    let binary = env!("CARGO_BIN_EXE_clapd");
    let listed = Command::new("nm").args(["-C", binary]).output().expect("nm comes with the C linker that Rust needs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let symbols = String::from_utf8_lossy(&listed.stdout);
    let kernels: Vec<&str> = symbols.lines().filter(|line| line.contains(" clapd::clap::kernels::")).collect();
    assert!(kernels.iter().any(|line| line.ends_with("::enter")), "no kernel among {} symbols", kernels.len());
    // Dealing out rows to threads happens outside any instruction set.
    let apart = kernels.iter().filter(|line| line.contains("{{closure}}") && !line.contains("::workspace::"));
    assert_eq!(apart.collect::<Vec<_>>(), Vec::<&&str>::new());
}
