//! What admission adds to pods that controllers make.

use serde_json::Value;

use super::work::Work;

/// Completes a pod, or says why it must not be made.
pub(crate) fn pod(_w: &mut Work<'_>, value: &mut Value) -> Result<(), String> {
    value["status"] = serde_json::json!({ "phase": "Pending" });
    Ok(())
}
