//! Losses and gradients are PyTorch's. Expectations: tests/golden/clap/make_gradients.py.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::store::ModuleRecord;
use burn::tensor::{Gradients, TensorData};
use claptune::checkpoint::Weight;
use claptune::checkpoint::clap::ClapCheckpoint;
use claptune::checkpoint::clap_names::{Naming, Tower, is_transposed};
use claptune::checkpoint::source::locate;
use claptune::net::clap::Clap;
use claptune::train::objective::{Objective, Spread, Targets};
use claptune::train::optimizer::{LearningRates, Optimizer};
use claptune::train::parts::LayerRates;
use claptune::train::parts::freeze_batch_statistics;
use claptune::train::save::save;
use serde_json::Value;

const PAIRS: usize = 4;
const LENGTH: usize = 9;

/// A gradient's error over its norm. f32 sums of a million terms differ by this much with their order.
const TOLERANCE: f64 = 1e-4;
/// A norm that is nothing, over the largest: the bias of a key changes no attention, so its gradient is what rounding leaves.
const NOTHING: f64 = 1e-6;

/// The same as in make_gradients.py.
fn inputs(fused: bool, device: &Device) -> (Tensor<4>, Tensor<2, Int>, Tensor<2, Int>) {
    let channels = if fused { 4 } else { 1 };
    let mel: Vec<f32> = (0..PAIRS * channels * 1001 * 64)
        .map(|i| (-40.0 + 30.0 * (0.013 * i as f64).sin() * (0.00031 * i as f64).cos()) as f32)
        .collect();
    let mut ids = vec![];
    for n in 0..PAIRS {
        ids.push(0);
        ids.extend((1..LENGTH - n - 1).map(|s| (5 + (7 * n + 13 * s) % 380) as i64));
        ids.push(2);
        ids.extend(std::iter::repeat_n(1, n));
    }
    let mask: Vec<i64> = ids.iter().map(|id| i64::from(*id != 1)).collect();
    (
        Tensor::from_data(TensorData::new(mel, [PAIRS, channels, 1001, 64]), device),
        Tensor::from_data(TensorData::new(ids, [PAIRS, LENGTH]), device),
        Tensor::from_data(TensorData::new(mask, [PAIRS, LENGTH]), device),
    )
}

fn targets(device: &Device) -> Targets {
    Targets {
        rating: Tensor::from_floats([0.9, 0.25, 0.0, 0.625], device),
        z_score: Tensor::from_floats([1.1, -0.7, -1.6, 0.3], device),
        spread: Spread { mean: 5.5, deviation: 2.75 },
    }
}

/// Every parameter, or its gradient where there is one, by PyTorch's name and as PyTorch keeps it.
struct Named<'a> {
    path: Vec<String>,
    gradients: Option<&'a Gradients>,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Named<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let ours = self.path.join(".");
        let tensor = match self.gradients {
            Some(gradients) => param.val().grad(gradients),
            None => Some(param.val().inner()),
        };
        let Some(tensor) = tensor else { return };
        let weight = Weight { shape: param.dims().to_vec(), values: tensor.into_data().try_to_vec::<f32>().unwrap() };
        let inside = ours.split_once('.').map_or("", |(_, inside)| inside);
        let weight = if is_transposed(inside, D) { weight.transposed() } else { weight };
        self.values.insert(name(&ours), weight.values);
    }
}

fn named(clap: &Clap, gradients: Option<&Gradients>) -> BTreeMap<String, Vec<f32>> {
    let mut named = Named { path: vec![], gradients, values: BTreeMap::new() };
    clap.visit(&mut named);
    named.values
}

/// The largest error of all, and whose it is.
fn worst(values: &BTreeMap<String, Vec<f32>>, expected: &Value) -> (f64, String) {
    let expected = expected.as_object().unwrap();
    let largest = expected.values().map(|expected| expected[0].as_f64().unwrap()).fold(0.0, f64::max);
    let errors = expected.iter().map(|(name, expected)| {
        let values = values.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        (error(values, expected, NOTHING * largest), name.clone())
    });
    errors.fold((0.0, String::new()), |worst, error| if error.0 > worst.0 { error } else { worst })
}

/// PyTorch's name of a parameter.
fn name(ours: &str) -> String {
    match ours.split_once('.') {
        Some(("audio", path)) => Naming::Transformers.location(Tower::Audio, path).name,
        Some((_, path)) => Naming::Transformers.location(Tower::Text, path).name,
        None => Naming::Transformers.temperature(if ours == "audio_scale" { Tower::Audio } else { Tower::Text }),
    }
}

/// How far norm and waves are from what was expected, over the norm; where that is below `nothing`, ours must be. (A wave's own length is the root of half as many elements.)
fn error(values: &[f32], expected: &Value, nothing: f64) -> f64 {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if expected[0] < nothing {
        return if norm < nothing { 0.0 } else { f64::INFINITY };
    }
    let waves = (1..=3).map(|k| {
        let wave = |i: usize| ((0.7 * k as f64 + 0.3) * i as f64 + k as f64).cos();
        let dot: f64 = values.iter().enumerate().map(|(i, x)| f64::from(*x) * wave(i)).sum();
        (dot - expected[k]).abs() / (values.len() as f64 / 2.0).sqrt()
    });
    waves.fold((norm - expected[0]).abs(), f64::max) / expected[0]
}

fn golden() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/clap")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(golden().join("gradients.json")).unwrap()).unwrap()
}

fn open(folder: &Path) -> ClapCheckpoint {
    ClapCheckpoint::open(&locate(folder.to_str().unwrap(), None).unwrap()).unwrap()
}

fn compare(form: &str) {
    let (expected, device) = (expected(), Device::flex().autodiff());
    let clap = freeze_batch_statistics(open(&golden().join(form)).both(&device).unwrap());
    let (mel, ids, mask) = inputs(form == "fused", &device);
    for (objective, row) in expected[form].as_object().unwrap() {
        let pairs = clap.forward(mel.clone(), ids.clone(), mask.clone());
        let scales = [clap.audio_scale.val(), clap.text_scale.val()];
        let loss = objective.parse::<Objective>().unwrap().loss(&pairs, &scales, &targets(&device));
        let value = f64::from(loss.clone().into_scalar::<f32>());
        for reference in ["loss", "numpy"] {
            let expected = row[reference].as_f64().unwrap();
            assert!(
                (value - expected).abs() < 1e-5 * expected.abs().max(1.0),
                "{form} {objective}: {value}, {reference} {expected}"
            );
        }
        let gradients = loss.backward();
        let ours = named(&clap, Some(&gradients));
        let (error, at) = worst(&ours, &row["gradients"]);
        println!("{form:8} {objective:14} loss {value:.6}  {} gradients, worst {error:.1e} at {at}", ours.len());
        assert!(error < TOLERANCE, "{form} {objective}: {at} is {error:.1e} off");
    }
}

#[test]
fn gradients_are_pytorchs_of_a_fused_model() {
    compare("fused");
}

#[test]
fn gradients_are_pytorchs_of_an_unfused_model() {
    compare("unfused");
}

/// One pair after another in one batch, and what one step changes.
fn stepped(clap: Clap, optimizer: &mut Optimizer, step: u64, device: &Device) -> (Clap, f64) {
    let (mel, ids, mask) = inputs(true, device);
    let pairs = clap.forward(mel, ids, mask);
    let scales = [clap.audio_scale.val(), clap.text_scale.val()];
    let loss = "wsce+0.5*mae".parse::<Objective>().unwrap().loss(&pairs, &scales, &targets(device));
    let gradients = GradientsParams::from_grads(loss.backward(), &clap);
    optimizer.step(step, clap, gradients)
}

fn rates() -> LearningRates {
    LearningRates { peak: 1e-3, warm_up: 0, steps: 10, weight_decay: 0.01, clip: Some(1.0) }
}

#[test]
fn a_step_is_pytorchs() {
    let (expected, device) = (&expected()["step"], Device::flex().autodiff());
    let clap = freeze_batch_statistics(open(&golden().join("fused")).both(&device).unwrap());
    let before = named(&clap, None);
    let (after, gradient_length) = stepped(clap, &mut Optimizer::new(rates(), &[]).unwrap(), 0, &device);
    assert!((gradient_length / expected["length"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{gradient_length}");
    let mut changes = named(&after, None);
    for (name, values) in &mut changes {
        values.iter_mut().zip(&before[name]).for_each(|(after, before)| *after -= before);
    }
    let mut expected = expected["changes"].clone();
    // The first step of Adam is the sign of a gradient, also where that is nothing but rounding.
    expected.as_object_mut().unwrap().retain(|name, _| !name.ends_with("key.bias"));
    let (error, at) = worst(&changes, &expected);
    println!("a step of AdamW: worst {error:.1e} at {at}");
    // g / (|g| + 1e-8), so that an element whose gradient is 1e-8 changes by another twentieth when that is 1e-9 off, which is what
    // f32 leaves of gradients whose length is 1e-3; a tensor has some thirty elements.
    assert!(error < 2e-2, "{at} is {error:.1e} off");
    for name in before.keys().filter(|name| name.contains("running")) {
        assert!(changes[name].iter().all(|x| *x == 0.0), "{name} is a statistic");
    }
}

#[test]
fn a_run_that_was_interrupted_goes_on_as_if_it_had_not_been() {
    let (device, folder) = (Device::flex().autodiff(), tempfile::tempdir().unwrap());
    let checkpoint = open(&golden().join("fused"));
    let begin = || freeze_batch_statistics(checkpoint.both(&device).unwrap());
    let rates = || LearningRates { warm_up: 2, ..rates() };
    let groups = LayerRates { text: 0.5, layer_decay: 0.8 }.groups(4, 2);
    let (mut optimizer, mut clap) = (Optimizer::new(rates(), &groups).unwrap(), begin());
    let state = [folder.path().join("model"), folder.path().join("optimizer")];
    for step in 0..4 {
        if step == 2 {
            clap.clone().into_record().save(&state[0]).unwrap();
            optimizer.save(&state[1]).unwrap();
        }
        clap = stepped(clap, &mut optimizer, step, &device).0;
    }
    let mut resumed = begin().try_load_record(ModuleRecord::load(&state[0]).unwrap()).unwrap();
    let mut optimizer = Optimizer::new(rates(), &groups).unwrap().load(&state[1]).unwrap();
    for step in 2..4 {
        resumed = stepped(resumed, &mut optimizer, step, &device).0;
    }
    assert!(named(&clap, None) == named(&resumed, None), "bit for bit");
}

#[test]
fn what_was_trained_is_a_checkpoint_again() {
    let (device, folder) = (Device::flex().autodiff(), tempfile::tempdir().unwrap());
    let checkpoint = open(&golden().join("fused"));
    let clap = freeze_batch_statistics(checkpoint.both(&device).unwrap());
    let trained = stepped(clap, &mut Optimizer::new(rates(), &[]).unwrap(), 0, &device).0;
    save(&trained, &checkpoint, folder.path()).unwrap();
    let convert = open(folder.path()).both(&device).unwrap();
    assert!(named(&trained, None) == named(&convert, None), "bit for bit");
}
