//! CSV as a table of text: a line of column names, then records, whose fields are asked for by name. A record with more
//! or fewer fields than columns is an error with its line.

use anyhow::{Context, Result, ensure};
use csv_core::{ReadRecordResult, Reader};

/// The published tables have 8 columns; more than this is no table of ratings.
const MAX_COLUMNS: usize = 64;

/// A table.
pub(crate) struct CsvTable {
    columns: Vec<String>,
    records: Vec<(u64, Vec<String>)>,
}

/// A row of a table.
#[derive(Clone, Copy)]
pub(crate) struct CsvRow<'a> {
    columns: &'a [String],
    fields: &'a [String],
}

impl CsvTable {
    /// Reads a table; empty lines are passed over.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut records = records(text.trim_start_matches('\u{feff}'))?;
        ensure!(!records.is_empty(), "is empty; a line of column names and rows are needed");
        let (_, columns) = records.remove(0);
        let columns: Vec<String> = columns.iter().map(|name| name.trim().to_owned()).collect();
        for (line, fields) in &records {
            ensure!(
                fields.len() == columns.len(),
                "line {line}: has {} fields, the columns are {} ({columns:?}); put quotes around a text with commas",
                fields.len(),
                columns.len()
            );
        }
        Ok(Self { columns, records })
    }

    /// The columns' names, in order.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether there is such a column.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// What `make` makes of every row; an error names the line.
    pub(crate) fn map<T>(&self, mut make: impl FnMut(CsvRow<'_>) -> Result<T>) -> Result<Vec<T>> {
        let row = |(line, fields): &'_ (u64, Vec<String>)| {
            make(CsvRow { columns: &self.columns, fields }).with_context(|| format!("line {line}"))
        };
        self.records.iter().map(row).collect()
    }
}

impl<'a> CsvRow<'a> {
    /// A field; none where there is no such column, or nothing in it.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        let place = self.columns.iter().position(|column| column == name)?;
        Some(self.fields[place].as_str()).filter(|field| !field.is_empty())
    }

    /// A field that has to be there.
    pub(crate) fn need(self, name: &str) -> Result<&'a str> {
        self.get(name).with_context(|| format!("{name} is empty"))
    }

    /// A field that has to be a number.
    pub(crate) fn number(self, name: &str) -> Result<f64> {
        let text = self.need(name)?;
        text.trim().parse().with_context(|| format!("{name} is {text:?}; a number is needed"))
    }
}

fn records(text: &str) -> Result<Vec<(u64, Vec<String>)>> {
    let (mut reader, mut input) = (Reader::new(), text.as_bytes());
    // No record is longer than its file.
    let (mut output, mut ends) = (vec![0; input.len() + 1], [0; MAX_COLUMNS]);
    let (mut records, mut filled, mut fields, mut line) = (Vec::new(), 0, 0, 1);
    loop {
        let (result, read, written, ended) = reader.read_record(input, &mut output[filled..], &mut ends[fields..]);
        (input, filled, fields) = (&input[read..], filled + written, fields + ended);
        match result {
            ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull => {}
            ReadRecordResult::OutputEndsFull => {
                anyhow::bail!("line {line}: has over {MAX_COLUMNS} fields; is it a CSV file?")
            }
            ReadRecordResult::Record => {
                let begins = std::iter::once(0).chain(ends[..fields].iter().copied());
                let field =
                    |(begin, end): (usize, &usize)| std::str::from_utf8(&output[begin..*end]).map(str::to_owned);
                let record: Result<Vec<String>, _> = begins.zip(&ends[..fields]).map(field).collect();
                records.push((line, record?));
                (filled, fields, line) = (0, 0, reader.line());
            }
            ReadRecordResult::End => return Ok(records),
        }
    }
}

#[cfg(test)]
mod tests {
    use clapd_core::text::csv_field;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_line_ends_and_marks_of_other_programs() {
        let table = CsvTable::parse("\u{feff}a, b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n2,\n").unwrap();
        assert_eq!(table.columns(), ["a", "b"]);
        let rows = table.map(|row| Ok((row.number("a")?, row.get("b").map(str::to_owned)))).unwrap();
        assert_eq!(rows, [(1.0, Some("x, \"y\"\nz".to_owned())), (2.0, None)]);
        let error = CsvTable::parse("a,b\n1,2,3\n").err().unwrap().to_string();
        assert!(error.contains("line 2") && error.contains("3 fields"), "{error}");
        let error = format!("{:#}", table.map(|row| row.need("b").map(drop)).unwrap_err());
        assert!(error.contains("b is empty"), "{error}");
        assert!(CsvTable::parse(&",".repeat(100)).is_err() && CsvTable::parse("").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in prop::collection::vec("[a-z,\"\n\r é]{0,12}", 2..5)) {
            let names = (0..fields.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
            let line = fields.iter().map(|field| csv_field(field)).collect::<Vec<_>>().join(",");
            let table = CsvTable::parse(&format!("{names}\n{line}\n")).unwrap();
            let rows = table.map(|row| Ok((0..fields.len()).map(|n| row.get(&n.to_string()).unwrap_or_default().to_owned()).collect::<Vec<_>>()));
            prop_assert_eq!(rows.unwrap(), [fields]);
        }
    }
}
