//! The page's server as programs and browsers meet it: who may do what, what it does with those who misbehave, and that commands are the
//! same as over MQTT.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::broker::{Broker, free_port};
use crate::support::http::{Answer, Viewer, connect, get, post, request, send};
use crate::support::node::{Daemon, NOBODY, RECORDING, mqtt};

pub(crate) const READ: &str = "read-0123456789abcdef";
pub(crate) const WRITE: &str = "write-0123456789abcdef";
/// An event that every score starts, and none ends.
pub(crate) const ANY: &str = "[[prompt]]\nid = \"any\"\ntext = \"a sound\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";

/// A daemon with a page.
pub(crate) struct Served {
    pub(crate) daemon: Daemon,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// With this `[http]`, beside its `listen` and token files, after `more` of the configuration.
    pub(crate) fn start(more: &str, http: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("read"), format!("{READ}\n")).expect("is written");
        fs::write(folder.path().join("write"), WRITE).expect("is written");
        let daemon = Daemon::start_in(folder, &format!("{more}[http]\nlisten = \"{address}\"\n{http}"), |_, _| ());
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nothing listens at {address}");
            thread::sleep(Duration::from_millis(20));
        }
        Self { daemon, address }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address, path, &[])
    }

    pub(crate) fn stop(self) -> String {
        self.daemon.signal("-TERM");
        let (status, log) = self.daemon.end();
        assert!(status.success(), "{log}");
        log
    }
}

/// A source that plays the recording round and round at its own pace.
pub(crate) fn playing() -> String {
    format!("[[source]]\nid = \"mic\"\nfile = {RECORDING:?}\nrealtime = true\nloop = true\n")
}

/// The value of a series; none where there is none.
fn metric(address: SocketAddr, series: &str) -> Option<f64> {
    let text = get(address, "/metrics", &[]).body;
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until a series has a value that will do.
#[track_caller]
fn wait_for_metric(address: SocketAddr, series: &str, will_do: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !metric(address, series).is_some_and(&will_do) {
        assert!(Instant::now() < deadline, "{series} is {:?}", metric(address, series));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Both token files, and who is asked for them.
pub(crate) fn tokens(access: &str) -> String {
    format!("access = \"{access}\"\nread_token_file = \"read\"\nwrite_token_file = \"write\"\n")
}

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Bearer {token}"))]
}

#[test]
fn without_the_table_there_is_no_thread_and_no_socket() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let daemon = Daemon::start(&format!("{NOBODY}{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/health");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process.id())).expect("runs");
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let names: Vec<_> = tasks.filter_map(name).collect();
    assert!(
        names.iter().any(|name| name == "mqtt\n") && !names.iter().any(|name| name.starts_with("http")),
        "{names:?}"
    );
    daemon.signal("-TERM");
    assert!(daemon.end().0.success());
}

/// Who asks, and what they get for reading, a reading command, a changing command, and metrics.
type Row = (Option<&'static str>, [u16; 4]);

#[test]
fn each_token_does_what_it_says_and_no_more() {
    const PAUSE: &str = "/api/v1/request/pause";
    let table: [(&str, [Row; 4]); 3] = [
        (
            "off",
            [
                (None, [200, 200, 200, 200]),
                (Some(READ), [200, 200, 200, 200]),
                (Some(WRITE), [200, 200, 200, 200]),
                (Some("wrong-wrong-wrong-wrong"), [200, 200, 200, 200]),
            ],
        ),
        (
            "read",
            [
                (None, [200, 200, 403, 200]),
                (Some(READ), [200, 200, 403, 200]),
                (Some(WRITE), [200, 200, 200, 200]),
                (Some("wrong-wrong-wrong-wrong"), [401, 401, 401, 401]),
            ],
        ),
        (
            "token",
            [
                (None, [401, 401, 401, 401]),
                (Some(READ), [200, 200, 403, 200]),
                (Some(WRITE), [200, 200, 200, 200]),
                (Some("wrong-wrong-wrong-wrong"), [401, 401, 401, 401]),
            ],
        ),
    ];
    for (access, rows) in table {
        let served = Served::start(NOBODY, &tokens(access));
        let at = served.address;
        for (token, expected) in rows {
            let headers = token.map(bearer).unwrap_or_default();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let got = [
                get(at, "/api/v1/info", &headers),
                post(at, "/api/v1/request/info", &headers, "{}"),
                post(at, PAUSE, &headers, "{}"),
                get(at, "/metrics", &headers),
            ];
            assert_eq!(got.each_ref().map(|answer| answer.status), expected, "{access} {token:?}: {got:?}");
            if expected[0] == 401 {
                assert_eq!(got[0].header("www-authenticate"), Some("Bearer"));
            }
            if token.is_some_and(|token| token != WRITE && token != READ) || access == "off" {
                continue;
            }
            // A browser's way: the token once, and then the cookie, which the stream sends, too.
            if let Some(token) = token {
                let login = post(at, "/api/v1/login", &[], &json!({ "token": token }).to_string());
                let cookie = login.header("set-cookie").expect("a cookie").to_owned();
                assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("Path"));
                assert!(!cookie.contains(token), "{cookie}");
                let cookie = [("Cookie", cookie.split(';').next().expect("a pair"))];
                let role = get(at, "/api/v1/info", &cookie).json()["role"].take();
                assert_eq!(role, if token == WRITE { "write" } else { "read" });
                assert_eq!(post(at, PAUSE, &cookie, "{}").status, expected[2]);
                Viewer::open(at, "/api/v1/stream", &cookie).wait_for("health");
            }
        }
        // The page itself and its description are no secrets: it is there that one logs in.
        for path in ["/", "/openapi.json"] {
            let answer = served.get(path);
            assert_eq!(answer.status, 200, "{access} {path}");
            assert!(answer.header("content-security-policy").is_some_and(|it| it.contains("default-src 'self'")));
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        served.stop();
    }
}

#[test]
fn ingress_is_believed_from_a_trusted_address_only() {
    for (trusted, expected) in [("127.0.0.1", 200), ("192.0.2.1", 421)] {
        let served = Served::start(NOBODY, &format!("{}trusted_proxy = [\"{trusted}\"]\n", tokens("token")));
        let path = ("X-Ingress-Path", "/api/hassio_ingress/5kXq-abc_123");
        let headers = [("Host", "homeassistant.local:8123"), path, ("X-Remote-User-Name", "anna")];
        let answer = post(served.address, "/api/v1/request/pause", &headers, "{}");
        assert_eq!(answer.status, expected, "{trusted}: {answer:?}");
        let without = get(served.address, "/api/v1/info", &[]);
        assert_eq!(without.status, 401, "{trusted}: only with the path");
        served.stop();
    }
}

#[test]
fn a_name_or_a_page_that_is_not_ours_gets_nothing() {
    let served = Served::start(NOBODY, "access = \"off\"\nallowed_hosts = [\"clapd.example.org\"]\n");
    let at = served.address;
    let status = |host: &str| get(at, "/api/v1/info", &[("Host", host)]).status;
    for (host, expected) in [
        ("localhost:8126", 200),
        ("clapd.example.org", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
    ] {
        assert_eq!(status(host), expected, "{host}");
    }
    for (headers, expected) in [
        (&[("Origin", "http://evil.example")][..], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Sec-Fetch-Site", "same-origin")], 200),
    ] {
        assert_eq!(post(at, "/api/v1/request/pause", headers, "{}").status, expected, "{headers:?}");
    }
    // What a form of another page may send without asking.
    let form = request(at, "POST", "/api/v1/request/pause", &[("Content-Type", "text/plain")], "{}");
    assert_eq!(send(at, &form).expect("an answer").status, 415);
    served.stop();
}

#[test]
fn a_command_is_the_same_over_both_ways() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let served = Served::start(&format!("{NOBODY}{}", mqtt(&broker)), "access = \"off\"\n");
    watcher.wait_for("0 1 clapd/attic/status online");
    let at = served.address;
    for (command, payload) in [
        ("info", "{\"transaction\":7}"),
        ("prompts/get", "{\"transaction\":\"x\"}"),
        ("pause", "{\"source\":\"mic\"}"),
        ("pause", "{\"source\":\"mike\"}"),
        ("resume", ""),
        ("prompts/set", "{\"prompts\":[]}"),
        ("prompts/set", "{\"remove\":[\"nobody\"]}"),
        ("info", "[]"),
        ("reload", "{\"now\":1}"),
    ] {
        let over_http = post(at, &format!("/api/v1/request/{command}"), &[], payload);
        broker.publish(&format!("clapd/attic/request/{command}"), payload.as_bytes());
        let line = watcher.wait_for(&format!("0 1 clapd/attic/response/{command} "));
        let over_mqtt: Value = serde_json::from_str(&line[line.find('{').expect("JSON")..]).expect("is JSON");
        assert_eq!(over_http.json(), over_mqtt, "{command} {payload}");
        let expected = if over_mqtt["status"] == "ok" { 200 } else { 400 };
        assert_eq!(over_http.status, expected, "{command} {payload}");
    }
    let unknown = post(at, "/api/v1/request/restart", &[], "{}");
    assert_eq!((unknown.status, &unknown.json()["status"]), (404, &json!("error")));
    // What is set shows at once, to whoever asks and to whoever watches.
    let mut viewer = Viewer::open(at, "/api/v1/stream?kinds=prompts", &[]);
    viewer.wait_for("prompts");
    let set = post(at, "/api/v1/request/prompts/set", &[], "{\"merge\":[{\"text\":\"rain\"}]}");
    assert_eq!(set.status, 200, "{set:?}");
    assert_eq!(viewer.wait_for("prompts").data["prompts"][1]["id"], "rain");
    assert_eq!(served.get("/api/v1/prompts").json()["prompts"], set.json()["data"]["prompts"]);
    served.stop();
}

#[test]
fn two_changes_at_a_time_are_one_too_many() {
    let served = Served::start(NOBODY, "access = \"off\"\n");
    let at = served.address;
    // Texts that are new: embedding them takes a while.
    let change = |n: usize| {
        thread::spawn(move || {
            let prompts: Vec<_> = (0..4).map(|i| json!({ "text": format!("a sound of number {n} and {i}") })).collect();
            post(at, "/api/v1/request/prompts/set", &[], &json!({ "merge": prompts }).to_string())
        })
    };
    let changes: Vec<_> = (0..4).map(change).collect();
    let answers: Vec<_> = changes.into_iter().map(|change| change.join().expect("ends")).collect();
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert!(count(200) >= 1 && count(503) >= 1 && count(200) + count(503) == 4, "{answers:?}");
    let busy = answers.iter().find(|answer| answer.status == 503).expect("one");
    assert!(
        busy.header("retry-after").is_some()
            && busy.json()["error"].as_str().is_some_and(|it| it.contains("another change"))
    );
    served.stop();
}

#[test]
fn what_misbehaves_is_answered_or_closed_and_harms_nobody() {
    let served = Served::start(NOBODY, "access = \"off\"\n");
    let at = served.address;
    let long = "x".repeat(300_000);
    let oversize = post(at, "/api/v1/request/info", &[], &long);
    assert_eq!((oversize.status, &oversize.json()["status"]), (413, &json!("error")));
    let chunked = format!(
        "POST /api/v1/request/info HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    assert_eq!(send(at, chunked.as_bytes()).expect("an answer").status, 413);
    let headers = format!("GET / HTTP/1.1\r\nHost: {at}\r\nX: {long}\r\n\r\n");
    assert!(send(at, headers.as_bytes()).is_none_or(|answer| answer.status == 431));
    assert_eq!(send(at, &request(at, "DELETE", "/api/v1/info", &[], "")).expect("an answer").status, 405);
    assert_eq!(served.get("/api/v1/nothing").status, 404);
    assert_eq!(served.get("/api/v1/stream?kinds=no").status, 400);
    assert_eq!(served.get("/api/v1/stream?source=no").status, 404);
    // Whatever else: an answer, or none.
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let methods = "GET|POST|PUT|HEAD|OPTIONS|[A-Z]{1,9}";
    let paths = "/api/v1/(info|stream|request/(info|prompts/set)|login)|/[!-~]{0,30}";
    let strategy = (methods, paths, "[ -~]{0,60}", prop::collection::vec(any::<u8>(), 0..300), any::<bool>());
    let outcome = TestRunner::new(config).run(&strategy, |(method, path, header, body, raw)| {
        let mut stream = connect(at);
        let text = if raw {
            body
        } else {
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n{header}\r\n");
            [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        };
        let _ = stream.write_all(&text);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut first = [0; 12];
        if stream.read_exact(&mut first).is_ok() {
            prop_assert!(!first.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&text));
        }
        Ok(())
    });
    outcome.expect("nothing harms it");
    assert_eq!(served.get("/api/v1/info").status, 200);
    let log = served.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn viewers_have_a_bound_and_one_who_does_not_read_delays_nobody() {
    // Enough of them that what one does not read fills all buffers within seconds.
    let sources = (0..4).map(|n| playing().replace("mic", &format!("mic{n}"))).collect::<String>();
    let served = Served::start(&format!("{ANY}{sources}"), "access = \"off\"\n");
    let at = served.address;
    // It asks and never reads.
    let mut sleeper = connect(at);
    sleeper.write_all(&request(at, "GET", "/api/v1/stream", &[], "")).expect("is read");
    let mut viewers: Vec<_> = (0..20).map(|_| Viewer::open(at, "/api/v1/stream", &[])).collect();
    let last = |viewers: &mut Vec<Viewer>| -> Vec<_> {
        viewers.iter_mut().map(|viewer| viewer.wait_for("window").id.expect("an id")).collect()
    };
    for _ in 0..3 {
        let ids = last(&mut viewers);
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    let more: Vec<_> = (0..20)
        .map_while(|_| {
            let mut stream = connect(at);
            stream.write_all(&request(at, "GET", "/api/v1/stream", &[], "")).ok()?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).ok()?;
            (&head == b"HTTP/1.1 200").then_some(stream)
        })
        .collect();
    assert_eq!(more.len(), 11, "32 in all");
    let full = served.get("/api/v1/stream");
    assert!(full.status == 503 && full.header("retry-after").is_some(), "{full:?}");
    drop(more);
    wait_for_metric(at, "clapd_viewers", |viewers| viewers == 21.0);
    // What it does not read is dropped, and in the end it is.
    let reading = thread::spawn(move || {
        let mut last = None;
        let number =
            |id: &str| id.split_once('-').and_then(|(_, number)| number.parse::<u64>().ok()).expect("a number");
        while let Some(event) = viewers[0].next() {
            let id = event.id.as_deref().map(number);
            assert!(last.is_none_or(|last| id == Some(last + 1)), "{id:?} after {last:?}: one was dropped");
            last = id;
        }
        last
    });
    wait_for_metric(at, "clapd_viewer_drops_total", |drops| drops > 0.0);
    wait_for_metric(at, "clapd_viewers", |viewers| viewers == 1.0);
    served.stop();
    assert!(reading.join().expect("nothing is missing").is_some_and(|last| last > 64));
    drop(sleeper);
}

#[test]
fn metrics_follow_what_happens_and_prometheus_takes_them() {
    let mut broker = Broker::start();
    let mut watcher = broker.watch();
    let http = tokens("read");
    let served = Served::start(&format!("{ANY}{}{}", playing(), mqtt(&broker)), &http);
    let at = served.address;
    watcher.wait_for("0 1 clapd/attic/mic/any/event");
    for (series, least) in [
        ("clapd_uptime_seconds", 0.1),
        ("clapd_mqtt_connected", 1.0),
        ("clapd_mqtt_connections_total", 1.0),
        ("clapd_outbox_on_disk", 1.0),
        ("clapd_windows_scored_total{source=\"mic\"}", 2.0),
        ("clapd_scoring_seconds_total{source=\"mic\"}", 0.001),
        ("clapd_source_state{source=\"mic\",state=\"live\"}", 1.0),
        ("clapd_score{source=\"mic\",prompt=\"dog\"}", 0.01),
        ("clapd_events_total{source=\"mic\",prompt=\"any\"}", 1.0),
        ("clapd_http_requests_total", 3.0),
    ] {
        wait_for_metric(at, series, |value| value >= least);
    }
    wait_for_metric(at, "clapd_input_level_dbfs{source=\"mic\"}", |level| level < -5.0);
    let headers = [("Authorization", "Bearer wrong-wrong-wrong-wrong")];
    assert_eq!(get(at, "/api/v1/info", &headers).status, 401);
    assert_eq!(get(at, "/api/v1/info", &[("Host", "evil.example")]).status, 421);
    for why in ["token", "foreign"] {
        wait_for_metric(at, &format!("clapd_http_refused_total{{why=\"{why}\"}}"), |count| count == 1.0);
    }
    let viewer = Viewer::open(at, "/api/v1/stream", &[]);
    wait_for_metric(at, "clapd_viewers", |viewers| viewers == 1.0);
    drop(viewer);
    broker.stop();
    wait_for_metric(at, "clapd_mqtt_connected", |connected| connected == 0.0);
    wait_for_metric(at, "clapd_scores_dropped_total", |dropped| dropped > 0.0);
    let pause = post(at, "/api/v1/request/pause", &[("Authorization", &format!("Bearer {WRITE}"))], "{}");
    assert_eq!(pause.status, 200, "commands need no broker");
    wait_for_metric(at, "clapd_outbox_events", |events| events >= 1.0);
    wait_for_metric(at, "clapd_source_state{source=\"mic\",state=\"paused\"}", |paused| paused == 1.0);

    // What Prometheus's own tool says of it, and of the rules that are shipped.
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; `make test` installs it");
    promtool.stdin.take().expect("is piped").write_all(served.get("/metrics").body.as_bytes()).expect("is read");
    let said = promtool.wait_with_output().expect("ends");
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
    served.stop();
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_it_with_the_read_token() {
    let served = Served::start(&format!("{ANY}{}", playing()), &tokens("token"));
    let folder = tempfile::tempdir().expect("a folder");
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n  - job_name: clapd\n    authorization: {{ \
         credentials_file: {:?} }}\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus/clapd.rules.yml"),
        served.daemon.folder.path().join("read"),
        served.address
    );
    fs::write(folder.path().join("prometheus.yml"), config).expect("is written");
    let prometheus = Command::new("prometheus")
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={own}"))
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Killed(prometheus.expect("prometheus; `make test` installs it"));
    let query = request(own, "GET", "/api/v1/query?query=clapd_windows_scored_total>2", &[], "");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let answer = TcpStream::connect(own).ok().and_then(|_| send(own, &query));
        let result = answer.map(|answer| answer.body).unwrap_or_default();
        if result.contains("\"source\":\"mic\"") {
            break;
        }
        assert!(Instant::now() < deadline, "{result}");
        thread::sleep(Duration::from_millis(200));
    }
    served.stop();
}

#[test]
fn alerts_are_for_what_they_say() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus");
    for args in [["check", "rules", "clapd.rules.yml"], ["test", "rules", "clapd.rules.test.yml"]] {
        let said =
            Command::new("promtool").args(args).current_dir(rules).output().expect("promtool; `make test` installs it");
        assert!(said.status.success(), "{said:?}");
    }
    // Each names metrics that there are.
    let served = Served::start(NOBODY, "access = \"off\"\n");
    let metrics = served.get("/metrics").body;
    let text = fs::read_to_string(format!("{rules}/clapd.rules.yml")).expect("is there");
    let names =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("clapd_"));
    for name in names {
        assert!(metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} ")), "{name}");
    }
    served.stop();
}

#[test]
fn a_viewer_that_comes_back_misses_nothing() {
    let served = Served::start(&format!("{ANY}{}", playing()), "access = \"off\"\n");
    let at = served.address;
    let mut stays = Viewer::open(at, "/api/v1/stream?kinds=window", &[]);
    let mut leaves = Viewer::open(at, "/api/v1/stream?kinds=window&source=mic", &[]);
    let seen = leaves.wait_for("window").id.expect("an id");
    drop(leaves);
    while stays.wait_for("window").id.as_deref() != Some(&seen) {}
    let missed: Vec<_> = (0..3).map(|_| stays.wait_for("window").id).collect();
    let mut back = Viewer::open(at, "/api/v1/stream?kinds=window", &[("Last-Event-ID", &seen)]);
    let got: Vec<_> = (0..3).map(|_| back.wait_for("window").id).collect();
    assert_eq!(got, missed);
    served.stop();
}

/// What stands between a browser and the server below a path: it takes the path off, and knows nothing else.
fn proxy(target: SocketAddr, prefix: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut browser in listener.incoming().map_while(Result::ok) {
            let mut server = connect(target);
            thread::spawn(move || {
                let mut bytes = [0; 16_384];
                let count = browser.read(&mut bytes).unwrap_or(0);
                let text = String::from_utf8_lossy(&bytes[..count]).replacen(&format!(" {prefix}/"), " /", 1);
                let _ = server.write_all(text.as_bytes());
                let _ = std::io::copy(&mut server, &mut browser);
            });
        }
    });
    address
}

/// The path in a browser of what a page at `base` names so.
fn resolved(base: &str, link: &str) -> String {
    assert!(!link.starts_with('/') && !link.contains("://"), "{link} leads elsewhere below a path");
    format!("{}{link}", &base[..=base.rfind('/').expect("a path")])
}

#[test]
fn it_works_below_any_path() {
    const BASE: &str = "/home/clapd/";
    let served = Served::start(&format!("{ANY}{}", playing()), &tokens("token"));
    let at = proxy(served.address, "/home/clapd");
    let page = get(at, BASE, &[]);
    assert_eq!(page.status, 200);
    let links = page.body.split("href=\"").skip(1).chain(page.body.split("src=\"").skip(1));
    for link in links.filter_map(|rest| rest.split('"').next()).filter(|link| !link.starts_with(['#', 'd'])) {
        assert_ne!(get(at, &resolved(BASE, link), &[("Range", "bytes=0-0")]).status, 404, "{link}");
    }
    let login = resolved(BASE, "api/v1/login");
    let cookie = post(at, &login, &[], &json!({ "token": WRITE }).to_string());
    let cookie = cookie.header("set-cookie").expect("a cookie").to_owned();
    // Without a path of its own it belongs to the folder that it came from, in which the rest lies.
    assert!(!cookie.to_ascii_lowercase().contains("path"), "{cookie}");
    let folder = &login[..=login.rfind('/').expect("a path")];
    let cookie = [("Cookie", cookie.split(';').next().expect("a pair"))];
    let stream = resolved(BASE, "api/v1/stream");
    assert!(stream.starts_with(folder));
    Viewer::open(at, &stream, &cookie).wait_for("window");
    assert_eq!(post(at, &resolved(BASE, "api/v1/request/pause"), &cookie, "{}").status, 200);
    served.stop();
}

#[test]
fn a_changed_table_asks_for_a_restart() {
    let served = Served::start(NOBODY, "access = \"off\"\n");
    served.daemon.configure(&format!("{NOBODY}[http]\nlisten = \"{}\"\naccess = \"read\"\n", served.address));
    let answer = post(served.address, "/api/v1/request/reload", &[], "{}");
    assert_eq!(answer.json()["data"]["restart"], json!(["http"]), "{answer:?}");
    let log = served.stop();
    assert!(log.contains("http has changed, which takes effect when clapd is restarted"), "{log}");
}

#[test]
fn an_address_that_is_taken_stops_nobody_and_is_taken_up_when_it_is_free() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = taken.local_addr().expect("an address");
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let http = format!("[http]\nlisten = \"{address}\"\n");
    let daemon = Daemon::start(&format!("{ANY}{}{}{http}", playing(), mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 0 clapd/attic/mic/any/score");
    drop(taken);
    while TcpStream::connect(address).is_err() {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get(address, "/api/v1/info", &[]).json()["role"], "read");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(status.success() && log.contains("http: cannot listen at"), "{log}");
}
