//! Volumes of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// A volume of the `local` driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Unique on the node.
    pub name: String,
    /// Always `local` today.
    pub driver: String,
    /// Directory on the host that is mounted.
    pub mountpoint: String,
    /// When it was made.
    pub created_at: Time,
    /// Labels of the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver: `type`, `device`, `o` as for mount(8).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Made without a name by the user (Docker's label `com.docker.volume.anonymous`).
    #[serde(default)]
    pub anonymous: bool,
}
