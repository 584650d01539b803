//! The book is true to the program: its links lead somewhere, its commands and keys exist, and what it quotes clapd says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, CONTRIBUTING.md and the chapters, with their texts.
fn chapters() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    assert!(paths.len() >= 8, "{paths:?}");
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Blocks of a language, between fences.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// As GitHub makes them.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for (path, text) in chapters() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            let headings = || fs::read_to_string(&target).unwrap();
            let found =
                place.is_empty() || headings().lines().any(|line| line.starts_with('#') && anchor(line) == place);
            assert!(found, "{}: {link}: no such heading", path.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} links");
}

#[test]
fn commands_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut seen = BTreeSet::new();
    for (path, text) in chapters() {
        for line in blocks(&text, "sh").join("\n").replace("\\\n", " ").lines() {
            let code = line.split(" #").next().unwrap().trim_start_matches("sudo ");
            let mut words = code.split_whitespace().peekable();
            match (words.next(), words.next()) {
                (Some("clapd"), Some(command)) => {
                    // Its options are those of what is calibrated.
                    let below = words.next_if(|word| command == "calibrate" && !word.starts_with('-'));
                    let arguments = [command].into_iter().chain(below).chain(["--help"]);
                    let help = Command::new(env!("CARGO_BIN_EXE_clapd")).args(arguments).output().unwrap();
                    assert!(help.status.success(), "{}: {code}", path.display());
                    let help = String::from_utf8(help.stdout).unwrap();
                    for flag in words.filter(|word| word.starts_with('-') && word.len() > 1) {
                        assert!(help.contains(flag), "{}: {code}: {flag}", path.display());
                    }
                    seen.insert(command.to_owned());
                }
                (Some("make"), Some(target)) => assert!(makefile.contains(&format!("\n{target}:")), "{code}"),
                _ => {}
            }
        }
    }
    for command in ["setup", "run", "check", "devices", "score", "watch"] {
        assert!(seen.contains(command), "{command} is nowhere shown: {seen:?}");
    }
}

#[test]
fn configurations_have_only_keys_that_there_are() {
    let mut seen = 0;
    for (path, text) in chapters() {
        for block in blocks(&text, "toml") {
            let found = match clapd::config::parse(block, Path::new("book"), &clapd::config::Environment::default()) {
                Ok(_) => String::new(),
                Err(faults) => faults.to_string(),
            };
            // Snippets leave out tables, and name files that are not here.
            let allowed = ["is missing", "cannot be opened", "No such file", "makes none"];
            let faults: Vec<_> =
                found.lines().filter(|line| !allowed.iter().any(|words| line.contains(words))).collect();
            assert_eq!(faults, Vec::<&str>::new(), "{}:\n{block}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} snippets");
}

/// The sources of the program and of its library, with strings as they are printed but for what stands between braces.
fn sources() -> String {
    fn collect(folder: &Path, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs") {
                into.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    ["src", "crates/clapd-core/src"].iter().for_each(|folder| collect(&root().join(folder), &mut text));
    let lines: Vec<_> = text.split("\\\n").collect();
    let joined = lines.iter().enumerate().map(|(index, line)| if index == 0 { line } else { line.trim_start() });
    joined.collect::<String>().replace("\\\"", "\"")
}

#[test]
fn what_troubleshooting_quotes_is_said() {
    /// What others say, and what is typed.
    const OTHERS: [&str; 9] = [
        "Permission denied",
        "Connection refused",
        "TLS: I/O: invalid peer certificate",
        "systemctl status",
        "clapd devices",
        "mqtt-password",
        "[mqtt]",
        "mqtt: no connection to",
        "mqtt: the broker refuses",
    ];
    let sources = sources();
    let text = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| you see"));
    let mut seen = 0;
    for row in rows {
        let symptom = row.split(" | ").next().unwrap();
        for quoted in symptom.split('`').skip(1).step_by(2) {
            for part in quoted.split('…').map(str::trim).filter(|part| part.len() > 3) {
                let part = part.trim_start_matches(": ").trim_end_matches([';', ':']);
                assert!(sources.contains(part) || OTHERS.contains(&part), "clapd does not say {part:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "only {seen} quotations");
}
