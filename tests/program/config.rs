//! The configuration as users meet it: the example that we ship, a file full of mistakes, and files that are no configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clapd::capture::{ListenPlace, SourceKind, Transport};
use clapd::config::{self, Access, Diagnostic, Environment, Faults, Secret, Settings, Tls};
use clapd::outbox::OutboxSpec;
use clapd_core::channel::Channel;
use clapd_core::level::Gain;
use proptest::prelude::*;

fn environment() -> Environment {
    Environment { host_name: "Pi in the hall".into(), ..Environment::default() }
}

fn parse(text: &str) -> Result<(Settings, Vec<Diagnostic>), Faults> {
    config::parse(text, Path::new("clapd.toml"), &environment())
}

/// The findings of a faulty text, a line each.
fn faults(text: &str) -> String {
    parse(text).expect_err("has faults").to_string()
}

#[track_caller]
fn settings(text: &str) -> Settings {
    parse(text).unwrap_or_else(|faults| panic!("{faults}")).0
}

/// A text that is well but for `more`.
fn with(more: &str) -> String {
    format!("[[source]]\nid = \"mic\"\ndevice = \"default\"\n[[prompt]]\ntext = \"a dog barking\"\n{more}")
}

#[test]
fn the_example_has_no_fault_and_no_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/clapd.toml");
    let (settings, warnings) = config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    assert_eq!(settings.node, "kitchen");
    assert_eq!(settings.bundle, None);
    assert_eq!((settings.hop, settings.gate_db), (Duration::from_secs(1), None));
    assert_eq!(settings.sources[0].kind, SourceKind::Device { name: "default".into() });
    let dog = &settings.prompts[0];
    assert_eq!((dog.id.as_str(), dog.rule.start, dog.rule.stop, dog.rule.confirm), ("dog", 6.0, 4.5, (2, 3)));
    assert_eq!(
        (dog.rule.cooldown, dog.contrast.as_slice()),
        (Duration::from_secs(10), &["people talking".to_owned()][..])
    );
    // What the comments call the defaults are the defaults.
    let alarm = &settings.prompts[1];
    assert_eq!((alarm.id.as_str(), alarm.rule), ("a_smoke_alarm_beeping", dog.rule));
    let broker = settings.broker.expect("has a broker");
    assert_eq!((broker.host.as_str(), broker.port, broker.user), ("localhost", 1883, None));
}

#[test]
fn every_fault_is_named_at_once() {
    let text = r#"[node]
id = "my kitchen"
[[source]]
id = "mic"
device = "default"
file = "x.wav"
[scoring]
hop_s = 0.015
[[prompt]]
text = "a dog barking"
start = 4
stop = 5
treshold = 3
[mqtt]
url = "mqtt://me:hunter2@host"
"#;
    let expected = "\
clapd.toml:2: node.id: \"my kitchen\" is not an id: 1 to 64 letters, digits, `_` and `-`; write \"my_kitchen\"
clapd.toml:3: source[0]: has device and file, and a source is one of them; make a [[source]] of each
clapd.toml:8: scoring.hop_s: 0.015 is not a multiple of 0.01 from 0.1 to 10; 1.0 suits most
clapd.toml:12: prompt[0].stop: 5 is above `start`, 4; write 1 to 2 less than `start`
clapd.toml:13: prompt[0].treshold: is not a known key; known here: id, text, audio, start, stop, confirm, cooldown_s, contrast
clapd.toml:15: mqtt.url: holds a password, and a configuration is no place for one; put it into a file and name that as `password_file`";
    assert_eq!(faults(text), expected);
}

#[test]
fn what_is_missing_is_named() {
    let expected = "\
clapd.toml: source: is missing; add `[[source]]` with `id` and `device = \"default\"`
clapd.toml: prompt: is missing; add `[[prompt]]` with `text = \"a dog barking\"`";
    assert_eq!(faults(""), expected);
    let expected = "\
clapd.toml:1: source[0]: has none of `device`, `file`, `stdin`, `url` and `listen`; add `device = \"default\"`
clapd.toml:1: source[0].id: is missing; add `id = \"mic\"`
clapd.toml:2: prompt[0].text: is missing, and so is `audio`; add `text = \"a dog barking\"`, or recordings of it
clapd.toml:3: mqtt.url: is missing; add `url = \"mqtt://user@host:1883\"`";
    assert_eq!(faults("[[source]]\n[[prompt]]\n[mqtt]"), expected);
}

/// A text whose only source is written so.
fn with_source(lines: &str) -> String {
    format!("[[source]]\nid = \"yard\"\n{lines}\n[[prompt]]\ntext = \"a dog barking\"\n")
}

#[test]
fn streams_are_read_with_their_password_from_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "from-file\n").unwrap();
    fs::write(folder.path().join("source-yard-password"), "from-systemd\n").unwrap();
    let parse = |lines: &str, environment: &Environment| {
        let path = folder.path().join("clapd.toml");
        let (settings, warnings) =
            config::parse(&with_source(lines), &path, environment).unwrap_or_else(|f| panic!("{f}"));
        let warnings: Vec<String> =
            warnings.iter().map(ToString::to_string).filter(|warning| !warning.contains("mqtt")).collect();
        let SourceKind::Stream(stream) = settings.sources[0].kind.clone() else { panic!("is a stream") };
        let login = stream.credentials.map(|login| (login.user, login.password));
        let login = login.map(|(user, password)| format!("{user}:{password}"));
        (stream.url.text(), stream.transport, login, warnings)
    };
    let with_credential = Environment { credentials: Some(folder.path().into()), ..environment() };
    let with_variable = Environment {
        source_passwords: [("YARD".into(), Secret::new("from-variable".into()))].into(),
        ..with_credential.clone()
    };
    let url = "url = \"rtsp://me@cam:8554/a?b=c\"";
    let (text, transport, login, warnings) = parse(&format!("{url}\npassword_file = \"password\""), &with_variable);
    assert_eq!(
        (text.as_str(), transport, login.as_deref()),
        ("rtsp://cam:8554/a?b=c", Transport::Tcp, Some("me:from-file"))
    );
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(parse(url, &with_variable).2.as_deref(), Some("me:from-variable"));
    assert_eq!(parse(url, &with_credential).2.as_deref(), Some("me:from-systemd"));
    let (_, transport, login, _) = parse("url = \"rtsp://cam\"\nuser = \"you\"\ntransport = \"udp\"", &environment());
    assert_eq!((transport, login.as_deref()), (Transport::Udp, Some("you:")));
    assert_eq!(parse("url = \"http://cam\"", &environment()).2, None);
    for url in ["rtsp://me:hunter2@cam", "rtsp://cam/user=me_password=hunter2"] {
        let (_, _, _, warnings) = parse(&format!("url = \"{url}\""), &environment());
        assert!(warnings[0].contains("holds a password") && !warnings[0].contains("hunter2"), "{warnings:?}");
    }
}

#[test]
fn what_is_wrong_with_a_stream_is_named_and_its_password_is_not() {
    for (lines, expected) in [
        ("url = \"rtsps://me:hunter2@cam\"", "\"rtsps\" is not a scheme of streams"),
        ("url = \"rtsp://me:hunter2@cam:0\"", "\"0\" is not a port"),
        ("url = \"rtsp://me@cam\"\nuser = \"me\"", "stands in the url, too"),
        ("url = \"rtsp://:hunter2@cam\"", "names no user"),
        ("url = \"rtsp://cam\"\ntransport = \"multicast\"", "neither \"tcp\" nor \"udp\""),
        ("url = \"http://cam\"\ntransport = \"udp\"", "is for rtsp://"),
        ("url = \"rtsp://me@cam\"\npassword_file = \"none\"", "No such file"),
        ("device = \"default\"\nuser = \"me\"", "is for streams"),
        ("device = \"default\"\nraw = \"16000:s16:1\"", "is for what a program sends"),
        ("url = \"http://cam\"\nlisten = \"unix:/x\"", "has url and listen"),
        ("listen = \"tcp:1234\"\nraw = \"16000:s16:1\"", "neither unix: nor fifo:"),
        ("listen = \"unix:\"\nraw = \"16000:s16:1\"", "names no file"),
        ("listen = \"fifo:/run/x\"", "nothing says the format of"),
        ("listen = \"fifo:/run/x\"\nraw = \"16000:mp3:1\"", "its format is none of"),
        ("url = \"http://cam\"\nloop = true", "is for files"),
    ] {
        let found = faults(&with_source(lines));
        assert!(found.contains(expected) && !found.contains("hunter2"), "{found}");
    }
    let text = with_source("listen = \"unix:mic.sock\"\nraw = \"48000:s24:2\"");
    let SourceKind::Listen(listen) = settings(&text).sources[0].kind.clone() else { panic!("is listened at") };
    assert_eq!((listen.place, listen.format.frame_bytes()), (ListenPlace::Unix("mic.sock".into()), 6));
}

#[test]
fn a_wrong_type_is_named_with_the_right_one() {
    let text = with(
        "start = \"six\"\nconfirm = [2, \"3\"]\ncontrast = \"talking\"\n[scoring]\nhop_s = true\n[mqtt]\nurl = 5\n",
    );
    let expected = "\
clapd.toml:6: prompt[0].start: \"six\" is not a number; write it as `start = 1.0`
clapd.toml:7: prompt[0].confirm[1]: \"3\" is not what a list of whole numbers holds; write it as `confirm = [2, 3]`
clapd.toml:8: prompt[0].contrast: \"talking\" is not a list of texts; write it as `contrast = [\"...\"]`
clapd.toml:10: scoring.hop_s: true is not a number; write it as `hop_s = 1.0`
clapd.toml:12: mqtt.url: 5 is not a text; write it as `url = \"...\"`";
    assert_eq!(faults(&text), expected);
}

#[test]
fn a_syntax_error_does_not_hide_the_other_faults() {
    let text = "[node\nid = \"kitchen\"\n[[source]]\nid = \"mic\"\ndevice = default\n[[prompt]]\ntext = \"\"\n";
    let found = faults(text);
    assert!(found.contains("clapd.toml:1: "), "{found}");
    assert!(found.contains("clapd.toml:5: "), "{found}");
    assert!(found.contains("clapd.toml:7: prompt[0].text: has 0 letters"), "{found}");
}

#[test]
fn every_bound_is_held() {
    let cases = [
        ("start = 10.1", "10.1 is not on the scale from 0 to 10"),
        ("stop = -1", "-1 is not on the scale"),
        ("start = nan", "NaN is not on the scale"),
        ("confirm = [3, 2]", "[3, 2] is not `[n, m]`"),
        ("confirm = [0, 2]", "[0, 2] is not"),
        ("confirm = [1, 101]", "m <= 100"),
        ("confirm = [1]", "[1] is not"),
        ("cooldown_s = -0.1", "-0.1 is not from 0 to 86400"),
        ("contrast = [\"a dog barking\"]", "is the prompt itself"),
        ("id = \"a/b\"", "write \"a_b\""),
        ("[scoring]\nhop_s = 0.05", "0.05 is not a multiple"),
        ("[scoring]\nhop_s = 10.01", "10.01 is not a multiple"),
        ("[scoring]\ngate_db = 6", "6 is not a level from -100 to -30 dB"),
        ("[scoring]\ngate_db = nan", "NaN is not a level"),
        ("[scoring]\nhop_z = 1", "did you mean `hop_s`?"),
        ("[[source]]\nid = \"mic\"\nstdin = true", "\"mic\" is taken on line 2"),
        ("[[source]]\nid = \"health\"\nstdin = true", "is a topic of the node itself"),
        ("[mqtt]\nurl = \"mqtt://host/topic\"", "mqtt.url: \"/topic\" stands behind the host"),
        ("[[source]]\nid = \"x\"\nstdin = false", "is false"),
        (
            "[[source]]\nid = \"x\"\nstdin = true\n[[source]]\nid = \"y\"\nstdin = true",
            "second that reads standard input",
        ),
        ("[[source]]\nid = \"x\"\nstdin = true\nloop = true", "source[1].loop: is for files"),
        ("[[source]]\nid = \"x\"\nfile = \"none.wav\"", "none.wav: No such file"),
        ("[[source]]\nid = \"x\"\nstdin = true\nraw = \"16000:s8:1\"", "its format is none of u8, s16, s24"),
        (
            "[[source]]\nid = \"x\"\ndevice = \"default\"\nraw = \"16000:s16:1\"",
            "source[1].raw: is for what a program sends",
        ),
        ("[[source]]\nid = \"x\"\nstdin = true\nchannel = 64", "nor a channel from 0 to 63"),
        ("[[source]]\nid = \"x\"\nstdin = true\nchannel = \"left\"", "\"left\" is neither \"mix\""),
        (
            "[[source]]\nid = \"x\"\nstdin = true\ngain_db = 60.5",
            "60.5 is neither \"auto\" nor a gain from -20 to 60 dB",
        ),
        ("[[source]]\nid = \"x\"\nstdin = true\ngain_db = -21", "-21 is neither \"auto\" nor a gain"),
        ("[[source]]\nid = \"x\"\nstdin = true\ngain_db = nan", "NaN is neither \"auto\" nor a gain"),
        (
            "[[source]]\nid = \"x\"\nstdin = true\ngain_db = \"loud\"",
            "\"loud\" is neither \"auto\" nor a gain from -20 to 60 dB",
        ),
        ("[[prompt]]\ntext = \"A dog barking!\"", "\"a_dog_barking\" is taken on line 5"),
        ("[[prompt]]\ntext = \"犬の声\"", "has no letter of a-z"),
        ("[mqtt]\nurl = \"mqtts://[fe80::1%eth0]\"", "names a network interface"),
        ("[mqtt]\nurl = \"mqtts://host\"\nca_file = \"none.pem\"", "none.pem: No such file"),
        ("[mqtt]\nurl = \"mqtts://host\"\nca_file = \"/dev/null\"", "has no block"),
        ("[mqtt]\nurl = \"mqtts://host\"\nclient_key = \"/dev/null\"", "needs client_cert"),
        ("[mqtt]\nurl = \"mqtt://host\"\nca_file = \"/dev/null\"", "mqtt.ca_file: is for TLS"),
        ("[outbox]\ndir = \"/dev/null/outbox\"", "/dev/null is no folder"),
        ("[mqtt]\nurl = \"mqtt://host\"\npassword = \"hunter2\"", "did you mean `password_file`?"),
        ("[mqtt]\nurl = \"mqtt://me@host\"\npassword_file = \"none\"", "none: No such file"),
        ("[mqtt]\nurl = \"mqtt://host\"\ndiscovery_prefix = \"a/#\"", "is no topic"),
        ("[mqtt]\nurl = \"mqtt://host\"\ndiscovery_prefix = \"homeassistant/\"", "is no topic"),
        ("[outbox]\nmax_events = 0", "0 is not a whole number from 1 to 1000000"),
        ("[outbox]\nmax_age_h = 1.5", "1.5 is not a whole number"),
        ("[http]\nlisten = \"8126\"", "http.listen: \"8126\" is no address with a port"),
        ("[http]\nlisten = \"localhost:8126\"", "is no address with a port"),
        ("[http]\naccess = \"open\"", "\"open\" is none of \"off\", \"read\" and \"token\""),
        ("[http]\nlisten = \"0.0.0.0:1\"\naccess = \"off\"", "http.access: is \"off\", and 0.0.0.0:1 is reached from"),
        ("[http]\naccess = \"token\"", "http.access: is \"token\", and there is none"),
        ("[http]\nread_token_file = \"none\"", "none: No such file"),
        ("[http]\nread_token_file = \"/dev/null\"", "/dev/null: is empty"),
        ("[http]\ntrusted_proxy = [\"ha\"]", "http.trusted_proxy[0]: \"ha\" is no address"),
        ("[http]\nallowed_hosts = [\"http://a\"]", "\"http://a\" is no name of a host"),
        ("[http]\nallow_hosts = []", "did you mean `allowed_hosts`?"),
        ("[extra]", "extra: is not a known key"),
    ];
    for (more, expected) in cases {
        let found = faults(&with(more));
        assert!(found.contains(expected), "{more:?} gives {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn too_many_are_refused() {
    let sources: String = (0..16).map(|n| format!("[[source]]\nid = \"s{n}\"\ndevice = \"d{n}\"\n")).collect();
    assert!(faults(&with(&sources)).contains("source[16]: is beyond the 16 sources"));
    let prompts: String = (0..1000).map(|n| format!("[[prompt]]\ntext = \"sound {n}\"\n")).collect();
    assert!(faults(&with(&prompts)).contains("prompt[1000]: is beyond the 1000 prompts"));
    assert!(faults(&with(&format!("[[prompt]]\ntext = \"{}\"", "x".repeat(301)))).contains("has 301 letters"));
}

#[test]
fn the_outbox_lies_where_the_service_may_write() {
    let of = |more: &str, environment: &Environment| {
        let parsed = config::parse(&with(more), Path::new("/etc/clapd/clapd.toml"), environment);
        parsed.unwrap_or_else(|faults| panic!("{faults}")).0.outbox
    };
    let service = Environment { state: Some("/var/lib/clapd".into()), ..environment() };
    let usual = of("", &service);
    assert_eq!(usual, OutboxSpec { dir: Some("/var/lib/clapd/outbox".into()), ..OutboxSpec::default() });
    assert_eq!((usual.max_events, usual.max_age.as_secs()), (10_000, 72 * 3600));
    assert_eq!(of("", &environment()).dir, None, "where there is no such place, in memory");
    let own = of("[outbox]\ndir = \"box\"\nmax_events = 5\nmax_age_h = 2", &service);
    let expected = OutboxSpec { dir: Some("/etc/clapd/box".into()), max_events: 5, max_age: Duration::from_secs(7200) };
    assert_eq!(own, expected);
}

#[test]
fn tls_takes_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ca, key) = ("-----BEGIN CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\n");
    for (name, text) in [("ca.pem", ca), ("me.pem", ca), ("me.key", key)] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let broker = |more: &str| {
        let text = with(&format!("[mqtt]\nurl = \"mqtts://host\"\n{more}"));
        let parsed = config::parse(&text, &folder.path().join("clapd.toml"), &environment());
        parsed.unwrap_or_else(|faults| panic!("{faults}")).0.broker.expect("is there")
    };
    let plain = broker("");
    assert_eq!((plain.port, plain.tls), (8883, Some(Tls { ca: None, client: None })));
    let full = broker("ca_file = \"ca.pem\"\nclient_cert = \"me.pem\"\nclient_key = \"me.key\"");
    assert!(!format!("{full:?}").contains("PRIVATE"), "a key is not shown");
    let client = Some((ca.to_owned(), Secret::new(key.into())));
    assert_eq!(full.tls, Some(Tls { ca: Some(ca.into()), client }));
}

#[test]
fn the_page_is_off_and_then_for_this_computer_alone() {
    assert_eq!(settings(&with("")).http, None);
    let usual = settings(&with("[http]\n")).http.expect("is on");
    assert_eq!((usual.listen.to_string().as_str(), usual.access), ("127.0.0.1:8126", Access::Read));
    let environment = Environment { host_name: "Attic.example.org".into(), ..Environment::default() };
    let text = with("[http]\nallowed_hosts = [\"Clapd.Example\"]\n");
    let parsed = config::parse(&text, Path::new("clapd.toml"), &environment).expect("has no fault").0;
    let hosts = parsed.http.expect("is on").allowed_hosts;
    assert_eq!(hosts, ["attic", "attic.example.org", "attic.local", "clapd.example", "localhost"]);
}

#[test]
fn tokens_are_files_that_nobody_sees() {
    let folder = tempfile::tempdir().expect("a folder");
    let (read, write) = ("0123456789abcdef", "fedcba9876543210");
    for (name, text) in [("read", read), ("write", write), ("short", "hunter2"), ("spaced", "hunter2 hunter2 hunter2")]
    {
        fs::write(folder.path().join(name), format!("{text}\n")).expect("a file");
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).expect("is changed");
    }
    let parse = |more: &str| {
        let text = with(&format!("[mqtt]\nurl = \"mqtt://host\"\n[http]\naccess = \"token\"\n{more}"));
        config::parse(&text, &folder.path().join("clapd.toml"), &environment())
    };
    let both = "read_token_file = \"read\"\nwrite_token_file = \"write\"";
    let (settings, warnings) = parse(both).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    let http = settings.http.expect("is on");
    assert_eq!(
        (http.read_token.clone(), http.write_token.clone()),
        (Some(Secret::new(read.into())), Some(Secret::new(write.into())))
    );
    assert!(!format!("{http:?}").contains(read));
    for (more, words) in [
        ("read_token_file = \"short\"", "holds a token of 7 bytes, and 16 to 200"),
        ("write_token_file = \"spaced\"", "without spaces are allowed"),
        ("read_token_file = \"read\"\nwrite_token_file = \"read\"", "has one token for reading and for writing"),
    ] {
        let found = parse(more).expect_err("has a fault").to_string();
        assert!(found.contains(words) && !found.contains("hunter2"), "{found}");
    }
    fs::set_permissions(folder.path().join("read"), fs::Permissions::from_mode(0o644)).expect("is changed");
    let warnings = parse(both).unwrap_or_else(|faults| panic!("{faults}")).1;
    assert!(warnings[0].to_string().contains("may be read by every user"), "{warnings:?}");
}

#[test]
fn home_assistant_is_told_unless_somebody_says_no() {
    let prefix = |line: &str| {
        let broker = settings(&with(&format!("[mqtt]\nurl = \"mqtt://h\"\n{line}\n"))).broker.expect("is there");
        broker.discovery_prefix
    };
    assert_eq!(prefix("").as_deref(), Some("homeassistant"));
    assert_eq!(prefix("discovery_prefix = \"my/house\"").as_deref(), Some("my/house"));
    assert_eq!(prefix("discovery_prefix = \"\""), None);
}

#[test]
fn ids_that_home_assistant_takes_for_one_are_named() {
    let more = "[[source]]\nid = \"Mic\"\nstdin = true\n[[prompt]]\nid = \"a-dog_barking\"\ntext = \"a hound\"\n";
    let (_, warnings) = parse(&with(more)).unwrap_or_else(|faults| panic!("{faults}"));
    let found: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        found[0].contains("clapd.toml:7: source[1].id: \"Mic\" differs from \"mic\" on line 2 in no more"),
        "{found:?}"
    );
    assert!(found[1].contains("\"a-dog_barking\" differs from \"a_dog_barking\""), "{found:?}");
}

#[test]
fn a_user_is_decoded_and_an_empty_password_is_one() {
    let broker = |url: &str| {
        let (settings, warnings) =
            parse(&with(&format!("[mqtt]\nurl = \"{url}\"\n"))).unwrap_or_else(|faults| panic!("{faults}"));
        let broker = settings.broker.expect("is there");
        (broker.user.expect("has one"), broker.password.map(|password| password.reveal().to_owned()), warnings.len())
    };
    assert_eq!(broker("mqtt://ha%40home@host"), ("ha@home".into(), None, 0));
    assert_eq!(broker("mqtt://token:@host"), ("token".into(), Some(String::new()), 0));
    assert_eq!(broker("mqtt://50%off@host"), ("50%off".into(), None, 1));
}

#[test]
fn a_configuration_is_read_as_windows_saves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clapd.toml");
    fs::write(folder.path().join("secret"), b"\xEF\xBB\xBFhunter2\r\n").expect("a file");
    let text = with("[mqtt]\nurl = \"mqtt://me@host\"\npassword_file = \"secret\"\n").replace('\n', "\r\n");
    fs::write(&path, format!("\u{feff}{text}")).expect("a file");
    let (settings, _) = config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    let password = settings.broker.and_then(|broker| broker.password).expect("is there");
    assert_eq!(password.reveal(), "hunter2");
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&path, wide).expect("a file");
    let found = config::load(&path).expect_err("is refused").to_string();
    assert!(
        found.contains("clapd.toml: is in UTF-16, as Windows saves \"Unicode\"; save the file as UTF-8"),
        "{found}"
    );
}

#[test]
fn no_broker_is_worth_a_warning() {
    let (settings, warnings) = parse(&with("")).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(settings.broker.is_none());
    assert!(warnings[0].to_string().contains("mqtt: is missing: events are logged"), "{}", warnings[0]);
}

#[test]
fn the_host_name_makes_an_id() {
    assert_eq!(settings(&with("")).node, "pi_in_the_hall");
    let nameless = Environment { host_name: "???".into(), ..Environment::default() };
    let faults = config::parse(&with(""), Path::new("clapd.toml"), &nameless).expect_err("no id");
    assert!(faults.to_string().contains("node.id: is missing, and the host's name"), "{faults}");
}

#[test]
fn paths_start_at_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("x.wav"), b"").expect("a file");
    let text = with(
        "[[source]]\nid = \"x\"\nfile = \"x.wav\"\nloop = true\nrealtime = true\nchannel = 1\ngain_db = 48\n[model]\nbundle = \"b\"\n",
    );
    let path = folder.path().join("clapd.toml");
    let (settings, _) = config::parse(&text, &path, &environment()).unwrap_or_else(|faults| panic!("{faults}"));
    let expected = SourceKind::File { path: folder.path().join("x.wav"), looped: true, realtime: true };
    assert_eq!((&settings.sources[1].kind, settings.sources[1].channel), (&expected, Channel::Index(1)));
    assert_eq!(settings.sources.iter().map(|source| source.gain).collect::<Vec<_>>(), [Gain::Auto, Gain::Fixed(48.0)]);
    assert_eq!(settings.bundle, Some(folder.path().join("b")));
}

#[test]
fn a_device_has_the_automatic_gain_unless_told_otherwise_and_others_have_it_when_asked() {
    for (source, gain) in [
        ("device = \"default\"", Gain::Auto),
        ("device = \"default\"\ngain_db = 0", Gain::NONE),
        ("device = \"default\"\ngain_db = -3.5", Gain::Fixed(-3.5)),
        ("url = \"rtsp://camera/stream\"", Gain::NONE),
        ("stdin = true", Gain::NONE),
        ("stdin = true\ngain_db = \"auto\"", Gain::Auto),
    ] {
        let settings = settings(&with(&format!("[[source]]\nid = \"x\"\n{source}\n")));
        assert_eq!(settings.sources[1].gain, gain, "{source}");
    }
}

#[test]
fn a_password_is_found_where_it_may_lie() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("clapd.toml");
    fs::write(folder.path().join("secret"), "from the file\n").expect("a file");
    fs::write(folder.path().join("mqtt-password"), "from systemd").expect("a file");
    let password = |more: &str, environment: &Environment| {
        let text = with(&format!("[mqtt]\nurl = \"mqtt://me@host\"\n{more}"));
        let (settings, _) = config::parse(&text, &path, environment).unwrap_or_else(|faults| panic!("{faults}"));
        settings.broker.and_then(|broker| broker.password).map(|password| password.reveal().to_owned())
    };
    let mut environment = Environment { credentials: Some(folder.path().to_owned()), ..environment() };
    assert_eq!(password("", &environment).as_deref(), Some("from systemd"));
    environment.mqtt_password = Some(Secret::new("from the environment".into()));
    assert_eq!(password("", &environment).as_deref(), Some("from the environment"));
    assert_eq!(password("password_file = \"secret\"", &environment).as_deref(), Some("from the file"));
    assert_eq!(password("", &Environment { host_name: "h".into(), ..Environment::default() }), None);
    fs::write(folder.path().join("secret"), "two\nlines\n").expect("a file");
    let text = with("[mqtt]\nurl = \"mqtt://host\"\npassword_file = \"secret\"\n");
    let found = config::parse(&text, &path, &environment).expect_err("has faults").to_string();
    assert!(found.contains("has several lines") && found.contains("names no user"), "{found}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |name: &str, bytes: &[u8]| {
        let path: PathBuf = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        config::load(&path).expect_err("is refused").to_string()
    };
    assert!(load("large", &vec![b'#'; (1 << 20) + 1]).contains("longer than 1048576 bytes"));
    let latin = load("latin", b"[node]\n# caf\xe9\n");
    assert!(latin.contains("latin:2: is not UTF-8 here; save the file as UTF-8"), "{latin}");
    assert!(config::load(folder.path()).expect_err("a folder").to_string().contains("cannot be read"));
    let missing = config::load(&folder.path().join("none")).expect_err("is missing").to_string();
    assert!(missing.contains("cannot be opened: No such file"), "{missing}");
}

/// Pieces of configurations, so that chance builds tables and not only noise.
fn fragments() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "[",
        "]",
        "[[",
        "]]",
        "=",
        "\n",
        ".",
        "\"",
        "'",
        "{",
        "}",
        ",",
        "#",
        " ",
        "source",
        "prompt",
        "mqtt",
        "node",
        "outbox",
        "http",
        "access",
        "id",
        "text",
        "start",
        "confirm",
        "url",
        "channel",
        "gain_db",
        "mqtt://",
        "@",
        ":",
        "1",
        "-",
        "nan",
        "1e999",
        "true",
        "\"a\"",
        "0x",
        "\\u",
        "9999999999999999999999",
        "é",
        "1979-05-27",
        "\"\"\"",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![fragments(), any::<String>(), fragments().prop_map(|more| with(&more))]) {
        if let Err(faults) = parse(&text) {
            prop_assert!(faults.iter().len() > 0);
            prop_assert_eq!(faults.to_string().lines().count(), faults.iter().len(), "each fault is a line");
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), &bytes).expect("a file");
        let _ = config::load(file.path());
    }
}
