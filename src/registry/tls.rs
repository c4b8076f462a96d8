//! TLS trust anchors: the CAs of the system, and those of single registries.

use crate::sys::fs::read::read_at_most;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Context, Error, Result};
use crate::log;

/// CA bundles of distributions: Debian and SUSE, Red Hat, CentOS, older SUSE, and Alpine.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Directories of distributions with one CA per file.
const DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Directories where Docker and Podman look for `<host[:port]>/*.crt`.
const REGISTRY_DIRECTORIES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// Maximum size of a certificate file in bytes; far more than all CAs of a distribution take.
const MAX_SIZE: u64 = 16 << 20;

/// Builds the TLS configuration for `server` (`host[:port]`); `system_roots` is the result of
/// [`system_roots`].
pub fn config(server: &str, system_roots: Option<&[Certificate<'static>]>) -> Result<TlsConfig> {
    let mut roots = system_roots.unwrap_or_default().to_owned();
    let mut identity = None;
    for directory in REGISTRY_DIRECTORIES.map(|base| Path::new(base).join(server)) {
        for file in files(&directory, "crt") {
            roots.extend(certificates(&file));
        }
        for certificate in files(&directory, "cert") {
            identity = Some(client(&certificate)?);
        }
    }
    let builder = TlsConfig::builder().client_cert(identity);
    let builder = if system_roots.is_none() && roots.is_empty() {
        // Last resort: the CAs that are built in, as old as this program.
        builder.root_certs(RootCerts::WebPki)
    } else {
        builder.root_certs(roots.into())
    };
    Ok(builder.build())
}

/// Reads the CAs that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, if one is set, or those of the system.
/// Returns `None` if the system has none.
pub fn system_roots() -> Option<Vec<Certificate<'static>>> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let (file, directory) = (variable("SSL_CERT_FILE"), variable("SSL_CERT_DIR"));
    let all_in =
        |directory: PathBuf| files(&directory, "").into_iter().map(|path| certificates(&path));
    if file.is_none() && directory.is_none() {
        let bundles = FILES.iter().map(|file| certificates(Path::new(file)));
        let single = DIRECTORIES.iter().map(|path| all_in(PathBuf::from(path)).flatten().collect());
        return bundles.chain(single).find(|found| !found.is_empty());
    }
    let mut roots = file.map(|file| certificates(Path::new(&file))).unwrap_or_default();
    for directory in directory.iter().flat_map(std::env::split_paths) {
        roots.extend(all_in(directory).flatten());
    }
    if roots.is_empty() {
        log::warn(
            "pull",
            "SSL_CERT_FILE and SSL_CERT_DIR name no certificate: no server is trusted",
        );
    }
    Some(roots)
}

/// Lists the files of a directory whose names end in `.<suffix>`, or all if it is empty.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let fits = |path: &PathBuf| suffix.is_empty() || path.extension().is_some_and(|s| s == suffix);
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    files
}

/// Reads the items of a PEM file; none if it cannot be read.
fn items(path: &Path) -> Vec<PemItem<'static>> {
    let Ok(file) = crate::sys::fs::resolve::regular_file(path) else { return Vec::new() };
    let text = read_at_most(std::fs::File::from(file), MAX_SIZE).unwrap_or_else(|error| {
        log::warn("pull", &format!("skipping {}: {error}", path.display()));
        Vec::new()
    });
    parse_pem(&text).filter_map(Result::ok).collect()
}

fn certificates(path: &Path) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    items(path).into_iter().filter_map(certificate).collect()
}

/// Reads a client certificate from `x.cert` and `x.key`, which identify this host to the registry.
fn client(path: &Path) -> Result<ClientCert> {
    let key: Option<PrivateKey<'static>> =
        items(&path.with_extension("key")).into_iter().find_map(|item| match item {
            PemItem::PrivateKey(key) => Some(key),
            _ => None,
        });
    let chain = certificates(path);
    match key {
        Some(key) if belong_together(&chain, &key) => Ok(ClientCert::new_with_certs(&chain, key)),
        _ => Err(Error::new("no matching .key file beside it"))
            .context(|| format!("cannot use the client certificate {}", path.display())),
    }
}

/// Returns whether `key` is the key of `chain`. ureq does not check it.
fn belong_together(chain: &[Certificate<'static>], key: &PrivateKey<'static>) -> bool {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    let Ok(key) = PrivateKeyDer::try_from(key.der().to_vec()) else { return false };
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider).is_ok()
}
