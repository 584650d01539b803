//! From the bytes of a `*.nnef.tar` to a graph that runs.
//!
//! In: an archive whose hash the manifest vouches for. Out: a [`Graph`] of tract's with known inputs and outputs.
//! Never: a bundle may come from anyone, so nothing is allocated, unpacked or parsed before its size is known to be
//! sane, and a panic inside the parser becomes an error.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tract_nnef::internal::*;

use super::Compute;
use super::ops;

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
/// Most numbers in any one value of the graph: the largest is the embedding table (39 M); a graph that broadcasts a
/// small constant into more than this is hostile.
const MAX_VALUE: usize = 256 << 20;

/// A graph ready to run.
#[derive(Debug, Clone)]
pub struct Graph {
    plan: Arc<TypedRunnableModel>,
    compute: Option<Compute>,
}

impl Graph {
    /// The kernels of our own that it runs on; none where it has none of our operators.
    pub fn compute(&self) -> Option<Compute> {
        self.compute
    }
}

/// The operators that a bundle's graphs may use: NNEF's own, tract's and ours.
pub fn registry() -> Nnef {
    tract_nnef::nnef().with_registry(ops::registry())
}

/// Loads, optimises and plans a graph; its layers that are ours are packed for `compute`. Takes the archive, so that it is
/// gone when weights are packed.
///
/// # Errors
/// Anything that is not an archive of our making, or does not type-check; the message names `file`.
pub fn load(file: &str, archive: Vec<u8>, compute: Compute) -> Result<Graph> {
    vet(&archive).with_context(|| format!("{file} is not a graph archive that clapd can trust"))?;
    // tract's parser and optimiser assert what a hostile graph can break; that must end this load, not the daemon.
    let loaded = catch_unwind(AssertUnwindSafe(|| translate(archive, compute)));
    loaded
        .map_err(|_| anyhow!("the graph broke an assumption of the inference library"))
        .and_then(|result| result)
        .with_context(|| format!("cannot load {file}"))
}

fn translate(archive: Vec<u8>, compute: Compute) -> Result<Graph> {
    let model = registry().model_for_read(&mut Cursor::new(&archive))?;
    drop(archive);
    for (outlet, fact) in
        model.nodes.iter().flat_map(|node| node.outputs.iter().map(move |out| (&node.name, &out.fact)))
    {
        let numbers =
            fact.shape.as_concrete().map_or(Some(1), |dims| dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)));
        ensure!(
            numbers.is_some_and(|n| n <= MAX_VALUE),
            "value {outlet} has shape {:?}; at most {MAX_VALUE} numbers are allowed",
            fact.shape
        );
    }
    // What is optimised no longer holds the weights of our operators as constants: they alone do, until they are packed.
    let mut model = model.into_optimized()?;
    let compute = (ops::pack(&mut model, compute)? > 0).then_some(compute);
    Ok(Graph { plan: model.into_runnable()?, compute })
}

fn vet(archive: &[u8]) -> Result<()> {
    // tract would unpack a gzip by its magic number, and a gzip can expand without limit.
    ensure!(!archive.starts_with(&[0x1f, 0x8b]), "it is compressed; a plain tar is expected");
    let mut graphs = 0;
    for (index, entry) in tar::Archive::new(Cursor::new(archive)).entries()?.enumerate() {
        ensure!(index < MAX_ENTRIES, "it has more than {MAX_ENTRIES} entries");
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        ensure!(entry.header().entry_type().is_file(), "entry {name:?} is not a regular file");
        let size = entry.size();
        if name == "graph.nnef" {
            graphs += 1;
            ensure!(size <= MAX_GRAPH_TEXT, "graph.nnef has {size} bytes; at most {MAX_GRAPH_TEXT} are allowed");
            vet_nesting(&mut entry)?;
        } else if name.ends_with(".dat") && !name.contains('/') {
            vet_tensor(&mut entry, size).with_context(|| format!("tensor {name:?}"))?;
        } else {
            bail!("entry {name:?} is neither graph.nnef nor a tensor (*.dat)");
        }
    }
    ensure!(graphs == 1, "it holds {graphs} files graph.nnef; 1 is expected");
    Ok(())
}

fn vet_nesting(text: &mut impl Read) -> Result<()> {
    let mut content = String::new();
    text.read_to_string(&mut content)?;
    let mut depth = 0_usize;
    for byte in content.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        ensure!(depth <= MAX_NESTING, "graph.nnef nests brackets deeper than {MAX_NESTING}");
    }
    Ok(())
}

/// The shape in a tensor's header must not promise more than the entry holds: tract allocates by the header.
fn vet_tensor(entry: &mut impl Read, size: u64) -> Result<()> {
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
    Ok(())
}

/// Shape of a graph's input, where it is a number; `None` stands for a length that is free.
pub fn input_shape(graph: &Graph, input: usize) -> Result<Vec<Option<usize>>> {
    let model = graph.plan.model();
    ensure!(input < model.input_outlets()?.len(), "the graph has no input {input}");
    let fact = model.input_fact(input)?;
    Ok(fact.shape.iter().map(|dim| dim.to_usize().ok()).collect())
}

/// Runs a graph and returns its outputs as f32, in order.
///
/// # Errors
/// A graph that does not take these inputs, or breaks an assumption of the library on the way.
pub fn run(graph: &Graph, inputs: TVec<TValue>) -> Result<Vec<Vec<f32>>> {
    // As in `load`: a graph may be sound as a text and still do what the library does not expect.
    let outputs = catch_unwind(AssertUnwindSafe(|| graph.plan.run(inputs)));
    let outputs = outputs.map_err(|_| anyhow!("the graph broke an assumption of the inference library"))??;
    outputs.iter().map(|value| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())).collect()
}
