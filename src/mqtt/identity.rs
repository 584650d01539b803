//! Who this installation of clapd is, and under which names it has announced itself.
//!
//! `identity.json` in the state folder has a random id of the installation, and where it has left retained messages: at which
//! broker, under which node id and discovery prefix, of which sources and prompts. It is written before anything is
//! announced, so that whoever changes `node.id`, also while clapd is off, has the old one removed at the broker
//! (`departures`). A name is struck out once the broker has acknowledged that.
//!
//! Without a state folder, or with one that cannot be written, all of it ends with the process.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, folder_of, hexadecimal, write_atomically};
use serde::{Deserialize, Serialize};

use crate::config::Broker;

const FILE: &str = "identity.json";
/// What somebody listens for is nobody else's business.
const PRIVATE_FOLDER: u32 = 0o700;
/// Former names that wait for their broker. Each is a change of `node.id`, of the discovery prefix or of the broker's address
/// that the old broker has not seen: nobody makes more of them, and the file stays small enough to be written in one go.
const MAX_FORMER: usize = 16;
/// As many names, each with a thousand prompts whose ids have 64 letters, are 1.2 MB.
const MAX_BYTES: u64 = 2 << 20;

/// A name under which retained messages may lie at a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Presence {
    /// Its address, as `host:port`.
    pub(super) broker: String,
    pub(super) node: String,
    /// Where devices were announced to Home Assistant; none: nowhere.
    pub(super) prefix: Option<String>,
    pub(super) sources: Vec<String>,
    /// Ids of prompts, at each of the sources.
    pub(super) prompts: Vec<String>,
}

impl Presence {
    /// Whether it is this name, whatever is listened to.
    fn is_named_as(&self, other: &Self) -> bool {
        (&self.broker, &self.node, &self.prefix) == (&other.broker, &other.node, &other.prefix)
    }

    /// Whether nothing of it can lie at the broker that `current` does not look after.
    fn is_covered_by(&self, current: &Self) -> bool {
        (&self.broker, &self.node) == (&current.broker, &current.node)
            && (self.prefix.is_none() || self.prefix == current.prefix)
    }
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct IdentityFile {
    instance: String,
    current: Option<Presence>,
    former: Vec<Presence>,
}

/// Who we are, and were.
#[derive(Debug)]
pub struct Identity {
    instance: String,
    current: Presence,
    /// The oldest first.
    former: Vec<Presence>,
    writer: Writer,
}

impl Identity {
    /// Reads who we are from the `state` folder, and writes there under which name we announce ourselves from now on: as
    /// `node` at this `broker`, with these ids of sources and prompts. Waits for the disk. A file that is at fault, or that
    /// cannot be written, is logged.
    pub fn open(
        state: Option<&Path>,
        broker: &Broker,
        node: &str,
        sources: impl IntoIterator<Item = String>,
        prompts: impl IntoIterator<Item = String>,
    ) -> Self {
        let path = state.map(|state| state.join(FILE));
        let current = Presence {
            broker: format!("{}:{}", broker.host, broker.port),
            node: node.into(),
            prefix: broker.discovery_prefix.clone(),
            sources: sources.into_iter().collect(),
            prompts: prompts.into_iter().collect(),
        };
        let stored = path.as_deref().and_then(load);
        let is_new = stored.as_ref().is_none_or(|stored| stored.current.as_ref() != Some(&current));
        let (instance, before, former) = match stored {
            Some(IdentityFile { instance, current, former }) => (instance, current, former),
            None => (random_id(), None, Vec::new()),
        };
        let former = former_names(former.into_iter().chain(before), &current);
        let identity = Self { instance, current, former, writer: Writer::new(path) };
        if is_new {
            identity.writer.write_now(identity.bytes());
        }
        identity
    }

    /// The random id of this installation.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn node(&self) -> &str {
        &self.current.node
    }

    /// Former names at the broker that we have now.
    pub(super) fn former_here(&self) -> impl Iterator<Item = &Presence> {
        self.former.iter().filter(|presence| presence.broker == self.current.broker)
    }

    /// Other sources and prompts are announced from now on. Written by a thread of its own.
    pub(super) fn set_announced(&mut self, sources: &[String], prompts: impl Iterator<Item = String>) {
        let prompts: Vec<String> = prompts.collect();
        if self.current.sources != sources || self.current.prompts != prompts {
            (self.current.sources, self.current.prompts) = (sources.to_vec(), prompts);
            self.writer.write(self.bytes());
        }
    }

    /// Nothing of this name is at the broker any more. Written by a thread of its own; where that does not get to it, the next
    /// run takes leave of the name once more.
    pub(super) fn remove(&mut self, presence: &Presence) {
        self.former.retain(|former| !former.is_named_as(presence));
        self.writer.write(self.bytes());
    }

    fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        let (instance, current, former) = (self.instance.clone(), Some(self.current.clone()), self.former.clone());
        serde_json::to_vec_pretty(&IdentityFile { instance, current, former })
    }
}

/// Of the names of before, the oldest first, those that are to be taken leave of.
fn former_names(before: impl Iterator<Item = Presence>, current: &Presence) -> Vec<Presence> {
    let mut former: Vec<Presence> = Vec::new();
    for presence in before.filter(|presence| !presence.is_covered_by(current)) {
        former.retain(|known| !known.is_named_as(&presence));
        former.push(presence);
    }
    let excess = former.len().saturating_sub(MAX_FORMER);
    for Presence { broker, node, .. } in former.drain(..excess) {
        log::warn!(
            "mqtt: more than {MAX_FORMER} former names wait for their brokers: what is retained of the node {node} at {broker} \
             is left there; remove it by hand"
        );
    }
    former
}

/// 128 random bits, which no two installations share.
fn random_id() -> String {
    hexadecimal(&fastrand::u128(..).to_be_bytes())
}

fn load(path: &Path) -> Option<IdentityFile> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let consequence = "this installation gets a new id, and former names of this node are not removed at the broker";
    match read().map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(file)) => return Some(file),
        Ok(Err(error)) => log::warn!("{}: is at fault ({error}): {consequence}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::warn!("{}: {error}: {consequence}", path.display()),
    }
    None
}

/// Writes the file, one write at a time.
#[derive(Debug)]
struct Writer {
    path: Option<PathBuf>,
    pending: Arc<Mutex<PendingWrite>>,
}

/// The newest content, until a thread has taken it, and whether there is such a thread.
#[derive(Debug, Default)]
struct PendingWrite {
    bytes: Option<Vec<u8>>,
    is_writing: bool,
}

impl Writer {
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, pending: Arc::default() }
    }

    fn write_now(&self, bytes: serde_json::Result<Vec<u8>>) {
        if let Some(path) = &self.path {
            report(path, bytes.context("cannot be written as JSON").and_then(|bytes| store(path, &bytes)));
        }
    }

    /// Has a thread write it. One that hangs has no other beside it.
    fn write(&self, bytes: serde_json::Result<Vec<u8>>) {
        let Some(path) = self.path.clone() else { return };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return report(&path, Err(error.into())),
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.bytes = Some(bytes);
        if pending.is_writing {
            return;
        }
        let shared = Arc::clone(&self.pending);
        let run = {
            let path = path.clone();
            move || {
                while let Some(bytes) = next_write(&shared) {
                    report(&path, store(&path, &bytes));
                }
            }
        };
        match thread::Builder::new().name("identity".into()).spawn(run) {
            Ok(_) => pending.is_writing = true,
            Err(error) => report(&path, Err(error.into())),
        }
    }
}

/// What is to be written next; with none, the thread ends.
fn next_write(pending: &Mutex<PendingWrite>) -> Option<Vec<u8>> {
    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = pending.bytes.take();
    pending.is_writing = bytes.is_some();
    bytes
}

fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))?;
    write_atomically(path, bytes, Access::Private, Durability::Synced)
}

fn report(path: &Path, written: Result<()>) {
    if let Err(error) = written {
        log::warn!(
            "{}: {error:#}: if node.id is changed before this is written, what is retained under the old one stays at the broker",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    fn broker(port: u16, prefix: Option<&str>) -> Broker {
        Broker {
            host: "hub".into(),
            port,
            user: None,
            password: None,
            tls: None,
            discovery_prefix: prefix.map(Into::into),
        }
    }

    fn open(folder: &Path, broker: &Broker, node: &str) -> Identity {
        Identity::open(Some(folder), broker, node, ["mic".into()], ["dog".into()])
    }

    fn names(identity: &Identity) -> Vec<String> {
        identity
            .former
            .iter()
            .map(|it| format!("{} {} {}", it.broker, it.node, it.prefix.as_deref().unwrap_or("-")))
            .collect()
    }

    #[test]
    fn former_names_wait_until_they_are_struck_out() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("new");
        let here = broker(1883, Some("ha"));
        let first = open(&state, &here, "attic");
        assert_eq!((names(&first).len(), first.instance().len()), (0, 32));
        let second = open(&state, &here, "loft");
        assert_eq!((second.instance(), names(&second)), (first.instance(), vec!["hub:1883 attic ha".into()]));
        assert_eq!(names(&open(&state, &here, "roof")), ["hub:1883 attic ha", "hub:1883 loft ha"]);
        // A name that is in use again is no former one.
        let mut again = open(&state, &here, "attic");
        assert_eq!(names(&again), ["hub:1883 loft ha", "hub:1883 roof ha"]);
        let loft = again.former[0].clone();
        again.remove(&loft);
        let deadline = Instant::now() + Duration::from_secs(60);
        while names(&open(&state, &here, "attic")) != ["hub:1883 roof ha"] {
            assert!(Instant::now() < deadline, "it was not written");
            thread::yield_now();
        }
    }

    #[test]
    fn another_prefix_is_another_name_and_another_broker_waits_for_its_own() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &broker(1883, Some("ha")), "attic");
        let identity = open(folder.path(), &broker(1883, Some("home")), "attic");
        assert_eq!(names(&identity), ["hub:1883 attic ha"]);
        let identity = open(folder.path(), &broker(1884, None), "attic");
        assert_eq!((names(&identity).len(), identity.former_here().count()), (2, 0));
        // Without a prefix there was nothing but what a prefix has, too.
        assert_eq!(names(&open(folder.path(), &broker(1884, Some("ha")), "attic")).len(), 2);
        assert_eq!(open(folder.path(), &broker(1883, None), "attic").former_here().count(), 2);
    }

    #[test]
    fn former_names_have_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..2 * MAX_FORMER {
            open(folder.path(), &broker(1883, None), &n.to_string());
        }
        let identity = open(folder.path(), &broker(1883, None), "last");
        assert_eq!((identity.former.len(), identity.former[0].node.as_str()), (MAX_FORMER, "16"));
    }

    #[test]
    fn a_file_at_fault_stops_nobody_and_no_folder_is_an_identity_of_this_process() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        let identity = open(folder.path(), &broker(1883, None), "attic");
        assert_eq!(identity.instance().len(), 32);
        assert_eq!(open(folder.path(), &broker(1883, None), "attic").instance(), identity.instance(), "it was mended");
        let nobody = Identity::open(None, &broker(1883, None), "attic", [], []);
        assert_ne!(nobody.instance(), identity.instance());
    }

    #[test]
    fn the_file_is_frozen() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"instance":"ab","current":{"broker":"hub:1883","node":"attic","prefix":"ha","sources":["mic"],"prompts":["dog"]},"former":[{"broker":"hub:1883","node":"old","prefix":null,"sources":[],"prompts":[]}]}"#;
        fs::write(folder.path().join(FILE), text).unwrap();
        let mut identity = open(folder.path(), &broker(1883, Some("ha")), "attic");
        assert_eq!((identity.instance(), names(&identity)), ("ab", vec!["hub:1883 old -".to_owned()]));
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE)).unwrap(),
            text,
            "nothing is written where nothing changed"
        );
        identity.set_announced(&["mic".into()], ["dog".to_owned()].into_iter());
        let written: IdentityFile = serde_json::from_slice(&identity.bytes().unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&written).unwrap(), text);
    }
}
