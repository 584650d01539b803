//! `clapd ask`: what a sentence would have scored in the last hours. The daemon has them in its memory, and is asked over its REST.

use std::io::{Write, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use ureq::Agent;

use super::exit::{AtStage, Failure, Stage, printed};
use super::paths;
use crate::config::{self, HttpSpec};
use crate::local_time::{LocalMoment, LocalZone};

/// The daemon answers within two minutes, or says that it takes longer.
const TIMEOUT: Duration = Duration::from_secs(150);
/// Six hours of ten windows a second are 5 MB.
const MAX_ANSWER: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct AskArguments {
    /// The sound in words, such as "glass breaking"
    text: String,
    /// The source's id; all of them without it
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// So many hours back
    #[arg(long, value_name = "H", conflicts_with = "from")]
    hours: Option<f64>,
    /// Local time, such as "2026-11-22 19:00"; without it as far back as there is anything
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Local time; without it until now
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The daemon's answer as JSON, a line a source: every window's score, times in milliseconds since 1970
    #[arg(long)]
    json: bool,
    /// The daemon's configuration file, which says where it listens
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
}

pub(super) fn run(arguments: &AskArguments) -> Result<(), Failure> {
    let (settings, _) = config::load(&arguments.config).at(Stage::Usage)?;
    let Some(http) = &settings.http else {
        let path = arguments.config.display();
        let text = format!("{path} has no [http], over which the running daemon is asked; add it, and restart clapd");
        return Err(Failure::message(Stage::Usage, text));
    };
    let zone = LocalZone::of_system();
    let [from, to] = period(arguments, &zone)?;
    let sources = settings.sources.iter().map(|source| source.id.as_str());
    let sources: Vec<&str> = arguments.source.as_deref().map_or_else(|| sources.collect(), |source| vec![source]);
    for source in sources {
        let answer = ask(http, &arguments.text, source, from, to)?;
        let text = if arguments.json { answer } else { describe(&answer, source, &zone)? };
        printed(writeln!(stdout(), "{text}")).at(Stage::Output)?;
    }
    Ok(())
}

/// Both ends in milliseconds since 1970; none where nobody has said.
fn period(arguments: &AskArguments, zone: &LocalZone) -> Result<[Option<u128>; 2], Failure> {
    let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let parse = |text: &Option<String>| text.as_deref().map(|text| zone.parse(text)).transpose();
    let parse = |text| parse(text).map_err(|error| Failure::message(Stage::Usage, error));
    let [from, to] = [parse(&arguments.from)?.map(millis), parse(&arguments.to)?.map(millis)];
    let Some(hours) = arguments.hours else { return Ok([from, to]) };
    let back = Duration::try_from_secs_f64(hours * 3_600.0).map_err(|_| {
        Failure::message(Stage::Usage, format!("--hours is {hours}, and a number from 0 on is allowed; write 6"))
    })?;
    let to = to.unwrap_or_else(|| millis(SystemTime::now()));
    Ok([Some(to.saturating_sub(back.as_millis())), Some(to)])
}

/// The daemon's answer.
fn ask(http: &HttpSpec, text: &str, source: &str, from: Option<u128>, to: Option<u128>) -> Result<String, Failure> {
    let address = reachable(http.listen);
    // What listens on this computer is reached directly, whatever proxy the environment names.
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).proxy(None);
    let agent: Agent = config.build().into();
    let mut request = agent.get(format!("http://{address}/api/v1/ask")).query("text", text).query("source", source);
    for (key, time) in [("from", from), ("to", to)] {
        if let Some(time) = time {
            request = request.query(key, time.to_string());
        }
    }
    if let Some(token) = http.read_token.as_ref().or(http.write_token.as_ref()) {
        request = request.header("Authorization", format!("Bearer {}", token.reveal()));
    }
    let mut response = request.call().map_err(|error| {
        Failure::message(Stage::Other, format!("{address}: {error}; is the daemon running, with this configuration?"))
    })?;
    let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().at(Stage::Other)?;
    if response.status().is_success() {
        return Ok(body);
    }
    let error = serde_json::from_str::<Value>(&body).ok();
    let error = error.as_ref().and_then(|error| error["error"].as_str()).unwrap_or(&body);
    Err(Failure::message(Stage::Other, format!("{address}: {}: {error}", response.status())))
}

/// Where something that listens there is reached from this computer.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The answer in lines: how much there is, and the best moments.
fn describe(answer: &str, source: &str, zone: &LocalZone) -> Result<String, Failure> {
    let answer: Value = serde_json::from_str(answer).at(Stage::Other)?;
    let time = |value: &Value| {
        let time = UNIX_EPOCH + Duration::from_millis(value.as_u64().unwrap_or_default());
        let LocalMoment { date, time, .. } = zone.moment(time);
        format!("{date} {time}")
    };
    let windows = answer["windows"].as_u64().unwrap_or_default();
    if windows == 0 {
        return Ok(format!("{source}: nothing was heard then, or it is no longer kept; see [history]"));
    }
    let mut text = format!("{source}: {windows} window(s), {} to {}", time(&answer["from"]), time(&answer["to"]));
    for best in answer["best"].as_array().into_iter().flatten() {
        text += &format!("\n{:5.1}  {}", best["score"].as_f64().unwrap_or_default(), time(&best["at"]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_best_moments_in_local_time() {
        let zone = LocalZone::named("Europe/Berlin").unwrap();
        let answer =
            r#"{"windows":2,"from":1795370400000,"to":1795370401000,"best":[{"at":1795370400500,"score":8.26}]}"#;
        let expected = "mic: 2 window(s), 2026-11-22 19:00:00 to 2026-11-22 19:00:01\n  8.3  2026-11-22 19:00:00";
        assert_eq!(describe(answer, "mic", &zone).unwrap(), expected);
        let nothing = describe(r#"{"windows":0,"from":null,"to":null,"best":[]}"#, "mic", &zone).unwrap();
        assert!(nothing.contains("nothing was heard then"), "{nothing}");
    }

    #[test]
    fn what_listens_everywhere_is_reached_here() {
        for (listen, reached) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:81", "[::1]:81"), ("192.168.1.2:82", "192.168.1.2:82")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
