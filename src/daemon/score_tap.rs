//! Scores into the score log, on their way to the publisher.
//!
//! The source's thread waits for a write to a file at the most; the log itself waits for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event_reporter::{ReportSink, SourceReport};
use crate::score_log::{LogSpec, Moment, ScoreLog};
use crate::threads::ServiceThread;

/// One log for all sources.
#[derive(Debug, Clone)]
pub(super) struct SharedScoreLog(Arc<Mutex<ScoreLog>>);

impl SharedScoreLog {
    pub(super) fn new(spec: LogSpec) -> Self {
        Self(Arc::new(Mutex::new(ScoreLog::new(spec))))
    }

    /// Writes what waits, on a thread of its own: a file system that hangs is to keep nobody from stopping. Gives it up to
    /// `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let log = self.clone();
        match ServiceThread::spawn("score-log", move |_| log.lock().flush()) {
            Ok(thread) => match thread.join_until(Instant::now() + patience) {
                Ok(true) => {}
                Ok(false) => log::warn!("score-log: left behind: the last scores are not written within {patience:?}"),
                Err(panic) => log::error!("{panic}"),
            },
            Err(error) => log::warn!("the last scores are not written: a thread cannot be started: {error}"),
        }
    }

    /// A sink that writes down the scores of `source`, and passes everything on to `sink`.
    pub(super) fn tap(&self, source: &str, mut sink: ReportSink) -> ReportSink {
        let (log, source) = (self.clone(), source.to_owned());
        Box::new(move |report| {
            if let SourceReport::Score(prompt, score, at) = &report {
                log.lock().add(Moment::Time(*at), &source, prompt.as_str(), *score);
            }
            sink(report);
        })
    }

    /// Also after a source's thread has panicked: a line may be missing then, and no more.
    fn lock(&self) -> MutexGuard<'_, ScoreLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::score_log::Form;
    use clapd_core::prompts::PromptId;
    use clapd_core::score::Score;

    fn shared(path: &Path) -> SharedScoreLog {
        SharedScoreLog::new(LogSpec { path: path.into(), form: Form::Csv, max_bytes: 1 << 20 })
    }

    #[test]
    fn scores_are_written_under_their_prompts_and_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        let log = shared(&path);
        let passed_on = Arc::<Mutex<usize>>::default();
        let counter = Arc::clone(&passed_on);
        let mut sink = log.tap("mic", Box::new(move |_| *counter.lock().unwrap() += 1));
        let score = |prompt| {
            let score = Score { cosine: 0.5, score: 7.0 };
            SourceReport::Score(PromptId::new(prompt).unwrap(), score, SystemTime::UNIX_EPOCH)
        };
        sink(SourceReport::Prompts(Arc::default()));
        sink(score("cat"));
        sink(SourceReport::Prompts(Arc::default()));
        sink(score("bell"));
        log.flush(Duration::from_secs(60));
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
        assert_eq!(ids, ["cat", "bell"]);
        assert_eq!(*passed_on.lock().unwrap(), 4);
    }
}
