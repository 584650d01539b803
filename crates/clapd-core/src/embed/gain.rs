//! How much louder a source is made before the model hears it.
//!
//! A gain belongs to a patch, which is what a network sees at once: it is one number for all of it, so that nothing inside is
//! louder for where it stands, and a patch that windows share is still encoded once.

/// The largest sample after the gain: 1 dB below full scale, as recordings are mastered.
const MAX_PEAK: f64 = 0.89;

/// What a patch gets of `gain_db` whose largest sample is `peak`: one that would exceed full scale gets what it has room for.
pub(super) fn patch_gain(gain_db: f32, peak: f32) -> f32 {
    if gain_db <= 0.0 {
        return gain_db;
    }
    let room = 20.0 * (MAX_PEAK / f64::from(peak)).log10();
    gain_db.min(room.max(0.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_gain_takes_a_patch_beyond_full_scale() {
        assert_eq!(patch_gain(40.0, 0.0), 40.0);
        assert_eq!(patch_gain(40.0, 1.5), 0.0, "what is beyond it already is left alone");
        for peak in [0.001_f32, 0.01, 0.1, 0.5, 0.88] {
            assert!(peak * 10_f32.powf(patch_gain(40.0, peak) / 20.0) <= 0.891, "{peak}");
        }
        assert_eq!(patch_gain(-6.0, 1.5), -6.0);
    }
}
