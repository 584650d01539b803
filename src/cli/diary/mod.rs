//! `clapd diary`: the events of the past, for a person, a spreadsheet or a printer.
//!
//! It reads the daemon's journal, also while that writes it, and shows the time of day of the computer that it runs on.

mod page;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clapd_core::text::csv_field;

use super::exit::{AtStage, Failure, Stage, printed};
use super::paths;
use crate::journal::{EventQuery, JournalEntry, JournalPage, JournalReader};
use crate::local_time::LocalZone;
use crate::prompts;

/// Days that are shown unless somebody says from when: a week, today included.
const USUAL_DAYS: i32 = 7;
/// Where the service has its journal, which another user's own state folder does not.
const SERVICE_STATE: &str = "/var/lib/clapd";
const HEADER: &str = "date,time,utc_offset,duration_s,source,prompt_id,prompt,score,peak,laeq,lafmax,level_unit,started_at,ended_at,id,clip\n";

#[derive(Debug, clap::Args)]
pub(super) struct DiaryArguments {
    /// From when on, such as 2026-11-22 or "2026-11-22 19:00" (default: a week ago)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when (default: now)
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Of this source alone
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// Of this prompt alone
    #[arg(long, value_name = "ID")]
    prompt: Option<String>,
    /// A table for a spreadsheet
    #[arg(long, conflicts_with = "html")]
    csv: bool,
    /// A page for a browser or a printer
    #[arg(long)]
    html: bool,
    /// Configuration of the daemon
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    /// The folder with the daemon's events.jsonl, instead of asking the configuration: a copy from another computer
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

/// What a diary is of.
struct Diary {
    zone: LocalZone,
    from: SystemTime,
    to: SystemTime,
    events: Vec<JournalEntry>,
}

pub(super) fn run(arguments: &DiaryArguments) -> Result<(), Failure> {
    let (zone, now) = (LocalZone::of_system(), SystemTime::now());
    let time = |option: &str, text: &Option<String>, usual: SystemTime| match text {
        Some(text) => zone.parse(text).map_err(|seen| Failure::message(Stage::Usage, format!("{option}: {seen}"))),
        None => Ok(usual),
    };
    let to = time("--to", &arguments.to, now)?;
    let from = time("--from", &arguments.from, zone.day_start(to, USUAL_DAYS - 1))?;
    if from >= to {
        return Err(Failure::message(Stage::Usage, "--from is not before --to"));
    }
    let reader = find_journal(arguments)?;
    let (source, prompt) = (arguments.source.clone(), arguments.prompt.clone());
    let query = EventQuery { source, prompt, ..EventQuery::between(from, to) };
    let page = reader.find(&query).map_err(|error| {
        let path = reader.path().display();
        let remedy = if error.kind() == io::ErrorKind::PermissionDenied { "; use sudo" } else { "" };
        Failure::message(Stage::Usage, format!("{path}: {error}{remedy}"))
    })?;
    let JournalPage { events, left_out, damaged } = page;
    if left_out > 0 {
        log::warn!("{left_out} events before these are left out; ask for a shorter time with --from and --to");
    }
    if damaged > 0 {
        log::warn!("{}: {damaged} lines are damaged, as by a power cut, and left out", reader.path().display());
    }
    let diary = Diary { zone, from, to, events };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = match (arguments.csv, arguments.html) {
        (true, _) => write_csv(&diary, &mut out),
        (_, true) => out.write_all(page::html(&diary).as_bytes()),
        _ => write_lines(&diary, &mut out),
    };
    printed(written.and_then(|()| out.flush())).at(Stage::Output)
}

/// The journal of the daemon: in the state folder of this process, or where the service has it.
fn find_journal(arguments: &DiaryArguments) -> Result<JournalReader, Failure> {
    if let Some(folder) = &arguments.journal {
        let reader = JournalReader::in_folder(folder);
        return match reader.path().metadata() {
            Ok(_) => Ok(reader),
            Err(error) => Err(Failure::message(Stage::Usage, format!("{}: {error}", reader.path().display()))),
        };
    }
    let (settings, _) = prompts::load_settings(&arguments.config).at(Stage::Usage)?;
    let Some(spec) = settings.journal else {
        let seen = "keeps no journal: journal.max_days is 0, or there is no state folder";
        return Err(Failure::message(Stage::Usage, format!("{}: {seen}", arguments.config.display())));
    };
    let (own, service) = (JournalReader::in_folder(&spec.folder), JournalReader::in_folder(Path::new(SERVICE_STATE)));
    // One that may not be read is the service's, too; to read it is for who may.
    let is_missing = |reader: &JournalReader| {
        reader.path().metadata().is_err_and(|error| error.kind() != io::ErrorKind::PermissionDenied)
    };
    match (is_missing(&own), is_missing(&service)) {
        (false, _) => Ok(own),
        (true, false) => Ok(service),
        (true, true) => {
            let looked = format!("{} nor {}", own.path().display(), service.path().display());
            let remedy = "it is written by `clapd run` when an event has ended; a copy is named with --journal";
            Err(Failure::message(Stage::Usage, format!("there is no journal yet, neither {looked}; {remedy}")))
        }
    }
}

/// A line for each event.
fn write_lines(diary: &Diary, out: &mut impl Write) -> io::Result<()> {
    for event in &diary.events {
        let at = diary.zone.moment(event.started_at);
        let seconds = event.duration.as_secs_f64();
        let level = event.levels.map_or_else(String::new, |levels| {
            format!("  {:.1} {} (max {:.1})", levels.laeq, levels.reference.unit(), levels.lafmax)
        });
        writeln!(
            out,
            "{} {} {}  {seconds:>7.1} s{level}  {}: {}  {:.1}",
            at.date, at.time, at.offset, event.source, event.prompt, event.peak
        )?;
    }
    if diary.events.is_empty() {
        log::info!("no event in that time");
    }
    Ok(())
}

fn write_csv(diary: &Diary, out: &mut impl Write) -> io::Result<()> {
    out.write_all(HEADER.as_bytes())?;
    for event in &diary.events {
        let at = diary.zone.moment(event.started_at);
        let level = |level: Option<f32>| level.map_or_else(String::new, |level| format!("{level:.1}"));
        let levels = event.levels;
        let fields = [
            at.date,
            at.time,
            at.offset,
            format!("{:.1}", event.duration.as_secs_f64()),
            event.source.clone(),
            event.prompt_id.clone(),
            event.prompt.clone(),
            format!("{:.1}", event.score),
            format!("{:.1}", event.peak),
            level(levels.map(|levels| levels.laeq)),
            level(levels.map(|levels| levels.lafmax)),
            levels.map_or("", |levels| levels.reference.unit()).to_owned(),
            humantime::format_rfc3339_millis(event.started_at).to_string(),
            humantime::format_rfc3339_millis(event.ended_at()).to_string(),
            event.id.clone(),
            event.clip.clone().unwrap_or_default(),
        ];
        let fields: Vec<String> = fields.iter().map(|field| csv_field(field)).collect();
        writeln!(out, "{}", fields.join(","))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::levels::{EventLevels, LevelReference};

    /// Two events, an hour before and after summer time ends in Berlin.
    pub(super) fn diary(reference: LevelReference) -> Diary {
        let autumn = SystemTime::UNIX_EPOCH + Duration::from_secs(1_792_890_000);
        let event = |offset_s: u64, levels| JournalEntry {
            id: "9f-mic-0".into(),
            source: "mic".into(),
            prompt_id: "dog".into(),
            prompt: "a <dog>, \"barking\"".into(),
            score: 7.0,
            peak: 8.25,
            started_at: autumn + Duration::from_secs(offset_s) - Duration::from_secs(3_600),
            duration: Duration::from_millis(3_250),
            levels,
            clip: None,
        };
        let levels = EventLevels { laeq: 61.24, lafmax: 70.0, reference };
        Diary {
            zone: LocalZone::named("Europe/Berlin").unwrap(),
            from: autumn - Duration::from_secs(86_400),
            to: autumn + Duration::from_secs(86_400),
            events: vec![event(1_800, Some(levels)), event(3_600 + 1_800, None)],
        }
    }

    #[test]
    fn a_table_has_local_time_with_its_offset_and_is_quoted() {
        let mut out = Vec::new();
        write_csv(&diary(LevelReference::SoundPressure), &mut out).unwrap();
        let rows = "2026-10-25,02:30:00,+02:00,3.2,mic,dog,\"a <dog>, \"\"barking\"\"\",7.0,8.2,61.2,70.0,dB(A),2026-10-25T00:30:00.000Z,2026-10-25T00:30:03.250Z,9f-mic-0,\n\
                    2026-10-25,02:30:00,+01:00,3.2,mic,dog,\"a <dog>, \"\"barking\"\"\",7.0,8.2,,,,2026-10-25T01:30:00.000Z,2026-10-25T01:30:03.250Z,9f-mic-0,\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{HEADER}{rows}"));
        let mut out = Vec::new();
        write_lines(&diary(LevelReference::FullScale), &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        assert!(
            lines.starts_with("2026-10-25 02:30:00 +02:00      3.2 s  61.2 dBFS(A) (max 70.0)  mic: a <dog>"),
            "{lines}"
        );
    }
}
