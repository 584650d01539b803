//! A private PulseAudio for tests: own socket, own runtime directory, a null sink whose monitor is the microphone `mic`,
//! reached through ALSA's pulse plugin by `ALSA_CONFIG_PATH`. It touches no sound server of the user's.
#![allow(dead_code)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The device's name for clapd.
pub const DEVICE: &str = "alsa:mic";
/// A null sink's rate here.
pub const RATE: u32 = 48_000;
/// Long enough for a loaded machine; a server starts in a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped.
pub struct SoundServer {
    dir: tempfile::TempDir,
    server: Option<Child>,
    player: Option<Child>,
}

impl SoundServer {
    /// Starts a server. `shm`: whether clients and server share memory; a server's death looks different to them then.
    pub fn start(shm: bool) -> Self {
        require("pulseaudio");
        require("paplay");
        let dir = tempfile::Builder::new().prefix("clapd-sound").tempdir().unwrap();
        let mut it = Self { dir, server: None, player: None };
        let switch = if shm { "yes" } else { "no" };
        it.write("client.conf", &format!("autospawn = no\nenable-shm = {switch}\nenable-memfd = {switch}\n"));
        let socket = it.socket();
        it.write(
            "pulse.pa",
            &format!(
                "load-module module-native-protocol-unix auth-anonymous=1 auth-cookie-enabled=0 socket={}\n\
                 load-module module-null-sink sink_name=mic rate={RATE} channels=2\n\
                 set-default-source mic.monitor\nset-default-sink mic\n",
                socket.display()
            ),
        );
        it.write(
            "asound.conf",
            &format!(
                "</usr/share/alsa/alsa.conf>\n\
                 pcm.mic {{ type pulse server \"unix:{0}\" device \"mic.monitor\" hint {{ show on description \"test mic\" }} }}\n\
                 pcm.!default {{ type pulse server \"unix:{0}\" device \"mic.monitor\" }}\n",
                socket.display()
            ),
        );
        it.restart();
        it
    }

    /// The environment in which a process sees the microphone. Must be set before the process touches ALSA.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let path = self.dir.path();
        vec![
            ("ALSA_CONFIG_PATH", path.join("asound.conf")),
            ("PULSE_CLIENTCONFIG", path.join("client.conf")),
            ("PULSE_RUNTIME_PATH", path.join("run")),
            ("XDG_RUNTIME_DIR", path.join("run")),
            ("HOME", path.to_owned()),
        ]
    }

    /// The environment in which a process reaches the server as a user's programs do, by ALSA's own configuration.
    pub fn client_environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut environment = self.environment();
        environment.retain(|(name, _)| *name != "ALSA_CONFIG_PATH");
        environment.push(("PULSE_SERVER", format!("unix:{}", self.socket().display()).into()));
        environment
    }

    /// Kills the server as a crash would (SIGKILL), and the player with it.
    pub fn kill(&mut self) {
        for mut child in self.player.take().into_iter().chain(self.server.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    /// Stops the server in its tracks (SIGSTOP), or lets it go on: clients can connect, and wait for ever.
    pub fn freeze(&self, frozen: bool) {
        let server = self.server.as_ref().unwrap().id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &server]).status().unwrap().success());
    }

    /// Starts the server (again) and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        std::fs::create_dir_all(self.dir.path().join("run")).unwrap();
        let script = self.dir.path().join("pulse.pa");
        let log = std::fs::File::create(self.dir.path().join("server.log")).unwrap();
        let server = Command::new("pulseaudio")
            .args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "-F"])
            .arg(&script)
            .envs(self.environment())
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        let until = std::time::Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
            assert!(std::time::Instant::now() < until, "the sound server does not come up:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Plays a wav file into the microphone, in the background; whatever played before stops.
    pub fn play(&mut self, wav: &Path) {
        self.stop_playing();
        let player = Command::new("paplay")
            .arg(format!("--server=unix:{}", self.socket().display()))
            .arg("--device=mic")
            .arg(wav)
            .envs(self.environment())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.player = Some(player);
    }

    /// Ends what plays; the microphone then hears zeros.
    pub fn stop_playing(&mut self) {
        if let Some(mut player) = self.player.take() {
            let _ = player.kill();
            let _ = player.wait();
        }
    }

    /// Tells the server something by pactl.
    pub fn control(&self, arguments: &[&str]) {
        let mut command = Command::new("pactl");
        command.arg(format!("--server=unix:{}", self.socket().display())).args(arguments).envs(self.environment());
        assert!(command.stdout(Stdio::null()).status().unwrap().success(), "pactl {arguments:?}");
    }

    /// A directory of this server's own, for the test's files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::File::create(self.dir.path().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn require(program: &str) {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(found, "{program} is not installed: `make test` installs it (package pulseaudio, pulseaudio-utils)");
}
