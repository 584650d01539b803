//! How a server's question for a password is answered: Basic (RFC 7617) and Digest (RFC 7616, and RFC 2069 of old cameras).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clapd_core::files::hexadecimal;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::super::live_source::Credentials;

/// The value of an `Authorization` header that says the password itself.
pub(in super::super) fn basic(credentials: &Credentials) -> String {
    let Credentials { user, password } = credentials;
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A server's question, which holds for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Digest(DigestChallenge),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DigestChallenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    sha256: bool,
    /// The digest covers a nonce of ours and a count (`qop=auth`).
    counted: bool,
}

impl Challenge {
    /// The best question among those that a server asks, one a header; none that we can answer: `None`.
    pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let rank = |challenge: &Self| match challenge {
            Self::Basic => 0,
            Self::Digest(digest) => 1 + u8::from(digest.sha256),
        };
        headers.filter_map(Self::parse).max_by_key(rank)
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let parameters = split_parameters(parameters);
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let sha256 = match get("algorithm").unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "MD5" => false,
            "SHA-256" => true,
            _ => return None,
        };
        let counted = match get("qop") {
            None => false,
            Some(qop) if qop.split(',').any(|word| word.trim().eq_ignore_ascii_case("auth")) => true,
            // Of the message's body, which we don't send.
            Some(_) => return None,
        };
        let nonce = get("nonce")?;
        Some(Self::Digest(DigestChallenge { realm: get("realm")?, nonce, opaque: get("opaque"), sha256, counted }))
    }

    /// The value of the `Authorization` header for the request with this count, from 1.
    pub(super) fn answer(&self, credentials: &Credentials, method: &str, uri: &str, count: u32) -> String {
        match self {
            Self::Basic => basic(credentials),
            Self::Digest(digest) => {
                digest.answer(credentials, method, uri, count, &format!("{:016x}", fastrand::u64(..)))
            }
        }
    }
}

impl DigestChallenge {
    fn answer(&self, credentials: &Credentials, method: &str, uri: &str, count: u32, cnonce: &str) -> String {
        let Self { realm, nonce, opaque, sha256, counted } = self;
        let Credentials { user, password } = credentials;
        let hash =
            |text: String| if *sha256 { hexadecimal(&Sha256::digest(text)) } else { hexadecimal(&Md5::digest(text)) };
        let (secret, request) = (hash(format!("{user}:{realm}:{password}")), hash(format!("{method}:{uri}")));
        let response = if *counted {
            hash(format!("{secret}:{nonce}:{count:08x}:{cnonce}:auth:{request}"))
        } else {
            hash(format!("{secret}:{nonce}:{request}"))
        };
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut answer = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\"",
            quoted(user),
            quoted(realm)
        );
        if let Some(opaque) = opaque {
            answer += &format!(", opaque=\"{opaque}\"");
        }
        if *sha256 {
            answer += ", algorithm=SHA-256";
        }
        if *counted {
            answer += &format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
        }
        answer
    }
}

/// `key=value` and `key="value"`, separated by commas; keys in small letters.
fn split_parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((key, behind)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let behind = behind.trim_start();
        let value = if let Some(quoted) = behind.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            rest = quoted.get(end + 1..).unwrap_or_default();
            &quoted[..end]
        } else {
            let end = behind.find(',').unwrap_or(behind.len());
            rest = &behind[end..];
            behind[..end].trim()
        };
        parameters.push((key, value.to_owned()));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa() -> Credentials {
        Credentials { user: "Mufasa".into(), password: "Circle of Life".into() }
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 7616, section 3.9.1, with both algorithms; then RFC 2069's form, as computed by its formula.
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let challenge = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, nonce=\"{nonce}\", opaque=\"x\""
            )
        };
        for (algorithm, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let Some(Challenge::Digest(digest)) = Challenge::best([challenge(algorithm).as_str()].into_iter()) else {
                panic!("is a digest");
            };
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let answer = digest.answer(&mufasa(), "GET", "/dir/index.html", 1, cnonce);
            assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
            assert!(answer.contains("opaque=\"x\"") && answer.contains("nc=00000001"), "{answer}");
        }
        let old = Challenge::best(["Digest realm=\"IP Camera(12345)\",nonce=\"abc\",stale=\"FALSE\""].into_iter());
        let answer = old.unwrap().answer(&mufasa(), "DESCRIBE", "rtsp://x/", 7);
        assert!(answer.contains("nonce=\"abc\"") && !answer.contains("qop"), "{answer}");
    }

    #[test]
    fn the_best_question_is_answered_and_an_unknown_one_is_not() {
        let best = |headers: &[&str]| Challenge::best(headers.iter().copied());
        assert_eq!(best(&["Basic realm=\"x\"", "Negotiate"]), Some(Challenge::Basic));
        assert!(matches!(
            best(&["Basic realm=\"x\"", "Digest realm=\"x\", nonce=\"y\""]),
            Some(Challenge::Digest(DigestChallenge { sha256: false, .. }))
        ));
        for unknown in ["Negotiate", "", "Digest realm=\"x\"", "Digest realm=\"x\", nonce=\"y\", algorithm=MD5-sess"] {
            assert_eq!(best(&[unknown]), None, "{unknown:?}");
        }
        assert_eq!(basic(&mufasa()), "Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl");
    }
}
