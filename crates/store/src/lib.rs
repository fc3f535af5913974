//! Revisioned objects in memory: deterministic apply, indices, watches and snapshots. No I/O.
