//! TensorFlow checkpoints: `variables.index` and its single data file.
//!
//! In: the bytes of both. Out: [`Weights`] of the f32 tensors.
//! The index is a sorted string table: blocks of entries whose keys share prefixes, an index block that says where the
//! blocks are, and a footer of 48 bytes that says where the index block is. Values are `BundleEntryProto` messages.
//! Format: tensorflow/core/lib/io/table_format.txt and tensorflow/core/protobuf/tensor_bundle.proto.
//! Never: follows an offset out of the bytes it got; reads compressed blocks (savers of checkpoints write none).

use anyhow::{Context, Result, bail, ensure};
use prost::Message;

use super::{Weight, Weights};

/// Length of the footer.
const FOOTER: usize = 48;
/// The footer's last 8 bytes.
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// `DT_FLOAT` of tensorflow/core/framework/types.proto.
const DT_FLOAT: i32 = 1;

/// tensor_bundle.proto, the fields that are read.
#[derive(Clone, PartialEq, Message)]
struct BundleEntry {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(int32, tag = "3")]
    shard_id: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
}

/// tensor_shape.proto.
#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// Reads all f32 tensors of a checkpoint of one shard; other types (counters, the object graph) are passed over.
///
/// # Errors
/// Says what is wrong with the index, or which tensor does not lie inside the data.
pub fn read(index: &[u8], data: &[u8]) -> Result<Weights> {
    let mut weights = Weights::default();
    for (key, value) in entries(index).context("reading the checkpoint's index")? {
        // The entry of the empty key is the header of the whole table.
        if key.is_empty() {
            continue;
        }
        let name = String::from_utf8_lossy(&key).into_owned();
        let entry = BundleEntry::decode(value).with_context(|| format!("the entry of {name}"))?;
        if entry.dtype == DT_FLOAT {
            weights.insert(name.clone(), tensor(&entry, data).with_context(|| format!("the tensor {name}"))?);
        }
    }
    Ok(weights)
}

fn tensor(entry: &BundleEntry, data: &[u8]) -> Result<Weight> {
    ensure!(entry.shard_id == 0, "lies in shard {}; only checkpoints of one shard are read", entry.shard_id);
    let dims = entry.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
    let shape = dims.iter().map(|d| usize::try_from(d.size)).collect::<Result<Vec<_>, _>>().context("its shape")?;
    let count = shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d)).context("its shape is too large")?;
    let (offset, size) = (usize::try_from(entry.offset)?, usize::try_from(entry.size)?);
    ensure!(count == size, "has {size} bytes, its shape {shape:?} needs {count}");
    let bytes = offset.checked_add(size).and_then(|end| data.get(offset..end));
    let bytes = bytes.with_context(|| format!("bytes {offset}+{size} lie outside the data of {}", data.len()))?;
    let values = bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    Ok(Weight { shape, values })
}

/// All entries of the table.
fn entries(table: &[u8]) -> Result<Vec<(Vec<u8>, &[u8])>> {
    ensure!(table.len() >= FOOTER, "it is {} bytes long, its footer alone is {FOOTER}", table.len());
    let mut footer = &table[table.len() - FOOTER..];
    let magic = footer.last_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    ensure!(magic == Some(MAGIC), "it does not end with the table format's magic number");
    // The footer begins with the place of a block of statistics, which is of no use here.
    handle(&mut footer)?;
    let index = handle(&mut footer)?;
    let mut entries = vec![];
    for (_, mut place) in block(table, index)? {
        let place = handle(&mut place)?;
        entries.extend(block(table, place)?);
    }
    Ok(entries)
}

/// Offset and length of a block.
fn handle(bytes: &mut &[u8]) -> Result<(usize, usize)> {
    Ok((varint(bytes)?, varint(bytes)?))
}

/// The entries of one block: each is the length of the prefix shared with the key before, of the rest of the key, and
/// of the value, then the rest and the value. Behind them come offsets for searching, and their count.
fn block(table: &[u8], (offset, size): (usize, usize)) -> Result<Vec<(Vec<u8>, &[u8])>> {
    let end = offset.checked_add(size).filter(|end| *end < table.len());
    let end = end.with_context(|| format!("a block at {offset}+{size} lies outside it"))?;
    ensure!(table[end] == 0, "a block is compressed (type {}), which is not supported", table[end]);
    let block = &table[offset..end];
    let count = block.last_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize).context("an empty block")?;
    let trailer = count.checked_mul(4).and_then(|n| n.checked_add(4)).filter(|n| *n <= block.len());
    let mut rest = &block[..block.len() - trailer.context("a block's count of restarts is too large")?];
    let (mut key, mut entries) = (Vec::new(), vec![]);
    while !rest.is_empty() {
        let (shared, new, length) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
        ensure!(shared <= key.len(), "an entry shares {shared} bytes with a key of {}", key.len());
        key.truncate(shared);
        key.extend_from_slice(take(&mut rest, new)?);
        entries.push((key.clone(), take(&mut rest, length)?));
    }
    Ok(entries)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(length).context("an entry runs over the end of its block")?;
    *bytes = tail;
    Ok(head)
}

/// Seven bits a byte, least significant first, the highest bit set on all but the last.
fn varint(bytes: &mut &[u8]) -> Result<usize> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(usize::try_from(value)?);
        }
    }
    bail!("a number of more than 10 bytes")
}
