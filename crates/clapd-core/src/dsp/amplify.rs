//! A gain on a patch that is already made: the log-mel of samples that are louder by so many decibels.
//!
//! A frame is transformed once, at the level that came, however many patches hold it; a patch's gain is known only when the
//! patch is asked for. So the gain is applied to the rows, where it is a shift of the logarithm's argument.

use super::spec::{FrontendSpec, LogScale, Spectrum};

/// Makes of `patch` what it would be if every sample were `gain_db` louder (negative: quieter). What a decibel scale has cut off
/// at its floor stays there: nobody knows how far below it was.
pub(crate) fn amplify(spec: &FrontendSpec, gain_db: f32, patch: &mut [f32]) {
    // A sum of magnitudes grows as the samples do, one of powers as their squares.
    let bels = match spec.spectrum {
        Spectrum::Magnitude => f64::from(gain_db) / 20.0,
        Spectrum::Power => f64::from(gain_db) / 10.0,
    };
    match spec.log {
        LogScale::Decibel { floor } => {
            let (floor, step) = ((10.0 * floor.log10()) as f32, (10.0 * bels) as f32);
            for value in patch.iter_mut().filter(|value| **value > floor) {
                *value = (*value + step).max(floor);
            }
        }
        LogScale::NaturalOffset { offset } => {
            // ln(k s + o) of ln(s + o) is ln(k e^row + o (1 - k)).
            let factor = 10_f64.powf(bels);
            let rest = offset * (1.0 - factor);
            for value in patch {
                // Rounding of a row that holds next to nothing must not make a logarithm of a negative number.
                *value = (factor * f64::from(*value).exp() + rest).max(offset * 1e-3).ln() as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dsp::clip_patch;

    fn noise(length: usize, level: f32, seed: u64) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| (2.0 * random.f32() - 1.0) * level).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_patch_is_what_louder_samples_would_have_made(level_db in -70.0_f32..-20.0, gain_db in -20.0_f32..40.0, seed in any::<u64>()) {
            for spec in [FrontendSpec::yamnet(), FrontendSpec::clap_fused()] {
                let quiet = noise(spec.patch_samples(), 10_f32.powf(level_db / 20.0), seed);
                let loud: Vec<f32> = quiet.iter().map(|x| x * 10_f32.powf(gain_db / 20.0)).collect();
                let mut patch = clip_patch(&spec, &quiet).unwrap();
                amplify(&spec, gain_db, &mut patch);
                let expected = clip_patch(&spec, &loud).unwrap();
                let most = patch.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // A hundredth of what 8 bits of the patch's range would be.
                prop_assert!(most < 2e-3, "{} at {} dB with {} dB", most, level_db, gain_db);
            }
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        for spec in [FrontendSpec::yamnet(), FrontendSpec::clap_fused()] {
            let silence = clip_patch(&spec, &vec![0.0; spec.patch_samples()]).unwrap();
            let mut patch = silence.clone();
            amplify(&spec, 60.0, &mut patch);
            let most = patch.iter().zip(&silence).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 1e-3, "{most}");
        }
    }
}
