//! Samples as ALSA's formats have them, as floats.
//!
//! Every format that is a number a sample is read here, so that a card needs no plugin of ALSA's in front of it.

use alsa::pcm::Format;
use clapd_core::decode::{a_law, mu_law};

/// How a sample lies in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleEncoding {
    /// The lowest `bits` of that many bytes.
    Integer { bytes: usize, bits: u32, signed: bool, order: ByteOrder },
    /// 4 or 8 bytes.
    Float { bytes: usize, order: ByteOrder },
    /// G.711, as telephones have it.
    MuLaw,
    /// G.711, as European telephones have it.
    ALaw,
}

/// Which byte of a sample comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    /// The lowest.
    Little,
    /// The highest.
    Big,
}

const fn integer(bytes: usize, bits: u32, signed: bool, order: ByteOrder) -> SampleEncoding {
    SampleEncoding::Integer { bytes, bits, signed, order }
}

const fn float(bytes: usize, order: ByteOrder) -> SampleEncoding {
    SampleEncoding::Float { bytes, order }
}

use ByteOrder::{Big, Little};

/// The formats that are read, the finest first: a quiet room lives below 16 bits. What ALSA has besides is compressed (IMA ADPCM, G.723),
/// framed (IEC 958) or a bit stream (DSD); its `plug` converts the first and the third.
pub(super) const FORMATS: [(Format, SampleEncoding); 36] = [
    (Format::FloatLE, float(4, Little)),
    (Format::FloatBE, float(4, Big)),
    (Format::Float64LE, float(8, Little)),
    (Format::Float64BE, float(8, Big)),
    (Format::S32LE, integer(4, 32, true, Little)),
    (Format::S32BE, integer(4, 32, true, Big)),
    (Format::U32LE, integer(4, 32, false, Little)),
    (Format::U32BE, integer(4, 32, false, Big)),
    (Format::S24LE, integer(4, 24, true, Little)),
    (Format::S24BE, integer(4, 24, true, Big)),
    (Format::S243LE, integer(3, 24, true, Little)),
    (Format::S243BE, integer(3, 24, true, Big)),
    (Format::U24LE, integer(4, 24, false, Little)),
    (Format::U24BE, integer(4, 24, false, Big)),
    (Format::U243LE, integer(3, 24, false, Little)),
    (Format::U243BE, integer(3, 24, false, Big)),
    (Format::S20LE, integer(4, 20, true, Little)),
    (Format::S20BE, integer(4, 20, true, Big)),
    (Format::S203LE, integer(3, 20, true, Little)),
    (Format::S203BE, integer(3, 20, true, Big)),
    (Format::U20LE, integer(4, 20, false, Little)),
    (Format::U20BE, integer(4, 20, false, Big)),
    (Format::U203LE, integer(3, 20, false, Little)),
    (Format::U203BE, integer(3, 20, false, Big)),
    (Format::S183LE, integer(3, 18, true, Little)),
    (Format::S183BE, integer(3, 18, true, Big)),
    (Format::U183LE, integer(3, 18, false, Little)),
    (Format::U183BE, integer(3, 18, false, Big)),
    (Format::S16LE, integer(2, 16, true, Little)),
    (Format::S16BE, integer(2, 16, true, Big)),
    (Format::U16LE, integer(2, 16, false, Little)),
    (Format::U16BE, integer(2, 16, false, Big)),
    (Format::MuLaw, SampleEncoding::MuLaw),
    (Format::ALaw, SampleEncoding::ALaw),
    (Format::S8, integer(1, 8, true, Little)),
    (Format::U8, integer(1, 8, false, Little)),
];

impl SampleEncoding {
    /// Bytes of a sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::Integer { bytes, .. } | Self::Float { bytes, .. } => bytes,
            Self::MuLaw | Self::ALaw => 1,
        }
    }

    /// Whether a sample has 32 bits that a converter of 24 may have been put at either end of.
    pub fn is_wide_integer(self) -> bool {
        matches!(self, Self::Integer { bits: 32, .. })
    }

    /// Appends the samples in `bytes` to `out`, full scale as 1. Floats may be no numbers.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        let samples = bytes.chunks_exact(self.bytes());
        match self {
            Self::Integer { bits, signed, order, .. } => {
                out.extend(samples.map(|sample| integer_sample(raw(sample, order) as u32, bits, signed)));
            }
            Self::MuLaw => out.extend(bytes.iter().map(|&code| f32::from(mu_law(code)) / 32_768.0)),
            Self::ALaw => out.extend(bytes.iter().map(|&code| f32::from(a_law(code)) / 32_768.0)),
            Self::Float { bytes: 4, order } => {
                out.extend(samples.map(|sample| f32::from_bits(raw(sample, order) as u32)));
            }
            Self::Float { order, .. } => {
                out.extend(samples.map(|sample| f64::from_bits(raw(sample, order)) as f32));
            }
        }
    }
}

fn raw(sample: &[u8], order: ByteOrder) -> u64 {
    let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    match order {
        Big => sample.iter().fold(0, join),
        Little => sample.iter().rev().fold(0, join),
    }
}

/// What lies above the lowest `bits` is the driver's affair and shifted out.
fn integer_sample(raw: u32, bits: u32, signed: bool) -> f32 {
    let top = raw << (32 - bits);
    let value = if signed { top } else { top ^ 0x8000_0000 };
    value as i32 as f32 / 2_147_483_648.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: SampleEncoding, bytes: &[u8]) -> Vec<f32> {
        let mut out = Vec::new();
        encoding.decode(bytes, &mut out);
        out
    }

    /// Half of full scale, a quarter below nothing, and the lowest, in every integer format.
    #[test]
    fn integers_of_every_width_sign_and_order_are_read() {
        for (format, encoding) in FORMATS {
            let SampleEncoding::Integer { bytes, bits, signed, order } = encoding else { continue };
            let mut data = Vec::new();
            for value in [1_i64 << (bits - 2), -(1 << (bits - 3)), -(1 << (bits - 1))] {
                let value = if signed { value } else { value + (1 << (bits - 1)) };
                let mut sample = value.to_le_bytes()[..bytes].to_vec();
                if order == Big {
                    sample.reverse();
                }
                data.extend(sample);
            }
            assert_eq!(decode(encoding, &data), [0.5, -0.25, -1.0], "{format}");
            let width = format.physical_width().unwrap();
            assert_eq!((encoding.bytes() * 8, bits), (width as usize, format.width().unwrap() as u32), "{format}");
        }
    }

    #[test]
    fn floats_are_read_in_both_orders() {
        let little: Vec<u8> = [0.5_f32, -0.25].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(decode(float(4, Little), &little), [0.5, -0.25]);
        let big: Vec<u8> = [0.5_f64, -0.25].iter().flat_map(|value| value.to_be_bytes()).collect();
        assert_eq!(decode(float(8, Big), &big), [0.5, -0.25]);
    }

    #[test]
    fn telephone_codes_are_read() {
        assert_eq!(decode(SampleEncoding::MuLaw, &[0xff, 0x80]), [0.0, 32_124.0 / 32_768.0]);
        assert_eq!(decode(SampleEncoding::ALaw, &[0xd5, 0x2a]), [8.0 / 32_768.0, -32_256.0 / 32_768.0]);
    }
}
