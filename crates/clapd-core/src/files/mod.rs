//! How files are written and read wherever clapd does it: whole or not at all, and hashed as they are read.

mod atomic_file;
mod hashing_reader;

pub use atomic_file::{Access, AtomicFile, Durability, folder_of, sync_folder, write_atomically};
pub use hashing_reader::HashingReader;

/// Bytes in lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hexadecimal(&Sha256::digest(bytes))
}
