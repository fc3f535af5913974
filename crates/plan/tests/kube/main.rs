//! The controllers and the scheduler of the Kubernetes API, on virtual time.

mod deployments;
mod sim;
