//! A Kubernetes cluster in memory, on virtual time: takes objects as the API would store them, executes plans, and
//! has nodes run pods.
#![allow(dead_code, unreachable_pub, reason = "tests use parts of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::node::{Node, NodeRole, NodeState};
use tripod_model::pod::Pod;
use tripod_model::swarm::SwarmCluster;
use tripod_plan::kube::{Controller, KObject, KPod, KubePlan, ObjKey, WorkKey, reconcile_kube};
use tripod_plan::{Object, View, Write};

pub struct Kube {
    pub view: View,
    pub now: Time,
    pub revision: u64,
    pub wakes: BTreeMap<Time, BTreeSet<WorkKey>>,
    /// Pods of these images end with a status after so many seconds, instead of running on.
    pub exits: BTreeMap<String, (i64, i64)>,
    /// Images whose pods never become ready.
    pub broken: BTreeSet<String>,
    started: BTreeMap<String, Time>,
    pub writes: usize,
    pub rounds: usize,
    address: u32,
}

impl Kube {
    pub fn new(nodes: usize) -> Self {
        let mut kube = Self {
            view: View::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            revision: 0,
            wakes: BTreeMap::new(),
            exits: BTreeMap::new(),
            broken: BTreeSet::new(),
            started: BTreeMap::new(),
            writes: 0,
            rounds: 0,
            address: 0x0af4_0000,
        };
        let mut cluster = SwarmCluster::default();
        cluster.status.ca_cert = "PEM".into();
        kube.view.upsert_cluster(Arc::new(cluster));
        for n in 1..=nodes {
            kube.node(&format!("node{n}"), |_| {});
        }
        kube.settle();
        kube
    }

    pub fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.view.node(name).map_or_else(
            || {
                let mut node = Node::default();
                node.metadata.name = name.into();
                node.metadata.uid = format!("uid-{name}");
                node.spec.swarm.node_id = format!("id-{name}");
                node.spec.swarm.role = NodeRole::Manager;
                node.status.state = NodeState::Ready;
                node.status.addr = "10.9.0.1".into();
                node.status.description.nano_cpus = 4_000_000_000;
                node.status.description.memory = 8 << 30;
                node.status.description.platform.architecture = "x86_64".into();
                node
            },
            |n| n.as_ref().clone(),
        );
        change(&mut node);
        self.revision += 1;
        node.metadata.resource_version = self.revision.to_string();
        self.view.upsert_node(Arc::new(node));
    }

    /// Stores an object as the API would: a new one with an identity, a present one with a new generation.
    pub fn apply(&mut self, resource: &str, mut value: Value) {
        self.revision += 1;
        let text = |v: &Value, f: &str| v["metadata"][f].as_str().unwrap_or_default().to_owned();
        let key = ObjKey::new(resource, text(&value, "namespace"), text(&value, "name"));
        let info = tripod_plan::kube::kinds::info(resource).unwrap();
        value["apiVersion"] = info.api_version.into();
        value["kind"] = info.kind.into();
        let old = self.value(resource, &key.namespace, &key.name);
        if old.is_null() {
            value["metadata"]["uid"] = format!("uid-{resource}-{}", self.revision).into();
            value["metadata"]["creationTimestamp"] = self.now.to_string().into();
            value["metadata"]["generation"] = 1.into();
        } else {
            for field in ["uid", "creationTimestamp", "generation"] {
                value["metadata"][field] = old["metadata"][field].clone();
            }
            if old["spec"] != value["spec"] {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
                value["metadata"]["generation"] = (generation + 1).into();
            }
            if value.get("status").is_none() && !old["status"].is_null() {
                value["status"] = old["status"].clone();
            }
        }
        self.store(key, value);
    }

    fn store(&mut self, key: ObjKey, mut value: Value) {
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        if &*key.resource == "pods" {
            let pod: Pod = serde_json::from_value(value).unwrap();
            self.view.upsert_pod(Arc::new(pod));
        } else {
            let bytes = Bytes::from(serde_json::to_vec(&value).unwrap());
            let object = KObject::new(key, self.revision, bytes).unwrap();
            self.view.kube_mut().upsert(Arc::new(object));
        }
    }

    /// Changes a stored object as a client would.
    pub fn edit(&mut self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.value(resource, namespace, name);
        assert!(!value.is_null(), "no {resource} {namespace}/{name}");
        change(&mut value);
        self.apply(resource, value);
    }

    /// Removes an object at once, as the API does for one without finalizers.
    pub fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        if resource == "pods" {
            self.view.remove_pod(&format!("{namespace}/{name}"));
        } else {
            self.view
                .kube_mut()
                .remove(&ObjKey::new(resource, namespace, name));
        }
    }

    pub fn value(&self, resource: &str, namespace: &str, name: &str) -> Value {
        if resource == "pods" {
            let pod = self.view.kube().pod(namespace, name);
            return pod.map_or(Value::Null, |p| serde_json::to_value(p.pod.as_ref()).unwrap());
        }
        let object = self.view.kube().get(resource, namespace, name);
        object.map_or(Value::Null, |o| o.value())
    }

    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.view
            .kube()
            .list(resource, namespace)
            .map(|o| o.value())
            .collect()
    }

    pub fn pods(&self, namespace: &str) -> Vec<Arc<KPod>> {
        self.view.kube().pods_in(namespace).cloned().collect()
    }

    pub fn active(&self, namespace: &str) -> Vec<Arc<KPod>> {
        self.pods(namespace)
            .into_iter()
            .filter(|p| p.info.is_active())
            .collect()
    }

    pub fn ready(&self, namespace: &str) -> usize {
        self.active(namespace).iter().filter(|p| p.info.ready).count()
    }

    pub fn events(&self, namespace: &str, reason: &str) -> Vec<Value> {
        let all = self.list("events", namespace).into_iter();
        all.filter(|e| e["reason"] == reason).collect()
    }

    /// Plans and executes until nothing more is to be done now.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(
                round < 60,
                "plans go on and on: {:?}",
                self.view.kube_mut().take_dirty()
            );
            let dirty = self.view.kube_mut().take_dirty();
            if dirty.is_empty() {
                break;
            }
            self.rounds += 1;
            let plan = reconcile_kube(&self.view, &dirty, self.now, self.revision);
            self.execute(plan);
        }
        self.check();
    }

    fn execute(&mut self, plan: KubePlan) {
        let mut seen = BTreeSet::new();
        for write in plan.writes.iter().chain(&plan.events) {
            self.writes += 1;
            self.revision += 1;
            let (key, value, revision) = match write.object() {
                Object::Raw(o) => {
                    let now = self
                        .view
                        .kube()
                        .get(&o.key.resource, &o.key.namespace, &o.key.name);
                    let value: Value = serde_json::from_slice(&o.bytes).unwrap();
                    (o.key.clone(), value, now.map(|o| o.revision))
                }
                Object::Pod(p) => {
                    let key = ObjKey::new("pods", p.metadata.namespace.as_str(), p.metadata.name.as_str());
                    let now = self.view.kube().pod(&key.namespace, &key.name);
                    let now = now.map(|p| p.pod.metadata.revision());
                    (key, serde_json::to_value(p.as_ref()).unwrap(), now)
                }
                Object::Node(n) => {
                    let name = n.metadata.name.clone();
                    let n = n.as_ref().clone();
                    self.node(&name, |node| *node = n);
                    continue;
                }
                other => panic!("unexpected {other:?}"),
            };
            assert!(seen.insert(key.clone()), "two writes of {key} in one plan");
            match write {
                Write::Create(_) => assert_eq!(revision, None, "{key} exists"),
                Write::Update { based_on, .. } | Write::Delete { based_on, .. } => {
                    assert_eq!(revision, Some(*based_on), "{key} out of sequence");
                }
            }
            if matches!(write, Write::Delete { .. }) {
                self.delete(&key.resource, &key.namespace, &key.name);
            } else {
                self.store(key, value);
            }
        }
        for key in plan.again {
            self.view.kube_mut().mark_key(key);
        }
        for (at, key) in plan.wakes {
            self.wakes.entry(at).or_default().insert(key);
        }
    }

    /// What holds at all times.
    fn check(&self) {
        for pod in self.view.kube().pods() {
            if !pod.pod.spec.node_name.is_empty() {
                assert!(
                    self.view.node(&pod.pod.spec.node_name).is_some(),
                    "{} on no node",
                    pod.name()
                );
            }
        }
    }

    /// Runs for so many seconds, in steps of one.
    pub fn run(&mut self, seconds: i64) {
        self.settle();
        for _ in 0..seconds {
            self.now = self.now.checked_add(SignedDuration::from_secs(1)).unwrap();
            while let Some(entry) = self.wakes.first_entry().filter(|e| *e.key() <= self.now) {
                for key in entry.remove() {
                    self.view.kube_mut().mark_key(key);
                }
            }
            self.nodes_act();
            self.settle();
        }
    }

    /// Moves on by a long time at once: only what is due by itself happens.
    pub fn jump(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self.run(1);
    }

    pub fn run_until(&mut self, limit: i64, what: &str, done: impl Fn(&Self) -> bool) {
        self.settle();
        for _ in 0..limit {
            if done(self) {
                return;
            }
            self.run(1);
        }
        panic!("not reached in {limit} s: {what}");
    }

    /// What the nodes do in a second: pods start, become ready, end, go.
    fn nodes_act(&mut self) {
        let pods: Vec<Arc<KPod>> = self.view.kube().pods().cloned().collect();
        for pod in pods {
            let node = pod.pod.spec.node_name.clone();
            let down = self
                .view
                .node(&node)
                .is_none_or(|n| n.status.state != NodeState::Ready);
            if node.is_empty() || down {
                continue;
            }
            let key = format!("{}/{}", pod.namespace(), pod.name());
            if pod.info.deleted {
                if pod.pod.metadata.finalizers.is_empty() {
                    self.view.remove_pod(&key);
                } else if !pod.info.phase.is_final() {
                    let mut next = pod.pod.as_ref().clone();
                    next.status.phase = "Failed".into();
                    self.revision += 1;
                    next.metadata.resource_version = self.revision.to_string();
                    self.view.upsert_pod(Arc::new(next));
                }
                continue;
            }
            if let Some(next) = self.step(&pod) {
                self.revision += 1;
                let mut next = next;
                next.metadata.resource_version = self.revision.to_string();
                self.view.upsert_pod(Arc::new(next));
            }
        }
    }

    fn step(&mut self, pod: &KPod) -> Option<Pod> {
        if pod.info.phase.is_final() {
            return None;
        }
        let mut next = pod.pod.as_ref().clone();
        let image = pod.pod.spec.containers[0].image.clone();
        let uid = pod.pod.metadata.uid.clone();
        let set = |next: &mut Pod, kind: &str, status: bool, now: Time| {
            let say = tripod_plan::kube::conditions::Say {
                kind,
                status: if status { "True" } else { "False" },
                reason: "",
                message: "",
            };
            let set = tripod_plan::kube::conditions::set;
            next.status.rest.edit("conditions", |list| set(list, say, now));
        };
        if next.status.phase != "Running" {
            self.started.insert(uid, self.now);
            next.status.phase = "Running".into();
            self.address += 1;
            next.status.pod_ip = Some(std::net::Ipv4Addr::from(self.address).into());
            next.status.start_time = Some(self.now);
            set(&mut next, "Ready", !self.broken.contains(&image), self.now);
            return Some(next);
        }
        let (after, code) = *self.exits.get(&image)?;
        let since = *self.started.get(&uid)?;
        if self.now.duration_since(since) < SignedDuration::from_secs(after) {
            return None;
        }
        next.status.phase = if code == 0 {
            "Succeeded".into()
        } else {
            "Failed".into()
        };
        set(&mut next, "Ready", false, self.now);
        let name = next.spec.containers[0].name.clone();
        let ended = json!([{ "name": name, "state": { "terminated": {
            "exitCode": code, "finishedAt": self.now.to_string(),
        } } }]);
        next.status.rest.insert("containerStatuses", ended);
        Some(next)
    }

    pub fn mark(&mut self, controller: Controller, resource: &str, namespace: &str, name: &str) {
        self.view
            .kube_mut()
            .mark(controller, ObjKey::new(resource, namespace, name));
    }
}

/// A template of one container.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "containers": [{ "name": app, "image": image, "resources": {} }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        },
    })
}

pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": template(name, image),
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
        },
    })
}

/// A pod by itself.
pub fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "containers": [{ "name": "c", "image": "busybox", "resources": {} }],
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
        },
        "status": { "phase": "Pending" },
    });
    change(&mut pod);
    pod
}
