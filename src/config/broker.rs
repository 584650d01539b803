//! Where the broker is and how we say who we are.
//!
//! A [`Broker`] comes from `[mqtt]` and from the places where a password may lie. A password is not accepted in the url, which
//! diagnostics show, and is a [`Secret`] wherever else it goes.

use std::fs::File;
use std::io;
use std::net::Ipv6Addr;

use clapd_core::text::shorten;

use super::checker::Checker;
use super::diagnostic::Location;
use super::raw::RawMqtt;
use super::secret::Secret;
use super::section::Located;
use super::tls::{self, Tls};

/// The ports that IANA registered for MQTT, without TLS and with it.
const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;
/// Where Home Assistant looks for devices, unless it was told to look elsewhere. Nobody else minds a retained message there.
const DEFAULT_PREFIX: &str = "homeassistant";
/// Brokers take topics of 65,535 bytes; nobody reads them.
const MAX_PREFIX: usize = 200;
/// The name under which the unit file loads the password.
const CREDENTIAL: &str = "mqtt-password";

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who we are, where the broker asks.
    pub user: Option<String>,
    /// Sent only with a user: MQTT 3.1.1 knows no password without one.
    pub password: Option<Secret>,
    /// With TLS, and how; none: everybody on the way can read along.
    pub tls: Option<Tls>,
    /// Where Home Assistant looks for devices, and says when it has begun; none: it is told nothing of us.
    pub discovery_prefix: Option<String>,
}

pub(super) fn check(raw: &RawMqtt, check: &mut Checker<'_>) -> Option<Broker> {
    let discovery_prefix = check_discovery_prefix(raw, check);
    let url = raw.url.as_ref()?;
    let address = match Address::parse(&url.value) {
        Ok(address) => Some(address),
        Err((seen, remedy)) => {
            check.fault(&url.location, seen, remedy);
            None
        }
    };
    let user = address.as_ref().and_then(|address| address.user.clone());
    let password = find_password(raw, check, address.is_some() && user.is_none(), &url.location);
    let tls = match &address {
        Some(Address { secure: true, .. }) => Some(tls::check(raw, check)),
        Some(_) => {
            tls::refuse_files(raw, check);
            None
        }
        None => None,
    };
    let Address { host, port, .. } = address?;
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    Some(Broker { host, port, user, password: password?, tls, discovery_prefix: discovery_prefix? })
}

/// Home Assistant's own default, unless another is written; an empty one turns discovery off. Outer none: there is a fault.
#[expect(clippy::option_option, reason = "a fault and no discovery are two things")]
fn check_discovery_prefix(raw: &RawMqtt, check: &mut Checker<'_>) -> Option<Option<String>> {
    let Some(Located { value, location }) = &raw.discovery_prefix else { return Some(Some(DEFAULT_PREFIX.into())) };
    let empty_words = !value.is_empty() && value.split('/').any(str::is_empty);
    if value.contains(['+', '#', '\0']) || empty_words || value.len() > MAX_PREFIX {
        let seen = format!(
            "\"{}\" is no topic of at most {MAX_PREFIX} bytes: words between single slashes, and none of `+`, `#`",
            shorten(value)
        );
        check.fault(location, seen, format!("write \"{DEFAULT_PREFIX}\", or \"\" to tell Home Assistant nothing"));
        return None;
    }
    Some(Some(value.clone()).filter(|prefix| !prefix.is_empty()))
}

/// The password from where it is found first: the file that the configuration names, the environment, systemd's credentials. A file that
/// this user may not read is root's, and systemd's credential is what the service gets of it.
/// Outer none: there is a fault.
#[expect(clippy::option_option, reason = "a fault and no password are two things")]
fn find_password(raw: &RawMqtt, check: &mut Checker<'_>, nameless: bool, url: &Location) -> Option<Option<Secret>> {
    if let Some(file) = &raw.password_file {
        if nameless {
            check.fault(url, "names no user, and a password needs one", "write \"mqtt://user@host\"");
        }
        let path = check.require_file(file)?;
        let opened = File::open(&path);
        if is_denied(&opened)
            && let Some(password) = read_credential(check, url)?
        {
            return Some(Some(password));
        }
        return match opened.map_err(|error| error.to_string()).and_then(Secret::of_file) {
            Ok(password) => Some(Some(password)),
            Err(seen) => {
                let seen = format!("{}: {seen}", path.display());
                check.fault(&file.location, seen, "put the password, and nothing else, into it, readable by this user");
                None
            }
        };
    }
    let found = match &check.environment.mqtt_password {
        Some(password) => Some(password.clone()),
        None => read_credential(check, url)?,
    };
    if found.is_some() && nameless {
        check.warn(url, "names no user: the password that was found is not used", "write \"mqtt://user@host\"");
        return Some(None);
    }
    Some(found)
}

fn is_denied(opened: &io::Result<File>) -> bool {
    opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// What systemd has loaded for us, if anything: our unit has an empty line stand in for a file that is not there.
/// Outer none: there is a fault.
#[expect(clippy::option_option, reason = "a fault and no password are two things")]
fn read_credential(check: &mut Checker<'_>, location: &Location) -> Option<Option<Secret>> {
    let Some(path) = check.environment.credentials.as_ref().map(|folder| folder.join(CREDENTIAL)) else {
        return Some(None);
    };
    if path.metadata().map_or(true, |found| found.len() <= 1) {
        return Some(None);
    }
    match Secret::read(&path) {
        Ok(password) => Some(Some(password)),
        Err(seen) => {
            let remedy = format!("see `LoadCredential={CREDENTIAL}:...` in the unit");
            check.fault(location, format!("the credential {}: {seen}", path.display()), remedy);
            None
        }
    }
}

/// What a url says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    secure: bool,
    user: Option<String>,
    host: String,
    port: u16,
}

impl Address {
    /// Reads `mqtt[s]://[user@]host[:port]`; else what is wrong with it, and the remedy. By hand, since the crate `url` (the web's
    /// standard) refuses the zone of a link-local address, takes an empty port and a port of 0, and encodes the user.
    fn parse(url: &str) -> Result<Self, (String, String)> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let secure = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            // The scheme alone: a password may stand further on.
            other => {
                return Err((format!("\"{}\" is not a scheme for MQTT", shorten(other)), EXAMPLE.into()));
            }
        };
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(parse_user(user)?), authority),
            None => (None, rest),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = split_port(authority, if secure { DEFAULT_TLS_PORT } else { DEFAULT_PORT })?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => check_ipv6(address, secure)?,
            None => host,
        };
        Ok(Self { secure, user, host: host.to_owned(), port })
    }
}

const EXAMPLE: &str = "write \"mqtt://user@host:1883\"";

fn parse_user(user: &str) -> Result<String, (String, String)> {
    if user.contains(':') {
        let remedy = "put it into a file and name that as `password_file`";
        return Err(("holds a password, and a configuration is no place for one".into(), remedy.into()));
    }
    if user.is_empty() {
        return Err(("has an empty user before the @".into(), EXAMPLE.into()));
    }
    Ok(user.to_owned())
}

/// An IPv6 address as it stands between brackets, perhaps with the network interface behind it.
fn check_ipv6(address: &str, secure: bool) -> Result<&str, (String, String)> {
    let (bare, zone) = address.split_once('%').map_or((address, None), |(bare, zone)| (bare, Some(zone)));
    if bare.parse::<Ipv6Addr>().is_err() || zone == Some("") {
        let seen = format!("\"{}\" is no IPv6 address, which is what brackets hold", shorten(address));
        return Err((seen, "write \"mqtt://[fe80::1%eth0]:1883\", or a name without brackets".into()));
    }
    if secure && zone.is_some() {
        let seen = format!("\"{}\" names a network interface, which no certificate does", shorten(address));
        return Err((seen, "write the broker's name, as it stands in its certificate".into()));
    }
    Ok(address)
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), (String, String)> {
    // The brackets of an IPv6 address hold colons of their own.
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[after_host..].rfind(':') {
        Some(colon) => (&authority[..after_host + colon], Some(&authority[after_host + colon + 1..])),
        None => (authority, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:%".contains(c);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || !host.chars().all(plain) || (host.contains([':', '[', ']']) && !bracketed) {
        let seen = format!("\"{}\" is not a host's name or address (IPv6 in brackets)", shorten(host));
        return Err((seen, EXAMPLE.into()));
    }
    let Some(port) = port else { return Ok((host, default)) };
    match port.parse() {
        Ok(number) if number > 0 => Ok((host, number)),
        _ => Err((format!("\"{}\" is not a port from 1 to 65535", shorten(port)), EXAMPLE.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(user: Option<&str>, host: &str, port: u16) -> Result<Address, (String, String)> {
        Ok(Address { secure: false, user: user.map(Into::into), host: host.into(), port })
    }

    #[test]
    fn urls_as_people_write_them() {
        assert_eq!(Address::parse("mqtt://broker"), address(None, "broker", 1883));
        assert_eq!(Address::parse("mqtt://me@10.0.0.2:1884/"), address(Some("me"), "10.0.0.2", 1884));
        assert_eq!(Address::parse("mqtt://[fe80::1%eth0]:99"), address(None, "fe80::1%eth0", 99));
        assert_eq!(Address::parse("mqtt://a@b@[::1]"), address(Some("a@b"), "::1", 1883));
        let secure = |host: &str, port| Ok(Address { secure: true, user: None, host: host.into(), port });
        assert_eq!((Address::parse("mqtts://x"), Address::parse("mqtts://x:9")), (secure("x", 8883), secure("x", 9)));
        assert_eq!(Address::parse("mqtts://[2001:db8::7]"), secure("2001:db8::7", 8883));
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        for url in ["mqtt://me:hunter2@host", "mqtts://me:hunter2@host", "tcp://me:hunter2@host", "me:hunter2@host"] {
            let (seen, remedy) = Address::parse(url).unwrap_err();
            assert!(!seen.contains("hunter2") && !remedy.contains("hunter2"), "{seen}; {remedy}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "broker",
            "http://x",
            "mqtt://",
            "mqtt://@x",
            "mqtt://x:0",
            "mqtt://x:70000",
            "mqtt://x:",
            "mqtt://a b",
            "mqtt://::1",
            "mqtt://[broker]",
            "mqtt://[fe80::1%]",
            "mqtts://[fe80::1%eth0]",
        ] {
            assert!(Address::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn a_secret_is_not_debugged() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }
}
