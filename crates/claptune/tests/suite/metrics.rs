//! Metrics and intervals equal scipy's (tests/golden/make_metrics.py), ties and constants included.

use claptune::metrics::{self, BootstrapPlan, Columns, Metrics};
use serde_json::Value;

fn golden() -> Value {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The columns of the script.
fn formula(n: i64, kind: &str) -> (Vec<f64>, Vec<f64>) {
    let row = |i: i64| {
        let (a, b) = ((i * i * 7919 + i * 31 + 7) % 10007, (i * i * 104_729 + i * 17 + 3) % 10009);
        let (x, y) = (a as f64 / 5003.0 - 1.0, (a + b) as f64 / 10008.0 - 1.0);
        match kind {
            "plain" => (x, y),
            "ratings" => (x, ((y + 1.0) * 5.5).floor()),
            "ties" => ((x * 3.0).floor(), (y * 3.0).floor()),
            "offset" => (x * 1e-3 + 1e3, y * 1e-3 - 1e3),
            "opposed" => (x, -x),
            "constant" => (x, 3.0),
            other => panic!("the script has a kind `{other}` that this test does not know"),
        }
    };
    (0..n).map(row).unzip()
}

#[track_caller]
fn equal(ours: f64, theirs: &Value, what: &str) {
    match theirs.as_f64() {
        // Relative above 1: an error of 4,000,000 squared points has no ninth decimal.
        Some(theirs) => {
            assert!((ours - theirs).abs() < 1e-9 * theirs.abs().max(1.0), "{what}: {ours} against scipy's {theirs}");
        }
        None => assert!(ours.is_nan(), "{what}: {ours} where scipy has no number"),
    }
}

#[test]
fn metrics_are_scipys() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 36);
    for case in cases {
        let (n, kind) = (case["n"].as_i64().unwrap(), case["kind"].as_str().unwrap());
        let (x, y) = formula(n, kind);
        let found = Metrics::of(&Columns { cosine: x.clone(), score: x, rating: y }).to_array();
        for (name, ours) in metrics::NAMES.iter().zip(found) {
            equal(ours, &case[name], &format!("{name} of {n} {kind}"));
        }
    }
}

#[test]
fn intervals_of_counts_are_scipys() {
    let golden = golden();
    for case in golden["rates"].as_array().unwrap() {
        let rate = metrics::per_hour(case["count"].as_u64().unwrap() as usize, case["hours"].as_f64().unwrap());
        equal(rate.low, &case["low"], "low end");
        equal(rate.high, &case["high"], "high end");
    }
    for case in golden["shares"].as_array().unwrap() {
        let [part, all] = ["part", "all"].map(|key| case[key].as_u64().unwrap() as usize);
        let share = metrics::share(part, all);
        equal(share.low, &case["low"], "low end");
        equal(share.high, &case["high"], "high end");
    }
    assert!(metrics::per_hour(3, 0.0).value.is_nan() && metrics::share(0, 0).value.is_nan());
}

/// Two models that are wrong by the same recordings, one of them a little more: seen apart their intervals overlap,
/// paired the difference is plain.
#[test]
fn a_paired_test_sees_what_two_intervals_do_not() {
    let mut random = fastrand::Rng::with_seed(6);
    let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let (mut better, mut worse) = (Columns::default(), Columns::default());
    let mut recordings = vec![];
    for recording in 0..150 {
        let hard = normal();
        for _ in 0..3 {
            let truth = 2.0 * normal() + 5.0;
            recordings.push(recording);
            for (columns, extra) in [(&mut better, 0.0), (&mut worse, 1.3)] {
                let said = truth + 2.0 * hard + extra * normal();
                columns.cosine.push(said / 10.0);
                columns.score.push(said);
                columns.rating.push(truth);
            }
        }
    }
    let plan = BootstrapPlan { resamples: 500, seed: 1 };
    let [a, b] = [&better, &worse].map(|columns| metrics::intervals(columns, &recordings, plan)[0]);
    assert!(a.low < b.high && b.low < b.value && b.value < b.high, "{a:?} {b:?}");
    let found = metrics::differences(&better, &worse, &recordings, plan);
    let srcc = found[0];
    assert!(srcc.interval.low > 0.0 && srcc.p <= 0.01, "{srcc:?}");
    assert!((srcc.interval.value - (a.value - b.value)).abs() < 1e-12);
    assert!(found[3].interval.high < 0.0, "its error is smaller: {:?}", found[3]);
    let same = metrics::differences(&better, &better, &recordings, plan);
    assert!(same.iter().all(|d| d.p == 1.0 && d.interval.value == 0.0), "{same:?}");
}
