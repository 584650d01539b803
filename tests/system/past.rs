//! The past as programs ask for it: what was scored live is what the past says, and what it says of any sentence and any rule.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http::{ANY, READ, Served, WRITE, playing, tokens};
use crate::support::broker::Broker;
use crate::support::http::{Viewer, get, post, request, send};
use crate::support::node::{NOBODY, mqtt};

/// Twice a second, so that the recording is soon long enough.
const FAST: &str = "[scoring]\nhop_s = 0.5\n";
/// 16 bits a number move no score by more.
const TOLERANCE: f64 = 0.011;

fn millis(time: &Value) -> i64 {
    let time = humantime::parse_rfc3339(time.as_str().expect("a text")).expect("a time");
    i64::try_from(time.duration_since(UNIX_EPOCH).expect("is later").as_millis()).expect("is near")
}

/// The stream's windows until there are so many: each prompt's scores by the time of the window's end.
fn watch(address: SocketAddr, count: usize) -> BTreeMap<i64, Value> {
    let mut viewer = Viewer::open(address, "/api/v1/stream?kinds=window", &[]);
    let mut windows = BTreeMap::new();
    while windows.len() < count {
        let window = viewer.wait_for("window").data;
        windows.insert(millis(&window["ended_at"]), window);
    }
    windows
}

fn column(data: &Value) -> Vec<f64> {
    data.as_array().expect("a list").iter().map(|it| it.as_f64().expect("a number")).collect()
}

fn near(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    assert!(one.iter().zip(other).all(|(a, b)| (a - b).abs() < TOLERANCE), "{one:?} {other:?}");
}

#[test]
fn the_past_says_what_was_said_live() {
    let served = Served::start(&format!("{ANY}{}{FAST}", playing()), "access = \"off\"\n");
    let live = watch(served.address, 24);
    let (first, last) = (live.keys().next().expect("some"), live.keys().last().expect("some"));
    let past = served.get(&format!("/api/v1/scores?source=mic&from={first}&to={last}")).json();
    let at: Vec<i64> = past["at"].as_array().expect("a list").iter().filter_map(Value::as_i64).collect();
    assert_eq!(at, live.keys().copied().collect::<Vec<_>>());
    for (prompt, scores) in past["prompts"].as_object().expect("by prompt") {
        let of_prompt = |window: &Value| {
            let prompts = window["prompts"].as_array().expect("a list").clone();
            prompts.iter().find(|it| it["id"] == **prompt).and_then(|it| it["score"].as_f64()).expect("a score")
        };
        near(&column(scores), &live.values().map(of_prompt).collect::<Vec<_>>());
    }
    assert!(past["gated"].as_array().is_some_and(|it| it.iter().all(|gated| *gated == 0)));

    // The same text, asked as any sentence.
    let asked = served.get(&format!("/api/v1/ask?text=a%20dog%20barking&from={first}&to={last}")).json();
    assert_eq!(asked["at"], past["at"]);
    near(&column(&asked["scores"]), &column(&past["prompts"]["dog"]));
    let best = column(&asked["scores"]).into_iter().fold(0.0, f64::max);
    assert_eq!(asked["best"][0]["score"], json!(best), "{asked}");
    let one = served.get(&format!("/api/v1/scores?source=mic&prompt=dog&from={first}&to={last}")).json();
    assert_eq!(
        (&one["prompts"]["dog"], one["prompts"].as_object().map(serde_json::Map::len)),
        (&past["prompts"]["dog"], Some(1))
    );

    // As a command, which has no need of every score.
    let answer = post(served.address, "/api/v1/request/ask", &[], r#"{"text":"rain","source":"mic"}"#).json();
    let data = &answer["data"];
    assert!(data["windows"].as_u64() >= Some(24) && data["best"].is_array() && data["scores"].is_null(), "{answer}");
    for (path, status) in [
        ("scores?source=mac", 404),
        ("scores", 400),
        ("scores?source=mic&prompt=cow", 404),
        ("ask?text=", 400),
        ("ask?text=x&source=mac", 400),
        ("whatif?source=mic&prompt=cow", 404),
        ("whatif?source=mic&prompt=dog&start=11", 400),
        ("heard?source=mac", 404),
        ("heard?source=mic&x=1", 400),
    ] {
        assert_eq!(served.get(&format!("/api/v1/{path}")).status, status, "{path}");
    }
    served.stop();
}

#[test]
fn the_rule_in_force_makes_the_events_that_were_and_others_make_others() {
    let served = Served::start(&format!("{ANY}{}{FAST}", playing()), "access = \"off\"\n");
    let mut viewer = Viewer::open(served.address, "/api/v1/stream?kinds=window,event", &[("Last-Event-ID", "none")]);
    // The first event was before anybody looked: another prompt starts one.
    let merge = r#"{"merge":[{"id":"all","text":"a sound","start":0,"stop":0,"confirm":[2,3]}]}"#;
    assert_eq!(post(served.address, "/api/v1/request/prompts/set", &[], merge).status, 200);
    let event = loop {
        let event = viewer.next().expect("goes on");
        if event.kind == "event" && event.data["prompt_id"] == "all" {
            break event.data;
        }
    };
    watch(served.address, 4);
    let what_if = |query: &str| served.get(&format!("/api/v1/whatif?source=mic&{query}")).json();
    let same = what_if("prompt=all");
    assert_eq!((&same["count"], &same["new"], &same["gone"]), (&json!(1), &json!(0), &json!(0)), "{same}");
    assert_eq!(same["events"][0]["ended_at"], Value::Null);
    // The prompt's sound was there before the prompt was: its event begins with the past, and no later than what was live. Each of the two
    // times is cut to the millisecond.
    let started_at = same["events"][0]["started_at"].as_i64().expect("a time");
    assert!(started_at <= millis(&event["started_at"]) + 1, "{same} {event}");
    let none = what_if("prompt=all&start=10&stop=10");
    assert_eq!((&none["count"], &none["gone"]), (&json!(0), &json!(1)), "{none}");
    let dog = what_if("prompt=dog&start=0&stop=0&confirm=1,1&cooldown_s=0");
    assert_eq!(dog["count"], 1, "{dog}");
    served.stop();
}

#[test]
fn what_is_heard_is_said_in_captions_while_somebody_looks() {
    let served = Served::start(&format!("{}{FAST}", playing()), "access = \"off\"\n");
    let mut viewer = Viewer::open(served.address, "/api/v1/stream?kinds=window", &[]);
    let window = loop {
        let window = viewer.wait_for("window").data;
        if window["heard"].is_array() {
            break window;
        }
    };
    let heard = window["heard"].as_array().expect("a list");
    assert_eq!(heard.len(), 3);
    assert!(heard.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()), "{heard:?}");
    let asked = served.get("/api/v1/heard?source=mic").json();
    assert_eq!(asked["captions"].as_array().map(Vec::len), Some(5), "{asked}");
    assert!(asked["at"].as_i64() >= Some(millis(&window["ended_at"])));
    served.stop();
}

#[test]
fn a_person_asks_on_the_command_line_with_the_token_of_the_configuration() {
    let served = Served::start(&format!("{}{FAST}", playing()), &tokens("token"));
    let bearer = format!("Bearer {READ}");
    let headers = [("Authorization", bearer.as_str())];
    while get(served.address, "/api/v1/scores?source=mic", &headers).json()["at"].as_array().is_none_or(Vec::is_empty) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Who may read may ask, and snoozes nobody.
    assert_eq!(get(served.address, "/api/v1/ask?text=rain", &headers).status, 200);
    assert_eq!(post(served.address, "/api/v1/request/snooze", &headers, r#"{"minutes":5}"#).status, 403);
    assert_ne!(READ, WRITE);
    let config = served.daemon.folder.path().join("clapd.toml");
    let ask = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_clapd")).arg("ask").args(arguments).arg("--config").arg(&config).output();
        let output = output.expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, text, _) = ask(&["a dog barking", "--hours", "1"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.starts_with("mic: ") && text.contains(" window(s), ") && text.lines().count() >= 2, "{text}");
    let (_, json, _) = ask(&["a dog barking", "--json", "--source", "mic", "--from", "2020-01-01"]);
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["at"].as_array().map(Vec::len), answer["windows"].as_u64().map(|it| it as usize));
    let (status, _, error) = ask(&["rain", "--source", "mac"]);
    assert!(status == Some(1) && error.contains("there is no source of this id"), "{error}");
    let (status, _, error) = ask(&["rain", "--from", "yesterday"]);
    assert!(status == Some(2) && error.contains("is no time"), "{error}");
    served.stop();
}

#[test]
fn without_the_table_mqtt_is_told_that_no_past_is_kept_and_with_it_asks() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let more = format!("{}{FAST}{}", playing(), mqtt(&broker));
    let daemon = crate::support::node::Daemon::start(&more, |_, _| ());
    watcher.wait_for("0 1 clapd/attic/health");
    broker.publish("clapd/attic/request/ask", r#"{"transaction":1,"text":"rain"}"#);
    let refused = watcher.wait_for("0 1 clapd/attic/response/ask");
    assert!(refused.contains("write [history]"), "{refused}");
    drop(daemon);
    let mut watcher = broker.watch();
    let daemon = crate::support::node::Daemon::start(&format!("{more}[history]\nhours = 1\n"), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/health");
    let began = SystemTime::now();
    let answer = loop {
        broker.publish("clapd/attic/request/ask", r#"{"transaction":2,"text":"rain"}"#);
        let answer = watcher.wait_for("0 1 clapd/attic/response/ask");
        if answer.contains("\"best\":[{") {
            break answer;
        }
        assert!(began.elapsed().is_ok_and(|it| it.as_secs() < 120), "{answer}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert!(!answer.contains("\"scores\""), "{answer}");
    drop(daemon);
}

#[test]
fn nothing_is_kept_where_nobody_wants_it() {
    let served = Served::start(NOBODY, "access = \"off\"\n[history]\nhours = 0\n");
    let answer = served.get("/api/v1/scores?source=mic");
    assert!(answer.status == 404 && answer.body.contains("[history]"), "{answer:?}");
    served.stop();
}

#[test]
fn levels_and_events_of_the_past_are_served_and_a_writer_may_forget_one() {
    let journal = "[journal]\nmax_days = 1\n";
    let served = Served::start(&format!("{}{journal}", playing()), &tokens("read"));
    let mut viewer = Viewer::open(served.address, "/api/v1/stream?kinds=event", &[]);
    let ended = loop {
        let event = viewer.wait_for("event").data;
        if event["event_type"] == "ended" {
            break event;
        }
    };
    // The journal is written beside the stream.
    let found = loop {
        let found = served.get("/api/v1/events").json();
        if found["events"].as_array().is_some_and(|events| !events.is_empty()) {
            break found;
        }
    };
    let event = &found["events"][0];
    assert_eq!(
        (&event["id"], &event["source"], &event["prompt"]),
        (&ended["id"], &json!("mic"), &json!("dog")),
        "{found}"
    );
    assert_eq!((&event["text"], &event["level_unit"]), (&json!("a dog barking"), &json!("dBFS(A)")));
    assert_eq!(event["started_at"], json!(millis(&ended["started_at"])));
    assert_eq!(event["ended_at"], json!(millis(&ended["ended_at"])));
    assert!(event["laeq"].as_f64() <= event["lafmax"].as_f64() && event["peak"].as_f64() >= Some(6.0), "{event}");
    assert_eq!(served.get("/api/v1/events?prompt=cat").json()["events"], json!([]));

    let levels = served.get("/api/v1/levels?source=mic&by=second").json();
    let (at, laeq) = (levels["at"].as_array().expect("a list"), column(&levels["laeq"]));
    assert!(
        at.len() >= 5 && at.len() == laeq.len() && laeq.iter().all(|level| (-100.0..0.0).contains(level)),
        "{levels}"
    );
    assert_eq!(
        (&levels["unit"], &levels["calibrated"], &levels["la10"]),
        (&json!("dBFS(A)"), &json!(false), &Value::Null)
    );
    for (path, status) in [
        ("levels", 400),
        ("levels?source=mac", 404),
        ("levels?source=mic&by=hour", 400),
        ("levels?source=mic&by=minute", 200),
        ("events?limit=x", 400),
        ("events?from=9&to=1", 200),
    ] {
        assert_eq!(served.get(&format!("/api/v1/{path}")).status, status, "{path}");
    }

    let path = format!("/api/v1/events/{}", ended["id"].as_str().expect("a text"));
    let delete = |headers: &[(&str, &str)]| {
        send(served.address, &request(served.address, "DELETE", &path, headers, "")).expect("an answer").status
    };
    let (reader, writer) = (format!("Bearer {READ}"), format!("Bearer {WRITE}"));
    assert_eq!(delete(&[("Authorization", &reader)]), 403);
    assert_eq!(delete(&[("Authorization", &writer)]), 204);
    assert_eq!(delete(&[("Authorization", &writer)]), 404);
    assert!(!served.get("/api/v1/events").body.contains(ended["id"].as_str().expect("a text")));
}
