//! Whether and when a container that ended is started again.

use std::time::Duration;

use tripod_model::Time;
use tripod_model::container::RestartCondition;

use crate::record::{ContainerRecord, Owner};

/// The first delay; it doubles with each restart.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
const LAST_DELAY: Duration = Duration::from_secs(60);
/// A run as long as this makes the next delay the first one again.
const STEADY: Duration = Duration::from_secs(10);

/// What happens after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It stays as it is.
    Stay,
    /// It is started again after this time.
    After(Duration),
}

/// Decides for a run of `record` that ended with `code` at `at`.
pub(crate) fn decide(record: &ContainerRecord, code: i64, at: Time) -> Decision {
    let policy = &record.spec.restart;
    let state = &record.state;
    // Pods are started again by who placed them here.
    if state.stopped_by_user || record.owner != Owner::Local {
        return Decision::Stay;
    }
    let again = match policy.condition {
        RestartCondition::No => false,
        RestartCondition::Always | RestartCondition::UnlessStopped => true,
        RestartCondition::OnFailure => {
            code != 0 && (policy.max_retries == 0 || state.restart_count < policy.max_retries)
        }
    };
    if !again {
        return Decision::Stay;
    }
    let ran = state
        .started_at
        .and_then(|t| Duration::try_from(at.duration_since(t)).ok())
        .unwrap_or_default();
    if ran >= STEADY {
        return Decision::After(FIRST_DELAY);
    }
    let doublings = u32::try_from(state.restart_count).unwrap_or(0).min(10);
    Decision::After((FIRST_DELAY * 2u32.pow(doublings)).min(LAST_DELAY))
}

/// Whether a container that does not run is to be started with the daemon.
pub(crate) fn starts_with_daemon(record: &ContainerRecord) -> bool {
    if record.owner != Owner::Local {
        return false;
    }
    match record.spec.restart.condition {
        RestartCondition::Always => record.run > 0,
        RestartCondition::UnlessStopped => record.run > 0 && !record.state.stopped_by_user,
        RestartCondition::OnFailure => {
            let (most, so_far) = (record.spec.restart.max_retries, record.state.restart_count);
            record.wanted && record.state.exit_code != 0 && (most == 0 || so_far < most)
        }
        RestartCondition::No => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tripod_model::container::{ContainerSpec, ContainerState, RestartPolicy};

    use super::*;

    fn record(condition: RestartCondition, max_retries: i64, restarts: i64, ran: i64) -> ContainerRecord {
        let spec = ContainerSpec {
            restart: RestartPolicy {
                condition,
                max_retries,
            },
            ..ContainerSpec::default()
        };
        ContainerRecord {
            id: "x".into(),
            name: "x".into(),
            created: Time::UNIX_EPOCH,
            spec: Arc::new(spec),
            manifest: None,
            owner: Owner::Local,
            state: ContainerState {
                started_at: Some(Time::from_second(1000 - ran).unwrap()),
                restart_count: restarts,
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
    fn policies() {
        use RestartCondition::{Always, No, OnFailure, UnlessStopped};
        let at = Time::from_second(1000).unwrap();
        let ms = Duration::from_millis;
        for (condition, max, restarts, ran, code, want) in [
            (No, 0, 0, 1, 1, Decision::Stay),
            (Always, 0, 0, 1, 0, Decision::After(ms(100))),
            (Always, 0, 3, 1, 0, Decision::After(ms(800))),
            (UnlessStopped, 0, 30, 1, 0, Decision::After(ms(60_000))),
            (Always, 0, 30, 11, 0, Decision::After(ms(100))),
            (OnFailure, 0, 9, 1, 0, Decision::Stay),
            (OnFailure, 3, 2, 1, 1, Decision::After(ms(400))),
            (OnFailure, 3, 3, 1, 1, Decision::Stay),
        ] {
            assert_eq!(
                decide(&record(condition, max, restarts, ran), code, at),
                want,
                "{condition:?} {restarts}"
            );
        }
        let mut stopped = record(Always, 0, 0, 1);
        stopped.state.stopped_by_user = true;
        assert_eq!(decide(&stopped, 1, at), Decision::Stay);
        assert!(starts_with_daemon(&stopped));
        stopped.spec = record(UnlessStopped, 0, 0, 1).spec;
        assert!(!starts_with_daemon(&stopped));
    }
}
