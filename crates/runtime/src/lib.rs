//! Images, snapshots, OCI bundles, the keeper, logs, exec and statistics.
