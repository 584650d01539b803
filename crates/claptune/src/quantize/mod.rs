//! A network's linears in int8: rounded so that their outputs on calibration change least.
//!
//! ```text
//! calibration -> forward pass, observed -> Gram matrices -> factor -> round
//! ```
//!
//! The kernels quantise activations token by token, so calibration decides no range: it says which errors matter. The
//! pooler and the projection are not here: they see one vector where others see thousands of tokens whose errors
//! average out. In the audio tower nearly all of the activations' error comes from them, and in f32 they cost nothing.
//! Of the text tower, the vocabulary is rounded too, with a scale for each row.

pub mod calibration;
pub mod factor;
pub mod gram;
pub mod round;
pub mod rows;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::TensorData;

use self::gram::Grams;
use self::round::{ErrorMetric, Rounded};
use self::rows::Rows;
use super::net::htsat::{Htsat, HtsatConfig};
use super::net::observer::TextNetwork;

/// The path of the text tower's vocabulary.
pub const WORDS: &str = "bert.words.weight";

/// A linear of a network.
#[derive(Clone, Debug)]
pub struct Int8Linear {
    /// Where it is, as [`crate::checkpoint`] names it without `.weight`: `stages.0.blocks.1.attention.query`.
    pub path: String,
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// Integers, scales and what they cost.
    pub rounded: Rounded,
}

/// The linears of an audio tower's stages. `patches` are log-mels, row-major `[frames][mels]`; of a fused tower each is taken
/// four times, as a clip of one patch is.
///
/// # Errors
/// Calibration that is missing or overflows, or a patch of another size.
pub fn audio(network: &Htsat, config: &HtsatConfig, patches: &[Vec<f32>]) -> Result<Vec<Int8Linear>> {
    let mut grams = Grams::default();
    let shape = [1, config.input_channels(), config.frames, config.mels];
    for patch in patches {
        ensure!(
            patch.len() == config.frames * config.mels,
            "a calibration patch has {} numbers, the network takes {} x {}",
            patch.len(),
            config.frames,
            config.mels
        );
        let mel = TensorData::new(patch.repeat(config.input_channels()), shape);
        network.forward_observed(Tensor::from_data(mel, &Device::flex()), &mut |linears, x| grams.add(linears, x));
    }
    grams.finish();
    linears(network, &grams).context("audio tower")
}

/// The linears of a text tower's encoder. `texts` are token ids; each text is run alone, as the device does.
///
/// # Errors
/// As [`audio`].
pub fn text<M: TextNetwork>(network: &M, texts: &[Vec<i64>]) -> Result<Vec<Int8Linear>> {
    let mut grams = Grams::default();
    let device = Device::flex();
    for ids in texts {
        let shape = [1, ids.len()];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), shape), &device);
        network.forward_observed(ids, Tensor::ones(shape, &device), &mut |linears, x| grams.add(linears, x));
    }
    grams.finish();
    linears(network, &grams).context("text tower")
}

/// The text tower's vocabulary, `[tokens][width]`, a scale for each token.
///
/// # Errors
/// A network without one.
pub fn words<M: TextNetwork>(network: &M) -> Result<Rows> {
    let mut words = VocabularyVisitor(None, vec![]);
    network.visit(&mut words);
    words.0.with_context(|| format!("the text tower has no {WORDS}"))
}

/// Rounds every linear that was watched.
///
/// # Errors
/// No linear was watched, or a Gram matrix is not finite.
pub fn linears<M: Module>(network: &M, grams: &Grams) -> Result<Vec<Int8Linear>> {
    let mut rounding = LinearRounding { grams, path: vec![], metric: None, done: vec![], fault: None };
    network.visit(&mut rounding);
    if let Some(fault) = rounding.fault {
        return Err(fault);
    }
    ensure!(!rounding.done.is_empty(), "there is no calibration, so no linear can be rounded to int8");
    Ok(rounding.done)
}

/// A walk over the network.
struct LinearRounding<'a> {
    grams: &'a Grams,
    path: Vec<String>,
    /// Of the last group: query, key and value share it.
    metric: Option<(usize, ErrorMetric)>,
    done: Vec<Int8Linear>,
    fault: Option<anyhow::Error>,
}

impl LinearRounding<'_> {
    fn round<const D: usize>(&mut self, param: &Param<Tensor<D>>, group: usize) -> Result<()> {
        let dims = param.dims();
        let (inputs, outputs) = (dims[0], dims[1]);
        // Named without the parameter's own name.
        let path = self.path[..self.path.len() - 1].join(".");
        let weights: Vec<f32> = param.val().into_data().iter::<f32>().collect();
        if self.metric.as_ref().is_none_or(|(of, _)| *of != group) {
            self.metric = None;
            let gram = self.grams.mean(group).with_context(|| path.clone())?;
            self.metric = Some((group, ErrorMetric::new(&gram, inputs)));
        }
        if let Some((_, metric)) = &self.metric {
            self.done.push(Int8Linear { path, inputs, outputs, rounded: metric.round(&weights, outputs) });
        }
        Ok(())
    }

    fn group(&self, id: ParamId) -> Option<usize> {
        self.grams.group(id).filter(|_| self.fault.is_none())
    }
}

impl ModuleVisitor for LinearRounding<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(group) = self.group(param.id) {
            self.fault = self.round(param, group).err();
        }
    }
}

/// A walk to [`WORDS`]: what was found, and the path.
struct VocabularyVisitor(Option<Rows>, Vec<String>);

impl ModuleVisitor for VocabularyVisitor {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.1.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.1.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.1.join(".") == WORDS {
            let values: Vec<f32> = param.val().into_data().iter::<f32>().collect();
            self.0 = Some(rows::quantize(&values, param.dims()[1]));
        }
    }
}
