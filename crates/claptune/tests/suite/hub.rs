//! `claptune import owner/name`, against a hub of our own on this machine that answers as Hugging Face's does: a list of files,
//! then each file by range, the large one at another address. Nothing here reaches further than 127.0.0.1.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clapd_core::files::sha256_hex;
use clapd_core::model::Bundle;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/clap").join(name)
}

type Files = BTreeMap<String, Vec<u8>>;

/// A hub: repositories, and what it does wrong.
#[derive(Default)]
struct Content {
    repositories: BTreeMap<String, Files>,
    /// Whether a token is asked for.
    private: bool,
    /// The next transfer of more than this many bytes ends after them.
    cut: Option<usize>,
    /// Whether the large files' names are another file's hash.
    wrong_hash: bool,
    /// Paths asked for, with their ranges.
    asked: Vec<(String, String)>,
}

struct Server {
    address: String,
    content: Arc<Mutex<Content>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn new(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (content, stop) = (Arc::new(Mutex::new(content)), Arc::new(AtomicBool::new(false)));
        let (shared, stopped, own) = (content.clone(), stop.clone(), address.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // One request a connection: a client that went away is no fault of the test.
                answer(stream.unwrap(), &mut shared.lock().unwrap(), &own).ok();
            }
        });
        Self { address, content, stop, thread: Some(thread) }
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.content.lock().unwrap().asked)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address.trim_start_matches("http://")).ok();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(mut stream: TcpStream, content: &mut Content, address: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap()?;
    let headers: BTreeMap<String, String> = lines
        .map_while(|line| line.ok().filter(|l| !l.is_empty()))
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_string())))
        .collect();
    let path = request.split(' ').nth(1).unwrap().to_string();
    let range = headers.get("range").cloned().unwrap_or_default();
    content.asked.push((path.clone(), range.clone()));
    if content.private && headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return respond(&mut stream, "401 Unauthorized", &[], b"");
    }
    if let Some(id) = path.strip_prefix("/api/models/").and_then(|p| p.strip_suffix("/revision/main")) {
        let Some(files) = content.repositories.get(id) else { return respond(&mut stream, "404 Not Found", &[], b"") };
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let info = serde_json::json!({"sha": COMMIT, "siblings": siblings, "private": content.private});
        return respond(&mut stream, "200 OK", &[], info.to_string().as_bytes());
    }
    let (large, path) = match path.strip_prefix("/large") {
        Some(rest) => (true, rest.to_string()),
        None => (false, path),
    };
    let found = path.trim_start_matches('/').split_once(&format!("/resolve/{COMMIT}/"));
    let file = found.and_then(|(id, file)| content.repositories.get(id)?.get(file));
    let Some(bytes) = file.cloned() else { return respond(&mut stream, "404 Not Found", &[], b"") };
    let mut hash = sha256_hex(&bytes);
    if content.wrong_hash {
        hash = sha256_hex(b"something else");
    }
    let commit = format!("x-repo-commit: {COMMIT}");
    if bytes.len() > 100_000 && !large {
        let place = format!("location: {address}/large{path}");
        return respond(&mut stream, "302 Found", &[commit, format!("x-linked-etag: \"{hash}\""), place], b"");
    }
    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse::<usize>().map_or(bytes.len(), |to| to + 1);
    let tag = format!("etag: \"{}\"", &hash[..40]);
    let part = format!("content-range: bytes {from}-{}/{}", to - 1, bytes.len());
    let body = &bytes[from..to];
    let cut = content.cut.filter(|cut| *cut < body.len());
    if cut.is_some() {
        content.cut = None;
    }
    let head = format!("content-length: {}", body.len());
    respond_with(&mut stream, "206 Partial Content", &[commit, tag, part, head], &body[..cut.unwrap_or(body.len())])
}

fn respond(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) -> std::io::Result<()> {
    let mut headers = headers.to_vec();
    headers.push(format!("content-length: {}", body.len()));
    respond_with(stream, status, &headers, body)
}

fn respond_with(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n{}\r\n\r\n", headers.join("\r\n"))?;
    stream.write_all(body)
}

/// The files of a golden folder, less those that `without` names.
fn files(folder: &str, without: &[&str]) -> Files {
    let entries = fs::read_dir(golden(folder)).unwrap().map(Result::unwrap);
    let named = entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()));
    named.filter(|(name, _)| !without.contains(&name.as_str())).collect()
}

/// Human-CLAP's way: weights in one repository, the processor in another, which also has weights that nobody needs.
fn two_repositories() -> Content {
    let model = files("fused", &["preprocessor_config.json"]);
    let processor = files("fused", &["tokenizer.json", "model.safetensors"]);
    let repositories = BTreeMap::from([("tester/human-clap".into(), model), ("laion/processor".into(), processor)]);
    Content { repositories, ..Content::default() }
}

/// A user's machine, with its cache.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn import(&self, hub: &str, token: Option<&str>, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claptune"));
        command.arg("import").args(words).arg("--out").arg(self.out());
        command.env("HF_HOME", self.folder.path().join("cache")).env("HF_ENDPOINT", hub);
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        token.map(|token| command.env("HF_TOKEN", token));
        command.output().unwrap()
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    message
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

const IDS: [&str; 3] = ["tester/human-clap", "--processor", "laion/processor"];

#[test]
fn an_id_is_all_a_user_types() {
    let (server, machine) = (Server::new(two_repositories()), Machine::new());
    server.content.lock().unwrap().private = true;
    // The large file breaks off in the middle.
    server.content.lock().unwrap().cut = Some(300_000);
    succeeded(&machine.import(&server.address, Some(TOKEN), &IDS));
    let asked = server.asked();
    let ranges: Vec<&str> = asked.iter().filter(|(p, _)| p.starts_with("/large/")).map(|(_, r)| r.as_str()).collect();
    assert_eq!(ranges, ["bytes=0-0", "bytes=0-", "bytes=0-0", "bytes=300000-"], "{asked:?}");
    assert!(!asked.iter().any(|(path, _)| path.contains("expected.json")), "{asked:?}");
    let bundle = Bundle::open(machine.out()).unwrap();
    let source = &bundle.manifest().source[0];
    assert_eq!((source.name.as_str(), source.version.as_str()), ("tester/human-clap", COMMIT));
    assert_eq!(source.sha256, sha256_hex(&fs::read(golden("fused").join("model.safetensors")).unwrap()));

    // Again: nothing but the question what is newest.
    succeeded(&machine.import(&server.address, Some(TOKEN), &IDS));
    let asked = server.asked();
    assert!(asked.len() == 2 && asked.iter().all(|(path, _)| path.starts_with("/api/")), "{asked:?}");

    // And without a hub.
    let address = server.address.clone();
    drop(server);
    fs::remove_dir_all(machine.out()).unwrap();
    assert!(succeeded(&machine.import(&address, None, &IDS)).contains("cache"));
    assert_eq!(Bundle::open(machine.out()).unwrap().manifest().source[0].version, COMMIT);
}

#[test]
fn a_hub_that_refuses_says_why() {
    let (server, machine) = (Server::new(two_repositories()), Machine::new());
    refused(&machine.import(&server.address, None, &["tester/human-clop"]), &["tester/human-clop", "404", "spelling"]);
    server.content.lock().unwrap().private = true;
    refused(&machine.import(&server.address, None, &IDS), &["tester/human-clap", "401", "HF_TOKEN is not set"]);
    refused(&machine.import(&server.address, Some("hf_wrong"), &IDS), &["401", "the token in HF_TOKEN"]);
    let address = server.address.clone();
    drop(server);
    refused(&machine.import(&address, None, &IDS), &["tester/human-clap", "no folder here", "connection"]);
    refused(&machine.import(&address, None, &["no/such/folder"]), &["no/such/folder", "owner/name"]);
    assert!(!machine.out().exists());
}

#[test]
fn a_file_that_is_not_what_the_hub_said_is_not_kept() {
    let (server, machine) = (Server::new(two_repositories()), Machine::new());
    server.content.lock().unwrap().wrong_hash = true;
    refused(&machine.import(&server.address, None, &IDS), &["model.safetensors", "damaged", "SHA-256"]);
    server.content.lock().unwrap().wrong_hash = false;
    succeeded(&machine.import(&server.address, None, &IDS));
}

#[test]
fn laions_files_are_offered_by_name() {
    let laion = Files::from([("fused.pt".into(), fs::read(golden("fused.pt")).unwrap()), ("README.md".into(), vec![])]);
    let mut content = two_repositories();
    content.repositories.insert("lukewys/laion_clap".into(), laion);
    let (server, machine) = (Server::new(content), Machine::new());
    refused(&machine.import(&server.address, None, &["lukewys/laion_clap"]), &["lukewys/laion_clap/fused.pt"]);
    let words = ["lukewys/laion_clap/fused.pt", "--processor", "laion/processor"];
    let output = machine.import(&server.address, None, &words);
    // This tiny text tower's heads are in config.json, which of a processor's repository is not fetched: RoBERTa's rule, 64
    // numbers a head, gives it one of 32.
    succeeded(&output);
    assert_eq!(Bundle::open(machine.out()).unwrap().manifest().source[0].version, COMMIT);
}
