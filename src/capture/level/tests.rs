//! The level meter on made signals: what is silence, what is a quiet room, and that it does not flap.

use proptest::prelude::*;

use super::*;

const RATE: u32 = 8_000;
const SECOND: usize = RATE as usize;

/// Signals after each tenth of a second.
fn signals(meter: &mut LevelMeter, samples: &[f32]) -> Vec<Signal> {
    let blocks = samples.chunks(SECOND / BLOCKS_PER_SECOND as usize);
    blocks
        .map(|block| {
            meter.push(RATE, block);
            meter.signal()
        })
        .collect()
}

/// Seconds until a fresh meter says so; none where it does not within `samples`.
fn noticed(expected: Signal, samples: &[f32]) -> Option<f64> {
    let at = signals(&mut LevelMeter::default(), samples).iter().position(|signal| *signal == expected)?;
    Some((at + 1) as f64 / f64::from(BLOCKS_PER_SECOND))
}

/// Noise with this RMS, as a converter with steps of `step` gives it; 0 is a float's.
fn noise(rms: f64, step: f64, seconds: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(7);
    // The sum of twelve uniform numbers is normal enough, with a variance of 1.
    let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let samples = std::iter::repeat_with(|| normal() * rms);
    samples.map(|x| if step > 0.0 { (x / step).round() * step } else { x } as f32).take(seconds * SECOND).collect()
}

fn tone(peak: f32, seconds: usize) -> Vec<f32> {
    (0..seconds * SECOND).map(|n| ((n as f32 * 0.37).sin() * peak).clamp(-1.0, 1.0)).collect()
}

fn decibels(db: f64) -> f64 {
    10_f64.powf(db / 20.0)
}

const BIT_16: f64 = 1.0 / 32_768.0;
const BIT_24: f64 = 1.0 / 8_388_608.0;

#[test]
fn dead_inputs_are_noticed_within_ten_seconds() {
    for (what, samples) in [
        ("zero", vec![0.0; 10 * SECOND]),
        ("a constant", vec![0.31; 10 * SECOND]),
        ("stuck at full scale", vec![1.0; 10 * SECOND]),
        ("stuck at the lowest", vec![-1.0; 10 * SECOND]),
        ("a sound server's dither", noise(0.5 * BIT_24, BIT_24, 10)),
        ("dust of floats", noise(1e-12, 0.0, 10)),
        ("a microphone that dies", [tone(0.3, 4), vec![0.02; 6 * SECOND]].concat()),
    ] {
        let after = noticed(Signal::Silent, &samples);
        assert!(after.is_some_and(|after| after <= 10.0), "{what}: {after:?}");
    }
}

#[test]
fn a_quiet_room_is_not_dead() {
    for (what, samples) in [
        ("-80 dB in 16 bits", noise(decibels(-80.0), BIT_16, 60)),
        ("-95 dB in 16 bits: its lowest bit now and then", noise(decibels(-95.0), BIT_16, 60)),
        ("a microphone of -87 dB in 24 bits", noise(decibels(-87.0), BIT_24, 60)),
        ("the best converter", noise(decibels(-125.0), 0.0, 60)),
        ("noise on a constant", noise(decibels(-80.0), BIT_16, 60).iter().map(|x| x + 0.2).collect()),
        ("a hum of 20 Hz at -80 dB", (0..60 * SECOND).map(|n| (n as f32 * 0.0157).sin() * 1e-4).collect()),
    ] {
        let meter = &mut LevelMeter::default();
        assert!(signals(meter, &samples).iter().all(|signal| *signal == Signal::Sound), "{what}");
    }
}

#[test]
fn clipping_is_noticed_within_ten_seconds_and_loud_is_not_clipping() {
    let overdriven = tone(1.2, 10);
    let after = noticed(Signal::Clipping, &overdriven);
    assert!(after.is_some_and(|after| after <= 10.0), "{after:?}");
    assert!(noticed(Signal::Clipping, &tone(0.98, 60)).is_none());
    // A slammed door every two seconds: 0.3 s of clipping each.
    let doors: Vec<f32> =
        (0..30).flat_map(|_| [&tone(2.0, 1)[..2_400], &noise(0.01, BIT_16, 2)[..13_600]].concat()).collect();
    assert!(noticed(Signal::Clipping, &doors).is_none());
    // A recording that was normalised: four samples a second at full scale.
    let normalised: Vec<f32> =
        tone(0.7, 60).iter().enumerate().map(|(n, x)| if n % 2_000 == 0 { 1.0 } else { *x }).collect();
    assert!(noticed(Signal::Clipping, &normalised).is_none());
    let meter = &mut LevelMeter::default();
    signals(meter, &overdriven);
    let after = signals(meter, &tone(0.5, 12));
    assert_eq!(after[..99], [Signal::Clipping; 99], "10 s without clipping end it");
    assert_eq!(after[100..], [Signal::Sound; 20]);
}

#[test]
fn a_click_does_not_wake_a_dead_input_and_a_second_of_sound_does() {
    let meter = &mut LevelMeter::default();
    signals(meter, &vec![0.0; 10 * SECOND]);
    let mut clicks = vec![0.0; 30 * SECOND];
    (0..30).for_each(|second| clicks[second * SECOND + 17] = 0.4);
    assert!(signals(meter, &clicks).iter().all(|signal| *signal == Signal::Silent));
    assert_eq!(signals(meter, &tone(0.1, 1)).last(), Some(&Signal::Sound));
}

#[test]
fn levels_are_those_of_the_last_second() {
    let meter = &mut LevelMeter::default();
    meter.push(RATE, &tone(0.5, 1)[1..]);
    assert_eq!(meter.level_db(), None, "a sample is missing");
    meter.push(RATE, &tone(0.5, 1));
    assert_eq!(meter.level_db(), Some(-9), "a sine of half of full scale");
    meter.push(RATE, &noise(decibels(-70.0), 0.0, 2));
    assert_eq!(meter.level_db(), Some(-70));
    meter.push(RATE, &vec![0.25; 2 * SECOND]);
    assert_eq!(meter.level_db(), Some(-144), "a constant is no sound");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cuts_do_not_matter(
        parts in prop::collection::vec((0_usize..5, 1_usize..40_000), 1..12), cuts in prop::collection::vec(1_usize..9_000, 1..20),
    ) {
        let kinds = [vec![0.0; 40_000], tone(0.3, 5), tone(1.5, 5), noise(1e-4, BIT_16, 5), vec![0.5; 40_000]];
        let samples: Vec<f32> = parts.iter().flat_map(|(kind, length)| &kinds[*kind][..*length]).copied().collect();
        let (mut whole, mut pieces) = (LevelMeter::default(), LevelMeter::default());
        let (mut rest, mut cuts) = (&samples[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(cuts.next().unwrap_or(1)));
            pieces.push(RATE, now);
            whole = LevelMeter::default();
            whole.push(RATE, &samples[..samples.len() - later.len()]);
            prop_assert_eq!((pieces.signal(), pieces.level_db()), (whole.signal(), whole.level_db()));
            rest = later;
        }
        prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
    }

    /// Whatever comes, a tenth of a second at a time, at any mixture: two entries into a state are at least as far apart as its
    /// counts say.
    #[test]
    fn no_mixture_flaps(still in 0.0_f64..1.0, clipped in 0.0_f64..1.0, seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let kinds = [vec![0.0; SECOND / 10], tone(3.0, 1)[..SECOND / 10].to_vec(), tone(0.1, 1)[..SECOND / 10].to_vec()];
        let (mut meter, mut before, mut entered) = (LevelMeter::default(), Signal::Sound, [None::<u32>; 2]);
        for at in 0..3_000 {
            let kind = if random.f64() < still { 0 } else { 2 - usize::from(random.f64() < clipped) };
            meter.push(RATE, &kinds[kind]);
            let (now, least) = (meter.signal(), SILENT_AFTER / MOVING_SUBTRACTS + SILENT_AFTER);
            if now != before && now != Signal::Sound {
                let last = &mut entered[usize::from(now == Signal::Clipping)];
                // Clipping may go on where silence has interrupted it: as long a time as silence takes to come and go.
                prop_assert!(last.is_none_or(|last| at - last >= least), "{:?} again after {} blocks", now, at - last.unwrap_or(0));
                *last = Some(at);
            }
            before = now;
        }
    }
}
