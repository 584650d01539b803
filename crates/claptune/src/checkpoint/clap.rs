//! A CLAP checkpoint: configuration, weights, front end and tokenizer, checked against each other.
//!
//! It is the folder of a `ClapModel` or LAION's `.pt` and, where it is another one, the folder of its processor.
//! [`ClapCheckpoint`] gives the towers one at a time, so that only one is in memory, and reads no weight before the
//! shapes of all are known to be right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::dsp::FrontendSpec;
use clapd_core::files::hexadecimal;
use clapd_core::model::Tokenizer;
use sha2::{Digest, Sha256};

use super::clap_config::{self, ClapConfig, MAX_CONFIG, MAX_TOKENS};
use super::clap_names::{Naming, TensorLocation, Tower, is_transposed};
use super::source::CheckpointSource;
use super::stored_tensor::{self, Inventory, StoredTensor};
use super::weights::{Weight, fail_on_faults, load_parameters};
use super::{laion, processor};
use crate::net::clap::Clap;
use crate::net::htsat::Htsat;
use crate::net::roberta::Roberta;

/// The path of the one table that is cut: positions that no text reaches need no place in a bundle.
const POSITIONS: &str = "bert.positions";

/// A checked checkpoint whose weights are still in their files.
pub struct ClapCheckpoint {
    /// Both towers' sizes.
    pub config: ClapConfig,
    /// From samples to mel.
    pub frontend: FrontendSpec,
    /// A tokenizer.json.
    pub tokenizer: Vec<u8>,
    /// The weights' files, in order.
    pub files: Vec<PathBuf>,
    inventory: Inventory,
    naming: Naming,
    /// A config.json, and the folder with the processor's files.
    companions: (String, PathBuf),
}

impl ClapCheckpoint {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// Names the file at fault; of keys and of tensors, all that are wrong.
    pub fn open(source: &CheckpointSource) -> Result<Self> {
        let CheckpointSource { weights, processor, .. } = source;
        let (frontend, fused_features) = processor::frontend(processor)?;
        let parsed = |text: &str, says: &str| {
            clap_config::parse(text, frontend.patch_frames, frontend.mel_bins)
                .with_context(|| format!("{says} is at fault"))
        };
        let says;
        let (config, text, naming, inventory, files) = if weights.is_file() {
            says = format!("what the tensors of {} say of its sizes", weights.display());
            let (inventory, naming) = laion::open(weights)?;
            let text = has_both(&inventory, &naming).and_then(|()| laion::config(&inventory, &naming, processor));
            let text = text.with_context(|| weights.display().to_string())?;
            (parsed(&text, &says)?, text, naming, inventory, vec![weights.clone()])
        } else {
            let path = weights.join("config.json");
            says = path.display().to_string();
            let text = stored_tensor::read_text(&path, MAX_CONFIG);
            let text = text.context("a checkpoint is a folder that ClapModel.save_pretrained wrote, or LAION's .pt")?;
            let config = parsed(&text, &says)?;
            let (inventory, files) = stored_tensor::open_folder(weights)?;
            (config, text, Naming::Transformers, inventory, files)
        };
        let fused = config.audio.fusion.is_some();
        ensure!(
            fused == fused_features,
            "{says} makes the model {} (enable_fusion is {fused}), but the truncation in {} is for {} model; name its own \
             processor with --processor",
            if fused { "a fused one" } else { "an unfused one" },
            processor.display(),
            if fused_features { "a fused" } else { "an unfused" }
        );
        let faults = compare(&inventory, &naming, &config);
        fail_on_faults(&faults).with_context(|| weights.display().to_string())?;
        let apart = weights.is_dir() && weights != processor;
        let folders: &[&Path] = if apart { &[weights, processor] } else { &[processor] };
        let tokenizer = processor::tokenizer(folders, config.text.bert.vocabulary, config.pad_id)?;
        Tokenizer::new(&tokenizer, MAX_TOKENS).context("the tokenizer can't be used")?;
        let companions = (text, processor.clone());
        Ok(Self { config, frontend, tokenizer, files, inventory, naming, companions })
    }

    /// Reads the audio tower.
    ///
    /// # Errors
    /// A file that can't be read, or lists the tensors whose values are not finite.
    pub fn audio(&self, device: &Device) -> Result<Htsat> {
        self.load(Tower::Audio, self.config.audio.init(device))
    }

    /// Reads the text tower.
    ///
    /// # Errors
    /// As [`audio`](Self::audio).
    pub fn text(&self, device: &Device) -> Result<Roberta> {
        self.load(Tower::Text, self.config.text.init(device))
    }

    /// Reads both towers and the temperatures, to be trained: on an autodiff device.
    ///
    /// # Errors
    /// As [`audio`](Self::audio).
    pub fn both(&self, device: &Device) -> Result<Clap> {
        let mut clap = Clap {
            audio: self.audio(device)?,
            text: self.text(device)?,
            ..Clap::init(&self.config.audio, &self.config.text, device)
        };
        // A checkpoint without temperatures was not kept for training: it begins where CLAP's training began.
        for (tower, scale) in [(Tower::Audio, &mut clap.audio_scale), (Tower::Text, &mut clap.text_scale)] {
            if let Some(stored) = self.inventory.get(&self.naming.temperature(tower)) {
                let value = stored.read()?.values;
                *scale = Param::from_tensor(Tensor::from_data(TensorData::new(value, [1]), device));
            }
        }
        Ok(clap)
    }

    fn load<M: Module>(&self, tower: Tower, module: M) -> Result<M> {
        let mut faults = vec![];
        let fetch = |path: &str, shape: &[usize]| {
            let place = self.naming.location(tower, path);
            let weight = self.read(path, &place).map_err(|e| format!("read     {}: {e:#}", place.name))?;
            weight.check(&place.name, shape)
        };
        let module = load_parameters(module, fetch, &mut faults);
        fail_on_faults(&faults)?;
        Ok(module)
    }

    /// One tensor by the path that the networks have for it, a linear's weight as [out, in].
    ///
    /// # Errors
    /// A tensor that is not there, can't be read, or has a value that is not finite.
    pub fn weight(&self, tower: Tower, path: &str) -> Result<Weight> {
        let place = self.naming.location(tower, path);
        let weight = self.stored(path, &place).with_context(|| format!("reading {}", place.name))?;
        let shape = weight.shape.clone();
        weight.check(&place.name, &shape).or_else(|fault| {
            fail_on_faults(&[fault])?;
            bail!("{} can't be used", place.name)
        })
    }

    /// One tensor, as the network has it.
    fn read(&self, path: &str, place: &TensorLocation) -> Result<Weight> {
        let weight = self.stored(path, place)?;
        Ok(if is_transposed(path, weight.shape.len()) { weight.transposed() } else { weight })
    }

    /// One tensor, as its file has it: query, key and value apart, and positions that no text reaches cut off.
    fn stored(&self, path: &str, place: &TensorLocation) -> Result<Weight> {
        let mut weight = self.inventory.get(&place.name).context("it is not there any more")?.read()?;
        if let Some(third) = place.third {
            let length = weight.values.len() / 3;
            weight.values = weight.values[third * length..][..length].to_vec();
            weight.shape[0] /= 3;
        }
        if path == POSITIONS {
            let [rows, width] = [self.config.text.bert.positions, self.config.text.bert.width];
            weight.values.truncate(rows * width);
            weight.shape = vec![rows, width];
        }
        Ok(weight)
    }

    /// A tensor of the network as its file has it, with the rows that the network does without.
    ///
    /// # Errors
    /// A file that can't be read any more.
    pub fn with_unread(&self, tower: Tower, path: &str, mut weight: Weight) -> Result<Weight> {
        if (tower, path) == (Tower::Text, POSITIONS) {
            let place = self.naming.location(tower, path);
            let whole = self.inventory.get(&place.name).context("it is not there any more")?.read()?;
            weight.values.extend(whole.values.into_iter().skip(weight.values.len()));
            weight.shape = whole.shape;
        }
        Ok(weight)
    }

    /// Writes to `out` what a `ClapModel` has beside its weights: config.json, tokenizer.json, preprocessor_config.json.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    pub fn write_companions(&self, out: &Path) -> Result<()> {
        let (config, processor) = &self.companions;
        let name = "preprocessor_config.json";
        let preprocessor = std::fs::read(processor.join(name)).with_context(|| format!("reading {name}"))?;
        for (name, bytes) in
            [("config.json", config.as_bytes()), ("tokenizer.json", &self.tokenizer), (name, &preprocessor)]
        {
            std::fs::write(out.join(name), bytes).with_context(|| format!("writing {}", out.join(name).display()))?;
        }
        Ok(())
    }

    /// The tokenizer, cut to the model's length.
    ///
    /// # Errors
    /// None for an opened checkpoint: it was tried.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::new(&self.tokenizer, MAX_TOKENS)
    }

    /// Size of the weights' files.
    pub fn bytes(&self) -> Result<u64> {
        self.files.iter().map(|f| Ok(f.metadata()?.len())).sum()
    }

    /// SHA-256 over the weights' files, in order, in hex; `progress` gets the bytes as they are read.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn sha256(&self, mut progress: impl FnMut(u64)) -> Result<String> {
        // One hash over all shards; core's HashingReader has one a file.
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        for path in &self.files {
            let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            loop {
                let length = file.read(&mut block).with_context(|| format!("reading {}", path.display()))?;
                if length == 0 {
                    break;
                }
                hash.update(&block[..length]);
                progress(length as u64);
            }
        }
        Ok(hexadecimal(&hash.finalize()))
    }
}

/// A checkpoint of one tower has a fault of its own; a list of all that the other one lacks would hide it.
fn has_both(inventory: &Inventory, naming: &Naming) -> Result<()> {
    for tower in [Tower::Audio, Tower::Text] {
        ensure!(
            inventory.keys().any(|name| naming.is_of(tower, name)),
            "there is no {} tower in it; a CLAP has both",
            tower.name()
        );
    }
    Ok(())
}

/// Compares the tensors with what the networks have, by name, shape and type: all that is wrong, under the file's names.
fn compare(inventory: &Inventory, naming: &Naming, config: &ClapConfig) -> Vec<String> {
    if let Err(error) = has_both(inventory, naming) {
        return vec![error.to_string()];
    }
    let device = Device::flex();
    let (mut audio, mut text) = (ShapeCollector::default(), ShapeCollector::default());
    config.audio.init(&device).visit(&mut audio);
    config.text.init(&device).visit(&mut text);
    let expected = [(Tower::Audio, audio.shapes), (Tower::Text, text.shapes)];
    let (mut faults, mut read) = (vec![], BTreeSet::new());
    for (tower, (path, shape)) in expected.iter().flat_map(|(tower, shapes)| shapes.iter().map(move |s| (*tower, s))) {
        let place = naming.location(tower, path);
        let shape = in_file(path, shape, &place, config);
        // Query, key and value can be one tensor.
        if read.insert(place.name.clone()) {
            faults.extend(fault(&place.name, &shape, inventory.get(&place.name)));
        }
    }
    for (name, stored) in inventory {
        if !read.contains(name) && !naming.is_unused(name) {
            faults.push(format!("extra    {name} {:?}", stored.shape));
        }
    }
    faults
}

/// The shape that the file has for one of the network's.
fn in_file(path: &str, shape: &[usize], place: &TensorLocation, config: &ClapConfig) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if path == POSITIONS {
        shape[0] = config.positions;
    }
    if is_transposed(path, shape.len()) {
        shape.reverse();
    }
    if place.third.is_some() {
        shape[0] *= 3;
    }
    shape
}

fn fault(name: &str, shape: &[usize], stored: Option<&StoredTensor>) -> Option<String> {
    match stored {
        None => Some(format!("missing  {name} {shape:?}")),
        Some(s) if s.shape != shape => Some(format!("shape    {name} is {:?}, the sizes make it {shape:?}", s.shape)),
        Some(s) if !s.is_float() => Some(format!("type     {name} holds integers; weights are f32, f16 or bf16")),
        Some(_) => None,
    }
}

/// The shape of every float parameter by its path.
#[derive(Default)]
struct ShapeCollector {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for ShapeCollector {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // The shape alone: a parameter that is not initialised yet takes no memory.
        self.shapes.insert(self.path.join("."), param.lazy_shape().to_vec());
    }
}
