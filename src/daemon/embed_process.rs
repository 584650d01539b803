//! New texts are embedded by a process of their own, into the cache.
//!
//! A text tower of 500 MB leaves its heap behind in the process that loads it (measured: 621 MB instead of 233), and a
//! daemon that listens cannot begin anew for it. So the same program does it once more, beside the daemon, and ends. It
//! reads the texts from its standard input, since everybody could read them on a command line. Of the daemon's environment
//! it gets what it needs and nothing else: a password, or systemd's socket, is none of its business.

use std::env;
use std::ffi::OsString;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// To load the largest text tower from a memory card that reads 10 MB a second.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// For each text: the largest tower in f32 on the slowest computer takes a second.
const TEXT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What of the environment it needs: where the cache is, what is logged, the kernel that somebody forces, and where its
/// libraries and temporary files are where that is unusual.
const ENVIRONMENT: [&str; 10] = [
    "CACHE_DIRECTORY",
    "XDG_CACHE_HOME",
    "HOME",
    "RUST_LOG",
    "RUST_LOG_STYLE",
    "RUST_BACKTRACE",
    "CLAPD_KERNEL",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "TERM",
];

/// The program that reads a JSON list of texts from its standard input, embeds them into the cache, and ends.
#[derive(Debug, Clone)]
pub struct EmbedProcess {
    /// An executable.
    pub program: PathBuf,
    /// What it is started with.
    pub arguments: Vec<OsString>,
}

impl EmbedProcess {
    /// Has `texts` embedded.
    ///
    /// # Errors
    /// A process that cannot be started, fails, or takes too long.
    pub(super) fn embed(&self, texts: &[&str]) -> Result<()> {
        // A file without a name, not a pipe: a process that does not read must not stop us.
        let mut input = tempfile::tempfile().context("cannot write a temporary file")?;
        input.write_all(&serde_json::to_vec(texts)?).context("cannot write a temporary file")?;
        input.rewind()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .stdin(input)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a process to embed the prompts; see the limits of the service (TasksMax)")?;
        wait(child, LOAD_TIMEOUT + TEXT_TIMEOUT * u32::try_from(texts.len()).unwrap_or(u32::MAX))
    }
}

fn wait(mut child: Child, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the process that embeds the prompts ended with {status}; the log says why");
            return Ok(());
        }
        if Instant::now() >= deadline {
            child.kill().and_then(|()| child.wait().map(drop)).context("cannot end it")?;
            bail!("embedding the prompts took more than {} s; send fewer at a time", patience.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(script: &str) -> EmbedProcess {
        EmbedProcess { program: "/bin/sh".into(), arguments: ["-c", script].map(OsString::from).into() }
    }

    #[test]
    fn a_process_gets_the_texts_and_its_failure_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        process(&format!("cat > {}", seen.display())).embed(&["a dog", "\"rain\""]).unwrap();
        assert_eq!(std::fs::read_to_string(seen).unwrap(), r#"["a dog","\"rain\""]"#);
        assert!(process("exit 3").embed(&["a dog"]).unwrap_err().to_string().contains("exit status: 3"));
    }

    #[test]
    fn a_process_inherits_no_secret_and_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (seen, open) = (folder.path().join("seen"), folder.path().join("open"));
        // Whatever this test was started with is not passed on either: HOME is, and it is there wherever tests run.
        let secret = std::fs::File::create(folder.path().join("secret")).unwrap();
        let script = format!("/usr/bin/env > {}; /bin/ls -l /proc/self/fd > {}", seen.display(), open.display());
        process(&script).embed(&["a dog"]).unwrap();
        let environment = std::fs::read_to_string(seen).unwrap();
        let names: Vec<&str> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        // A shell sets some of its own.
        let own = ["PWD", "OLDPWD", "SHLVL", "_"];
        assert!(names.iter().all(|name| ENVIRONMENT.contains(name) || own.contains(name)), "{names:?}");
        let inherited = |name: &&str| env::var_os(name).is_some();
        assert!(ENVIRONMENT.iter().filter(|name| inherited(name)).all(|name| names.contains(name)), "{names:?}");
        let open = std::fs::read_to_string(open).unwrap();
        assert!(!open.contains("/secret"), "{open}");
        drop(secret);
    }

    #[test]
    fn a_process_that_hangs_is_ended() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = child.id();
        assert!(wait(child, Duration::ZERO).unwrap_err().to_string().contains("took more than 0 s"));
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
