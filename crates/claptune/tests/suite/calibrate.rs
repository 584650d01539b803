//! A curve from cosine to score: fitted to ratings, honest about its error, written into a bundle.

use std::fs;
use std::path::Path;

use clapd_core::model::Bundle;
use claptune::calibrate::{self, Fitted};
use claptune::metrics::BootstrapPlan;
use proptest::prelude::*;

const PLAN: BootstrapPlan = BootstrapPlan { resamples: 200, seed: 3 };

fn score(fitted: &Fitted, cosine: f64) -> f64 {
    f64::from(fitted.curve.score(cosine as f32).score)
}

/// Pairs of 60 recordings, five each, rated along a curve with a listener's noise of one point.
fn dataset(seed: u64) -> (Vec<f64>, Vec<f64>, Vec<usize>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let (mut cosines, mut ratings, mut recordings) = (vec![], vec![], vec![]);
    for recording in 0..60 {
        for pair in 0..5 {
            let cosine = -0.1 + 0.15 * f64::from(pair) + 0.02 * normal();
            cosines.push(cosine);
            ratings.push((truth(cosine) + normal()).clamp(0.0, 10.0));
            recordings.push(recording);
        }
    }
    (cosines, ratings, recordings)
}

fn truth(cosine: f64) -> f64 {
    1.5 + 7.0 / (1.0 + (-14.0 * (cosine - 0.2)).exp())
}

#[test]
fn the_curve_behind_noisy_ratings_is_found_and_its_error_is_the_noises() {
    let (cosines, ratings, recordings) = dataset(1);
    let fitted = calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap();
    for n in 0..=60 {
        let cosine = -0.1 + 0.01 * f64::from(n);
        let (found, meant) = (score(&fitted, cosine), truth(cosine));
        assert!((found - meant).abs() < 0.5, "{found} at {cosine}, {meant} is meant");
    }
    let error = fitted.error.unwrap();
    // The noise's own square is 1; what the scale cuts off takes a little.
    assert!((0.8..1.15).contains(&error.mse.value), "{error:?}");
    assert!(error.mse.low < error.mse.value && error.mse.value < error.mse.high, "{error:?}");
    assert!((0.65..0.9).contains(&error.mae.value) && error.mae.low < error.mae.high, "{error:?}");
    assert!(
        error.ece.value < 0.45 && error.ece.low <= error.ece.value && error.ece.value <= error.ece.high,
        "{error:?}"
    );
    assert_eq!((error.folds, fitted.pairs, fitted.recordings), (10, 300, 60));
    assert_eq!(fitted, calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap(), "the same, the same");
}

/// Each recording has a cosine of its own and a rating that has nothing to do with it: a curve that had seen the recording could
/// do better than guess, one that has not cannot.
#[test]
fn an_error_is_of_recordings_that_were_not_seen() {
    let mut random = fastrand::Rng::with_seed(5);
    let (mut cosines, mut ratings, mut recordings) = (vec![], vec![], vec![]);
    for recording in 0..8 {
        let (cosine, rating) = (random.f64() - 0.5, if recording % 2 == 0 { 1.0 } else { 9.0 });
        for _ in 0..20 {
            cosines.push(cosine);
            ratings.push(rating);
            recordings.push(recording);
        }
    }
    let error = calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap().error.unwrap();
    // Saying 5 of everything costs 16.
    assert!(error.mse.value > 15.0 && error.folds == 8, "{error:?}");
}

#[test]
fn little_or_odd_data_gives_a_curve_all_the_same() {
    let fit = |cosines: &[f64], ratings: &[f64]| {
        let recordings: Vec<usize> = (0..cosines.len()).collect();
        calibrate::fit(cosines, ratings, &recordings, PLAN).unwrap()
    };
    let one = fit(&[0.3], &[7.0]);
    assert!(one.error.is_none() && (score(&one, 0.3) - 7.0).abs() < 1.0, "{one:?}");
    let constant = fit(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], &[4.0; 6]);
    assert!([0.1, 0.35, 0.6].iter().all(|&c| (score(&constant, c) - 4.0).abs() < 0.75), "{constant:?}");
    let tied = fit(&[0.25; 30], &[2.0, 4.0, 6.0].repeat(10));
    assert!((score(&tied, 0.25) - 4.0).abs() < 0.4, "{tied:?}");
    // Falling: the best that rises is flat.
    let cosines: Vec<f64> = (0..50).map(|n| f64::from(n) / 100.0).collect();
    let falling = fit(&cosines, &cosines.iter().map(|c| 8.0 - 12.0 * c).collect::<Vec<f64>>());
    assert!(cosines.iter().all(|&c| (score(&falling, c) - 5.06).abs() < 0.6), "{falling:?}");
    // One in twenty rated at random by somebody who did not listen.
    let (cosines, mut ratings, recordings) = dataset(2);
    ratings.iter_mut().step_by(20).for_each(|rating| *rating = 10.0 - *rating);
    let noisy = calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap();
    assert!([0.0, 0.2, 0.4].iter().all(|&c| (score(&noisy, c) - truth(c)).abs() < 1.0), "{noisy:?}");
}

#[test]
fn what_is_no_data_is_refused() {
    for (cosines, ratings, recordings, word) in [
        (vec![], vec![], vec![], "no pair"),
        (vec![0.1], vec![1.0, 2.0], vec![0], "1 cosines, 2 ratings"),
        (vec![0.1, f64::NAN], vec![1.0, 2.0], vec![0, 1], "pair 1 has the cosine NaN"),
        (vec![0.1, 0.2], vec![1.0, 20.0], vec![0, 1], "pair 1 has the rating 20"),
    ] {
        let error = calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_curve_rises_and_stays_on_the_scale(
        pairs in prop::collection::vec((-1.0_f64..=1.0, 0.0_f64..=10.0, 0_usize..5), 1..40),
        spread in prop::sample::select(vec![1.0, 0.05, 0.0]),
    ) {
        let cosines: Vec<f64> = pairs.iter().map(|pair| pair.0 * spread).collect();
        let ratings: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
        let recordings: Vec<usize> = pairs.iter().map(|pair| pair.2).collect();
        let fitted = calibrate::fit(&cosines, &ratings, &recordings, BootstrapPlan { resamples: 10, seed: 1 }).unwrap();
        let scores: Vec<f64> = (-500..=500).map(|n| score(&fitted, f64::from(n) / 500.0)).collect();
        prop_assert!(scores.iter().all(|s| (0.0..=10.0).contains(s)));
        prop_assert!(scores.windows(2).all(|w| w[0] <= w[1]));
        // No curve that rises does worse than none, but for the two pairs at the ends.
        let squares = |score: &dyn Fn(usize) -> f64| (0..pairs.len()).map(|n| (score(n) - ratings[n]).powi(2)).sum::<f64>();
        let mean = ratings.iter().sum::<f64>() / ratings.len() as f64;
        prop_assert!(squares(&|n| score(&fitted, cosines[n])) <= squares(&|_| mean) + 20.0);
    }
}

fn copy_of_mini(to: &Path) {
    let mini = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini");
    for file in ["bundle.toml", "audio.nnef.tar", "pool.nnef.tar", "text.nnef.tar", "tokenizer.json"] {
        fs::copy(mini.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn a_bundle_takes_the_curve_its_error_and_another_id() {
    let dir = tempfile::tempdir().unwrap();
    copy_of_mini(dir.path());
    let before = Bundle::open(dir.path()).unwrap();
    let (cosines, ratings, recordings) = dataset(1);
    let fitted = calibrate::fit(&cosines, &ratings, &recordings, PLAN).unwrap();
    let id = calibrate::write(dir.path(), &fitted, "ratings.csv (validation)").unwrap();
    let after = Bundle::open(dir.path()).unwrap();
    assert_eq!(after.manifest().pipeline_id, id);
    assert_ne!(after.manifest().pipeline_id, before.manifest().pipeline_id);
    assert_eq!(after.calibration().unwrap(), fitted.curve, "what is read is what was fitted");
    let card = after.manifest().quality["calibration"].as_table().unwrap();
    assert_eq!(card["data"].as_str(), Some("ratings.csv (validation)"));
    assert_eq!((card["pairs"].as_integer(), card["recordings"].as_integer()), (Some(300), Some(60)));
    let mse = card["mse"].as_array().unwrap()[0].as_float().unwrap();
    assert!((mse - fitted.error.unwrap().mse.value).abs() < 1e-3);
    assert!(card.contains_key("mae") && card.contains_key("expected_calibration_error"));
    // Nothing else has changed, and the folder holds what it held.
    let mut restored = after.manifest().clone();
    restored.calibration = before.manifest().calibration.clone();
    restored.quality = before.manifest().quality.clone();
    restored.pipeline_id = before.manifest().pipeline_id.clone();
    assert_eq!(&restored, before.manifest());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    after.audio_encoder().unwrap();
    let error = calibrate::write(&dir.path().join("no"), &fitted, "x").unwrap_err();
    assert!(format!("{error:#}").contains("not a model bundle"), "{error:#}");
}
