//! Packets of sound (RTP, RFC 3550): in their order, unpacked, on one time line.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use super::sdp::Format;
use clapd_core::decode::PacketCodec;

/// Packets that may wait for one that is missing, over UDP: a switch or a radio link puts one or two behind another, and eight are
/// 160 to 500 ms of sound.
const MAX_WAITING: usize = 8;
/// A jump of the sequence by more is another beginning, and no loss: a minute of packets of 20 ms.
const MAX_MISSING: u16 = 3_000;
/// Time stamps that differ from the count of samples by less are a camera's imprecision: some stamp packets by the time of day.
const TOLERANCE_S: f64 = 0.25;
/// A jump by more is another beginning of the clock: within a connection that is alive nothing is away for so long.
const MAX_LOSS_S: f64 = 30.0;
/// An access unit of AAC has at most 6,144 bits a channel; a sender may set their sizes to 16 bits.
const MAX_UNIT: usize = 1 << 16;

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) payload_type: u8,
    pub(super) marker: bool,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    /// None: it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<12>()?;
        let [flags, kind, s0, s1, t0, t1, t2, t3, ..] = *head;
        if flags >> 6 != 2 {
            return None;
        }
        let mut payload = rest.get(4 * usize::from(flags & 0x0F)..)?;
        if flags & 0x10 != 0 {
            let (extension, behind) = payload.split_first_chunk::<4>()?;
            payload = behind.get(4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]))..)?;
        }
        if flags & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            payload_type: kind & 0x7F,
            marker: kind & 0x80 != 0,
            payload: payload.to_vec(),
        })
    }
}

/// Puts packets into their order.
#[derive(Debug, Default)]
pub(super) struct Sequencer {
    next: Option<u16>,
    /// By their distance from the one that is awaited.
    waiting: BTreeMap<u16, Packet>,
    /// Whether packets may overtake each other at all.
    patient: bool,
}

impl Sequencer {
    pub(super) fn new(patient: bool) -> Self {
        Self { patient, ..Self::default() }
    }

    /// Takes a packet; returns those that are due, and how many are missing before each.
    pub(super) fn push(&mut self, packet: Packet) -> Vec<(Packet, u16)> {
        let next = *self.next.get_or_insert(packet.sequence);
        let distance = packet.sequence.wrapping_sub(next);
        // Late, or twice.
        if (1..=MAX_MISSING + 1).contains(&next.wrapping_sub(packet.sequence)) {
            return Vec::new();
        }
        // The sender has begun anew.
        if distance > MAX_MISSING {
            self.waiting.clear();
            self.next = Some(packet.sequence.wrapping_add(1));
            return vec![(packet, 0)];
        }
        self.waiting.insert(packet.sequence, packet);
        let (most, mut due) = (if self.patient { MAX_WAITING } else { 0 }, Vec::new());
        loop {
            let next = self.next.unwrap_or_default();
            let nearest = self.waiting.keys().copied().min_by_key(|sequence| sequence.wrapping_sub(next));
            let Some(nearest) = nearest else { return due };
            let missing = nearest.wrapping_sub(next);
            if missing > 0 && self.waiting.len() <= most {
                return due;
            }
            let Some(packet) = self.waiting.remove(&nearest) else { return due };
            self.next = Some(nearest.wrapping_add(1));
            due.push((packet, missing));
        }
    }
}

/// Unpacks what packets hold: one or several units that a decoder takes.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    /// The beginning of a unit that is larger than a packet, and its size.
    fragment: Vec<u8>,
    expected: usize,
}

impl Unpacker {
    /// The units in a packet with `missing` others lost before it. A unit that is not whole is left out.
    ///
    /// # Errors
    /// A packet that is not what its format says.
    pub(super) fn unpack(&mut self, packet: &Packet, missing: u16, format: &Format) -> Result<Vec<Vec<u8>>> {
        if !matches!(format.codec, PacketCodec::Aac { .. }) {
            return Ok(vec![packet.payload.clone()]);
        }
        if missing > 0 {
            self.fragment.clear();
        }
        // RFC 3640: the length of all headers in bits, the headers, and then the units.
        let (size_bits, index_bits) = format.header_bits;
        let header_bits = size_bits + index_bits;
        ensure!(size_bits > 0, "AAC without the sizes of its units is not read");
        let Some((length, rest)) = packet.payload.split_first_chunk::<2>() else {
            bail!("a packet ends in its header")
        };
        let bits = usize::from(u16::from_be_bytes(*length));
        let Some((headers, mut data)) = rest.split_at_checked(bits.div_ceil(8)) else {
            bail!("a packet ends in its header")
        };
        let sizes: Vec<usize> = (0..bits / header_bits as usize)
            .map(|unit| read_bits(headers, unit * header_bits as usize, size_bits))
            .collect();
        if let [size] = sizes[..]
            && (size > data.len() || !self.fragment.is_empty())
        {
            return Ok(self.join(size, data, packet.marker));
        }
        self.fragment.clear();
        let mut units = Vec::with_capacity(sizes.len());
        for size in sizes {
            let Some((unit, behind)) = data.split_at_checked(size) else { bail!("a packet ends in a unit") };
            units.push(unit.to_vec());
            data = behind;
        }
        Ok(units)
    }

    /// Adds a fragment of a unit of this size; the unit, once it is whole.
    fn join(&mut self, size: usize, data: &[u8], last: bool) -> Vec<Vec<u8>> {
        if self.expected != size || size > MAX_UNIT {
            self.fragment.clear();
        }
        self.expected = size;
        self.fragment.extend_from_slice(data);
        if self.fragment.len() < size && !last {
            return Vec::new();
        }
        let unit = std::mem::take(&mut self.fragment);
        if unit.len() == size { vec![unit] } else { Vec::new() }
    }
}

/// Up to 16 bits from bit `from` on, the first of a byte being its highest; 0 beyond the end.
fn read_bits(bytes: &[u8], from: usize, count: u32) -> usize {
    (from..from + count as usize).fold(0, |value, at| {
        let bit = bytes.get(at / 8).map_or(0, |byte| (byte >> (7 - at % 8)) & 1);
        value << 1 | usize::from(bit)
    })
}

/// The time stamps of a connection, as a count of lost samples between its packets.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The stamp that the next packet should have.
    expected: Option<u32>,
}

impl Timeline {
    /// The samples that are missing, at `rate` a second, before a packet of `samples`; `clock` is the stamps' rate. `known`:
    /// packets are known to be missing.
    pub(super) fn advance(&mut self, timestamp: u32, known: bool, samples: usize, clock: u32, rate: u32) -> u64 {
        let per_clock = f64::from(rate) / f64::from(clock.max(1));
        let deviation = self.expected.map_or(0, |expected| timestamp.wrapping_sub(expected) as i32);
        let deviation_s = f64::from(deviation) / f64::from(clock.max(1));
        let length = (samples as f64 / per_clock).round() as u32;
        let tolerance = if known { 0.0 } else { TOLERANCE_S };
        let (lost, begins) = match deviation_s {
            late if late > tolerance && late <= MAX_LOSS_S => {
                ((f64::from(deviation) * per_clock).round() as u64, timestamp)
            }
            // The clock was set.
            far if !(-TOLERANCE_S..=MAX_LOSS_S).contains(&far) => (0, timestamp),
            _ => (0, self.expected.unwrap_or(timestamp)),
        };
        self.expected = Some(begins.wrapping_add(length));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16) -> Packet {
        Packet { sequence, timestamp: 0, payload_type: 0, marker: false, payload: Vec::new() }
    }

    fn order(patient: bool, sequences: &[u16]) -> Vec<(u16, u16)> {
        let (mut sequencer, mut delivered) = (Sequencer::new(patient), Vec::new());
        for &sequence in sequences {
            let due = sequencer.push(packet(sequence));
            delivered.extend(due.into_iter().map(|(packet, missing)| (packet.sequence, missing)));
        }
        delivered
    }

    #[test]
    fn packets_come_in_order_and_losses_are_counted() {
        assert_eq!(order(true, &[65_534, 0, 65_535, 1, 1]), [(65_534, 0), (65_535, 0), (0, 0), (1, 0)]);
        assert_eq!(order(false, &[5, 6, 9, 7]), [(5, 0), (6, 0), (9, 2)]);
        let ahead: Vec<u16> = std::iter::once(1).chain(3..12).collect();
        let delivered = order(true, &ahead);
        assert_eq!(delivered[..3], [(1, 0), (3, 1), (4, 0)]);
        assert_eq!(order(true, &[10, 30_000, 30_001]), [(10, 0), (30_000, 0), (30_001, 0)]);
        assert_eq!(order(true, &[40_000, 10_000, 10_001]), [(40_000, 0), (10_000, 0), (10_001, 0)]);
    }

    #[test]
    fn headers_are_skipped_and_damage_is_none() {
        let mut bytes = vec![0xB1, 0x88, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4];
        bytes.extend([9; 4]);
        bytes.extend([0, 0, 0, 1, 5, 5, 5, 5]);
        bytes.extend([0xAA, 0xBB, 0, 2]);
        let parsed = Packet::parse(&bytes).unwrap();
        assert_eq!((parsed.sequence, parsed.timestamp, parsed.payload_type, parsed.marker), (7, 9, 8, true));
        assert_eq!(parsed.payload, [0xAA, 0xBB]);
        let mut random = fastrand::Rng::with_seed(3);
        for length in 0..200 {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = Packet::parse(&noise);
        }
        assert_eq!(Packet::parse(&[0x80; 11]), None);
    }

    #[test]
    fn units_of_aac_are_unpacked_also_from_fragments() {
        let format =
            Format { codec: PacketCodec::Aac { config: Vec::new() }, clock: 1, channels: 1, header_bits: (13, 3) };
        let with = |payload: &[u8], marker| Packet { payload: payload.to_vec(), marker, ..packet(0) };
        let mut unpacker = Unpacker::default();
        let two = with(&[0, 32, 0, 2 << 3, 0, 1 << 3, 1, 2, 3], true);
        assert_eq!(unpacker.unpack(&two, 0, &format).unwrap(), [vec![1, 2], vec![3]]);
        let first = with(&[0, 16, 0, 3 << 3, 1, 2], false);
        assert!(unpacker.unpack(&first, 0, &format).unwrap().is_empty());
        let last = with(&[0, 16, 0, 3 << 3, 3], true);
        assert_eq!(unpacker.unpack(&last, 0, &format).unwrap(), [vec![1, 2, 3]]);
        assert!(unpacker.unpack(&first, 0, &format).unwrap().is_empty());
        assert!(unpacker.unpack(&last, 1, &format).unwrap().is_empty(), "its beginning was lost");
        let mut random = fastrand::Rng::with_seed(3);
        for length in 0..400 {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = unpacker.unpack(&with(&noise, random.bool()), 0, &format);
        }
    }

    #[test]
    fn time_stamps_tell_what_is_lost() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.advance(u32::MAX - 99, false, 320, 8_000, 16_000), 0, "the first");
        assert_eq!(timeline.advance(60, false, 320, 8_000, 16_000), 0, "wraps");
        assert_eq!(timeline.advance(220 + 800, false, 320, 8_000, 16_000), 0, "imprecise");
        assert_eq!(timeline.advance(380 + 800, true, 320, 8_000, 16_000), 1_600, "a known loss");
        assert_eq!(timeline.advance(1_340 + 8_000, false, 320, 8_000, 16_000), 16_000, "a gap");
        assert_eq!(timeline.advance(9_500 + 8_000 * 3_600, false, 320, 8_000, 16_000), 0, "the clock was set");
        assert_eq!(timeline.advance(0, false, 320, 8_000, 16_000), 0, "and back");
        assert_eq!(timeline.advance(160, false, 320, 8_000, 16_000), 0);
    }
}
