//! Metadata of an image: the part of the OCI image configuration that a container needs.
//!
//! Stored beside the squashfs file as `<tag>.meta`, with the keys of the image specification
//! (<https://github.com/opencontainers/image-spec/blob/main/config.md>).

use miniserde::{Deserialize, Serialize};

/// Content of a `.meta` file. Absent and `null` fields read as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Default arguments of the entrypoint, or the default command.
    #[serde(rename = "Cmd")]
    pub cmd: Option<Vec<String>>,
    /// Entrypoint: the command that the image runs.
    #[serde(rename = "Entrypoint")]
    pub entrypoint: Option<Vec<String>>,
    /// Working directory; empty means `/`.
    #[serde(rename = "WorkingDir")]
    pub working_dir: Option<String>,
    /// Environment as `NAME=value`, in the order of the image.
    #[serde(rename = "Env")]
    pub env: Option<Vec<String>>,
    /// Labels.
    #[serde(rename = "Labels")]
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}
