//! Choice of a proxy by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` and their lower-case
//! forms, read as curl and Go read them.

use ureq::{Proxy, ProxyProtocol};

use crate::error::{Context, Error, Result};

/// Returns the proxy for `server` (`host[:port]`), if the environment sets one.
pub fn for_server(plain: bool, server: &str) -> Result<Option<Proxy>> {
    choose(plain, server, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn choose(
    plain: bool,
    server: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>> {
    let either = |lower: &str| variable(lower).or_else(|| variable(&lower.to_uppercase()));
    let name = if plain { "http_proxy" } else { "https_proxy" };
    let Some(proxy) = either(name).or_else(|| either("all_proxy")) else { return Ok(None) };
    let exempt = either("no_proxy").is_some_and(|list| is_exempt(&list, server));
    if exempt || super::is_loopback(server) {
        return Ok(None);
    }
    // The URL may hold a password, so it is not shown.
    let context = || format!("cannot use the proxy of {}", name.to_uppercase());
    let parsed = Proxy::new(&proxy).map_err(|_| "invalid URL").context(context)?;
    match parsed.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(Some(parsed)),
        _ => Err(Error::new("only http and https proxies are supported"))
            .context(context)
            .map_err(|error| error.with_hint("check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY")),
    }
}

/// Returns whether `list`, the value of `NO_PROXY`, has `server`: by host, by domain (`.example.org` or `example.org`), with a port
/// or without, by network (`10.0.0.0/8`), or by `*`.
fn is_exempt(list: &str, server: &str) -> bool {
    let split = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (host.to_ascii_lowercase(), Some(port.to_owned()))
        }
        _ => (text.to_ascii_lowercase(), None),
    };
    let (host, port) = split(server);
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return is_in_network(&host, network, bits);
        }
        let (domain, wanted) = split(entry);
        let domain = domain.trim_start_matches('*').trim_start_matches('.').to_owned();
        let inside =
            host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        inside && !domain.is_empty() && (wanted.is_none() || wanted == port)
    })
}

fn is_in_network(host: &str, network: &str, bits: &str) -> bool {
    let address = |text: &str| text.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
    let (Some(host), Some(network)) = (address(host), address(network)) else { return false };
    let bits = bits.parse::<u32>().ok().filter(|bits| *bits <= 32);
    bits.is_some_and(|bits| u64::from(host ^ network) >> (32 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_by_name_domain_port_and_network() {
        for (list, server, exempt) in [
            ("", "a.example.org", false),
            ("*", "a.example.org", true),
            ("example.org", "a.example.org", true),
            (".example.org", "a.example.org:5000", true),
            ("*.example.org", "a.example.org", true),
            ("example.org", "badexample.org", false),
            ("b, A.Example.org", "a.example.org", true),
            ("a.example.org:443", "a.example.org:5000", false),
            ("a.example.org:5000", "a.example.org:5000", true),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/99", "10.0.0.0", false),
            ("0.0.0.0/0", "10.1.2.3", true),
        ] {
            assert_eq!(is_exempt(list, server), exempt, "{list} for {server}");
        }
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        let set = |name: &str| match name {
            "https_proxy" => Some("http://secure:1".to_owned()),
            "HTTP_PROXY" => Some("http://plain:2".to_owned()),
            "NO_PROXY" => Some("near.example".to_owned()),
            _ => None,
        };
        let host = |plain, server| {
            choose(plain, server, set).unwrap().map(|proxy| proxy.host().to_owned())
        };
        assert_eq!(host(false, "far.example").as_deref(), Some("secure"));
        assert_eq!(host(true, "far.example:80").as_deref(), Some("plain"));
        assert_eq!(host(false, "near.example"), None);
        assert_eq!(host(true, "127.0.0.1:5000"), None);
        let socks = |name: &str| (name == "ALL_PROXY").then(|| "socks5://127.0.0.1:1".to_owned());
        assert!(choose(false, "far.example", socks).unwrap_err().to_string().contains("only"));
        let bad = |name: &str| (name == "all_proxy").then(|| "http://u:secret@".to_owned());
        let error = choose(false, "far.example", bad).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
