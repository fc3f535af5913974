//! A node's containers made real through narrow ports, and the node-local store.

pub mod ports;
