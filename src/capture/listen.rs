//! Raw samples that another program on this computer sends: through a socket, or through a FIFO.
//!
//! Nothing in them says what they are; the configuration does. One program is heard at a time; another waits until the first has
//! ended. A program that sends faster than real time is made to wait.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clapd_core::channel::Channel;
use clapd_core::decode::RawFormat;

use super::live_source::Ended;
use super::live_writer::{LiveWriter, POLL_INTERVAL};
use super::source_state::SourceState;

/// How often a FIFO is looked at, which has no wait of its own: a fifth of the blocks in which a sound card delivers.
const FIFO_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes read at a time: a tenth of a second of 48 kHz in 16 bits and stereo, and more.
const CHUNK: usize = 32 * 1024;
/// Owner and group: under the unit, those who may use sound devices.
const MODE: u32 = 0o660;
/// How far a program's sound may run ahead of the clock: what a pipe holds (64 KB) of 16 kHz in 16 bits.
const MAX_AHEAD: Duration = Duration::from_secs(2);

/// Where a program finds us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenPlace {
    /// A stream socket at this path.
    Unix(PathBuf),
    /// A FIFO at this path.
    Fifo(PathBuf),
}

/// What is expected of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSpec {
    /// Where it sends to.
    pub place: ListenPlace,
    /// How its samples are stored.
    pub format: RawFormat,
}

/// Listens for programs, until nobody wants the source any more.
///
/// # Errors
/// A socket or a FIFO that can't be made.
pub(super) fn receive(id: &str, spec: &ListenSpec, channel: Channel, writer: &mut LiveWriter) -> Result<Ended> {
    spec.format.check_channel(channel)?;
    match &spec.place {
        ListenPlace::Unix(path) => {
            let socket = Socket::bind(path)?;
            log::info!("source {id:?}: waits for raw sound ({}) at {}", spec.format, path.display());
            while let Some(stream) = socket.accept(writer)? {
                log::info!("source {id:?}: a program has connected");
                let ended = read_program(&mut ProgramInput::socket(stream)?, spec.format, channel, writer);
                note_end(id, ended, writer);
            }
        }
        ListenPlace::Fifo(path) => {
            make_fifo(path)?;
            log::info!("source {id:?}: waits for raw sound ({}) at {}", spec.format, path.display());
            while !writer.is_stopped() {
                let ended = read_program(&mut ProgramInput::fifo(path)?, spec.format, channel, writer);
                note_end(id, ended, writer);
            }
        }
    }
    Ok(Ended::Stopped)
}

/// A program's end is in order, and what it leaves is an outage, if it sent anything.
fn note_end(id: &str, ended: Result<bool>, writer: &mut LiveWriter) {
    let sent = match ended {
        Ok(sent) => sent,
        Err(error) => {
            if !writer.is_stopped() {
                log::warn!("source {id:?}: {error:#}");
            }
            true
        }
    };
    if sent && !writer.is_stopped() {
        log::info!("source {id:?}: the program has ended; waiting for the next");
        writer.end_stream();
        writer.counters().set_state(SourceState::Lost);
    }
}

/// Reads one program to its end; whether it sent anything.
fn read_program(
    program: &mut ProgramInput,
    format: RawFormat,
    channel: Channel,
    writer: &mut LiveWriter,
) -> Result<bool> {
    let (frame, mut bytes, mut samples) = (format.frame_bytes(), vec![0; CHUNK], Vec::new());
    let (mut kept, mut sent) = (0, false);
    writer.hold_back(MAX_AHEAD);
    while !writer.is_stopped() {
        let received = match program.read(&mut bytes[kept..], writer)? {
            Some(0) if sent || program.has_writer => break,
            // A FIFO that nobody has opened yet.
            Some(0) => {
                writer.sleep(POLL_INTERVAL);
                continue;
            }
            Some(received) => received,
            None => continue,
        };
        sent = true;
        let available = kept + received;
        let whole = available - available % frame;
        samples.clear();
        let bad = format.decode(&bytes[..whole], channel, &mut samples);
        writer.counters().samples_bad.add(bad);
        writer.write(format.rate(), 0, &samples)?;
        bytes.copy_within(whole..available, 0);
        kept = available - whole;
    }
    Ok(sent)
}

/// A program's end of a socket or of a FIFO.
struct ProgramInput {
    input: Box<dyn Read>,
    /// A read waits for a moment by itself; else it returns at once.
    blocks: bool,
    /// Somebody is at the other end.
    has_writer: bool,
}

impl ProgramInput {
    fn socket(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(false).context("can't set up the connection")?;
        stream.set_read_timeout(Some(POLL_INTERVAL)).context("can't set up the connection")?;
        Ok(Self { input: Box::new(stream), blocks: true, has_writer: true })
    }

    fn fifo(path: &Path) -> Result<Self> {
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .with_context(|| format!("{}: can't open it", path.display()))?;
        Ok(Self { input: Box::new(file), blocks: false, has_writer: false })
    }

    /// Bytes read; `None` where none came for a moment.
    fn read(&mut self, bytes: &mut [u8], writer: &LiveWriter) -> Result<Option<usize>> {
        match self.input.read(bytes) {
            Ok(received) => Ok(Some(received)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                self.has_writer = true;
                if !self.blocks {
                    writer.sleep(FIFO_POLL_INTERVAL);
                }
                Ok(None)
            }
            Err(error) => Err(error).context("can't read what the program sends"),
        }
    }
}

/// A socket in the file system, which goes with us.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: &Path) -> Result<Self> {
        let name = path.display();
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                bail!("{name}: is there, and is no socket; name another path");
            }
            // One that a process has left behind answers nobody.
            if UnixStream::connect(path).is_ok() {
                bail!("{name}: another program listens there; name another path");
            }
            fs::remove_file(path).with_context(|| format!("{name}: can't remove the socket that was left there"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("{name}: can't listen there; its folder must exist, and be writable for this user")
        })?;
        let made = Self { listener, path: path.to_owned() };
        set_mode(path)?;
        made.listener.set_nonblocking(true).with_context(|| format!("{name}: can't set it up"))?;
        Ok(made)
    }

    /// The next program; `None` once nobody wants the source any more.
    fn accept(&self, writer: &LiveWriter) -> Result<Option<UnixStream>> {
        while !writer.is_stopped() {
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    writer.sleep(POLL_INTERVAL);
                }
                Err(error) => return Err(error).context("can't accept a program's connection"),
            }
        }
        Ok(None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A FIFO at this path: the one that is there, or a new one. It stays when we go, for the program that writes to it.
fn make_fifo(path: &Path) -> Result<()> {
    let name = path.display();
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_fifo() => return Ok(()),
        Ok(_) => bail!("{name}: is there, and is no FIFO; name another path"),
        Err(_) => {}
    }
    let mode = rustix::fs::Mode::from_raw_mode(MODE);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).with_context(|| {
        format!("{name}: can't make a FIFO there; its folder must exist, and be writable for this user")
    })?;
    set_mode(path)
}

/// Whatever the process's mask of modes is.
fn set_mode(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("{}: can't set its mode", path.display()))
}
