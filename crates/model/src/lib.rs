//! The one kind of object: kinds, metadata, identifiers, and the neutral descriptions that every layer shares.
//!
//! Nothing here performs I/O, reads a clock or draws randomness: identifiers are made from bytes that the
//! caller supplies, times are passed in.

pub mod aws;
pub mod container;
pub mod data;
pub mod door;
pub mod ecs;
pub mod error;
pub mod event;
pub mod fields;
pub mod id;
pub mod image;
pub mod ipam;
pub mod network;
pub mod node;
pub mod object;
pub mod pod;
pub mod pod_security;
pub mod reference;
pub mod session;
pub mod swarm;
pub mod volume;

pub use error::{Error, ErrorKind, Result};
/// The built-in kinds of the Kubernetes API (1.36), typed.
pub use k8s_openapi;

/// A point in time, UTC, nanosecond precision; serialised as RFC 3339.
pub type Time = jiff::Timestamp;
