//! Scores into the score log, on their way to whoever is told.
//!
//! In: what a source tells. Out: the same, and a line a score.
//! Never: keeps the listener waiting longer than a write to a file does; the log itself waits for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::teller::{Audience, Told};
use crate::score_log::{LogSpec, Moment, ScoreLog};

/// One log for all sources.
#[derive(Debug, Clone)]
pub(super) struct SharedLog(Arc<Mutex<ScoreLog>>);

impl SharedLog {
    pub(super) fn new(spec: LogSpec) -> Self {
        Self(Arc::new(Mutex::new(ScoreLog::new(spec))))
    }

    /// Writes what waits.
    pub(super) fn flush(&self) {
        self.lock().flush();
    }

    /// An audience that hears what `audience` does, and writes the scores of `source` down.
    pub(super) fn before(&self, source: &str, mut audience: Audience) -> Audience {
        let (log, source) = (self.clone(), source.to_owned());
        Box::new(move |told| {
            if let Told::Score(prompt, score, at) = &told {
                log.lock().add(Moment::Time(*at), &source, prompt.as_str(), *score);
            }
            audience(told);
        })
    }

    /// Also behind a listener that panicked: a line may be missing then, and no more.
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

    fn shared(path: &Path) -> SharedLog {
        SharedLog::new(LogSpec { path: path.into(), form: Form::Csv, max_bytes: 1 << 20 })
    }

    #[test]
    fn scores_are_written_under_their_prompts_and_told_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        let log = shared(&path);
        let heard = Arc::<Mutex<usize>>::default();
        let ears = Arc::clone(&heard);
        let mut audience = log.before("mic", Box::new(move |_| *ears.lock().unwrap() += 1));
        let score = |prompt| {
            let score = Score { cosine: 0.5, score: 7.0 };
            Told::Score(PromptId::new(prompt).unwrap(), score, SystemTime::UNIX_EPOCH)
        };
        audience(Told::Prompts(Arc::default()));
        audience(score("cat"));
        audience(Told::Prompts(Arc::default()));
        audience(score("bell"));
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
        assert_eq!(ids, ["cat", "bell"]);
        assert_eq!(*heard.lock().unwrap(), 4);
    }
}
