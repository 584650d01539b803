//! What there is to know before a configuration can be written.
//!
//! [`Answers`] hold what flags and a person said; `config` judges it. What a flag has said is asked for only if it failed.

use std::path::{self, Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::terminal::Terminal;
use super::{SetupArguments, print_step};
use crate::capture::device;
use crate::config::{self, Secret};

/// The word for no broker.
const NONE: &str = "none";
/// The device that is meant when nobody says.
pub(super) const DEFAULT_DEVICE: &str = "default";
/// What is encoded of a user in a url: all but letters, digits and what RFC 3986 calls unreserved.
const IN_USER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const EXAMPLE_PROMPT: &str = "a dog barking";

/// What was answered so far.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) node: Option<String>,
    pub(super) device: Option<String>,
    pub(super) broker: Option<BrokerChoice>,
    pub(super) password: Option<Secret>,
    /// A file in PEM, by a path that holds anywhere.
    pub(super) ca: Option<PathBuf>,
    pub(super) prompts: Vec<String>,
}

/// Where events are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BrokerChoice {
    Url(String),
    None,
}

impl BrokerChoice {
    /// A host's name is a url with the least in it.
    fn of(text: &str) -> Self {
        match text {
            NONE => Self::None,
            url if url.contains("://") => Self::Url(url.into()),
            host => Self::Url(format!("mqtt://{host}")),
        }
    }

    fn has_user(&self) -> bool {
        matches!(self, Self::Url(url) if url.contains('@'))
    }
}

impl Answers {
    /// What the flags say. Where nobody can be asked, the rest has to hold its default.
    ///
    /// # Errors
    /// Files that cannot be read; what has no default, is missing, and will not be asked for.
    pub(super) fn from_arguments(arguments: &SetupArguments, nobody: bool) -> Result<Self> {
        let SetupArguments { device, broker, password_file, ca_file, prompts, node, .. } = arguments;
        ensure!(broker.is_some() || !nobody, "there is no broker; give --broker URL, or --broker none");
        ensure!(!prompts.is_empty() || !nobody, "there is nothing to listen for; give -p \"{EXAMPLE_PROMPT}\"");
        let broker = broker.as_deref().map(BrokerChoice::of);
        let nameless = broker.as_ref().is_some_and(|broker| !broker.has_user());
        ensure!(password_file.is_none() || !nameless, "--password-file needs a user; give --broker mqtt://USER@HOST");
        let password = password_file.as_deref().map(password).transpose()?;
        Ok(Self {
            node: node.clone(),
            device: device.clone().or_else(|| nobody.then(|| DEFAULT_DEVICE.into())),
            broker,
            password: password.or_else(|| config::Environment::of_process().mqtt_password),
            ca: ca_file.as_deref().map(path::absolute).transpose()?,
            prompts: prompts.clone(),
        })
    }

    /// The broker's password, where it asks who we are.
    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref().filter(|_| self.broker.as_ref().is_some_and(BrokerChoice::has_user))
    }

    pub(super) fn ask_device(&mut self, terminal: &Terminal, again: bool) -> Result<()> {
        if self.device.is_some() && !again {
            return Ok(());
        }
        let devices = device::list(device::Selection::Usual)?;
        for (number, device) in (1..).zip(&devices) {
            let problem = device.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
            print_step(&number.to_string(), &format!("{:<40} {}{problem}", device.name, device.description));
        }
        let answer = terminal.ask("Number or name of the input device", DEFAULT_DEVICE)?;
        let chosen = answer.parse::<usize>().ok().and_then(|number| devices.get(number.checked_sub(1)?));
        self.device = Some(chosen.map_or(answer, |device| device.name.clone()));
        Ok(())
    }

    pub(super) fn ask_broker(&mut self, terminal: &Terminal, again: bool) -> Result<()> {
        if self.broker.is_none() || again {
            self.broker = Some(ask_url(terminal)?);
            self.password = None;
            self.ca = None;
        }
        let Some(broker @ BrokerChoice::Url(url)) = &self.broker else { return Ok(()) };
        let has_user = broker.has_user();
        if url.starts_with("mqtts://") && self.ca.is_none() {
            let file =
                terminal.ask("Certificate of its authority, a PEM file (nothing: those that the system trusts)", "")?;
            self.ca = Some(file).filter(|file| !file.is_empty()).map(path::absolute).transpose()?;
        }
        if has_user && self.password.is_none() {
            self.password = terminal.ask_hidden("Password (it is not shown)")?;
        }
        Ok(())
    }

    pub(super) fn ask_prompts(&mut self, terminal: &Terminal, again: bool) -> Result<()> {
        if self.prompts.is_empty() || again {
            self.prompts = vec![terminal.ask("A sound to listen for, in words", EXAMPLE_PROMPT)?];
        }
        Ok(())
    }
}

/// A url from what people know of their broker.
fn ask_url(terminal: &Terminal) -> Result<BrokerChoice> {
    let host = terminal
        .ask(&format!("Name or address of the MQTT broker (\"{NONE}\": events are only logged)"), "localhost")?;
    if host == NONE || host.contains("://") {
        return Ok(BrokerChoice::of(&host));
    }
    let (scheme, usual) = if terminal.agrees("Does it want TLS?") { ("mqtts", "8883") } else { ("mqtt", "1883") };
    let port = terminal.ask("Port", usual)?;
    let user = terminal.ask("User (nothing: it asks for none)", "")?;
    // In a url a colon would begin a password, and a % an encoded letter.
    let user = if user.is_empty() { user } else { format!("{}@", utf8_percent_encode(&user, IN_USER)) };
    // An IPv6 address stands in brackets.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Ok(BrokerChoice::Url(format!("{scheme}://{user}{host}:{port}")))
}

fn password(path: &Path) -> Result<Secret> {
    Secret::read(path).map_err(|seen| {
        anyhow!("--password-file {}: {seen}; put the password, and nothing else, into it as UTF-8", path.display())
    })
}
