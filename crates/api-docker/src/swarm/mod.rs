//! Swarm mode: swarm, nodes, services, tasks, secrets and configs, and the networks of the cluster.
//!
//! Everything is the engine's: here words become requests to its manager, and objects become words.

mod cluster;
mod data;
mod from_wire;
mod logs;
mod networks;
mod nodes;
mod service_spec;
mod services;
mod tasks;
mod to_wire;

use std::sync::Arc;

use serde_json::Value;
use tripod_engine::{Engine, Manager, Membership};

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::query;
use crate::reply::{self, Reply};

pub(crate) use networks::{create_network, network, networks, remove_network};

/// What Swarm mode needs beside the agent.
pub(crate) struct Swarm {
    engine: Engine,
}

impl Swarm {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// The manager that this daemon is, or the real daemon's refusal.
    fn manager(&self) -> Result<Arc<Manager>, Fault> {
        Ok(self.engine.manager()?)
    }
}

/// `/swarm`, `/nodes`, `/services`, `/tasks`, `/secrets`, `/configs`; `parts` begins with that word.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        (_, ["swarm", rest @ ..]) => cluster::route(docker, call, rest).await,
        (_, ["nodes", rest @ ..]) => nodes::route(docker, call, rest).await,
        (_, ["services", rest @ ..]) => services::route(docker, call, rest).await,
        (_, ["tasks", rest @ ..]) => tasks::route(docker, call, rest).await,
        (_, [kind @ ("secrets" | "configs"), rest @ ..]) => data::route(docker, call, kind, rest).await,
        ("POST", ["tripod", "rebalance"]) => {
            let manager = docker.swarm().manager()?;
            reply::json(&manager.rebalance(call.query.flag("dryRun")).await?)
        }
        _ => Err(Fault::page_not_found()),
    }
}

/// The value of the `Swarm` header of `/_ping`.
pub(crate) fn ping(docker: &Docker) -> &'static str {
    let engine = &docker.swarm().engine;
    match engine.membership() {
        Membership::Inactive => "inactive",
        Membership::Pending => "pending",
        Membership::Locked => "locked",
        Membership::Error => "error",
        Membership::Active if engine.manager().is_ok() => "active/manager",
        Membership::Active => "active/worker",
    }
}

/// The `Swarm` field of `/info`.
pub(crate) async fn info(docker: &Docker) -> Value {
    cluster::info(&docker.swarm().engine)
}

/// The engine's filters from the request's.
fn filters(call: &Call) -> Result<tripod_engine::Filters, Fault> {
    let given = query::Filters::parse(call.query.text("filters"))?;
    Ok(given.pairs().collect())
}

/// The version of an object that an update is based on.
fn version(call: &Call) -> Result<u64, Fault> {
    let text = call.query.text("version");
    text.parse().map_err(|_| {
        Fault::bad(format_args!(
            "invalid version '{text}': strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}
