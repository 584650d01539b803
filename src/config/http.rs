//! Where the page is served and who may read and write: `[http]` as written becomes an [`HttpSpec`].
//!
//! The table turns the server on. What it serves tells a home's habits, so what is not said is the narrow choice: this computer alone,
//! and nobody writes without a token.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clapd_core::text::shorten;

use super::checker::Checker;
use super::raw::RawHttp;
use super::secret::Secret;
use super::section::Located;

/// A port that no well-known program has, as the documentation names it.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8126);
/// Of a random token: 16 letters and digits are 95 bits, which nobody guesses over a network.
const MIN_TOKEN: usize = 16;
/// More than any generator makes by itself, and short enough for a header.
const MAX_TOKEN: usize = 200;
/// A proxy or two, and names in two domains; each request is compared with them.
const MAX_NAMES: usize = 16;

/// Who is asked for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody: whoever reaches the address reads and writes. On loopback addresses only.
    Off,
    /// Whoever writes; everybody reads.
    Read,
    /// Everybody, with one token for reading and another for writing.
    Token,
}

impl Access {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Read => "read",
            Self::Token => "token",
        }
    }
}

/// The page's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSpec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who is asked for a token.
    pub access: Access,
    /// What lets somebody read; none: nobody but who may write.
    pub read_token: Option<Secret>,
    /// What lets somebody write; none: nobody but who comes through a trusted proxy.
    pub write_token: Option<Secret>,
    /// Whose word is taken for who comes through them: Home Assistant's ingress.
    pub trusted_proxies: Vec<IpAddr>,
    /// Names that this server goes by, in lower case, beside addresses.
    pub allowed_hosts: Vec<String>,
}

impl Checker<'_> {
    /// None where there is a fault.
    pub(super) fn check_http(&mut self, raw: &RawHttp) -> Option<HttpSpec> {
        let listen = self.check_listen_address(raw.listen.as_ref());
        let access = self.check_access(raw.access.as_ref());
        let read_token = self.check_token(raw.read_token_file.as_ref(), "http-read-token");
        let write_token = self.check_token(raw.write_token_file.as_ref(), "http-write-token");
        let trusted_proxies = self.check_proxies(raw.trusted_proxy.as_ref());
        let allowed_hosts = self.check_hosts(raw.allowed_hosts.as_ref());
        let spec = HttpSpec {
            listen: listen?,
            access: access?,
            read_token: read_token?,
            write_token: write_token?,
            trusted_proxies: trusted_proxies?,
            allowed_hosts: allowed_hosts?,
        };
        self.check_http_access(raw, &spec)?;
        Some(spec)
    }

    /// What of it contradicts what. None: there is a fault.
    fn check_http_access(&mut self, raw: &RawHttp, spec: &HttpSpec) -> Option<()> {
        let location = raw.access.as_ref().map_or(&raw.location, |access| &access.location);
        let faults = match spec.access {
            Access::Off if !spec.listen.ip().is_loopback() => {
                let seen = format!("is \"off\", and {} is reached from other computers", spec.listen);
                let remedy = "write \"token\" and name token files, or listen = \"127.0.0.1:8126\"";
                self.fault(location, seen, remedy);
                true
            }
            Access::Off => {
                for token in [&raw.read_token_file, &raw.write_token_file].into_iter().flatten() {
                    self.warn(&token.location, "is asked of nobody, since access is \"off\"", "remove one of the two");
                }
                false
            }
            Access::Read => {
                if spec.write_token.is_none() && spec.trusted_proxies.is_empty() {
                    let seen = "lets everybody read and nobody write, since there is no `write_token_file`";
                    let remedy = "add one where prompts are to be changed on the page";
                    self.warn(location, seen, remedy);
                }
                false
            }
            Access::Token => {
                let nobody = spec.read_token.is_none() && spec.write_token.is_none() && spec.trusted_proxies.is_empty();
                if nobody {
                    let seen = "is \"token\", and there is none, so that nobody could read anything";
                    self.fault(location, seen, "add `read_token_file` and `write_token_file`");
                }
                nobody
            }
        };
        if spec.read_token.is_some() && spec.read_token == spec.write_token {
            let remedy = "give each a token of its own: who may read is not to write";
            self.fault(&raw.location, "has one token for reading and for writing", remedy);
            return None;
        }
        (!faults).then_some(())
    }

    fn check_listen_address(&mut self, raw: Option<&Located<String>>) -> Option<SocketAddr> {
        let Some(Located { value, location }) = raw else { return Some(DEFAULT_LISTEN) };
        match value.parse::<SocketAddr>() {
            Ok(address) => Some(address),
            Err(_) => {
                let seen = format!("\"{}\" is no address with a port", shorten(value));
                let remedy = "write \"127.0.0.1:8126\", \"0.0.0.0:8126\" for all networks, or \"[::1]:8126\"";
                self.fault(location, seen, remedy);
                None
            }
        }
    }

    fn check_access(&mut self, raw: Option<&Located<String>>) -> Option<Access> {
        let Some(Located { value, location }) = raw else { return Some(Access::Read) };
        let access = [Access::Off, Access::Read, Access::Token].into_iter().find(|access| access.name() == value);
        if access.is_none() {
            let seen = format!("\"{}\" is none of \"off\", \"read\" and \"token\"", shorten(value));
            self.fault(location, seen, "write \"read\": everybody reads, and writing takes a token");
        }
        access
    }

    /// The token in a file, which systemd may hand over as a credential. Outer none: there is a fault.
    #[expect(clippy::option_option, reason = "a fault and no token are two things")]
    fn check_token(&mut self, file: Option<&Located<String>>, credential: &str) -> Option<Option<Secret>> {
        let Some(file) = file else { return Some(None) };
        let of_service = self.environment.credentials.as_ref().map(|folder| folder.join(credential));
        let of_service = |_: &mut Self| Some(of_service.as_deref().and_then(|path| Secret::read(path).ok()));
        let remedy = format!(
            "put a token, and nothing else, into it, readable by this user; systemd hands the service the one in /etc/clapd/{credential}"
        );
        let token = self.read_password_file(file, of_service, &remedy)?;
        let letters = token.reveal();
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&letters.len()) || !letters.bytes().all(|byte| byte.is_ascii_graphic()) {
            let seen = format!(
                "holds a token of {} bytes, and {MIN_TOKEN} to {MAX_TOKEN} letters, digits and signs without spaces are allowed",
                letters.len()
            );
            self.fault(&file.location, seen, "make one: `openssl rand -hex 16`");
            return None;
        }
        if is_open_to_all(&self.folder.join(&file.value)) {
            self.warn(&file.location, "may be read by every user of this computer", "take that away: `chmod o= FILE`");
        }
        Some(Some(token))
    }

    fn check_proxies(&mut self, raw: Option<&Located<Vec<Located<String>>>>) -> Option<Vec<IpAddr>> {
        self.check_list(
            raw,
            |value| value.parse().ok(),
            "no address",
            "write [\"172.30.32.2\"]: Home Assistant's ingress",
        )
    }

    fn check_hosts(&mut self, raw: Option<&Located<Vec<Located<String>>>>) -> Option<Vec<String>> {
        let own = self.environment.host_name.to_ascii_lowercase();
        let name = |value: &str| is_host_name(value).then(|| value.to_ascii_lowercase());
        let seen = "no name of a host, without scheme and port";
        let mut hosts = self.check_list(raw, name, seen, "write [\"clapd.example.org\"]")?;
        // As the computer is called in its own network, and by multicast DNS.
        let short = own.split('.').next().unwrap_or_default();
        if !short.is_empty() {
            hosts.extend([own.clone(), short.to_owned(), format!("{short}.local")]);
        }
        hosts.push("localhost".into());
        hosts.sort_unstable();
        hosts.dedup();
        Some(hosts)
    }

    fn check_list<T>(
        &mut self,
        raw: Option<&Located<Vec<Located<String>>>>,
        read: impl Fn(&str) -> Option<T>,
        wrong: &str,
        remedy: &str,
    ) -> Option<Vec<T>> {
        let Some(Located { value: items, location }) = raw else { return Some(Vec::new()) };
        if items.len() > MAX_NAMES {
            self.fault(location, format!("has {} entries, and {MAX_NAMES} are allowed", items.len()), remedy);
            return None;
        }
        let mut read_items = Vec::with_capacity(items.len());
        for Located { value, location } in items {
            match read(value) {
                Some(item) => read_items.push(item),
                None => self.fault(location, format!("\"{}\" is {wrong}", shorten(value)), remedy),
            }
        }
        (read_items.len() == items.len()).then_some(read_items)
    }
}

/// As DNS has them, and as short ones are.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_open_to_all(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}
