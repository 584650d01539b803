//! Stock captions: what the model hears in its own words, for whoever has written no prompt yet.

use anyhow::Result;
use clapd_core::model::TextEmbedding;
use clapd_core::prompts::PromptBank;
use clapd_core::score::Calibration;

/// A caption a line: sounds of homes, yards and streets in plain words, each of them something that the models were trained to know.
const TEXT: &str = include_str!("captions.txt");

/// A caption and how well it describes a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredCaption {
    /// In words.
    pub text: &'static str,
    /// 0 to 10.
    pub score: f32,
}

/// The captions with their embeddings.
#[derive(Debug)]
pub struct Captions {
    bank: PromptBank,
    calibration: Calibration,
}

impl Captions {
    /// What they say.
    pub fn texts() -> Vec<&'static str> {
        TEXT.lines().collect()
    }

    /// `embeddings` are those of [`texts`](Self::texts), in order, of `width` numbers each.
    ///
    /// # Errors
    /// An embedding of another width.
    pub(super) fn new(width: usize, embeddings: &[TextEmbedding], calibration: Calibration) -> Result<Self> {
        let bank = PromptBank::new(width, embeddings.iter().map(|text| text.vector.as_slice()))?;
        Ok(Self { bank, calibration })
    }

    /// The `count` captions that describe the window with this embedding best, the best first.
    pub fn best(&self, embedding: &[f32], count: usize) -> Vec<ScoredCaption> {
        let mut cosines = vec![0.0; self.bank.len()];
        self.bank.cosines(embedding, &mut cosines);
        let mut order: Vec<_> = cosines.iter().copied().zip(TEXT.lines()).collect();
        order.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let scored = |(cosine, text)| ScoredCaption { text, score: self.calibration.score(cosine).score };
        order.into_iter().take(count).map(scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn captions_are_plain_and_differ() {
        let texts = Captions::texts();
        assert!((60..=80).contains(&texts.len()), "{}", texts.len());
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
        for text in texts {
            let plain = text.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
            assert!(plain && text.trim() == text && (3..40).contains(&text.len()), "{text:?}");
        }
    }

    #[test]
    fn the_best_come_first() {
        let count = Captions::texts().len();
        let unit = |axis: usize| (0..count).map(|i| if i == axis { 1.0 } else { 0.0 }).collect();
        let embeddings: Vec<_> = (0..count).map(|axis| TextEmbedding { vector: unit(axis), coverage: None }).collect();
        let curve = Calibration::new(vec![[-1.0, 0.0], [0.0, 0.0], [1.0, 10.0]]).unwrap();
        let captions = Captions::new(count, &embeddings, curve).unwrap();
        let mut embedding = vec![0.0; count];
        (embedding[3], embedding[5]) = (0.6, 0.8);
        let best = captions.best(&embedding, 2);
        assert_eq!(best.iter().map(|it| it.text).collect::<Vec<_>>(), [Captions::texts()[5], Captions::texts()[3]]);
        assert!((best[0].score - 8.0).abs() < 1e-3 && (best[1].score - 6.0).abs() < 1e-3, "{best:?}");
    }
}
