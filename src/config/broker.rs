//! Where the broker is and how we say who we are.
//!
//! A [`Broker`] comes from `[mqtt]` and from the places where a password may lie. A password is not accepted in the url, which
//! diagnostics show, and is a [`Secret`] wherever else it goes.

use clapd_core::text::shorten;

use super::broker_url::BrokerUrl;
use super::checker::Checker;
use super::diagnostic::Location;
use super::raw::RawMqtt;
use super::secret::Secret;
use super::section::Located;
use super::tls::{self, Tls};

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
    let parsed = match BrokerUrl::parse(&url.value) {
        Ok(parsed) => Some(parsed),
        Err((seen, remedy)) => {
            check.fault(&url.location, seen, remedy);
            None
        }
    };
    if parsed.as_ref().is_some_and(|parsed| parsed.has_stray_percent) {
        let seen = "has a % in the user that begins no encoded character, and is taken as it stands";
        check.warn(&url.location, seen, "write a % as %25");
    }
    let is_nameless = parsed.as_ref().is_some_and(|parsed| parsed.user.is_none());
    let password = find_password(raw, check, is_nameless, &url.location);
    let tls = match &parsed {
        Some(BrokerUrl { secure: true, .. }) => Some(tls::check(raw, check)),
        Some(_) => {
            tls::refuse_files(raw, check);
            None
        }
        None => None,
    };
    let BrokerUrl { user, has_empty_password, host, port, .. } = parsed?;
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    // A password that was found stands in for the empty one, which a url may hold since it is no secret.
    let password = password?.or_else(|| has_empty_password.then(|| Secret::new(String::new())));
    Some(Broker { host, port, user, password, tls, discovery_prefix: discovery_prefix? })
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

/// The password from where it is found first: the file that the configuration names, the environment, systemd's credentials.
/// Outer none: there is a fault.
#[expect(clippy::option_option, reason = "a fault and no password are two things")]
fn find_password(raw: &RawMqtt, check: &mut Checker<'_>, nameless: bool, url: &Location) -> Option<Option<Secret>> {
    if let Some(file) = &raw.password_file {
        if nameless {
            check.fault(url, "names no user, and a password needs one", "write \"mqtt://user@host\"");
        }
        let remedy = "put the password, and nothing else, into it as UTF-8, readable by this user";
        return check.read_password_file(file, |check| read_credential(check, url), remedy).map(Some);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_debugged() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }
}
