//! Servers of streams: a camera's (GStreamer's RTSP server), and Icecast with ffmpeg as its source.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::broker::free_port;

/// The tone that all of them send.
pub const TONE_HZ: f64 = 441.0;
pub const TONE_PEAK: f64 = 0.5;
/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A camera; killed when dropped.
pub struct Camera {
    pub port: u16,
    process: Child,
}

impl Camera {
    pub fn start(encoding: &str) -> Self {
        Self::start_at(free_port(), encoding, &[])
    }

    /// With a user and a password, where there are two words.
    pub fn start_at(port: u16, encoding: &str, login: &[&str]) -> Self {
        // Debian's own Python: another one does not find its modules.
        let mut process = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/support/rtsp_server.py"))
            .args([&port.to_string(), encoding])
            .args(login)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("is piped")).read_line(&mut line).expect("is read");
        assert_eq!(
            line.trim(),
            "ready",
            "packages: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-libav"
        );
        Self { port, process }
    }

    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/sound", self.port)
    }

    /// Sends nothing any more while all sessions stay, or goes on.
    pub fn stall(&mut self, stalled: bool) {
        let word = if stalled { "stall" } else { "go" };
        writeln!(self.process.stdin.as_mut().expect("is piped"), "{word}").expect("the server runs");
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Icecast; killed when dropped, with what feeds it.
pub struct Icecast {
    pub port: u16,
    folder: tempfile::TempDir,
    process: Child,
    feeder: Option<Child>,
}

impl Icecast {
    pub fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        // As root it becomes somebody who may write to its folder.
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let owner = if is_root { "<changeowner><user>nobody</user><group>nogroup</group></changeowner>" } else { "" };
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("is ours");
        let config = format!(
            "<icecast><limits><clients>20</clients><sources>4</sources><burst-size>65536</burst-size></limits>\
             <authentication><source-password>feed</source-password><admin-user>admin</admin-user><admin-password>x</admin-password>\
             </authentication><hostname>localhost</hostname><listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address>\
             </listen-socket><paths><basedir>/usr/share/icecast2</basedir><logdir>{0}</logdir><webroot>/usr/share/icecast2/web</webroot>\
             <adminroot>/usr/share/icecast2/admin</adminroot></paths><logging><accesslog>access</accesslog><errorlog>error</errorlog>\
             </logging><security><chroot>0</chroot>{owner}</security></icecast>",
            folder.path().display()
        );
        fs::write(folder.path().join("icecast.xml"), config).expect("a file");
        let process = Command::new("/usr/bin/icecast2")
            .arg("-c")
            .arg(folder.path().join("icecast.xml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("packages: icecast2");
        let it = Self { port, folder, process, feeder: None };
        wait_until("Icecast listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        it
    }

    /// Feeds the mount from now on: ffmpeg's encoder, content type and format, and the tone's rate.
    pub fn feed(&mut self, mount: &str, rate: u32, encoding: &[&str]) {
        self.starve();
        let tone = format!("aevalsrc=0.5*sin(2*PI*{TONE_HZ}*t):s={rate}");
        let url = format!("icecast://source:feed@127.0.0.1:{}/{mount}", self.port);
        let feeder = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi", "-i", &tone])
            .args(encoding)
            .arg(url)
            .stdin(Stdio::null())
            .spawn()
            .expect("packages: ffmpeg");
        self.feeder = Some(feeder);
        let mount = format!("GET /{mount} HTTP/1.0\r\n\r\n");
        let port = self.port;
        wait_until("the mount is fed", || {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
            let mut line = String::new();
            stream.write_all(mount.as_bytes()).is_ok()
                && BufReader::new(stream).read_line(&mut line).is_ok()
                && line.contains("200")
        });
    }

    /// The source goes.
    pub fn starve(&mut self) {
        if let Some(mut feeder) = self.feeder.take() {
            let _ = feeder.kill();
            let _ = feeder.wait();
        }
    }

    /// The source hangs, or goes on.
    pub fn freeze(&self, frozen: bool) {
        let feeder = self.feeder.as_ref().expect("is fed").id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &feeder]).status().expect("kill runs").success());
    }

    pub fn url(&self, mount: &str) -> String {
        format!("http://127.0.0.1:{}/{mount}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Icecast {
    fn drop(&mut self) {
        self.starve();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}
