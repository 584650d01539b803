//! An audio file as the log-mel patches that a model's audio tower looks at, bit for bit those that clapd computes for
//! a clip. The file is read piece by piece and to [`MAX_PATCHES`] at most, so no recording is held in memory.

use std::path::Path;

use anyhow::{Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::dsp::{Frontend, FrontendSpec};
use clapd_core::samples::Samples;

/// Most patches of a recording: ten minutes of the default model's, which has one every 0.48 s, or 300 MB of cache for the
/// largest known patch. What people rate is some 10 s long.
pub const MAX_PATCHES: usize = 1250;
/// Samples go in in pieces of this part of a second, so that the front end keeps little more than a patch.
const PIECES_A_SECOND: usize = 4;

/// The patches of a file, one after the other, `spec.patch_len()` values each. With a `patch_hop` of 0 (a `clap` bundle) the
/// first one, otherwise one every `patch_hop` samples at the model's rate; a shorter file makes one, repeated or padded.
///
/// # Errors
/// A file that can't be decoded or holds no sound, or a front end that can't be built.
pub fn patches(file: &Path, spec: &FrontendSpec, patch_hop: u64) -> Result<Vec<f32>> {
    let mut decoder = Decoder::open(file, Channel::Mix)?;
    let piece = (decoder.rate() as usize / PIECES_A_SECOND).max(1);
    // A patch and the next, and two seconds for what a piece and the resampler give at once.
    let ahead = (patch_hop as usize + 2 * spec.sample_rate as usize) / spec.hop_length;
    let frontend = Frontend::new(spec, decoder.rate(), spec.patch_frames + ahead)?;
    let most = if patch_hop == 0 { 1 } else { MAX_PATCHES };
    let mut collector =
        PatchCollector { frontend, patch_hop, most, count: 0, values: Vec::new(), length: spec.patch_len() };
    while collector.count < collector.most
        && let Some(Samples { mut lost, data }) = decoder.next_block()?
    {
        while lost > 0 {
            let silence = lost.min(piece as u64);
            collector.take(Samples { lost: silence, data: &[] })?;
            lost -= silence;
        }
        for part in data.chunks(piece) {
            collector.take(Samples::whole(part))?;
        }
    }
    collector.finish(file)
}

struct PatchCollector {
    frontend: Frontend,
    patch_hop: u64,
    most: usize,
    count: usize,
    values: Vec<f32>,
    length: usize,
}

impl PatchCollector {
    fn take(&mut self, samples: Samples<'_>) -> Result<()> {
        if self.count < self.most {
            self.frontend.push(samples)?;
            self.collect_due()?;
        }
        Ok(())
    }

    fn collect_due(&mut self) -> Result<()> {
        while self.count < self.most && self.frontend.has_patch(self.count as u64 * self.patch_hop) {
            let begin = self.values.len();
            self.values.resize(begin + self.length, 0.0);
            self.frontend.patch(self.count as u64 * self.patch_hop, &mut self.values[begin..])?;
            self.count += 1;
        }
        Ok(())
    }

    fn finish(mut self, file: &Path) -> Result<Vec<f32>> {
        if self.count < self.most {
            self.frontend.finish()?;
            self.collect_due()?;
        }
        if self.count == 0 {
            ensure!(self.frontend.samples() > 0, "{}: the recording holds no sound: 0 samples", file.display());
            self.values.resize(self.length, 0.0);
            self.frontend.short_patch(&mut self.values)?;
        }
        Ok(self.values)
    }
}
