//! Why the network did not give what it was asked for: in a sentence, and with what may help.

use std::io::ErrorKind;

use rustls::CertificateError;
use ureq::Timeout;

use crate::error::Error;

/// What to look at where a proxy is in the way.
pub(super) const PROXY: &str = "HTTPS_PROXY and NO_PROXY say which hosts are reached by a proxy";

/// Whether nobody was reached: behind a proxy, that was the proxy.
pub(super) fn is_about_connecting(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            true
        }
        ureq::Error::Io(error) => {
            error.kind() == ErrorKind::ConnectionRefused || is_about_name(error)
        }
        _ => false,
    }
}

/// musl's words for a name that nobody knows; others look the same to `std`.
fn is_about_name(error: &std::io::Error) -> bool {
    error.to_string().contains("Name does not resolve")
}

/// What kind of failure, as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody is there, or cannot be found.
    Unreachable,
    /// The other side does not speak TLS.
    NoTls,
    /// Another try may help.
    Transient,
    /// No other try will help.
    Final,
}

/// A failure with its kind.
#[derive(Debug)]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// What to say about it.
    pub error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { kind: Kind::Final, error }
    }
}

impl Failure {
    pub(super) fn transient(text: String, hint: &str) -> Self {
        Self { kind: Kind::Transient, error: Error::new(text).hint(hint) }
    }

    /// What `ureq` says of a request to `host`; `stall` is how many seconds nothing came.
    pub(super) fn of(host: &str, error: ureq::Error, stall: u64) -> Self {
        let reach = |kind, cause: &str, hint: &str| {
            let text = format!("cannot reach {host}: {cause}");
            Self { kind, error: Error::new(text).hint(hint) }
        };
        let unknown = || {
            reach(
                Kind::Unreachable,
                "there is no host of this name",
                "check the server's name; behind a proxy, set HTTPS_PROXY",
            )
        };
        match error {
            ureq::Error::HostNotFound => unknown(),
            ureq::Error::Io(error) if is_about_name(&error) => unknown(),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => reach(
                Kind::Unreachable,
                "it does not answer",
                "does this node reach the outside, and by a proxy (HTTPS_PROXY)?",
            ),
            ureq::Error::Timeout(_) => Self::stalled(host, stall),
            ureq::Error::ConnectProxyFailed(text) => {
                reach(Kind::Unreachable, &format!("the proxy refuses: {text:.200}"), PROXY)
            }
            ureq::Error::InvalidProxyUrl => reach(
                Kind::Final,
                "the proxy's URL cannot be understood",
                "see HTTPS_PROXY, HTTP_PROXY, ALL_PROXY",
            ),
            ureq::Error::Rustls(error) => tls(host, &error),
            ureq::Error::Io(error) => Self::of_io(host, &error, stall),
            ureq::Error::Protocol(error) => Self::transient(
                format!("{host} does not speak proper HTTP: {error:.200}"),
                "try again; a proxy or firewall may be in between",
            ),
            other => Self::transient(format!("cannot talk to {host}: {other:.200}"), "try again"),
        }
    }

    /// What the operating system, or the TLS below `std::io`, says.
    pub(super) fn of_io(host: &str, error: &std::io::Error, stall: u64) -> Self {
        let inner = error.get_ref();
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return tls(host, error);
        }
        if let Some(ureq::Error::Timeout(_)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Self::stalled(host, stall);
        }
        let cause = match error.kind() {
            ErrorKind::ConnectionRefused => {
                return Self {
                    kind: Kind::Unreachable,
                    error: Error::new(format!("cannot reach {host}: Connection refused"))
                        .hint("is the registry running, and is that its port?"),
                };
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => return Self::stalled(host, stall),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                return Self {
                    kind: Kind::Unreachable,
                    error: Error::new(format!("cannot reach {host}: there is no way to it"))
                        .hint("does this node reach the outside, and by a proxy (HTTPS_PROXY)?"),
                };
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "it closed the connection".to_owned()
            }
            _ => {
                let text = error.to_string();
                text.split(" (os error ").next().unwrap_or_default().to_owned()
            }
        };
        Self::transient(format!("cannot talk to {host}: {cause:.200}"), "try again")
    }

    fn stalled(host: &str, seconds: u64) -> Self {
        Self::transient(
            format!("{host} sent nothing for {seconds} s"),
            "try again; what has arrived is kept",
        )
    }
}

#[cold]
fn tls(host: &str, error: &rustls::Error) -> Failure {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    if let InvalidMessage(_) = error {
        let error = Error::new(format!("cannot talk to {host}: it does not speak TLS"));
        return Failure { kind: Kind::NoTls, error };
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
    Failure::from(Error::new(format!("cannot trust {host}: {cause}")).hint(hint))
}
