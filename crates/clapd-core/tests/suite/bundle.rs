//! Bundles that are damaged, foreign or hostile: a clear error each, no panic, no memory by a stranger's word.

use std::fs;
use std::path::{Path, PathBuf};

use clapd_core::files::sha256_hex;
use clapd_core::model::manifest::Manifest;
use clapd_core::model::{Bundle, EmbeddingCache};
use proptest::prelude::*;

fn mini() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini")
}

/// A copy of the default bundle whose files may be broken. The large ones are links until they are replaced.
struct BundleCopy {
    dir: tempfile::TempDir,
}

impl BundleCopy {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(mini()).unwrap().map(Result::unwrap) {
            let to = dir.path().join(entry.file_name());
            if entry.path().extension().is_some_and(|extension| extension == "tar" || extension == "json") {
                std::os::unix::fs::symlink(entry.path(), to).unwrap();
            } else if entry.path().is_file() {
                fs::copy(entry.path(), to).unwrap();
            }
        }
        Self { dir }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.path("bundle.toml")).unwrap()
    }

    /// Rewrites a line of the manifest that begins with `key`, in the first table that has it after `table`.
    fn edit(&self, table: &str, key: &str, line: &str) {
        let text = self.manifest();
        let from = text.find(table).unwrap();
        let at = from + text[from..].find(&format!("\n{key}")).unwrap() + 1;
        let end = at + text[at..].find('\n').unwrap();
        fs::write(self.path("bundle.toml"), format!("{}{line}{}", &text[..at], &text[end..])).unwrap();
    }

    /// Puts other bytes in a file's place and vouches for them, as a hostile author would.
    fn replace(&self, table: &str, file: &str, bytes: &[u8]) {
        fs::remove_file(self.path(file)).unwrap();
        fs::write(self.path(file), bytes).unwrap();
        self.edit(table, "sha256", &format!("sha256 = \"{}\"", sha256_hex(bytes)));
        let manifest: Manifest = toml::from_str(&self.manifest()).unwrap();
        self.edit("format", "pipeline_id", &format!("pipeline_id = \"{}\"", manifest.computed_pipeline_id()));
    }

    fn error(&self) -> String {
        let opened = Bundle::open(self.dir.path()).and_then(|bundle| bundle.audio_encoder().map(|_| bundle));
        let opened = opened.and_then(|bundle| bundle.text_encoder().map(|_| ()));
        format!("{:#}", opened.expect_err("the bundle was taken"))
    }
}

fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A tensor's header that promises `dims` of f32, and what follows it.
fn tensor(dims: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[..4].copy_from_slice(&[0x4e, 0xef, 1, 0]);
    bytes[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&(dims.len() as u32).to_le_bytes());
    for (axis, dim) in dims.iter().enumerate() {
        bytes[12 + 4 * axis..16 + 4 * axis].copy_from_slice(&dim.to_le_bytes());
    }
    bytes[44..48].copy_from_slice(&32_u32.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn the_default_bundle_is_whole_and_small() {
    let bundle = Bundle::open(mini()).unwrap();
    bundle.audio_encoder().unwrap();
    let bytes: u64 = fs::read_dir(mini())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|meta| meta.len())
        .sum();
    assert!(bytes <= 32_000_000, "{bytes} bytes; a committed bundle has at most 32 MB");
}

#[test]
fn what_is_no_bundle_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = format!("{:#}", Bundle::open(empty.path()).unwrap_err());
    assert!(error.contains("bundle.toml") && error.contains("is not a model bundle"), "{error}");
    let copy = BundleCopy::new();
    fs::write(copy.path("bundle.toml"), [0xff, 0xfe]).unwrap();
    assert!(copy.error().contains("UTF-8"), "{}", copy.error());
}

#[test]
fn all_faults_of_a_manifest_are_reported_at_once() {
    let copy = BundleCopy::new();
    copy.edit("[audio]", "file", "file = \"../../etc/passwd\"");
    copy.edit("[audio]", "output", "output = 0");
    copy.edit("[frontend]", "fft_length", "fft_length = 3000000000");
    copy.edit("[calibration]", "points", "points = [[-1.0, 3.0], [1.0, 2.0]]");
    let error = copy.error();
    for word in ["audio.file", "../../etc/passwd", "audio.output is 0", "fft_length", "[calibration]", "pipeline_id"] {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn a_newer_format_or_an_unknown_key_is_refused() {
    let copy = BundleCopy::new();
    copy.edit("format", "name", "name = \"mini\"\nfuture = true");
    assert!(copy.error().contains("future"), "{}", copy.error());
    let text = copy.manifest().replacen("format = 3", "format = 4", 1);
    fs::write(copy.path("bundle.toml"), text).unwrap();
    let error = copy.error();
    assert!(error.contains("format 4") && error.contains("update clapd"), "{error}");
}

#[test]
fn a_missing_or_altered_file_is_named() {
    let copy = BundleCopy::new();
    fs::remove_file(copy.path("text.nnef.tar")).unwrap();
    assert!(copy.error().contains("text.nnef.tar"), "{}", copy.error());
    fs::write(copy.path("text.nnef.tar"), b"else").unwrap();
    let error = copy.error();
    assert!(
        error.contains("SHA-256") && error.contains("text.nnef.tar") && error.contains("copy the bundle"),
        "{error}"
    );
}

#[test]
fn a_shape_that_the_graph_does_not_have_is_found() {
    let copy = BundleCopy::new();
    copy.edit("[audio]", "output", "output = 520");
    let manifest: Manifest = toml::from_str(&copy.manifest()).unwrap();
    copy.edit("format", "pipeline_id", &format!("pipeline_id = \"{}\"", manifest.computed_pipeline_id()));
    let error = copy.error();
    assert!(error.contains("521") && error.contains("520"), "{error}");
}

#[test]
fn hostile_archives_are_refused_with_the_reason() {
    let graph: &[u8] = b"version 1.0; graph g(x) -> (y) { x = external(shape=[1]); y = x; }";
    let deep = format!("graph {}{}", "(".repeat(100_000), ")".repeat(100_000));
    let huge = tensor(&[65_535, 65_535], &[0; 16]);
    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "graph.nnef", "/etc/passwd").unwrap();
    let whole = tar_of(&[("graph.nnef", graph)]);
    for (bytes, word) in [
        (b"\x1f\x8b\x08 a bomb".to_vec(), "compressed"),
        (Vec::new(), "no file graph.nnef"),
        (vec![7; 5_000], "not a graph archive"),
        (whole[..550].to_vec(), "cut short"),
        (tar_of(&[("graph.nnef", graph), ("graph.nnef", graph)]), "several files graph.nnef"),
        (tar_of(&[("graph.nnef", graph), ("sub/graph.nnef", graph)]), "neither graph.nnef nor a tensor"),
        (tar_of(&[("graph.nnef", graph), ("w.dat", &huge)]), "promises"),
        (tar_of(&[("graph.nnef", graph), ("w.dat", b"short")]), "5 bytes"),
        (tar_of(&[("graph.nnef", deep.as_bytes())]), "nests brackets"),
        (link.into_inner().unwrap(), "not a regular file"),
        (tar_of(&[("graph.nnef", b"not a graph")]), "cannot load"),
        (whole, "its input is"),
    ] {
        let copy = BundleCopy::new();
        copy.replace("[audio]", "audio.nnef.tar", &bytes);
        let error = copy.error();
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn a_graph_that_asks_for_too_much_is_refused() {
    let graph: &[u8] = b"version 1.0; graph g(x) -> (y) { x = external(shape=[1, 1, 96, 64]); y = tile(x, repeats=[1000, 1000, 1000, 1]); }";
    let copy = BundleCopy::new();
    copy.replace("[audio]", "audio.nnef.tar", &tar_of(&[("graph.nnef", graph)]));
    let error = copy.error();
    assert!(error.contains("numbers are allowed") || error.contains("cannot load"), "{error}");
}

#[test]
fn the_cache_spares_the_text_tower() {
    let copy = BundleCopy::new();
    let cache_dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::at(cache_dir.path(), 100);
    let bundle = Bundle::open(copy.dir.path()).unwrap();
    let first = bundle.embed_texts(&["rain", "a dog barking"], &cache).unwrap();
    // Without the file only the cache can answer.
    fs::remove_file(copy.path("text.nnef.tar")).unwrap();
    assert_eq!(bundle.embed_texts(&["a dog barking", "rain"], &cache).unwrap(), [first[1].clone(), first[0].clone()]);
    let error = format!("{:#}", bundle.embed_texts(&["rain", "snow"], &cache).unwrap_err());
    assert!(error.contains("text.nnef.tar"), "{error}");
    let norm: f32 = first[0].vector.iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-5, "unit length, not {norm}");
}

#[test]
fn texts_of_any_kind_are_embedded() {
    let encoder = Bundle::open(mini()).unwrap().text_encoder().unwrap();
    let long = "barking ".repeat(1_000);
    for text in ["", " ", "a dog barking", "犬が吠えている", "🐕🐕🐕", "\u{0}\u{7f}\n\t", &long] {
        let embedding = encoder.embed(text).unwrap();
        let norm: f32 = embedding.vector.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-4 || norm == 0.0, "{text:?}: norm {norm}");
    }
    let (dog, bark) = (encoder.embed("a dog barking").unwrap(), encoder.embed("the dog barks").unwrap());
    let rain = encoder.embed("rain falling").unwrap();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    assert!(cosine(&dog.vector, &bark.vector) > cosine(&dog.vector, &rain.vector) + 0.3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_damage_to_a_graph_never_panics(at in 0_usize..4096, bytes in prop::collection::vec(any::<u8>(), 1..64)) {
        let mut archive = fs::read(mini().join("pool.nnef.tar")).unwrap();
        let end = (at + bytes.len()).min(archive.len());
        archive[at..end].copy_from_slice(&bytes[..end - at]);
        let copy = BundleCopy::new();
        copy.replace("[pool]", "pool.nnef.tar", &archive);
        // Damage may hit padding and change nothing; what must not happen is a panic.
        let _ = Bundle::open(copy.dir.path()).and_then(|bundle| bundle.audio_encoder().map(|_| ()));
    }
}

fn without_table(manifest: &str, name: &str) -> String {
    let from = manifest.find(name).unwrap();
    let end = from + manifest[from..].find("\n\n").unwrap();
    format!("{}{}", &manifest[..from], &manifest[end + 2..])
}

/// Nobody measured where the model hears, and all else is as it was.
#[test]
fn a_bundle_of_format_2_says_nothing_of_levels_and_is_the_same_otherwise() {
    let own = Bundle::open(mini()).unwrap();
    let range = own.manifest().level_range().unwrap();
    assert!(-60.0 < range.faint_db && range.faint_db < range.clear_db && range.clear_db < -10.0, "{range:?}");
    let copy = BundleCopy::new();
    let text = without_table(&copy.manifest().replacen("format = 3", "format = 2", 1), "[level]");
    fs::write(copy.path("bundle.toml"), text).unwrap();
    let old = Bundle::open(copy.dir.path()).unwrap();
    assert_eq!(old.manifest().level_range(), None);
    assert_eq!(old.pipeline_id(), own.pipeline_id());
}

#[test]
fn levels_that_no_sound_has_are_refused() {
    for line in ["faint_db = 1.0", "faint_db = -1.0", "faint_db = nan", "faint_db = -200.0"] {
        let copy = BundleCopy::new();
        copy.edit("[level]", "faint_db", line);
        let error = copy.error();
        assert!(error.contains("[level]") && error.contains("from -144 to 0"), "{line}: {error}");
    }
}

/// As an old program wrote it: what it gave recordings, it goes on giving them.
#[test]
fn a_bundle_of_format_1_scores_recordings_as_it_did() {
    let own = Bundle::open(mini()).unwrap();
    let table = own.manifest().recordings.clone().unwrap();
    let copy = BundleCopy::new();
    let text = copy.manifest().replacen("format = 3", "format = 1", 1);
    let text = without_table(&text, "[recordings]");
    let text = without_table(&text, "[level]");
    let parsed: Manifest = toml::from_str(&text).unwrap();
    assert_eq!(parsed.recordings, None);
    fs::write(copy.path("bundle.toml"), text).unwrap();
    copy.edit("format", "pipeline_id", &format!("pipeline_id = \"{}\"", parsed.computed_pipeline_id()));
    let old = Bundle::open(copy.dir.path()).unwrap();
    assert_eq!(old.manifest().recordings_scale().unwrap().as_deref(), Some(&table));
    assert!(old.manifest().has_measured_recordings());
    // The id that version 2 of the default bundle had in format 1.
    assert!(old.pipeline_id().starts_with("69cab410adc3"), "{}", old.pipeline_id());
    let newer = Manifest { format: 2, ..old.manifest().clone() };
    assert!(newer.recordings_scale().unwrap().is_none() && !newer.has_measured_recordings());
}
