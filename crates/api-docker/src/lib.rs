//! The Docker Engine API, Swarm mode included.
