//! The text of a configuration: the example that comes with clapd, with the answers in their places.
//!
//! The example's remarks stay. It is our own and a test reads the result, so lines are found by their first words; a TOML editor would lose the keys that
//! stand in it as remarks.
//! A password is named by its file.

use super::answers::{Answers, BrokerChoice, DEFAULT_DEVICE};

/// The example, which a package installs as the configuration to begin with.
pub(super) const EXAMPLE: &str = include_str!("../../../systemd/clapd.toml");
/// Files beside the configuration. The first is where the unit looks for the credential of this name.
pub(super) const PASSWORD_FILE: &str = "mqtt-password";
pub(super) const CA_FILE: &str = "ca.pem";

/// The configuration. `whole`: with the files beside it, which are not there while answers are tried out.
pub(super) fn text(answers: &Answers, whole: bool) -> String {
    let mut draft = Draft(EXAMPLE.lines().map(str::to_owned).collect());
    draft.set("[node]", "id", answers.node.as_deref());
    draft.set("[[source]]", "device", Some(answers.device.as_deref().unwrap_or(DEFAULT_DEVICE)));
    draft.prompts(&answers.prompts);
    match &answers.broker {
        Some(BrokerChoice::Url(url)) => {
            draft.set("[mqtt]", "url", Some(url));
            draft.set("[mqtt]", "password_file", answers.password().filter(|_| whole).map(|_| PASSWORD_FILE));
            let ca = answers.ca.as_ref().map(|file| if whole { CA_FILE.into() } else { file.to_string_lossy() });
            draft.set("[mqtt]", "ca_file", ca.as_deref());
        }
        _ => draft.comment_out("[mqtt]"),
    }
    draft.0.join("\n") + "\n"
}

struct Draft(Vec<String>);

impl Draft {
    /// The line that begins the table, and the one behind its last key.
    fn table(&self, header: &str) -> std::ops::Range<usize> {
        let lines = &self.0;
        let first = lines.iter().position(|line| line == header).unwrap_or(lines.len());
        let end = (first + 1..lines.len()).find(|&at| lines[at].is_empty()).unwrap_or(lines.len());
        first..end
    }

    /// Writes a key in place of the one that stands in the table, be it as a remark; none makes it a remark. What is said behind it stays.
    fn set(&mut self, header: &str, key: &str, value: Option<&str>) {
        for at in self.table(header) {
            let line = &self.0[at];
            let code = line.trim_start_matches("# ");
            if !code.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')) {
                continue;
            }
            let (before, remark) = remark(line).unwrap_or((line, ""));
            let code = match value {
                Some(value) => format!("{key} = {}", toml::Value::from(value)),
                None if line.starts_with('#') => continue,
                None => format!("# {}", before.trim_end()),
            };
            // Where it stood before.
            let column = before.len().saturating_sub(1);
            self.0[at] = format!("{code:<column$} {remark}").trim_end().to_owned();
        }
    }

    /// The first prompt in the example's own table, the others in place of its second.
    fn prompts(&mut self, texts: &[String]) {
        let Some((first, more)) = texts.split_first() else { return };
        self.set("[[prompt]]", "text", Some(first));
        self.set("[[prompt]]", "id", None);
        self.set("[[prompt]]", "contrast", None);
        let end = self.table("[[prompt]]").end;
        let second = self.0[end..].iter().position(|line| line == "[[prompt]]").map_or(end, |at| end + at);
        let behind = self.0[second..].iter().position(String::is_empty).map_or(self.0.len(), |at| second + at + 1);
        let tables = more.iter().flat_map(|text| {
            ["[[prompt]]".into(), format!("text = {}", toml::Value::from(text.as_str())), String::new()]
        });
        self.0.splice(second..behind, tables);
    }

    /// Makes a whole table a remark.
    fn comment_out(&mut self, header: &str) {
        for at in self.table(header) {
            if !self.0[at].trim_start().starts_with('#') {
                self.0[at].insert_str(0, "# ");
            }
        }
    }
}

/// What stands before the remark behind a key, and the remark. No value of the example holds the sign.
fn remark(line: &str) -> Option<(&str, &str)> {
    line.rfind(" # ").map(|at| line.split_at(at + 1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::SourceKind;
    use crate::config::{self, Environment, Secret};

    fn answers(broker: BrokerChoice) -> Answers {
        let prompts = vec!["a \"kettle\" # whistling".into(), "rain".into(), "a cat".into()];
        Answers {
            node: Some("attic".into()),
            device: Some("hw:CARD=USB,DEV=0".into()),
            broker: Some(broker),
            password: Some(Secret::new("hunter2".into())),
            ca: None,
            prompts,
        }
    }

    fn settings(text: &str) -> config::Settings {
        let environment = Environment { host_name: "pi".into(), ..Environment::default() };
        let (settings, _) = config::parse(text, Path::new("/etc/clapd/clapd.toml"), &environment)
            .unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        settings
    }

    #[test]
    fn answers_stand_in_the_example_with_its_remarks() {
        let text = text(&answers(BrokerChoice::Url("mqtt://me@broker:1884".into())), false);
        let settings = settings(&text);
        assert_eq!(settings.node, "attic");
        assert_eq!(settings.sources[0].kind, SourceKind::Device { name: "hw:CARD=USB,DEV=0".into() });
        let texts: Vec<_> = settings.prompts.iter().filter_map(|prompt| prompt.text.as_deref()).collect();
        assert_eq!(texts, ["a \"kettle\" # whistling", "rain", "a cat"]);
        assert!(settings.prompts.iter().all(|prompt| prompt.contrast.is_empty()), "the example's contrast is for dogs");
        let broker = settings.broker.unwrap();
        assert_eq!((broker.host.as_str(), broker.port, broker.user.as_deref()), ("broker", 1884, Some("me")));
        for kept in [
            "# a name that `clapd devices` lists",
            "# Where events wait while the broker is away.",
            "# required; mqtt://user@host",
        ] {
            assert!(text.contains(kept), "{kept}\n{text}");
        }
        assert!(
            !text.contains("hunter2") && !text.contains("smoke alarm") && !text.contains("\npassword_file"),
            "{text}"
        );
        let whole = super::text(&answers(BrokerChoice::Url("mqtt://me@broker".into())), true);
        assert!(whole.contains("\npassword_file = \"mqtt-password\" ") && whole.contains("\n# ca_file"), "{whole}");
    }

    #[test]
    fn what_nobody_answered_takes_its_default() {
        let nobody = Answers { node: None, device: None, prompts: vec!["rain".into()], ..answers(BrokerChoice::None) };
        let settings = settings(&text(&nobody, true));
        assert_eq!((settings.node.as_str(), settings.prompts.len()), ("pi", 1));
        assert!(settings.broker.is_none());
    }
}
