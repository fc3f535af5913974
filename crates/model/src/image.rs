//! Images as the layers above the content store see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::container::HealthCheck;

/// An image of the node's store: one configuration, the names that lead to it, its layers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Image {
    /// Digest of the configuration, `sha256:…`.
    pub id: String,
    /// Names with tag, in familiar form (`busybox:latest`).
    pub tags: Vec<String>,
    /// Names with digest, in familiar form (`busybox@sha256:…`).
    pub digests: Vec<String>,
    /// Digest of the manifest, and its media type and size, when known.
    pub manifest: Option<Descriptor>,
    /// When the image was built.
    pub created: Option<Time>,
    /// Architecture (`amd64`), with variant in `variant`.
    pub architecture: String,
    /// Variant of the architecture (`v8`), or empty.
    pub variant: String,
    /// Operating system (`linux`).
    pub os: String,
    /// Author, or empty.
    pub author: String,
    /// Comment, or empty.
    pub comment: String,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<String>,
    /// What a container of it runs.
    pub config: ImageConfig,
    /// How it was built, oldest first.
    pub history: Vec<HistoryEntry>,
    /// When it was last tagged here.
    pub last_tagged: Option<Time>,
}

/// The part of the configuration that containers take over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageConfig {
    /// `user[:group]`.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Further words.
    pub cmd: Vec<String>,
    /// Directory.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths.
    pub volumes: Vec<String>,
    /// Signal.
    pub stop_signal: String,
    /// Health check.
    pub healthcheck: Option<HealthCheck>,
    /// Shell form prefix.
    pub shell: Vec<String>,
    /// Triggers.
    pub on_build: Vec<String>,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When.
    pub created: Option<Time>,
    /// Command.
    pub created_by: String,
    /// Comment.
    pub comment: String,
    /// It made no layer.
    pub empty_layer: bool,
    /// Bytes of its layer.
    pub size: u64,
}

/// A reference to content by digest (OCI descriptor).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Platform, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a node needs to know of an image to take it over from another one: content, all of it by digest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageOffer {
    /// The image: digest of its configuration, `sha256:…`.
    pub id: String,
    /// Its manifest, if it came with one.
    pub manifest: Option<Descriptor>,
    /// Blobs of its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// An image that a node has, as the node tells it to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeldImage {
    /// Digest of the configuration, `sha256:…`.
    pub id: String,
    /// Digest of the manifest, or empty.
    pub manifest: String,
    /// Names with tag or digest, in familiar form.
    pub names: Vec<String>,
    /// When it was last tagged there.
    pub tagged: Option<Time>,
}

impl From<&Image> for HeldImage {
    fn from(image: &Image) -> Self {
        Self {
            id: image.id.clone(),
            manifest: image
                .manifest
                .as_ref()
                .map_or_else(String::new, |m| m.digest.clone()),
            names: image.tags.iter().chain(&image.digests).cloned().collect(),
            tagged: image.last_tagged,
        }
    }
}

/// What changed of the images that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeldImages {
    /// New ones, and those with other names than before.
    pub held: Vec<HeldImage>,
    /// Identifiers of images that are gone.
    pub gone: Vec<String>,
}

/// Operating system and architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64` …
    pub architecture: String,
    /// `v7`, `v8` or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Refresh token instead of a password.
    pub identity_token: String,
    /// Bearer token to send as it is.
    pub registry_token: String,
    /// Registry they are for, or empty.
    pub server_address: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryAuth({})", self.username)
    }
}
