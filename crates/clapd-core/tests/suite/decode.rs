//! Sound files: every format, rate and channel count; broken files.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults};
use proptest::prelude::*;

use crate::wav::{PEAK, TONE_HZ, Wav, tone};

/// All samples of a stream that can't seek, what was lost in it, and its faults.
fn decode(bytes: Vec<u8>, channel: Channel) -> anyhow::Result<(u32, Vec<f32>, u64, Faults)> {
    collect(Decoder::from_reader(Box::new(Cursor::new(bytes)), "test", channel)?)
}

fn collect(mut decoder: Decoder) -> anyhow::Result<(u32, Vec<f32>, u64, Faults)> {
    let (mut all, mut lost) = (Vec::new(), 0);
    while let Some(samples) = decoder.next_block()? {
        assert!(samples.data.iter().all(|sample| sample.is_finite()));
        lost += samples.lost;
        all.extend_from_slice(samples.data);
    }
    assert!(decoder.next_block()?.is_none(), "the end is not the end");
    Ok((decoder.rate(), all, lost, decoder.faults()))
}

fn error_of(bytes: Vec<u8>, channel: Channel) -> String {
    match decode(bytes, channel) {
        Ok((rate, samples, ..)) => panic!("was read: {} samples at {rate} Hz", samples.len()),
        Err(error) => format!("{error:#}"),
    }
}

fn assert_tone(samples: &[f32], rate: u32, scale: f64, tolerance: f64) {
    for (frame, &sample) in samples.iter().enumerate() {
        let expected = tone(frame, rate) * scale;
        assert!((f64::from(sample) - expected).abs() < tolerance, "sample {frame}: {sample}, expected {expected}");
    }
}

#[test]
fn every_sample_format_of_wav_is_read_at_its_level() {
    for (tag, bits, tolerance) in
        [(1, 8, 0.01), (1, 16, 1e-4), (1, 24, 1e-6), (1, 32, 1e-6), (3, 32, 1e-7), (3, 64, 1e-7)]
    {
        for extensible in [false, true] {
            let wav = Wav { extensible, ..Wav::tone(48_000, 2, tag, bits, 5_000) };
            let (rate, samples, lost, faults) = decode(wav.bytes(), Channel::Index(0)).unwrap();
            assert_eq!((rate, samples.len(), lost), (48_000, 5_000, 0), "{bits} bits");
            assert_eq!(faults, Faults::default());
            assert_tone(&samples, rate, 1.0, tolerance);
        }
    }
}

#[test]
fn every_rate_and_channel_count_is_read() {
    for rate in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000] {
        let (got, samples, ..) = decode(Wav::tone(rate, 1, 1, 16, 3_000).bytes(), Channel::Mix).unwrap();
        assert_eq!((got, samples.len()), (rate, 3_000));
        assert_tone(&samples, rate, 1.0, 1e-4);
    }
    for channels in [1, 2, 3, 4, 5, 6, 7, 8, 64] {
        let bytes = Wav::tone(48_000, channels, 1, 16, 3_000).bytes();
        let scale = |channel: u16| 1.0 / f64::from(1_u32 << channel.min(8));
        let mean = (0..channels).map(scale).sum::<f64>() / f64::from(channels);
        assert_tone(&decode(bytes.clone(), Channel::Mix).unwrap().1, 48_000, mean, 1e-4);
        let last = channels - 1;
        assert_tone(&decode(bytes.clone(), Channel::Index(last.into())).unwrap().1, 48_000, scale(last), 1e-4);
        let error = error_of(bytes, Channel::Index(channels.into()));
        assert!(error.contains(&format!("channel {channels} was asked for, but it has {channels}")), "{error}");
    }
}

/// Level, pitch and length of a lossy tone; the first and last tenth is left to the codec's edges.
fn assert_sounds_like_the_tone(samples: &[f32], rate: u32, seconds: f64, name: &str) {
    let length = samples.len() as f64 / f64::from(rate);
    assert!((length - seconds).abs() < 0.06, "{name}: {length} s");
    let middle = &samples[samples.len() / 10..samples.len() * 9 / 10];
    let rms = (middle.iter().map(|s| f64::from(s * s)).sum::<f64>() / middle.len() as f64).sqrt();
    // lame makes everything quieter by a twentieth.
    let expected = PEAK / 2.0_f64.sqrt() * if name.ends_with(".mp3") { 0.95 } else { 1.0 };
    assert!((rms - expected).abs() < 0.01, "{name}: rms {rms}");
    let rises = middle.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count() as f64;
    let hz = rises * f64::from(rate) / middle.len() as f64;
    let one_period = f64::from(rate) / middle.len() as f64;
    assert!((hz - TONE_HZ).abs() <= one_period, "{name}: {hz} Hz");
}

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/sound").join(name)
}

const COMPRESSED: [(&str, u32, f64); 6] = [
    ("tone-48000-2.flac", 48_000, 0.5),
    ("tone-96000-1-24bit.flac", 96_000, 0.08),
    ("tone-44100-2.ogg", 44_100, 0.5),
    ("tone-16000-1.ogg", 16_000, 0.5),
    ("tone-44100-2.mp3", 44_100, 0.5),
    ("tone-16000-1.mp3", 16_000, 0.5),
];

#[test]
fn flac_ogg_and_mp3_are_read() {
    for (name, rate, seconds) in COMPRESSED {
        let decoder = Decoder::open(&golden(name), Channel::Mix).unwrap();
        let hint = decoder.duration_hint().unwrap().as_secs_f64();
        assert!((hint - seconds).abs() < 0.06, "{name}: hint {hint} s");
        let (got, samples, lost, faults) = collect(decoder).unwrap();
        assert_eq!((got, lost, faults), (rate, 0, Faults::default()), "{name}");
        assert_sounds_like_the_tone(&samples, rate, seconds, name);
        if name.ends_with(".flac") {
            assert_tone(&samples, rate, 1.0, 1e-4);
        }
    }
}

#[test]
fn a_broken_packet_is_skipped_and_keeps_its_time() {
    let whole = std::fs::read(golden("tone-48000-2.flac")).unwrap();
    let (.., expected, _, _) = decode(whole.clone(), Channel::Mix).unwrap();
    // The first packet, one in the middle.
    for place in [whole.len() / 2, whole.len() * 3 / 4] {
        let mut broken = whole.clone();
        broken[place..place + 40].fill(0x55);
        let (_, samples, lost, faults) = decode(broken, Channel::Mix).unwrap();
        assert!(samples.len() < expected.len() && lost > 0, "{} of {}, {lost} lost", samples.len(), expected.len());
        assert_eq!(samples.len() as u64 + lost, expected.len() as u64, "the time line is off; {faults:?}");
    }
}

#[test]
fn lengths_in_the_header_are_not_believed() {
    let honest = Wav::tone(16_000, 2, 1, 16, 4_000);
    for announced in [0, u32::MAX, 0x7FFF_FFFF, 0x7FFF_F000] {
        let (_, samples, ..) =
            decode(Wav { announced: Some(announced), ..honest.clone() }.bytes(), Channel::Mix).unwrap();
        assert_eq!(samples.len(), 4_000, "announced {announced}");
    }
    let (_, samples, _, faults) =
        decode(Wav { announced: Some(1 << 30), ..honest.clone() }.bytes(), Channel::Mix).unwrap();
    assert_eq!((samples.len(), faults.truncated), (4_000, true));
    // What follows the sound is not sound; an unknown chunk of odd length before it is skipped with its padding.
    let trailed = Wav {
        after_data: b"LIST\x04\0\0\0INFO".to_vec(),
        before_data: b"junk\x03\0\0\0abc\0".to_vec(),
        ..honest.clone()
    };
    assert_eq!(decode(trailed.bytes(), Channel::Mix).unwrap().1.len(), 4_000);
    // Cut inside a frame: the whole frames are there.
    let mut cut = honest.bytes();
    cut.truncate(cut.len() - 4 * 10 - 3);
    let (_, samples, _, faults) = decode(cut, Channel::Mix).unwrap();
    assert_eq!((samples.len(), faults.truncated), (3_989, true));
}

#[test]
fn values_that_are_no_numbers_become_silence_and_are_counted() {
    let mut wav = Wav::tone(48_000, 1, 3, 32, 2_000);
    wav.data = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.25]
        .iter()
        .cycle()
        .take(2_000)
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let (_, samples, _, faults) = decode(wav.bytes(), Channel::Mix).unwrap();
    assert_eq!((samples.len(), faults.samples_bad), (2_000, 1_500));
    assert!(samples.chunks(4).all(|four| four == [0.0, 0.0, 0.0, 0.25]));
}

#[test]
fn hopeless_files_say_what_is_wrong_and_what_helps() {
    let wav = Wav::tone(48_000, 1, 1, 16, 100);
    let text = |bytes| error_of(bytes, Channel::Mix);
    for rate in [0, 1, 7_999, 192_001, 4_000_000_000] {
        let error = text(Wav { rate, ..wav.clone() }.bytes());
        assert!(
            error.contains(&format!("{rate} Hz, allowed are 8000 to 192000")) && error.contains("ffmpeg"),
            "{error}"
        );
    }
    assert!(text(Wav { channels: 0, ..wav.clone() }.bytes()).contains("0 channels"));
    assert!(text(Wav { tag: 85, ..wav.clone() }.bytes()).contains("encoding 85"));
    assert!(text(Wav { bits: 64, ..wav.clone() }.bytes()).contains("64 bits"));
    assert!(text(Vec::new()).contains("empty"));
    assert!(text(b"RIFF\0\0".to_vec()).contains("no sound in it"));
    assert!(text(wav.bytes()[..30].to_vec()).contains("ends inside its fmt chunk"));
    assert!(text(wav.bytes()[..40].to_vec()).contains("no data chunk"));
    assert!(text(b"just some text, nothing to be heard in it at all".to_vec()).contains("no sound in it"));
    let missing = Decoder::open(Path::new("/no/such.wav"), Channel::Mix).err().unwrap();
    assert!(format!("{missing:#}").contains("/no/such.wav"));
    assert!(Decoder::open(Path::new("/"), Channel::Mix).err().unwrap().to_string().contains("directory"));
}

/// Bytes that every kind of file begins as, for damage.
fn specimens() -> Vec<Vec<u8>> {
    let wav = Wav { extensible: true, ..Wav::tone(16_000, 2, 1, 24, 3_000) };
    let read = |(name, ..): (&str, u32, f64)| std::fs::read(golden(name)).unwrap();
    std::iter::once(wav.bytes()).chain(COMPRESSED.map(read)).collect()
}

proptest! {
    // Some seconds of damage; more is for a night.
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever is overwritten, cut out or put in, decoding ends, without a panic of ours, with no more sound than such
    /// a file can hold and finite samples (`collect` asserts these).
    #[test]
    fn damage_is_survived(
        which in 0_usize..7,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        head_hits in prop::collection::vec((0_usize..200, any::<u8>()), 0..10),
        cut in any::<prop::sample::Index>(),
        cut_it in any::<bool>(),
    ) {
        let mut bytes = specimens().swap_remove(which);
        for (place, value) in hits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        for (place, value) in head_hits {
            bytes[place] = value;
        }
        if cut_it {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok((_, samples, lost, _)) = decode(bytes, Channel::Mix) {
            // A flac packet of silence takes 14 bytes and holds up to 65,535 samples.
            prop_assert!(samples.len() < 100_000_000 && lost < 100_000_000);
        }
    }
}

/// This program again, with one of its tests and 512 MB of address space: an allocation by a lying length would end it.
fn in_little_memory(arguments: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v 524288; exec \"$0\" --exact {arguments} --nocapture --test-threads=1")])
        .arg(std::env::current_exe().unwrap())
        .stdout(Stdio::piped());
    command
}

#[test]
fn damage_is_survived_in_little_memory() {
    let output = in_little_memory("decode::damage_is_survived").stderr(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
