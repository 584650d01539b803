//! Sources that others send: cameras, Icecast, programs on this computer, and servers that mean harm.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clapd::capture::{
    Credentials, ListenPlace, ListenSpec, Read, Source, SourceCounters, SourceKind, SourceSpec, SourceState,
    StreamSpec, StreamUrl, Transport,
};
use clapd::levels::Microphone;
use clapd_core::channel::Channel;
use clapd_core::level::Gain;

use crate::soak::{Measurement, judge};
use crate::support::stream_server::{Camera, Icecast, TONE_HZ, TONE_PEAK};

/// Until when a test waits for something that should happen: a limit against hanging, not a measurement.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was read of a source at once.
#[derive(Debug, Clone)]
struct Seen {
    rate: u32,
    lost: u64,
    len: usize,
    rms: f64,
    pitch: f64,
    at: f64,
    wall: f64,
    state: SourceState,
    ended: bool,
}

impl Seen {
    fn is_tone(&self) -> bool {
        self.len > 500 && (self.rms - TONE_PEAK / 2_f64.sqrt()).abs() < 0.05 && (self.pitch / TONE_HZ - 1.0).abs() < 0.1
    }
}

/// A source that is read on a thread of its own.
struct Listening {
    seen: Receiver<Seen>,
    counters: Arc<SourceCounters>,
    stop: Arc<AtomicBool>,
}

impl Listening {
    fn start(kind: SourceKind) -> Self {
        let (counters, stop) = (Arc::new(SourceCounters::default()), Arc::new(AtomicBool::new(false)));
        let spec = SourceSpec {
            id: "test".into(),
            kind,
            channel: Channel::Mix,
            gain: Gain::NONE,
            microphone: Microphone::default(),
        };
        let mut source = Source::open(&spec, Arc::clone(&counters)).expect("is opened");
        let (sender, seen) = channel();
        let (shared, stopped) = (Arc::clone(&counters), Arc::clone(&stop));
        thread::spawn(move || {
            let mut carried: Vec<f32> = Vec::new();
            while !stopped.load(Relaxed) {
                let read = source.read(Duration::from_millis(100)).expect("a live source does not fail");
                let mut now = Seen {
                    rate: 0,
                    lost: 0,
                    len: 0,
                    rms: 0.0,
                    pitch: 0.0,
                    at: 0.0,
                    wall: 0.0,
                    state: shared.state(),
                    ended: matches!(read, Read::End),
                };
                if let Read::Block { rate, samples, anchor } = read {
                    // Blocks of packets are short: pitch and level are those of the last fifth of a second.
                    if samples.lost > 0 || now.rate != rate {
                        now.rate = rate;
                    }
                    carried.extend_from_slice(samples.data);
                    let keep = (rate / 5) as usize;
                    carried.drain(..carried.len().saturating_sub(keep.max(1)));
                    let power = carried.iter().map(|s| f64::from(s * s)).sum::<f64>() / carried.len() as f64;
                    let rises = carried.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
                    now.lost = samples.lost;
                    now.len = carried.len();
                    now.rms = power.sqrt();
                    now.pitch = rises as f64 * f64::from(rate) / carried.len() as f64;
                    now.at = anchor.at.as_secs_f64();
                    now.wall = anchor.wall.duration_since(UNIX_EPOCH).expect("is now").as_secs_f64();
                }
                let ended = now.ended;
                if sender.send(now).is_err() || ended {
                    return;
                }
            }
        });
        Self { seen, counters, stop }
    }

    fn stream(url: &str) -> Self {
        Self::start(stream_kind(url, Transport::Tcp, None))
    }

    /// The first that fits, and all before it.
    fn wait_for(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> (Seen, Vec<Seen>) {
        let until = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        while let Ok(seen) = self.seen.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if fits(&seen) {
                return (seen, before);
            }
            before.push(seen);
        }
        panic!("no {what}; last {:?}", before.last());
    }

    fn wait_for_tone(&self) -> Seen {
        self.wait_for("tone", Seen::is_tone).0
    }

    fn wait_for_state(&self, state: SourceState) -> Seen {
        self.wait_for(state.name(), |seen| seen.state == state).0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn stream_kind(url: &str, transport: Transport, credentials: Option<Credentials>) -> SourceKind {
    let (url, _) = StreamUrl::parse(url).expect("a url");
    SourceKind::Stream(StreamSpec { url, credentials, transport })
}

/// A tone in 16 bits.
fn tone(rate: u32, seconds: f64) -> Vec<u8> {
    let samples = (0..(seconds * f64::from(rate)) as usize)
        .map(|n| (TONE_PEAK * (std::f64::consts::TAU * TONE_HZ * n as f64 / f64::from(rate)).sin() * 32_767.0) as i16);
    samples.flat_map(i16::to_le_bytes).collect()
}

#[test]
fn a_camera_is_heard_in_every_encoding_and_over_both_transports() {
    for (encoding, rate, transport) in [
        ("alaw", 8_000, Transport::Tcp),
        ("mulaw", 8_000, Transport::Udp),
        ("l16", 44_100, Transport::Tcp),
        ("l24", 48_000, Transport::Udp),
        ("aac", 16_000, Transport::Tcp),
        ("aac", 16_000, Transport::Udp),
        ("opus", 48_000, Transport::Tcp),
    ] {
        let camera = Camera::start(encoding);
        let listening = Listening::start(stream_kind(&camera.url(), transport, None));
        let first = listening.wait_for_tone();
        assert_eq!(first.rate, rate, "{encoding}");
        // Three seconds of the stream's clock on, the wall clock agrees and nothing was lost.
        let (later, between) = listening.wait_for("three seconds more", |seen| seen.at >= first.at + 3.0);
        let (sound, wall) = (later.at - first.at, later.wall - first.wall);
        assert!((sound - wall).abs() < 0.5, "{encoding}: {sound} s of sound in {wall} s");
        if transport == Transport::Tcp {
            assert_eq!(between.iter().map(|seen| seen.lost).sum::<u64>(), 0, "{encoding}");
        }
        assert_eq!(later.state, SourceState::Live);
    }
}

#[test]
fn a_camera_that_stalls_restarts_and_changes_its_format_is_heard_again() {
    let mut camera = Camera::start("aac");
    let (port, listening) = (camera.port, Listening::stream(&camera.url()));
    let before = listening.wait_for_tone();
    camera.stall(true);
    listening.wait_for_state(SourceState::Stalled);
    listening.wait_for_state(SourceState::Lost);
    camera.stall(false);
    let after = listening.wait_for_tone();
    // The time line went on through the outage, as the wall clock did; and what was lost is counted.
    let (sound, wall) = (after.at - before.at, after.wall - before.wall);
    assert!((sound - wall).abs() < 1.0 && sound > 8.0, "{sound} s on the time line, {wall} s on the wall");
    assert!(listening.counters.samples_lost.get() > 5 * 16_000 && listening.counters.reopens.get() > 0);

    drop(camera);
    listening.wait_for_state(SourceState::Lost);
    let _camera = Camera::start_at(port, "l16", &[]);
    let (changed, _) = listening.wait_for("tone at another rate", |seen| seen.is_tone() && seen.rate == 44_100);
    assert!(changed.wall > after.wall);
}

#[test]
fn a_camera_asks_for_a_password_and_one_without_sound_says_so() {
    let camera = Camera::start_at(crate::support::broker::free_port(), "alaw", &["me", "hunter2"]);
    let login = |password: &str| Some(Credentials { user: "me".into(), password: password.into() });
    let listening = Listening::start(stream_kind(&camera.url(), Transport::Tcp, login("hunter2")));
    listening.wait_for_tone();
    let refused = Listening::start(stream_kind(&camera.url(), Transport::Tcp, login("wrong")));
    refused.wait_for_state(SourceState::Lost);
    let silent = Camera::start("video");
    let listening = Listening::stream(&silent.url());
    listening.wait_for_state(SourceState::Lost);
}

/// Of every encoding that Icecast carries: how ffmpeg makes it, and the rate that comes.
const MOUNTS: [(&str, u32, &[&str]); 6] = [
    ("tone.ogg", 48_000, &["-c:a", "libvorbis", "-content_type", "application/ogg", "-f", "ogg"]),
    ("tone.mp3", 44_100, &["-c:a", "libmp3lame", "-b:a", "64k", "-content_type", "audio/mpeg", "-f", "mp3"]),
    ("tone.aac", 44_100, &["-c:a", "aac", "-content_type", "audio/aac", "-f", "adts"]),
    ("tone.flac", 16_000, &["-c:a", "flac", "-content_type", "application/ogg", "-f", "ogg"]),
    ("tone.opus", 48_000, &["-c:a", "libopus", "-content_type", "application/ogg", "-f", "ogg"]),
    ("tone.webm", 48_000, &["-c:a", "libopus", "-content_type", "audio/webm", "-f", "webm"]),
];

#[test]
fn icecast_is_heard_in_every_encoding() {
    for (mount, rate, encoding) in MOUNTS {
        let mut icecast = Icecast::start();
        icecast.feed(mount, rate, encoding);
        let listening = Listening::stream(&icecast.url(mount));
        let first = listening.wait_for_tone();
        assert_eq!(first.rate, rate, "{mount}");
        let (later, _) = listening.wait_for("three seconds more", |seen| seen.at >= first.at + 3.0);
        let (sound, wall) = (later.at - first.at, later.wall - first.wall);
        assert!((sound - wall).abs() < 1.5, "{mount}: {sound} s of sound in {wall} s");
    }
}

#[test]
fn an_icecast_source_that_hangs_goes_and_returns_otherwise_is_heard_again() {
    let mut icecast = Icecast::start();
    icecast.feed("tone", 48_000, MOUNTS[0].2);
    let listening = Listening::stream(&icecast.url("tone"));
    let before = listening.wait_for_tone();
    icecast.freeze(true);
    listening.wait_for_state(SourceState::Stalled);
    listening.wait_for_state(SourceState::Lost);
    icecast.freeze(false);
    icecast.starve();
    icecast.feed("tone", 44_100, MOUNTS[1].2);
    let (after, _) = listening.wait_for("tone at another rate", |seen| seen.is_tone() && seen.rate == 44_100);
    assert!(after.wall > before.wall + 5.0);
    icecast.starve();
    listening.wait_for_state(SourceState::Lost);
    icecast.feed("tone", 44_100, MOUNTS[1].2);
    let again = listening.wait_for_tone();
    let (sound, wall) = (again.at - after.at, again.wall - after.wall);
    assert!((sound - wall).abs() < 2.0, "{sound} s on the time line, {wall} s on the wall");
}

fn listen_kind(place: ListenPlace) -> SourceKind {
    SourceKind::Listen(ListenSpec { place, format: "16000:s16:1".parse().expect("a format") })
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("is there").permissions().mode() & 0o777
}

#[test]
fn programs_feed_a_socket_one_after_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mic.sock");
    // What a killed process has left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let listening = Listening::start(listen_kind(ListenPlace::Unix(path.clone())));
    let mut last = 0.0;
    for _ in 0..2 {
        let until = Instant::now() + PATIENCE;
        let mut program = loop {
            match UnixStream::connect(&path) {
                Ok(program) => break program,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(mode(&path), 0o660);
        // Cut within a sample.
        let sound = tone(16_000, 1.0);
        program.write_all(&sound[..1_001]).and_then(|()| program.write_all(&sound[1_001..])).expect("is taken");
        let heard = listening.wait_for_tone();
        assert!(heard.rate == 16_000 && heard.at >= last, "{heard:?} after {last} s");
        last = heard.at;
        drop(program);
        listening.wait_for_state(SourceState::Lost);
    }
    drop(listening);
    let until = Instant::now() + PATIENCE;
    while path.exists() {
        assert!(Instant::now() < until, "the socket stays");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_program_feeds_a_fifo_and_one_that_is_faster_than_time_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mic.pcm");
    let listening = Listening::start(listen_kind(ListenPlace::Fifo(path.clone())));
    let until = Instant::now() + PATIENCE;
    while !path.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
        assert!(Instant::now() < until, "there is no FIFO");
        thread::sleep(Duration::from_millis(20));
    }
    let mut program = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
    // More than may run ahead, and than the ring holds.
    let (written, sound) = (Arc::new(AtomicBool::new(false)), tone(16_000, 40.0));
    let done = Arc::clone(&written);
    thread::spawn(move || {
        let _ = program.write_all(&sound);
        done.store(true, Relaxed);
    });
    listening.wait_for("ten seconds", |seen| seen.at >= 10.0);
    assert!(!written.load(Relaxed), "it was made to wait");
    assert_eq!(listening.counters.samples_lost.get(), 0);
}

/// A server that answers each connection with `answer` (after `request` lines of a request) and then goes on with `then`.
fn serve(answer: impl Fn(&mut TcpStream, &str) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("has one").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().expect("is cloned"));
            let mut stream = stream;
            let mut request = String::new();
            while reader.read_line(&mut request).is_ok_and(|length| length > 2) {}
            answer(&mut stream, &request);
        }
    });
    port
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn servers_that_mean_harm_end_their_own_source_at_worst() {
    let endless = |stream: &mut TcpStream, head: &str, piece: &[u8]| {
        let _ = stream.write_all(head.as_bytes());
        // As much as would be noticed, if it were kept.
        for _ in 0..2_000 {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
    };
    let noise: Vec<u8> = (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let piece = noise.clone();
    let rtsp_body = serve(move |stream, _| {
        endless(stream, "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 4000000000\r\n\r\n", &piece);
    });
    let piece = vec![b'x'; 65_536];
    let rtsp_head = serve(move |stream, _| endless(stream, "RTSP/1.0 200 OK\r\nX: ", &piece));
    let piece = noise;
    let http_noise =
        serve(move |stream, _| endless(stream, "HTTP/1.0 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n", &piece));
    let piece = vec![b'x'; 65_536];
    let http_head = serve(move |stream, _| endless(stream, "HTTP/1.0 200 OK\r\nX: ", &piece));
    let html = serve(|stream, _| drop(stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")));
    let hls = serve(|stream, _| {
        drop(stream.write_all(
            b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n#EXTM3U\n#EXT-X-VERSION:3\n",
        ));
    });
    let around =
        serve(|stream, _| drop(stream.write_all(b"HTTP/1.0 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")));
    let before = rss_kb();
    for url in [
        format!("rtsp://127.0.0.1:{rtsp_body}/"),
        format!("rtsp://127.0.0.1:{rtsp_head}/"),
        format!("rtsp://127.0.0.1:{http_head}/"),
        format!("http://127.0.0.1:{http_noise}/"),
        format!("http://127.0.0.1:{http_head}/"),
        format!("http://127.0.0.1:{html}/"),
        format!("http://127.0.0.1:{hls}/"),
        format!("http://127.0.0.1:{around}/"),
    ] {
        let listening = Listening::stream(&url);
        listening.wait_for_state(SourceState::Lost);
    }
    let grown = rss_kb().saturating_sub(before);
    assert!(grown < 60_000, "{grown} KB more");
}

#[test]
fn a_recording_is_heard_to_its_end_also_through_a_list() {
    // Five seconds.
    let recording = crate::wav::Wav::tone(16_000, 1, 1, 16, 80_000).bytes();
    let port = serve(move |stream, request| {
        let (kind, body) = match request {
            request if request.starts_with("GET /list.m3u ") => ("audio/x-mpegurl", b"#EXTM3U\nsound.wav\n".as_slice()),
            _ => ("audio/wav", &recording[..]),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let _ = stream.read(&mut [0]);
    });
    let listening = Listening::stream(&format!("http://127.0.0.1:{port}/list.m3u"));
    let (_, before) = listening.wait_for("end", |seen| seen.ended);
    let last = before.iter().rfind(|seen| seen.rate > 0).expect("sound came");
    assert!((4.0..5.0).contains(&last.at), "the last block begins at {} s", last.at);
    assert_eq!(listening.counters.samples_lost.get(), 0);
}

/// `make stream-soak`: the daemon hears a camera and Icecast, which hang and go again and again.
#[test]
#[ignore = "long; `make stream-soak` runs it"]
fn nothing_grows() {
    let seconds =
        std::env::var("CLAPD_STREAM_SOAK_S").map_or(120, |seconds| seconds.parse().expect("a number of seconds"));
    let (length, folder) = (Duration::from_secs(seconds), tempfile::tempdir().expect("a folder"));
    let (mut camera, mut icecast) = (Some(Camera::start("aac")), Icecast::start());
    icecast.feed("tone", 44_100, MOUNTS[1].2);
    let (port, url) = (camera.as_ref().expect("runs").port, camera.as_ref().expect("runs").url());
    let (config, log) = (folder.path().join("clapd.toml"), folder.path().join("log"));
    let text = format!(
        "[[source]]\nid = \"camera\"\nurl = \"{url}\"\n[[source]]\nid = \"radio\"\nurl = \"{}\"\n\
         [[prompt]]\ntext = \"a dog barking\"\n[outbox]\ndir = {:?}\n",
        icecast.url("tone"),
        folder.path().join("outbox")
    );
    std::fs::write(&config, text).expect("a file");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["run", "--config"])
        .arg(&config)
        .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("clapd runs");
    let (began, mut measurements, mut faults) = (Instant::now(), Vec::new(), 0_u32);
    println!("     time   memory KB   descriptors   threads");
    while began.elapsed() < length {
        // Forty seconds a fault: time to notice it, to wait, and to be heard again.
        if began.elapsed() > Duration::from_secs(40) * (faults + 1) {
            match faults % 4 {
                0 => camera.as_mut().expect("runs").stall(true),
                1 => {
                    drop(camera.take());
                    camera = Some(Camera::start_at(port, if faults % 8 == 1 { "l16" } else { "aac" }, &[]));
                }
                2 => icecast.freeze(true),
                _ => {
                    icecast.freeze(false);
                    icecast.feed("tone", if faults % 8 == 3 { 48_000 } else { 44_100 }, MOUNTS[1].2);
                }
            }
            faults += 1;
        }
        thread::sleep((length / 100).min(Duration::from_secs(10)));
        let now = Measurement::at(&daemon);
        println!("{:7.1} s {:11} {:13} {:9}", began.elapsed().as_secs_f64(), now.rss_kb, now.descriptors, now.threads);
        measurements.push(now);
    }
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().expect("kill runs").success());
    assert!(daemon.wait().expect("ends").success());
    let log = std::fs::read_to_string(log).expect("is text");
    println!("{faults} faults");
    judge(&measurements, &log[log.len().saturating_sub(4_000)..]);
}
