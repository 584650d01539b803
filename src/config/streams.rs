//! Sources that somebody else sends, checked: streams in the network, and programs on this computer.
//!
//! A password comes from a file, from the environment or from systemd's credentials. Nobody is asked whether a stream is there.

use std::collections::HashMap;
use std::path::Path;

use clapd_core::text::shorten;

use super::checker::Checker;
use super::raw::RawSource;
use super::secret::Secret;
use super::section::Located;
use crate::capture::{Credentials, ListenPlace, ListenSpec, Scheme, StreamSpec, StreamUrl, Transport};

/// Variables of the environment begin with this; behind it stands the source's id in capitals, with `_` for `-`.
const VARIABLE: &str = "CLAPD_SOURCE_PASSWORD_";
/// What Linux takes as a socket's path.
const MAX_SOCKET_PATH: usize = 107;

/// The passwords that the environment has for sources.
pub(super) fn passwords_of_environment() -> HashMap<String, Secret> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let id = name.to_str()?.strip_prefix(VARIABLE)?.to_owned();
        Some((id, Secret::new(value.into_string().ok()?)))
    });
    variables.collect()
}

impl Checker<'_> {
    /// Keys that belong to streams, at a source that is none.
    pub(super) fn refuse_stream_keys(&mut self, raw: &RawSource) {
        if raw.url.is_none() {
            for key in [&raw.user, &raw.password_file, &raw.transport].into_iter().flatten() {
                self.fault(&key.location, "is for streams", "remove it, or name a `url`");
            }
        }
        if raw.listen.is_none()
            && raw.stdin.is_none()
            && let Some(key) = &raw.raw
        {
            let remedy = "remove it, or name a place to `listen` at, or write `stdin = true`";
            self.fault(&key.location, "is for what a program sends", remedy);
        }
    }

    pub(super) fn check_stream(
        &mut self,
        raw: &RawSource,
        written: &Located<String>,
        id: Option<&str>,
    ) -> Option<StreamSpec> {
        let (url, named) = match StreamUrl::parse(&written.value) {
            Ok(parsed) => parsed,
            Err((seen, remedy)) => {
                self.fault(&written.location, seen, remedy);
                return None;
            }
        };
        if named.password.is_some() || url.has_secret_path() {
            let remedy = if named.password.is_some() {
                "write \"SCHEME://USER@HOST/...\", put the password into a file and name that as `password_file`"
            } else {
                "let nobody else read this file, or use a url without it if the camera has one"
            };
            self.warn(&written.location, "holds a password, which whoever reads this file learns", remedy);
        }
        let transport = self.check_transport(raw, url.scheme);
        let user = match (&raw.user, named.user) {
            (Some(user), _) if user.value.is_empty() || user.value.contains(['\r', '\n']) => {
                self.fault(&user.location, "is no user's name", "write it as the camera or the server knows it");
                return None;
            }
            (Some(user), Some(_)) => {
                self.fault(&user.location, "stands in the url, too", "remove one of them");
                return None;
            }
            (Some(user), None) => Some(user.value.clone()),
            (None, named) => named,
        };
        let found = self.find_source_password(raw, id)?;
        let password = match (found, named.password) {
            (Some(found), _) => Some(found.reveal().to_owned()),
            (None, named) => named,
        };
        let credentials = match (user, password) {
            (Some(user), password) => Some(Credentials { user, password: password.unwrap_or_default() }),
            (None, Some(_)) => {
                self.fault(&written.location, "names no user, and a password needs one", "add `user = \"...\"`");
                return None;
            }
            (None, None) => None,
        };
        Some(StreamSpec { url, credentials, transport: transport? })
    }

    fn check_transport(&mut self, raw: &RawSource, scheme: Scheme) -> Option<Transport> {
        let Some(Located { value, location }) = &raw.transport else { return Some(Transport::Tcp) };
        if scheme != Scheme::Rtsp {
            self.fault(location, "is for rtsp://", "remove it");
            return None;
        }
        match value.as_str() {
            "tcp" => Some(Transport::Tcp),
            "udp" => Some(Transport::Udp),
            other => {
                self.fault(location, format!("\"{}\" is neither \"tcp\" nor \"udp\"", shorten(other)), "write \"tcp\"");
                None
            }
        }
    }

    /// The password from where it is found first: the file that the source names, the environment, systemd's credentials.
    /// Outer none: there is a fault.
    #[expect(clippy::option_option, reason = "a fault and no password are two things")]
    fn find_source_password(&mut self, raw: &RawSource, id: Option<&str>) -> Option<Option<Secret>> {
        let credential = id.and_then(|id| Some((self.environment.credentials.as_ref()?, id)));
        let credential = credential.map(|(folder, id)| folder.join(format!("source-{id}-password")));
        let of_credential = |credential: &Path| Secret::read(credential).ok();
        if let Some(file) = &raw.password_file {
            let remedy = "put the password, and nothing else, into it, readable by this user; or hand it to the service as the \
                          credential source-ID-password (LoadCredential=)";
            let credential = |_: &mut Self| Some(credential.as_deref().and_then(of_credential));
            return self.read_password_file(file, credential, remedy).map(Some);
        }
        let variable = id.map(|id| id.to_ascii_uppercase().replace('-', "_"));
        let of_environment = variable.and_then(|id| self.environment.source_passwords.get(&id).cloned());
        Some(of_environment.or_else(|| credential.as_deref().and_then(of_credential)))
    }

    pub(super) fn check_listen(&mut self, raw: &RawSource, written: &Located<String>) -> Option<ListenSpec> {
        let example = "write \"unix:/run/clapd/mic.sock\" or \"fifo:/run/clapd/mic.pcm\"";
        let place = match written.value.split_once(':') {
            Some(("unix", path)) => ListenPlace::Unix(self.folder.join(path)),
            Some(("fifo", path)) => ListenPlace::Fifo(self.folder.join(path)),
            _ => {
                let seen = format!("\"{}\" begins with neither unix: nor fifo:", shorten(&written.value));
                self.fault(&written.location, seen, example);
                return None;
            }
        };
        let (ListenPlace::Unix(path) | ListenPlace::Fifo(path)) = &place;
        if written.value.ends_with([':', '/']) {
            self.fault(&written.location, "names no file", example);
            return None;
        }
        if matches!(place, ListenPlace::Unix(_)) && path.as_os_str().len() > MAX_SOCKET_PATH {
            let seen = format!("{}: a socket's path has at most {MAX_SOCKET_PATH} bytes", path.display());
            self.fault(&written.location, seen, example);
            return None;
        }
        let Some(format) = &raw.raw else {
            let remedy = "add `raw = \"16000:s16:1\"`: rate, format, channels";
            self.fault(&written.location, "brings samples that nothing says the format of", remedy);
            return None;
        };
        Some(ListenSpec { place, format: self.check_raw_format(format)? })
    }
}
