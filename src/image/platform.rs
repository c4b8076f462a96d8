//! Platforms of images and of this machine.

use miniserde::Deserialize;

use crate::error::{Context, Error, Result};

/// The platform that an image is made for (image-spec, `image-index.md`).
#[derive(Debug, Clone, Deserialize)]
pub struct Platform {
    /// The processor, as Go names it (`GOARCH`): `amd64`, `arm64`.
    pub architecture: String,
    /// The operating system, as Go names it (`GOOS`).
    pub os: String,
    /// The variant of the processor: `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Renders it as `os/architecture[/variant]`.
    #[must_use]
    pub fn text(&self) -> String {
        let variant = self.variant.as_deref().map(|variant| format!("/{variant}"));
        format!("{}/{}{}", self.os, self.architecture, variant.unwrap_or_default())
    }
}

/// The platform that a container will run on: `linux` and a processor, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlatform {
    pub(super) architecture: String,
    variant: Option<String>,
}

impl std::fmt::Display for TargetPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Returns the variant of an architecture where none is stated.
fn usual_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    }
}

impl TargetPlatform {
    /// The platform of this binary.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "x86" => "386",
            other => other,
        };
        let variant = usual_variant(architecture).map(Into::into);
        Self { architecture: architecture.into(), variant }
    }

    /// Parses `linux/<architecture>[/<variant>]`.
    ///
    /// # Errors
    /// `text` is anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("linux"), Some(architecture), variant, None) if !architecture.is_empty() => {
                let variant = variant.or(usual_variant(architecture)).map(Into::into);
                Ok(Self { architecture: architecture.into(), variant })
            }
            _ => Err(Error::new("expected linux/<architecture>[/<variant>]"))
                .context(|| format!("cannot use the platform {text:?}")),
        }
    }

    /// Ranks an image made for `offered`: 0 is best, `None` does not run. A higher variant includes
    /// the lower ones, so the highest that runs is best; an image without variant always runs.
    #[must_use]
    pub fn fit(&self, offered: &Platform) -> Option<u32> {
        if offered.os != "linux" || offered.architecture != self.architecture {
            return None;
        }
        let number = |variant: &Option<String>| {
            variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u32>().ok())
        };
        // x86-64 without a variant means v1.
        let lowest = u32::from(self.architecture == "amd64");
        let wanted = number(&self.variant).unwrap_or(lowest);
        match &offered.variant {
            variant if *variant == self.variant => Some(0),
            None => Some(if self.variant.is_none() { 0 } else { 100 }),
            variant => wanted.checked_sub(number(variant)?),
        }
    }
}
