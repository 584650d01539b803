//! A recording of one sound, as an example of it: cut to where it sounds.
//!
//! An example is read whole, so its length is bounded; and it must not be silent, since everything quiet resembles silence.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::channel::Channel;
use crate::decode::Decoder;
use crate::files::hexadecimal;
use crate::level::decibels;

/// An example is one sound, not an evening of it; a minute of rain is as good as an hour. Bounds memory: 46 MB at 192 kHz.
pub const MAX_LENGTH: Duration = Duration::from_secs(60);
/// As long as the shortest sounds that people name, as in the pipeline's gate.
const BLOCKS_PER_SECOND: u32 = 20;
/// Level (RMS in dB below full scale) that the loudest 50 ms must reach. A small microphone's own noise lies at -70 to -50
/// dB in a quiet room: a recording that stays below it has nothing else in it.
const SILENT_DB: f32 = -70.0;
/// What is so much weaker than the loudest 50 ms is not the sound any more: the end of an echo, the room between two
/// barks. Rooms lie 30 to 50 dB below a sound that somebody stood near to record.
const RANGE_DB: f32 = 40.0;

/// Sound, from the first to the last moment that is loud enough to be part of it.
#[derive(Debug, Clone)]
pub struct Example {
    rate: u32,
    samples: Vec<f32>,
    /// For every 50 ms of it, whether it is loud enough.
    loud: Vec<bool>,
}

/// Why a file is no example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleError {
    /// What was found, the file's name included, and what is allowed.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for ExampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl std::error::Error for ExampleError {}

impl Example {
    /// Reads the file and finds the sound in it.
    ///
    /// # Errors
    /// A file that cannot be read as sound, is longer than [`MAX_LENGTH`], or is silent.
    pub fn open(path: &Path) -> Result<Self, ExampleError> {
        let (rate, samples) = read(path)?;
        let block = (rate / BLOCKS_PER_SECOND).max(1) as usize;
        let levels: Vec<f32> = samples.chunks(block).map(level_db).collect();
        let loudest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = SILENT_DB.max(loudest - RANGE_DB);
        let loud: Vec<bool> = levels.iter().map(|level| *level >= least).collect();
        let (Some(first), Some(last)) = (loud.iter().position(|loud| *loud), loud.iter().rposition(|loud| *loud))
        else {
            let message = format!(
                "{}: is silent: its loudest 50 ms have {loudest:.0} dB, and {SILENT_DB} dB below full scale is the least",
                path.display()
            );
            return Err(ExampleError { message, remedy: "record it louder, or nearer to the sound" });
        };
        let end = samples.len().min((last + 1) * block);
        Ok(Self { rate, samples: samples[first * block..end].to_vec(), loud: loud[first..=last].to_vec() })
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The sound, mono, from its first to its last loud moment.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// A hash (SHA-256, hexadecimal) of the sound itself, whatever its file is called and however it is packed.
    pub fn content(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.rate.to_le_bytes());
        self.samples.iter().for_each(|sample| hash.update(sample.to_le_bytes()));
        hexadecimal(&hash.finalize())
    }

    /// The sound in windows of `length`, each half over the next, the last one at its end; without those in which it
    /// pauses. A sound that is no longer than a window is one window.
    pub fn windows(&self, length: Duration) -> Vec<&[f32]> {
        // Rounded up: a sample too few would cost a model's window its last patch.
        let length = (length.as_secs_f64() * f64::from(self.rate)).ceil() as usize + 1;
        let Some(last) = self.samples.len().checked_sub(length) else { return vec![&self.samples] };
        let starts = (0..last).step_by((length / 2).max(1)).chain([last]);
        starts
            .filter(|start| self.sounds(*start, start + length))
            .map(|start| &self.samples[start..start + length])
            .collect()
    }

    fn sounds(&self, start: usize, end: usize) -> bool {
        let block = (self.rate / BLOCKS_PER_SECOND).max(1) as usize;
        self.loud[start / block..end.div_ceil(block).min(self.loud.len())].contains(&true)
    }
}

fn read(path: &Path) -> Result<(u32, Vec<f32>), ExampleError> {
    let unreadable = |error: anyhow::Error| ExampleError {
        message: format!("{error:#}"),
        remedy: "name a recording that this user may read, in a format of docs/recordings.md",
    };
    let mut decoder = Decoder::open(path, Channel::Mix).map_err(unreadable)?;
    let rate = decoder.rate();
    let most = MAX_LENGTH.as_secs() as usize * rate as usize;
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block().map_err(unreadable)? {
        samples.extend_from_slice(block.data);
        if samples.len() > most {
            return Err(ExampleError {
                message: format!(
                    "{}: is longer than {} s, the most an example may have",
                    path.display(),
                    MAX_LENGTH.as_secs()
                ),
                remedy: "cut it to the sound itself",
            });
        }
    }
    Ok((rate, samples))
}

/// RMS around the mean, in dB below full scale (whose RMS is 1): cheap sound cards add a constant that nobody hears.
fn level_db(block: &[f32]) -> f32 {
    let count = block.len() as f64;
    let mean = block.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let power = block.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    decibels(power) as f32
}
