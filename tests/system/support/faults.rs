//! Instruments of the chaos tests: a subscriber that misses nothing while its broker lives, a link that can be cut and frozen, and
//! a time of day that can be set for one process.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Publishes on `clapd/#`, topic and payload, in the order in which the broker sent them.
pub type Received = Arc<Mutex<Vec<(String, String)>>>;

/// Listens, at QoS 0, until the broker ends: what a broker has written is read also after its death.
pub struct Subscriber(JoinHandle<()>);

impl Subscriber {
    /// Returns once the broker has confirmed the subscription.
    pub fn start(port: u16, received: &Received) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the broker is there");
        // CONNECT: MQTT 3.1.1, clean session, no keep-alive, client id "sub"; SUBSCRIBE clapd/# at QoS 0.
        stream.write_all(b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03sub").expect("is there");
        assert_eq!(packet(&mut stream).expect("a CONNACK"), (0x20, vec![0, 0]));
        stream.write_all(b"\x82\x0c\0\x01\0\x07clapd/#\0").expect("is there");
        let received = Arc::clone(received);
        while packet(&mut stream).expect("a SUBACK").0 != 0x90 {}
        Self(thread::spawn(move || {
            while let Ok((kind, body)) = packet(&mut stream) {
                // PUBLISH, not retained: what a broker kept is no news.
                if kind & 0xF1 == 0x30 {
                    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    received.lock().expect("is whole").push((text(&body[2..2 + length]), text(&body[2 + length..])));
                }
            }
        }))
    }

    /// Waits until all is read that the broker had written before it ended.
    pub fn end(self) {
        self.0.join().expect("it reads to the end");
    }
}

/// A packet's first byte and its body.
fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// A link from a port of its own to the broker.
pub struct Gate {
    pub port: u16,
    state: Arc<GateState>,
}

#[derive(Default)]
struct GateState {
    open: AtomicBool,
    /// Connections below this number carry nothing any more, and are not closed.
    frozen_below: AtomicU64,
    next: AtomicU64,
    streams: Mutex<VecDeque<TcpStream>>,
}

impl Gate {
    /// Closed at first.
    pub fn new(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("has one").port();
        let state = Arc::<GateState>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for guest in listener.incoming().map_while(Result::ok) {
                if !shared.open.load(SeqCst) {
                    continue;
                }
                let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let number = shared.next.fetch_add(1, SeqCst);
                let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                shared.streams.lock().expect("is whole").extend([copy(&guest), copy(&broker)]);
                for (from, to) in [(copy(&guest), copy(&broker)), (broker, guest)] {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.carry(number, from, to));
                }
            }
        });
        Self { port, state }
    }

    pub fn open(&self) {
        self.state.open.store(true, SeqCst);
    }

    /// Lets nobody in, and ends what is there.
    pub fn close(&self) {
        self.state.open.store(false, SeqCst);
        self.cut();
    }

    /// Ends what is there; whoever comes again is let in.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().expect("is whole").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What is there carries nothing any more, and nobody is told: the other end of the cable is gone.
    pub fn freeze(&self) {
        self.state.frozen_below.store(self.state.next.load(SeqCst), SeqCst);
    }
}

impl GateState {
    fn carry(&self, number: u64, mut from: TcpStream, mut to: TcpStream) {
        from.set_read_timeout(Some(Duration::from_millis(50))).expect("is set");
        let mut bytes = [0; 4096];
        loop {
            if number < self.frozen_below.load(SeqCst) {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
            match from.read(&mut bytes) {
                Ok(count) if count > 0 && number >= self.frozen_below.load(SeqCst) => {
                    if to.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// A time of day for processes of a test, by the library of Debian's package faketime. Their steady clock is the computer's.
pub struct TimeOfDay {
    library: PathBuf,
    file: PathBuf,
    /// Seconds by which it is off.
    pub offset_s: i64,
}

impl TimeOfDay {
    /// The right one, kept in a file in this folder; none where the library is not installed.
    pub fn new(folder: &Path) -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").expect("is there").map_while(Result::ok);
        let libraries = folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.into_iter().find(|library| library.exists())?;
        let mut clock = Self { library, file: folder.join("time-of-day"), offset_s: 0 };
        clock.set(0);
        Some(clock)
    }

    /// Sets it, also for processes that run.
    pub fn set(&mut self, offset_s: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset_s:+}")).and_then(|()| fs::rename(&new, &self.file)).expect("a file");
        self.offset_s = offset_s;
    }

    /// Gives it to a process to be.
    pub fn give(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}
