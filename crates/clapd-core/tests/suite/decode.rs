//! Sound files: every format, rate and channel count; broken files.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults, RawFormat};
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
    // Plain AAC says nothing of its encoder's delay and padding, which are packets of 64 ms.
    let (tolerance, edge) = if name.ends_with(".aac") { (0.13, 4) } else { (0.06, 10) };
    assert!((length - seconds).abs() < tolerance, "{name}: {length} s");
    let edge = samples.len() / edge;
    let middle = &samples[edge..samples.len() - edge];
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

const COMPRESSED: [(&str, u32, f64); 12] = [
    ("tone-48000-2.flac", 48_000, 0.5),
    ("tone-96000-1-24bit.flac", 96_000, 0.08),
    ("tone-44100-2.ogg", 44_100, 0.5),
    ("tone-16000-1.ogg", 16_000, 0.5),
    ("tone-44100-2.mp3", 44_100, 0.5),
    ("tone-16000-1.mp3", 16_000, 0.5),
    ("tone-16000-1.opus", 48_000, 0.5),
    ("tone-48000-2.webm", 48_000, 0.5),
    ("tone-44100-2.m4a", 44_100, 0.5),
    ("tone-16000-1.aac", 16_000, 0.5),
    ("tone-16000-1.caf", 16_000, 0.1),
    ("tone-16000-1.aiff", 16_000, 0.1),
];

#[test]
fn compressed_sound_is_read() {
    for (name, rate, seconds) in COMPRESSED {
        let decoder = Decoder::open(&golden(name), Channel::Mix).unwrap();
        // Neither webm nor plain AAC says of a track how long it is, and of ALAC in caf symphonia counts whole packets.
        if ![".webm", ".aac", ".caf"].iter().any(|end| name.ends_with(end)) {
            let hint = decoder.duration_hint().unwrap().as_secs_f64();
            assert!((hint - seconds).abs() < 0.06, "{name}: hint {hint} s");
        }
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
fn opus_is_what_the_reference_decoder_makes_of_it() {
    let open = |name| collect(Decoder::open(&golden(name), Channel::Mix).unwrap()).unwrap().1;
    let (ours, reference) = (open("tone-16000-1.opus"), open("tone-16000-1.opus.flac"));
    assert_eq!(ours.len(), reference.len(), "the encoder's delay and the padding at the end are cut off");
    // The reference is rounded to 16 bits, and ours decodes with integers.
    let furthest = ours.iter().zip(&reference).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(furthest < 6.0 / 32_768.0, "{furthest}");
}

/// A long wav: the true length stands in `ds64`.
fn long_wav(magic: &[u8; 4], samples: &[i16], announced: u64, behind: &[u8]) -> Vec<u8> {
    let mut bytes = [magic.as_slice(), b"\xFF\xFF\xFF\xFFWAVEds64\x1C\0\0\0"].concat();
    bytes.extend(u64::MAX.to_le_bytes());
    bytes.extend(announced.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(b"fmt \x10\0\0\0\x01\0\x01\0\x80\x3E\0\0\0\x7D\0\0\x02\0\x10\0data\xFF\xFF\xFF\xFF");
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes.extend(behind);
    bytes
}

#[test]
fn the_true_length_of_a_long_wav_is_believed() {
    let samples = [1_000_i16; 500];
    for magic in [b"RF64", b"BW64"] {
        // What is behind the sound is not heard.
        let whole = long_wav(magic, &samples, 1_000, b"LIST\x08\0\0\0INFOINFO");
        let (rate, heard, _, faults) = decode(whole, Channel::Mix).unwrap();
        assert_eq!((rate, heard.len(), faults.truncated), (16_000, 500, false));
        let (_, heard, _, faults) = decode(long_wav(magic, &samples, 4_000_000_000, b""), Channel::Mix).unwrap();
        assert_eq!((heard.len(), faults.truncated), (500, true));
        // Never filled in.
        for unknown in [0, u64::MAX] {
            let (_, heard, _, faults) = decode(long_wav(magic, &samples, unknown, b""), Channel::Mix).unwrap();
            assert_eq!((heard.len(), faults.truncated), (500, false));
        }
    }
}

#[test]
fn chunks_of_odd_length_are_read_with_padding_and_without() {
    let wav = Wav::tone(16_000, 1, 1, 16, 1_000);
    for junk in [b"junk\x03\0\0\0abc\0".as_slice(), b"junk\x03\0\0\0abc", b"junk\x03\0\0\0abcZ"] {
        for next in [b"".as_slice(), b"note\x01\0\0\0a", b"LIST\x05\0\0\0INFOx"] {
            let bytes = Wav { before_data: [junk, next].concat(), ..wav.clone() }.bytes();
            if junk.ends_with(b"Z") && next.starts_with(b"note") {
                // A letter as padding before a chunk of no common name: nobody can tell which of the two it belongs to.
                continue;
            }
            assert_eq!(decode(bytes, Channel::Mix).unwrap().1.len(), 1_000, "{junk:?} {next:?}");
        }
    }
}

#[test]
fn floats_that_are_integers_are_scaled_also_on_a_pipe() {
    let scaled = |factor: f64| {
        let mut wav = Wav::tone(48_000, 1, 3, 32, 20_000);
        wav.data = (0..20_000).flat_map(|frame| ((tone(frame, 48_000) * factor) as f32).to_le_bytes()).collect();
        decode(wav.bytes(), Channel::Mix).unwrap()
    };
    for full in [32_768.0_f32, 8_388_608.0, 2_147_483_648.0] {
        let (_, samples, _, faults) = scaled(f64::from(full));
        assert_eq!(faults.divided_by, full);
        assert_tone(&samples, 48_000, 1.0, 1e-5);
    }
    let (_, samples, _, faults) = scaled(8.0);
    assert_eq!(faults, Faults::default());
    assert_tone(&samples, 48_000, 8.0, 1e-5);
}

#[test]
fn floats_beyond_full_scale_are_scaled_to_it() {
    for factor in [1.0 / PEAK, 1.5 / PEAK, 8.0, 1e12] {
        let mut wav = Wav::tone(48_000, 1, 3, 32, 20_000);
        wav.data = (0..20_000).flat_map(|frame| ((tone(frame, 48_000) * factor) as f32).to_le_bytes()).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &wav.bytes()).unwrap();
        let (_, samples, _, faults) = collect(Decoder::open(file.path(), Channel::Mix).unwrap()).unwrap();
        let peak = samples.iter().copied().fold(0.0, f32::max);
        assert!((peak - 1.0).abs() < 1e-3, "{factor}: {peak}");
        assert_eq!(faults.divided_by > 0.0, factor > 1.001 / PEAK, "{factor}");
    }
}

#[test]
fn integers_in_floats_that_begin_quietly_are_scaled_from_the_beginning_of_a_file() {
    let mut wav = Wav::tone(48_000, 1, 3, 32, 40_000);
    let level = |frame: usize| if frame < 20_000 { 1e-4 } else { 1.0 };
    wav.data =
        (0..40_000).flat_map(|frame| ((tone(frame, 48_000) * level(frame) * 32_768.0) as f32).to_le_bytes()).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &wav.bytes()).unwrap();
    let (_, samples, _, faults) = collect(Decoder::open(file.path(), Channel::Mix).unwrap()).unwrap();
    assert_eq!(faults, Faults { divided_by: 32_768.0, ..Faults::default() });
    assert_tone(&samples[..20_000], 48_000, 1e-4, 1e-7);
    assert!((samples.iter().copied().fold(0.0, f32::max) - PEAK as f32).abs() < 1e-4);
}

#[test]
fn raw_samples_are_read_as_they_are_declared() {
    for (format, tag, bits, tolerance) in [
        ("16000:u8:2", 1, 8, 0.01),
        ("16000:s16:2", 1, 16, 1e-4),
        ("16000:s24:2", 1, 24, 1e-6),
        ("16000:s32:2", 1, 32, 1e-6),
        ("16000:f32:2", 3, 32, 1e-7),
    ] {
        let bytes = Cursor::new(Wav::tone(16_000, 2, tag, bits, 5_000).data);
        let format: RawFormat = format.parse().unwrap();
        let decoder = Decoder::from_raw(Box::new(bytes), format, "test", Channel::Index(0)).unwrap();
        let (rate, samples, _, faults) = collect(decoder).unwrap();
        assert_eq!((rate, samples.len(), faults), (16_000, 5_000, Faults::default()));
        assert_tone(&samples, 16_000, 1.0, tolerance);
    }
    let one = Decoder::from_raw(Box::new(Cursor::new([])), "8000:alaw:1".parse().unwrap(), "test", Channel::Index(1));
    assert!(one.err().unwrap().to_string().contains("channel 1 was asked for, but it has 1"));
}

#[test]
fn a_cover_of_any_size_is_skipped() {
    let sound = std::fs::read(golden("tone-44100-2.mp3")).unwrap();
    let (_, expected, _, faults) = decode(sound.clone(), Channel::Mix).unwrap();
    for size in [0, 1_000_000, 3_000_000_u32] {
        let length: Vec<u8> = (0..4).rev().map(|place| (size >> (7 * place)) as u8 & 127).collect();
        let tag = [b"ID3\x04\0\0".as_slice(), &length, &vec![0xFF; size as usize]].concat();
        // Two of them: some programs put theirs before another's.
        let bytes = [&tag, &tag, &sound].map(Vec::as_slice).concat();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let of_file = collect(Decoder::open(file.path(), Channel::Mix).unwrap()).unwrap();
        for (_, samples, _, now) in [decode(bytes, Channel::Mix).unwrap(), of_file] {
            assert_eq!(now, faults);
            assert!(samples == expected, "{} samples, expected {}", samples.len(), expected.len());
        }
    }
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
        which in 0..=COMPRESSED.len(),
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
