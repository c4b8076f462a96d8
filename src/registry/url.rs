//! URLs as servers write them, in challenges and redirects.

use std::fmt;

use ureq::http::Uri;

use crate::error::{Context, Error, Result};

/// Returns whether `host[:port]` is this machine itself.
#[must_use]
pub fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// An absolute URL with a host, by http or https.
#[derive(Debug, Clone)]
pub struct Url(pub(super) Uri);

impl Url {
    /// Parses an absolute URL.
    pub fn parse(text: &str) -> Result<Self> {
        // The query may hold a signature that grants access.
        let shown = text.split('?').next().unwrap_or_default();
        let context = || format!("cannot use the URL {shown:.200}");
        let uri: Uri = text.parse().map_err(|_| Error::new("malformed")).context(context)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        // A part before an @ would be sent as credentials.
        let has_no_user = uri.authority().is_some_and(|who| !who.as_str().contains('@'));
        if known && has_no_user && uri.host().is_some_and(|host| !host.is_empty()) {
            return Ok(Self(uri));
        }
        Err(Error::new("expected http or https, and a host")).context(context)
    }

    /// Builds the URL of a path of the registry's API.
    pub fn registry(server: &str, plain: bool, path: &str) -> Result<Self> {
        Self::parse(&format!("{}://{server}/v2/{path}", if plain { "http" } else { "https" }))
    }

    /// Appends `query`, which is already encoded.
    pub fn with_query(&self, query: &str) -> Result<Self> {
        let mark = if self.0.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{mark}{query}", self.0))
    }

    /// Resolves the target of a redirect (RFC 9110, section 10.2.2).
    pub fn join(&self, location: &str) -> Result<Self> {
        let scheme = self.0.scheme_str().unwrap_or("https");
        let host = self.host();
        if location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?'])) {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{host}{location}"))
        } else {
            let path = self.0.path();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::parse(&format!("{scheme}://{host}{folder}/{location}"))
        }
    }

    pub fn is_plain(&self) -> bool {
        self.0.scheme_str() == Some("http")
    }

    /// Returns `host[:port]`.
    pub fn host(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub fn is_same_server(&self, other: &Self) -> bool {
        let port = |url: &Self| url.0.port_u16().unwrap_or(if url.is_plain() { 80 } else { 443 });
        self.is_plain() == other.is_plain()
            && self.0.host() == other.0.host()
            && port(self) == port(other)
    }

    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_go() {
        let base = Url::parse("https://a.example:5000/v2/x/blobs/1?y=1").unwrap();
        for (location, expected) in [
            ("https://b/c?d=http://e", "https://b/c?d=http://e"),
            ("//b/c", "https://b/c"),
            ("/c?d=http://e", "https://a.example:5000/c?d=http://e"),
            ("c", "https://a.example:5000/v2/x/blobs/c"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), expected);
        }
        for location in ["file:///etc/passwd", "ftp://b/c", "https://", "http://u@b/", "gopher://x"]
        {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn only_the_same_server_is_the_same() {
        let base = Url::parse("https://a/b").unwrap();
        for (other, same) in [
            ("https://a:443/c", true),
            ("https://a:444/c", false),
            ("http://a:443/c", false),
            ("https://a.b/c", false),
        ] {
            assert_eq!(base.is_same_server(&Url::parse(other).unwrap()), same, "{other}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (server, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.8.9.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example.org", false),
            ("128.0.0.1:5000", false),
            ("127.0.0.1.example.org", false),
        ] {
            assert_eq!(is_loopback(server), loopback, "{server}");
        }
    }
}
