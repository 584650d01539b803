//! Wav files written for tests, honest ones and liars.
#![allow(dead_code)]

/// The test tone's pitch.
pub const TONE_HZ: f64 = 1_000.0;
/// Its peak in the first channel.
pub const PEAK: f64 = 0.5;

/// A wav to be written, and lied about.
#[derive(Clone)]
pub struct Wav {
    pub rate: u32,
    pub channels: u16,
    pub tag: u16,
    pub bits: u16,
    pub data: Vec<u8>,
    pub announced: Option<u32>,
    pub extensible: bool,
    pub before_data: Vec<u8>,
    pub after_data: Vec<u8>,
}

impl Wav {
    /// `frames` of a tone, channel by channel weaker by half; `tag` 1 integers, 3 floats.
    pub fn tone(rate: u32, channels: u16, tag: u16, bits: u16, frames: usize) -> Self {
        let mut data = Vec::new();
        for frame in 0..frames {
            for channel in 0..channels {
                let value = tone(frame, rate) / f64::from(1_u32 << channel.min(8));
                match (tag, bits) {
                    (1, 8) => data.push((value * 127.0 + 128.0).round() as u8),
                    (1, 16) => data.extend(((value * 32_767.0).round() as i16).to_le_bytes()),
                    (1, 24) => data.extend(&((value * 8_388_607.0).round() as i32).to_le_bytes()[..3]),
                    (1, 32) => data.extend(((value * 2_147_483_647.0).round() as i32).to_le_bytes()),
                    (3, 32) => data.extend((value as f32).to_le_bytes()),
                    (3, 64) => data.extend(value.to_le_bytes()),
                    _ => panic!("no such wav"),
                }
            }
        }
        Self { channels, tag, bits, data, ..Self::mono(rate, []) }
    }

    /// Samples of one channel, 16 bits each.
    pub fn mono(rate: u32, samples: impl IntoIterator<Item = i16>) -> Self {
        Self {
            rate,
            channels: 1,
            tag: 1,
            bits: 16,
            data: samples.into_iter().flat_map(i16::to_le_bytes).collect(),
            announced: None,
            extensible: false,
            before_data: Vec::new(),
            after_data: Vec::new(),
        }
    }

    /// The file, header and all.
    pub fn bytes(&self) -> Vec<u8> {
        let align = self.channels.wrapping_mul(self.bits / 8);
        let announced = self.announced.unwrap_or(self.data.len() as u32);
        let mut fmt = Vec::new();
        fmt.extend(if self.extensible { 0xFFFE_u16 } else { self.tag }.to_le_bytes());
        fmt.extend(self.channels.to_le_bytes());
        fmt.extend(self.rate.to_le_bytes());
        fmt.extend(self.rate.wrapping_mul(u32::from(align)).to_le_bytes());
        fmt.extend(align.to_le_bytes());
        fmt.extend(self.bits.to_le_bytes());
        if self.extensible {
            fmt.extend([22, 0]);
            fmt.extend(self.bits.to_le_bytes());
            fmt.extend([0; 4]);
            fmt.extend(self.tag.to_le_bytes());
            fmt.extend(b"\0\0\0\0\x10\0\x80\0\0\xAA\0\x38\x9B\x71");
        }
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(announced.wrapping_add(36).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend((fmt.len() as u32).to_le_bytes());
        bytes.extend(fmt);
        bytes.extend(&self.before_data);
        bytes.extend(b"data");
        bytes.extend(announced.to_le_bytes());
        bytes.extend(&self.data);
        bytes.extend(&self.after_data);
        bytes
    }
}

/// The tone at a sample.
pub fn tone(frame: usize, rate: u32) -> f64 {
    (frame as f64 * TONE_HZ / f64::from(rate) * std::f64::consts::TAU).sin() * PEAK
}
