//! The broker's url, `mqtt[s]://[user@]host[:port]`, and what is wrong with one.
//!
//! It is split by hand, since the crate `url` (the web's standard) refuses the zone of a link-local address, takes a port of 0 and
//! an empty one, and does not say which part is wrong. No message repeats what stands before the host: it may be a password.

use std::net::Ipv6Addr;

use clapd_core::text::shorten;
use percent_encoding::percent_decode_str;

/// The ports that IANA registered for MQTT, without TLS and with it.
const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;
const EXAMPLE: &str = "write \"mqtt://user@host:1883\"";

/// What was seen, and what to do about it.
type UrlFault = (String, String);

/// What a url says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerUrl {
    /// With TLS.
    pub(super) secure: bool,
    /// Percent-decoded.
    pub(super) user: Option<String>,
    /// `user:@host`: the broker wants a password, and it is the empty one.
    pub(super) has_empty_password: bool,
    /// The user holds a `%` that begins no percent-encoded character.
    pub(super) has_stray_percent: bool,
    /// Name or address, without brackets; percent-decoded.
    pub(super) host: String,
    pub(super) port: u16,
}

impl BrokerUrl {
    /// Reads a url; else what is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, UrlFault> {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("", url));
        let secure = parse_scheme(scheme)?;
        // The last @ ends the user: a host holds none, and people write their mail address as it is.
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let has_empty_password = user.is_some_and(|user| user.ends_with(':'));
        let user = user.map(parse_user).transpose()?;
        let has_stray_percent = user.is_some_and(has_stray_percent);
        let user = user.map(decode_user).transpose()?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if let Some(at) = authority.find(['/', '?', '#']) {
            let seen = format!("\"{}\" stands behind the host, and a broker has no path", shorten(&authority[at..]));
            return Err((seen, "end the url with the host and its port".into()));
        }
        let (host, port) = split_port(authority, if secure { DEFAULT_TLS_PORT } else { DEFAULT_PORT })?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => parse_ipv6(address, secure)?,
            None => parse_host(host)?,
        };
        Ok(Self { secure, user, has_empty_password, has_stray_percent, host, port })
    }
}

/// Whether the scheme is the one with TLS. In a message it stands alone: a password may stand further on.
fn parse_scheme(scheme: &str) -> Result<bool, UrlFault> {
    let seen = || format!("\"{}\" is not a scheme for MQTT", shorten(scheme));
    match scheme.to_ascii_lowercase().as_str() {
        "mqtt" => Ok(false),
        "mqtts" => Ok(true),
        "" => Err(("has no scheme".into(), EXAMPLE.into())),
        "ssl" | "tls" | "mqtt+ssl" | "mqtt+tls" => Err((seen(), "write \"mqtts://user@host:8883\"".into())),
        "ws" | "wss" | "http" | "https" => {
            let remedy = "clapd speaks MQTT over TCP and not over WebSocket: write \"mqtt://user@host:1883\" with the port for that";
            Err((seen(), remedy.into()))
        }
        _ => Err((seen(), EXAMPLE.into())),
    }
}

/// The user as written, without the colon of an empty password.
fn parse_user(user: &str) -> Result<&str, UrlFault> {
    let user = match user.split_once(':') {
        Some((user, "")) => user,
        Some(_) => {
            let remedy = "put it into a file and name that as `password_file`";
            return Err(("holds a password, and a configuration is no place for one".into(), remedy.into()));
        }
        None => user,
    };
    if user.is_empty() { Err(("has an empty user before the @".into(), EXAMPLE.into())) } else { Ok(user) }
}

/// A user may have been written with a `%` before clapd knew of encoding: it means itself where it cannot mean anything else.
fn has_stray_percent(user: &str) -> bool {
    let begins_character = |rest: &str| rest.len() > 1 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    user.split('%').skip(1).any(|rest| !begins_character(rest))
}

fn decode_user(user: &str) -> Result<String, UrlFault> {
    let decoded = percent_decode_str(user).decode_utf8();
    let decoded = decoded.map_err(|_| ("has a user that is not percent-encoded UTF-8".into(), EXAMPLE.into()))?;
    if decoded.contains('\0') {
        return Err(("has a user with %00 in it, which MQTT does not allow".into(), EXAMPLE.into()));
    }
    Ok(decoded.into_owned())
}

fn parse_host(host: &str) -> Result<String, UrlFault> {
    let no_host = |host: &str| {
        let seen = format!("\"{}\" is not a host's name or address (IPv6 in brackets)", shorten(host));
        (seen, EXAMPLE.to_owned())
    };
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err((no_host(host).0, "put it in brackets, as in \"mqtt://[fe80::1]:1883\"".into()));
    }
    let decoded = percent_decode_str(host).decode_utf8().map_err(|_| no_host(host))?;
    if !decoded.is_ascii() {
        let seen =
            format!("\"{}\" has letters beyond ASCII, which no name of a host has on the network", shorten(&decoded));
        return Err((
            seen,
            "write the name's other form, xn--... (browsers and `idn2` show it), or its address".into(),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if decoded.is_empty() || !decoded.chars().all(plain) { Err(no_host(&decoded)) } else { Ok(decoded.into_owned()) }
}

/// An IPv6 address as it stands between brackets, perhaps with the network interface behind it.
fn parse_ipv6(address: &str, secure: bool) -> Result<String, UrlFault> {
    let (bare, zone) = address.split_once('%').map_or((address, None), |(bare, zone)| (bare, Some(zone)));
    // Encoded, as RFC 6874 has it. Of digits alone the interface's number is meant, which may be 251.
    let encoded = zone.and_then(|zone| zone.strip_prefix("25"));
    let zone = encoded.filter(|zone| zone.starts_with(|first: char| !first.is_ascii_digit())).or(zone);
    let is_zone = |zone: &str| !zone.is_empty() && zone.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if bare.parse::<Ipv6Addr>().is_err() || !zone.is_none_or(is_zone) {
        let seen = format!("\"{}\" is no IPv6 address, which is what brackets hold", shorten(address));
        return Err((seen, "write \"mqtt://[fe80::1%eth0]:1883\", or a name without brackets".into()));
    }
    let Some(zone) = zone else { return Ok(bare.to_owned()) };
    if secure {
        let seen = format!("\"{}\" names a network interface, which no certificate does", shorten(address));
        return Err((seen, "write the broker's name, as it stands in its certificate".into()));
    }
    Ok(format!("{bare}%{zone}"))
}

/// Host and port as written: brackets belong to the host.
fn split_port(authority: &str, default: u16) -> Result<(&str, u16), UrlFault> {
    // The brackets of an IPv6 address hold colons of their own; without them the whole is looked at as a host.
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let behind = &authority[after_host..];
    let (host, port) = match behind.rfind(':') {
        Some(_) if after_host == 0 && behind.parse::<Ipv6Addr>().is_ok() => (authority, None),
        Some(colon) => (&authority[..after_host + colon], Some(&behind[colon + 1..])),
        None => (authority, None),
    };
    let Some(port) = port else { return Ok((host, default)) };
    match port.parse() {
        // Rust takes a plus sign, too.
        Ok(number) if number > 0 && !port.starts_with('+') => Ok((host, number)),
        _ => Err((format!("\"{}\" is not a port from 1 to 65535", shorten(port)), EXAMPLE.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> BrokerUrl {
        BrokerUrl::parse(url).unwrap_or_else(|(seen, remedy)| panic!("{url}: {seen}; {remedy}"))
    }

    #[test]
    fn urls_as_people_write_them() {
        for (url, user, host, port) in [
            ("mqtt://broker", None, "broker", 1883),
            ("mqtt://me@10.0.0.2:1884/", Some("me"), "10.0.0.2", 1884),
            ("MQTT://broker", None, "broker", 1883),
            (" mqtt://broker\n", None, "broker", 1883),
            ("mqtt://my_pi.local", None, "my_pi.local", 1883),
            ("mqtt://my%2Dpi", None, "my-pi", 1883),
            ("mqtt://[fe80::1%eth0]:99", None, "fe80::1%eth0", 99),
            ("mqtt://[fe80::1%25eth0]", None, "fe80::1%eth0", 1883),
            ("mqtt://[fe80::1%251]", None, "fe80::1%251", 1883),
            ("mqtt://a@b@[::1]", Some("a@b"), "::1", 1883),
            ("mqtt://a%40b@host", Some("a@b"), "host", 1883),
            ("mqtt://DOMAIN%5Cme%3A1@host", Some("DOMAIN\\me:1"), "host", 1883),
            ("mqtt://j%C3%BCrgen@host", Some("jürgen"), "host", 1883),
            ("mqtt://jürgen@host", Some("jürgen"), "host", 1883),
            ("mqtts://x", None, "x", 8883),
            ("mqtts://x:9", None, "x", 9),
            ("mqtts://[2001:db8::7]", None, "2001:db8::7", 8883),
        ] {
            let found = parsed(url);
            assert_eq!((found.user.as_deref(), found.host.as_str(), found.port), (user, host, port), "{url}");
            assert_eq!(found.secure, url.starts_with("mqtts"), "{url}");
            assert!(!found.has_empty_password && !found.has_stray_percent, "{url}");
        }
        let empty = parsed("mqtt://token:@host");
        assert_eq!((empty.user.as_deref(), empty.has_empty_password), (Some("token"), true));
        let stray = parsed("mqtt://50%off@host");
        assert_eq!((stray.user.as_deref(), stray.has_stray_percent), (Some("50%off"), true));
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        for url in [
            "mqtt://me:hunter2@host",
            "mqtts://me:hunter2@host",
            "mqtt://me:hunter2%ff@host",
            "mqtt://me@home:hunter2@host",
            "tcp://me:hunter2@host",
            "me:hunter2@host",
        ] {
            let (seen, remedy) = BrokerUrl::parse(url).unwrap_err();
            assert!(!seen.contains("hunter2") && !remedy.contains("hunter2"), "{seen}; {remedy}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_where_it_is() {
        for (url, expected) in [
            ("", "has no scheme"),
            ("broker", "has no scheme"),
            ("http://x", "not over WebSocket"),
            ("wss://x", "not over WebSocket"),
            ("tls://x", "write \"mqtts://"),
            ("tcp://x", "\"tcp\" is not a scheme"),
            ("mqtt://", "\"\" is not a host's name"),
            ("mqtt://@x", "an empty user"),
            ("mqtt://:@x", "an empty user"),
            ("mqtt://a%00@x", "%00"),
            ("mqtt://a%ff@x", "not percent-encoded UTF-8"),
            ("mqtt://x:0", "\"0\" is not a port"),
            ("mqtt://x:+80", "\"+80\" is not a port"),
            ("mqtt://x:70000", "\"70000\" is not a port"),
            ("mqtt://x:", "\"\" is not a port"),
            ("mqtt://x:1883/topic", "\"/topic\" stands behind the host"),
            ("mqtt://x?clean=1", "\"?clean=1\" stands behind the host"),
            ("mqtt://a b", "\"a b\" is not a host's name"),
            ("mqtt://a%20b", "\"a b\" is not a host's name"),
            ("mqtt://a%b", "\"a%b\" is not a host's name"),
            ("mqtt://::1", "put it in brackets"),
            ("mqtt://müller.example", "letters beyond ASCII"),
            ("mqtt://[broker]", "is no IPv6 address"),
            ("mqtt://[::1", "is not a "),
            ("mqtt://x]", "is not a host's name"),
            ("mqtt://[fe80::1%]", "is no IPv6 address"),
            ("mqtts://[fe80::1%eth0]", "names a network interface"),
        ] {
            let (seen, remedy) = BrokerUrl::parse(url).expect_err(url);
            assert!(format!("{seen}; {remedy}").contains(expected), "{url}: {seen}; {remedy}");
        }
    }
}
