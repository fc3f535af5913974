//! Events in the order of their virtual times, the network that carries messages, and the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use jiff::SignedDuration;
use tripod_model::Time;
use tripod_model::pod::Pod;
use tripod_model::session::PodReport;

use crate::check::Checks;
use crate::group::{Entry, Out, Role, Said};
use crate::manager::{HEARTBEAT, Manager};
use crate::node::{Line, Node};
use crate::rng::Rng;
use crate::users;
use crate::{Bug, Options, Outcome};

/// Milliseconds between two looks of a manager and of a node.
const MANAGER_TICK: u64 = 50;
const NODE_TICK: u64 = 100;
/// Between signs of life of a leader to the group, and the range of patience with one that gives none.
const GROUP_HEARTBEAT: u64 = 250;
const ELECTION: (u64, u64) = (800, 1500);
/// A node gives a leader up that is silent for so long.
const SILENCE: u64 = 6_000;
/// How often, each half a second, it is looked whether all is quiet at the end: a rolling update of a service that has
/// many replicas, or moving them to other nodes one by one, takes its time.
const LAST_LOOKS: u64 = 60;

/// A machine: managers first, then nodes.
pub type Host = usize;

#[derive(Debug, Clone)]
enum Message {
    Group(Said),
    Hello(u64),
    Welcome(u64),
    Elsewhere(u64, Option<usize>),
    Assign(u64, bool, Vec<Arc<Pod>>, Vec<String>),
    Alive(u64),
    Beat(u64),
    Reports(u64, Vec<PodReport>),
}

impl Message {
    /// The session of which it is a part.
    fn session(&self) -> Option<u64> {
        match self {
            Self::Group(_) => None,
            Self::Hello(id)
            | Self::Welcome(id)
            | Self::Elsewhere(id, _)
            | Self::Assign(id, ..)
            | Self::Alive(id)
            | Self::Beat(id)
            | Self::Reports(id, _) => Some(*id),
        }
    }
}

#[derive(Debug)]
enum Event {
    Deliver(Host, Host, Message),
    Tick(Host),
    Look,
    User,
    Fault,
    Mend(u64),
}

/// What a fault broke.
#[derive(Debug)]
enum Broken {
    Links(Vec<(Host, Host)>),
    Host(Host),
    Storm,
}

/// The whole simulation.
pub struct World {
    options: Options,
    rng: Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    managers: Vec<Manager>,
    nodes: Vec<Node>,
    /// Milliseconds by which each host's clock is ahead or behind.
    skew: Vec<i64>,
    cut: BTreeMap<(Host, Host), u32>,
    storms: u32,
    broken: BTreeMap<u64, Broken>,
    /// Sessions of which a message was lost: nothing more gets through.
    dead: BTreeSet<u64>,
    /// When the last message of a session arrives, by direction: they stay in order.
    order: BTreeMap<(u64, Host), u64>,
    checks: Checks,
    trace: DefaultHasher,
    events: u64,
    faults: u64,
    violation: Option<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({:?} at {})", self.options, self.now)
    }
}

impl World {
    /// A cluster that has just been made.
    pub fn new(options: Options) -> Self {
        let (managers, nodes) = (options.managers, options.nodes);
        let mut rng = Rng::new(options.seed);
        let skew = (0..managers + nodes)
            .map(|_| rng.range(0, 3001) as i64 - 1500)
            .collect();
        let mut world = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            serial: 0,
            managers: (0..managers).map(|i| Manager::new(i, managers)).collect(),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            skew,
            cut: BTreeMap::new(),
            storms: 0,
            broken: BTreeMap::new(),
            dead: BTreeSet::new(),
            order: BTreeMap::new(),
            checks: Checks::default(),
            trace: DefaultHasher::new(),
            events: 0,
            faults: 0,
            violation: None,
            options,
        };
        let first = Arc::new(users::beginning(nodes, world.wall(0)));
        for manager in &mut world.managers {
            manager.group.votes_for_anyone = world.options.bug == Some(Bug::VotesForAnyone);
            manager.group.log.push(Entry {
                term: 0,
                txn: first.clone(),
            });
        }
        for host in 0..managers + nodes {
            let at = world.rng.range(0, 100);
            world.at(at, Event::Tick(host));
            if host < managers {
                world.patience(host);
            } else {
                world.nodes[host - managers].up = true;
            }
        }
        world.at(200, Event::Look);
        world.at(1_000, Event::User);
        world.at(3_000, Event::Fault);
        world
    }

    fn half(&self) -> u64 {
        self.options.millis / 2
    }

    fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((time, self.serial), event);
    }

    /// What a host's clock says.
    fn wall(&self, host: Host) -> Time {
        let start = Time::from_second(1_767_225_600).expect("a time");
        let millis = self.now as i64 + self.skew[host];
        start
            .saturating_add(SignedDuration::from_millis(millis))
            .expect("a time")
    }

    fn patience(&mut self, manager: usize) {
        self.managers[manager].group.election_at = self.now + self.rng.range(ELECTION.0, ELECTION.1);
    }

    /// Runs to the end, or to the first rule that does not hold.
    pub fn run(&mut self) {
        self.run_until(self.options.millis);
        // The last write may be on its way at that very moment.
        for more in 1..=LAST_LOOKS {
            let quiet = self.checks.quiet(&self.managers, &self.nodes);
            if self.violation.is_some() || quiet.is_ok() {
                return;
            }
            if more == LAST_LOOKS {
                self.judge(quiet);
            }
            self.run_until(self.options.millis + more * 500);
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(next) = self.queue.first_entry().filter(|e| e.key().0 <= end) else {
                return;
            };
            let ((time, _), event) = next.remove_entry();
            self.now = time;
            self.events += 1;
            self.note(&event);
            self.take(event);
        }
    }

    /// What came of it.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            trace: self.trace.finish(),
            events: self.events,
            faults: self.faults,
            acknowledged: self.checks.acknowledged.len(),
            leaders: self.checks.leaders(),
            ran: self.nodes.iter().map(|n| n.ran).sum(),
            violation: self.violation.clone(),
        }
    }

    fn note(&mut self, event: &Event) {
        (self.now, self.serial).hash(&mut self.trace);
        match event {
            Event::Deliver(from, to, message) => {
                let kind = std::mem::discriminant(message);
                (0, from, to, message.session(), kind).hash(&mut self.trace);
            }
            Event::Tick(host) => (1, host).hash(&mut self.trace),
            Event::Mend(id) => (2, id).hash(&mut self.trace),
            Event::Look | Event::User | Event::Fault => 3.hash(&mut self.trace),
        }
        for manager in &self.managers {
            manager.state.revision().hash(&mut self.trace);
        }
    }

    fn judge<T>(&mut self, verdict: Result<T, String>) -> Option<T> {
        match verdict {
            Ok(value) => Some(value),
            Err(e) => {
                self.violation
                    .get_or_insert_with(|| format!("at {} ms: {e}", self.now));
                None
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Deliver(from, to, message) => self.deliver(from, to, message),
            Event::Tick(host) if host < self.options.managers => {
                self.tick_manager(host);
                self.at(self.now + MANAGER_TICK, Event::Tick(host));
            }
            Event::Tick(host) => {
                self.tick_node(host - self.options.managers);
                self.at(self.now + NODE_TICK, Event::Tick(host));
            }
            Event::Look => {
                let touch: Vec<Option<u64>> = (0..self.nodes.len()).map(|i| self.in_touch(i)).collect();
                let verdict = self.checks.slots(self.now, &self.nodes, &touch);
                self.judge(verdict);
                self.at(self.now + 200, Event::Look);
            }
            Event::User => self.user(),
            Event::Fault => self.fault(),
            Event::Mend(id) => self.mend(id),
        }
    }

    /// Whether a manager hears a majority and is heard by it, so that what it writes gets through.
    fn has_majority(&self, own: usize) -> bool {
        let reached = (0..self.managers.len())
            .filter(|&m| m == own || self.managers[m].up && !self.is_cut(own, m) && !self.is_cut(m, own));
        reached.count() * 2 > self.managers.len()
    }

    /// Since when a node has a session with the manager that leads and can write. In a storm a write takes seconds, and
    /// how long a session needs says nothing.
    fn in_touch(&self, node: usize) -> Option<u64> {
        if self.storms > 0 {
            return None;
        }
        let line = self.nodes[node]
            .line
            .filter(|line| line.open && !self.dead.contains(&line.id))?;
        let manager = &self.managers[line.manager];
        let newest = self.managers.iter().filter(|m| m.led).map(|m| m.group.term).max();
        let leads = manager.led && newest == Some(manager.group.term) && self.has_majority(line.manager);
        let cut = self.is_cut(line.manager, node + self.options.managers)
            || self.is_cut(node + self.options.managers, line.manager);
        (leads && !cut && manager.sessions.get(&node)?.id == line.id).then_some(line.since)
    }

    // ---- the network ------------------------------------------------------------------------------------------------

    fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cut.contains_key(&(from, to))
    }

    fn send(&mut self, from: Host, to: Host, message: Message) {
        let session = message.session();
        if session.is_some_and(|id| self.dead.contains(&id)) {
            return;
        }
        let stormy = self.storms > 0;
        if self.is_cut(from, to) || (stormy && session.is_none() && self.rng.permille(100)) {
            self.dead.extend(session);
            return;
        }
        let mut at = self.now
            + if stormy {
                self.rng.range(1, 1_200)
            } else {
                self.rng.range(1, 12)
            };
        if let Some(id) = session {
            let last = self.order.entry((id, to)).or_default();
            at = at.max(*last + 1);
            *last = at;
        }
        self.at(at, Event::Deliver(from, to, message));
    }

    fn send_group(&mut self, from: usize, out: Out) {
        for (to, said) in out {
            self.send(from, to, Message::Group(said));
        }
    }

    fn is_up(&self, host: Host) -> bool {
        match host.checked_sub(self.options.managers) {
            None => self.managers[host].up,
            Some(node) => self.nodes[node].up,
        }
    }

    fn deliver(&mut self, from: Host, to: Host, message: Message) {
        let session = message.session();
        if self.is_cut(from, to) || !self.is_up(to) || session.is_some_and(|id| self.dead.contains(&id)) {
            self.dead.extend(session);
            return;
        }
        match to.checked_sub(self.options.managers) {
            None => self.manager_hears(from, to, message),
            Some(node) => self.node_hears(from, node, message),
        }
    }

    // ---- managers ---------------------------------------------------------------------------------------------------

    fn manager_hears(&mut self, from: Host, own: usize, message: Message) {
        let now = self.now;
        match message {
            Message::Group(said) => {
                let (led, fresh) = {
                    let group = &self.managers[own].group;
                    (group.role == Role::Leader, group.log.len())
                };
                let (heard, out) = self.managers[own].group.hear(from, said);
                if !led && self.managers[own].group.role == Role::Leader {
                    self.managers[own].lead_from = fresh + 1;
                    let verdict = self.checks.leads(self.managers[own].group.term, own);
                    self.judge(verdict);
                }
                if heard {
                    self.patience(own);
                }
                self.send_group(own, out);
                self.progress(own);
            }
            Message::Hello(id) => {
                let node = from - self.options.managers;
                if self.managers[own].led {
                    self.managers[own].welcome(node, id, now);
                    self.send(own, from, Message::Welcome(id));
                } else {
                    let leader = self.managers[own].group.leader.filter(|l| *l != own);
                    self.send(own, from, Message::Elsewhere(id, leader));
                }
            }
            Message::Beat(id) | Message::Reports(id, _) => {
                let node = from - self.options.managers;
                let manager = &mut self.managers[own];
                match manager.sessions.get_mut(&node).filter(|s| s.id == id) {
                    Some(session) => {
                        session.heard = now;
                        if let Message::Reports(_, reports) = message
                            && !(self.options.bug == Some(Bug::LostReports) && self.rng.permille(100))
                        {
                            manager.reports.extend(reports.into_iter().map(|r| (node, r)));
                        }
                    }
                    None => self.send(own, from, Message::Elsewhere(id, None)),
                }
            }
            _ => {}
        }
    }

    fn tick_manager(&mut self, own: usize) {
        if !self.managers[own].up {
            return;
        }
        let now = self.now;
        let group = &mut self.managers[own].group;
        if group.role == Role::Leader {
            if now % GROUP_HEARTBEAT < MANAGER_TICK {
                let out = group.replicate();
                self.send_group(own, out);
            }
        } else if now >= group.election_at {
            let out = group.campaign();
            self.patience(own);
            self.send_group(own, out);
        }
        self.progress(own);
        self.managers[own].listen(now);
        let (wall, seed) = (self.wall(own), self.rng.next());
        if self.managers[own].control(wall, seed).is_some() {
            let out = self.managers[own].group.replicate();
            self.send_group(own, out);
        }
        let sessions: Vec<(usize, u64)> = self.managers[own]
            .sessions
            .iter()
            .map(|(node, s)| (*node, s.id))
            .collect();
        for (node, id) in sessions {
            let to = node + self.options.managers;
            if let Some(next) = self.managers[own].assignment(node) {
                self.send(own, to, Message::Assign(id, next.full, next.pods, next.removed));
            } else if now % HEARTBEAT < MANAGER_TICK {
                self.send(own, to, Message::Alive(id));
            }
        }
    }

    /// Applies what can be applied, checks it, and acknowledges what users wait for.
    fn progress(&mut self, own: usize) {
        let done = self.managers[own].apply();
        for applied in done {
            let fresh = self.checks.applies(own, &applied);
            if self.judge(fresh) == Some(true) {
                let verdict = self.checks.forward(&applied);
                self.judge(verdict);
                let verdict = self.checks.addresses(&self.managers[own].view);
                self.judge(verdict);
            }
            let manager = &mut self.managers[own];
            if let Some((term, name)) = manager.pending.remove(&applied.index)
                && manager.group.log[applied.index - 1].term == term
                && applied.accepted
            {
                self.checks.acknowledged.insert(name);
            }
        }
        self.managers[own].stand(self.now);
    }

    // ---- nodes ------------------------------------------------------------------------------------------------------

    fn node_hears(&mut self, from: Host, own: usize, message: Message) {
        let now = self.now;
        let stale = self.options.bug == Some(Bug::StaleNode);
        let pause = now + self.rng.range(100, 1_000);
        let node = &mut self.nodes[own];
        let Some(line) = node
            .line
            .as_mut()
            .filter(|line| Some(line.id) == message.session())
        else {
            return;
        };
        line.heard = now;
        match message {
            Message::Welcome(_) => {
                (line.open, line.since) = (true, now);
                node.hint = Some(from);
            }
            Message::Elsewhere(_, leader) => {
                node.hang_up();
                node.hint = leader;
                node.dial_at = pause;
            }
            Message::Assign(_, full, pods, removed) => node.assign(full, &pods, &removed, stale),
            _ => {}
        }
    }

    fn tick_node(&mut self, own: usize) {
        let (now, host) = (self.now, own + self.options.managers);
        let failures = if now < self.half() { 20 } else { 0 };
        let wall = self.wall(host);
        if !self.nodes[own].up {
            return;
        }
        let reports = self.nodes[own].act(now, wall, failures, &mut self.rng);
        match self.nodes[own].line {
            None if now >= self.nodes[own].dial_at => {
                let any = self.rng.index(self.options.managers);
                let manager = self.nodes[own].hint.take().unwrap_or(any);
                self.serial += 1;
                let line = Line {
                    manager,
                    id: self.serial,
                    open: false,
                    heard: now,
                    since: now,
                };
                self.nodes[own].line = Some(line);
                self.send(host, manager, Message::Hello(line.id));
            }
            None => {}
            Some(line) if now > line.heard + if line.open { SILENCE } else { 2_000 } => {
                self.nodes[own].hang_up();
                self.nodes[own].dial_at = now + self.rng.range(100, 1_000);
            }
            Some(line) if line.open => {
                if !reports.is_empty() {
                    self.send(host, line.manager, Message::Reports(line.id, reports));
                } else if now % HEARTBEAT < NODE_TICK {
                    self.send(host, line.manager, Message::Beat(line.id));
                }
            }
            Some(_) => {}
        }
    }

    // ---- users and faults -------------------------------------------------------------------------------------------

    fn user(&mut self) {
        if self.now >= self.half() {
            return;
        }
        let next = self.now + self.rng.range(50, 500);
        self.at(next, Event::User);
        let leaders: Vec<usize> = (0..self.managers.len())
            .filter(|m| self.managers[*m].up && self.managers[*m].led)
            .collect();
        if leaders.is_empty() {
            return;
        }
        let own = leaders[self.rng.index(leaders.len())];
        self.serial += 1;
        let number = self.serial;
        let name = format!("mark-{number}");
        let is_marker = self.rng.permille(600);
        let wall = self.wall(own);
        let txn = match is_marker {
            true => Some(users::marker(&name)),
            false => users::change(&self.managers[own].view, wall, number, &mut self.rng),
        };
        let Some(txn) = txn else { return };
        let manager = &mut self.managers[own];
        let index = manager.group.append(txn);
        if is_marker {
            let term = manager.group.term;
            manager.pending.insert(index, (term, name.clone()));
            if self.options.bug == Some(Bug::EagerAcknowledge) {
                self.checks.acknowledged.insert(name);
            }
        }
        let out = manager.group.replicate();
        self.send_group(own, out);
    }

    fn fault(&mut self) {
        if self.now + 1_000 >= self.half() {
            return;
        }
        let next = self.now + self.rng.range(500, 4_000);
        self.at(next, Event::Fault);
        self.faults += 1;
        let (managers, hosts) = (self.options.managers, self.options.managers + self.options.nodes);
        let leader = self.managers.iter().position(|m| m.led);
        let manager = leader
            .filter(|_| self.rng.permille(600))
            .unwrap_or(self.rng.index(managers));
        let node = managers + self.rng.index(self.options.nodes);
        let broken = match self.rng.index(8) {
            0 => Broken::Links(self.around(&BTreeSet::from([manager]), true, true)),
            1 => {
                let (to, from) = if self.rng.permille(500) {
                    (true, false)
                } else {
                    (false, true)
                };
                Broken::Links(self.around(&BTreeSet::from([manager]), to, from))
            }
            2 => {
                let side: BTreeSet<Host> = (0..hosts).filter(|_| self.rng.permille(400)).collect();
                Broken::Links(self.around(&side, true, true))
            }
            3 => {
                self.managers[manager].crash();
                Broken::Host(manager)
            }
            4 => {
                self.nodes[node - managers].crash();
                Broken::Host(node)
            }
            5 => {
                self.nodes[node - managers].power_off();
                Broken::Host(node)
            }
            6 => Broken::Links(self.around(&BTreeSet::from([node]), true, true)),
            _ => {
                self.storms += 1;
                let host = self.rng.index(hosts);
                self.skew[host] = self.rng.range(0, 3_001) as i64 - 1_500;
                Broken::Storm
            }
        };
        if let Broken::Links(links) = &broken {
            for link in links {
                *self.cut.entry(*link).or_default() += 1;
            }
        }
        self.serial += 1;
        self.broken.insert(self.serial, broken);
        let until = (self.now + self.rng.range(300, 9_000)).min(self.half());
        self.at(until, Event::Mend(self.serial));
    }

    /// The links between some hosts and all others, towards them and from them.
    fn around(&self, side: &BTreeSet<Host>, to: bool, from: bool) -> Vec<(Host, Host)> {
        let mut links = Vec::new();
        for a in side {
            for b in (0..self.options.managers + self.options.nodes).filter(|b| !side.contains(b)) {
                links.extend(to.then_some((b, *a)));
                links.extend(from.then_some((*a, b)));
            }
        }
        links
    }

    fn mend(&mut self, id: u64) {
        match self.broken.remove(&id) {
            Some(Broken::Links(links)) => {
                for link in links {
                    let left = self.cut.get(&link).copied().unwrap_or(0);
                    match left {
                        0 | 1 => drop(self.cut.remove(&link)),
                        _ => drop(self.cut.insert(link, left - 1)),
                    }
                }
            }
            Some(Broken::Host(host)) => match host.checked_sub(self.options.managers) {
                None => {
                    self.managers[host].up = true;
                    self.patience(host);
                }
                Some(node) => self.nodes[node].up = true,
            },
            Some(Broken::Storm) => self.storms -= 1,
            None => {}
        }
    }
}
