//! The prompts that are listened for, made ready: one immutable table of prompts, embeddings and curves.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};

use super::{Prompt, PromptBank, PromptId};
use crate::model::TextEmbedding;
use crate::score::{Calibration, Score, contrasted};

/// A prompt with what it is compared by.
#[derive(Debug, Clone)]
pub struct PreparedPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// Its own direction, out of its words and recordings; of unit length.
    pub embedding: TextEmbedding,
    /// The embeddings of the texts that it is contrasted with.
    pub contrast: Vec<TextEmbedding>,
    /// The curve of its own cosine; none where that of the model's texts holds.
    pub curve: Option<Calibration>,
}

impl PreparedPrompt {
    /// A prompt in words alone, without contrasts.
    pub fn of_text(prompt: Prompt, embedding: TextEmbedding) -> Self {
        Self { prompt, embedding, contrast: Vec::new(), curve: None }
    }
}

/// What is listened for, in an order that scores keep. Shared as an `Arc`, and never changed: other prompts are another table.
#[derive(Debug, Clone, Default)]
pub struct PromptTable {
    prompts: Vec<Prompt>,
    places: HashMap<PromptId, usize>,
    /// The prompts' rows, and then those of the first prompt's contrasts, and so on.
    bank: PromptBank,
    /// Rows of each prompt's contrasts.
    contrasts: Vec<Range<usize>>,
    curves: Vec<Option<Calibration>>,
}

impl PromptTable {
    /// A table of prompts with embeddings of `width` numbers.
    ///
    /// # Errors
    /// An embedding of another width; two prompts of one id.
    pub fn new(width: usize, prepared: Vec<PreparedPrompt>) -> Result<Self> {
        let own = prepared.iter().map(|prompt| &prompt.embedding);
        let rivals = prepared.iter().flat_map(|prompt| &prompt.contrast);
        let bank = PromptBank::new(width, own.chain(rivals).map(|text| text.vector.as_slice()))?;
        let mut next = prepared.len();
        let mut table = Self { bank, ..Self::default() };
        for (place, PreparedPrompt { prompt, contrast, curve, .. }) in prepared.into_iter().enumerate() {
            let first = table.places.insert(prompt.id.clone(), place);
            ensure!(first.is_none(), "two prompts have the id {}", prompt.id);
            table.contrasts.push(next..next + contrast.len());
            next += contrast.len();
            table.curves.push(curve);
            table.prompts.push(prompt);
        }
        Ok(table)
    }

    /// The prompts, in order.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// The prompt of this id.
    pub fn get(&self, id: &PromptId) -> Option<&Prompt> {
        self.named(id.as_str())
    }

    /// The prompt whose id is written like this.
    pub fn named(&self, id: &str) -> Option<&Prompt> {
        self.prompts.get(*self.places.get(id)?)
    }

    /// Whether the prompt of this id means the same sound here and in `other`, whatever its rules are.
    pub fn is_same_sound(&self, other: &Self, id: &PromptId) -> bool {
        self.get(id).zip(other.get(id)).is_some_and(|(own, other)| own.is_same_sound(other))
    }

    /// The table of those of its prompts that `is_wanted` holds for, in the same order, with their contrasts and curves.
    #[must_use]
    pub fn select(&self, is_wanted: impl Fn(&PromptId) -> bool) -> Self {
        let wanted: Vec<usize> = (0..self.len()).filter(|place| is_wanted(&self.prompts[*place].id)).collect();
        let rivals = wanted.iter().flat_map(|place| self.contrasts[*place].clone());
        let bank = self.bank.select(wanted.iter().copied().chain(rivals));
        let mut next = wanted.len();
        let mut selected = Self { bank, ..Self::default() };
        for (place, old) in wanted.into_iter().enumerate() {
            let prompt = self.prompts[old].clone();
            selected.places.insert(prompt.id.clone(), place);
            selected.prompts.push(prompt);
            let rivals = self.contrasts[old].len();
            selected.contrasts.push(next..next + rivals);
            next += rivals;
            selected.curves.push(self.curves[old].clone());
        }
        selected
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// True where nothing is listened for.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }
}

/// Scores embeddings against a [`PromptTable`], with buffers of its own.
pub struct PromptScorer {
    table: Arc<PromptTable>,
    calibration: Calibration,
    cosines: Vec<f32>,
    scores: Vec<Score>,
    /// The same before the contrasts had their say.
    own: Vec<f32>,
}

impl PromptScorer {
    /// A scorer with this curve.
    pub fn new(table: Arc<PromptTable>, calibration: Calibration) -> Self {
        let (cosines, scores) = (vec![0.0; table.bank.len()], vec![Score::default(); table.len()]);
        Self { own: vec![0.0; table.len()], table, calibration, cosines, scores }
    }

    /// Scores for other prompts from now on.
    pub(crate) fn change_prompts(&mut self, table: Arc<PromptTable>) {
        self.cosines.resize(table.bank.len(), 0.0);
        self.scores.resize(table.len(), Score::default());
        self.own.resize(table.len(), 0.0);
        self.table = table;
    }

    /// A score a prompt, in the table's order.
    pub fn score(&mut self, embedding: &[f32]) -> &[Score] {
        self.table.bank.cosines(embedding, &mut self.cosines);
        let PromptTable { contrasts, curves, .. } = &*self.table;
        for (place, (rivals, curve)) in contrasts.iter().zip(curves).enumerate() {
            let own = curve.as_ref().unwrap_or(&self.calibration).score(self.cosines[place]);
            let rivals = &self.cosines[rivals.clone()];
            self.own[place] = own.score;
            self.scores[place] = contrasted(own, rivals.iter().map(|cosine| self.calibration.score(*cosine).score));
        }
        &self.scores
    }

    /// The scores of the last embedding before the contrasts had their say, in the table's order.
    pub(crate) fn own_scores(&self) -> &[f32] {
        &self.own
    }

    /// The scores of the last embedding, in the table's order.
    pub(crate) fn scores(&self) -> &[Score] {
        &self.scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::Rule;

    fn prompt(id: &str, text: &str, start: f32) -> PreparedPrompt {
        let prompt = Prompt::of_text(PromptId::new(id).unwrap(), text, Rule { start, ..Rule::default() });
        PreparedPrompt::of_text(prompt, TextEmbedding { vector: vec![1.0], coverage: None })
    }

    #[test]
    fn a_prompt_means_the_same_by_its_id_and_sound_whatever_its_rule() {
        let table = |prompts: [PreparedPrompt; 3]| PromptTable::new(1, prompts.into()).unwrap();
        let before = table([prompt("dog", "a dog", 6.0), prompt("cat", "a cat", 6.0), prompt("cow", "a cow", 6.0)]);
        let after = table([prompt("cow", "a cow", 7.0), prompt("dog", "a wolf", 6.0), prompt("pig", "a pig", 6.0)]);
        let same: Vec<bool> = after.prompts().iter().map(|prompt| after.is_same_sound(&before, &prompt.id)).collect();
        assert_eq!(same, [true, false, false]);
    }

    #[test]
    fn selected_prompts_score_as_before() {
        let unit = |axis: usize| TextEmbedding {
            vector: (0..6).map(|i| if i == axis { 1.0 } else { 0.0 }).collect(),
            coverage: None,
        };
        let curve = |top| Calibration::new(vec![[-1.0, 0.0], [1.0, top]]).unwrap();
        let prepared = (0..3).map(|n| PreparedPrompt {
            contrast: (0..n).map(|rival| unit(3 + rival)).collect(),
            curve: (n == 2).then(|| curve(5.0)),
            ..PreparedPrompt::of_text(Prompt::of_text(PromptId::numbered(n), "x", Rule::default()), unit(n))
        });
        let table = Arc::new(PromptTable::new(6, prepared.collect()).unwrap());
        let selected = Arc::new(table.select(|id| *id != PromptId::numbered(1)));
        let embedding = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let all = PromptScorer::new(table, curve(10.0)).score(&embedding).to_vec();
        let some = PromptScorer::new(Arc::clone(&selected), curve(10.0)).score(&embedding).to_vec();
        assert_eq!(some, [all[0], all[2]]);
        assert_eq!(selected.get(&PromptId::numbered(2)).map(|it| it.id.as_str()), Some("2"));
        assert!(selected.get(&PromptId::numbered(1)).is_none());
    }

    #[test]
    fn two_prompts_of_one_id_are_refused() {
        let error = PromptTable::new(1, vec![prompt("dog", "a dog", 6.0), prompt("dog", "a wolf", 6.0)]).unwrap_err();
        assert!(error.to_string().contains("the id dog"), "{error}");
    }
}
