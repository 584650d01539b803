//! How many times faster than real time the front ends and the sound level meter are, on one core.
//!
//! `cargo bench --bench frontend`; criterion's throughput is in samples of the input, a second of which is `rate` of them.
#![allow(missing_docs, clippy::unwrap_used)]

use clapd_core::dsp::{Frontend, FrontendSpec};
use clapd_core::samples::Samples;
use clapd_core::sound_level::{MicrophoneCorrection, SoundLevelMeter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// What a device gives at a time: 10 ms.
const BLOCKS_PER_SECOND: usize = 100;

fn front_ends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frontend");
    for (name, spec, rate, patch_hops) in [
        ("clap 48 kHz, a window a second", FrontendSpec::clap_fused(), 48_000_u32, 100),
        ("clap 44.1 kHz, a window a second", FrontendSpec::clap_fused(), 44_100, 100),
        ("yamnet 16 kHz, a patch every 0.48 s", FrontendSpec::yamnet(), 16_000, 48),
        ("yamnet 48 kHz, a patch every 0.48 s", FrontendSpec::yamnet(), 48_000, 48),
        ("yamnet 44.1 kHz, a patch every 0.48 s", FrontendSpec::yamnet(), 44_100, 48),
    ] {
        let second = noise(rate as usize);
        let mut front_end = Frontend::new(&spec, rate, spec.patch_frames + 200).unwrap();
        let mut patch = vec![0.0; spec.patch_len()];
        let mut start = 0;
        group.throughput(Throughput::Elements(u64::from(rate)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for block in second.chunks(rate as usize / BLOCKS_PER_SECOND) {
                    front_end.push(Samples::whole(block)).unwrap();
                    while front_end.has_patch(start) {
                        front_end.patch(start, &mut patch).unwrap();
                        start += (patch_hops * spec.hop_length) as u64;
                    }
                }
            });
        });
    }
    group.finish();
}

fn meters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("meter");
    let correction = MicrophoneCorrection::parse("20 -2\n1000 0\n20000 4\n").unwrap();
    for (name, rate, correction) in [
        ("16 kHz", 16_000_u32, None),
        ("48 kHz", 48_000, None),
        ("48 kHz, with a correction", 48_000, Some(&correction)),
    ] {
        let second = noise(rate as usize);
        let mut meter = SoundLevelMeter::new(rate, correction).unwrap();
        group.throughput(Throughput::Elements(u64::from(rate)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for block in second.chunks(rate as usize / BLOCKS_PER_SECOND) {
                    meter.push(Samples::whole(block), &mut |measured| {
                        std::hint::black_box(measured);
                    });
                }
            });
        });
    }
    group.finish();
}

fn noise(length: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..length).map(|_| random.f32() - 0.5).collect()
}

criterion_group!(benches, front_ends, meters);
criterion_main!(benches);
