//! Who may read and who may write, and whose requests are none of ours.
//!
//! A request comes from a browser that may show any page of the world. So its `Host` must be a name of ours (else a stranger's name that
//! was pointed at this address could read everything), and what changes something must come from our own page. Only then it is asked who
//! sends it: by a token in a header or a cookie, or by Home Assistant's word, where the proxy is trusted.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method};
use clapd_core::files::hexadecimal;
use sha2::{Digest, Sha256};

use crate::config::{Access, HttpSpec, Secret};

/// What Home Assistant's ingress says is the page's path in the browser.
const INGRESS_PATH: HeaderName = HeaderName::from_static("x-ingress-path");
/// Ingress has `/api/hassio_ingress/` and a token of 43 letters.
const MAX_INGRESS_PATH: usize = 200;
/// Browsers say so where the connection is trustworthy to them.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A month: who opens the page now and then on the wall of the hall is not asked again, and a lost phone is.
const COOKIE_SECONDS: u32 = 30 * 24 * 3600;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Read,
    Write,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Why a request is no business of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It was sent to a name that is not ours.
    Host,
    /// Another page sent it.
    Page,
}

/// What is known of whoever sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visitor {
    /// May do this much.
    Known(Role),
    /// Has shown no token.
    Unknown,
    /// Has shown a wrong one.
    Wrong,
}

/// A token's digest: comparing digests tells nobody by its time how much of a token is right.
#[derive(Clone, Copy)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    fn is(self, other: Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

/// A token: its digest, and the cookie that stands in for it.
struct Token {
    role: Role,
    digest: TokenDigest,
    cookie: String,
    cookie_digest: TokenDigest,
}

impl Token {
    fn new(role: Role, token: &Secret) -> Self {
        // The cookie is not the token, so that what a browser stores is of no use elsewhere; it needs no table, and ends with its token.
        let mut hasher = Sha256::new();
        hasher.update(b"clapd cookie\0");
        hasher.update(role.name());
        hasher.update(b"\0");
        hasher.update(token.reveal());
        let cookie = hexadecimal(&hasher.finalize());
        let cookie_digest = TokenDigest::of(&cookie);
        Self { role, digest: TokenDigest::of(token.reveal()), cookie, cookie_digest }
    }
}

/// Decides.
pub(super) struct Gate {
    access: Access,
    tokens: Vec<Token>,
    proxies: Vec<IpAddr>,
    hosts: Vec<String>,
    /// Two nodes on one computer share its name, and so browsers send each the other's cookies.
    cookie: String,
}

impl Gate {
    pub(super) fn new(spec: &HttpSpec, node: &str) -> Self {
        let write = spec.write_token.iter().map(|token| Token::new(Role::Write, token));
        let read = spec.read_token.iter().map(|token| Token::new(Role::Read, token));
        Self {
            access: spec.access,
            tokens: write.chain(read).collect(),
            proxies: spec.trusted_proxies.clone(),
            hosts: spec.allowed_hosts.clone(),
            cookie: format!("clapd_{node}"),
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Whether somebody could get to write with a token.
    pub(super) fn has_tokens(&self) -> bool {
        self.access != Access::Off && !self.tokens.is_empty()
    }

    /// Whether Home Assistant's ingress sends this, for somebody who has logged in there.
    fn is_ingress(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let allowed = |path: &str| {
            path.starts_with('/')
                && path.len() <= MAX_INGRESS_PATH
                && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte))
        };
        self.is_trusted(peer) && single(headers, &INGRESS_PATH).is_some_and(allowed)
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.proxies.contains(&peer.to_canonical())
    }

    /// Whether this request should not have come here at all.
    pub(super) fn foreign(&self, peer: IpAddr, method: &Method, headers: &HeaderMap) -> Option<Foreign> {
        let host = single(headers, &HOST);
        // Ingress sends on the name that Home Assistant goes by, and has seen to it that it is its own.
        if !self.is_ingress(peer, headers) && !host.is_some_and(|host| self.is_own_host(host)) {
            return Some(Foreign::Host);
        }
        if method.is_safe() {
            return None;
        }
        let is_other_site = single(headers, &FETCH_SITE).is_some_and(|site| !["same-origin", "none"].contains(&site));
        // Where a proxy has put a name of its own in the place of the host's, the browser's word on the site is the better one.
        let is_same_site = headers.contains_key(FETCH_SITE) && !is_other_site;
        let is_other_origin = headers.contains_key(ORIGIN)
            && !single(headers, &ORIGIN).is_some_and(|origin| {
                origin
                    .split_once("://")
                    .is_some_and(|(_, origin)| host.is_some_and(|host| host.eq_ignore_ascii_case(origin)))
            });
        (is_other_site || (is_other_origin && !is_same_site)).then_some(Foreign::Page)
    }

    /// A name that is ours, or an address: no name leads there, so nobody can have pointed one at it.
    fn is_own_host(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || self.hosts.binary_search(&name).is_ok()
    }

    /// Who sends this request.
    pub(super) fn visitor(&self, peer: IpAddr, headers: &HeaderMap) -> Visitor {
        if self.access == Access::Off || self.is_ingress(peer, headers) {
            return Visitor::Known(Role::Write);
        }
        let anybody = if self.access == Access::Read { Visitor::Known(Role::Read) } else { Visitor::Unknown };
        if let Some(value) = headers.get(AUTHORIZATION) {
            let token = value.to_str().ok().and_then(|value| value.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let role = token.and_then(|(_, token)| self.role_of(token.trim()));
            return role.map_or(Visitor::Wrong, Visitor::Known);
        }
        match self.role_of_cookie(headers) {
            Some(role) => Visitor::Known(role),
            // The cookie of a token that has been changed since is no attack.
            None => anybody,
        }
    }

    /// What a token lets one do.
    fn role_of(&self, token: &str) -> Option<Role> {
        self.token_of(token).map(|token| token.role)
    }

    fn token_of(&self, token: &str) -> Option<&Token> {
        let digest = TokenDigest::of(token);
        self.tokens.iter().find(|known| known.digest.is(digest))
    }

    fn role_of_cookie(&self, headers: &HeaderMap) -> Option<Role> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let roles = pairs.filter(|(name, _)| *name == self.cookie).filter_map(|(_, value)| {
            let digest = TokenDigest::of(value);
            self.tokens.iter().find(|known| known.cookie_digest.is(digest)).map(|token| token.role)
        });
        roles.max()
    }

    /// The cookie for whoever shows this token; none for a wrong one. It has no path, so that a browser sends it back to the folder that
    /// it came from, whatever a proxy calls that.
    pub(super) fn cookie_for(&self, token: &str, is_encrypted: bool) -> Option<(Role, String)> {
        let token = self.token_of(token)?;
        let secure = if is_encrypted { "; Secure" } else { "" };
        let cookie =
            format!("{}={}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict{secure}", self.cookie, token.cookie);
        Some((token.role, cookie))
    }

    /// What has a browser forget the cookie.
    pub(super) fn farewell_cookie(&self) -> String {
        format!("{}=; Max-Age=0; HttpOnly; SameSite=Strict", self.cookie)
    }

    /// Whether the browser's connection is encrypted, as a trusted proxy says.
    pub(super) fn is_encrypted(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let proto = HeaderName::from_static("x-forwarded-proto");
        self.is_trusted(peer) && single(headers, &proto) == Some("https")
    }
}

/// A header that is there once and is text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 32, 2));

    fn gate(access: Access) -> Gate {
        let secret = |text: &str| Some(Secret::new(text.into()));
        let spec = HttpSpec {
            listen: "0.0.0.0:8126".parse().unwrap(),
            access,
            read_token: secret("read-read-read-read"),
            write_token: secret("write-write-write-write"),
            trusted_proxies: vec![PROXY],
            allowed_hosts: vec!["attic".into(), "localhost".into()],
        };
        Gate::new(&spec, "attic")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_name_that_is_not_ours_is_foreign_and_an_address_is_not() {
        let gate = gate(Access::Read);
        let foreign = |host: &str| gate.foreign(PEER, &Method::GET, &headers(&[("host", host)]));
        for own in ["localhost", "LOCALHOST:8126", "attic:80", "attic.", "127.0.0.1:8126", "[::1]:8126", "10.0.0.9"] {
            assert_eq!(foreign(own), None, "{own}");
        }
        for other in ["evil.example", "attic.evil.example", "localhost.evil.example:8126", "", ":8126", "[evil]:80"] {
            assert_eq!(foreign(other), Some(Foreign::Host), "{other}");
        }
        assert_eq!(gate.foreign(PEER, &Method::GET, &headers(&[])), Some(Foreign::Host));
        let twice = headers(&[("host", "attic"), ("host", "evil.example")]);
        assert_eq!(gate.foreign(PEER, &Method::GET, &twice), Some(Foreign::Host));
    }

    #[test]
    fn what_changes_something_comes_from_our_own_page() {
        let gate = gate(Access::Off);
        let post = |more: &[(&'static str, &str)]| {
            gate.foreign(PEER, &Method::POST, &headers(&[&[("host", "attic:8126")], more].concat()))
        };
        let foreign = Some(Foreign::Page);
        assert_eq!(post(&[]), None, "a program sends neither");
        assert_eq!(post(&[("origin", "http://attic:8126")]), None);
        assert_eq!(post(&[("origin", "http://evil.example")]), foreign);
        assert_eq!(post(&[("origin", "null")]), foreign);
        assert_eq!(post(&[("sec-fetch-site", "same-origin"), ("origin", "https://attic.example")]), None);
        for site in ["cross-site", "same-site", "what"] {
            assert_eq!(post(&[("sec-fetch-site", site), ("origin", "http://attic:8126")]), foreign, "{site}");
        }
        let read = headers(&[("host", "attic"), ("origin", "http://evil.example")]);
        assert_eq!(gate.foreign(PEER, &Method::GET, &read), None, "it gets no answer that it could read");
    }

    #[test]
    fn each_token_lets_do_what_it_says_and_so_does_its_cookie() {
        let known = Visitor::Known;
        let anybody = headers(&[]);
        let of =
            |gate: &Gate, token: &str| gate.visitor(PEER, &headers(&[("authorization", &format!("Bearer {token}"))]));
        for (access, stranger) in
            [(Access::Off, known(Role::Write)), (Access::Read, known(Role::Read)), (Access::Token, Visitor::Unknown)]
        {
            assert_eq!(gate(access).visitor(PEER, &anybody), stranger, "{access:?}");
        }
        for access in [Access::Read, Access::Token] {
            let gate = gate(access);
            assert_eq!(of(&gate, "read-read-read-read"), known(Role::Read));
            assert_eq!(of(&gate, "write-write-write-write"), known(Role::Write));
            assert_eq!(of(&gate, "write-write-write-writ"), Visitor::Wrong);
            assert_eq!(gate.visitor(PEER, &headers(&[("authorization", "Basic eDp5")])), Visitor::Wrong);
            let (role, cookie) = gate.cookie_for("write-write-write-write", false).unwrap();
            assert!(cookie.starts_with("clapd_attic=") && !cookie.contains("write-write") && !cookie.contains("Path"));
            let pair = cookie.split(';').next().unwrap();
            let others = format!("clapd_den=ffff; {pair}; x=y");
            assert_eq!((role, gate.visitor(PEER, &headers(&[("cookie", &others)]))), (Role::Write, known(Role::Write)));
            assert_eq!(gate.cookie_for("read-read-read-rea", false), None);
        }
        let old = headers(&[("cookie", "clapd_attic=0123")]);
        assert_eq!(gate(Access::Token).visitor(PEER, &old), Visitor::Unknown);
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_with_a_path_of_ingress() {
        let gate = gate(Access::Token);
        let ingress = headers(&[("host", "ha.example"), ("x-ingress-path", "/api/hassio_ingress/a-b_C9")]);
        assert_eq!(gate.visitor(PROXY, &ingress), Visitor::Known(Role::Write));
        assert_eq!(gate.visitor("::ffff:172.30.32.2".parse().unwrap(), &ingress), Visitor::Known(Role::Write));
        assert_eq!(gate.visitor(PEER, &ingress), Visitor::Unknown, "anybody can send the header");
        assert_eq!(gate.foreign(PROXY, &Method::GET, &ingress), None);
        assert_eq!(gate.foreign(PEER, &Method::GET, &ingress), Some(Foreign::Host));
        for path in ["", "api", "/a?b", "/a b", "//evil.example/<x>"] {
            let headers = headers(&[("host", "ha.example"), ("x-ingress-path", path)]);
            assert_eq!(gate.visitor(PROXY, &headers), Visitor::Unknown, "{path}");
        }
        let twice = headers(&[("x-ingress-path", "/a"), ("x-ingress-path", "/b")]);
        assert_eq!(gate.visitor(PROXY, &twice), Visitor::Unknown);
        let plain = headers(&[("x-forwarded-proto", "https")]);
        assert!(gate.is_encrypted(PROXY, &plain) && !gate.is_encrypted(PEER, &plain));
    }

    proptest! {
        #[test]
        fn no_header_opens_the_gate(name in "host|authorization|cookie|x-ingress-path|origin|sec-fetch-site", value in "[ -~]{0,60}") {
            let name: HeaderName = name.parse().unwrap();
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            let gate = gate(Access::Token);
            gate.foreign(PEER, &Method::POST, &headers);
            let visitor = gate.visitor(PEER, &headers);
            prop_assert!(!matches!(visitor, Visitor::Known(_)));
        }
    }
}
