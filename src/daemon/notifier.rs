//! Notifications to systemd, as sd_notify(3) describes them: one datagram a message.
//!
//! Sending never blocks and never fails the daemon: without systemd nobody needs to know. The crate sd-notify (0.5.0)
//! is not used, since its socket blocks where systemd does not read, and it takes the name of an abstract socket for a
//! path.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd, if it started us.
#[derive(Debug, Default)]
pub(super) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    pub(super) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        Self(connect(&name).inspect_err(|error| log::warn!("NOTIFY_SOCKET {}: {error}", name.display())).ok())
    }

    pub(super) fn send(&self, message: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(message.as_bytes())
        {
            log::debug!("systemd does not take {message:?}: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A reader that does not read must not stop us.
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

/// How often systemd wants to be notified at the least; none where it does not watch us.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| for_us && *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_an_abstract_name_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("clapd-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, at) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            Notifier(Some(connect(&at).unwrap())).send("READY=1");
            let mut received = [0; 64];
            let count = socket.recv(&mut received).unwrap();
            assert_eq!(&received[..count], b"READY=1");
        }
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody() {
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let notifier = Notifier(Some(ours));
        (0..10_000).for_each(|_| notifier.send("WATCHDOG=1"));
        drop(theirs);
        notifier.send("WATCHDOG=1");
    }
}
