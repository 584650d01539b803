//! Packets as network streams carry them (RTP), decoded one at a time into mono samples.
//!
//! There is no container around them: whoever receives a stream learns its encoding from the stream's description, and
//! keeps its time. A damaged packet is an error, and the next one may be whole.

use anyhow::{Context, Result, anyhow, bail, ensure};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::check_source_format;
use crate::channel::Channel;
use crate::panics::catch_panic;

/// Of a panic in a decoder: the stream of a stranger must not end the daemon.
const DAMAGED: &str = "a packet is damaged in a way that the decoder can't cope with";

/// How a stream's packets are encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PacketCodec {
    /// G.711 μ-law, 8 bits a sample.
    Mulaw,
    /// G.711 A-law, 8 bits a sample.
    Alaw,
    /// Integers of 16 bits in network order (L16).
    Pcm16,
    /// Integers of 24 bits in network order (L24).
    Pcm24,
    /// AAC (low complexity), an access unit a packet; `config` is its AudioSpecificConfig.
    Aac {
        /// As ISO/IEC 14496-3 has it, 2 bytes or more.
        config: Vec<u8>,
    },
}

impl PacketCodec {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mulaw => "G.711 μ-law",
            Self::Alaw => "G.711 A-law",
            Self::Pcm16 => "L16",
            Self::Pcm24 => "L24",
            Self::Aac { .. } => "AAC",
        }
    }
}

/// A decoder of one stream's packets.
pub struct PacketDecoder {
    body: Body,
    rate: u32,
    channels: usize,
    channel: Channel,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    samples_bad: u64,
}

enum Body {
    /// Bytes a sample, and what they mean.
    Pcm(usize, fn(&[u8]) -> f32),
    Symphonia(Box<dyn AudioDecoder>),
    /// After a panic: what was left behind is not touched again.
    Ended,
}

impl PacketDecoder {
    /// A decoder for packets of `codec`. `rate` and `channels` are the description's; AAC has its own in its
    /// configuration, which count.
    ///
    /// # Errors
    /// An encoding that is not decoded (AAC other than of low complexity), a rate outside 8 to 192 kHz, a channel that
    /// the stream does not have.
    pub fn new(codec: &PacketCodec, rate: u32, channels: usize, channel: Channel) -> Result<Self> {
        let (body, rate, channels) = match codec {
            PacketCodec::Mulaw => (Body::Pcm(1, |bytes| mulaw(bytes[0])), rate, channels),
            PacketCodec::Alaw => (Body::Pcm(1, |bytes| alaw(bytes[0])), rate, channels),
            PacketCodec::Pcm16 => {
                (Body::Pcm(2, |bytes| f32::from(i16::from_be_bytes([bytes[0], bytes[1]])) / 32_768.0), rate, channels)
            }
            PacketCodec::Pcm24 => (Body::Pcm(3, pcm24), rate, channels),
            PacketCodec::Aac { config } => {
                let decoder = catch_panic(DAMAGED, || open_aac(config))?;
                let parameters = decoder.codec_params();
                let rate = parameters.sample_rate.context("its AAC configuration states no sample rate")?;
                let channels = parameters.channels.as_ref().map_or(0, |channels| channels.count());
                (Body::Symphonia(decoder), rate, channels)
            }
        };
        ensure!(channels > 0, "it has no channels");
        check_source_format("the stream", rate, channels, channel)?;
        Ok(Self { body, rate, channels, channel, interleaved: Vec::new(), mono: Vec::new(), samples_bad: 0 })
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in the stream.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples that were NaN or infinite and became 0, so far.
    pub fn samples_bad(&self) -> u64 {
        self.samples_bad
    }

    /// The samples of one packet.
    ///
    /// # Errors
    /// A packet that can't be decoded.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[f32]> {
        let interleaved = &mut self.interleaved;
        interleaved.clear();
        match &mut self.body {
            Body::Pcm(bytes, sample) => interleaved.extend(packet.chunks_exact(*bytes).map(*sample)),
            Body::Symphonia(decoder) => {
                // What panicked says so once; after that there is nothing left to decode with.
                let decoded = catch_panic(DAMAGED, || {
                    let packet = Packet::new(0, Timestamp::ZERO, Duration::ZERO, packet);
                    Ok(decoder.decode(&packet).map(|decoded| {
                        decoded.copy_to_vec_interleaved(interleaved);
                        (decoded.spec().rate(), decoded.spec().channels().count())
                    }))
                });
                match decoded {
                    Ok(decoded) => {
                        let (rate, channels) = decoded.map_err(|error| anyhow!("{error}"))?;
                        let same = rate == self.rate && channels == self.channels;
                        ensure!(same, "it changes to {rate} Hz, {channels} channels within a stream");
                    }
                    Err(panicked) => {
                        self.body = Body::Ended;
                        return Err(panicked);
                    }
                }
            }
            Body::Ended => bail!(DAMAGED),
        }
        self.mono.clear();
        for frame in self.interleaved.chunks_exact(self.channels) {
            let mut bad = false;
            self.mono.push(self.channel.pick(frame.iter().copied(), &mut bad));
            self.samples_bad += u64::from(bad);
        }
        Ok(&self.mono)
    }
}

fn open_aac(config: &[u8]) -> Result<Box<dyn AudioDecoder>> {
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(CODEC_ID_AAC).with_extra_data(config.into());
    symphonia::default::get_codecs()
        .make_audio_decoder(&parameters, &Default::default())
        .map_err(|error| anyhow!("its AAC can't be decoded ({error}); AAC-LC with one or two channels can be"))
}

/// G.711 μ-law: a sign, an exponent of 3 bits and a mantissa of 4, all inverted, over a bias of 33 in 14 bits. Full scale is 1.
pub fn mulaw(byte: u8) -> f32 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0F) << 3) + 0x84) << ((byte >> 4) & 7);
    let value = magnitude - 0x84;
    (if byte & 0x80 == 0 { value } else { -value }) as f32 / 32_768.0
}

/// G.711 A-law: every other bit inverted; a sign, an exponent of 3 bits and a mantissa of 4, in 13 bits. Full scale is 1.
pub fn alaw(byte: u8) -> f32 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i32::from(byte & 0x0F) << 4);
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    (if byte & 0x80 == 0 { -magnitude } else { magnitude }) as f32 / 32_768.0
}

fn pcm24(bytes: &[u8]) -> f32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) as f32 / 2_147_483_648.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(codec: &PacketCodec, channels: usize, packet: &[u8]) -> Vec<f32> {
        let mut decoder = PacketDecoder::new(codec, 8_000, channels, Channel::Mix).unwrap();
        decoder.decode(packet).unwrap().to_vec()
    }

    #[test]
    fn g711_has_the_values_of_the_standard() {
        // ITU-T G.711, tables 1 and 2: the decoder's output values, in 16 bits as every implementation has them.
        let values: Vec<f32> = [0xFF, 0x7F, 0x80, 0x00, 0xF0, 0xEF].map(mulaw).map(|x| x * 32_768.0).to_vec();
        assert_eq!(values, [0.0, 0.0, 32_124.0, -32_124.0, 120.0, 132.0]);
        let values: Vec<f32> = [0xD5, 0x55, 0xAA, 0x2A, 0xC5].map(alaw).map(|x| x * 32_768.0).to_vec();
        assert_eq!(values, [8.0, -8.0, 32_256.0, -32_256.0, 264.0]);
    }

    #[test]
    fn integers_are_in_network_order_and_half_a_frame_is_none() {
        assert_eq!(decode(&PacketCodec::Pcm16, 1, &[0x40, 0x00, 0x80, 0x00, 0x01]), [0.5, -1.0]);
        assert_eq!(decode(&PacketCodec::Pcm16, 2, &[0x40, 0x00, 0x00, 0x00, 0x40, 0x00]), [0.25]);
        assert_eq!(decode(&PacketCodec::Pcm24, 1, &[0xC0, 0x00, 0x00]), [-0.5]);
    }

    #[test]
    fn what_is_not_decoded_is_refused_and_damage_is_survived() {
        let open =
            |codec: &PacketCodec, rate, channels, channel| PacketDecoder::new(codec, rate, channels, channel).map(drop);
        assert!(open(&PacketCodec::Mulaw, 4_000, 1, Channel::Mix).is_err());
        assert!(open(&PacketCodec::Mulaw, 8_000, 0, Channel::Mix).is_err());
        assert!(open(&PacketCodec::Mulaw, 8_000, 1, Channel::Index(1)).is_err());
        // HE-AAC (object type 5), and nothing.
        for config in [&[0x2B, 0x92, 0x08, 0x00][..], &[]] {
            assert!(open(&PacketCodec::Aac { config: config.to_vec() }, 48_000, 1, Channel::Mix).is_err());
        }
        // AAC-LC, 16 kHz, one channel; then noise of every length.
        let codec = PacketCodec::Aac { config: vec![0x14, 0x08] };
        let mut decoder = PacketDecoder::new(&codec, 48_000, 2, Channel::Mix).unwrap();
        assert_eq!((decoder.rate(), decoder.channels()), (16_000, 1));
        let mut random = fastrand::Rng::with_seed(7);
        for length in 0..400 {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = decoder.decode(&noise);
        }
    }
}
