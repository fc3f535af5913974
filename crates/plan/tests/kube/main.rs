//! The controllers and the scheduler of the Kubernetes API, on virtual time.

mod cluster;
mod deployments;
mod scheduling;
mod sim;
mod workloads;
