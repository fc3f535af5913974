//! The AWS dialect: Amazon ECS, and what its users call beside it (STS, IAM, EC2, CloudWatch Logs, SSM parameters,
//! Secrets Manager), on one endpoint, in any region.
//!
//! A request is taken apart by its protocol into a JSON value with the API's members ([`query`]), held against the
//! shapes of its service ([`check`]), given to the handler in [`table`], and its answer written in the protocol's form
//! ([`xml`]). Handlers are in a module for each service.

#![allow(
    dead_code,
    unused_imports,
    reason = "the operations of ECS that use it follow"
)]

mod call;
mod check;
mod door;
mod ec2;
mod fault;
mod iam;
mod query;
mod service;
mod sign;
mod sts;
mod table;
mod value;
mod xml;

pub use door::{Aws, Settings};
pub use table::reference;
