//! What happened in the cluster, in the terms of Docker's event stream (scope `swarm`).

use std::collections::BTreeMap;

use tripod_model::Time;
use tripod_model::data::{ConfigMap, Network, Secret};
use tripod_model::event::Event;
use tripod_model::node::{Availability, Node, NodeRole, NodeState};
use tripod_model::object::{Kind, decode};
use tripod_model::swarm::{ServiceMode, SwarmService, UpdateState};
use tripod_store::{Change, Event as StoreEvent};

use crate::swarm::hostname;

type Attributes = BTreeMap<String, String>;

/// A kind of which Docker tells.
trait Told: Kind {
    const TYPE: &'static str;
    /// Identifier and name; `None` when it is none of Docker's business.
    fn identity(&self) -> Option<(String, String)>;
    /// What of it changed; `None` when nothing that Docker tells of did.
    fn changes(old: &Self, new: &Self) -> Option<Attributes>;
}

/// The event of a change in the store, if Docker has one.
pub(crate) fn translate(event: &StoreEvent) -> Option<Event> {
    match event.object.key.kind.as_str() {
        SwarmService::RESOURCE => tell::<SwarmService>(event),
        Node::RESOURCE => tell::<Node>(event),
        Network::RESOURCE => tell::<Network>(event),
        Secret::RESOURCE => tell::<Secret>(event),
        ConfigMap::RESOURCE => tell::<ConfigMap>(event),
        _ => None,
    }
}

fn tell<K: Told>(event: &StoreEvent) -> Option<Event> {
    let object: K = decode(&event.object.bytes).ok()?;
    let (id, name) = object.identity()?;
    let (action, mut attributes) = match event.change {
        Change::Added => ("create", Attributes::new()),
        Change::Deleted => ("remove", Attributes::new()),
        Change::Modified => {
            let old: K = decode(&event.previous.as_ref()?.bytes).ok()?;
            ("update", K::changes(&old, &object)?)
        }
    };
    attributes.insert("name".into(), name);
    Some(Event {
        kind: K::TYPE.into(),
        action: action.into(),
        id,
        attributes,
        time: Time::now(),
        scope: "swarm".into(),
    })
}

fn differ(attributes: &mut Attributes, what: &str, old: &str, new: &str) {
    if old != new {
        attributes.insert(format!("{what}.old"), old.into());
        attributes.insert(format!("{what}.new"), new.into());
    }
}

impl Told for SwarmService {
    const TYPE: &'static str = "service";
    fn identity(&self) -> Option<(String, String)> {
        Some((self.metadata.name.clone(), self.spec.name.clone()))
    }
    fn changes(old: &Self, new: &Self) -> Option<Attributes> {
        let state = |s: &Self| {
            s.status
                .update
                .as_ref()
                .map_or("", |u| UpdateState::as_str(u.state))
        };
        let replicas = |s: &Self| match s.spec.mode {
            ServiceMode::Replicated { replicas } => replicas.to_string(),
            _ => String::new(),
        };
        let image = |s: &Self| s.spec.task_template.container.image.clone();
        let mut attributes = Attributes::new();
        differ(&mut attributes, "updatestate", state(old), state(new));
        differ(&mut attributes, "replicas", &replicas(old), &replicas(new));
        differ(&mut attributes, "image", &image(old), &image(new));
        // Docker tells only the new state of an update that had none.
        attributes.retain(|key, value| !(key.starts_with("updatestate") && value.is_empty()));
        let told = old.metadata.generation != new.metadata.generation || !attributes.is_empty();
        told.then_some(attributes)
    }
}

impl Told for Node {
    const TYPE: &'static str = "node";
    fn identity(&self) -> Option<(String, String)> {
        let id = self.spec.swarm.node_id.clone();
        (!id.is_empty()).then(|| (id, hostname(self).to_owned()))
    }
    fn changes(old: &Self, new: &Self) -> Option<Attributes> {
        let state = |n: &Self| match n.status.state {
            NodeState::Unknown => "unknown",
            NodeState::Down => "down",
            NodeState::Ready => "ready",
            NodeState::Disconnected => "disconnected",
        };
        let availability = |n: &Self| match n.spec.swarm.availability {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        };
        let role = |n: &Self| match n.spec.swarm.role {
            NodeRole::Worker => "worker",
            NodeRole::Manager => "manager",
        };
        let leader = |n: &Self| {
            n.status
                .manager
                .as_ref()
                .map_or("", |m| if m.leader { "true" } else { "false" })
        };
        let mut attributes = Attributes::new();
        differ(&mut attributes, "state", state(old), state(new));
        differ(
            &mut attributes,
            "availability",
            availability(old),
            availability(new),
        );
        differ(&mut attributes, "role", role(old), role(new));
        differ(&mut attributes, "leader", leader(old), leader(new));
        (old.spec != new.spec || !attributes.is_empty()).then_some(attributes)
    }
}

impl Told for Network {
    const TYPE: &'static str = "network";
    fn identity(&self) -> Option<(String, String)> {
        Some((self.metadata.name.clone(), self.spec.name.clone()))
    }
    fn changes(_: &Self, _: &Self) -> Option<Attributes> {
        Some(Attributes::new())
    }
}

impl Told for Secret {
    const TYPE: &'static str = "secret";
    fn identity(&self) -> Option<(String, String)> {
        self.swarm.as_ref().map(|_| {
            (
                self.metadata.name.clone(),
                self.metadata.display_name().to_owned(),
            )
        })
    }
    fn changes(_: &Self, _: &Self) -> Option<Attributes> {
        Some(Attributes::new())
    }
}

impl Told for ConfigMap {
    const TYPE: &'static str = "config";
    fn identity(&self) -> Option<(String, String)> {
        self.swarm.as_ref().map(|_| {
            (
                self.metadata.name.clone(),
                self.metadata.display_name().to_owned(),
            )
        })
    }
    fn changes(_: &Self, _: &Self) -> Option<Attributes> {
        Some(Attributes::new())
    }
}
