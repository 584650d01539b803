//! The score log of all sources, which looks on at each.
//!
//! The source's thread waits for a write to a file at the most; the log itself waits for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clapd_core::pipeline::ScoredWindow;

use super::source_taps::{Observer, Tap};
use crate::capture::SourceSpec;
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

    /// Also after a source's thread has panicked: a line may be missing then, and no more.
    fn lock(&self) -> MutexGuard<'_, ScoreLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for SharedScoreLog {
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap> {
        Box::new(ScoreTap { log: self.clone(), source: source.id.clone() })
    }
}

/// Writes down the scores of one source.
struct ScoreTap {
    log: SharedScoreLog,
    source: String,
}

impl Tap for ScoreTap {
    fn window(&mut self, window: &ScoredWindow<'_>, _: SystemTime, end: SystemTime) {
        let mut log = self.log.lock();
        window.by_prompt().for_each(|(prompt, score)| log.add(Moment::Time(end), &self.source, prompt.as_str(), score));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clapd_core::model::TextEmbedding;
    use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
    use clapd_core::score::Score;
    use clapd_core::time::SampleTime;

    use super::*;
    use crate::capture::SourceKind;
    use crate::levels::Microphone;
    use crate::score_log::Form;

    fn shared(path: &Path) -> SharedScoreLog {
        SharedScoreLog::new(LogSpec { path: path.into(), form: Form::Csv, max_bytes: 1 << 20 })
    }

    #[test]
    fn scores_are_written_under_their_source_and_prompts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        let log = shared(&path);
        let channel = clapd_core::channel::Channel::Mix;
        let mut tap = log.observe(&SourceSpec {
            id: "mic".into(),
            kind: SourceKind::Stdin { raw: None },
            channel,
            gain: clapd_core::level::Gain::NONE,
            microphone: Microphone::default(),
        });
        for id in ["cat", "bell"] {
            let text = TextEmbedding { vector: vec![1.0], coverage: None };
            let prompt = Prompt::of_text(PromptId::new(id).unwrap(), id, Rule::default());
            let prompts = Arc::new(PromptTable::new(1, vec![PreparedPrompt::of_text(prompt, text)]).unwrap());
            let (start, end) = (SampleTime::ZERO, SampleTime::from_samples(1, 1));
            let scores = &[Score { cosine: 0.5, score: 7.0 }];
            let prompts = &prompts;
            let (lost, gated, verdicts, embedding, continues) = (0.0, false, &[], None, true);
            let window = ScoredWindow { start, end, lost, gated, prompts, scores, verdicts, embedding, continues };
            tap.window(&window, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        }
        log.flush(Duration::from_secs(60));
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').skip(1).take(2).collect()).collect();
        assert_eq!(ids, [["mic", "cat"], ["mic", "bell"]]);
    }
}
