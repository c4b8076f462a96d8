//! A private certificate authority, made with openssl(1): [`Authority::new`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Output, Scratch};

/// Until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Good,
    Expired,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// An authority that nobody knows but those who are given its certificate.
#[derive(Debug)]
pub struct Authority {
    directory: Scratch,
}

impl Authority {
    pub fn new() -> Self {
        let this = Self { directory: Scratch::new("authority") };
        let path = |name: &str| this.directory.path(name).into_os_string().into_string().unwrap();
        let settings = format!(
            "[ca]\ndefault_ca = this\n[any]\ncommonName = supplied\n[this]\npolicy = any\n\
             default_md = sha256\nunique_subject = no\ndatabase = {}\nserial = {}\n\
             new_certs_dir = {}\n",
            path("index.txt"),
            path("serial"),
            this.directory.path("").display(),
        );
        fs::write(path("ca.conf"), settings).unwrap();
        fs::write(path("index.txt"), "").unwrap();
        fs::write(path("serial"), "1000\n").unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-subj", "/CN=test authority", "-days", "30"]);
        openssl.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        openssl.args(["-keyout", &path("ca.key"), "-out", &path("ca.crt")]);
        Output::of(&mut openssl).succeeds();
        this
    }

    /// The certificate that makes a client trust this authority.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path("ca.crt")
    }

    /// A server's certificate for these names, such as `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, names: &str, validity: Validity) -> Certificate {
        let file = |suffix: &str| {
            let stem = names.replace([':', ',', '.', '*'], "-");
            self.directory.path(&format!("{stem}-{validity:?}.{suffix}"))
        };
        let issued = Certificate { certificate: file("crt"), key: file("key") };
        let (request, extensions) = (file("csr"), file("ext"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        openssl.args(["-nodes", "-subj", "/CN=test server", "-keyout"]).arg(&issued.key);
        Output::of(openssl.arg("-out").arg(&request)).succeeds();
        fs::write(
            &extensions,
            format!(
                "basicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n\
                 subjectAltName = {names}\n"
            ),
        )
        .unwrap();
        let (from, to) = match validity {
            Validity::Good => ("20200101000000Z", "20491231000000Z"),
            Validity::Expired => ("20200101000000Z", "20210101000000Z"),
        };
        let mut openssl = Command::new("openssl");
        openssl.args(["ca", "-batch", "-notext", "-startdate", from, "-enddate", to]);
        openssl.arg("-config").arg(self.directory.path("ca.conf"));
        openssl.arg("-keyfile").arg(self.directory.path("ca.key"));
        openssl.arg("-cert").arg(self.certificate()).arg("-extfile").arg(extensions);
        openssl.arg("-in").arg(request).arg("-out").arg(&issued.certificate);
        Output::of(&mut openssl).succeeds();
        issued
    }

    /// A self-signed RSA certificate, as token servers sign with.
    pub fn self_signed(directory: &Path) -> Certificate {
        let issued = Certificate {
            certificate: directory.join("signing.crt"),
            key: directory.join("signing.key"),
        };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]);
        openssl.args(["-subj", "/CN=test tokens", "-keyout"]).arg(&issued.key);
        Output::of(openssl.arg("-out").arg(&issued.certificate)).succeeds();
        issued
    }
}
