//! One table of the file, read key by key.
//!
//! In: a spanned TOML table. Out: values of the wanted type with their places; a fault for a wrong type, and for every key that
//! nobody asked for.
//! Never: judges a value; that is `check`'s.

use clapd_core::text::shorten;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Place};
use super::id;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Byte offsets into lines, where the text has lines that somebody can look up.
pub(super) struct Lines(Option<Vec<usize>>);

impl Lines {
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

/// Where the findings of a file go.
pub(super) struct Reading<'a> {
    pub(super) lines: &'a Lines,
    pub(super) faults: &'a mut Vec<Finding>,
    /// The parser gave up on some lines: what looks missing may stand there.
    pub(super) broken: bool,
}

impl Reading<'_> {
    /// Where the value stands.
    fn line(&self, value: &Spanned<DeValue<'_>>) -> Option<usize> {
        self.lines.at(value.span().start)
    }

    pub(super) fn fault(&mut self, place: &Place, message: String, remedy: impl Into<String>) {
        self.faults.push(place.finding(message, remedy.into()));
    }

    /// A fault that is only one if the parser saw the whole file.
    pub(super) fn missing(&mut self, place: &Place, message: &str, remedy: impl Into<String>) {
        if !self.broken {
            self.fault(place, message.to_owned(), remedy);
        }
    }

    fn wrong_type(&mut self, place: &Place, seen: &DeValue<'_>, wanted: &str, example: &str) {
        self.fault(place, format!("{} is not {wanted}", describe(seen)), format!("write it as `{example}`"));
    }
}

/// A table and the keys that were asked for so far.
pub(super) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    pub(super) place: Place,
    asked: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(table: &'a DeTable<'i>, place: Place) -> Self {
        Self { table, place, asked: Vec::new() }
    }

    /// Whether the key is there, whatever it holds.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&mut self, key: &'static str, reading: &Reading<'_>) -> Option<At<&'a DeValue<'i>>> {
        self.asked.push(key);
        let value = self.table.get(key)?;
        // The parser puts an empty span where it recovered from an error: that error is reported already.
        if value.span().is_empty() {
            return None;
        }
        Some(At { value: value.get_ref(), place: self.place.child(reading.line(value), key) })
    }

    pub(super) fn string(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<At<String>> {
        let At { value, place } = self.get(key, reading)?;
        match value {
            DeValue::String(text) => Some(At { value: text.clone().into_owned(), place }),
            other => {
                reading.wrong_type(&place, other, "a text", &format!("{key} = \"...\""));
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required(
        &mut self,
        key: &'static str,
        example: &str,
        reading: &mut Reading<'_>,
    ) -> Option<At<String>> {
        if !self.has(key) {
            let place = self.place.child(self.place.line, key);
            reading.missing(&place, "is missing", format!("add `{key} = \"{example}\"`"));
        }
        self.string(key, reading)
    }

    pub(super) fn number(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<At<f64>> {
        let At { value, place } = self.get(key, reading)?;
        let Some(number) = number(value) else {
            reading.wrong_type(&place, value, "a number", &format!("{key} = 1.0"));
            return None;
        };
        Some(At { value: number, place })
    }

    pub(super) fn boolean(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<At<bool>> {
        let At { value, place } = self.get(key, reading)?;
        match value {
            DeValue::Boolean(value) => Some(At { value: *value, place }),
            other => {
                reading.wrong_type(&place, other, "true or false", &format!("{key} = true"));
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<At<Vec<At<String>>>> {
        self.list(key, "a list of texts", "[\"...\"]", reading, |value| match value {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        })
    }

    pub(super) fn integers(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<At<Vec<At<i64>>>> {
        self.list(key, "a list of whole numbers", "[2, 3]", reading, integer)
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        example: &str,
        reading: &mut Reading<'_>,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<At<Vec<At<T>>>> {
        let At { value, place } = self.get(key, reading)?;
        let DeValue::Array(array) = value else {
            reading.wrong_type(&place, value, wanted, &format!("{key} = {example}"));
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let place = place.element(reading.line(item), index);
            match read(item.get_ref()) {
                Some(value) => items.push(At { value, place }),
                None => reading.wrong_type(
                    &place,
                    item.get_ref(),
                    &format!("what {wanted} holds"),
                    &format!("{key} = {example}"),
                ),
            }
        }
        // With an element short it is another list: what is amiss with that one would be an echo.
        (items.len() == array.len()).then_some(At { value: items, place })
    }

    /// `"mix"`, or a whole number from 0.
    pub(super) fn text_or_integer(
        &mut self,
        key: &'static str,
        reading: &mut Reading<'_>,
    ) -> Option<At<TextOrInteger>> {
        let At { value, place } = self.get(key, reading)?;
        let read = match value {
            DeValue::String(text) => Some(TextOrInteger::Text(text.clone().into_owned())),
            other => integer(other).map(TextOrInteger::Integer),
        };
        if read.is_none() {
            reading.wrong_type(&place, value, "a text or a whole number", &format!("{key} = 0"));
        }
        read.map(|value| At { value, place })
    }

    /// A table below this one.
    pub(super) fn section(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Option<Section<'a, 'i>> {
        let At { value, place } = self.get(key, reading)?;
        match value {
            DeValue::Table(table) => Some(Section::new(table, place)),
            // Named by its type alone: a whole url, password and all, could stand here.
            other => {
                reading.fault(
                    &place,
                    format!("is of type {}, not a table", other.type_str()),
                    format!("write it as `[{key}]`"),
                );
                None
            }
        }
    }

    /// The tables of `[[key]]`; empty where there is none.
    pub(super) fn sections(&mut self, key: &'static str, reading: &mut Reading<'_>) -> Vec<Section<'a, 'i>> {
        let Some(At { value, place }) = self.get(key, reading) else { return Vec::new() };
        let DeValue::Array(array) = value else {
            reading.wrong_type(&place, value, "a list of tables", &format!("[[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let place = place.element(reading.line(item), index);
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(table, place)),
                other => reading.wrong_type(&place, other, "a table", &format!("[[{key}]]")),
            }
        }
        sections
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, reading: &mut Reading<'_>) {
        for key in self.table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())) {
            let name = shorten(key.get_ref());
            let place = self.place.child(reading.lines.at(key.span().start), &name);
            let remedy = match id::nearest(&name, &self.asked) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            reading.fault(&place, "is not a known key".into(), remedy);
        }
    }
}

/// See [`Section::text_or_integer`].
#[derive(Debug, Clone)]
pub(super) enum TextOrInteger {
    Text(String),
    Integer(i64),
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
