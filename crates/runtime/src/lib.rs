//! Images, snapshots, OCI bundles, the keeper, logs, exec and statistics.

pub mod images;
pub mod volumes;
