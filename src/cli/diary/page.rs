//! A diary as a page that needs nothing else: for a browser, for a printer, and for whoever it is handed to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::Diary;
use crate::journal::JournalEntry;
use crate::levels::LevelReference;
use crate::local_time::LocalMoment;

const STYLE: &str = "\
body { font: 15px/1.4 system-ui, sans-serif; color: #111; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #bbb; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
p.note { color: #444; }
@page { margin: 15mm; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } thead { display: table-header-group; } tr { break-inside: avoid; } }
";

/// The whole page.
pub(super) fn html(diary: &Diary) -> String {
    let (from, to) = (diary.zone.moment(diary.from), diary.zone.moment(diary.to));
    let shown = |at: &LocalMoment| format!("{} {} ({})", at.date, at.time, at.offset);
    let zone = diary.zone.name().map_or_else(String::new, |name| format!(", time zone {}", escape(name)));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Sound diary {} to {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Sound diary</h1>\n\
         <p>From {} to {}{zone}. {} events.</p>\n",
        from.date,
        to.date,
        shown(&from),
        shown(&to),
        diary.events.len()
    );
    for note in notes(diary) {
        // Writing to a text does not fail.
        let _ = writeln!(page, "<p class=\"note\">{note}</p>");
    }
    page.push_str(&summary(diary));
    page.push_str(&events(diary));
    page.push_str("</body>\n</html>\n");
    page
}

/// What a reader has to know of the numbers.
fn notes(diary: &Diary) -> Vec<&'static str> {
    let has = |reference| diary.events.iter().any(|event| event.levels.is_some_and(|it| it.reference == reference));
    let mut notes = Vec::new();
    if has(LevelReference::SoundPressure) {
        notes.push(
            "Levels in dB(A) are A-weighted sound pressure levels of a microphone that somebody has calibrated. No class of \
             IEC 61672 is claimed: they are no measurement in the sense of a law or a contract.",
        );
    }
    if has(LevelReference::FullScale) {
        notes.push(
            "Levels in dBFS(A) are of a microphone that is not calibrated: they compare events with each other, and are no sound \
             pressure levels.",
        );
    }
    notes.push(
        "Which sound it was is a program's estimate. It misses sounds, and hears some that were not there; the score, from 0 to 10, is how \
         well the sound fitted the words.",
    );
    notes
}

/// For each day and prompt: how often, how long, how loud.
fn summary(diary: &Diary) -> String {
    let mut days: BTreeMap<(String, &str), Vec<&JournalEntry>> = BTreeMap::new();
    for event in &diary.events {
        days.entry((diary.zone.moment(event.started_at).date, event.prompt.as_str())).or_default().push(event);
    }
    let mut table = "<h2>By day</h2>\n<table>\n<thead><tr><th>Day</th><th>Sound</th><th class=\"n\">Events</th>\
                     <th class=\"n\">Together</th><th class=\"n\">Loudest, LAFmax</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for ((day, prompt), events) in days {
        let together: Duration = events.iter().map(|event| event.duration).sum();
        let loudest = events.iter().filter_map(|event| event.levels).max_by(|a, b| a.lafmax.total_cmp(&b.lafmax));
        let loudest = loudest.map_or_else(String::new, |it| format!("{:.1} {}", it.lafmax, it.reference.unit()));
        let _ = writeln!(
            table,
            "<tr><td>{day}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{loudest}</td></tr>",
            escape(prompt),
            events.len(),
            length(together)
        );
    }
    table + "</tbody>\n</table>\n"
}

fn events(diary: &Diary) -> String {
    let mut table = "<h2>Events</h2>\n<table>\n<thead><tr><th>Day</th><th>Time</th><th class=\"n\">Lasted</th><th>Sound</th>\
                     <th>Place</th><th class=\"n\">LAeq</th><th class=\"n\">LAFmax</th><th>Unit</th><th class=\"n\">Score</th></tr></thead>\n\
                     <tbody>\n"
        .to_owned();
    for event in &diary.events {
        let LocalMoment { date, time, offset } = diary.zone.moment(event.started_at);
        let level = |level: Option<f32>| level.map_or_else(String::new, |level| format!("{level:.1}"));
        let (laeq, lafmax) = (event.levels.map(|it| it.laeq), event.levels.map(|it| it.lafmax));
        let _ = writeln!(
            table,
            "<tr><td>{date}</td><td>{time} {offset}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td><td class=\"n\">{:.1}</td></tr>",
            length(event.duration),
            escape(&event.prompt),
            escape(&event.source),
            level(laeq),
            level(lafmax),
            event.levels.map_or("", |it| it.reference.unit()),
            event.peak
        );
    }
    table + "</tbody>\n</table>\n"
}

/// As a person reads it: `3.2 s`, `4 min 10 s`, `1 h 05 min`.
fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A text that is no markup, whatever it holds.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::diary;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_takes_no_text_for_markup() {
        let page = html(&diary(LevelReference::FullScale));
        assert!(page.contains("a &lt;dog&gt;, &quot;barking&quot;") && !page.contains("<dog>"), "{page}");
        assert!(page.contains("02:30:00 +02:00") && page.contains("02:30:00 +01:00") && page.contains("Europe/Berlin"));
        assert!(page.contains("not calibrated") && !page.contains("IEC 61672"), "{page}");
        assert!(page.contains("61.2") && page.contains("@media print") && page.contains("<td class=\"n\">2</td>"));
        for outside in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let calibrated = html(&diary(LevelReference::SoundPressure));
        assert!(calibrated.contains("No class of IEC 61672 is claimed") && !calibrated.contains("not calibrated"));
        // Each element is closed.
        for element in ["table", "tr", "td", "thead", "tbody", "body", "p"] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn lengths_are_as_people_say_them() {
        let texts = [3_240, 59_990, 250_000, 3_900_000].map(|ms| length(Duration::from_millis(ms)));
        assert_eq!(texts, ["3.2 s", "60.0 s", "4 min 10 s", "1 h 05 min"]);
    }
}
