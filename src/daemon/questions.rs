//! Sentences that are asked of the past, and captions: embedded and scored by a thread of its own, one at a time.
//!
//! A question takes as long as its text takes to be embedded, which a slow computer does in seconds, and changes nothing: no change
//! waits for it, and it is answered from its own thread.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use super::prompt_preparer::PromptPreparer;
use super::worker::{Activity, Worker};
use crate::command::{Outcome, Question, Refusal, STOPPING};
use crate::health::ThreadHealth;
use crate::history::{Captions, History, PastAnswer, Period};
use crate::mqtt;
use crate::threads::ThreadPanic;

/// Questions that may wait: some people who type. More are told to come later.
const MAX_WAITING: usize = 4;

/// Answers whoever asked.
pub(super) type Respond = Box<dyn FnOnce(&Outcome) + Send>;

/// Sees to questions.
pub(super) struct Questions {
    history: History,
    preparer: Arc<PromptPreparer>,
    worker: Worker<()>,
    waiting: VecDeque<(Question, Respond)>,
}

impl Questions {
    pub(super) fn new(history: History, preparer: Arc<PromptPreparer>) -> Self {
        Self { history, preparer, worker: Worker::idle("questions"), waiting: VecDeque::new() }
    }

    /// Answers a question soon.
    pub(super) fn ask(&mut self, question: Question, respond: Respond) -> Option<ThreadPanic> {
        if self.waiting.len() >= MAX_WAITING {
            let busy = "other questions wait to be answered; send it again in some seconds";
            respond(&Err(Refusal::busy(busy)));
            return None;
        }
        self.waiting.push_back((question, respond));
        self.advance()
    }

    /// Begins with what waits, where nothing goes on. To be called often. Returns the panic of a job that is over.
    pub(super) fn advance(&mut self) -> Option<ThreadPanic> {
        if let Some(Err(panic)) = self.worker.take_done() {
            return Some(panic);
        }
        if self.worker.activity().is_some() {
            return None;
        }
        let (history, preparer) = (self.history.clone(), Arc::clone(&self.preparer));
        let begun = if let Some((question, respond)) = self.waiting.pop_front() {
            self.worker.begin(move |activity| respond(&answer(&history, &preparer, &question, activity)))
        } else if history.take_wanted_captions() {
            self.worker.begin(move |activity| embed_captions(&history, &preparer, activity))
        } else {
            Ok(())
        };
        if let Err(error) = begun {
            // Whoever asked sees the connection, or the time, run out.
            log::error!("a question is not answered: a thread cannot be started: {error}");
        }
        None
    }

    pub(super) fn health(&self) -> ThreadHealth {
        self.worker.health()
    }

    /// The process ends: nothing is answered any more.
    pub(super) fn leave(&mut self) {
        for (_, respond) in self.waiting.drain(..) {
            respond(&Err(Refusal::busy(STOPPING)));
        }
        self.worker.leave();
    }
}

fn answer(history: &History, preparer: &PromptPreparer, question: &Question, activity: &Activity) -> Outcome {
    let Question { text, source, from, to, curve } = question;
    let source = match source {
        Some(source) => source.clone(),
        None => only_source(history)?,
    };
    activity.set("embedding a question");
    let embedding = preparer.embed(&[text]).map_err(|error| format!("{error:#}"))?.pop();
    let embedding = embedding.ok_or_else(|| "the text model has said nothing, which is a fault in clapd".to_owned())?;
    activity.set("asking the past");
    let period = Period { from: from.unwrap_or(i64::MIN), to: to.unwrap_or(i64::MAX) };
    let answer = history.ask(&source, &embedding, period).map_err(|error| error.to_string())?;
    Ok(answer_data(text, &source, &answer, *curve))
}

/// The only source that there is.
fn only_source(history: &History) -> Result<String, Refusal> {
    let mut sources = history.sources();
    match sources.len() {
        1 => Ok(sources.remove(0)),
        0 => Err(Refusal::busy("no source has begun; ask again in some seconds")),
        _ => Err(format!("`source` is missing, and there are {}; name one", sources.join(", ")).into()),
    }
}

fn answer_data(text: &str, source: &str, answer: &PastAnswer, curve: bool) -> Value {
    let score = |score: f32| mqtt::rounded(score, 2);
    let best: Vec<Value> = answer.best.iter().map(|(at, value)| json!({ "at": at, "score": score(*value) })).collect();
    let mut data = json!({
        "text": text,
        "source": source,
        "took_ms": (answer.took.as_secs_f64() * 1e4).round() / 10.0,
        "windows": answer.at.len(),
        "from": answer.at.first(),
        "to": answer.at.last(),
        "best": best,
    });
    if curve {
        data["at"] = json!(answer.at);
        data["scores"] = answer.scores.iter().map(|value| json!(score(*value))).collect();
    }
    data
}

fn embed_captions(history: &History, preparer: &PromptPreparer, activity: &Activity) {
    activity.set("embedding captions");
    let embedded = preparer.embed(&Captions::texts()).and_then(|embeddings| history.set_captions(&embeddings));
    if let Err(error) = embedded {
        log::warn!("there are no captions: {error:#}");
    }
}
