//! Images made by hand, to the byte: [`Built::new`]. A test serves them itself ([`Built::answer`]),
//! or puts them into a real registry ([`Built::push`]), wrong as they may be.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sarus::image::digest::Digest;
use tar::{Builder, EntryType, Header};

use super::http::{Answer, Request};
use super::registry::Registry;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The platform of this machine.
pub const HOST: &str = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };

/// `sha256:<hex>` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::sha256(bytes).hex())
}

/// Bytes with their digest.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Arc<Vec<u8>>,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes: Arc::new(bytes) }
    }

    /// The digest of what a gzip layer inflates to.
    fn inflated(&self) -> String {
        let mut plain = vec![];
        match GzDecoder::new(&self.bytes[..]).read_to_end(&mut plain) {
            Ok(_) => digest(&plain),
            Err(_) => self.digest.clone(),
        }
    }

    /// What a manifest says of it.
    pub fn descriptor(&self, media_type: &str) -> String {
        descriptor(media_type, &self.digest, self.bytes.len())
    }
}

/// An entry of a manifest or an index.
pub fn descriptor(media_type: &str, digest: &str, size: usize) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// The manifest of an image with this configuration and these layers, each in JSON.
pub fn manifest(config: &str, layers: &[String]) -> String {
    let layers = layers.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#
    )
}

/// An image, each part to be changed as a test likes.
#[derive(Debug, Clone)]
pub struct Built {
    pub media_type: &'static str,
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

impl Built {
    /// An OCI image of these layers, for this host.
    pub fn new(layers: Vec<Blob>) -> Self {
        Self::with_note(layers, "")
    }

    /// The same, different from others by its configuration.
    pub fn with_note(layers: Vec<Blob>, note: &str) -> Self {
        Self::of(layers, HOST, note)
    }

    /// The same for `os/architecture[/variant]`.
    pub fn for_platform(layers: Vec<Blob>, platform: &str) -> Self {
        Self::of(layers, platform, "")
    }

    fn of(layers: Vec<Blob>, platform: &str, note: &str) -> Self {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let variant = parts.next().map_or(String::new(), |v| format!(r#""variant":"{v}","#));
        let plain: Vec<_> =
            layers.iter().map(|layer| format!("\"{}\"", layer.inflated())).collect();
        let plain = plain.join(",");
        let config = Blob::new(
            format!(
                r#"{{"architecture":"{architecture}","os":"{os}",{variant}"author":"{note}",
                    "config":{{"Env":["PATH=/bin"],"Cmd":["sh"]}},
                    "rootfs":{{"type":"layers","diff_ids":[{plain}]}}}}"#
            )
            .into_bytes(),
        );
        let entries: Vec<_> = layers.iter().map(|layer| layer.descriptor(LAYER)).collect();
        let text = manifest(&config.descriptor(CONFIG), &entries);
        Self { media_type: MANIFEST, manifest: Blob::new(text.into_bytes()), config, layers }
    }

    /// Busybox, in one layer.
    pub fn busybox() -> Self {
        Self::new(vec![busybox()])
    }

    /// The configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The same image with another manifest.
    pub fn with_manifest(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.manifest = Blob::new(text.into());
        self
    }

    /// What a good registry answers, ranges included. It has this image under every name and tag.
    pub fn answer(&self, request: &Request) -> Answer {
        let path = request.path();
        let not_found = || Answer::json(404, r#"{"errors":[{"code":"UNKNOWN","message":"no"}]}"#);
        if path == "/v2/" {
            Answer::json(200, "{}")
        } else if let Some((_, wanted)) = path.rsplit_once("/manifests/") {
            if wanted.contains(':') && wanted != self.manifest.digest {
                return not_found();
            }
            Answer::new(200)
                .header("Content-Type", self.media_type)
                .header("Docker-Content-Digest", &self.manifest.digest)
                .body(Arc::clone(&self.manifest.bytes))
        } else if let Some((_, wanted)) = path.rsplit_once("/blobs/") {
            let Some(blob) = self.blobs().find(|blob| blob.digest == wanted) else {
                return not_found();
            };
            let answer = Answer::new(200)
                .header("Content-Type", "application/octet-stream")
                .body(Arc::clone(&blob.bytes));
            match request.range() {
                Some(start) if start < blob.bytes.len() => answer.range(start),
                Some(_) => Answer::new(416),
                None => answer,
            }
        } else {
            not_found()
        }
    }

    /// Writes it into this directory as OCI layout, with the name `latest`.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in self.blobs().chain([&self.manifest]) {
            let hex = blob.digest.trim_start_matches("sha256:");
            fs::write(blobs.join(hex), &blob.bytes[..]).unwrap();
        }
        let entry = self.manifest.descriptor(self.media_type);
        let name = r#""annotations":{"org.opencontainers.image.ref.name":"latest"}}"#;
        let entry = format!("{},{name}", entry.trim_end_matches('}'));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        fs::write(directory.join("index.json"), index).unwrap();
        let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(directory.join("oci-layout"), version).unwrap();
    }

    /// Puts it into a registry under this name and tag, and under its digest.
    pub fn push(&self, registry: &Registry, name: &str, tag: &str) {
        for blob in self.blobs() {
            registry.put_blob(name, &blob.digest, &blob.bytes);
        }
        registry.put_manifest(name, tag, self.media_type, &self.manifest.bytes);
    }
}

/// A gzip layer of these files and symbolic links.
fn layer(files: &[(&str, &[u8])], links: &[(String, &str)]) -> Blob {
    let mut tar = Builder::new(GzEncoder::new(vec![], Compression::fast()));
    let mut header = Header::new_gnu();
    header.set_mode(0o755);
    header.set_mtime(1_234_567_890);
    for (name, content) in files {
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    for (name, target) in links {
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    Blob::new(gzip.finish().unwrap())
}

/// A layer that cannot be compressed, some bytes larger than this.
pub fn noise_layer(name: &str, length: usize) -> Blob {
    let mut state = name.bytes().fold(88_172_645_463_325_252_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(6_364_136_223_846_793_005) | 1
    });
    let mut noise = vec![];
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    layer(&[(name, &noise)], &[])
}

/// A layer with nothing in it.
pub fn empty_layer() -> Blob {
    layer(&[], &[])
}

/// The layer of a root file system with busybox and the host's /etc/os-release.
pub fn busybox() -> Blob {
    static MADE: OnceLock<Blob> = OnceLock::new();
    let make = || {
        let find = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
        let path = String::from_utf8(find.stdout).unwrap();
        let busybox = fs::read(Path::new(path.trim())).unwrap();
        let release = fs::read("/etc/os-release").unwrap();
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n";
        layer(
            &[("bin/busybox", &busybox), ("etc/os-release", &release), ("etc/passwd", passwd)],
            &["sh", "cat", "ls"].map(|name| (format!("bin/{name}"), "busybox")),
        )
    };
    MADE.get_or_init(make).clone()
}
