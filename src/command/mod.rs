//! What others may ask of this node: the commands, and how they are written.
//!
//! MQTT and HTTP are two edges of this one implementation: they put a [`Request`] into the [`RequestQueue`], and the supervisor answers
//! the [`Caller`]. A [`Request`] may hold anything at all: every key, type and length that is not allowed becomes an error in words.
//! Prompts leave as TOML, in the words of the configuration, so that `config` judges both.

mod queue;

use std::fmt;

use clapd_core::text::shorten;
use serde_json::{Map, Value};

use crate::quiet::MAX_SNOOZE_MINUTES;
pub use queue::{Caller, Request, RequestQueue};

/// Whether a command changes what the node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It answers, and that is all.
    Reads,
    /// Afterwards something is otherwise.
    Changes,
}

/// Commands, what they do, and the keys that each may have beside `transaction`.
const COMMANDS: [(&str, Effect, &[&str]); 8] = [
    ("prompts/get", Effect::Reads, &[]),
    ("prompts/set", Effect::Changes, &["prompts", "merge", "remove", "reset"]),
    ("pause", Effect::Changes, &["source"]),
    ("resume", Effect::Changes, &["source"]),
    ("reload", Effect::Changes, &[]),
    ("info", Effect::Reads, &[]),
    ("ask", Effect::Reads, &["text", "source", "from", "to", "curve"]),
    ("snooze", Effect::Changes, &["minutes", "source", "prompt"]),
];
/// A transaction is somebody's counter or a UUID, which has 36 letters.
const MAX_TRANSACTION: usize = 100;
/// As long as a prompt's text may be.
const MAX_QUESTION: usize = 300;
/// What of a wrong value an error shows.
const SHOWN: usize = 40;

/// The names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, ..)| *name)
}

/// What the command of this name does; none where there is no such command.
pub fn effect(name: &str) -> Option<Effect> {
    COMMANDS.iter().find(|(command, ..)| *command == name).map(|(_, effect, _)| *effect)
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Answer with what is listened for.
    PromptsGet,
    /// Listen for something else.
    PromptsSet(SetPrompts),
    /// Drop the sound of this source, or of all.
    Pause(Option<String>),
    /// Listen again.
    Resume(Option<String>),
    /// Read the configuration again.
    Reload,
    /// Answer with what runs here.
    Info,
    /// Answer with what a sentence would have scored in the past.
    Ask(Question),
    /// Begin no events for some minutes.
    Snooze(Snooze),
}

/// A sentence that is asked of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The sentence, not empty and not longer than a prompt's.
    pub text: String,
    /// A source's id; none: the only one that there is.
    pub source: Option<String>,
    /// Milliseconds since 1970; none: as far back as there is anything.
    pub from: Option<i64>,
    /// Milliseconds since 1970; none: until now.
    pub to: Option<i64>,
    /// Whether every window's score is wanted, and not only the best.
    pub curve: bool,
}

/// Who wants quiet, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snooze {
    /// From now on; 0 ends it.
    pub minutes: u32,
    /// A source's id; none: all.
    pub source: Option<String>,
    /// A prompt's id; none: all.
    pub prompt: Option<String>,
}

/// How the prompts change. Prompts are TOML, `[[prompt]]` as in the configuration, and not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub enum SetPrompts {
    /// These and no others.
    Replace(String),
    /// Those named are removed, then these come, each in the place of the one with its id or at the end.
    Change {
        /// None where nothing comes.
        merge: Option<String>,
        /// Ids.
        remove: Vec<String>,
    },
    /// Back to those of the configuration.
    Reset,
}

/// What becomes of a request: data, or why there is none.
pub type Outcome = Result<Value, Refusal>;

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it may be carried out when it is sent again.
    pub reason: RefusalReason,
    /// In words, with the remedy.
    pub text: String,
}

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// What is asked for is wrong, or cannot be had.
    Invalid,
    /// Something else has to be over first.
    Busy,
}

/// Why what still waits is refused when the process ends.
pub const STOPPING: &str = "clapd stops before this is done";

impl Refusal {
    /// Something else has to be over first.
    pub fn busy(text: impl Into<String>) -> Self {
        Self { reason: RefusalReason::Busy, text: text.into() }
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self { reason: RefusalReason::Invalid, text }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What an answer needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Whom to answer.
    pub caller: Caller,
    /// The command's name: it may stand in a topic.
    pub command: String,
    /// As it came: whoever asked knows it again.
    pub transaction: Option<Value>,
}

/// A request, understood or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whom to answer.
    pub reply: Reply,
    /// What to do, or what is wrong.
    pub command: Result<Command, String>,
}

impl Call {
    /// Reads a request; none where not even an answer can be sent, because its name is no topic.
    pub fn read(request: &Request) -> Option<Self> {
        let Request { caller, command, payload } = request;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte);
        if !(1..=SHOWN).contains(&command.len()) || !command.bytes().all(letter) {
            return None;
        }
        let (transaction, object) = match object(payload).and_then(take_transaction) {
            Ok((transaction, object)) => (transaction, Ok(object)),
            Err(error) => (None, Err(error)),
        };
        let read = object.and_then(|object| read(command, object));
        Some(Self { reply: Reply { caller: *caller, command: command.clone(), transaction }, command: read })
    }
}

/// The payload as an object; nothing at all is one without keys. serde_json reads no deeper than 128 levels.
fn object(payload: &[u8]) -> Result<Map<String, Value>, String> {
    const REMEDY: &str = "send a JSON object such as {\"transaction\":\"1\"}";
    if payload.is_empty() {
        return Ok(Map::new());
    }
    let text = str::from_utf8(payload)
        .map_err(|error| format!("the payload is not UTF-8 after byte {}; {REMEDY}", error.valid_up_to()))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("the payload is {}, and an object is allowed; {REMEDY}", describe(&other))),
        Err(error) => Err(format!("the payload is not JSON: {error}; {REMEDY}")),
    }
}

fn take_transaction(mut object: Map<String, Value>) -> Result<(Option<Value>, Map<String, Value>), String> {
    let transaction = object.remove("transaction");
    match &transaction {
        None | Some(Value::Number(_)) => Ok((transaction, object)),
        Some(Value::String(text)) if text.len() <= MAX_TRANSACTION => Ok((transaction, object)),
        Some(other) => Err(format!(
            "`transaction` is {}, and a number or a text of at most {MAX_TRANSACTION} bytes is allowed; send a counter",
            describe(other)
        )),
    }
}

fn read(name: &str, mut object: Map<String, Value>) -> Result<Command, String> {
    if name == "prompts/set" {
        object = without_answer(object);
    }
    let Some((_, _, keys)) = COMMANDS.iter().find(|(command, ..)| *command == name) else {
        let known: Vec<_> = names().collect();
        return Err(format!("`{name}` is not a command; send one of {}", known.join(", ")));
    };
    if let Some(unknown) = object.keys().find(|key| !keys.contains(&key.as_str())) {
        let known = [keys, &["transaction"][..]].concat().join(", ");
        return Err(format!("`{}` is not a key of {name}; remove it, known are {known}", shorten(unknown)));
    }
    Ok(match name {
        "prompts/get" => Command::PromptsGet,
        "prompts/set" => Command::PromptsSet(set(object)?),
        "pause" => Command::Pause(source(object.remove("source"))?),
        "resume" => Command::Resume(source(object.remove("source"))?),
        "reload" => Command::Reload,
        "ask" => Command::Ask(question(object)?),
        "snooze" => Command::Snooze(snooze(object)?),
        _ => Command::Info,
    })
}

/// What an answer of `prompts/get` or `prompts/set` says beside the prompts: nothing, to whoever sends it back.
fn without_answer(mut object: Map<String, Value>) -> Map<String, Value> {
    if object.get("status").is_some_and(|status| status == "ok")
        && let Some(Value::Object(data)) = object.get_mut("data")
    {
        object = std::mem::take(data);
    }
    if object.contains_key("prompts") {
        ["from", "kept", "warning"].iter().for_each(|key| drop(object.remove(*key)));
    }
    object
}

fn source(value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(other) => {
            Err(format!("`source` is {}, and a source's id is allowed; leave it out for all", describe(&other)))
        }
    }
}

fn question(mut object: Map<String, Value>) -> Result<Question, String> {
    let text = match object.remove("text") {
        Some(Value::String(text)) if (1..=MAX_QUESTION).contains(&text.trim().chars().count()) => {
            text.trim().to_owned()
        }
        other => {
            let seen = other.as_ref().map_or_else(|| "missing".into(), describe);
            return Err(format!(
                "`text` is {seen}, and a text of 1 to {MAX_QUESTION} letters is allowed; send a sentence"
            ));
        }
    };
    let mut time = |key: &str| match object.remove(key) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(millis) => Ok(Some(millis)),
            None => {
                let seen = describe(&value);
                Err(format!(
                    "`{key}` is {seen}, and milliseconds since 1970 are allowed; leave it out for all there is"
                ))
            }
        },
    };
    let (from, to) = (time("from")?, time("to")?);
    let curve = match object.remove("curve") {
        None => false,
        Some(Value::Bool(curve)) => curve,
        Some(other) => {
            return Err(format!("`curve` is {}, and true or false is allowed; leave it out", describe(&other)));
        }
    };
    Ok(Question { text, source: source(object.remove("source"))?, from, to, curve })
}

fn snooze(mut object: Map<String, Value>) -> Result<Snooze, String> {
    let minutes = match object.remove("minutes") {
        Some(Value::Number(number)) => {
            number.as_u64().filter(|minutes| *minutes <= MAX_SNOOZE_MINUTES.into()).ok_or(number.to_string())
        }
        other => Err(other.as_ref().map_or_else(|| "missing".into(), describe)),
    };
    let minutes = minutes.map_err(|seen| {
        format!("`minutes` is {seen}, and a whole number from 0 to {MAX_SNOOZE_MINUTES} is allowed; 0 ends a snooze")
    })?;
    let prompt = match object.remove("prompt") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(other) => {
            return Err(format!(
                "`prompt` is {}, and a prompt's id is allowed; leave it out for all",
                describe(&other)
            ));
        }
    };
    let minutes = u32::try_from(minutes).unwrap_or(MAX_SNOOZE_MINUTES);
    Ok(Snooze { minutes, source: source(object.remove("source"))?, prompt })
}

fn set(mut object: Map<String, Value>) -> Result<SetPrompts, String> {
    let mut take = |key: &str| object.remove(key);
    match (take("prompts"), take("merge"), take("remove"), take("reset")) {
        (Some(prompts), None, None, None) => Ok(SetPrompts::Replace(toml_of("prompts", prompts)?)),
        (None, None, None, Some(Value::Bool(true))) => Ok(SetPrompts::Reset),
        (None, merge, remove, None) if merge.is_some() || remove.is_some() => {
            let merge = merge.map(|merge| toml_of("merge", merge)).transpose()?;
            Ok(SetPrompts::Change { merge, remove: remove.map_or(Ok(Vec::new()), ids)? })
        }
        (None, None, None, Some(other)) => {
            Err(format!("`reset` is {}, and true is allowed; leave it out otherwise", describe(&other)))
        }
        (None, None, None, None) => {
            Err("there is nothing to set; send `prompts` (all of them), `merge` and `remove`, or `reset`".into())
        }
        _ => Err("only one of `prompts`, `reset`, and `merge` with `remove` is allowed; send two requests".into()),
    }
}

fn ids(value: Value) -> Result<Vec<String>, String> {
    let wrong =
        |seen: &Value| format!("`remove` holds {}, and ids of prompts are allowed; send [\"dog\"]", describe(seen));
    let Value::Array(items) = value else { return Err(wrong(&value)) };
    let id = |item: Value| if let Value::String(id) = item { Ok(id) } else { Err(wrong(&item)) };
    items.into_iter().map(id).collect()
}

/// A list of prompts in the words of the configuration.
fn toml_of(key: &str, value: Value) -> Result<String, String> {
    const REMEDY: &str = "send [{\"text\":\"a dog barking\"}]";
    let Value::Array(items) = value else {
        return Err(format!("`{key}` is {}, and a list of prompts is allowed; {REMEDY}", describe(&value)));
    };
    let mut tables = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(prompt) = &item else {
            return Err(format!("`{key}[{index}]` is {}, and a prompt is an object; {REMEDY}", describe(&item)));
        };
        if prompt.get("audio").is_some_and(names_files) {
            let seen = "names files, and who may send requests may not have this computer read any";
            return Err(format!(
                "`{key}[{index}].audio` {seen}; put this prompt into the configuration, and send reload"
            ));
        }
        if let Some((name, value)) = prompt.iter().find(|(_, value)| !is_flat(value)) {
            let (name, seen) = (shorten(name), describe(value));
            return Err(format!(
                "`{key}[{index}].{name}` is {seen}, and texts, numbers and lists of them are allowed; remove it"
            ));
        }
        let table: toml::Table =
            serde_json::from_value(item).map_err(|error| format!("`{key}[{index}]`: {error}; {REMEDY}"))?;
        tables.push(toml::Value::Table(table));
    }
    let document = toml::Table::from_iter([("prompt".to_owned(), toml::Value::Array(tables))]);
    toml::to_string(&document).map_err(|error| format!("`{key}`: {error}; {REMEDY}"))
}

/// Whether recordings are named otherwise than `prompts/get` does, whose names have no folder.
fn names_files(audio: &Value) -> bool {
    let is_name = |name: &Value| name.as_str().is_some_and(|name| !name.contains('/'));
    !audio.as_array().is_some_and(|names| names.iter().all(is_name))
}

/// What a key of a prompt may hold: a text, a number, a truth, or a list of those.
fn is_flat(value: &Value) -> bool {
    let scalar = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
    scalar(value) || value.as_array().is_some_and(|items| items.iter().all(scalar))
}

/// A value as an error shows it.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("\"{}\"", shorten(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(command: &str, payload: &[u8]) -> Option<Call> {
        Call::read(&Request { caller: Caller::Mqtt, command: command.into(), payload: payload.into() })
    }

    fn command(name: &str, payload: &str) -> Result<Command, String> {
        call(name, payload.as_bytes()).unwrap().command
    }

    #[test]
    fn commands_are_read() {
        let seven = call("info", br#"{"transaction":7}"#).unwrap();
        let reply = Reply { caller: Caller::Mqtt, command: "info".into(), transaction: Some(7.into()) };
        assert_eq!(seven, Call { reply, command: Ok(Command::Info) });
        assert_eq!(command("pause", ""), Ok(Command::Pause(None)));
        let (text, source) = ("rain".to_owned(), Some("mic".to_owned()));
        let question = Question { text, source, from: Some(5), to: None, curve: true };
        assert_eq!(
            command("ask", r#"{"text":" rain ","source":"mic","from":5,"curve":true}"#),
            Ok(Command::Ask(question))
        );
        let snooze = Snooze { minutes: 30, source: None, prompt: Some("dog".into()) };
        assert_eq!(command("snooze", r#"{"minutes":30,"prompt":"dog"}"#), Ok(Command::Snooze(snooze)));
        assert_eq!(command("resume", r#"{"source":"mic"}"#), Ok(Command::Resume(Some("mic".into()))));
        let set = |payload| match command("prompts/set", payload) {
            Ok(Command::PromptsSet(set)) => set,
            other => panic!("{other:?}"),
        };
        let dog = "[[prompt]]\nstart = 7\ntext = \"a dog\"\n";
        assert_eq!(set(r#"{"prompts":[{"text":"a dog","start":7}]}"#), SetPrompts::Replace(dog.into()));
        let change = SetPrompts::Change { merge: Some(dog.into()), remove: vec!["cat".into()] };
        assert_eq!(set(r#"{"merge":[{"text":"a dog","start":7}],"remove":["cat"]}"#), change);
        assert_eq!(set(r#"{"reset":true}"#), SetPrompts::Reset);
        // An answer of prompts/get, as it came, and what it has of data.
        let bark = SetPrompts::Replace("[[prompt]]\naudio = [\"bark.wav#0123456789\"]\n".into());
        let data = r#"{"from":"file","kept":true,"prompts":[{"audio":["bark.wav#0123456789"]}]}"#;
        assert_eq!(set(data), bark);
        assert_eq!(set(&format!(r#"{{"transaction":1,"status":"ok","data":{data}}}"#)), bark);
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_is_right() {
        let deep = format!("{{\"prompts\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let long = format!("{{\"transaction\":\"{}\"}}", "x".repeat(101));
        for (name, payload, words) in [
            ("info", "{", "not JSON"),
            ("info", "7", "the payload is 7, and an object is allowed"),
            ("info", r#"{"transaction":{}}"#, "`transaction` is an object"),
            ("info", &long, "at most 100 bytes"),
            ("info", r#"{"trnsaction":1}"#, "`trnsaction` is not a key of info"),
            ("paws", "", "`paws` is not a command; send one of prompts/get"),
            ("pause", r#"{"source":3}"#, "`source` is 3"),
            ("ask", "", "`text` is missing"),
            ("ask", r#"{"text":" "}"#, "`text` is \" \""),
            ("ask", r#"{"text":"x","from":"now"}"#, "`from` is \"now\""),
            ("ask", r#"{"text":"x","curve":1}"#, "`curve` is 1"),
            ("snooze", "", "`minutes` is missing"),
            ("snooze", r#"{"minutes":-1}"#, "`minutes` is -1, and a whole number from 0 to 1440"),
            ("snooze", r#"{"minutes":1e9}"#, "`minutes` is"),
            ("snooze", r#"{"minutes":5,"prompt":[]}"#, "`prompt` is a list"),
            ("prompts/set", "", "nothing to set"),
            ("prompts/set", &deep, "recursion limit"),
            ("prompts/set", r#"{"prompts":{}}"#, "a list of prompts is allowed"),
            ("prompts/set", r#"{"prompts":["dog"]}"#, "`prompts[0]` is \"dog\""),
            ("prompts/set", r#"{"prompts":[{"text":null}]}"#, "`prompts[0].text` is null"),
            ("prompts/set", r#"{"prompts":[{"contrast":[["a"]]}]}"#, "`prompts[0].contrast` is a list"),
            ("prompts/set", r#"{"merge":[{"audio":["/dev/zero"]}]}"#, "`merge[0].audio` names files"),
            ("prompts/set", r#"{"merge":[{"audio":"bark.wav"}]}"#, "`merge[0].audio` names files"),
            ("prompts/set", r#"{"reset":true,"from":"file"}"#, "`from` is not a key of prompts/set"),
            ("prompts/set", r#"{"prompts":[],"reset":true}"#, "only one of"),
            ("prompts/set", r#"{"reset":false}"#, "`reset` is false"),
            ("prompts/set", r#"{"remove":"dog"}"#, "`remove` holds \"dog\""),
        ] {
            let error = command(name, payload).unwrap_err();
            assert!(error.contains(words), "{name} {}: {error}", shorten(payload));
            assert!(error.len() < 400, "{error}");
        }
        assert!(call("info", b"{\"a\":\"\xff\"}").unwrap().command.unwrap_err().contains("not UTF-8 after byte 6"));
        assert_eq!((call("", b""), call("a b", b""), call(&"a".repeat(41), b"")), (None, None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(name in 0..COMMANDS.len(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
            call(COMMANDS[name].0, &payload).unwrap();
        }

        #[test]
        fn no_json_does_any_harm(keys in prop::collection::vec("prompts|merge|remove|reset|source|transaction|text", 0..4),
                                 values in prop::collection::vec("[\\[\\]{}:,0-9a-z\"]{0,20}|\\[\\{\"text\":\"[a-z]{0,9}\"\\}\\]", 4)) {
            let pairs: Vec<_> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let payload = format!("{{{}}}", pairs.join(","));
            for (name, ..) in COMMANDS {
                call(name, payload.as_bytes()).unwrap();
            }
        }
    }
}
