//! A CLAP checkpoint: configuration, weights, front end and tokenizer, checked against each other.
//!
//! In: the folder of a `ClapModel` and, where it is another one, of its processor. Out: [`ClapCheckpoint`], which gives the
//! towers one at a time, so that only one is in memory.
//! Never: reads a weight before the shapes of all are known to be right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use sha2::{Digest, Sha256};

use super::clap_config::{self, ClapConfig, MAX_CONFIG, MAX_TOKENS};
use super::clap_names::{Target, is_transposed, target};
use super::stored::{self, Inventory, Stored};
use super::{Weight, fill, processor, refuse};
use crate::clap::Tokenizer;
use crate::dsp::FrontendSpec;
use crate::tune::net::htsat::Htsat;
use crate::tune::net::roberta::Roberta;

/// The path of the one table that is cut: positions that no text reaches need no place in a bundle.
const POSITIONS: &str = "bert.positions";

/// Where a checkpoint's parts are.
#[derive(Clone, Debug)]
pub struct Source {
    /// What the user named: for people and for the bundle's record.
    pub name: String,
    /// The commit of a repository; empty for a folder.
    pub version: String,
    /// The folder with config.json and weights.
    pub folder: PathBuf,
    /// The folder with preprocessor_config.json, and perhaps a tokenizer.
    pub processor: PathBuf,
}

/// A tower's tensors by our paths, each with the name in its file.
type Tower = BTreeMap<String, (String, Stored)>;

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
    audio: Tower,
    text: Tower,
}

impl ClapCheckpoint {
    /// Opens a checkpoint.
    ///
    /// # Errors
    /// Names the file at fault; of keys and of tensors, all that are wrong.
    pub fn open(source: &Source) -> Result<Self> {
        let folder = &source.folder;
        let (frontend, fused_features) = processor::frontend(&source.processor)?;
        let path = folder.join("config.json");
        let text = stored::read_text(&path, MAX_CONFIG)?;
        let config = clap_config::parse(&text, frontend.patch_frames, frontend.mel_bins)
            .with_context(|| format!("{} is at fault", path.display()))?;
        let fused = config.audio.fusion.is_some();
        ensure!(
            fused == fused_features,
            "audio_config.enable_fusion is {fused}, but the processor's truncation is for {} model; name its own \
             processor with --processor",
            if fused_features { "a fused" } else { "an unfused" }
        );
        let (inventory, files) = stored::open_folder(folder)?;
        let mut faults = vec![];
        let (audio, text) = sort(inventory, &mut faults);
        let device = Device::flex();
        compare(&config.audio.init(&device), &audio, &config, &mut faults);
        compare(&config.text.init(&device), &text, &config, &mut faults);
        refuse(&faults).with_context(|| folder.display().to_string())?;
        let folders: &[&Path] = &[folder, &source.processor];
        let tokenizer = processor::tokenizer(folders, config.text.bert.vocabulary, config.pad_id)?;
        Tokenizer::new(&tokenizer, MAX_TOKENS).context("the tokenizer can't be used")?;
        Ok(Self { config, frontend, tokenizer, files, audio, text })
    }

    /// Reads the audio tower.
    ///
    /// # Errors
    /// A file that can't be read, or lists the tensors whose values are not finite.
    pub fn audio(&self, device: &Device) -> Result<Htsat> {
        self.load(self.config.audio.init(device), &self.audio)
    }

    /// Reads the text tower.
    ///
    /// # Errors
    /// As [`audio`](Self::audio).
    pub fn text(&self, device: &Device) -> Result<Roberta> {
        self.load(self.config.text.init(device), &self.text)
    }

    fn load<M: Module>(&self, module: M, tower: &Tower) -> Result<M> {
        let mut faults = vec![];
        let fetch = |path: &str| -> Result<Option<Weight>> {
            let Some((name, stored)) = tower.get(path) else { return Ok(None) };
            let mut weight = stored.read().with_context(|| name.clone())?;
            if path == POSITIONS {
                let [rows, width] = [self.config.text.bert.positions, self.config.text.bert.width];
                weight.values.truncate(rows * width);
                weight.shape = vec![rows, width];
            }
            Ok(Some(if is_transposed(path, weight.shape.len()) { weight.transposed() } else { weight }))
        };
        let module = fill(module, fetch, &mut faults);
        refuse(&faults)?;
        Ok(module)
    }

    /// The tokenizer, cut to the model's length.
    ///
    /// # Errors
    /// None for an opened checkpoint: it was tried.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::new(&self.tokenizer, MAX_TOKENS)
    }

    /// Parameters of both towers.
    pub fn bytes(&self) -> Result<u64> {
        self.files.iter().map(|f| Ok(f.metadata()?.len())).sum()
    }

    /// SHA-256 over the weights' files, in order, in hex; `progress` gets the bytes as they are read.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn sha256(&self, mut progress: impl FnMut(u64)) -> Result<String> {
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
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// Tensors into towers; what belongs to none is a fault.
fn sort(inventory: Inventory, faults: &mut Vec<String>) -> (Tower, Tower) {
    let (mut audio, mut text) = (Tower::new(), Tower::new());
    for (name, stored) in inventory {
        match target(&name) {
            Target::Audio(path) => drop(audio.insert(path, (name, stored))),
            Target::Text(path) => drop(text.insert(path, (name, stored))),
            Target::Unused => {}
            Target::Unknown => faults.push(format!("extra    {name} {:?}", stored.shape)),
        }
    }
    if audio.is_empty() || text.is_empty() {
        let lost = if audio.is_empty() { "audio" } else { "text" };
        faults.insert(0, format!("there is no {lost} tower in it; a CLAP has both"));
    }
    (audio, text)
}

/// Compares a tower's tensors with what the network has, by name, shape and type.
fn compare<M: Module>(module: &M, tower: &Tower, config: &ClapConfig, faults: &mut Vec<String>) {
    let mut wanted = Shapes::default();
    module.visit(&mut wanted);
    for (path, shape) in &wanted.shapes {
        let Some((name, stored)) = tower.get(path) else {
            faults.push(format!("missing  {path} {shape:?}"));
            continue;
        };
        let mut shape = shape.clone();
        if path == POSITIONS {
            shape[0] = config.positions;
        }
        if is_transposed(path, shape.len()) {
            shape.reverse();
        }
        if stored.shape != shape {
            faults.push(format!("shape    {name} is {:?}, config.json makes it {shape:?}", stored.shape));
        } else if !stored.is_float() {
            faults.push(format!("type     {name} holds integers; weights are f32, f16 or bf16"));
        }
    }
    for (path, (name, stored)) in tower {
        if !wanted.shapes.contains_key(path) {
            faults.push(format!("extra    {name} {:?}", stored.shape));
        }
    }
}

/// The shape of every float parameter by its path.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Shapes {
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

/// What the user named.
///
/// # Errors
/// A name that is no folder here.
pub fn locate(name: &str, processor: Option<&str>) -> Result<Source> {
    let local = |name: &str| -> Result<PathBuf> {
        let folder = PathBuf::from(name);
        ensure!(
            folder.is_dir(),
            "{name} is no folder. claptune fetches nothing itself: download the repository (config.json, \
             preprocessor_config.json, the weights and the tokenizer's files) into a folder and name that"
        );
        Ok(folder)
    };
    let folder = local(name)?;
    let processor = processor.map_or_else(|| Ok(folder.clone()), local)?;
    Ok(Source { name: name.into(), version: String::new(), folder, processor })
}
