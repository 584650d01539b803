//! The common space of a `mini` bundle: out of its graphs into a network that can be trained, and back.
//!
//! What was not trained is written bit for bit as it was; weights in f16 hold what the device makes of 8 bits exactly,
//! so an untrained network gives the very bundle that it came from.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::model::ops::{self, Fused, OpParams};
use clapd_core::model::{Bundle, Compute};
use tract_onnx::prelude::{IntoRunnable, TypedModel, TypedRunnableModel, tensor1};

use super::space::linear;
use crate::export::{Precision, nnef};
use crate::net::captions::{CaptionNetwork, CaptionPool, CaptionText, CaptionTextStart, TrainedChange};

const POOL: &str = "clapd_caption_pool";
const TEXT: &str = "clapd_caption_text";

/// The two graphs that hold the space.
#[derive(Clone, Debug)]
pub struct SpaceGraphs {
    pool: TypedModel,
    text: TypedModel,
}

impl SpaceGraphs {
    /// Reads the graphs of a bundle.
    ///
    /// # Errors
    /// A file that can't be read, or a bundle of another kind.
    pub fn open(bundle: &Bundle) -> Result<Self> {
        let manifest = bundle.manifest();
        let name = || format!("{} in {}", manifest.name, bundle.dir().display());
        let read = |file: &str| -> Result<TypedModel> {
            let path = bundle.dir().join(file);
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let mut graph = nnef::read(&bytes).with_context(|| path.display().to_string())?;
            // tract's note of its version, which it adds whenever it writes.
            graph.properties.clear();
            Ok(graph)
        };
        let pool = manifest.pool.as_ref().with_context(|| {
            format!(
                "{}: a bundle of the kind {:?} can't be trained; mini's and ClapModel checkpoints can",
                name(),
                manifest.encoder
            )
        })?;
        let heads = Self { pool: read(&pool.file)?, text: read(&manifest.text.file)? };
        heads.pool().with_context(name)?;
        heads.text().with_context(name)?;
        Ok(heads)
    }

    fn pool(&self) -> Result<&OpParams> {
        parts(&self.pool, POOL)
    }

    fn text(&self) -> Result<&OpParams> {
        parts(&self.text, TEXT)
    }

    /// The network, nothing of it changed yet.
    ///
    /// # Errors
    /// Parts that are missing or out of bounds.
    pub fn network(&self, device: &Device) -> Result<CaptionNetwork> {
        let matrix =
            |(shape, values): ([usize; 2], Vec<f32>)| Tensor::<2>::from_data(TensorData::new(values, shape), device);
        let row = |values: &[f32]| matrix(([1, values.len()], values.to_vec()));
        let number = |parts: &OpParams, name: &str, most: f32| {
            Ok::<_, anyhow::Error>(row(&[parts.real(name, f32::MIN_POSITIVE, most)?]))
        };
        let (pool, text) = (self.pool()?, self.text()?);
        let table = |parts: &OpParams, name: &str| -> Result<Vec<f32>> {
            Ok(parts.floats(name, parts.tensor(name)?.len())?.to_vec())
        };
        let captions: Vec<usize> = table(text, "captions")?.iter().map(|count| *count as usize).collect();
        let backgrounds = matrix(pool.weights("backgrounds")?);
        let count = backgrounds.dims()[0];
        let pool = CaptionPool {
            exponent: TrainedChange::new(number(pool, "exponent", 16.0)?),
            class_weight: TrainedChange::new(row(&table(pool, "class_weight")?)),
            centres: TrainedChange::new(matrix(pool.weights("centres")?)),
            class_share: TrainedChange::new(number(pool, "class_share", 1.0)?),
            kappa: TrainedChange::new(number(pool, "kappa", 1e6)?),
            background_weight: TrainedChange::new(number(pool, "background_weight", 1e6)?),
            backgrounds,
            probability_min: pool.real("probability_min", f32::MIN_POSITIVE, 1.0)?,
            background_cosine: pool.real("background_cosine", 0.0, 0.999)?,
        };
        let text = CaptionTextStart {
            whitening: matrix(text.weights("whitening")?),
            keys: matrix(text.weights("keys")?),
            exponent: number(text, "exponent", 16.0)?,
            class_share: number(text, "class_share", 1.0)?,
            null: number(text, "null", 1.0)?,
            mean: row(&table(text, "mean")?),
            captions,
            backgrounds: count,
        };
        Ok(CaptionNetwork::new(pool, CaptionText::new(text)))
    }

    /// The graphs of the pool and of the text tower with a network's numbers in them.
    ///
    /// # Errors
    /// A number beyond what its precision, or the device, allows.
    pub fn with(&self, net: &CaptionNetwork, precision: Precision) -> Result<[TypedModel; 2]> {
        let (mut pool, mut text) = (self.pool()?.clone(), self.text()?.clone());
        let real = |parts: &mut OpParams, name: &str, value: Tensor<2>| -> Result<()> {
            parts.set_real(name, values(value)?[0]);
            Ok(())
        };
        let weights = |parts: &mut OpParams, name: &str, value: Tensor<2>| -> Result<()> {
            let (rows, value) = (value.dims()[0], values(value)?);
            let scale = format!("{name}_scale");
            // What is in 8 bits and was not trained must not be rounded again.
            let stays = precision == Precision::Int8 && parts.tensor(&scale).is_ok() && parts.weights(name)?.1 == value;
            if !stays {
                parts.remove_tensor(&scale);
                linear(parts, name, rows, &value, precision)?;
            }
            Ok(())
        };
        let (audio, words) = (&net.audio, &net.text);
        real(&mut pool, "exponent", audio.exponent.product())?;
        real(&mut pool, "class_share", audio.class_share.share())?;
        real(&mut pool, "kappa", audio.kappa.product())?;
        real(&mut pool, "background_weight", audio.background_weight.product())?;
        pool.set_tensor("class_weight", tensor1(&values(audio.class_weight.product())?));
        weights(&mut pool, "centres", audio.centres.sum())?;
        real(&mut text, "exponent", words.exponent.product())?;
        real(&mut text, "class_share", words.class_share.share())?;
        real(&mut text, "null", words.null.share())?;
        weights(&mut text, "whitening", words.whitening.sum())?;
        weights(&mut text, "keys", words.keys.turned())?;
        Ok([replaced(self.pool.clone(), pool)?, replaced(self.text.clone(), text)?])
    }

    /// MiniLM alone: ids and mask `[1, S]` to hidden states `[1, S, width]`, ready to run.
    ///
    /// # Errors
    /// A graph that can't be run.
    pub fn sentences(&self) -> Result<Arc<TypedRunnableModel>> {
        let mut graph = self.text.clone();
        let hidden = graph.nodes[place(&graph, TEXT)?].inputs[0];
        graph.select_output_outlets(&[hidden])?;
        let mut graph = graph.into_optimized()?;
        ops::pack(&mut graph, Compute::default())?;
        graph.into_runnable()
    }
}

/// The only operator of that kind.
fn place(graph: &TypedModel, kind: &str) -> Result<usize> {
    let is_it = |node: &&_| parts_of(node).is_some_and(|parts| parts.spec().name == kind);
    let found: Vec<usize> = graph.nodes.iter().filter(is_it).map(|node| node.id).collect();
    ensure!(found.len() == 1, "a graph has {} operators {kind}; a mini bundle's have one", found.len());
    Ok(found[0])
}

fn parts_of(node: &tract_onnx::prelude::TypedNode) -> Option<&OpParams> {
    node.op_as::<Fused>().and_then(Fused::params)
}

fn parts<'a>(graph: &'a TypedModel, kind: &str) -> Result<&'a OpParams> {
    parts_of(&graph.nodes[place(graph, kind)?]).with_context(|| format!("{kind} has no parts"))
}

fn replaced(mut graph: TypedModel, parts: OpParams) -> Result<TypedModel> {
    let place = place(&graph, parts.spec().name)?;
    graph.nodes[place].op = Box::new(Fused::new(parts)?);
    Ok(graph)
}

fn values(tensor: Tensor<2>) -> Result<Vec<f32>> {
    let values = tensor.into_data().try_to_vec::<f32>().map_err(|error| anyhow!("{error:?}"))?;
    let bad = values.iter().find(|x| !x.is_finite());
    ensure!(bad.is_none(), "training ended with a {}; a lower --rate may help", bad.copied().unwrap_or_default());
    Ok(values)
}
