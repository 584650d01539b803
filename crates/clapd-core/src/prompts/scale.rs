//! Where prompts with recordings stand on the human scale.
//!
//! Two sounds are nearer to each other than a sound and a sentence: a cosine of 0.4 that means "8" for a text means "less
//! than 5" for a recording. The curves here give every score from 1 to 8 to the cosine that is as rare among windows which do
//! not hold the sound as the text's cosine of that score is, so that a start of 6 costs as many false alarms an hour either
//! way; 9 and 10 are about the upper half of the peaks of the very sound that was recorded.
//!
//! Measured with `mini` on sounds of Debian packages as models/mini/METHOD.md describes them, curves and weight on the
//! development half: prompts of 1, 3 or 5 recordings of 43 labels (their other takes are what is heard), and of the very clip
//! that is heard, over room tone, fan, rumble, music and speech. On the other half the cosine of 6 was 0.55 to 0.58 for
//! recordings and 0.34 to 0.36 with a text. Recall there at equal false alarms and 2 of 3 (start 6; text alone 0.79 for plain
//! words, 0.53 for unseen phrasings): the clip itself 0.76, three others of its kind 0.64, one other 0.46; with an unseen
//! phrasing 0.84, 0.68, 0.66. So recordings are for *that* doorbell, and words beside them help.
//!
//! Never: measured with another model. For one, take the scores as an order and let `clapd watch` choose the start.

use anyhow::Result;

use crate::detect::Calibration;

/// The share of the text where a prompt has both. On the development half, at a start of 6, shares of 0.5, 0.6 and 0.7 gave
/// recalls of 0.82, 0.85 and 0.85 for the very sound with plain words (recordings alone 0.75, text alone 0.74), and 0.68,
/// 0.68 and 0.67 for three others of its kind with an unseen phrasing (0.62, 0.53). One other of its kind adds nothing to
/// words that are right; it loses least with more text.
pub(super) const TEXT_SHARE: f32 = 0.6;

/// The bundle that the curves were measured with.
const MEASURED_WITH: &str = "mini";

const RECORDINGS: [[f32; 2]; 13] = [
    [-1.0, 0.0],
    [0.0, 0.0],
    [0.16, 1.0],
    [0.265, 2.0],
    [0.345, 3.0],
    [0.39, 4.0],
    [0.43, 5.0],
    [0.565, 6.0],
    [0.65, 7.0],
    [0.75, 8.0],
    [0.87, 9.0],
    [0.97, 10.0],
    [1.0, 10.0],
];

const BOTH: [[f32; 2]; 13] = [
    [-1.0, 0.0],
    [0.0, 0.0],
    [0.085, 1.0],
    [0.14, 2.0],
    [0.19, 3.0],
    [0.22, 4.0],
    [0.245, 5.0],
    [0.355, 6.0],
    [0.445, 7.0],
    [0.57, 8.0],
    [0.72, 9.0],
    [0.85, 10.0],
    [1.0, 10.0],
];

/// The curve of recordings, alone or beside a text.
pub(super) fn curve(with_text: bool) -> Result<Calibration> {
    Calibration::new(if with_text { BOTH } else { RECORDINGS }.to_vec())
}

/// Whether the curves were measured with the bundle of this name.
pub fn is_measured(bundle: &str) -> bool {
    bundle == MEASURED_WITH
}
