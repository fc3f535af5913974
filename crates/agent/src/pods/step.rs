//! What to do next for a pod: a pure function of what is wanted and what is there.

use tripod_model::container::{ContainerStatus, HealthStatus};
use tripod_model::pod::DesiredState;
use tripod_model::swarm::TaskState;

use crate::record::ContainerRecord;

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Get the image and make the container.
    Prepare,
    /// Start the container.
    Start,
    /// Tell the manager that it is in this state, with message and error.
    Report(TaskState, &'static str, String),
    /// Let connections drain, then stop the container.
    Stop,
    /// Remove the container.
    Remove,
    /// Nothing until something changes.
    Wait,
}

/// Decides. `gone`: the pod is not in the store any more. `reported` is the last state told.
pub(crate) fn step(
    desired: DesiredState,
    gone: bool,
    reported: TaskState,
    container: Option<&ContainerRecord>,
) -> Action {
    let ending = gone || desired >= DesiredState::Shutdown;
    let Some(c) = container else {
        return match (ending, reported.is_final()) {
            (true, false) => Action::Report(TaskState::Shutdown, "shutdown", String::new()),
            (_, true) => Action::Wait,
            // Somebody else removed it: a task has one container in its life.
            (false, false) if reported >= TaskState::Ready => Action::Report(
                TaskState::Failed,
                "started",
                "task: its container was removed".into(),
            ),
            (false, false) => Action::Prepare,
        };
    };
    if c.is_running() {
        return if ending {
            Action::Stop
        } else {
            running(reported, c)
        };
    }
    match c.state.status {
        ContainerStatus::Created if ending => Action::Remove,
        ContainerStatus::Created if reported.is_final() => Action::Wait,
        ContainerStatus::Created if reported < TaskState::Ready => {
            Action::Report(TaskState::Ready, "prepared", String::new())
        }
        ContainerStatus::Created if desired == DesiredState::Ready => Action::Wait,
        ContainerStatus::Created if reported < TaskState::Starting => {
            Action::Report(TaskState::Starting, "starting", String::new())
        }
        ContainerStatus::Created => Action::Start,
        _ if !reported.is_final() => ended(c, ending),
        _ if gone || desired == DesiredState::Remove => Action::Remove,
        _ => Action::Wait,
    }
}

fn running(reported: TaskState, c: &ContainerRecord) -> Action {
    let health = c.state.health.as_ref().map(|h| h.status);
    match health {
        Some(HealthStatus::Unhealthy) => Action::Stop,
        // Not healthy yet: it counts as starting.
        Some(HealthStatus::Starting) => Action::Wait,
        _ if reported < TaskState::Running => Action::Report(TaskState::Running, "started", String::new()),
        _ => Action::Wait,
    }
}

fn ended(c: &ContainerRecord, ending: bool) -> Action {
    let unhealthy = c
        .state
        .health
        .as_ref()
        .is_some_and(|h| h.status == HealthStatus::Unhealthy);
    if ending {
        Action::Report(TaskState::Shutdown, "shutdown", String::new())
    } else if unhealthy {
        Action::Report(
            TaskState::Failed,
            "started",
            "task: non-zero exit (unhealthy container)".into(),
        )
    } else if c.state.exit_code == 0 {
        Action::Report(TaskState::Complete, "finished", String::new())
    } else {
        let error = match c.state.oom_killed {
            true => format!("task: non-zero exit ({}): out of memory", c.state.exit_code),
            false => format!("task: non-zero exit ({})", c.state.exit_code),
        };
        Action::Report(TaskState::Failed, "started", error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tripod_model::Time;
    use tripod_model::container::{ContainerState, Health};

    use super::*;
    use crate::Owner;

    fn record(status: ContainerStatus, exit_code: i64, health: Option<HealthStatus>) -> ContainerRecord {
        ContainerRecord {
            id: "c".into(),
            name: "c".into(),
            created: Time::UNIX_EPOCH,
            spec: Arc::default(),
            manifest: None,
            owner: Owner::Local,
            state: ContainerState {
                status,
                exit_code,
                health: health.map(|status| Health {
                    status,
                    ..Health::default()
                }),
                ..ContainerState::default()
            },
            run: 1,
            wanted: true,
            resume: false,
            endpoints: Vec::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            dir: String::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_life() {
        use ContainerStatus::{Created, Exited, Running};
        use DesiredState as D;
        use TaskState as T;
        let report = |s, m| Action::Report(s, m, String::new());
        let failed = |e: &str| Action::Report(T::Failed, "started", e.to_owned());
        let created = record(Created, 0, None);
        let runs = record(Running, 0, None);
        let starting = record(Running, 0, Some(HealthStatus::Starting));
        let sick = record(Running, 0, Some(HealthStatus::Unhealthy));
        for (desired, gone, reported, container, want) in [
            (D::Running, false, T::Assigned, None, Action::Prepare),
            (
                D::Running,
                false,
                T::Running,
                None,
                failed("task: its container was removed"),
            ),
            (
                D::Ready,
                false,
                T::Preparing,
                Some(&created),
                report(T::Ready, "prepared"),
            ),
            (D::Ready, false, T::Ready, Some(&created), Action::Wait),
            (
                D::Running,
                false,
                T::Ready,
                Some(&created),
                report(T::Starting, "starting"),
            ),
            (D::Running, false, T::Starting, Some(&created), Action::Start),
            (
                D::Running,
                false,
                T::Starting,
                Some(&runs),
                report(T::Running, "started"),
            ),
            (D::Running, false, T::Starting, Some(&starting), Action::Wait),
            (D::Running, false, T::Running, Some(&sick), Action::Stop),
            (D::Running, false, T::Running, Some(&runs), Action::Wait),
            (D::Shutdown, false, T::Running, Some(&runs), Action::Stop),
            (
                D::Shutdown,
                false,
                T::Running,
                Some(&record(Exited, 143, None)),
                report(T::Shutdown, "shutdown"),
            ),
            (
                D::Shutdown,
                false,
                T::Shutdown,
                Some(&record(Exited, 143, None)),
                Action::Wait,
            ),
            (
                D::Remove,
                false,
                T::Shutdown,
                Some(&record(Exited, 0, None)),
                Action::Remove,
            ),
            (
                D::Running,
                false,
                T::Running,
                Some(&record(Exited, 0, None)),
                report(T::Complete, "finished"),
            ),
            (
                D::Running,
                false,
                T::Running,
                Some(&record(Exited, 3, None)),
                failed("task: non-zero exit (3)"),
            ),
            (
                D::Shutdown,
                false,
                T::Assigned,
                None,
                report(T::Shutdown, "shutdown"),
            ),
            (D::Shutdown, true, T::Shutdown, None, Action::Wait),
            (D::Shutdown, false, T::Ready, Some(&created), Action::Remove),
        ] {
            assert_eq!(
                step(desired, gone, reported, container),
                want,
                "{desired:?} {reported:?}"
            );
        }
    }
}
