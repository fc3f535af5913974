//! The AWS dialect: Amazon ECS, and what its users call beside it (STS, IAM, EC2, CloudWatch Logs, SSM parameters,
//! Secrets Manager), on one endpoint, in any region.
//!
//! A request is taken apart by its protocol into a JSON value with the API's members ([`query`]), held against the
//! shapes of its service ([`check`]), given to the handler in [`table`], and its answer written in the protocol's form
//! ([`xml`]). Handlers are in a module for each service.

mod call;
mod check;
mod door;
mod ec2;
mod ecs;
mod fault;
mod iam;
mod logs;
mod query;
mod secrets;
mod service;
mod sign;
mod ssm;
mod sts;
mod table;
mod task_endpoint;
mod value;
mod xml;

pub use door::{Aws, Settings};
pub use table::reference;
