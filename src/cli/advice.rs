//! What `clapd watch` advises: a start, a stop and a confirmation for each prompt, and what can be claimed for them.
//!
//! It is printed as text with TOML to paste, or as a JSON line a prompt, and claims no rate that so short a time cannot show.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use clapd_core::detect::suggest::{MIN_START, Series, Suggestion, at_most_per_hour, suggest};
use clapd_core::prompts::{Prompt, Rule};
use serde::Serialize;

use super::exit::printed;

/// Less says nothing of a room, and is most likely a recording of the sound itself.
const MIN_DURATION: Duration = Duration::from_secs(10);

/// A line of `--json`; its names are frozen. Rates are alarms an hour.
#[derive(Serialize)]
struct AdviceLine<'a> {
    prompt: &'a str,
    id: &'a str,
    /// None (as the next two) where no start is high enough.
    start: Option<f64>,
    stop: Option<f64>,
    confirm: Option<[u32; 2]>,
    /// The highest score that was heard.
    peak: f64,
    heard_s: f64,
    wanted_per_hour: f64,
    /// What the suggestion would have made in the time heard, and what the rule as it is made.
    false_alarms: u64,
    false_alarms_as_it_is: u64,
    /// With 95% certainty, for a room as it was heard.
    at_most_per_hour: f64,
    /// Whether that is no more than what was wanted.
    shown: bool,
}

/// Prints advice for every prompt.
///
/// # Errors
/// Too little was heard to say anything; an output that is closed.
pub(super) fn print(
    prompts: &[Prompt],
    labels: &[String],
    series: &[Series],
    duration: Duration,
    target_rate: f64,
    json: bool,
) -> Result<()> {
    ensure!(
        duration >= MIN_DURATION,
        "only {:.0} s of sound were heard, and {} s are the least to suggest anything from; listen longer",
        duration.as_secs_f64(),
        MIN_DURATION.as_secs()
    );
    let hours = duration.as_secs_f64() / 3600.0;
    let allowed = (target_rate * hours).floor() as u64;
    let advice: Vec<(&Prompt, Suggestion)> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| (prompt, suggest(series, index, prompt.rule, allowed)))
        .collect();
    let mut out = std::io::stdout().lock();
    if json {
        for ((prompt, advice), label) in advice.iter().zip(labels) {
            let line = serde_json::to_string(&line(prompt, label, advice, duration, target_rate))?;
            printed(writeln!(out, "{line}"))?;
        }
        return Ok(());
    }
    printed(writeln!(out, "\n# {}", preface(duration, target_rate)))?;
    for (prompt, advice) in &advice {
        printed(write!(out, "\n{}", snippet(prompt, advice, duration)))?;
    }
    let condition = "These hold only if none of these sounds occurred. If one did, listen again without it.";
    Ok(printed(writeln!(out, "\n# {condition}"))?)
}

/// What so long a time can show.
fn preface(duration: Duration, target_rate: f64) -> String {
    let (minutes, none) = (duration.as_secs_f64() / 60.0, at_most_per_hour(0, duration));
    let needed = at_most_per_hour(0, Duration::from_secs(3600)) / target_rate;
    let claim = if none > target_rate {
        format!(
            "\n# That is too short to show {target_rate}: even no alarm at all only shows fewer than {none:.1} an hour (95%).\
             \n# Listen {needed:.1} hours without an alarm to be sure; until then a start just above the loudest moment is a guess."
        )
    } else {
        String::new()
    };
    format!("Heard {minutes:.1} minutes; wanted: at most {target_rate} false alarms an hour for each prompt.{claim}")
}

fn snippet(prompt: &Prompt, advice: &Suggestion, duration: Duration) -> String {
    let name = match &prompt.text {
        Some(text) => format!("text = {}", quoted(text)),
        None => format!("id = {}", quoted(prompt.id.as_str())),
    };
    let before = format!(
        "peak {:.1}; {} false alarm(s) at start {}",
        advice.peak,
        advice.alarms_now,
        rounded(prompt.rule.start)
    );
    let Some(Rule { start, stop, confirm: (n, m), .. }) = advice.rule else {
        return format!(
            "[[prompt]]\n{name}\n# {before}. Even a start of 10 is too low for this room: say it in other words, or name what it\n\
             # is taken for as `contrast`.\n"
        );
    };
    let most = at_most_per_hour(advice.alarms, duration);
    let floor = if start <= MIN_START { ", the lowest that is suggested" } else { "" };
    format!(
        "[[prompt]]\n{name}\nstart = {:?}\nstop = {:?}\nconfirm = [{n}, {m}]\n# {before}. With these {}, fewer than {most:.1} an hour (95%){floor}.\n",
        rounded(start),
        rounded(stop),
        advice.alarms,
    )
}

/// A TOML string. JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line<'a>(
    prompt: &'a Prompt,
    id: &'a str,
    advice: &Suggestion,
    duration: Duration,
    target_rate: f64,
) -> AdviceLine<'a> {
    let most = at_most_per_hour(advice.alarms, duration);
    AdviceLine {
        prompt: prompt.name(),
        id,
        start: advice.rule.map(|rule| rounded(rule.start)),
        stop: advice.rule.map(|rule| rounded(rule.stop)),
        confirm: advice.rule.map(|rule| [rule.confirm.0, rule.confirm.1]),
        peak: rounded(advice.peak),
        heard_s: duration.as_secs_f64(),
        wanted_per_hour: target_rate,
        false_alarms: advice.alarms,
        false_alarms_as_it_is: advice.alarms_now,
        at_most_per_hour: (most * 1e3).round() / 1e3,
        shown: advice.rule.is_some() && most <= target_rate,
    }
}

/// Two decimals tell apart what the model can tell apart.
fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1e2).round() / 1e2
}
