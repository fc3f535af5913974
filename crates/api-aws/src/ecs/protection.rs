//! Protection of tasks against scaling in.

use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::pod::Pod;
use tripod_plan::ecs::{life, state};

use super::{cluster, find_task, last_part, missing, task_arn, tasks_in};
use crate::call::Call;
use crate::fault::{Fault, Reply};
use crate::value::{Get as _, dense, epoch_of};

/// Minutes of a protection that names none, and of the longest one.
const DEFAULT: i64 = 120;
const LONGEST: i64 = 2880;

fn shown(pod: &Pod, now: Time) -> Value {
    let until = state(pod).protected_until.filter(|t| *t > now);
    dense(
        json!({ "taskArn": task_arn(pod), "protectionEnabled": until.is_some(), "expirationDate": epoch_of(until) }),
    )
}

pub(super) async fn get(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let mut names = input.texts("tasks");
    if names.is_empty() {
        names = tasks_in(&call, &cluster).iter().map(|p| task_arn(p)).collect();
    }
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match find_task(&call, &cluster, &name) {
            Ok(pod) => found.push(shown(&pod, call.now())),
            Err(_) => failures.push(missing(name)),
        }
    }
    Ok(json!({ "protectedTasks": found, "failures": failures }))
}

pub(super) async fn update(call: Call, input: Value) -> Reply {
    let cluster = cluster(&call, &input)?;
    call.manager.caught_up().await;
    let names = input.texts("tasks");
    if names.is_empty() || names.len() > 10 {
        return Err(Fault::parameter("tasks takes 1 to 10 tasks."));
    }
    let minutes = input.number("expiresInMinutes").unwrap_or(DEFAULT);
    if !(1..=LONGEST).contains(&minutes) {
        return Err(Fault::parameter(format!(
            "expiresInMinutes must be between 1 and {LONGEST}."
        )));
    }
    let on = input.flag("protectionEnabled").unwrap_or(false);
    let until = on.then(|| life::after(call.now(), minutes * 60));
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let Ok(pod) = find_task(&call, &cluster, &name) else {
            failures.push(missing(
                call.arn("ecs", &format!("task/{}/{}", cluster.spec.name, last_part(&name))),
            ));
            continue;
        };
        if pod.ecs().is_none_or(|t| t.service.is_empty()) {
            failures.push(json!({ "arn": task_arn(&pod), "reason": "TASK_NOT_VALID",
                                  "detail": "The task is not part of a service." }));
            continue;
        }
        let gone = || Fault::parameter("The referenced task was not found.");
        let done = call
            .edit(
                &pod.metadata.namespace,
                &pod.metadata.name,
                gone,
                |p: &mut Pod| {
                    p.state.ecs.get_or_insert_default().protected_until = until;
                    Ok(())
                },
            )
            .await?;
        found.push(shown(&done.0, call.now()));
    }
    Ok(json!({ "protectedTasks": found, "failures": failures }))
}
