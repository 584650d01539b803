//! The prompts that are listened for, made ready: one immutable table of embeddings, rules and curves.
//!
//! In: embeddings of texts and recordings, with rules. Out: a score a prompt for any window's embedding.

use anyhow::Result;

use super::PromptBank;
use crate::detect::{Calibration, Rule, Score, contrasted};
use crate::model::TextEmbedding;

/// What is listened for: prompts with their rules, and the texts that each is contrasted with.
#[derive(Debug, Clone, Default)]
pub struct PromptSet {
    bank: PromptBank,
    contrasts: Vec<Vec<usize>>,
    rules: Vec<Rule>,
    /// A curve a prompt that is not on the scale of the model's texts.
    curves: Vec<Option<Calibration>>,
}

impl PromptSet {
    /// `prompts` are an embedding, a rule, and the embeddings of the contrasts, each.
    ///
    /// # Errors
    /// An embedding whose length is not `width`.
    pub fn new<'a>(
        width: usize,
        prompts: impl IntoIterator<Item = (&'a TextEmbedding, Rule, &'a [TextEmbedding])>,
    ) -> Result<Self> {
        let prompts: Vec<_> = prompts.into_iter().collect();
        let own = prompts.iter().map(|(embedding, ..)| embedding.vector.as_slice());
        let others = prompts.iter().flat_map(|(.., contrast)| contrast.iter().map(|text| text.vector.as_slice()));
        let bank = PromptBank::new(width, own.chain(others))?;
        // The prompts' rows come first, then those of the first prompt's contrasts, and so on.
        let mut next = prompts.len();
        let mut rows = |count: usize| {
            next += count;
            (next - count..next).collect()
        };
        let contrasts = prompts.iter().map(|(.., contrast)| rows(contrast.len())).collect();
        let rules: Vec<Rule> = prompts.iter().map(|(_, rule, _)| *rule).collect();
        Ok(Self { bank, contrasts, curves: vec![None; rules.len()], rules })
    }

    /// Has the cosines of a prompt whose embedding does not come from words alone scored by a curve of their own.
    #[must_use]
    pub fn with_curve(mut self, prompt: usize, curve: Calibration) -> Self {
        if let Some(own) = self.curves.get_mut(prompt) {
            *own = Some(curve);
        }
        self
    }

    /// The prompts' rules, in order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = Rule> {
        self.rules.iter().copied()
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True where nothing is listened for.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Scores embeddings against a [`PromptSet`], with buffers of its own.
pub struct PromptScorer {
    prompts: PromptSet,
    calibration: Calibration,
    cosines: Vec<f32>,
    scores: Vec<Score>,
}

impl PromptScorer {
    /// A scorer with this curve.
    pub fn new(prompts: PromptSet, calibration: Calibration) -> Self {
        let (cosines, scores) = (vec![0.0; prompts.bank.len()], vec![Score::default(); prompts.len()]);
        Self { prompts, calibration, cosines, scores }
    }

    /// Scores for other prompts from now on.
    pub(crate) fn change_prompts(&mut self, prompts: PromptSet) {
        self.cosines.resize(prompts.bank.len(), 0.0);
        self.scores.resize(prompts.len(), Score::default());
        self.prompts = prompts;
    }

    /// A score a prompt, in order.
    pub fn score(&mut self, embedding: &[f32]) -> &[Score] {
        self.prompts.bank.cosines(embedding, &mut self.cosines);
        let PromptSet { contrasts, curves, .. } = &self.prompts;
        for (prompt, (out, (contrasts, curve))) in self.scores.iter_mut().zip(contrasts.iter().zip(curves)).enumerate()
        {
            let own = curve.as_ref().unwrap_or(&self.calibration).score(self.cosines[prompt]);
            *out = contrasted(own, contrasts.iter().map(|row| self.calibration.score(self.cosines[*row]).score));
        }
        &self.scores
    }
}
