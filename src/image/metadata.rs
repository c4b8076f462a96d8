//! What an image says of itself: the part of the OCI image configuration that a container needs.
//!
//! Stored beside the squashfs file as `<tag>.meta`, in the keys of the image specification
//! (<https://github.com/opencontainers/image-spec/blob/main/config.md>).

use miniserde::{Deserialize, Serialize};

/// The content of a `.meta` file. Absent and `null` fields read as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Default arguments of the entrypoint, or the default command.
    #[serde(rename = "Cmd")]
    pub cmd: Option<Vec<String>>,
    /// The command that the image is made to run.
    #[serde(rename = "Entrypoint")]
    pub entrypoint: Option<Vec<String>>,
    /// Where the program starts; empty means `/`.
    #[serde(rename = "WorkingDir")]
    pub working_dir: Option<String>,
    /// `NAME=value`, in the image's order.
    #[serde(rename = "Env")]
    pub env: Option<Vec<String>>,
    /// The image's labels.
    #[serde(rename = "Labels")]
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}
