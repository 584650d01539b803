//! A file that is read and hashed in one pass, so that weights of hundreds of megabytes are read from a card once.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::hexadecimal;

/// Read and hashed at a time: fits the second-level cache of a small processor, so that hashing reads no memory.
const PIECE: usize = 128 << 10;

/// A reader that hashes what passes.
#[derive(Debug)]
pub struct HashingReader {
    file: File,
    hash: Sha256,
    length: u64,
}

impl HashingReader {
    /// Opens a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// A file that is missing, no regular file, or larger.
    pub fn open(path: &Path, limit: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let meta = file.metadata().with_context(|| path.display().to_string())?;
        ensure!(meta.is_file(), "{} is not a regular file", path.display());
        let length = meta.len();
        ensure!(length <= limit, "{} has {length} bytes; at most {limit} are allowed", path.display());
        Ok(Self { file, hash: Sha256::new(), length })
    }

    /// Bytes of the file, when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The hash of the whole file, in lower-case hexadecimal; what was not read yet is read for it.
    ///
    /// # Errors
    /// A file that cannot be read to its end.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hexadecimal(&self.hash.finalize()))
    }
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(PIECE);
        let count = self.file.read(&mut buffer[..length])?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
