//! The table of formats in docs/recordings.md: a file of every line, made by ffmpeg, is heard as ffmpeg hears it.

use std::path::Path;
use std::process::Command;

use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults};

use crate::wav::Wav;

const RATE: u32 = 48_000;
const FRAMES: usize = 48_000;
/// What a decoder may differ from ffmpeg's, in dB below the sound: Opus is decoded with integers, and differs by 70 dB.
const LEAST_DB: f64 = 60.0;
/// Frames at the end that a container may leave unsaid, and ffmpeg takes off: two packets of MP3.
const MAX_PADDING: usize = 2_304;

/// The lines of the table: names of files, and encodings.
fn table() -> Vec<(Vec<String>, Vec<String>)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recordings.md")).unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| line.starts_with("| `."));
    let lines: Vec<_> = lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let names = quoted(cells[1]).into_iter().filter(|name| name.starts_with('.')).collect();
            (names, quoted(cells[3]))
        })
        .collect();
    assert!(lines.len() > 8, "the table is gone");
    lines
}

/// A sound with a beginning that shows a shift of one sample: two tones under an envelope of its own.
fn sound() -> Wav {
    let value = |frame: usize, hz: f64| (frame as f64 * hz / f64::from(RATE) * std::f64::consts::TAU).sin();
    let sample = |frame: usize| {
        let envelope = 0.3 + 0.2 * value(frame, 1.7);
        (envelope * (0.7 * value(frame, 440.0) + 0.3 * value(frame, 1_234.5)) * 32_000.0) as i16
    };
    Wav::mono(RATE, (0..FRAMES).map(sample))
}

fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn hear(path: &Path) -> anyhow::Result<(Vec<f32>, u64, Faults)> {
    let mut decoder = Decoder::open(path, Channel::Mix)?;
    assert_eq!(decoder.rate(), RATE);
    let (mut all, mut lost) = (Vec::new(), 0);
    while let Some(samples) = decoder.next_block()? {
        lost += samples.lost;
        all.extend_from_slice(samples.data);
    }
    Ok((all, lost, decoder.faults()))
}

/// How far the difference lies below the sound, in dB, the first and last tenth left out.
fn likeness_db(heard: &[f32], expected: &[f32]) -> f64 {
    let middle = expected.len() / 10..expected.len() * 9 / 10;
    let (mut power, mut difference) = (0.0, 1e-12);
    for (heard, expected) in heard[middle.clone()].iter().zip(&expected[middle]) {
        power += f64::from(*expected).powi(2);
        difference += f64::from(heard - expected).powi(2);
    }
    10.0 * (power / difference).log10()
}

#[test]
fn every_line_of_the_table_is_heard_as_ffmpeg_hears_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.wav");
    std::fs::write(&source, sound().bytes()).unwrap();
    let mut wrong = Vec::new();
    for (names, encodings) in table() {
        for (name, encoding) in names.iter().flat_map(|name| encodings.iter().map(move |encoding| (name, encoding))) {
            let file = folder.path().join(format!("{encoding}{name}"));
            let (from, to) = (source.to_str().unwrap(), file.to_str().unwrap());
            ffmpeg(&["-i", from, "-c:a", encoding, "-strict", "experimental", to]);
            let expected = ffmpeg(&["-i", to, "-f", "f32le", "-"]);
            let expected: Vec<f32> =
                expected.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let (samples, lost, faults) = match hear(&file) {
                Ok(heard) => heard,
                Err(error) => {
                    wrong.push(format!("{encoding}{name}: {error:#}"));
                    continue;
                }
            };
            if (lost, faults) != (0, Faults::default()) {
                wrong.push(format!("{encoding}{name}: {lost} lost, {faults:?}"));
            }
            let longer = samples.len().abs_diff(expected.len());
            let reaches = samples.len() * 10 > expected.len() * 9;
            let likeness = if reaches { likeness_db(&samples, &expected) } else { 0.0 };
            if likeness < LEAST_DB || longer > MAX_PADDING {
                let (here, there) = (samples.len(), expected.len());
                wrong.push(format!("{encoding}{name}: {here} frames, ffmpeg {there}; {likeness:.0} dB"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cover_larger_than_a_megabyte_is_in_the_way_of_no_sound() {
    let folder = tempfile::tempdir().unwrap();
    let [source, cover] = ["source.wav", "cover.png"].map(|name| folder.path().join(name));
    std::fs::write(&source, sound().bytes()).unwrap();
    let (from, picture) = (source.to_str().unwrap(), cover.to_str().unwrap());
    let noise = "nullsrc=s=900x900,geq=lum='random(1)*255':cb='random(2)*255':cr='random(3)*255'";
    ffmpeg(&["-f", "lavfi", "-i", noise, "-frames:v", "1", "-pix_fmt", "rgb24", picture]);
    assert!(cover.metadata().unwrap().len() > 1 << 20, "the picture is too small to show anything");
    for (name, encoding) in [("x.mp3", "libmp3lame"), ("x.flac", "flac"), ("x.m4a", "aac")] {
        let file = folder.path().join(name);
        let to = file.to_str().unwrap();
        for order in [&[][..], &["-movflags", "+faststart"]] {
            let inputs = ["-i", from, "-i", picture, "-map", "0:a", "-map", "1:v", "-c:v", "copy"];
            let outputs = ["-disposition:v", "attached_pic", "-c:a", encoding];
            ffmpeg(&[&inputs[..], &outputs, order, &[to]].concat());
            assert!(file.metadata().unwrap().len() > 1 << 20, "{name}: no cover in it");
            let (samples, lost, faults) = hear(&file).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert_eq!((lost, faults), (0, Faults::default()), "{name}");
            assert!(samples.len().abs_diff(FRAMES) <= MAX_PADDING, "{name}: {} frames", samples.len());
        }
    }
}

#[test]
fn what_is_not_read_is_named_with_the_command_that_converts_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.wav");
    std::fs::write(&source, sound().bytes()).unwrap();
    for (name, encoding) in
        [("x.wma", "wmav2"), ("x.mka", "ac3"), ("x.wav", "adpcm_ms"), ("x.wv", "wavpack"), ("x.tta", "tta")]
    {
        let [file, converted] = [name, "out.wav"].map(|name| folder.path().join(name));
        let (to, again) = (file.to_str().unwrap(), converted.to_str().unwrap());
        ffmpeg(&["-i", source.to_str().unwrap(), "-c:a", encoding, to]);
        let error = format!("{:#}", hear(&file).expect_err(name));
        assert!(error.contains("ffmpeg -i FILE -c:a pcm_s16le OUT.wav"), "{name}: {error}");
        ffmpeg(&["-i", to, "-c:a", "pcm_s16le", again]);
        let (samples, ..) = hear(&converted).unwrap();
        assert!(samples.len() + MAX_PADDING > FRAMES, "{name}: the command that it was given makes {}", samples.len());
    }
}
