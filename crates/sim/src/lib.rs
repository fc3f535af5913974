//! A whole cluster in one process on virtual time: managers, nodes, users and a network with faults, all from a seed.
//!
//! Real are the store (`State::apply`), the plans (`reconcile`, the merging of reports) and the objects. The managers'
//! agreement, the sessions and the nodes' agents are models of what `raft`, `engine` and `agent` do, small enough to be
//! driven one event at a time: the same seed gives the same events in the same order. What is checked after each event
//! is in [`check`].

pub mod check;
mod group;
mod manager;
mod node;
mod rng;
mod users;
mod world;

pub use world::{Host, World};

/// A fault of the program itself, to see that the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A leader acknowledges a write that only its own disk has.
    EagerAcknowledge,
    /// A manager votes for whoever asks, again and again, whatever is in their logs.
    VotesForAnyone,
    /// A node that comes back is not told of what it is no longer to run.
    StaleNode,
    /// Reports of nodes are dropped now and then, and the session goes on.
    LostReports,
}

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Managers, an odd number.
    pub managers: usize,
    /// Nodes that run tasks.
    pub nodes: usize,
    /// Virtual milliseconds in all; faults stop at about half of it, and users with them.
    pub millis: u64,
    /// A fault of the program.
    pub bug: Option<Bug>,
}

impl Options {
    /// Three managers and fifty nodes for sixty seconds.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            managers: 3,
            nodes: 50,
            millis: 60_000,
            bug: None,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// A digest of all events in their order: equal for equal seeds.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Faults of the network and of hosts.
    pub faults: u64,
    /// Writes of users that were acknowledged.
    pub acknowledged: usize,
    /// Leaders that there were.
    pub leaders: usize,
    /// Tasks that ran.
    pub ran: usize,
    /// The first rule that did not hold, with the virtual time.
    pub violation: Option<String>,
}

/// Runs a simulation to its end, or to the first rule that does not hold.
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.run();
    world.outcome()
}
