//! The node's networks in a real kernel. Each test has namespaces of its own for the host and for a client
//! outside; without root the tests say that they are skipped.

mod bridges;
mod cluster;
mod dns;
mod foreign;
mod host;
mod kinds;
mod mesh;
mod overlays;
mod pods;
mod speed;
mod throughput;
