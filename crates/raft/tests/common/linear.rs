//! A judge of concurrent histories: is there an order of the operations, each at a moment between its call and its
//! answer, in which a register would have given the same answers? (Wing and Gong's search, with the memory that Lowe
//! added to it.)

use std::collections::HashSet;

/// States that the search looks at before it gives up.
const STATES: usize = 2_000_000;

/// What was done to one register. Every value is written at most once; 0 stands for "nothing there".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// This was read.
    Read(u64),
    /// This was written, whatever was there.
    Write(u64),
    /// The second was written because the first was there.
    Swap(u64, u64),
    /// Nothing was written because this was not there.
    NoSwap(u64),
}

/// One operation of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) op: Op,
    /// When it was called.
    pub(crate) called: u64,
    /// When it was answered; `None`: it was not, so that it may have happened at any time since, or never.
    pub(crate) answered: Option<u64>,
}

/// The register after an operation that finds it at `value`; `None` if the operation would have gone otherwise.
fn step(value: u64, op: Op) -> Option<u64> {
    match op {
        Op::Read(seen) => (seen == value).then_some(value),
        Op::Write(new) => Some(new),
        Op::Swap(old, new) => (old == value).then_some(new),
        Op::NoSwap(old) => (old != value).then_some(value),
    }
}

/// Whether the history of a register that begins empty is linearizable.
pub(crate) fn is_linearizable(history: &[Event]) -> bool {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.called);
    let mut search = Search {
        done: vec![0; events.len().div_ceil(64)],
        left: events.iter().filter(|e| e.answered.is_some()).count(),
        seen: HashSet::new(),
        events,
    };
    search.run(0)
}

struct Search {
    events: Vec<Event>,
    /// One bit for each operation that has its place.
    done: Vec<u64>,
    /// Answered operations that have none yet.
    left: usize,
    /// From here the search has been on its way before.
    seen: HashSet<(Vec<u64>, u64)>,
}

impl Search {
    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] & (1 << (at % 64)) != 0
    }

    fn run(&mut self, value: u64) -> bool {
        if self.left == 0 {
            return true;
        }
        if !self.seen.insert((self.done.clone(), value)) {
            return false;
        }
        assert!(
            self.seen.len() < STATES,
            "the history is too entangled to be judged"
        );
        // Whatever comes next was called before the first answer of those that are left.
        let waiting = (0..self.events.len()).filter(|at| !self.is_done(*at));
        let horizon = waiting
            .clone()
            .filter_map(|at| self.events[at].answered)
            .min()
            .unwrap_or(u64::MAX);
        let next: Vec<usize> = waiting
            .take_while(|at| self.events[*at].called <= horizon)
            .collect();
        for at in next {
            let event = self.events[at];
            let Some(after) = step(value, event.op) else {
                continue;
            };
            let counts = usize::from(event.answered.is_some());
            self.done[at / 64] ^= 1 << (at % 64);
            self.left -= counts;
            if self.run(after) {
                return true;
            }
            self.left += counts;
            self.done[at / 64] ^= 1 << (at % 64);
        }
        false
    }
}
