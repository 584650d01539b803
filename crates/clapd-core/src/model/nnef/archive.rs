//! A `*.nnef.tar` as tract's parser wants it, read once from front to back.
//!
//! A bundle may come from anyone, so nothing is allocated or parsed before its size is known to be sane, and to
//! be in the file.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tract_nnef::ast::parse::parse_document;
use tract_nnef::ast::{Identifier, ProtoModel};
use tract_nnef::internal::Tensor;
use tract_nnef::tensors::read_tensor;

/// The full-size text tower has about 400 tensors; ten times that is no longer a CLAP.
const MAX_ENTRIES: usize = 4096;
/// The text of the largest graph we export has 200 KB.
const MAX_GRAPH_TEXT: u64 = 4 << 20;
/// The embedding table of RoBERTa in f32 has 154 MB; a tensor beyond 1 GiB fits no device that clapd is for.
const MAX_TENSOR_BYTES: u64 = 1 << 30;
/// Brackets inside brackets: our graphs reach 4. The parser recurses, and a deep text would exhaust its stack.
const MAX_NESTING: usize = 32;
/// Size of the header in front of each tensor (NNEF 1.0.5, section 5.2).
const TENSOR_HEADER: u64 = 128;

/// What an archive holds.
pub struct Archive {
    graph: String,
    tensors: HashMap<Identifier, Arc<Tensor>>,
}

impl Archive {
    /// Reads an archive of `length` bytes.
    ///
    /// # Errors
    /// Anything that is not a plain tar of one `graph.nnef` and tensors, each within bounds.
    pub(super) fn read(archive: impl Read, length: u64) -> Result<Self> {
        let (mut graph, mut tensors) = (None, HashMap::new());
        for (index, entry) in tar::Archive::new(archive).entries()?.enumerate() {
            ensure!(index < MAX_ENTRIES, "it has more than {MAX_ENTRIES} entries");
            let mut entry = entry.context("it is no plain, uncompressed tar")?;
            let name = entry.path()?.to_string_lossy().into_owned();
            ensure!(entry.header().entry_type().is_file(), "entry {name:?} is not a regular file");
            let size = entry.size();
            let left = length.saturating_sub(entry.raw_file_position());
            ensure!(size <= left, "entry {name:?} promises {size} bytes and {left} follow: the archive was cut short");
            if name == "graph.nnef" {
                ensure!(size <= MAX_GRAPH_TEXT, "graph.nnef has {size} bytes; at most {MAX_GRAPH_TEXT} are allowed");
                ensure!(graph.replace(text(&mut entry)?).is_none(), "it holds several files graph.nnef");
            } else if let Some(label) = name.strip_suffix(".dat").filter(|label| !label.contains('/')) {
                let tensor = tensor(&mut entry, size).with_context(|| format!("tensor {name:?}"))?;
                tensors.insert(label.into(), Arc::new(tensor));
            } else {
                bail!("entry {name:?} is neither graph.nnef nor a tensor (*.dat)");
            }
        }
        Ok(Self { graph: graph.context("it holds no file graph.nnef")?, tensors })
    }

    /// Parses the graph.
    ///
    /// # Errors
    /// A text that is no NNEF.
    pub(super) fn parse(self) -> Result<ProtoModel> {
        let doc = parse_document(&self.graph)?;
        let model = ProtoModel { doc, tensors: self.tensors, quantization: None, resources: HashMap::new() };
        model.validate()?;
        Ok(model)
    }
}

fn text(entry: &mut impl Read) -> Result<String> {
    let mut content = String::new();
    entry.read_to_string(&mut content).context("graph.nnef")?;
    let mut depth = 0_usize;
    for byte in content.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        ensure!(depth <= MAX_NESTING, "graph.nnef nests brackets deeper than {MAX_NESTING}");
    }
    Ok(content)
}

/// The shape in a tensor's header must not promise more than the entry holds: tract allocates by the header.
fn tensor(entry: &mut impl Read, size: u64) -> Result<Tensor> {
    ensure!(
        (TENSOR_HEADER..=MAX_TENSOR_BYTES).contains(&size),
        "it has {size} bytes; {TENSOR_HEADER} to {MAX_TENSOR_BYTES} are allowed"
    );
    let mut header = [0; TENSOR_HEADER as usize];
    entry.read_exact(&mut header)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (rank, bits, vendor) = (word(8) as usize, u64::from(word(44)), u16::from_le_bytes([header[50], header[51]]));
    ensure!(rank <= 8, "rank {rank}; at most 8 is allowed");
    ensure!(vendor == 0, "items of vendor {vendor:#x}; only NNEF's own number types are allowed");
    ensure!([8, 16, 32, 64].contains(&bits), "{bits} bits an item; 8, 16, 32 or 64 are allowed");
    let numbers = (0..rank).try_fold(1_u64, |n, axis| n.checked_mul(u64::from(word(12 + 4 * axis))));
    let bytes = numbers.and_then(|n| n.checked_mul(bits / 8));
    ensure!(
        bytes == Some(size - TENSOR_HEADER),
        "its header promises {bytes:?} bytes and {} follow",
        size - TENSOR_HEADER
    );
    read_tensor(Cursor::new(header).chain(entry))
}
