//! `clapd setup` against real brokers and sound devices: what it says of each, and what it writes.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::broker::{Broker, Link, free_port};
use crate::support::certificates::Authority;
use crate::support::setup_run::{CLAPD, NULL, SetupFolder, mode};
use crate::support::sound_server::{DEVICE, RATE, SoundServer};
use crate::wav::Wav;

const EXAMPLE: &str = include_str!("../../systemd/clapd.toml");
const SECRET: &str = "correct-horse-battery";

fn at(broker: &Broker) -> String {
    format!("mqtt://127.0.0.1:{}", broker.port)
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&NULL[..], more].concat()
}

#[test]
fn a_configuration_is_written_that_the_daemon_runs_with() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let folder = SetupFolder::new();
    let outcome = folder.setup(&with(&["--broker", &at(&broker), "-p", "rain"]));
    let address = format!("127.0.0.1:{} answers", broker.port);
    outcome.is(
        0,
        &[
            &address,
            "without a user, in MQTT 5",
            "comes back",
            "in order; 1 source(s), 2 prompt(s)",
            "clapd run --config",
        ],
    );
    assert_eq!(folder.written(), ["clapd.toml"]);
    assert_eq!(mode(&folder.config()), 0o644, "the service's user has to read it");
    let text = folder.read("etc/clapd.toml");
    assert!(
        text.contains("\nid = \"attic\" ") && text.contains("# Where events wait while the broker is away."),
        "{text}"
    );

    let mut daemon = Command::new(CLAPD);
    daemon.args(["run", "--config"]).arg(folder.config());
    daemon.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).env("XDG_STATE_HOME", folder.path("state"));
    let mut daemon = daemon.stderr(Stdio::null()).spawn().expect("clapd runs");
    watcher.wait_for("0 1 clapd/attic/status online");
    watcher.wait_for("0 1 clapd/attic/mic/rain/state OFF");
    daemon.kill().and_then(|()| daemon.wait()).expect("ends");
    // Set-up has left nothing of its own.
    let left = broker.watch().retained.clone();
    assert!(!left.iter().any(|line| line.contains("setup")), "{left:?}");
}

#[test]
fn a_password_lies_in_a_file_of_its_own_and_is_never_seen() {
    let broker = Broker::start_with_password("clapd", SECRET);
    let folder = SetupFolder::new();
    let url = format!("mqtt://clapd@127.0.0.1:{}", broker.port);
    let wrong = folder.write("wrong", "hunter2-wrong\n");
    let file = folder.write("secret", &format!("{SECRET}\n"));

    let outcome = folder.setup(&with(&["--broker", &url, "--password-file", wrong.to_str().unwrap()]));
    outcome.is(5, &["login: the user clapd or the password is wrong"]);
    outcome.hides("hunter2-wrong");
    assert_eq!(folder.written(), Vec::<String>::new(), "nothing is written before all is well");
    folder.setup(&with(&["--broker", &url])).is(5, &["does not let clapd in without a password", "--password-file"]);
    folder.setup(&with(&["--broker", &at(&broker)])).is(5, &["lets nobody in without a user", "mqtt://USER@127.0.0.1"]);
    let nameless = folder.setup(&with(&["--broker", &at(&broker), "--password-file", file.to_str().unwrap()]));
    nameless.is(2, &["--password-file needs a user"]);
    let refused = folder.setup(&with(&["--broker", &url.replace("clapd@", &format!("clapd:{SECRET}@"))]));
    refused.is(2, &["holds a password, and a configuration is no place for one"]);
    refused.hides(SECRET);

    let outcome = folder.setup(&with(&["--broker", &url, "--password-file", file.to_str().unwrap()]));
    outcome.is(0, &["as clapd, in MQTT 5", "comes back", "-u 'clapd'", "in order"]);
    outcome.hides(SECRET);
    assert_eq!(folder.written(), ["clapd.toml", "mqtt-password"]);
    assert_eq!(
        (folder.read("etc/mqtt-password"), mode(&folder.path("etc/mqtt-password"))),
        (format!("{SECRET}\n"), 0o600)
    );
    let text = folder.read("etc/clapd.toml");
    assert!(text.contains("\npassword_file = \"mqtt-password\"") && !text.contains(SECRET), "{text}");
    let by_variable = folder.setup_with(&with(&["--broker", &url, "--force"]), |command| {
        command.env("CLAPD_MQTT_PASSWORD", SECRET);
    });
    by_variable.is(0, &["as clapd"]);
    by_variable.hides(SECRET);
}

#[test]
fn a_certificate_is_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    let (cert, key) = ours.issue("127.0.0.1");
    let (elsewhere, its_key) = ours.issue("broker.elsewhere");
    let (secure, misnamed) = (free_port(), free_port());
    let plain = Broker::start_with(|_| {
        let tls = |port, cert: &std::path::Path, key: &std::path::Path| {
            format!("listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\n", cert.display(), key.display())
        };
        format!("allow_anonymous true\n{}{}", tls(secure, &cert, &key), tls(misnamed, &elsewhere, &its_key))
    });
    let folder = SetupFolder::new();
    let reach = |port: u16, ca: Option<&Authority>| {
        let url = format!("mqtts://127.0.0.1:{port}");
        let mut arguments = with(&["--broker", &url]);
        let ca = ca.map(|ca| ca.path.to_str().unwrap().to_owned());
        arguments.extend(ca.iter().flat_map(|ca| ["--ca-file", ca.as_str()]));
        folder.setup(&arguments)
    };
    reach(secure, Some(&other)).is(5, &["TLS: the authority in mqtt.ca_file does not vouch"]);
    reach(misnamed, Some(&ours))
        .is(5, &["TLS: the broker's certificate is for", "broker.elsewhere", "not for \"127.0.0.1\""]);
    reach(plain.port, Some(&ours)).is(5, &["TLS: ", "is that the port for TLS"]);
    let place_2 = SetupFolder::new();
    let url = format!("mqtt://127.0.0.1:{secure}");
    place_2.setup(&with(&["--broker", &url])).is(5, &["login: ", "does it want TLS on this port"]);
    let ca = ours.path.to_str().unwrap();
    place_2.setup(&with(&["--broker", &url, "--ca-file", ca])).is(2, &["is for TLS, and mqtt.url begins with mqtt://"]);
    assert_eq!(folder.written(), Vec::<String>::new());

    reach(secure, Some(&ours)).is(0, &["TLS 1.3, and the certificate is good for 127.0.0.1", "comes back", "--cafile"]);
    assert_eq!(folder.written(), ["ca.pem", "clapd.toml"], "what lies in somebody's home no service sees");
    assert_eq!(folder.read("etc/ca.pem"), fs::read_to_string(&ours.path).expect("is there"));
}

#[test]
fn an_authority_that_nobody_knows_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = Authority::new(folder.path(), "ours").issue("127.0.0.1");
    let secure = free_port();
    let _broker = Broker::start_with(|_| {
        format!(
            "allow_anonymous true\nlistener {secure} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
            cert.display(),
            key.display()
        )
    });
    let url = format!("mqtts://127.0.0.1:{secure}");
    SetupFolder::new()
        .setup(&with(&["--broker", &url]))
        .is(5, &["TLS: no authority that this system trusts vouches", "--ca-file"]);
}

#[test]
fn a_way_that_leads_nowhere_is_described() {
    let folder = SetupFolder::new();
    let dead = format!("127.0.0.1:{}", free_port());
    folder.setup(&with(&["--broker", &dead])).is(5, &[&format!("TCP: nobody listens at {dead} (connection refused)")]);
    // No server is asked for a name with so long a part.
    let nobody = format!("{}.example", "x".repeat(64));
    folder.setup(&with(&["--broker", &nobody])).is(5, &["name: \"xxx", "has no address"]);
    folder.setup(&with(&["--broker", "tcp://host"])).is(2, &["mqtt.url: \"tcp\" is not a scheme for MQTT"]);
    assert_eq!(folder.written(), Vec::<String>::new());
    // Somebody who knows that the broker comes later.
    folder.setup(&with(&["--broker", &dead, "--keep-going"])).is(0, &["passed over TCP: nobody listens", "in order"]);
    assert!(folder.read("etc/clapd.toml").contains(&format!("\nurl = \"mqtt://{dead}\"")));
}

#[test]
fn an_old_broker_will_do() {
    let broker = Broker::start();
    let url = format!("mqtt://127.0.0.1:{}", Link::old(&broker));
    SetupFolder::new().setup(&with(&["--broker", &url])).is(0, &["in MQTT 3.1.1", "comes back", "refuses in silence"]);
}

#[test]
fn what_a_broker_does_not_take_is_said_in_setup_and_by_check() {
    for (limit, words) in [
        ("max_packet_size 2048", &["the broker takes packets of at most 2048 bytes", "one by one, in at most"][..]),
        ("retain_available false", &["takes no retained last will", "comes back, but is not kept"]),
        ("max_qos 0", &["no last will with QoS 1", "not acknowledged: the broker takes QoS 0 only", "is kept"]),
        ("message_size_limit 900", &["an event of", "is accepted and acknowledged", "one by one, in at most"]),
    ] {
        let broker = Broker::start_with(|_| format!("allow_anonymous true\n{limit}"));
        let folder = SetupFolder::new();
        folder.setup(&with(&["--broker", &at(&broker)])).is(0, words);
        let config = folder.config().display().to_string();
        let run = |arguments: &[&str]| {
            let output = Command::new(CLAPD).args(arguments).output().expect("clapd runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let checked = run(&["check", "--connect", "--config", &config]);
        assert!(words.iter().all(|word| checked.contains(word)), "{limit}: {checked}");
        assert!(!run(&["check", "--config", &config]).contains("login"), "nothing is started unasked");
        // What nobody announces is found out.
        if limit != "message_size_limit 900" {
            let old = format!("mqtt://127.0.0.1:{}", Link::old(&broker));
            SetupFolder::new().setup(&with(&["--broker", &old])).is(0, &words[words.len() - 1..]);
        }
    }
}

/// A broker with an access list.
fn picky(list: &str) -> Broker {
    Broker::start_with(|folder| {
        let access = folder.join("access");
        fs::write(&access, format!("pattern readwrite #\n{list}\n")).expect("a file");
        format!("allow_anonymous true\nacl_file {}", access.display())
    })
}

#[test]
fn an_access_list_that_is_too_narrow_is_noticed() {
    let broker = picky("pattern deny clapd/attic/setup/test/state");
    let folder = SetupFolder::new();
    let outcome = folder.setup(&with(&["--broker", &at(&broker)]));
    outcome.is(
        5,
        &[
            "an event of ",
            "accepted and acknowledged",
            "receive: the broker refuses clapd/attic/setup/test/state: this user may not write",
            "let this user write to clapd/attic/#",
        ],
    );
    let old = format!("mqtt://127.0.0.1:{}", Link::old(&broker));
    let outcome = folder.setup(&with(&["--broker", &old]));
    // MQTT 3.1.1 leaves it to the broker whether it drops what is refused in silence, or the connection.
    outcome.is(5, &[]);
    let complaint = &outcome.stderr;
    let (silent, hung_up) = (complaint.contains("read and write clapd/attic/#"), complaint.contains("its access list"));
    assert!(silent || hung_up, "{complaint}");

    let broker = picky("pattern deny homeassistant/#");
    let outcome = folder.setup(&with(&["--broker", &at(&broker)]));
    outcome.is(
        0,
        &[
            "comes back",
            "Home Assistant will not find this computer until this user may write to homeassistant/device/#",
        ],
    );
}

#[test]
fn somebodys_configuration_is_not_written_over_unasked() {
    let folder = SetupFolder::new();
    let none = with(&["--broker", "none"]);
    folder.write("etc/clapd.toml", EXAMPLE);
    folder.setup(&none).is(0, &["in order", "mqtt: is missing: events are logged"]);
    assert_eq!(folder.written(), ["clapd.toml"], "what a package installed is nobody's work");
    let mine = folder.read("etc/clapd.toml");
    assert!(!mine.contains("\n[mqtt]") && mine.contains("\n# [mqtt]"), "{mine}");
    folder.setup(&none).is(2, &["is there already, and stays as it is; --force replaces it"]);
    assert_eq!(folder.read("etc/clapd.toml"), mine);
    folder.setup(&[&none[..], &["--force", "-p", "rain"]].concat()).is(0, &["2 prompt(s)"]);
    assert_eq!((folder.read("etc/clapd.toml.old"), folder.written().len()), (mine, 2));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let folder = SetupFolder::new();
    let fails = |arguments: &[&str], status: i32, words: &[&str]| {
        let output =
            Command::new(CLAPD).arg("setup").args(arguments).stdin(Stdio::null()).output().expect("clapd runs");
        let stdout = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{stdout}");
        assert!(words.iter().all(|word| stdout.contains(word)), "{stdout}");
    };
    let config = folder.config().display().to_string();
    fails(&["--config", &config, "-p", "rain"], 2, &["there is no broker; give --broker URL"]);
    fails(&["--config", &config, "--broker", "none"], 2, &["nothing to listen for; give -p"]);
    fails(
        &["--config", "/proc/clapd/clapd.toml"],
        2,
        &["cannot write to /proc/clapd", "use sudo, or name a file of yours"],
    );
    folder
        .setup(&["--device", "alsa:nobody", "--broker", "none"])
        .is(4, &["the device delivers no sound (lost)", "alsa:nobody", "choose another"]);
    assert_eq!(folder.written(), Vec::<String>::new());
}

/// A tone of some minutes.
fn tone(server: &SoundServer, peak: f64) -> std::path::PathBuf {
    let path = server.path().join("tone.wav");
    let sample = |n: u32| ((f64::from(n) * 0.0577).sin() * peak * 32_767.0).clamp(-32_768.0, 32_767.0) as i16;
    fs::write(&path, Wav::mono(RATE, (0..RATE * 120).map(sample)).bytes()).expect("a file");
    path
}

#[test]
fn a_microphone_is_judged_by_its_signal() {
    let mut server = SoundServer::start(true);
    let folder = SetupFolder::new();
    let mut listen = |play: Option<f64>| {
        server.stop_playing();
        if let Some(peak) = play {
            let tone = tone(&server, peak);
            server.play(&tone);
        }
        let environment = server.environment();
        folder.setup_with(&["--device", DEVICE, "--broker", "none", "--force"], |command| {
            command.envs(environment);
        })
    };
    listen(None).is(0, &["level -144 dBFS", "warning    digital silence"]);
    // 0.1 of full scale, a sine: -23 dB.
    let live = listen(Some(0.1));
    live.is(0, &["48000 Hz; level -23 dBFS"]);
    assert!(!live.stdout.contains("warning  "), "{}", live.stdout);
    let faint = "warning    faint: nothing was louder than -63 dB, and the model hears well from -45 dB on";
    listen(Some(0.001)).is(0, &[faint, "raise its capture volume (alsamixer, F4)", "gain_db = 38.0"]);
    listen(Some(4.0)).is(0, &["warning    it is cut off at full scale"]);
}

#[test]
fn a_person_is_asked_and_may_answer_again() {
    let broker = Broker::start_with_password("clapd", SECRET);
    let folder = SetupFolder::new();
    let port = broker.port;
    let port = port.to_string();
    let broker = |password| {
        [("broker (", "127.0.0.1"), ("TLS?", "n"), ("Port", port.as_str()), ("User", "clapd"), ("Password", password)]
    };
    let dialogue = [
        &[("Number or name of the input device", "alsa:null")][..],
        &broker("hunter2-wrong"),
        &[("(s)top", "o")],
        &broker(SECRET),
        &[("A sound", "a kettle whistling")],
    ];
    let outcome = folder.typed("--node attic", &dialogue.concat());
    outcome.is(
        0,
        &[
            "Number or name of the input device",
            "failed     login: the user clapd or the password is wrong",
            "comes back",
            "in order",
        ],
    );
    outcome.hides(SECRET);
    outcome.hides("hunter2-wrong");
    assert_eq!(folder.read("etc/mqtt-password"), format!("{SECRET}\n"));
    let text = folder.read("etc/clapd.toml");
    assert!(text.contains("\ntext = \"a kettle whistling\"") && text.contains("\ndevice = \"alsa:null\""), "{text}");

    // What is there is kept where the answer is not yes; and who stops, stops.
    folder.typed("", &[("[y/N]", "")]).is(2, &["Replace it (it is kept as", "--force replaces it"]);
    let dead = format!("--device alsa:null --broker 127.0.0.1:{} -p rain --force", free_port());
    folder.typed(&dead, &[("(s)top", "s")]).is(5, &["(s)top", "nobody listens"]);
    assert_eq!(folder.read("etc/clapd.toml"), text);
}

#[test]
fn ctrl_c_at_the_password_gives_the_terminal_back() {
    let broker = Broker::start_with_password("clapd", SECRET);
    let folder = SetupFolder::new();
    let port = broker.port.to_string();
    let dialogue = [
        ("broker (", "127.0.0.1"),
        ("TLS?", "n"),
        ("Port", port.as_str()),
        ("User", "clapd"),
        ("Password", "half\x03"),
    ];
    // 130: by SIGINT. 99 would be a terminal whose settings are others than before.
    folder.typed("--device alsa:null --node attic", &dialogue).is(130, &["Password"]);
    assert_eq!(folder.written(), [""; 0]);
}
