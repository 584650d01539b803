//! CLAP's patches, whole and live: a recording of any length gives the patch that the reference gives (golden.rs), and a
//! window of a stream the patch of the recording that holds just its samples.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use clapd_core::dsp::{FrontendSpec, clip_patch};
use clapd_core::embed::{ClipEmbedder, Model};
use clapd_core::model::{Encode, TextEmbedding, Windowing};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
use clapd_core::samples::Samples;
use clapd_core::score::Calibration;

use super::golden::CLAP_LENGTHS;
use super::signals::signal;

/// Collects the patches that it is given.
#[derive(Default)]
struct PatchCollector(Mutex<Vec<Vec<f32>>>);

impl Encode for PatchCollector {
    fn feature_len(&self) -> usize {
        1
    }

    fn embedding_len(&self) -> usize {
        1
    }

    fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()> {
        self.0.lock().unwrap().push(patch.to_vec());
        features[0] = 1.0;
        Ok(())
    }

    fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
        embedding.copy_from_slice(mean);
        Ok(())
    }
}

fn model(spec: &FrontendSpec) -> (Model, Arc<PatchCollector>) {
    let encoder = Arc::new(PatchCollector::default());
    let windowing = Windowing { patch: spec.patch_samples() as u64, patch_hop: 0, patches: 1 };
    let calibration = Calibration::new(vec![[-1.0, 0.0], [1.0, 10.0]]).unwrap();
    (Model { encoder: encoder.clone(), frontend: *spec, windowing, calibration, level: None }, encoder)
}

/// The patches and the seconds that a recording in pieces of `piece` samples is embedded from.
fn embedded(spec: &FrontendSpec, clip: &[f32], piece: usize) -> Result<(Vec<Vec<f32>>, f64)> {
    let (model, encoder) = model(spec);
    let mut embedder = ClipEmbedder::new(model, spec.sample_rate)?;
    for piece in clip.chunks(piece) {
        if !embedder.push(Samples::whole(piece))? {
            break;
        }
    }
    let (_, seconds) = embedder.finish()?;
    let patches = encoder.0.lock().unwrap().clone();
    Ok((patches, seconds))
}

#[test]
fn a_recording_of_any_length_is_one_patch_of_its_first_ten_seconds() {
    for spec in [FrontendSpec::clap_fused(), FrontendSpec::clap_unfused()] {
        for case in CLAP_LENGTHS {
            let clip = signal(case, spec.sample_rate, spec.patch_samples());
            let (patches, seconds) = embedded(&spec, &clip, 4_096).unwrap();
            assert_eq!(seconds, clip.len().min(480_000) as f64 / 48_000.0, "{case}");
            assert!(patches == [clip_patch(&spec, &clip).unwrap()], "{case}");
        }
    }
}

#[test]
fn a_recording_without_a_sample_is_an_error_that_says_so() {
    let error = embedded(&FrontendSpec::clap_fused(), &[], 1).unwrap_err().to_string();
    assert!(error.contains("no sound: 0 samples at the model's 48000 Hz"), "{error}");
}

#[test]
fn a_live_window_is_the_patch_of_its_samples_bit_for_bit() {
    let spec = FrontendSpec::clap_fused();
    let (model, encoder) = model(&spec);
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (1, 1), cooldown: Duration::ZERO };
    let text = TextEmbedding { vector: vec![1.0], coverage: None };
    let prompt = Prompt::of_text(PromptId::numbered(0), "a sound", rule);
    let prompts = PromptTable::new(1, vec![PreparedPrompt::of_text(prompt, text)]).unwrap();
    let mut pipeline =
        Pipeline::new(model, prompts.into(), spec.sample_rate, Duration::from_secs(1), Pace::Every).unwrap();
    // Ends between two hops: the last window is at the end, to the frame.
    let sound = signal("music-601000", spec.sample_rate, spec.patch_samples());
    let mut spans = Vec::new();
    let mut sink = |output: Output<'_>| {
        if let Output::Window(window) = output {
            spans.push([window.start, window.end].map(|time| (time.as_secs_f64() * 48_000.0).round() as usize));
        }
    };
    for block in sound.chunks(4_800) {
        pipeline.push(Samples::whole(block), &mut sink).unwrap();
    }
    pipeline.finish(&mut sink).unwrap();
    assert_eq!(spans, [0, 48_000, 96_000, 120_960].map(|start| [start, start + 480_000]));
    let patches = encoder.0.lock().unwrap();
    assert_eq!(patches.len(), spans.len());
    for (patch, [start, end]) in patches.iter().zip(spans) {
        assert!(*patch == clip_patch(&spec, &sound[start..end]).unwrap(), "window at {start}");
    }
}
