//! Streaming: any chunking, any losses, any start give the bits of the one-shot front end.

use clapd_core::dsp::{Frontend, FrontendSpec, ShortClipPolicy, clip_patch, resample_clip};
use clapd_core::samples::Samples;
use proptest::prelude::*;

use super::signals::Noise;

/// A small relative of each family, so that a case takes a millisecond: 12 frames, every 160 samples, at 16 kHz.
fn small(centered: bool) -> FrontendSpec {
    FrontendSpec { centered, patch_frames: 12, ..FrontendSpec::yamnet() }
}

fn noise(seed: u64, length: usize) -> Vec<f32> {
    let mut source = Noise::new(seed);
    (0..length).map(|_| source.next() as f32).collect()
}

/// Where a sample lies at 16 kHz, to the nearest.
fn at_model_rate(samples: usize, rate: u32) -> usize {
    (samples as f64 * 16_000.0 / f64::from(rate)).round() as usize
}

/// Every patch that a front end still has, by its start.
fn patches(front_end: &mut Frontend, spec: &FrontendSpec) -> Vec<(u64, Vec<f32>)> {
    let mut found = Vec::new();
    let mut start = 0;
    while front_end.has_patch(start) {
        let mut patch = vec![f32::NAN; spec.patch_len()];
        if front_end.patch(start, &mut patch).is_ok() {
            found.push((start, patch));
        }
        start += spec.hop_length as u64;
    }
    found
}

/// A stream as parts: so many lost, then so many samples.
fn parts() -> impl Strategy<Value = Vec<(u64, usize)>> {
    let lost = prop_oneof![4 => Just(0_u64), 1 => 1_u64..50, 1 => 1_000_u64..20_000];
    let length = prop_oneof![2 => Just(1_usize), 2 => 0_usize..20, 3 => 100_usize..3_000];
    prop::collection::vec((lost, length), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chunks_and_losses_change_no_bit(
        parts in parts(), seed in any::<u64>(), centered in any::<bool>(),
        rate in prop::sample::select(vec![16_000_u32, 48_000, 44_100, 8_000, 11_025]),
    ) {
        let spec = small(centered);
        let mut pieces = Frontend::new(&spec, rate, 60).unwrap();
        let (mut clip, mut was_lost) = (Vec::new(), Vec::new());
        for (i, &(lost, length)) in parts.iter().enumerate() {
            let data = noise(seed.wrapping_add(i as u64), length);
            pieces.push(Samples { lost, data: &data }).unwrap();
            clip.resize(clip.len() + lost as usize, 0.0);
            was_lost.resize(at_model_rate(clip.len(), rate), true);
            clip.extend(data);
            was_lost.resize(at_model_rate(clip.len(), rate), false);
        }
        pieces.finish().unwrap();

        let clip = resample_clip(&clip, rate, spec.sample_rate).unwrap();
        prop_assert_eq!(pieces.samples(), clip.len() as u64);
        let found = patches(&mut pieces, &spec);
        let newest = clip.len().saturating_sub(spec.patch_samples()) / spec.hop_length;
        if clip.len() >= spec.patch_samples() {
            prop_assert!(found.len() > newest.min(60 - spec.patch_frames), "{} of {newest}", found.len());
        }
        for (start, patch) in found {
            let start = start as usize;
            prop_assert_eq!(&patch, &clip_patch(&spec, &clip[start..start + spec.patch_samples()]).unwrap());
            let lost = was_lost[start..start + 1000].iter().filter(|&&lost| lost).count();
            prop_assert_eq!(pieces.lost_share(start as u64, start as u64 + 1000), lost as f32 / 1000.0);
        }
    }

    #[test]
    fn a_stream_shorter_than_a_patch_is_padded_like_a_clip(
        length in 1_usize..1_700, centered in any::<bool>(), repeat in any::<bool>(),
    ) {
        let short = if repeat { ShortClipPolicy::RepeatPad } else { ShortClipPolicy::ZeroPad };
        let spec = FrontendSpec { short, ..small(centered) };
        let clip = noise(3, length);
        let mut front_end = Frontend::new(&spec, 16_000, 12).unwrap();
        front_end.push(Samples::whole(&clip)).unwrap();
        let mut patch = vec![0.0; spec.patch_len()];
        prop_assert!(front_end.short_patch(&mut patch).is_err(), "before the end");
        front_end.finish().unwrap();
        front_end.short_patch(&mut patch).unwrap();
        prop_assert_eq!(patch, clip_patch(&spec, &clip).unwrap());
    }
}

#[test]
fn clap_windows_overlap_without_a_seam() {
    let spec = FrontendSpec::clap_unfused();
    let clip = noise(9, 520_000);
    let mut front_end = Frontend::new(&spec, 48_000, 1001 + 100).unwrap();
    for chunk in clip.chunks(1237) {
        front_end.push(Samples::whole(chunk)).unwrap();
    }
    let mut patch = vec![0.0; spec.patch_len()];
    for start in [0, 480, 24_000, 39_840] {
        front_end.patch(start as u64, &mut patch).unwrap();
        assert!(patch == clip_patch(&spec, &clip[start..start + 480_000]).unwrap(), "window at {start}");
    }
    assert!(!front_end.has_patch(40_320));
}

#[test]
fn a_device_away_for_years_costs_no_more_than_the_rings() {
    // 2^50 samples would take days if anything walked over them.
    let away = 1_u64 << 50;
    for (spec, rate) in [(small(true), 16_000), (small(false), 16_000), (small(true), 48_000)] {
        let mut front_end = Frontend::new(&spec, rate, 60).unwrap();
        let ratio = u64::from(rate / 16_000);
        let sound = noise(5, 6_000 * ratio as usize);
        front_end.push(Samples { lost: 0, data: &sound }).unwrap();
        front_end.push(Samples { lost: away, data: &sound }).unwrap();
        front_end.finish().unwrap();
        let end = (2 * sound.len() as u64 + away).div_ceil(ratio);
        assert!(front_end.samples().abs_diff(end) <= 1);
        let back = end - 6_000;
        assert_eq!(front_end.lost_share(back - 1_000, back - 1), 1.0);
        assert!((front_end.lost_share(back - 500, back + 500) - 0.5).abs() < 0.002);
        assert_eq!(front_end.lost_share(back + 1, back + 6_000), 0.0);
        let mut patch = vec![0.0; spec.patch_len()];
        let silence = 0.001_f32.ln();
        // A patch of the silence alone, then one of the sound alone.
        front_end.patch((back - 2_500) / 160 * 160, &mut patch).unwrap();
        assert!(patch.iter().all(|x| (x - silence).abs() < 1e-3), "the silence is silent");
        let start = (back + 2_000) / 160 * 160;
        front_end.patch(start, &mut patch).unwrap();
        assert!(patch.iter().all(|x| x - silence > 1.0), "the sound after it is heard");
        if rate == 16_000 {
            let at = (start - back) as usize;
            assert_eq!(patch, clip_patch(&spec, &sound[at..at + spec.patch_samples()]).unwrap());
        }
    }
}

#[test]
fn misuse_is_an_error_with_the_reason() {
    let spec = small(true);
    let mut front_end = Frontend::new(&spec, 16_000, 20).unwrap();
    let mut patch = vec![0.0; spec.patch_len()];
    let refused = |result: anyhow::Result<()>, why: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    };
    refused(front_end.patch(0, &mut patch), "only 0 have come");
    front_end.push(Samples::whole(&noise(1, 16_000))).unwrap();
    refused(front_end.patch(1, &mut patch), "multiples of 160");
    refused(front_end.patch(0, &mut patch), "no longer kept");
    refused(front_end.patch(14_080, &mut patch[1..]), "frames times mel bins");
    front_end.patch(14_080, &mut patch).unwrap();
    refused(front_end.push(Samples { lost: u64::MAX, data: &[] }), "start a new stream");
    front_end.finish().unwrap();
    refused(front_end.push(Samples::whole(&[0.0])), "after the end");
    assert!(Frontend::new(&spec, 16_000, 11).is_err());
    assert!(Frontend::new(&spec, 16_000, usize::MAX).is_err());
}
