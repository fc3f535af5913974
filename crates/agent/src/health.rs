//! Health checks of running containers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tripod_model::Time;
use tripod_model::container::{
    ContainerSpec, ContainerStatus, Health, HealthCheck, HealthResult, HealthStatus,
};

use crate::ports::ExecRequest;
use crate::record::ContainerRecord;
use crate::table::Container;
use crate::{Agent, names};

const DEFAULT_INTERVAL: i64 = 30_000_000_000;
const DEFAULT_TIMEOUT: i64 = 30_000_000_000;
const DEFAULT_START_INTERVAL: i64 = 5_000_000_000;
const DEFAULT_RETRIES: i64 = 3;
const KEPT_RESULTS: usize = 5;
const KEPT_OUTPUT: usize = 4096;

/// The check of a container, when it has one.
pub(crate) fn check_of(spec: &ContainerSpec) -> Option<&HealthCheck> {
    spec.healthcheck
        .as_ref()
        .filter(|c| !c.test.is_empty() && c.test[0] != "NONE")
}

/// Health at the start of a run.
pub(crate) fn initial(spec: &ContainerSpec) -> Option<Health> {
    check_of(spec).map(|_| Health {
        status: HealthStatus::Starting,
        ..Health::default()
    })
}

/// The next state after a result. Pure: `in_start_period` says whether failures count.
pub(crate) fn step(health: &Health, result: HealthResult, retries: i64, in_start_period: bool) -> Health {
    let mut next = health.clone();
    if result.exit_code == 0 {
        next.status = HealthStatus::Healthy;
        next.failing_streak = 0;
    } else if !(in_start_period && health.status == HealthStatus::Starting) {
        next.failing_streak += 1;
        if next.failing_streak >= retries {
            next.status = HealthStatus::Unhealthy;
        }
    }
    next.log.push(result);
    if next.log.len() > KEPT_RESULTS {
        next.log.remove(0);
    }
    next
}

fn command(check: &HealthCheck, spec: &ContainerSpec) -> Vec<String> {
    match check.test[0].as_str() {
        "CMD" => check.test[1..].to_vec(),
        "CMD-SHELL" => {
            let mut line = if spec.shell.is_empty() {
                vec!["/bin/sh".to_owned(), "-c".to_owned()]
            } else {
                spec.shell.clone()
            };
            line.extend_from_slice(&check.test[1..]);
            line
        }
        _ => check.test.clone(),
    }
}

fn duration(nanos: i64, default: i64) -> Duration {
    Duration::from_nanos(u64::try_from(if nanos == 0 { default } else { nanos }).unwrap_or(0))
}

impl Agent {
    /// Checks a container's health until `token` is cancelled.
    pub(crate) fn watch_health(&self, record: &Arc<ContainerRecord>, token: CancellationToken) {
        if check_of(&record.spec).is_none() {
            return;
        }
        let Some(container) = self.inner.table.by_id(&record.id) else {
            return;
        };
        let agent = self.clone();
        tokio::spawn(async move {
            token.run_until_cancelled(agent.health_loop(&container)).await;
        });
    }

    async fn health_loop(&self, container: &Container) {
        let record = container.get();
        let Some(check) = check_of(&record.spec) else {
            return;
        };
        // From here on by a clock that nobody sets.
        let started = record.state.started_at.unwrap_or_else(Time::now);
        let before = Duration::try_from(Time::now().duration_since(started)).unwrap_or_default();
        let watched = Instant::now();
        let start_period = duration(check.start_period, 0);
        loop {
            let age = before + watched.elapsed();
            let starting = container
                .get()
                .state
                .health
                .as_ref()
                .is_some_and(|h| h.status == HealthStatus::Starting);
            let pause = if starting && age < start_period {
                duration(check.start_interval, DEFAULT_START_INTERVAL)
            } else {
                duration(check.interval, DEFAULT_INTERVAL)
            };
            // The interval of the check is a time to wait for, not an event.
            tokio::time::sleep(pause).await;
            match container.get().state.status {
                ContainerStatus::Running => {}
                // Nothing in it can answer.
                ContainerStatus::Paused => continue,
                _ => return,
            }
            let in_start_period = before + watched.elapsed() < start_period;
            self.check_once(container, check, in_start_period).await;
        }
    }

    async fn check_once(&self, container: &Container, check: &HealthCheck, in_start_period: bool) {
        let record = container.get();
        let start = Time::now();
        let timeout = duration(check.timeout, DEFAULT_TIMEOUT);
        let request = ExecRequest {
            exec_id: names::new_id(),
            command: command(check, &record.spec),
            ..ExecRequest::default()
        };
        let (exit_code, output) = match self
            .runtime()
            .exec_sync(&record.id, request, timeout, KEPT_OUTPUT)
            .await
        {
            Ok((Some(0), output)) => (0, String::from_utf8_lossy(&output).into_owned()),
            Ok((Some(code), output)) => (code, String::from_utf8_lossy(&output).into_owned()),
            Ok((None, _)) => (-1, format!("Health check exceeded timeout ({timeout:?})")),
            Err(e) => (-1, e.message),
        };
        let result = HealthResult {
            start,
            end: Time::now(),
            exit_code,
            output,
        };
        let retries = if check.retries == 0 {
            DEFAULT_RETRIES
        } else {
            check.retries
        };
        let before = record.state.health.clone().unwrap_or_default();
        let next = step(&before, result, retries, in_start_period);
        let changed = next.status != before.status;
        let record = container.modify(|r| {
            if r.run == record.run && r.is_running() {
                r.state.health = Some(next);
            }
        });
        if changed && let Some(health) = &record.state.health {
            self.save_soon(&record);
            let word = match health.status {
                HealthStatus::Healthy => "healthy",
                HealthStatus::Unhealthy => "unhealthy",
                _ => "starting",
            };
            self.container_event(&record, &format!("health_status: {word}"), &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i64) -> HealthResult {
        HealthResult {
            start: Time::UNIX_EPOCH,
            end: Time::UNIX_EPOCH,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn failures_count_only_after_the_start_period() {
        let mut health = Health {
            status: HealthStatus::Starting,
            ..Health::default()
        };
        for _ in 0..9 {
            health = step(&health, result(1), 2, true);
        }
        assert_eq!(
            (health.status, health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        assert_eq!(health.log.len(), KEPT_RESULTS);
        health = step(&health, result(1), 2, false);
        assert_eq!(health.status, HealthStatus::Starting);
        health = step(&health, result(-1), 2, false);
        assert_eq!(health.status, HealthStatus::Unhealthy);
        health = step(&health, result(0), 2, false);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        // Once healthy, a failure counts in the start period too.
        health = step(&health, result(1), 1, true);
        assert_eq!(health.status, HealthStatus::Unhealthy);
    }
}
