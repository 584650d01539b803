//! Decodes any bytes as a sound file, by a reader that cannot seek and by one that can, one channel of it or all.
//!
//! What must hold: no panic outside symphonia, no more samples than there is room for in the bytes, every sample is
//! finite.

#![no_main]

use std::io::{Cursor, Write};
use std::sync::Once;

use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use libfuzzer_sys::fuzz_target;

/// The decoder turns symphonia's panics into errors; libFuzzer's hook would end the process before it can.
static CONTAINED: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    CONTAINED.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let Some((how, bytes)) = bytes.split_first() else { return };
    let channel = if how & 1 == 0 { Channel::Mix } else { Channel::Index(usize::from(how >> 4)) };
    let opened = if how & 2 == 0 {
        Decoder::from_reader(Box::new(Cursor::new(bytes.to_vec())), "fuzz", channel)
    } else {
        // By the name's extension symphonia guesses first.
        let extension = [".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".webm", ".caf"][usize::from(how >> 2 & 7)];
        let mut file = tempfile::Builder::new().suffix(extension).tempfile().expect("a file");
        file.write_all(bytes).expect("room");
        Decoder::open(file.path(), channel)
    };
    let Ok(mut decoder) = opened else { return };
    let (mut sound, mut blocks) = (0_u64, 0_u64);
    while let Ok(Some(block)) = decoder.next_block() {
        assert!(block.data.iter().all(|sample| sample.is_finite()));
        sound += block.data.len() as u64;
        blocks += 1;
        // A packet of a few bytes may be a block of silence: 65,535 samples in flac and ALAC, 8,192 in vorbis,
        // 5,760 in Opus.
        assert!(sound <= (bytes.len() as u64 + 1) * 65_536, "{sound} samples of {} bytes", bytes.len());
        assert!(blocks <= bytes.len() as u64 + 1, "{blocks} blocks of {} bytes", bytes.len());
    }
    assert!(decoder.next_block().is_ok_and(|block| block.is_none()), "the end is the end");
});
