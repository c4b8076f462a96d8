//! Why the network did not give what it was asked for: in a sentence, and with what may help.

use std::io;

use rustls::CertificateError;
use ureq::Timeout;

use crate::error::{Error, ErrorKind, system_text};

/// What to look at where a proxy is in the way.
pub(super) const PROXY: &str = "HTTPS_PROXY and NO_PROXY say which hosts are reached by a proxy";

/// Whether nobody was reached: behind a proxy, that was the proxy.
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

/// musl's words for a name that nobody knows; others look the same to `std`.
fn is_about_name(error: &io::Error) -> bool {
    error.to_string().contains("Name does not resolve")
}

/// A failure that another try may overcome.
pub(super) fn transient(text: String, hint: &str) -> Error {
    Error::new(text).with_kind(ErrorKind::Transient).with_hint(hint)
}

/// What `ureq` says of a request to `host`; `stall` is how many seconds nothing came.
pub(super) fn from_ureq(host: &str, error: ureq::Error, stall: u64) -> Error {
    let reach = |kind, cause: &str, hint: &str| {
        Error::new(format!("cannot reach {host}: {cause}")).with_kind(kind).with_hint(hint)
    };
    let unknown = || {
        reach(
            ErrorKind::Unreachable,
            "there is no host of this name",
            "check the server's name; behind a proxy, set HTTPS_PROXY",
        )
    };
    match error {
        ureq::Error::HostNotFound => unknown(),
        ureq::Error::Io(error) if is_about_name(&error) => unknown(),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => reach(
            ErrorKind::Unreachable,
            "it does not answer",
            "does this node reach the outside, and by a proxy (HTTPS_PROXY)?",
        ),
        ureq::Error::Timeout(_) => stalled(host, stall),
        ureq::Error::ConnectProxyFailed(text) => {
            reach(ErrorKind::Unreachable, &format!("the proxy refuses: {text:.200}"), PROXY)
        }
        ureq::Error::InvalidProxyUrl => reach(
            ErrorKind::Other,
            "the proxy's URL cannot be understood",
            "see HTTPS_PROXY, HTTP_PROXY, ALL_PROXY",
        ),
        ureq::Error::Rustls(error) => tls(host, &error),
        ureq::Error::Io(error) => from_io(host, &error, stall),
        ureq::Error::Protocol(error) => transient(
            format!("{host} does not speak proper HTTP: {error:.200}"),
            "try again; a proxy or firewall may be in between",
        ),
        other => transient(format!("cannot talk to {host}: {other:.200}"), "try again"),
    }
}

/// What the operating system, or the TLS below `std::io`, says.
pub(super) fn from_io(host: &str, error: &io::Error, stall: u64) -> Error {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls(host, error);
    }
    if let Some(ureq::Error::Timeout(_)) = inner.and_then(|inner| inner.downcast_ref()) {
        return stalled(host, stall);
    }
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            return Error::new(format!("cannot reach {host}: Connection refused"))
                .with_kind(ErrorKind::Unreachable)
                .with_hint("is the registry running, and is that its port?");
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => return stalled(host, stall),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            return Error::new(format!("cannot reach {host}: there is no way to it"))
                .with_kind(ErrorKind::Unreachable)
                .with_hint("does this node reach the outside, and by a proxy (HTTPS_PROXY)?");
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "it closed the connection".to_owned(),
        _ => system_text(error),
    };
    transient(format!("cannot talk to {host}: {cause:.200}"), "try again")
}

fn stalled(host: &str, seconds: u64) -> Error {
    transient(format!("{host} sent nothing for {seconds} s"), "try again; what has arrived is kept")
}

#[cold]
fn tls(host: &str, error: &rustls::Error) -> Error {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    if let InvalidMessage(_) = error {
        return Error::new(format!("cannot talk to {host}: it does not speak TLS"))
            .with_kind(ErrorKind::NotTls);
    }
    let (cause, hint) = match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => (
            "its certificate is signed by an unknown authority".to_owned(),
            format!(
                "put the authority's certificate at /etc/docker/certs.d/{host}/ca.crt, or name it by SSL_CERT_FILE"
            ),
        ),
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            (
                "its certificate has expired".to_owned(),
                "if this node's clock is right, the registry's administrator has to renew it"
                    .to_owned(),
            )
        }
        InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => (
            "its certificate is not valid yet".to_owned(),
            "is this node's clock right?".to_owned(),
        ),
        InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            "its certificate is for another name".to_owned(),
            "use the name that the certificate is for".to_owned(),
        ),
        InvalidCertificate(other) => (
            format!("its certificate is not valid: {other:.200}"),
            "the registry's administrator has to replace it".to_owned(),
        ),
        other => (format!("{other:.200}"), "a proxy or firewall may be in between".to_owned()),
    };
    Error::new(format!("cannot trust {host}: {cause}")).with_hint(hint)
}
