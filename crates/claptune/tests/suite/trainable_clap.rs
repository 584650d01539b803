//! Ways to train a `ClapModel` that change how, and not what: LoRA, gradient checkpointing, frozen model.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::prelude::*;
use claptune::checkpoint::source::locate;
use claptune::data::Clips;
use claptune::net::clap::Clap;
use claptune::train::clap::{Choices, TrainableClap};
use claptune::train::optimizer::{LearningRates, Optimizer, gradient_length};
use claptune::train::parts::FreezablePart;
use claptune::train::state::trained_paths;
use claptune::train::trainable_model::{AudioView, TrainableModel, distinct, rows};

use crate::support::copy::golden;
use crate::support::training;

const TEXTS: [&str; 3] = ["rain on a roof", "a bell", "a whistle, far away in the wind"];

/// Towers, a network at its beginning, and recordings to show it.
struct Bench {
    model: TrainableClap,
    clips: Clips,
    files: Vec<PathBuf>,
    optimizer: Optimizer,
}

impl Bench {
    fn new(checkpoint: &Path, folder: &Path, choices: Choices) -> Self {
        if !folder.join("study.csv").exists() {
            training::dataset(folder);
        }
        let model =
            TrainableClap::open(&locate(checkpoint.to_str().unwrap(), None).unwrap(), choices, Device::flex()).unwrap();
        let (spec, hop) = model.frontend();
        let rates = LearningRates { peak: 1e-2, warm_up: 0, steps: 100, weight_decay: 0.0, clip: None };
        let optimizer = Optimizer::new(rates, &model.groups()).unwrap();
        let files = (0..TEXTS.len()).map(|n| folder.join(format!("{}.wav", 5 * n))).collect();
        Self { model, clips: Clips::new(spec, hop, None), files, optimizer }
    }

    fn embed(&mut self, net: &Clap) -> [Tensor<2>; 2] {
        let looks: Vec<AudioView<'_>> = self.files.iter().map(|file| AudioView { file, mask: None }).collect();
        let audio = self.model.audio(net, &mut self.clips, &looks).unwrap();
        [audio, self.model.text(net, &TEXTS).unwrap()]
    }

    fn values(&mut self, net: &Clap) -> [Vec<f32>; 2] {
        self.embed(&net.valid()).map(|x| x.into_data().try_to_vec().unwrap())
    }

    /// The network after so many steps towards pairs of cosine 1, and the first loss and length of its gradients.
    fn stepped(&mut self, mut net: Clap, steps: u64) -> (Clap, f64, f64) {
        let mut first = None;
        for step in 0..steps {
            let [audio, text] = self.embed(&net);
            let loss = (audio * text).sum_dim(1).mean().neg();
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            first = first.or(Some((value, gradient_length(&net, &gradients))));
            net = self.optimizer.step(step, net, gradients).0;
        }
        let (value, length) = first.unwrap();
        (net, value, length)
    }
}

fn far(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn lora_begins_as_the_checkpoint_and_is_merged_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let plain = |checkpoint: &Path| {
        let mut bench = Bench::new(checkpoint, folder.path(), Choices::default());
        let net = bench.model.begin().unwrap();
        bench.values(&net)
    };
    let begin = plain(&golden("fused"));
    let choices = Choices { lora: Some(4), freeze: vec![FreezablePart::Text], ..Choices::default() };
    let mut bench = Bench::new(&golden("fused"), folder.path(), choices);
    let net = bench.model.begin().unwrap();
    let trained = trained_paths(&net);
    assert!(trained.iter().all(|path| path.contains(".lora.") && path.starts_with("audio.")), "{trained:?}");
    assert!(trained.iter().any(|path| path.contains("query")) && trained.iter().any(|path| path.contains("linear2")));
    let convert = bench.model.begin().unwrap();
    let (own, same) = (bench.values(&net), bench.values(&convert));
    assert!(far(&own, &begin) < 1e-6, "factors begin as nothing: {}", far(&own, &begin));
    assert_eq!(own, same);
    let (net, ..) = bench.stepped(net, 4);
    let after = bench.values(&net);
    assert!(far(&after, &begin) > 1e-3, "it learns: {}", far(&after, &begin));
    let out = folder.path().join("merged");
    bench.model.save(&net, &out).unwrap();
    let merged = plain(&out);
    assert!(far(&merged, &after) < 1e-6, "{}", far(&merged, &after));
    let error = Bench::new(&golden("fused"), folder.path(), Choices { lora: Some(0), ..Choices::default() });
    assert!(error.model.begin().unwrap_err().to_string().contains("--lora is 0"));
}

#[test]
fn gradient_checkpointing_changes_no_gradient() {
    let folder = tempfile::tempdir().unwrap();
    let step = |gradient_checkpointing| {
        let choices = Choices { gradient_checkpointing, ..Choices::default() };
        let mut bench = Bench::new(&golden("fused"), folder.path(), choices);
        let net = bench.model.begin().unwrap();
        let (net, loss, length) = bench.stepped(net, 2);
        (bench.values(&net), loss, length)
    };
    let (kept, convert) = (step(false), step(true));
    assert!((kept.1 - convert.1).abs() < 1e-6 && (kept.2 / convert.2 - 1.0).abs() < 1e-5, "{kept:?} {convert:?}");
    assert!(far(&kept.0, &convert.0) < 1e-3, "{}", far(&kept.0, &convert.0));
}

#[test]
fn a_frozen_tower_is_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&golden("unfused"), folder.path(), Choices::default());
    let net = bench.model.begin().unwrap();
    let plain = bench.values(&net);
    let choices = Choices { freeze: vec![FreezablePart::Audio, FreezablePart::Text], ..Choices::default() };
    let mut frozen = Bench::new(&golden("unfused"), folder.path(), choices);
    let net = frozen.model.begin().unwrap();
    let first = frozen.values(&net);
    assert!(far(&first, &plain) < 1e-5, "{}", far(&first, &plain));
    // The files may go: nothing reads them again.
    for file in &frozen.files {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(frozen.values(&net), first);
}

#[test]
fn what_comes_twice_is_embedded_once() {
    let (keys, places) = distinct(["a", "b", "a", "c", "b"]);
    assert_eq!((keys, places.clone()), (vec!["a", "b", "c"], vec![0, 1, 0, 2, 1]));
    let x = Tensor::<2>::from_floats([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], &Device::flex());
    let taken: Vec<f32> = rows(x, &places).into_data().try_to_vec().unwrap();
    assert_eq!(taken, [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 4.0, 5.0, 2.0, 3.0]);
}
