//! Classifies transport errors as transient or final, with a message and a hint.

use std::io;

use rustls::CertificateError;
use ureq::Timeout;

use crate::error::{Error, ErrorKind, system_text};

/// Hint for a connection through a proxy.
pub(super) const PROXY: &str =
    "HTTPS_PROXY and NO_PROXY set which hosts are reached through a proxy";

/// Hint for a transfer that broke off.
pub(super) const RESUMABLE: &str = "try again: the bytes received so far are kept";

/// Hint for a host that cannot be reached.
const UNREACHABLE: &str =
    "check that this node can reach the host, directly or through a proxy (HTTPS_PROXY)";

/// Returns whether no connection was made: behind a proxy, none to the proxy.
pub(super) fn is_about_connecting(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            true
        }
        ureq::Error::Io(error) => {
            error.kind() == io::ErrorKind::ConnectionRefused || is_about_name(error)
        }
        _ => false,
    }
}

/// Returns whether the name is unknown, in the words of musl's resolver: `std` has no kind for it.
fn is_about_name(error: &io::Error) -> bool {
    error.to_string().contains("Name does not resolve")
}

/// Returns an error that another try may overcome.
pub(super) fn transient(text: String, hint: &str) -> Error {
    Error::new(text).with_kind(ErrorKind::Transient).with_hint(hint)
}

/// Converts an error of `ureq` about a request to `host`. `read_timeout` is in seconds.
pub(super) fn from_ureq(host: &str, error: ureq::Error, read_timeout: u64) -> Error {
    let reach = |kind, cause: &str, hint: &str| {
        Error::new(format!("cannot reach {host}: {cause}")).with_kind(kind).with_hint(hint)
    };
    let unknown = || {
        reach(
            ErrorKind::Unreachable,
            "no such host",
            "check the name of the server; behind a proxy, set HTTPS_PROXY",
        )
    };
    match error {
        ureq::Error::HostNotFound => unknown(),
        ureq::Error::Io(error) if is_about_name(&error) => unknown(),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            reach(ErrorKind::Unreachable, "connection timed out", UNREACHABLE)
        }
        ureq::Error::Timeout(_) => stalled(host, read_timeout),
        ureq::Error::ConnectProxyFailed(text) => reach(
            ErrorKind::Unreachable,
            &format!("the proxy refused the connection: {text:.200}"),
            PROXY,
        ),
        ureq::Error::InvalidProxyUrl => reach(
            ErrorKind::Other,
            "invalid proxy URL",
            "check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY",
        ),
        ureq::Error::Rustls(error) => tls(host, &error),
        ureq::Error::Io(error) => from_io(host, &error, read_timeout),
        ureq::Error::Protocol(error) => transient(
            format!("invalid HTTP from {host}: {error:.200}"),
            "try again; a proxy or firewall may be in between",
        ),
        other => transient(format!("cannot talk to {host}: {other:.200}"), "try again"),
    }
}

/// Converts an error of the operating system, or of TLS below `std::io`.
pub(super) fn from_io(host: &str, error: &io::Error, read_timeout: u64) -> Error {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls(host, error);
    }
    if let Some(ureq::Error::Timeout(_)) = inner.and_then(|inner| inner.downcast_ref()) {
        return stalled(host, read_timeout);
    }
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            return Error::new(format!("cannot reach {host}: Connection refused"))
                .with_kind(ErrorKind::Unreachable)
                .with_hint("check that the registry is running, and its port");
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return stalled(host, read_timeout),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            return Error::new(format!("cannot reach {host}: no route to host"))
                .with_kind(ErrorKind::Unreachable)
                .with_hint(UNREACHABLE);
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the server closed the connection".to_owned(),
        _ => system_text(error),
    };
    transient(format!("cannot talk to {host}: {cause:.200}"), "try again")
}

fn stalled(host: &str, seconds: u64) -> Error {
    transient(format!("{host} sent nothing for {seconds} s"), RESUMABLE)
}

#[cold]
fn tls(host: &str, error: &rustls::Error) -> Error {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    if let InvalidMessage(_) = error {
        return Error::new(format!("cannot talk to {host}: the server does not speak TLS"))
            .with_kind(ErrorKind::NotTls);
    }
    let (cause, hint) = match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => (
            "certificate signed by an unknown authority".to_owned(),
            format!(
                "put the certificate of the authority into /etc/docker/certs.d/{host}/ca.crt, or set SSL_CERT_FILE"
            ),
        ),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
            "the certificate has expired".to_owned(),
            "if the clock of this node is right, the administrator of the registry must renew it"
                .to_owned(),
        ),
        InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => (
            "the certificate is not yet valid".to_owned(),
            "check the clock of this node".to_owned(),
        ),
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            "the certificate is for another name".to_owned(),
            "use the name that the certificate is for".to_owned(),
        ),
        InvalidCertificate(other) => (
            format!("invalid certificate: {other:.200}"),
            "the administrator of the registry must replace it".to_owned(),
        ),
        other => (format!("{other:.200}"), "a proxy or firewall may be in between".to_owned()),
    };
    Error::new(format!("cannot trust {host}: {cause}")).with_hint(hint)
}
