//! The controller loop: takes the store's changes over into the view, merges what nodes report, and has `plan` decide
//! about whatever that concerns. It is the only writer of pods, so that reports and plans never contend.
//!
//! The loop sleeps until the store changes, a node reports, or a plan's own time comes; it never polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ipnet::IpNet;
use tokio::sync::{broadcast, mpsc, oneshot};
use tripod_model::event::Event as ModelEvent;
use tripod_model::node::{Node, NodeState};
use tripod_model::session::PodReport;
use tripod_model::{Result, Time};
use tripod_plan::{Object, View, Write};
use tripod_raft::{RaftError, Watch};
use tripod_store::{Change, Event, Txn, TxnError};

use crate::db::to_error;
use crate::ecs::EcsWakes;
use crate::events;
use crate::kube::KubeWakes;
use crate::manager::Manager;
use crate::mirror::{add, drop_object, load, take_over, take_own};

/// A transaction takes no further write once it has this many bytes.
const TXN_BYTES: usize = 4 << 20;
/// How long the loop rests after a write failed for a reason that time may cure.
const REST: Duration = Duration::from_millis(500);
/// A node without a session is down after this many heartbeat periods.
const MISSED_HEARTBEATS: i64 = 3;
/// How long nodes have at least to notice that the leader was lost and to find the new one.
const FIND: jiff::SignedDuration = jiff::SignedDuration::from_secs(6);

/// What nodes tell the loop.
pub(crate) enum Input {
    /// States of pods on a node (by its `metadata.name`).
    Reports { node: String, reports: Vec<PodReport> },
    /// A local container wants an address in a cluster network.
    Lease {
        owner: String,
        network: String,
        wanted: Option<IpAddr>,
        reply: oneshot::Sender<Result<IpNet>>,
    },
    /// A local container gives its addresses back.
    Release { owner: String },
    /// A node opened (`true`) or lost its session, and when it was last heard of if that is not now.
    Presence {
        node_id: String,
        present: bool,
        heard: Option<Time>,
    },
}

pub(crate) struct Controller {
    pub(crate) manager: Arc<Manager>,
    store: Watch,
    inputs: mpsc::UnboundedReceiver<Input>,
    events: broadcast::Sender<ModelEvent>,
    /// When to plan which services again.
    wakes: BTreeMap<Time, BTreeSet<String>>,
    /// When the controllers of the Kubernetes API are to decide about which keys again.
    pub(crate) kube_wakes: KubeWakes,
    /// When to decide about services and tasks of ECS again.
    pub(crate) ecs_wakes: EcsWakes,
    /// When a node without a session counts as lost.
    expiries: BTreeMap<String, Time>,
    /// Written when the store lets us: node identifiers and whether they are present.
    presence: BTreeMap<String, bool>,
    pub(crate) reports: Vec<(String, PodReport)>,
    /// Nodes for whose pods no addresses are left, and of which that was said.
    blockless: BTreeSet<String>,
    /// What this loop wrote, by revision, until the change comes back: it need not be decoded.
    pub(crate) written: HashMap<u64, Object>,
    /// Answered when the view holds all that was written.
    leases: Vec<Input>,
    /// Do not write before this instant.
    rest_until: Option<tokio::time::Instant>,
    led: bool,
}

/// Why a write changed nothing.
pub(crate) enum Refused {
    /// The view was behind: plan again when it has caught up.
    Stale,
    /// The store cannot write now.
    Later,
}

impl Controller {
    pub(crate) fn new(
        manager: Arc<Manager>,
        store: Watch,
        inputs: mpsc::UnboundedReceiver<Input>,
        events: broadcast::Sender<ModelEvent>,
    ) -> Self {
        Self {
            manager,
            store,
            inputs,
            events,
            wakes: BTreeMap::new(),
            kube_wakes: KubeWakes::default(),
            ecs_wakes: EcsWakes::default(),
            expiries: BTreeMap::new(),
            presence: BTreeMap::new(),
            reports: Vec::new(),
            blockless: BTreeSet::new(),
            written: HashMap::new(),
            leases: Vec::new(),
            rest_until: None,
            led: false,
        }
    }

    /// Nodes that were ready before this loop began must open a session, or count as lost.
    fn expect_sessions(&mut self) {
        let ready = |n: &&Arc<Node>| n.status.state == NodeState::Ready;
        let ids: Vec<String> = self.manager.with_view(|view| {
            view.nodes()
                .filter(ready)
                .map(|n| n.spec.swarm.node_id.clone())
                .collect()
        });
        let found = Time::now().saturating_add(FIND).unwrap_or(Time::MAX);
        let deadline = self.lost_at(None).max(found);
        self.expiries.extend(ids.into_iter().map(|id| (id, deadline)));
    }

    /// When a node that was last heard of at that time counts as lost.
    fn lost_at(&self, heard: Option<Time>) -> Time {
        let period = self
            .manager
            .with_view(|v| v.cluster().map_or(5_000_000_000, |c| c.spec.heartbeat_period));
        let grace = jiff::SignedDuration::from_nanos(period.saturating_mul(MISSED_HEARTBEATS));
        heard
            .unwrap_or_else(Time::now)
            .saturating_add(grace)
            .unwrap_or(Time::MAX)
    }

    pub(crate) async fn run(mut self) {
        let mut leadership = self.manager.db().cluster().leadership();
        loop {
            // A fault in a plan must not end the loop, and with it every answer that waits for the view.
            if AssertUnwindSafe(self.work()).catch_unwind().await.is_err() {
                tracing::error!("the controllers failed; starting them anew from the store");
                self.resync();
                self.rest_until = Some(tokio::time::Instant::now() + REST);
            }
            let sleep = self.next_wake();
            tokio::select! {
                event = self.store.next() => match event {
                    Some(Ok(event)) => self.take(vec![event]),
                    Some(Err(_)) => self.resync(),
                    None => return,
                },
                Some(input) = self.inputs.recv() => self.note(input),
                changed = leadership.changed() => if changed.is_err() { return },
                () = sleep_until(sleep) => {}
            }
        }
    }

    /// Does all there is to do now. Each round plans, so that a stream of reports does not keep plans waiting.
    async fn work(&mut self) {
        loop {
            while let Ok(input) = self.inputs.try_recv() {
                self.note(input);
            }
            self.catch_up();
            self.answer_leases();
            self.expire();
            if !self.lead().await {
                self.manager.set_settled(self.store.revision());
                return;
            }
            if self.resting() {
                return;
            }
            match self.round().await {
                Ok(true) | Err(Refused::Stale) => {}
                Ok(false) => return,
                Err(Refused::Later) => {
                    self.rest_until = Some(tokio::time::Instant::now() + REST);
                    return;
                }
            }
        }
    }

    /// Writes what is known of nodes and pods, then what follows from it. Whether anything was written.
    async fn round(&mut self) -> Result<bool, Refused> {
        let mut wrote = self.presence().await?;
        if wrote {
            self.catch_up();
        }
        if self.merge().await? {
            wrote = true;
            self.catch_up();
        }
        if self.blocks().await? {
            wrote = true;
            self.catch_up();
        }
        let revision = self.store.revision();
        wrote |= self.plan().await?;
        if wrote {
            self.catch_up();
        }
        let decided = self.plan_ecs().await?;
        if decided {
            self.catch_up();
        }
        wrote |= decided;
        wrote |= self.plan_kube().await?;
        self.manager.set_settled(revision);
        Ok(wrote)
    }

    /// Takes over all changes that are there.
    fn catch_up(&mut self) {
        match self.store.ready() {
            Ok(events) => self.take(events),
            Err(_) => self.resync(),
        }
    }

    fn resting(&mut self) -> bool {
        self.rest_until = self
            .rest_until
            .filter(|until| *until > tokio::time::Instant::now());
        self.rest_until.is_some()
    }

    /// Whether this manager leads. A new leader first learns all that was acknowledged before, then looks at
    /// everything; one that leads no more ends its sessions.
    async fn lead(&mut self) -> bool {
        let cluster = self.manager.db().cluster().clone();
        let leads = cluster.is_leader();
        if leads && !self.led {
            if self.resting() || cluster.read_index().await.is_err() {
                self.rest_until = self.rest_until.or(Some(tokio::time::Instant::now() + REST));
                return false;
            }
            self.catch_up();
            self.manager.change_view(View::mark_all_dirty);
            self.expect_sessions();
            self.led = true;
            self.manager.set_leads(true);
        } else if !leads && self.led {
            self.led = false;
            self.manager.set_leads(false);
            self.manager.sessions.close();
            self.expiries.clear();
            self.presence.clear();
            self.reports.clear();
            self.wakes.clear();
            self.written.clear();
        }
        self.led
    }

    /// The next instant at which there is something to do by itself.
    fn next_wake(&self) -> Option<tokio::time::Instant> {
        let planned = self.wakes.keys().next().copied();
        let lost = self.expiries.values().min().copied();
        let kube = self.kube_wakes.first();
        let first = planned
            .into_iter()
            .chain(lost)
            .chain(kube)
            .chain(self.ecs_wakes.first())
            .min();
        let first = first.map(|at| {
            let wait = at.duration_since(Time::now());
            tokio::time::Instant::now() + Duration::try_from(wait).unwrap_or_default()
        });
        first.into_iter().chain(self.rest_until).min()
    }

    fn note(&mut self, input: Input) {
        match input {
            Input::Reports { node, reports } => {
                self.reports
                    .extend(reports.into_iter().map(|report| (node.clone(), report)));
            }
            lease @ (Input::Lease { .. } | Input::Release { .. }) => self.leases.push(lease),
            Input::Presence {
                node_id,
                present: true,
                ..
            } => {
                self.expiries.remove(&node_id);
                self.presence.insert(node_id, true);
            }
            Input::Presence {
                node_id,
                present: false,
                heard,
            } => {
                let at = self.lost_at(heard);
                self.expiries.insert(node_id, at);
            }
        }
    }

    fn answer_leases(&mut self) {
        for input in std::mem::take(&mut self.leases) {
            match input {
                Input::Lease {
                    owner,
                    network,
                    wanted,
                    reply,
                } => {
                    let leased = self.manager.change_view(|view| {
                        let address = tripod_plan::allocate::lease(view, &network, wanted)?;
                        let held = self.manager.sessions.hold(&owner, &network, address.addr());
                        view.upsert_lease(&owner, held);
                        Ok(address)
                    });
                    // The asker went away: it releases by its owner's name when it is back.
                    let _ = reply.send(leased);
                }
                Input::Release { owner } => {
                    self.manager.sessions.release(&owner);
                    self.manager.change_view(|view| view.remove_lease(&owner));
                }
                Input::Reports { .. } | Input::Presence { .. } => {}
            }
        }
    }

    /// What the passing of time alone brings about.
    fn expire(&mut self) {
        let now = Time::now();
        while let Some(entry) = self.wakes.first_entry().filter(|e| *e.key() <= now) {
            let services = entry.remove();
            self.manager
                .change_view(|view| services.into_iter().for_each(|s| view.mark_dirty(s)));
        }
        let due = self.ecs_wakes.take(now);
        self.remind_ecs(due);
        let due = self.kube_wakes.take(now);
        if !due.is_empty() {
            self.manager
                .change_view(|view| due.into_iter().for_each(|key| view.kube_mut().mark_key(key)));
        }
        let lost: Vec<String> = self
            .expiries
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.expiries.remove(&id);
            self.presence.insert(id, false);
        }
    }

    /// Takes the store's changes over into the view.
    fn take(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.manager.change_view(|view| {
            for event in &events {
                let outcome = match (event.change, self.written.remove(&event.revision)) {
                    (Change::Deleted, _) => {
                        drop_object(view, &event.object.key);
                        Ok(())
                    }
                    (_, Some(object)) => take_own(view, object, &event.object),
                    (_, None) => take_over(view, &event.object),
                };
                if let Err(error) = outcome {
                    tracing::error!(key = %event.object.key, %error, "an object cannot be read");
                }
            }
        });
        for event in &events {
            self.manager.note_input(event.object.key.kind.as_str());
        }
        self.manager.set_view_revision(self.store.revision());
        if self.events.receiver_count() > 0 {
            for event in events.iter().filter_map(events::translate) {
                // Nobody listens any more: nobody is missing it.
                let _ = self.events.send(event);
            }
        }
    }

    /// Starts anew from the whole state, when changes came faster than the store remembers.
    fn resync(&mut self) {
        match load(self.manager.db()) {
            Ok((mut view, store)) => {
                for (owner, held) in self.manager.sessions.leases() {
                    view.upsert_lease(&owner, held);
                }
                self.manager.change_view(|old| *old = view);
                self.written.clear();
                self.store = store;
                self.manager.note_all_inputs();
                self.manager.set_view_revision(self.store.revision());
            }
            Err(error) => tracing::error!(%error, "the store cannot be read"),
        }
    }

    /// Writes which nodes came and went.
    async fn presence(&mut self) -> Result<bool, Refused> {
        let mut writes = Vec::new();
        let now = Time::now();
        self.manager.with_view(|view| {
            for (id, present) in &self.presence {
                let Some(node) = view.node_by_id(id) else { continue };
                let (state, message) = match present {
                    true => (NodeState::Ready, ""),
                    false => (NodeState::Down, "heartbeat failure"),
                };
                if node.status.state != state {
                    let based_on = node.metadata.revision();
                    let mut node = Node::clone(node);
                    node.status.state = state;
                    node.status.message = message.into();
                    node.status.since = Some(now);
                    node.status.updated_at = Some(now);
                    writes.push(Write::Update {
                        object: Object::Node(Arc::new(node)),
                        based_on,
                    });
                }
            }
        });
        let wrote = self.execute(writes).await?;
        self.presence.clear();
        Ok(wrote)
    }

    /// Gives blocks of pod addresses to nodes that have none.
    async fn blocks(&mut self) -> Result<bool, Refused> {
        let plan = self.manager.with_view(tripod_plan::network::assign_blocks);
        for why in &plan.explanations {
            if self.blockless.insert(why.name.clone()) {
                tracing::warn!(node = why.name, "{}", why.message);
            }
        }
        self.execute(plan.writes).await
    }

    /// Plans what changes concern, and writes it.
    async fn plan(&mut self) -> Result<bool, Refused> {
        let dirty = self.manager.change_view(View::take_dirty);
        if dirty.is_empty() {
            return Ok(false);
        }
        let (now, seed) = (Time::now(), rand::random());
        let plan = self
            .manager
            .with_view(|view| tripod_plan::reconcile(view, &dirty, now, seed));
        for why in &plan.explanations {
            tracing::debug!(name = why.name, reason = why.reason, "{}", why.message);
        }
        if let Some(at) = plan.wake_at {
            self.wakes.entry(at).or_default().extend(dirty.iter().cloned());
        }
        let written = self.execute(plan.writes).await;
        if written.is_err() {
            self.manager
                .change_view(|view| dirty.into_iter().for_each(|s| view.mark_dirty(s)));
        }
        written
    }

    /// Writes all there is to write, in as few transactions as their size allows.
    pub(crate) async fn execute(&mut self, writes: Vec<Write>) -> Result<bool, Refused> {
        let wrote = !writes.is_empty();
        let (mut txn, mut objects, mut size) = (Txn::new(), Vec::new(), 0);
        for write in writes {
            size += add(self.manager.db(), &mut txn, &write);
            objects.push(match write {
                Write::Create(object) | Write::Update { object, .. } => Some(object),
                Write::Delete { .. } => None,
            });
            if size >= TXN_BYTES {
                self.submit(std::mem::take(&mut txn), std::mem::take(&mut objects))
                    .await?;
                size = 0;
            }
        }
        if !objects.is_empty() {
            self.submit(txn, objects).await?;
        }
        Ok(wrote)
    }

    async fn submit(&mut self, txn: Txn, objects: Vec<Option<Object>>) -> Result<(), Refused> {
        match self.manager.db().try_submit(txn).await {
            Ok(done) => {
                let stored = done.objects.iter().map(|o| o.as_ref().map(|o| o.revision));
                let written = stored
                    .zip(objects)
                    .filter_map(|(revision, object)| Some((revision?, object?)));
                self.written.extend(written);
                Ok(())
            }
            Err(RaftError::Rejected(TxnError::Conflict { key, .. })) => {
                if self.manager.db().snapshot().revision() == self.store.revision() {
                    // The view is not behind: the plan itself contradicts the store.
                    tracing::error!(%key, "a plan contradicts the store");
                    return Err(Refused::Later);
                }
                tracing::debug!(%key, "a plan was overtaken");
                Err(Refused::Stale)
            }
            Err(e) => {
                let error = to_error(e);
                tracing::error!(%error, "the controllers cannot write");
                Err(Refused::Later)
            }
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
