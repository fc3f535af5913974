//! `/containers` and `/commit`.

mod archive;
mod attach;
mod commit;
mod lifecycle;
mod list;
pub(crate) mod logs;
mod stats;
mod top;

use serde::Serialize;
use serde_json::json;
use tripod_agent::CreateContainer;
use tripod_model::image::Platform;

pub(crate) use commit::{commit, name as image_name};
pub(crate) use lifecycle::terminal_size;
pub(crate) use list::{Sizes, summaries, until};

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::translate::{create, inspect};
use crate::wire::container::CreateBody;

/// `parts` is what follows `/containers`.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET", ["json"]) => list::list(docker, &call).await,
        ("POST", ["create"]) => create(docker, call).await,
        ("POST", ["prune"]) => list::prune(docker, &call).await,
        ("DELETE", [id]) => lifecycle::remove(docker, &call, id).await,
        ("DELETE", [id, alias]) if call.query.flag("link") => {
            docker.agent().remove_link(id, alias).await?;
            reply::no_content()
        }
        ("GET", [id, "json"]) => inspect(docker, &call, id).await,
        ("GET", [id, "top"]) => top::top(docker, &call, id).await,
        ("GET", [id, "logs"]) => logs::logs(docker, &call, id).await,
        ("GET", [id, "changes"]) => archive::changes(docker, id).await,
        ("GET", [id, "export"]) => archive::export(docker, id).await,
        ("GET", [id, "stats"]) => stats::stats(docker, &call, id).await,
        ("GET", [id, "attach", "ws"]) => attach::websocket(docker, call, id).await,
        ("HEAD", [id, "archive"]) => archive::head(docker, &call, id).await,
        ("GET", [id, "archive"]) => archive::get(docker, &call, id).await,
        ("PUT", [id, "archive"]) => archive::put(docker, call, id).await,
        ("GET" | "POST", [_, "checkpoints"]) | ("POST" | "DELETE", [_, "checkpoints", _]) => {
            Err(Fault::left_out("checkpoint"))
        }
        ("POST", [id, action]) => lifecycle_or_stream(docker, call, id, action).await,
        _ => Err(Fault::page_not_found()),
    }
}

async fn lifecycle_or_stream(docker: &Docker, call: Call, id: &str, action: &str) -> Reply {
    match action {
        "start" => lifecycle::start(docker, &call, id).await,
        "stop" => lifecycle::stop(docker, &call, id).await,
        "restart" => lifecycle::restart(docker, &call, id).await,
        "kill" => lifecycle::kill(docker, &call, id).await,
        "pause" => lifecycle::pause(docker, id).await,
        "unpause" => lifecycle::unpause(docker, id).await,
        "rename" => lifecycle::rename(docker, &call, id).await,
        "update" => lifecycle::update(docker, call, id).await,
        "wait" => lifecycle::wait(docker, &call, id),
        "resize" => lifecycle::resize(docker, &call, id).await,
        "attach" => attach::attach(docker, call, id).await,
        "exec" => crate::execs::create(docker, call, id).await,
        _ => Err(Fault::page_not_found()),
    }
}

/// The answer of create.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    warnings: Vec<String>,
}

async fn create(docker: &Docker, call: Call) -> Reply {
    let name = call.query.get("name").map(str::to_owned);
    let platform = platform(call.query.text("platform"))?;
    let body: CreateBody = call.json().await?;
    let (mut spec, mut warnings) = create::spec(body)?;
    if let Some(wanted) = platform {
        let image = docker.agent().images().get(&spec.image).await?;
        if wanted.architecture != image.architecture || (!image.os.is_empty() && wanted.os != image.os) {
            return Err(Fault::new(
                http::StatusCode::NOT_FOUND,
                format_args!(
                    "image with reference {} was found but does not provide the specified platform",
                    spec.image
                ),
            ));
        }
    }
    resolve_namespaces(docker, &mut spec)?;
    check_links(docker, &spec)?;
    check_runtime(docker, &spec.runtime)?;
    if spec.runtime.is_empty() {
        // Inspect tells which one it was, as the real daemon does.
        spec.runtime = docker.agent().runtime().info().default_runtime;
    }
    let made = docker
        .agent()
        .create_container(CreateContainer {
            name,
            spec,
            ..CreateContainer::default()
        })
        .await?;
    warnings.extend(made.warnings);
    reply::created(&Created {
        id: made.id,
        warnings,
    })
}

/// Links lead to containers that exist. The client would take a 404 for the image's.
fn check_links(docker: &Docker, spec: &tripod_model::container::ContainerSpec) -> Result<(), Fault> {
    for link in &spec.network.links {
        let target = link.split(':').next().unwrap_or(link);
        if let Err(e) = docker.agent().container(target) {
            return Err(Fault::bad(format_args!(
                "could not get container for {target}: {}",
                e.message
            )));
        }
    }
    Ok(())
}

fn check_runtime(docker: &Docker, name: &str) -> Result<(), Fault> {
    // Clients name Docker's default runtime without meaning that program.
    let usual = ["", "runc", "io.containerd.runc.v2"];
    let known = docker.agent().runtime().info().runtimes;
    if usual.contains(&name) || known.iter().any(|(n, _)| n == name) {
        return Ok(());
    }
    Err(Fault::bad(format_args!(
        "unknown or invalid runtime name: {name}"
    )))
}

/// Names of containers that give their namespaces become identifiers, so that a renaming changes nothing.
fn resolve_namespaces(
    docker: &Docker,
    spec: &mut tripod_model::container::ContainerSpec,
) -> Result<(), Fault> {
    use tripod_model::container::NamespaceMode;
    let sec = &mut spec.security;
    for mode in [&mut sec.pid, &mut sec.ipc] {
        if let NamespaceMode::Container(of) = mode {
            *of = docker.agent().container(of)?.id.clone();
        }
    }
    Ok(())
}

/// `linux/amd64`, `linux/arm/v7`, `amd64`, or nothing.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let json: Option<Platform> = text
        .starts_with('{')
        .then(|| serde_json::from_str(text).ok())
        .flatten();
    if json.is_some() {
        return Ok(json);
    }
    let words: Vec<&str> = text.split('/').collect();
    let ok = words
        .iter()
        .all(|w| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
    let bad = || {
        Fault::bad(format_args!(
            "\"{text}\": unknown operating system or architecture: invalid argument"
        ))
    };
    if !ok {
        return Err(bad());
    }
    let normal = |arch: &str| match arch {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let of = |os: &str, arch: &str, variant: &str| Platform {
        os: os.into(),
        architecture: normal(arch),
        variant: variant.into(),
    };
    match words.as_slice() {
        ["linux"] => Ok(Some(of("linux", tripod_agent::host::architecture(), ""))),
        [arch] => Ok(Some(of("linux", arch, ""))),
        [os, arch] => Ok(Some(of(os, arch, ""))),
        [os, arch, variant] => Ok(Some(of(os, arch, variant))),
        _ => Err(bad()),
    }
}

async fn inspect(docker: &Docker, call: &Call, id: &str) -> Reply {
    let agent = docker.agent();
    let record = agent.container(id)?;
    let size = match call.query.flag("size") {
        true => Some(agent.images().container_size(&record.id).await?),
        false => None,
    };
    let beside = inspect::Beside {
        exec_ids: agent.exec_ids(&record.id),
        rootfs: agent.images().rootfs(&record.id).ok(),
        log_path: agent
            .runtime()
            .log_path(&record.id)
            .map(|p| p.to_string_lossy().into_owned()),
        size,
    };
    reply::json(&inspect::inspect(&record, beside))
}

/// An object with warnings: the answer of update.
fn with_warnings(warnings: &[String]) -> Reply {
    reply::json(&json!({ "Warnings": warnings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let of = |t: &str| platform(t).unwrap().map(|p| (p.os, p.architecture, p.variant));
        assert_eq!(of(""), None);
        assert_eq!(
            of("linux/x86_64"),
            Some(("linux".into(), "amd64".into(), String::new()))
        );
        assert_eq!(
            of("linux/arm/v7"),
            Some(("linux".into(), "arm".into(), "v7".into()))
        );
        assert_eq!(of("arm64"), Some(("linux".into(), "arm64".into(), String::new())));
        assert!(platform("a/b/c/d").is_err());
        assert!(platform("li nux").is_err());
    }
}
