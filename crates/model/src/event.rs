//! What happened on a node, in the terms of Docker's event stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `daemon`, `service`, `node`, `secret`, `config`.
    pub kind: String,
    /// `create`, `start`, `die`, `health_status: healthy` …
    pub action: String,
    /// Identifier of what it happened to.
    pub id: String,
    /// Name, image, exit code and labels.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Time,
    /// `local` or `swarm`.
    pub scope: String,
}
