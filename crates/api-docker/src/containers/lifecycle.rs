//! Start, stop and what else changes a container's condition.

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use serde_json::json;
use tripod_agent::{ContainerRecord, RemoveOptions, StopOptions, WaitCondition, signals};

use super::with_warnings;
use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::translate::update;
use crate::wire::container::UpdateBody;

pub(crate) async fn start(docker: &Docker, call: &Call, id: &str) -> Reply {
    let announced = call
        .header("content-length")
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0);
    if announced > 7 {
        return Err(Fault::bad(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let before = docker.agent().container(id)?;
    if let Err(e) = docker.agent().start_container(&before.id).await {
        remove_failed(docker, &before).await;
        return Err(start_fault(e));
    }
    reply::no_content()
}

/// Whatever keeps a port from being published is a fault of the machine to the real daemon, also a port that another
/// container has.
fn start_fault(e: tripod_model::Error) -> Fault {
    if e.message
        .contains("driver failed programming external connectivity")
    {
        return Fault::new(StatusCode::INTERNAL_SERVER_ERROR, e.message);
    }
    e.into()
}

/// A container that is to be removed when it ends is also removed when it cannot start: `docker run --rm` waits for
/// that.
async fn remove_failed(docker: &Docker, before: &ContainerRecord) {
    let failed = docker
        .agent()
        .container(&before.id)
        .is_ok_and(|now| now.spec.auto_remove && now.run > before.run && !now.is_running());
    if failed {
        let options = RemoveOptions {
            force: false,
            volumes: true,
        };
        if let Err(e) = docker.agent().remove_container(&before.id, options).await {
            tracing::warn!("{} could not start and is not removed: {e}", before.name);
        }
    }
}

/// `t` and `signal` of stop and restart.
fn stop_options(call: &Call) -> Result<StopOptions, Fault> {
    let signal = match call.query.text("signal") {
        "" => None,
        name => Some(signals::parse(name)?),
    };
    Ok(StopOptions {
        timeout: call.query.int("t")?,
        signal,
    })
}

pub(crate) async fn stop(docker: &Docker, call: &Call, id: &str) -> Reply {
    docker.agent().stop_container(id, stop_options(call)?).await?;
    reply::no_content()
}

pub(crate) async fn restart(docker: &Docker, call: &Call, id: &str) -> Reply {
    let restarted = docker.agent().restart_container(id, stop_options(call)?).await;
    restarted.map_err(start_fault)?;
    reply::no_content()
}

pub(crate) async fn kill(docker: &Docker, call: &Call, id: &str) -> Reply {
    let signal = match call.query.text("signal") {
        "" => "KILL",
        name => name,
    };
    docker.agent().kill_container(id, signals::parse(signal)?).await?;
    reply::no_content()
}

pub(crate) async fn pause(docker: &Docker, id: &str) -> Reply {
    docker.agent().pause_container(id).await?;
    reply::no_content()
}

pub(crate) async fn unpause(docker: &Docker, id: &str) -> Reply {
    docker.agent().unpause_container(id).await?;
    reply::no_content()
}

pub(crate) async fn rename(docker: &Docker, call: &Call, id: &str) -> Reply {
    let name = call.query.text("name");
    if name.is_empty() {
        return Err(Fault::bad("Neither old nor new names may be empty"));
    }
    docker.agent().rename_container(id, name).await?;
    reply::no_content()
}

pub(crate) async fn update(docker: &Docker, call: Call, id: &str) -> Reply {
    let body: UpdateBody = call.json().await?;
    let record = docker.agent().container(id)?;
    let mut warnings = Vec::new();
    let wish = update::update(&record.spec.resources, &body, &mut warnings)?;
    docker.agent().update_container(&record.id, wish).await?;
    with_warnings(&warnings)
}

pub(crate) async fn remove(docker: &Docker, call: &Call, id: &str) -> Reply {
    if call.query.flag("link") {
        return Err(Fault::left_out("removing a link"));
    }
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    docker.agent().remove_container(id, options).await?;
    reply::no_content()
}

/// The head of the answer goes out at once: the client knows that the waiting has begun before it starts the
/// container.
pub(crate) fn wait(docker: &Docker, call: &Call, id: &str) -> Reply {
    let condition = match call.query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Fault::bad(format_args!("invalid condition: \"{other}\""))),
    };
    let end = docker.agent().wait_container(id, condition)?;
    let body = stream::once(async move {
        let (code, error) = end.await;
        let answer = match error.as_str() {
            "" => json!({ "StatusCode": code }),
            text => json!({ "StatusCode": code, "Error": { "Message": text } }),
        };
        Ok::<Bytes, std::convert::Infallible>(reply::json_line(&answer))
    });
    reply::stream("application/json", body)
}

/// Height and width of a terminal.
pub(crate) fn terminal_size(call: &Call) -> Result<(u16, u16), Fault> {
    let side = |name: &str| {
        let text = call.query.text(name);
        text.parse::<u32>().map_err(|_| {
            Fault::bad(format_args!(
                "invalid resize {}: strconv.ParseUint: parsing \"{text}\": invalid syntax",
                if name == "h" { "height" } else { "width" }
            ))
        })
    };
    // The kernel keeps 16 bits of either.
    Ok((side("h")? as u16, side("w")? as u16))
}

pub(crate) async fn resize(docker: &Docker, call: &Call, id: &str) -> Reply {
    let (height, width) = terminal_size(call)?;
    docker.agent().resize(id, height, width).await?;
    reply::status(StatusCode::OK)
}
