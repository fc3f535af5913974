//! The Kubernetes API over the cluster's objects.
//!
//! A request is read (`target`, `negotiate`), its user is made out (`authn`) and may or may not do it (`authz`); then it
//! is discovery (`discovery`, `openapi`), a look at the server itself (`health`), a review (`reviews`), or an operation
//! on stored objects (`objects`), which all kinds share: the registry of kinds in `schema` says what there is.

mod admission;
mod authn;
mod authz;
mod autoscaler;
mod body;
mod bootstrap;
mod call;
mod convert;
mod counters;
mod discovery;
mod encode;
mod health;
mod impersonate;
mod kubelet;
mod leases;
mod metrics;
mod negotiate;
mod objects;
mod openapi;
mod proxy;
mod query;
mod rbac;
mod reply;
mod reviews;
mod router;
mod server;
mod signing;
mod streams;
mod subresources;
mod target;
mod token;
mod turns;
mod usage;
mod watch;

pub use server::{About, Kube, Options, kubeconfig, serve};

/// The version of the Kubernetes API that is served.
pub const KUBERNETES_VERSION: &str = "v1.36.0";
