//! Manifests and indices (OCI image spec; Docker's `manifest v2, schema 2`), which say nearly the same.

use serde::{Deserialize, Deserializer, Serialize};
use tripod_model::image::Descriptor;
use tripod_model::{Error, Result};

use super::digest;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A manifest or an index.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default)]
    pub(crate) schema_version: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub(crate) manifests: Vec<Descriptor>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<Descriptor>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Reads a document.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("invalid manifest: {e}")))?;
    if document.schema_version == 1 {
        return Err(Error::invalid(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported",
        ));
    }
    Ok(document)
}

impl Document {
    /// Whether it is a list of manifests.
    pub(crate) fn is_index(&self) -> bool {
        self.config.is_none() && self.layers.is_none()
    }

    pub(crate) fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Its own media type, or what the descriptor that led here says.
    pub(crate) fn media_type(&self, told: &Descriptor) -> String {
        match (self.media_type.as_str(), told.media_type.as_str()) {
            ("", "") => MANIFEST.to_owned(),
            ("", told) => told.to_owned(),
            (own, _) => own.to_owned(),
        }
    }

    /// Configuration and layers, with digests that are ones.
    pub(crate) fn image(self) -> Result<(Descriptor, Vec<Descriptor>)> {
        let Document {
            config: Some(config),
            layers,
            ..
        } = self
        else {
            return Err(Error::invalid("invalid manifest: it has no configuration"));
        };
        let layers = layers.unwrap_or_default();
        for d in std::iter::once(&config).chain(&layers) {
            if !digest::is_digest(&d.digest) || d.size < 0 {
                return Err(Error::invalid(format!(
                    "invalid manifest: bad descriptor {:?}",
                    d.digest
                )));
            }
        }
        Ok((config, layers))
    }
}
