//! A real mosquitto for a test, somebody who listens to it, and a link to it that can be cut.

#![allow(dead_code)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up: far longer than it does, for a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port of this machine that nobody uses.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn spawn(command: &mut Command) -> Child {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; `make test` installs mosquitto and its clients"))
}

/// A broker on a port of its own; it ends with this value.
pub struct Broker {
    pub port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Broker {
    pub fn start() -> Self {
        Self::start_with(|_| "allow_anonymous true".into())
    }

    /// A broker that lets in `user` with `password` only, and, to watch, `watcher` without one.
    pub fn start_with_password(user: &str, password: &str) -> Self {
        Self::start_with(|folder| {
            let users = folder.join("users");
            fs::write(&users, "").expect("a file");
            for (user, password) in [(user, password), ("watcher", "watcher")] {
                let add = ["-b", &users.display().to_string(), user, password];
                assert!(spawn(Command::new("mosquitto_passwd").args(add)).wait().expect("ends").success());
            }
            format!("password_file {}", users.display())
        })
    }

    /// A broker with more lines of configuration, which may name files in the folder that they are told.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let mut broker = Self { port: free_port(), folder: tempfile::tempdir().expect("a folder"), process: None };
        let more = more(broker.folder.path());
        broker.configure(&more);
        broker.resume();
        broker
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn configure(&self, access: &str) {
        let folder = self.folder.path().display();
        // As root, mosquitto would become a user that cannot read the folder. Sessions are kept over a restart, so
        // that a watcher misses nothing.
        let text = format!(
            "listener {} 127.0.0.1\nuser root\npersistence true\npersistence_location {folder}/\nmax_queued_messages 0\n{access}\n",
            self.port
        );
        fs::write(self.folder.path().join("mosquitto.conf"), text).expect("a file");
    }

    /// Starts it again, on the same port.
    pub fn resume(&mut self) {
        let config = self.folder.path().join("mosquitto.conf");
        let log = fs::File::create(self.folder.path().join("log")).expect("a file");
        self.process = Some(spawn(Command::new("mosquitto").arg("-c").arg(config).stdout(Stdio::null()).stderr(log)));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log"));
            assert!(Instant::now() < deadline, "mosquitto does not start: {:?}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let parse_event = Command::new("kill").arg(process.id().to_string()).status();
            assert!(parse_event.expect("kill runs").success());
            process.wait().expect("ends");
        }
    }

    /// Ends it as the out-of-memory killer would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("is there");
            process.wait().expect("ends");
        }
    }

    /// Has the broker keep a payload, as an earlier daemon would have.
    pub fn publish_retained(&self, topic: &str, payload: &str) {
        self.publish_retained_bytes(topic, payload.as_bytes());
    }

    /// Publishes what may be any bytes, not retained.
    pub fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) {
        // mosquitto_pub reads no message of nothing.
        let how = if payload.as_ref().is_empty() { "-n" } else { "-s" };
        self.pipe(&["-q", "1", how, "-t", topic], payload.as_ref());
    }

    /// The same, retained.
    pub fn publish_retained_bytes(&self, topic: &str, payload: &[u8]) {
        let how = if payload.is_empty() { "-n" } else { "-s" };
        self.pipe(&["-q", "1", "-r", how, "-t", topic], payload);
    }

    /// Publishes every line as a message of its own, as fast as it can.
    pub fn publish_lines(&self, topic: &str, lines: &str) {
        self.pipe(&["-l", "-t", topic], lines.as_bytes());
    }

    fn pipe(&self, arguments: &[&str], input: &[u8]) {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command.args(["-p", &port, "-u", "watcher", "-P", "watcher"]).args(arguments).stdin(Stdio::piped());
        let mut process = spawn(&mut command);
        process.stdin.take().expect("is piped").write_all(input).expect("is read");
        assert!(process.wait().expect("ends").success());
    }

    /// Somebody who hears the same of a broker that keeps nothing or takes QoS 0 only, through this port of it.
    pub fn watch_plainly(&self, port: u16) -> Watcher {
        let port = port.to_string();
        let mut process = spawn(
            Command::new("mosquitto_sub")
                .args(["-p", &port, "-t", "clapd/#", "-t", "homeassistant/#", "-t", "ready", "-F", "%r %q %t %p"])
                .stdout(Stdio::piped()),
        );
        let lines = lines_of(&mut process);
        let mut watcher = Watcher { process, lines, retained: Vec::new(), received: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        while !watcher.has_received("ready", Duration::from_millis(100)) {
            assert!(Instant::now() < deadline, "nobody hears of anything");
            let mut command = Command::new("mosquitto_pub");
            let sent = spawn(command.args(["-p", &port, "-t", "ready", "-m", "now"])).wait();
            assert!(sent.expect("ends").success());
        }
        watcher.received.clear();
        watcher
    }

    /// Somebody who hears all of clapd's topics, and of Home Assistant's, from now on.
    pub fn watch(&self) -> Watcher {
        self.publish_retained("ready", "now");
        let port = self.port.to_string();
        let mut process = spawn(
            Command::new("mosquitto_sub")
                .args([
                    "-p",
                    &port,
                    "-u",
                    "watcher",
                    "-P",
                    "watcher",
                    "-i",
                    &format!("watcher-{}", free_port()),
                    "-c",
                    "-q",
                    "1",
                ])
                .args(["-t", "clapd/#", "-t", "homeassistant/#", "-t", "ready", "-F", "%r %q %t %p"])
                .stdout(Stdio::piped()),
        );
        let lines = lines_of(&mut process);
        let mut watcher = Watcher { process, lines, retained: Vec::new(), received: Vec::new() };
        // Subscribed to last, and so told last of what the broker has retained.
        watcher.wait_for("1 1 ready now");
        watcher.retained = std::mem::take(&mut watcher.received);
        watcher
    }
}

fn lines_of(process: &mut Child) -> Receiver<String> {
    let stdout = process.stdout.take().expect("is piped");
    let (sender, lines) = channel();
    thread::spawn(move || {
        // Some payloads are no text.
        let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).try_for_each(|line| sender.send(line))
    });
    lines
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// mosquitto_sub; every line is `<retained: 1|0> <QoS> <topic> <payload>`.
pub struct Watcher {
    process: Child,
    lines: Receiver<String>,
    /// What the broker told at once.
    pub retained: Vec<String>,
    /// What it told since.
    pub received: Vec<String>,
}

impl Watcher {
    /// Waits for a message that begins like this, and returns it.
    #[track_caller]
    pub fn wait_for(&mut self, start: &str) -> String {
        self.wait_for_with(start, "")
    }

    /// Waits for a message that begins like this and holds that, and returns it.
    #[track_caller]
    pub fn wait_for_with(&mut self, start: &str, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.received.push(line.clone());
                    if line.starts_with(start) && line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("{start:?} ... {part:?} was not heard; heard was {:#?}", self.received),
            }
        }
    }

    /// Whether a message on this topic comes within `patience`.
    pub fn has_received(&mut self, topic: &str, patience: Duration) -> bool {
        while let Ok(line) = self.lines.recv_timeout(patience) {
            let is_it = line[4..].starts_with(topic);
            self.received.push(line);
            if is_it {
                return true;
            }
        }
        false
    }

    /// The payloads heard so far on a topic.
    pub fn payloads(&self, topic: &str) -> Vec<&str> {
        self.received.iter().filter_map(|line| line[4..].strip_prefix(topic)?.strip_prefix(' ')).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A link to the broker.
pub struct Link;

impl Link {
    /// Carries everything from `port` to the broker, from now on.
    pub fn open(port: u16, broker: &Broker) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        Self::serve(listener, broker.port);
    }

    /// The first to connect is greeted as by a broker, which then acknowledges nothing and is gone once `word` was sent to it.
    /// Everybody after is carried to the broker.
    pub fn swallow_first(broker: &Broker, word: &'static str) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().map_or(0, |address: SocketAddr| address.port());
        let target = broker.port;
        thread::spawn(move || {
            let (mut guest, _) = listener.accept().expect("somebody comes");
            // CONNACK: accepted, no session, no properties.
            guest.write_all(&[0x20, 3, 0, 0, 0]).expect("is there");
            let mut seen = Vec::new();
            let mut bytes = [0; 4096];
            while !seen.windows(word.len()).any(|window| window == word.as_bytes()) {
                let count = guest.read(&mut bytes).expect("is there");
                seen.extend_from_slice(&bytes[..count]);
            }
            drop(guest);
            Self::serve(listener, target);
        });
        port
    }

    /// A broker that knows MQTT 3.1.1 only, and answers everything else as that version says.
    pub fn old(broker: &Broker) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().map_or(0, |address: SocketAddr| address.port());
        let target = broker.port;
        thread::spawn(move || {
            for mut guest in listener.incoming().map_while(Result::ok) {
                // CONNECT: kind, length, "MQTT" with its length, version.
                let mut head = [0; 9];
                // Somebody who only looks whether we are there says nothing.
                if !matches!(guest.peek(&mut head), Ok(9)) {
                    continue;
                }
                if head[8] == 4 {
                    Self::join(guest, target);
                } else {
                    guest.read_exact(&mut head).and_then(|()| guest.write_all(&[0x20, 2, 0, 1])).expect("is there");
                }
            }
        });
        port
    }

    /// A broker that lets everybody in and says at once, in MQTT 5, that somebody else has come with the same name.
    pub fn taken_over() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().map_or(0, |address: SocketAddr| address.port());
        thread::spawn(move || {
            for mut guest in listener.incoming().map_while(Result::ok) {
                let mut bytes = [0; 4096];
                guest
                    .read(&mut bytes)
                    .and_then(|_| guest.write_all(&[0x20, 3, 0, 0, 0, 0xE0, 2, 0x8E, 0]))
                    .expect("is there");
                // Until it has gone: what was said is lost where a socket is closed that has unread bytes.
                while guest.read(&mut bytes).is_ok_and(|count| count > 0) {}
            }
        });
        port
    }

    fn join(guest: TcpStream, target: u16) {
        let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        let (Ok(guest_too), Ok(broker_too)) = (guest.try_clone(), broker.try_clone()) else { return };
        thread::spawn(move || Self::carry(guest, broker));
        thread::spawn(move || Self::carry(broker_too, guest_too));
    }

    fn serve(listener: TcpListener, target: u16) {
        thread::spawn(move || {
            listener.incoming().map_while(Result::ok).for_each(|guest| Self::join(guest, target));
        });
    }

    fn carry(mut from: TcpStream, mut to: TcpStream) {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}
