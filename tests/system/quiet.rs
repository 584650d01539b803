//! Quiet hours and snoozes: no event begins, and what is there still when they are over begins then.

use std::fs;

use serde_json::{Value, json};

use crate::http::{ANY, Served, playing};
use crate::support::http::{Viewer, post};
use crate::support::node::Daemon;

const FAST: &str = "[scoring]\nhop_s = 0.5\n";
/// From midnight to midnight is always.
const ALWAYS: &str = "[[quiet]]\nfrom = \"00:00\"\nto = \"00:00\"\nprompts = [\"any\"]\n";

/// What the next window meant for the prompt that every score starts, and the events before it.
fn next_verdict(viewer: &mut Viewer) -> (Value, Vec<Value>) {
    let mut events = Vec::new();
    loop {
        let event = viewer.next().expect("goes on");
        match event.kind.as_str() {
            "event" => events.push(event.data),
            "window" => {
                let prompts = event.data["prompts"].as_array().expect("a list").clone();
                let any = prompts.into_iter().find(|prompt| prompt["id"] == "any").expect("is listened for");
                return (any["verdict"].clone(), events);
            }
            _ => {}
        }
    }
}

/// Windows until one means this; there is no event before it.
fn wait_for_verdict(viewer: &mut Viewer, verdict: &str) {
    loop {
        let (seen, events) = next_verdict(viewer);
        if seen == verdict {
            return;
        }
        assert!(events.is_empty(), "{events:?}");
    }
}

fn stream(served: &Served) -> Viewer {
    Viewer::open(served.address, "/api/v1/stream?kinds=window,event,health", &[])
}

#[test]
fn in_quiet_hours_no_event_begins_and_then_what_is_there_does() {
    let usual = format!("{ANY}{}{FAST}", playing());
    let served = Served::start(&format!("{usual}{ALWAYS}"), "access = \"off\"\n");
    let mut viewer = stream(&served);
    for _ in 0..3 {
        wait_for_verdict(&mut viewer, "quiet");
    }
    let quiet = served.get("/api/v1/health").json()["quiet"].take();
    assert_eq!((&quiet[0]["by"], &quiet[0]["prompts"]), (&json!("hours"), &json!(["any"])), "{quiet}");
    // The hours are taken out, and the sound is there still.
    let http = format!("[http]\nlisten = \"{}\"\naccess = \"off\"\n", served.address);
    served.daemon.configure(&format!("{usual}{http}"));
    served.daemon.signal("-HUP");
    wait_for_verdict(&mut viewer, "started");
    let (verdict, events) = next_verdict(&mut viewer);
    assert_eq!((verdict, events.len()), (json!("open"), 1));
    assert_eq!((&events[0]["event_type"], &events[0]["prompt_id"]), (&json!("started"), &json!("any")));
    served.stop();
}

#[test]
fn a_snooze_outlives_the_process_and_ends_by_hand() {
    let more = format!("{ANY}{}{FAST}", playing());
    let served = Served::start(&more, "access = \"off\"\n");
    let mut viewer = stream(&served);
    wait_for_verdict(&mut viewer, "open");
    let snooze = |served: &Served, payload: &str| post(served.address, "/api/v1/request/snooze", &[], payload);
    assert_eq!(snooze(&served, r#"{"minutes":5,"prompt":"cow"}"#).status, 400);
    assert_eq!(snooze(&served, r#"{"minutes":1441}"#).status, 400);
    let answer = snooze(&served, r#"{"minutes":60,"prompt":"any","source":"mic"}"#).json();
    let quiet = &answer["data"]["quiet"][0];
    assert_eq!(
        (&quiet["by"], &quiet["prompts"], &quiet["sources"]),
        (&json!("snooze"), &json!(["any"]), &json!(["mic"]))
    );
    // What is open goes on.
    for _ in 0..3 {
        assert_eq!(next_verdict(&mut viewer), (json!("open"), Vec::new()));
    }
    let state = served.daemon.folder.path().join("state/snoozes.toml");
    while !fs::read_to_string(&state).is_ok_and(|text| text.contains("any")) {
        std::thread::yield_now();
    }
    // Another process of the same folder.
    let Served { mut daemon, address } = served;
    daemon.signal("-KILL");
    daemon.process.wait().expect("ends");
    let kept = std::mem::replace(&mut daemon.folder, tempfile::tempdir().expect("a folder"));
    let http = format!("[http]\nlisten = \"{address}\"\naccess = \"off\"\n");
    let daemon = Daemon::start_in(kept, &format!("{more}{http}"), |_, _| ());
    while std::net::TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    let served = Served { daemon, address };
    let mut viewer = stream(&served);
    for _ in 0..3 {
        wait_for_verdict(&mut viewer, "quiet");
    }
    assert_eq!(snooze(&served, r#"{"minutes":0}"#).json()["data"], json!({ "quiet": [] }));
    wait_for_verdict(&mut viewer, "started");
    served.stop();
}
