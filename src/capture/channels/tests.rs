//! Channels of made signals: what is dead, what cancels, what is best, and that a room with two microphones is neither.

use proptest::prelude::*;

use super::*;

const RATE: u32 = 8_000;
const SECOND: usize = RATE as usize;

/// Noise of this RMS.
fn noise(rms: f64, seed: u64, seconds: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    (0..seconds * SECOND).map(|_| (normal() * rms) as f32).collect()
}

/// Speech-like: noise that is loud for a second and 30 dB quieter for the next.
fn sound(rms: f64, seed: u64, seconds: usize) -> Vec<f32> {
    let loud = |at: usize| if (at / SECOND).is_multiple_of(2) { 1.0 } else { 0.03 };
    noise(rms, seed, seconds).iter().enumerate().map(|(at, sample)| sample * loud(at)).collect()
}

fn scaled(samples: &[f32], by: f32) -> Vec<f32> {
    samples.iter().map(|sample| sample * by).collect()
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn interleave(channels: &[&[f32]]) -> Vec<f32> {
    (0..channels[0].len()).flat_map(|at| channels.iter().map(move |channel| channel[at])).collect()
}

fn meter_of(channels: &[&[f32]]) -> ChannelMeter {
    let mut meter = ChannelMeter::new(RATE, channels.len(), false);
    meter.push(&interleave(channels));
    meter
}

#[test]
fn a_balanced_microphone_in_a_stereo_input_cancels_and_is_named_with_its_remedy() {
    for own_noise in [0.0, 1e-4] {
        let left = sum(&sound(0.05, 1, 8), &noise(own_noise, 2, 8));
        let right = sum(&scaled(&sound(0.05, 1, 8), -1.0), &noise(own_noise, 3, 8));
        let meter = meter_of(&[&left, &right]);
        let warning = meter.warning(Channel::Mix).unwrap();
        assert!(warning.contains("channels 0 and 1 cancel") && warning.contains("write `channel = 0`"), "{warning}");
        assert_eq!((meter.warning(Channel::Index(0)), meter.warning(Channel::Auto)), (None, None));
    }
    // In a quiet room, its own noise says it, too.
    let quiet = noise(1e-4, 1, 8);
    assert!(meter_of(&[&quiet, &scaled(&quiet, -1.0)]).warning(Channel::Mix).is_some());
    // One of six.
    let six: Vec<Vec<f32>> =
        (0..6).map(|channel| scaled(&sound(0.05, 1, 8), if channel == 3 { -1.0 } else { 1.0 })).collect();
    let six: Vec<&[f32]> = six.iter().map(Vec::as_slice).collect();
    assert!(meter_of(&six).warning(Channel::Mix).unwrap().contains("channels 0 and 3 cancel"));
}

#[test]
fn microphones_of_one_room_neither_cancel_nor_die() {
    let (near, far) = (sound(0.05, 1, 60), sound(0.05, 1, 60));
    let delayed: Vec<f32> = std::iter::repeat_n(0.0, 5).chain(far.iter().copied()).take(near.len()).collect();
    let other = sound(0.03, 9, 60);
    for (what, left, right) in [
        ("one signal twice", &near, &near),
        ("two places", &near, &sum(&scaled(&delayed, 0.3), &noise(0.001, 4, 60))),
        ("two rooms", &near, &other),
        ("only noise", &noise(1e-4, 5, 60), &noise(1e-4, 6, 60)),
        ("nothing at all", &vec![0.0; 60 * SECOND], &vec![0.0; 60 * SECOND]),
    ] {
        assert_eq!(meter_of(&[left, right]).warning(Channel::Mix), None, "{what}");
    }
    // A beep that meets two microphones out of phase, for three seconds of ten.
    let beep = |at: usize, sign: f32| if at / SECOND % 10 < 3 { sign * (at as f32 * 1.9).sin() * 0.1 } else { 0.0 };
    let left: Vec<f32> = near.iter().enumerate().map(|(at, sample)| sample + beep(at, 1.0)).collect();
    let right: Vec<f32> = other.iter().enumerate().map(|(at, sample)| sample + beep(at, -1.0)).collect();
    assert_eq!(meter_of(&[&left, &right]).warning(Channel::Mix), None);
}

#[test]
fn dead_channels_are_named_by_whom_they_hurt() {
    let alive = sound(0.05, 1, 12);
    for (what, dead, how) in [
        ("zeros", vec![0.0; 12 * SECOND], "nothing is in it"),
        ("an open input", noise(3e-5, 8, 12), "only noise is in it"),
    ] {
        let meter = meter_of(&[&dead, &alive]);
        let mix = meter.warning(Channel::Mix).unwrap();
        assert!(
            mix.contains("channel 0 is dead") && mix.contains("6 dB") && mix.contains("`channel = 1`"),
            "{what}: {mix}"
        );
        // The other way round than somebody thought.
        let swapped = meter.warning(Channel::Index(0)).unwrap();
        assert!(swapped.contains(how) && swapped.contains("write `channel = 1`"), "{what}: {swapped}");
        assert_eq!((meter.warning(Channel::Index(1)), meter.best()), (None, 1), "{what}");
    }
    // One of eight takes too little for a word.
    let mut eight = vec![alive.as_slice(); 8];
    let dead = vec![0.0; alive.len()];
    eight[7] = &dead;
    assert_eq!(meter_of(&eight).warning(Channel::Mix), None);
}

#[test]
fn what_is_mended_is_no_longer_said() {
    let (alive, dead) = (sound(0.05, 1, 12), vec![0.0; 12 * SECOND]);
    let mut meter = meter_of(&[&alive, &dead]);
    assert!(meter.warning(Channel::Mix).is_some());
    meter.push(&interleave(&[&alive, &alive]));
    assert_eq!(meter.warning(Channel::Mix), None);
    meter.push(&interleave(&[&alive, &scaled(&alive, -1.0)]));
    assert!(meter.warning(Channel::Mix).is_some());
    meter.push(&interleave(&[&alive, &alive]));
    assert_eq!(meter.warning(Channel::Mix), None);
}

#[test]
fn the_best_channel_hears_most_above_its_noise() {
    let (near, far) = (sound(0.05, 1, 20), scaled(&sound(0.05, 1, 20), 0.1));
    assert_eq!(meter_of(&[&far, &near]).best(), 1);
    assert_eq!(meter_of(&[&near, &near]).best(), 0);
    // Loud and useless: a hiss, and an input that clips.
    assert_eq!(meter_of(&[&noise(0.2, 3, 20), &near]).best(), 1);
    let clipped: Vec<f32> = scaled(&near, 50.0).iter().map(|sample| sample.clamp(-1.0, 1.0)).collect();
    assert_eq!(meter_of(&[&clipped, &near]).best(), 1);
    // It stays where it is for less than twice the amplitude, and goes where its channel dies.
    let mut meter = meter_of(&[&scaled(&near, 0.7), &near]);
    let chosen = meter.best();
    meter.push(&interleave(&[&near, &scaled(&near, 0.7)]));
    assert_eq!(meter.best(), chosen);
    let dead = vec![0.0; 20 * SECOND];
    let channels: [&[f32]; 2] = if chosen == 0 { [&dead, &near] } else { [&near, &dead] };
    meter.push(&interleave(&channels));
    assert_eq!(meter.best(), 1 - chosen);
}

#[test]
fn a_converter_at_the_lower_end_of_its_bits_is_told_from_a_quiet_one() {
    let wide = |samples: &[f32], step: f64| {
        let mut meter = ChannelMeter::new(RATE, 1, true);
        let of_32 =
            |sample: &f32| ((f64::from(*sample) * 2_147_483_648.0 / step).round() * step / 2_147_483_648.0) as f32;
        meter.push(&samples.iter().map(of_32).collect::<Vec<_>>());
        meter.is_low_bits()
    };
    let quiet = sound(0.0005, 1, 12);
    assert!(wide(&quiet, 1.0), "24 bits at the lower end");
    assert!(!wide(&quiet, 256.0), "24 bits at the upper end, in a quiet room");
    assert!(!wide(&sound(0.05, 1, 12), 1.0), "32 bits, and a sound");
    let loud_once = [sound(0.05, 1, 2), quiet.clone()].concat();
    assert!(!wide(&loud_once, 1.0), "32 bits that have been used before a quiet time");
    let mut floats = ChannelMeter::new(RATE, 1, false);
    floats.push(&quiet);
    assert!(!floats.is_low_bits());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..9_000, 1..20)) {
        let (alive, other) = (sound(0.05, 1, 9), noise(0.01, 2, 9));
        let frames = interleave(&[&alive, &scaled(&alive, -0.7), &other]);
        let mut whole = ChannelMeter::new(RATE, 3, false);
        whole.push(&frames);
        let mut pieces = ChannelMeter::new(RATE, 3, false);
        let (mut rest, mut cuts) = (&frames[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(3 * cuts.next().unwrap_or(1)));
            pieces.push(now);
            rest = later;
        }
        prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
    }
}
