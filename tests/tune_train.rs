//! Losses and gradients are PyTorch's. Expectations: tests/golden/clap/make_gradients.py.
#![cfg(feature = "tune")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{Gradients, TensorData};
use clapd::tune::checkpoint::Weight;
use clapd::tune::checkpoint::clap::ClapCheckpoint;
use clapd::tune::checkpoint::clap_names::{Naming, Tower, is_transposed};
use clapd::tune::checkpoint::source::locate;
use clapd::tune::net::clap::Clap;
use clapd::tune::train::objective::{Objective, Opinions, Spread};
use clapd::tune::train::still_statistics;
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

fn opinions(device: &Device) -> Opinions {
    Opinions {
        rating: Tensor::from_floats([0.9, 0.25, 0.0, 0.625], device),
        z_score: Tensor::from_floats([1.1, -0.7, -1.6, 0.3], device),
        spread: Spread { mean: 5.5, deviation: 2.75 },
    }
}

/// Compares every parameter's gradient with what PyTorch told of it.
struct Comparison<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    expected: &'a Value,
    /// The largest norm.
    largest: f64,
    compared: usize,
    worst: (f64, String),
}

impl ModuleVisitor for Comparison<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let ours = self.path.join(".");
        let name = name(&ours);
        let Some(expected) = self.expected.get(&name) else { return };
        let gradient = param.val().grad(self.gradients);
        let values =
            gradient.unwrap_or_else(|| panic!("{name} has no gradient")).into_data().try_to_vec::<f32>().unwrap();
        let inside = ours.split_once('.').map_or("", |(_, inside)| inside);
        let mut weight = Weight { shape: param.dims().to_vec(), values };
        if is_transposed(inside, D) {
            weight = weight.transposed();
        }
        let error = error(&weight.values, expected, NOTHING * self.largest);
        if error > self.worst.0 {
            self.worst = (error, name);
        }
        self.compared += 1;
    }
}

/// PyTorch's name of a parameter.
fn name(ours: &str) -> String {
    match ours.split_once('.') {
        Some(("audio", path)) => Naming::Transformers.place(Tower::Audio, path).name,
        Some((_, path)) => Naming::Transformers.place(Tower::Text, path).name,
        None => Naming::Transformers.temperature(if ours == "audio_scale" { Tower::Audio } else { Tower::Text }),
    }
}

/// How far norm and waves are from what was told, over the norm; where that is below `nothing`, ours must be. (A wave's own length is the root of half as many elements.)
fn error(values: &[f32], told: &Value, nothing: f64) -> f64 {
    let told: Vec<f64> = told.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if told[0] < nothing {
        return if norm < nothing { 0.0 } else { f64::INFINITY };
    }
    let waves = (1..=3).map(|k| {
        let wave = |i: usize| ((0.7 * k as f64 + 0.3) * i as f64 + k as f64).cos();
        let dot: f64 = values.iter().enumerate().map(|(i, x)| f64::from(*x) * wave(i)).sum();
        (dot - told[k]).abs() / (values.len() as f64 / 2.0).sqrt()
    });
    waves.fold((norm - told[0]).abs(), f64::max) / told[0]
}

fn compare(form: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clap");
    let expected: Value = serde_json::from_slice(&std::fs::read(golden.join("gradients.json")).unwrap()).unwrap();
    let device = Device::flex().autodiff();
    let checkpoint = ClapCheckpoint::open(&locate(golden.join(form).to_str().unwrap(), None).unwrap()).unwrap();
    let clap: Clap = still_statistics(checkpoint.both(&device).unwrap());
    let (mel, ids, mask) = inputs(form == "fused", &device);
    for (objective, row) in expected[form].as_object().unwrap() {
        let pairs = clap.forward(mel.clone(), ids.clone(), mask.clone());
        let scales = [clap.audio_scale.val(), clap.text_scale.val()];
        let loss = objective.parse::<Objective>().unwrap().loss(&pairs, scales, &opinions(&device));
        let value = f64::from(loss.clone().into_scalar::<f32>());
        for reference in ["loss", "numpy"] {
            let told = row[reference].as_f64().unwrap();
            assert!(
                (value - told).abs() < 1e-5 * told.abs().max(1.0),
                "{form} {objective}: {value}, {reference} {told}"
            );
        }
        let gradients = loss.backward();
        let told = row["gradients"].as_object().unwrap();
        let largest = told.values().map(|told| told[0].as_f64().unwrap()).fold(0.0, f64::max);
        let mut comparison = Comparison {
            path: vec![],
            gradients: &gradients,
            expected: &row["gradients"],
            largest,
            compared: 0,
            worst: Default::default(),
        };
        clap.visit(&mut comparison);
        let Comparison { compared, worst: (error, at), .. } = comparison;
        println!("{form:8} {objective:14} loss {value:.6}  {compared} gradients, worst {error:.1e} at {at}");
        assert_eq!(compared, told.len(), "every parameter of PyTorch's is one of ours");
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
