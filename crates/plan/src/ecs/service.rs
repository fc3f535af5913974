//! Services: how many tasks of which deployment run, and what an update, a failure or an end does about it.

use std::sync::Arc;

use tripod_model::Time;
use tripod_model::ecs::{EcsCluster, EcsService, TaskDefinition};
use tripod_model::pod::{DesiredState, Pod};

pub use super::deploy::{begin, event, last_good};
use super::task::{Launch, make};
use super::{Key, Work, deploy, life, place, state};

/// Seconds below which a task that ended counts as one that did not start well.
const SHORT: i64 = 10;
/// Seconds for which tasks must have run before a deployment under a circuit breaker completes, when none has failed.
const TRIAL: i64 = 3;
/// Starts that may fail in a row before the next one waits, and the longest wait in seconds.
const FREE_FAILURES: usize = 2;
const LONGEST_WAIT: i64 = 60;

/// A task that is to run and has not ended.
pub fn is_live(pod: &Pod) -> bool {
    pod.state.desired < DesiredState::Shutdown && state(pod).stopped_at.is_none()
}

/// A task that runs, and is well as far as that can be told.
pub fn is_ready(pod: &Pod) -> bool {
    let checked = pod
        .ecs()
        .is_some_and(|t| t.containers.iter().any(|c| c.essential && c.health_check));
    is_live(pod) && state(pod).last_status == "RUNNING" && (!checked || life::health(pod) == "HEALTHY")
}

/// Running and pending tasks of a deployment.
pub fn counts<'p>(tasks: impl IntoIterator<Item = &'p Arc<Pod>>, deployment: &str) -> (i64, i64) {
    let (mut running, mut pending) = (0, 0);
    for pod in tasks {
        let of = deployment.is_empty() || pod.ecs().is_some_and(|t| t.started_by == deployment);
        if of && is_live(pod) {
            if state(pod).last_status == "RUNNING" {
                running += 1;
            } else {
                pending += 1;
            }
        }
    }
    (running, pending)
}

/// One service in a plan.
struct Roll<'w, 'v> {
    w: &'w mut Work<'v>,
    cluster: Arc<EcsCluster>,
    service: EcsService,
    tasks: Vec<Pod>,
    stored: Vec<Arc<Pod>>,
    stopped: Vec<String>,
    started: Vec<String>,
}

/// Decides about a service.
pub(super) fn reconcile(w: &mut Work<'_>, key: &Key, namespace: &str, name: &str) {
    let Some(old) = w.ecs().service(namespace, name).cloned() else {
        return;
    };
    let Some(cluster) = w.ecs().cluster(namespace).cloned() else {
        return;
    };
    if old.status.state == "INACTIVE" {
        return;
    }
    let mut stored: Vec<Arc<Pod>> = w.ecs().tasks_of(namespace, &old.spec.name).cloned().collect();
    stored.sort_by_key(|p| (p.metadata.creation_timestamp, p.metadata.name.clone()));
    // Tasks of an earlier service of the same name are none of ours.
    let ours = |p: &Arc<Pod>| p.metadata.creation_timestamp >= old.metadata.creation_timestamp;
    stored.retain(ours);
    let mut roll = Roll {
        service: EcsService::clone(&old),
        tasks: stored.iter().map(|p| Pod::clone(p)).collect(),
        cluster,
        stored,
        stopped: Vec::new(),
        started: Vec::new(),
        w,
    };
    if old.status.state == "DRAINING" {
        roll.drain();
    } else {
        roll.advance(key);
    }
    roll.finish(&old);
}

impl Roll<'_, '_> {
    fn finish(self, old: &EcsService) {
        for (new, old) in self.tasks.into_iter().zip(&self.stored) {
            self.w.update_pod(old, new);
        }
        self.w.update_service(old, &self.service);
    }

    fn now(&self) -> Time {
        self.w.now
    }

    fn say(&mut self, message: String) {
        let now = self.w.now;
        event(&mut self.service, message, now, &mut self.w.rng);
    }

    fn live(&self, deployment: Option<&str>) -> Vec<usize> {
        let of = |p: &Pod| deployment.is_none_or(|d| p.ecs().is_some_and(|t| t.started_by == d));
        (0..self.tasks.len())
            .filter(|&i| is_live(&self.tasks[i]) && of(&self.tasks[i]))
            .collect()
    }

    fn stop(&mut self, i: usize, why: &str) {
        let now = self.now();
        let pod = &mut self.tasks[i];
        life::stop(pod, "ServiceSchedulerInitiated", why, now);
        if let Some(task) = pod.ecs() {
            self.stopped.push(task.id.clone());
        }
    }

    fn is_protected(&self, i: usize) -> bool {
        state(&self.tasks[i])
            .protected_until
            .is_some_and(|until| until > self.w.now)
    }

    /// The service is deleted: everything ends, then it is INACTIVE.
    fn drain(&mut self) {
        let id = self
            .service
            .status
            .deployments
            .first()
            .map(|d| d.id.clone())
            .unwrap_or_default();
        for i in self.live(None) {
            self.stop(i, &format!("Scaling activity initiated by (deployment {id})"));
        }
        self.tell_stopped();
        if self.tasks.iter().all(|p| state(p).stopped_at.is_some()) {
            self.service.status.state = "INACTIVE".into();
            self.service.status.ended_at = Some(self.w.now);
            self.service.status.deployments.clear();
        }
    }

    fn advance(&mut self, key: &Key) {
        if self.service.spec.daemon {
            let takes = |i: &place::Instance| i.status == "ACTIVE" && i.connected;
            let n = place::instances(self.w.view, &self.cluster, &[])
                .iter()
                .filter(|i| takes(i))
                .count();
            self.service.spec.desired_count = i64::try_from(n).unwrap_or(i64::MAX);
        }
        let desired = self.service.spec.desired_count;
        if let Some(primary) = self.service.status.deployments.first_mut() {
            primary.desired_count = desired;
        }
        self.replace_sick();
        self.leave_draining();
        self.judge();
        let Some(primary) = self.service.status.deployments.first().cloned() else {
            return;
        };
        self.scale_in(&primary.id, desired);
        self.retire(&primary.id, desired);
        if primary.rollout != "FAILED" {
            self.start(key, desired);
        }
        self.tell_stopped();
        self.tell_started();
        self.settle(key, desired);
    }

    /// Tasks whose health check fails are replaced.
    fn replace_sick(&mut self) {
        for i in self.live(None) {
            if life::health(&self.tasks[i]) == "UNHEALTHY" {
                let id = self.tasks[i].ecs().map(|t| t.id.clone()).unwrap_or_default();
                let now = self.now();
                life::stop(
                    &mut self.tasks[i],
                    "ServiceSchedulerInitiated",
                    "Task failed container health checks",
                    now,
                );
                self.say(format!("(task {id}) failed container health checks."));
            }
        }
    }

    /// Tasks on draining instances are replaced.
    fn leave_draining(&mut self) {
        let instances = place::instances(self.w.view, &self.cluster, &[]);
        let draining = instances
            .into_iter()
            .filter(|i| i.status == "DRAINING")
            .map(|i| i.node);
        let draining: Vec<String> = draining.collect();
        for i in self.live(None) {
            let fargate = self.tasks[i].ecs().is_some_and(|t| t.launch_type == "FARGATE");
            if !fargate && draining.contains(&self.tasks[i].spec.node_name) {
                self.stop(i, "Container instance is draining");
            }
        }
    }

    /// How many tasks of the primary deployment failed to start since one started well.
    /// One that ran for less than [`SHORT`] did not start well either.
    fn failures(&self, id: &str) -> (usize, Option<Time>) {
        let (mut failed, mut last) = (0, None);
        for pod in self
            .tasks
            .iter()
            .filter(|p| p.ecs().is_some_and(|t| t.started_by == id))
        {
            let s = state(pod);
            let Some(stopped) = s.stopped_at else {
                if s.started_at
                    .is_some_and(|t| self.w.now.as_second() - t.as_second() >= SHORT)
                {
                    (failed, last) = (0, None);
                }
                continue;
            };
            let own = matches!(
                s.stop_code.as_str(),
                "TaskFailedToStart" | "EssentialContainerExited"
            ) || s.stopped_reason.ends_with("health checks");
            let ran = s.started_at.map(|t| stopped.as_second() - t.as_second());
            let bad = match ran {
                None => true,
                Some(seconds) => s.stopped_reason.ends_with("health checks") || seconds < SHORT,
            };
            if own && bad {
                failed += 1;
                last = Some(stopped);
            } else if own {
                (failed, last) = (0, None);
            }
        }
        (failed, last)
    }

    /// The circuit breaker.
    fn judge(&mut self) {
        let Some(primary) = self.service.status.deployments.first().cloned() else {
            return;
        };
        let (failed, _) = self.failures(&primary.id);
        let failed = i64::try_from(failed).unwrap_or(i64::MAX);
        let now = self.now();
        if let Some(d) = self.service.status.deployments.first_mut() {
            d.failed = d.failed.max(failed);
        }
        let threshold = ((self.service.spec.desired_count + 1) / 2).clamp(3, 200);
        let on = self.service.spec.deployment.circuit_breaker && primary.rollout == "IN_PROGRESS";
        if !on || failed < threshold {
            return;
        }
        if let Some(d) = self.service.status.deployments.first_mut() {
            d.rollout = "FAILED".into();
            d.reason = "ECS deployment circuit breaker: tasks failed to start.".into();
            d.updated_at = Some(now);
            d.finished_at = Some(now);
        }
        self.say(format!(
            "(deployment {}) deployment failed: tasks failed to start.",
            primary.id
        ));
        let good = last_good(&self.service).filter(|_| self.service.spec.deployment.rollback);
        if let Some((template, id)) = good {
            if let Some(d) = self.service.status.deployments.first_mut() {
                d.desired_count = 0;
            }
            self.say(format!("rolling back to deployment {id}."));
            begin(&mut self.service, template, &id, now, &mut self.w.rng);
        }
    }

    /// Ends what the primary deployment has too many of.
    fn scale_in(&mut self, id: &str, desired: i64) {
        let mut live = self.live(Some(id));
        let surplus = live
            .len()
            .saturating_sub(usize::try_from(desired.max(0)).unwrap_or(0));
        if self.service.spec.daemon {
            return;
        }
        live.retain(|&i| !self.is_protected(i));
        // Those that do not run yet first, then the youngest.
        live.sort_by_key(|&i| (is_ready(&self.tasks[i]), std::cmp::Reverse(i)));
        for i in live.into_iter().take(surplus) {
            self.stop(i, &format!("Scaling activity initiated by (deployment {id})"));
        }
    }

    /// Ends tasks of earlier deployments as far as enough healthy ones stay.
    fn retire(&mut self, id: &str, desired: i64) {
        let percent = self.service.spec.deployment.minimum_healthy_percent;
        let minimum = (desired * percent + 99).div_euclid(100);
        let mut old = self.live(None);
        old.retain(|&i| self.tasks[i].ecs().is_none_or(|t| t.started_by != id) && !self.is_protected(i));
        let healthy = self
            .live(None)
            .into_iter()
            .filter(|&i| is_ready(&self.tasks[i]))
            .count();
        let mut spare = i64::try_from(healthy).unwrap_or(i64::MAX) - minimum;
        old.sort_by_key(|&i| is_ready(&self.tasks[i]));
        for i in old {
            if is_ready(&self.tasks[i]) {
                if spare <= 0 {
                    break;
                }
                spare -= 1;
            }
            self.stop(i, &format!("Scaling activity initiated by (deployment {id})"));
        }
    }

    /// Starts what is missing, as far as the deployment may surge.
    fn start(&mut self, key: &Key, desired: i64) {
        let Some(primary) = self.service.status.deployments.first().cloned() else {
            return;
        };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let missing = desired - count(self.live(Some(&primary.id)).len());
        let most = desired * self.service.spec.deployment.maximum_percent / 100;
        let room = most - count(self.live(None).len());
        let n = missing.min(if self.service.spec.daemon { missing } else { room });
        if n <= 0 {
            return;
        }
        let (failed, last) = self.failures(&primary.id);
        if failed > FREE_FAILURES
            && let Some(last) = last
        {
            let shift = u32::try_from(failed - FREE_FAILURES).unwrap_or(u32::MAX).min(6);
            let wait = (1_i64 << shift).min(LONGEST_WAIT);
            let until = life::after(last, wait);
            if until > self.now() {
                if self.service.status.not_before.is_none() {
                    self.say("is unable to consistently start tasks successfully.".into());
                }
                self.service.status.not_before = Some(until);
                self.w.wake(until, key);
                return;
            }
        }
        let Some(definition) = self
            .w
            .ecs()
            .definition(&primary.template.task_definition)
            .cloned()
        else {
            self.say(format!(
                "was unable to start tasks: {} is gone.",
                primary.template.task_definition
            ));
            return;
        };
        for _ in 0..n {
            if !self.start_one(&primary.id, &definition) {
                return;
            }
        }
    }

    fn start_one(&mut self, deployment: &str, definition: &Arc<TaskDefinition>) -> bool {
        let template = self.service.spec.template.clone();
        let group = format!("service:{}", self.service.spec.name);
        let mut tags = std::collections::BTreeMap::new();
        match self.service.spec.propagate_tags.as_str() {
            "SERVICE" => tags.clone_from(&self.service.spec.tags),
            "TASK_DEFINITION" => tags.clone_from(&definition.spec.tags),
            _ => {}
        }
        if self.service.spec.managed_tags {
            tags.insert("aws:ecs:clusterName".into(), self.service.spec.cluster.clone());
            tags.insert("aws:ecs:serviceName".into(), self.service.spec.name.clone());
        }
        let cluster = self.cluster.clone();
        let launch = Launch {
            cluster: &cluster,
            definition,
            template: &template,
            overrides: &serde_json::Value::Null,
            group: &group,
            started_by: deployment,
            service: &self.service.spec.name,
            tags,
            client_token: "",
        };
        let (mut pod, mut writes) = make(self.w.view, &launch, self.w.now, &mut self.w.rng);
        if !template.is_fargate() {
            match self.find_place(&pod, &group, definition) {
                Ok(node) => pod.spec.node_name = node,
                Err(why) => {
                    let text = format!(
                        "was unable to place a task because no container instance met all of its requirements. \
                         Reason: {why}"
                    );
                    let told = self.service.status.events.first();
                    if told.is_none_or(|e| !e.message.ends_with(&text)) {
                        self.say(text);
                    }
                    return false;
                }
            }
        }
        self.started.extend(pod.ecs().map(|t| t.id.clone()));
        self.w.placed.push(pod.clone());
        writes.push(crate::write::Write::Create(crate::write::Object::Pod(pod.into())));
        self.w.plan.writes.extend(writes);
        true
    }

    fn find_place(&mut self, pod: &Pod, group: &str, definition: &TaskDefinition) -> Result<String, String> {
        let mut instances = place::instances(self.w.view, &self.cluster, &self.w.placed);
        if self.service.spec.daemon {
            // One on each; a task that still ends holds its place.
            let held = |node: &str| {
                let here = |p: &&Pod| p.spec.node_name == node && state(p).stopped_at.is_none();
                let placed = self
                    .w
                    .placed
                    .iter()
                    .filter(|p| p.ecs().is_some_and(|t| t.group == group));
                self.tasks.iter().chain(placed).any(|p| here(&p))
            };
            instances.retain(|i| !held(&i.node));
        }
        let mut constraints = self.service.spec.placement_constraints.clone();
        let own = definition
            .spec
            .definition
            .get("placementConstraints")
            .and_then(|v| v.as_array());
        constraints.extend(own.into_iter().flatten().cloned());
        let needs = place::needs_of(pod);
        let strategy = self.service.spec.placement_strategy.clone();
        place::choose(
            &instances,
            &needs,
            group,
            &constraints,
            &strategy,
            &mut self.w.rng,
        )
    }

    fn tell_stopped(&mut self) {
        let stopped = std::mem::take(&mut self.stopped);
        if !stopped.is_empty() {
            self.say(format!(
                "has stopped {} running tasks: {}.",
                stopped.len(),
                listed(&stopped)
            ));
        }
    }

    fn tell_started(&mut self) {
        let started = std::mem::take(&mut self.started);
        if !started.is_empty() {
            self.service.status.not_before = None;
            self.service.status.steady = false;
            self.say(format!(
                "has started {} tasks: {}.",
                started.len(),
                listed(&started)
            ));
        }
    }

    /// Until when a circuit breaker watches the tasks of a deployment, all of which run: one that ends at once is still
    /// to count against it.
    fn on_trial(&self, id: &str) -> Option<Time> {
        if !self.service.spec.deployment.circuit_breaker {
            return None;
        }
        let live = self.live(Some(id));
        let started = live
            .iter()
            .filter_map(|&i| state(&self.tasks[i]).started_at)
            .max()?;
        let trial = if self.failures(id).0 > 0 { SHORT } else { TRIAL };
        let until = life::after(started, trial);
        (until > self.w.now).then_some(until)
    }

    /// Deployments without tasks go; the primary one completes when all its tasks run; then the service is steady.
    fn settle(&mut self, key: &Key, desired: i64) {
        let now = self.now();
        let has_tasks = |tasks: &[Pod], id: &str| {
            let of = |p: &&Pod| p.ecs().is_some_and(|t| t.started_by == id);
            tasks.iter().filter(of).any(|p| state(p).stopped_at.is_none())
        };
        let over = |tasks: &[Pod], d: &tripod_model::ecs::EcsDeployment| !has_tasks(tasks, &d.id);
        let mut at = 1;
        while at < self.service.status.deployments.len() {
            if over(&self.tasks, &self.service.status.deployments[at]) {
                let gone = self.service.status.deployments.remove(at);
                deploy::remember(&mut self.service, gone);
            } else {
                at += 1;
            }
        }
        let Some(primary) = self.service.status.deployments.first().cloned() else {
            return;
        };
        let ready = self
            .live(Some(&primary.id))
            .into_iter()
            .filter(|&i| is_ready(&self.tasks[i]))
            .count();
        let all = i64::try_from(ready).unwrap_or(0) == desired
            && self.live(Some(&primary.id)).len() == ready
            && self.service.status.deployments.len() == 1;
        let until = self
            .on_trial(&primary.id)
            .filter(|_| all && primary.rollout == "IN_PROGRESS");
        if let Some(d) = self.service.status.deployments.first_mut() {
            d.on_trial = until.is_some();
        }
        if !all {
            self.service.status.steady &= primary.rollout == "COMPLETED" && self.live(None).len() == ready;
            return;
        }
        if let Some(until) = until {
            self.w.wake(until, key);
            return;
        }
        if primary.rollout == "IN_PROGRESS" {
            if let Some(d) = self.service.status.deployments.first_mut() {
                d.rollout = "COMPLETED".into();
                d.reason = format!("ECS deployment {} completed.", d.id);
                d.updated_at = Some(now);
                d.finished_at = Some(now);
                d.failed = 0;
            }
            self.say(format!("(deployment {}) deployment completed.", primary.id));
        }
        if !self.service.status.steady && primary.rollout != "FAILED" {
            self.service.status.steady = true;
            self.say("has reached a steady state.".into());
        }
    }
}

fn listed(ids: &[String]) -> String {
    let parts: Vec<String> = ids.iter().map(|id| format!("(task {id})")).collect();
    parts.join(" ")
}
