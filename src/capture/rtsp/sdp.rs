//! The description of a session (SDP, RFC 8866): which sound there is, how it is encoded, and where it is asked for.
//!
//! Read with patience: cameras write much that the standard does not know.

use anyhow::{Result, bail};
use clapd_core::decode::PacketCodec;

/// One `m=audio`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    /// Where it is asked for; may be relative.
    pub(super) control: String,
    /// What its packets may hold, by their payload type.
    pub(super) formats: Vec<(u8, Format)>,
}

/// How packets of one payload type are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) codec: PacketCodec,
    /// Of the time stamps, in Hz.
    pub(super) clock: u32,
    pub(super) channels: usize,
    /// Bits of an AAC access unit's size and index; 0 for other encodings.
    pub(super) header_bits: (u32, u32),
}

/// As `a=rtpmap` says it, or as the standard does for small payload types (RFC 3551).
#[derive(Debug, Clone)]
struct Map {
    name: String,
    clock: u32,
    channels: usize,
}

impl Map {
    fn of_type(payload: u8) -> Option<Self> {
        let (name, clock, channels) = match payload {
            0 => ("PCMU", 8_000, 1),
            8 => ("PCMA", 8_000, 1),
            9 => ("G722", 8_000, 1),
            10 => ("L16", 44_100, 2),
            11 => ("L16", 44_100, 1),
            14 => ("MPA", 90_000, 1),
            _ => return None,
        };
        Some(Self { name: name.into(), clock, channels })
    }

    /// `NAME/CLOCK[/CHANNELS]`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('/');
        let (name, clock) = (parts.next()?.to_ascii_uppercase(), parts.next()?.trim().parse().ok()?);
        let channels = parts.next().and_then(|channels| channels.trim().parse().ok()).unwrap_or(1);
        Some(Self { name, clock, channels }).filter(|map| map.clock > 0)
    }
}

/// The first track of sound that can be decoded, with its index among all media.
///
/// # Errors
/// There is no sound, or none that can be decoded: what there is.
pub(super) fn find_track(text: &str) -> Result<Track> {
    let (mut unread, mut media) = (Vec::new(), Vec::new());
    for section in text.split("\nm=").skip(1) {
        let kind = section.split(' ').next().unwrap_or_default();
        if kind != "audio" {
            media.push(kind.chars().filter(char::is_ascii_alphanumeric).take(20).collect::<String>());
            continue;
        }
        match read_track(section) {
            Ok(track) => return Ok(track),
            Err(names) => unread.extend(names),
        }
    }
    if unread.is_empty() {
        let media = if media.is_empty() { "nothing".to_owned() } else { media.join(" and ") };
        bail!(
            "it sends no sound ({media} only); switch sound on in the camera's settings, or take another of its urls"
        );
    }
    bail!(
        "its sound is {}, which is not decoded; AAC-LC, Opus, G.711 and L16 are: choose one of them in the camera's settings, or let \
         go2rtc or ffmpeg convert it",
        unread.join(" and ")
    )
}

/// The track, or the names of its encodings.
fn read_track(section: &str) -> Result<Track, Vec<String>> {
    let mut lines = section.lines().map(str::trim_end);
    // "audio PORT PROTOCOL TYPE..."
    let types: Vec<u8> =
        lines.next().unwrap_or_default().split(' ').skip(3).filter_map(|kind| kind.parse().ok()).collect();
    let attributes: Vec<(&str, &str)> = lines.filter_map(|line| line.strip_prefix("a=")?.split_once(':')).collect();
    let of_type = |name: &str, payload: u8| {
        attributes.iter().filter(|(key, _)| *key == name).find_map(|(_, value)| {
            let (kind, rest) = value.trim_start().split_once(' ')?;
            (kind.parse() == Ok(payload)).then_some(rest)
        })
    };
    let (mut formats, mut names) = (Vec::new(), Vec::new());
    for payload in types {
        let map = of_type("rtpmap", payload).and_then(Map::parse).or_else(|| Map::of_type(payload));
        let Some(map) = map else { continue };
        match format(&map, of_type("fmtp", payload).unwrap_or_default()) {
            Some(format) => formats.push((payload, format)),
            None => names.push(map.name.chars().filter(|c| c.is_ascii_graphic()).take(30).collect()),
        }
    }
    if formats.is_empty() {
        return Err(if names.is_empty() { vec!["not named".into()] } else { names });
    }
    let control = attributes.iter().find(|(key, _)| *key == "control").map_or("", |(_, value)| value.trim());
    Ok(Track { control: control.to_owned(), formats })
}

/// None: nothing that is decoded.
fn format(map: &Map, parameters: &str) -> Option<Format> {
    let (mut header_bits, mut clock) = ((0, 0), map.clock);
    let codec = match map.name.as_str() {
        "PCMU" => PacketCodec::Mulaw,
        "PCMA" => PacketCodec::Alaw,
        "L16" => PacketCodec::Pcm16,
        "L24" => PacketCodec::Pcm24,
        "OPUS" => PacketCodec::Opus,
        "MPEG4-GENERIC" => {
            let get = |name: &str| {
                parameters.split(';').find_map(|parameter| {
                    let (key, value) = parameter.split_once('=')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            let bits = |name, usual| get(name).map_or(Some(usual), |bits| bits.parse().ok()).filter(|bits| *bits <= 16);
            header_bits = (bits("sizelength", 13)?, bits("indexlength", 3)?);
            PacketCodec::Aac { config: parse_hex(get("config")?)? }
        }
        _ => return None,
    };
    // G.711 has a clock of its samples, whatever a camera writes beyond that.
    clock = clock.max(1);
    Some(Format { codec, clock, channels: map.channels, header_bits })
}

/// At most 64 bytes: a configuration of AAC has 2 to 7.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 128 {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: &str = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=Media Presentation\r\na=control:*\r\n\
        m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=1\r\n\
        m=audio 0 RTP/AVP 104\r\nb=AS:50\r\na=control:trackID=2\r\na=rtpmap:104 mpeg4-generic/16000/1\r\n\
        a=fmtp:104 profile-level-id=15; streamtype=5; mode=AAC-hbr; config=1408;SizeLength=13; IndexLength=3; IndexDeltaLength=3\r\n";

    #[test]
    fn the_sound_of_a_camera_is_found() {
        let track = find_track(CAMERA).unwrap();
        let format = Format {
            codec: PacketCodec::Aac { config: vec![0x14, 0x08] },
            clock: 16_000,
            channels: 1,
            header_bits: (13, 3),
        };
        assert_eq!(track, Track { control: "trackID=2".into(), formats: vec![(104, format)] });
    }

    #[test]
    fn types_without_a_map_are_the_standards() {
        let track = find_track("v=0\nm=audio 0 RTP/AVP 8 0 97\na=rtpmap:97 L16/48000/2\n").unwrap();
        let codecs: Vec<_> =
            track.formats.iter().map(|(kind, f)| (*kind, f.codec.clone(), f.clock, f.channels)).collect();
        assert_eq!(
            codecs,
            [(8, PacketCodec::Alaw, 8_000, 1), (0, PacketCodec::Mulaw, 8_000, 1), (97, PacketCodec::Pcm16, 48_000, 2)]
        );
    }

    #[test]
    fn what_is_not_there_or_not_decoded_is_named() {
        let error = |text: &str| find_track(text).unwrap_err().to_string();
        assert!(error("v=0\nm=video 0 RTP/AVP 96\n").contains("video only"));
        assert!(error("").contains("no sound"));
        let error = error("v=0\nm=audio 0 RTP/AVP 9\nm=audio 0 RTP/AVP 97\na=rtpmap:97 G726-32/8000\n");
        assert!(error.contains("G722 and G726-32"), "{error}");
        for damaged in ["v=0\nm=audio", "v=0\nm=audio 0 RTP/AVP 97\na=rtpmap:97 x/0\n", "v=0\nm=audio 0 RTP/AVP 300"] {
            assert!(find_track(damaged).is_err(), "{damaged:?}");
        }
    }
}
