//! One table of the file, read key by key.
//!
//! A [`Section`] gives values of the type that a key has, with their locations, and reports a wrong type and every key that is not
//! known. Whether a value is allowed is for `check` to say.

use clapd_core::text::shorten;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Location};
use super::id;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// Byte offsets into lines, where the text has lines that somebody can look up.
pub(super) struct LineIndex(Option<Vec<usize>>);

impl LineIndex {
    pub(super) fn of(text: &str) -> Self {
        Self(Some(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect()))
    }

    /// Of a text that nobody has seen.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub(super) fn at(&self, offset: usize) -> Option<usize> {
        self.0.as_ref().map(|newlines| 1 + newlines.partition_point(|newline| *newline < offset))
    }
}

/// What reading a file needs beside the table: the index of its lines, and where faults go.
pub(super) struct SectionReader<'a> {
    pub(super) lines: &'a LineIndex,
    pub(super) faults: &'a mut Vec<Diagnostic>,
    /// The parser gave up on some lines: what looks missing may stand there.
    pub(super) broken: bool,
}

impl SectionReader<'_> {
    /// Where the value stands.
    fn line(&self, value: &Spanned<DeValue<'_>>) -> Option<usize> {
        self.lines.at(value.span().start)
    }

    pub(super) fn fault(&mut self, location: &Location, message: String, remedy: impl Into<String>) {
        self.faults.push(location.diagnostic(message, remedy.into()));
    }

    /// A fault that is only one if the parser saw the whole file.
    pub(super) fn missing(&mut self, location: &Location, message: &str, remedy: impl Into<String>) {
        if !self.broken {
            self.fault(location, message.to_owned(), remedy);
        }
    }

    fn wrong_type(&mut self, location: &Location, seen: &DeValue<'_>, expected: &str, example: &str) {
        self.fault(location, format!("{} is not {expected}", describe(seen)), format!("write it as `{example}`"));
    }
}

/// A table and the keys that were known for so far.
pub(super) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    pub(super) location: Location,
    known: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(table: &'a DeTable<'i>, location: Location) -> Self {
        Self { table, location, known: Vec::new() }
    }

    /// Whether the key is there, whatever it holds.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&mut self, key: &'static str, reader: &SectionReader<'_>) -> Option<Located<&'a DeValue<'i>>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        // The parser puts an empty span where it recovered from an error: that error is reported already.
        if value.span().is_empty() {
            return None;
        }
        Some(Located { value: value.get_ref(), location: self.location.child(reader.line(value), key) })
    }

    pub(super) fn string(&mut self, key: &'static str, reader: &mut SectionReader<'_>) -> Option<Located<String>> {
        let Located { value, location } = self.get(key, reader)?;
        match value {
            DeValue::String(text) => Some(Located { value: text.clone().into_owned(), location }),
            other => {
                reader.wrong_type(&location, other, "a text", &format!("{key} = \"...\""));
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        example: &str,
        reader: &mut SectionReader<'_>,
    ) -> Option<Located<String>> {
        if !self.has(key) {
            let location = self.location.child(self.location.line, key);
            reader.missing(&location, "is missing", format!("add `{key} = \"{example}\"`"));
        }
        self.string(key, reader)
    }

    pub(super) fn number(&mut self, key: &'static str, reader: &mut SectionReader<'_>) -> Option<Located<f64>> {
        let Located { value, location } = self.get(key, reader)?;
        let Some(number) = number(value) else {
            reader.wrong_type(&location, value, "a number", &format!("{key} = 1.0"));
            return None;
        };
        Some(Located { value: number, location })
    }

    pub(super) fn boolean(&mut self, key: &'static str, reader: &mut SectionReader<'_>) -> Option<Located<bool>> {
        let Located { value, location } = self.get(key, reader)?;
        match value {
            DeValue::Boolean(value) => Some(Located { value: *value, location }),
            other => {
                reader.wrong_type(&location, other, "true or false", &format!("{key} = true"));
                None
            }
        }
    }

    pub(super) fn texts(
        &mut self,
        key: &'static str,
        reader: &mut SectionReader<'_>,
    ) -> Option<Located<Vec<Located<String>>>> {
        self.list(key, "a list of texts", "[\"...\"]", reader, |value| match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        })
    }

    pub(super) fn integers(
        &mut self,
        key: &'static str,
        reader: &mut SectionReader<'_>,
    ) -> Option<Located<Vec<Located<i64>>>> {
        self.list(key, "a list of whole numbers", "[2, 3]", reader, integer)
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        example: &str,
        reader: &mut SectionReader<'_>,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<Located<Vec<Located<T>>>> {
        let Located { value, location } = self.get(key, reader)?;
        let DeValue::Array(array) = value else {
            reader.wrong_type(&location, value, expected, &format!("{key} = {example}"));
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let location = location.element(reader.line(item), index);
            match read(item.get_ref()) {
                Some(value) => items.push(Located { value, location }),
                None => reader.wrong_type(
                    &location,
                    item.get_ref(),
                    &format!("what {expected} holds"),
                    &format!("{key} = {example}"),
                ),
            }
        }
        // With an element short it is another list: what is amiss with that one would be an echo.
        (items.len() == array.len()).then_some(Located { value: items, location })
    }

    /// `"mix"`, or a whole number from 0.
    pub(super) fn text_or_integer(
        &mut self,
        key: &'static str,
        reader: &mut SectionReader<'_>,
    ) -> Option<Located<TextOrInteger>> {
        let Located { value, location } = self.get(key, reader)?;
        let read = match value {
            DeValue::String(text) => Some(TextOrInteger::Text(text.clone().into_owned())),
            other => integer(other).map(TextOrInteger::Integer),
        };
        if read.is_none() {
            reader.wrong_type(&location, value, "a text or a whole number", &format!("{key} = 0"));
        }
        read.map(|value| Located { value, location })
    }

    pub(super) fn text_or_number(
        &mut self,
        key: &'static str,
        reader: &mut SectionReader<'_>,
    ) -> Option<Located<TextOrNumber>> {
        let Located { value, location } = self.get(key, reader)?;
        let read = match value {
            DeValue::String(text) => Some(TextOrNumber::Text(text.clone().into_owned())),
            other => number(other).map(TextOrNumber::Number),
        };
        if read.is_none() {
            reader.wrong_type(&location, value, "a text or a number", &format!("{key} = 1.0"));
        }
        read.map(|value| Located { value, location })
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str, reader: &mut SectionReader<'_>) -> Option<Section<'a, 'i>> {
        let Located { value, location } = self.get(key, reader)?;
        match value {
            DeValue::Table(table) => Some(Section::new(table, location)),
            // Named by its type alone: a whole url, password and all, could stand here.
            other => {
                reader.fault(
                    &location,
                    format!("is of type {}, not a table", other.type_str()),
                    format!("write it as `[{key}]`"),
                );
                None
            }
        }
    }

    /// The tables of `[[key]]`; empty where there is none.
    pub(super) fn sections(&mut self, key: &'static str, reader: &mut SectionReader<'_>) -> Vec<Section<'a, 'i>> {
        let Some(Located { value, location }) = self.get(key, reader) else { return Vec::new() };
        let DeValue::Array(array) = value else {
            reader.wrong_type(&location, value, "a list of tables", &format!("[[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let location = location.element(reader.line(item), index);
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(table, location)),
                other => reader.wrong_type(&location, other, "a table", &format!("[[{key}]]")),
            }
        }
        sections
    }

    /// Reports the keys that nobody known for.
    pub(super) fn finish(self, reader: &mut SectionReader<'_>) {
        for key in self.table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let name = shorten(key.get_ref());
            let location = self.location.child(reader.lines.at(key.span().start), &name);
            let remedy = match id::nearest(&name, &self.known) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            reader.fault(&location, "is not a known key".into(), remedy);
        }
    }
}

/// See [`Section::text_or_integer`].
#[derive(Debug, Clone)]
pub(super) enum TextOrInteger {
    Text(String),
    Integer(i64),
}

/// See [`Section::text_or_number`].
#[derive(Debug, Clone)]
pub(super) enum TextOrNumber {
    Text(String),
    Number(f64),
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => integer(other).map(|integer| integer as f64),
    }
}

/// A value as a message shows it.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", shorten(text)),
        DeValue::Integer(integer) => shorten(integer.as_str()),
        DeValue::Float(float) => shorten(float.as_str()),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
