//! Tensors that are still in their files: safetensors (one file, or the shards of an index) or a PyTorch file.
//!
//! Names and shapes are read at once, the values of one tensor at a time and as f32, so that a large checkpoint is
//! never in memory whole. A length that a file states is checked against the file before anything of that size is made,
//! and of a pickle only tensors are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;

use super::weights::{Weight, Weights};

/// A CLAP's header has 70 KB; the safetensors crate itself allows 100 MB.
const MAX_HEADER: u64 = 16 << 20;
/// An index names each tensor once: 50 KB for a CLAP.
const MAX_INDEX: u64 = 16 << 20;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredType {
    F32,
    F16,
    Bf16,
}

impl StoredType {
    fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.chunks_exact(2).map(|c| [c[0], c[1]]);
        match self {
            Self::F32 => bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
            Self::F16 => pairs.map(|c| f16::from_le_bytes(c).to_f32()).collect(),
            Self::Bf16 => pairs.map(|c| bf16::from_le_bytes(c).to_f32()).collect(),
        }
    }
}

enum Storage {
    Bytes { file: PathBuf, begin: u64, length: u64 },
    Pickled(pytorch_reader::Tensor),
}

/// One tensor in a file.
pub struct StoredTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// None where its type is none of f32, f16 and bf16: a counter or an index.
    number: Option<StoredType>,
    place: Storage,
}

impl StoredTensor {
    /// Whether its values can be read as weights.
    pub fn is_float(&self) -> bool {
        self.number.is_some()
    }

    /// Reads the values.
    ///
    /// # Errors
    /// A file that can't be read (any more), or a tensor of integers.
    pub fn read(&self) -> Result<Weight> {
        let number = self.number.context("it holds integers; weights are f32, f16 or bf16")?;
        let values = match &self.place {
            Storage::Pickled(tensor) => number.widen(&tensor.read()?),
            Storage::Bytes { file, begin, length } => {
                let mut reader = File::open(file).with_context(|| format!("opening {}", file.display()))?;
                reader.seek(SeekFrom::Start(*begin))?;
                let mut bytes = vec![0; usize::try_from(*length)?];
                reader.read_exact(&mut bytes).with_context(|| format!("reading {}", file.display()))?;
                number.widen(&bytes)
            }
        };
        Ok(Weight { shape: self.shape.clone(), values })
    }
}

/// Tensors by the names of their files.
pub type Inventory = BTreeMap<String, StoredTensor>;

/// Reads all tensors of a small file but those that `skip` names (buffers that are no weights).
///
/// # Errors
/// A file that can't be read (any more), or a tensor of integers, with its name.
pub fn read_all(inventory: &Inventory, skip: impl Fn(&str) -> bool) -> Result<Weights> {
    let mut weights = Weights::default();
    for (name, stored) in inventory.iter().filter(|(name, _)| !skip(name)) {
        weights.insert(name, stored.read().with_context(|| format!("the tensor {name}"))?);
    }
    Ok(weights)
}

/// Opens the weights of a folder as `save_pretrained` writes it, one file or shards; also says which files they are in.
///
/// # Errors
/// A folder without weights, or weights that are damaged.
pub fn open_folder(folder: &Path) -> Result<(Inventory, Vec<PathBuf>)> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    let pickle = folder.join("pytorch_model.bin");
    if single.is_file() {
        Ok((open_safetensors(&single)?, vec![single]))
    } else if index.is_file() {
        open_shards(folder, &index)
    } else if pickle.is_file() {
        Ok((open_pytorch(&pickle)?, vec![pickle]))
    } else {
        bail!(
            "{} holds no weights: none of model.safetensors, model.safetensors.index.json and pytorch_model.bin",
            folder.display()
        )
    }
}

fn open_shards(folder: &Path, index: &Path) -> Result<(Inventory, Vec<PathBuf>)> {
    let map = read_index(index)?;
    let mut inventory = Inventory::new();
    let mut files = vec![];
    for shard in shards(index)? {
        let path = folder.join(&shard);
        for (name, stored) in open_safetensors(&path)? {
            ensure!(
                map.get(&name) == Some(&shard),
                "{} holds the tensor {name}, which the index puts elsewhere",
                path.display()
            );
            inventory.insert(name, stored);
        }
        files.push(path);
    }
    let missing: Vec<&str> = map.keys().filter(|n| !inventory.contains_key(*n)).map(String::as_str).collect();
    ensure!(missing.is_empty(), "tensors that the index names and no shard holds: {}", missing.join(", "));
    Ok((inventory, files))
}

/// The shards that an index names, in order.
///
/// # Errors
/// An index that can't be read, or names a file outside its folder.
pub fn shards(index: &Path) -> Result<Vec<String>> {
    let shards: BTreeSet<String> = read_index(index)?.into_values().collect();
    for shard in &shards {
        // Only names beside the index: a checkpoint from elsewhere must not make us open anything outside its folder.
        ensure!(
            !shard.contains(['/', '\\']) && !shard.starts_with('.'),
            "{} names the shard {shard:?}; a plain file name is allowed",
            index.display()
        );
    }
    Ok(shards.into_iter().collect())
}

/// The file of each tensor.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text(index, MAX_INDEX)?;
    Ok(serde_json::from_str::<Index>(&text).with_context(|| format!("reading {}", index.display()))?.weight_map)
}

/// Reads the header of a safetensors file.
///
/// # Errors
/// A header that is damaged, or does not describe the bytes that follow it.
pub fn open_safetensors(path: &Path) -> Result<Inventory> {
    read_header(path).with_context(|| format!("{} is not a sound safetensors file; download it again", path.display()))
}

fn read_header(path: &Path) -> Result<Inventory> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).context("it is shorter than 8 bytes")?;
    let length = u64::from_le_bytes(prefix);
    ensure!(length <= MAX_HEADER.min(size - 8), "its header would have {length} bytes, the file has {size}");
    let mut header = vec![0; usize::try_from(length)?];
    file.read_exact(&mut header)?;
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).context("its header")?;
    entries.remove("__metadata__");
    let data = size - 8 - length;
    let mut ranges = vec![];
    let mut inventory = Inventory::new();
    for (name, entry) in entries {
        let info: TensorInfo = serde_json::from_value(entry).with_context(|| format!("the entry of {name}"))?;
        let (from, to) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, d| n.checked_mul(*d));
        ensure!(
            from <= to && to <= data && bits.map(|b| b as u64 / 8) == Some(to - from),
            "the tensor {name} {:?} would lie at {from}..{to} of {data} bytes",
            info.shape
        );
        ranges.push((from, to));
        let number = match info.dtype {
            Dtype::F32 => Some(StoredType::F32),
            Dtype::F16 => Some(StoredType::F16),
            Dtype::BF16 => Some(StoredType::Bf16),
            _ => None,
        };
        let place = Storage::Bytes { file: path.to_path_buf(), begin: 8 + length + from, length: to - from };
        inventory.insert(name, StoredTensor { shape: info.shape, number, place });
    }
    // The format's own rule: no byte belongs to two tensors or to none.
    ranges.sort_unstable();
    let mut end = 0;
    for (from, to) in ranges {
        ensure!(from == end, "a tensor begins at byte {from}, where the one before ends at {end}");
        end = to;
    }
    ensure!(end == data, "its tensors end at byte {end} of {data}");
    Ok(inventory)
}

/// Reads the table of contents of a file that `torch.save` wrote.
///
/// # Errors
/// A file that is damaged, compressed, or holds what is not tensors.
pub fn open_pytorch(path: &Path) -> Result<Inventory> {
    let place = || path.display().to_string();
    refuse_compressed(path).with_context(place)?;
    let reader = PytorchReader::new(path)
        .map_err(|e| anyhow!("{e}"))
        .with_context(|| format!("{} is not a sound PyTorch checkpoint", path.display()))?;
    let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| {
        let number = match tensor.dtype() {
            pytorch_reader::DType::F32 => Some(StoredType::F32),
            pytorch_reader::DType::F16 => Some(StoredType::F16),
            pytorch_reader::DType::BF16 => Some(StoredType::Bf16),
            _ => None,
        };
        (name, StoredTensor { shape: tensor.shape().to_vec(), number, place: Storage::Pickled(tensor) })
    });
    Ok(tensors.collect())
}

/// `torch.save` compresses nothing; a compressed member could unpack to any size.
fn refuse_compressed(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let zipped = file.read_exact(&mut magic).is_ok() && &magic == b"PK";
    if !zipped {
        return Ok(());
    }
    file.rewind()?;
    let size = file.metadata()?.len();
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).context("it is no sound zip archive")?;
    for i in 0..archive.len() {
        let member = archive.by_index_raw(i)?;
        ensure!(
            member.compression() == zip::CompressionMethod::Stored && member.size() <= size,
            "its member {} is compressed ({} bytes as {}), which torch.save never does; nothing of it is used",
            member.name().unwrap_or_default(),
            member.size(),
            member.compressed_size()
        );
    }
    Ok(())
}

/// A text file of at most `most` bytes.
///
/// # Errors
/// A file that is missing, too long, or no UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let size = file.metadata()?.len();
    ensure!(size <= most, "{} has {size} bytes; at most {most} are read", path.display());
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
    Ok(text)
}
