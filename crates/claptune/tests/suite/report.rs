//! `claptune report`: one page that holds all it shows, tells what the files say, and lets no text do anything but be read.

use std::fs;
use std::path::{Path, PathBuf};

use claptune::calibrate;
use claptune::data::{Screening, Split};
use claptune::eval::{self, BundleScorer};
use claptune::metrics::BootstrapPlan;
use serde_json::json;

use crate::support::demo_ratings::{claptune, dataset, fails, root};

/// A text that a browser must never take for anything else.
const HOSTILE: &str = r#"</style></title><script>alert("x")</script><img src=x onerror='alert(1)'> & "quoted""#;

fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in ["audio.nnef.tar", "pool.nnef.tar", "text.nnef.tar", "tokenizer.json"] {
        std::os::unix::fs::symlink(from.join(file), to.join(file)).unwrap();
    }
    fs::copy(from.join("bundle.toml"), to.join("bundle.toml")).unwrap();
}

/// A run as `claptune tune` leaves it, with the default bundle as the tuned model.
fn run(dir: &Path, manifest: &Path) -> PathBuf {
    let run = dir.join("run");
    link(&root().join("models/mini"), &run.join("bundle"));
    let options = json!({
        "data": [manifest], "audio_root": null, "init": root().join("models/mini"), "loss": "wsce+mae", "rate": 1e-4,
        "splits": {"test": {"pairs": 64}}, "note": HOSTILE,
    });
    fs::write(run.join("run.json"), options.to_string()).unwrap();
    let mut lines = vec![
        json!({"kind": "validation", "step": 0, "epoch": 0, "srcc": 0.1234, "lcc": 0.2, "ktau": null, "mse": 7.5, "loss": 2.0, "best": true}),
    ];
    for step in 1..=60 {
        lines.push(json!({"kind": "step", "step": step, "epoch": 0, "loss": 2.0 / f64::from(step), "rate": 1e-4, "gradient": 1.0, "pairs_per_second": 9.0, "seconds": 1.0}));
        if step % 20 == 0 {
            let srcc = if step == 40 { 0.6543 } else { 0.4 };
            lines.push(json!({"kind": "validation", "step": step, "epoch": 0, "srcc": srcc, "lcc": 0.5, "ktau": 0.4, "mse": 3.25, "loss": 1.0, "best": step != 60}));
        }
    }
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(run.join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
    run
}

#[track_caller]
fn report(run: &Path, more: &[&str]) -> String {
    let output = claptune(&[&["report", run.to_str().unwrap(), "--resamples", "200"], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    sound(&page);
    page
}

/// Every tag is closed in its order, nothing is fetched, nothing is run.
#[track_caller]
fn sound(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{}", &page[..60]);
    let style = page.find("</style>").unwrap();
    assert!(!page[..style].contains("url(") && !page[..style].contains("@import"));
    let mut open = vec!["html".to_owned(), "head".to_owned()];
    for tag in page[style..].split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag that ends");
        if tag.starts_with("!--") {
            panic!("a comment: {tag}");
        }
        let name = tag.split(|c: char| !c.is_alphanumeric() && c != '/').next().unwrap();
        assert!(!["script", "img", "link", "iframe", "object", "embed", "base", "form", "a"].contains(&name), "{tag}");
        // Names and values by turns: no value holds a quote of its own.
        let parts: Vec<&str> = tag.split('"').collect();
        for (attribute, value) in parts.iter().zip(&parts[1..]).step_by(2) {
            let attribute = attribute.split_whitespace().last().unwrap();
            assert!(!attribute.starts_with("on") && !attribute.starts_with("href"), "{tag:.80}");
            assert!(attribute != "src=" || value.starts_with("data:audio/wav;base64,"), "{tag:.80}");
        }
        match name.strip_prefix('/') {
            Some("style") => {}
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "closed out of order"),
            None if name == "meta" => {}
            None => open.push(name.to_owned()),
        }
    }
    assert_eq!(open, Vec::<String>::new(), "left open");
}

/// As the page writes it.
fn shown(value: f64) -> String {
    format!("{value:.3}").replace('-', "\u{2212}")
}

#[test]
fn a_page_tells_what_an_evaluation_finds() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dataset(dir.path(), "L");
    let run = run(dir.path(), &manifest);
    // A curve of its own, so that the tuned model is not the start.
    let bundle = BundleScorer::open(&run).unwrap();
    let ratings = eval::RatingSelection {
        manifests: std::slice::from_ref(&manifest),
        audio_root: None,
        split: Split::Test,
        screening: Screening::NONE,
        skip: 0.01,
        plan: BootstrapPlan { resamples: 200, seed: 1 },
    };
    let scored = eval::score_ratings(&[bundle], &ratings).unwrap();
    let columns = &scored.columns[0];
    let fitted = calibrate::fit(&columns.cosine, &columns.rating, &scored.recordings, ratings.plan).unwrap();
    calibrate::write(&run.join("bundle"), &fitted, "m.csv").unwrap();
    let models = [BundleScorer::open(&run).unwrap(), BundleScorer::open(&root().join("models/mini")).unwrap()];
    let found = eval::agreement(&models, &ratings).unwrap();
    let page = report(&run, &[]);
    let all = &found.groups[0];
    for figure in all.models.iter().flat_map(|model| model.values()) {
        let [value, low, high] = [figure.value, figure.low, figure.high].map(shown);
        assert!(page.contains(&format!("{value}<span class=\"range\">{low} to {high}")), "{value} {low} {high}");
    }
    let mse = all.difference.as_ref().unwrap()["mse"];
    assert!(page.contains(&format!(
        "{}<span class=\"range\">{} to {}",
        shown(mse.value),
        shown(mse.low),
        shown(mse.high)
    )));
    // Groups, with their figures; the run's own numbers; the curve's error; the options.
    for group in &found.groups {
        let figures = group.models.iter().map(|model| shown(model["srcc"].value));
        assert!(figures.into_iter().all(|figure| page.contains(&format!("\">{figure}</span>"))), "{}", group.group);
    }
    let error = fitted.error.unwrap();
    for text in [
        "start 0.123",
        "best 0.654",
        "<td class=\"n\">40</td><td class=\"n\">0.654</td>",
        "3.250",
        "wsce+mae",
        "splits.test.pairs",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains(&format!(
        "MSE {} ({} to {})",
        shown(error.mse.value),
        shown(error.mse.low),
        shown(error.mse.high)
    )));
    assert!(page.contains("people") && !page.contains("SIMULATED") && page.contains("finished"));
    // Sixteen recordings: the twelve worst can be heard, each once.
    assert_eq!(page.matches("<audio ").count(), 12);
    // 10 s at 16 kHz in base64.
    assert!(page.len() < 12 * 430_000 + 300_000, "{}", page.len());
}

#[test]
fn no_text_does_anything_but_be_read() {
    let dir = tempfile::tempdir().unwrap();
    dataset(dir.path(), "L");
    let mut lines = String::new();
    for (n, text) in [HOSTILE, "a dog barking", "rain"].into_iter().enumerate() {
        for listener in [HOSTILE, "SIMULATED-2"] {
            let row = json!({"audio": format!("{n}.wav"), "text": text, "score": if n == 0 { 10 } else { 2 + n }, "listener": listener, "kind": HOSTILE, "category": HOSTILE, "recording": format!("{n}{HOSTILE}")});
            lines += &format!("{row}\n");
        }
    }
    let manifest = dir.path().join("hostile.jsonl");
    fs::write(&manifest, lines).unwrap();
    let page = report(&run(dir.path(), &manifest), &[]);
    assert!(!page.contains("<script") && !page.contains("<img"));
    // In the worst pair, its recording, its category, the group's label, and the options.
    assert!(page.matches("&lt;script&gt;alert(").count() >= 5, "{}", page.matches("&lt;script").count());
    assert!(page.contains("<q>&lt;/style&gt;&lt;/title&gt;&lt;script&gt;"));
    assert!(page.contains("<b>SIMULATED listeners.</b>") && page.matches("SIMULATED listeners").count() > 6);
}

#[test]
fn a_run_that_was_killed_has_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dataset(dir.path(), "simulated-");
    let run = run(dir.path(), &manifest);
    fs::remove_dir_all(run.join("bundle")).unwrap();
    let mut metrics = fs::read(run.join("metrics.jsonl")).unwrap();
    metrics.extend(b"{\"kind\":\"step\",\"step\":61,\"lo");
    fs::write(run.join("metrics.jsonl"), metrics).unwrap();
    let page = report(&run, &[]);
    for text in [
        "unfinished",
        "Nothing was judged",
        "neither a bundle nor a best checkpoint",
        "1 torn line",
        "best 0.654",
        "SIMULATED listeners",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!((page.matches("<svg class=\"chart\"").count(), page.matches("<audio").count()), (2, 0));
    // Killed before the first line; and without anything at all.
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    assert!(report(&run, &[]).contains("wsce+mae"));
    fails(&["report", dir.path().to_str().unwrap()], &["run.json", "claptune tune"]);
}

#[test]
fn what_is_missing_is_said_and_what_was_asked_for_has_to_be_there() {
    let dir = tempfile::tempdir().unwrap();
    dataset(dir.path(), "L");
    let manifest = dir.path().join("plain.csv");
    let rows: Vec<String> = (0..6).map(|n| format!("{n}.wav,a dog barking,{},validation", n + 1)).collect();
    fs::write(&manifest, "audio,text,score,split\n".to_owned() + &rows.join("\n") + "\n").unwrap();
    let run = run(dir.path(), &manifest);
    let text = fs::read_to_string(run.join("run.json")).unwrap();
    let lost = text.replace(root().join("models/mini").to_str().unwrap(), "/nowhere/to/begin");
    fs::write(run.join("run.json"), lost).unwrap();
    let page = report(&run, &[]);
    for text in ["no test split", "before training could not be judged", "/nowhere/to/begin", "0 known listeners"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("<audio ") && !page.contains("Tuned less start"));
    let mini = root().join("models/mini");
    assert!(report(&run, &["--start", mini.to_str().unwrap()]).contains("Tuned less start"));
    let (run, nowhere) = (run.to_str().unwrap(), dir.path().join("no.csv"));
    fails(&["report", run, "--split", "test"], &["split test"]);
    fails(&["report", run, "--data", nowhere.to_str().unwrap()], &["no.csv"]);
    // The manifest is gone: curves and options are still shown.
    fs::remove_file(&manifest).unwrap();
    let page = report(Path::new(run), &[]);
    assert!(page.contains("Nothing was judged") && page.contains("plain.csv") && page.contains("best 0.654"));
}
