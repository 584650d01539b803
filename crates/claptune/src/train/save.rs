//! A trained CLAP as a checkpoint that `transformers`, and `claptune import`, read.
//!
//! What was not trained is what it was: rows of the position table that no text reaches are those of the beginning.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use crate::checkpoint::Weight;
use crate::checkpoint::clap::ClapCheckpoint;
use crate::checkpoint::clap_names::{Naming, Tower, is_transposed};
use crate::net::clap::Clap;

/// Writes `model`, which began as `checkpoint`, to the folder `out`.
///
/// # Errors
/// A disk that is full or read-only, a checkpoint that can't be read any more.
pub fn save(model: &Clap, checkpoint: &ClapCheckpoint, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let mut named = Named { path: vec![], checkpoint, tensors: BTreeMap::new(), outcome: Ok(()) };
    model.visit(&mut named);
    named.outcome?;
    let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = named
        .tensors
        .into_iter()
        .map(|(name, Weight { shape, values })| (name, (shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let path = out.join("model.safetensors");
    // PyTorch's readers ask for this word.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(views, Some(metadata), &path)
        .with_context(|| format!("writing {}", path.display()))?;
    checkpoint.write_companions(out)
}

/// Every parameter under its name in a `ClapModel`, as PyTorch keeps it.
struct Named<'a> {
    path: Vec<String>,
    checkpoint: &'a ClapCheckpoint,
    tensors: BTreeMap<String, Weight>,
    outcome: Result<()>,
}

impl Named<'_> {
    fn named(&self, path: &str, weight: Weight) -> Result<(String, Weight)> {
        let (tower, inside) = match path.split_once('.') {
            Some(("audio", inside)) => (Tower::Audio, inside),
            Some(("text", inside)) => (Tower::Text, inside),
            _ => {
                let tower = if path == "audio_scale" { Tower::Audio } else { Tower::Text };
                // A number, not a list of one.
                return Ok((Naming::Transformers.temperature(tower), Weight { shape: vec![], ..weight }));
            }
        };
        let rank = weight.shape.len();
        let weight = if is_transposed(inside, rank) { weight.transposed() } else { weight };
        Ok((Naming::Transformers.location(tower, inside).name, self.checkpoint.with_unread(tower, inside, weight)?))
    }
}

impl ModuleVisitor for Named<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let shape = param.dims().to_vec();
        let values = param.val().into_data().try_to_vec::<f32>().map_err(|error| anyhow!("{path}: {error:?}"));
        match values.and_then(|values| self.named(&path, Weight { shape, values })) {
            Ok((name, weight)) => drop(self.tensors.insert(name, weight)),
            Err(error) if self.outcome.is_ok() => self.outcome = Err(error),
            Err(_) => {}
        }
    }
}
