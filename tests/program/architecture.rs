//! What of the architecture neither Cargo, nor the types, nor a lint can hold. src/lib.rs and each crate's lib.rs describe it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates, and the folders of their sources.
const CRATES: [(&str, &str); 4] = [
    ("clapd", "src"),
    ("clapd-core", "crates/clapd-core/src"),
    ("clapd-kernels", "crates/clapd-kernels/src"),
    ("claptune", "crates/claptune/src"),
];

/// A source file: its path below its crate's folder, and its text without the tests at its end and without comments.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(krate: &str) -> Vec<Source> {
    let (_, folder) = CRATES.iter().find(|(name, _)| *name == krate).expect("a crate of the workspace");
    let folder = root().join(folder);
    let mut files = Vec::new();
    collect(&folder, &mut files);
    assert!(files.len() > 10, "only {} files found below {}", files.len(), folder.display());
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code = own.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            let path = file.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
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

/// Files whose code holds `word` and whose path begins with none of `places`.
fn strays(sources: &[Source], word: &str, places: &[&str]) -> Vec<String> {
    let outside = |path: &str| !places.iter().any(|place| path.starts_with(place));
    sources.iter().filter(|s| outside(&s.path) && s.code.contains(word)).map(|s| s.path.clone()).collect()
}

/// A library that somebody may want to replace is named in one place.
#[test]
fn each_library_has_its_place() {
    for (krate, libraries) in [
        (
            "clapd",
            &[
                ("alsa::", "capture/alsa_"),
                ("cpal::", "capture/cpal_stream.rs"),
                ("ureq::", "capture/http.rs cli/ask.rs"),
                ("md5::", "capture/rtsp/auth.rs"),
                ("axum::", "http/"),
                ("hyper::", "http/connections.rs"),
                ("tokio::", "http/"),
                ("utoipa::", "http/"),
                ("prometheus_client::", "http/metrics.rs"),
                ("flate2::", "http/page.rs"),
                ("jiff::", "local_time.rs"),
                ("rumqttc_v4::", "mqtt/"),
                ("rumqttc_v5::", "mqtt/"),
                ("crc32fast::", "outbox/log_entry.rs"),
                ("rustix::time::", "time.rs"),
            ][..],
        ),
        (
            "clapd-core",
            &[
                ("ropus::", "decode/opus.rs"),
                ("symphonia::", "decode/"),
                ("rubato::", "dsp/resample.rs"),
                ("realfft::", "dsp/stft.rs"),
                ("tokenizers::", "model/tokenizer.rs"),
                ("tract_nnef::", "model/"),
            ][..],
        ),
    ] {
        let sources = sources(krate);
        for (library, place) in libraries {
            let users = sources.iter().filter(|s| s.code.contains(library)).count();
            assert!(users > 0, "nothing in {krate} uses {library}: is this test still about this tree?");
            let places: Vec<&str> = place.split(' ').collect();
            assert_eq!(strays(&sources, library, &places), Vec::<String>::new(), "{library} belongs in {place}");
        }
    }
}

/// Within a crate: what each module may use of the others.
const LAYERS: [(&str, &str, &[&str]); 38] = [
    ("clapd-core", "files", &[]),
    ("clapd-core", "level", &[]),
    ("clapd-core", "panics", &[]),
    ("clapd-core", "text", &[]),
    ("clapd-core", "vector", &[]),
    ("clapd-core", "samples", &[]),
    ("clapd-core", "time", &[]),
    ("clapd-core", "channel", &[]),
    ("clapd-core", "decode", &["channel", "panics", "samples"]),
    ("clapd-core", "dsp", &["samples"]),
    ("clapd-core", "score", &[]),
    ("clapd-core", "sound_level", &["level", "samples", "text", "time"]),
    ("clapd-core", "model", &["dsp", "files", "level", "panics", "score", "vector"]),
    ("clapd-core", "embed", &["dsp", "level", "model", "samples", "score"]),
    ("clapd-core", "prompts", &["channel", "decode", "embed", "files", "level", "model", "samples", "score", "vector"]),
    ("clapd-core", "detect", &["prompts", "score", "time"]),
    ("clapd-core", "pipeline", &["detect", "dsp", "embed", "level", "model", "prompts", "samples", "score", "time"]),
    ("clapd", "backoff", &[]),
    ("clapd", "counter", &[]),
    ("clapd", "time", &[]),
    ("clapd", "threads", &[]),
    ("clapd", "local_time", &[]),
    ("clapd", "levels", &[]),
    ("clapd", "journal", &["counter", "levels", "threads"]),
    ("clapd", "capture", &["backoff", "counter", "levels", "threads", "time"]),
    ("clapd", "health", &["counter"]),
    ("clapd", "outbox", &["counter", "levels", "threads", "time"]),
    ("clapd", "score_log", &[]),
    ("clapd", "history", &["time"]),
    ("clapd", "quiet", &["local_time", "time"]),
    ("clapd", "config", &["capture", "history", "journal", "levels", "outbox", "quiet", "score_log"]),
    ("clapd", "prompts", &["config"]),
    ("clapd", "loudness", &["capture", "config", "counter"]),
    ("clapd", "command", &["quiet"]),
    ("clapd", "mqtt", &["backoff", "command", "config", "health", "levels", "outbox", "threads"]),
    (
        "clapd",
        "http",
        &[
            "capture", "command", "config", "counter", "health", "history", "journal", "levels", "mqtt", "outbox",
            "threads",
        ],
    ),
    (
        "clapd",
        "daemon",
        &[
            "capture",
            "command",
            "config",
            "counter",
            "health",
            "history",
            "http",
            "journal",
            "levels",
            "local_time",
            "loudness",
            "mqtt",
            "outbox",
            "prompts",
            "quiet",
            "score_log",
            "threads",
            "time",
        ],
    ),
    (
        "clapd",
        "cli",
        &[
            "capture",
            "config",
            "daemon",
            "journal",
            "levels",
            "local_time",
            "loudness",
            "mqtt",
            "prompts",
            "score_log",
            "time",
        ],
    ),
];

#[test]
fn modules_use_only_what_lies_below_them() {
    for (krate, module, below) in LAYERS {
        let own = |path: &str| path.split(['/', '.']).next() == Some(module);
        let sources = sources(krate);
        assert!(sources.iter().any(|source| own(&source.path)), "{krate} has no {module}");
        for source in sources.iter().filter(|source| own(&source.path)) {
            for used in source.code.split("crate::").skip(1) {
                let used = used.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
                assert!(
                    used == module || below.contains(&used),
                    "{krate}: {} uses crate::{used}; {module} may use {below:?}",
                    source.path
                );
            }
        }
    }
}

/// What a file or a message looks like is decided where it is read or written, and its words are not the domain's to change.
#[test]
fn what_is_released_knows_nothing_of_the_folder_that_it_was_built_in() {
    let folder = "env!(\"CARGO_MANIFEST_DIR\")";
    for krate in ["clapd", "clapd-core", "clapd-kernels"] {
        // Files of tests alone have no other code.
        for source in sources(krate).iter().filter(|source| !source.code.contains("#[test]")) {
            let mut before = "";
            for line in source.code.lines() {
                assert!(
                    !line.contains(folder) || before.trim() == "#[cfg(debug_assertions)]",
                    "{}: {line}",
                    source.path
                );
                before = line;
            }
        }
    }
}

/// Whoever waits in async code waits on the `http` thread alone: nothing of the pipe is scheduled by a runtime.
#[test]
fn async_code_is_in_http_alone() {
    let sources = sources("clapd");
    for word in ["async ", ".await"] {
        assert!(sources.iter().any(|source| source.path.starts_with("http/") && source.code.contains(word)), "{word}");
        assert_eq!(strays(&sources, word, &["http/"]), Vec::<String>::new(), "{word}");
    }
    let many = sources.iter().filter(|source| source.code.contains("new_multi_thread"));
    assert_eq!(many.map(|source| &source.path).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn domain_types_are_not_wire_types() {
    assert_eq!(strays(&sources("clapd"), "Serialize", &["mqtt/", "cli/", "http/"]), Vec::<String>::new());
    assert_eq!(strays(&sources("clapd-core"), "Serialize", &["model/manifest.rs"]), Vec::<String>::new());
}

#[test]
fn no_module_is_a_junk_drawer() {
    for (krate, _) in CRATES {
        for source in sources(krate) {
            for name in ["utils", "util", "helpers", "manager", "common"] {
                assert!(!source.path.split(['/', '.']).any(|part| part == name), "{krate}: {}", source.path);
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (krate, _) in CRATES {
        for source in sources(krate) {
            // A README that is the crate's documentation, too, is included.
            let says = ["//! ", "#![doc = include_str!("].iter().any(|start| source.text.starts_with(start));
            assert!(says, "{krate}: {} has no header", source.path);
        }
    }
}

/// The names of the crates that `package` is built from, of the given kinds of dependencies.
fn tree(package: &str, edges: &str) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", package, "--edges", edges, "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("anyhow v"), "cargo tree said nothing useful: {tree}");
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_device_carries_no_training() {
    let tree = tree("clapd", "normal");
    for name in ["burn", "tract-onnx", "safetensors", "nalgebra", "indicatif", "prost", "hf-hub"] {
        assert!(!tree.iter().any(|found| found.starts_with(name)), "{name} is in the device's build");
    }
}

#[test]
fn the_libraries_build_with_rust_and_a_c_compiler_alone() {
    for package in ["clapd-core", "clapd-kernels"] {
        let tree = tree(package, "normal,build");
        for name in ["alsa", "cpal", "tokio", "burn", "rumqttc-v5-next", "rustls", "ring"] {
            assert!(!tree.iter().any(|found| found == name), "{name} is in {package}'s build");
        }
        assert!(!tree.iter().any(|found| found.ends_with("-sys") && found != "linux-raw-sys"), "{package}: {tree:?}");
    }
}

#[test]
fn the_device_builds_with_rust_a_c_compiler_and_alsa_alone() {
    let tree = tree("clapd", "normal,build");
    for name in ["cmake", "bindgen", "aws-lc-sys", "openssl-sys", "onig_sys", "nasm-rs", "protobuf-src"] {
        assert!(!tree.iter().any(|found| found == name), "{name} wants more than a Pi's owner has installed");
    }
    let found: Vec<_> = tree.iter().filter(|name| name.ends_with("-sys")).collect();
    // Headers of ALSA; numbers of Linux, written in Rust.
    assert!(found.iter().all(|name| ["alsa-sys", "linux-raw-sys"].contains(&name.as_str())), "{found:?}");
}

/// A closure in a kernel that the compiler leaves a function of its own is compiled without the instruction set, and calls a
/// function for every vector instruction (`vectors!` in crates/clapd-kernels/src/norm.rs says what that costs).
#[test]
fn kernels_are_inlined_into_their_instruction_sets() {
    let binary = env!("CARGO_BIN_EXE_clapd");
    let listed = Command::new("nm").args(["-C", binary]).output().expect("nm comes with the C linker that Rust needs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let symbols = String::from_utf8_lossy(&listed.stdout);
    let kernels: Vec<&str> = symbols.lines().filter(|line| line.contains(" clapd_kernels::")).collect();
    assert!(kernels.iter().any(|line| line.ends_with("::enter")), "no kernel among {} symbols", kernels.len());
    // Dealing out rows to threads happens outside any instruction set.
    let apart = kernels.iter().filter(|line| line.contains("{{closure}}") && !line.contains("::workspace::"));
    assert_eq!(apart.collect::<Vec<_>>(), Vec::<&&str>::new());
}
