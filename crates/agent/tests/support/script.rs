//! What the doubles share: calls in order, failures and holds for the next call of a step, broken rules, the time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tripod_model::{Error, Result, Time};

/// One call of a port: the step (`net.publish`) and what it was about (a container, network or volume).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub step: String,
    pub subject: String,
}

/// A call that is held: it was made, and does not go on until it is let go.
#[derive(Default)]
pub struct Hold {
    reached: Notify,
    go: Notify,
}

impl Hold {
    /// Returns when the call has been made.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the call go on.
    pub fn release(&self) {
        self.go.notify_one();
    }
}

struct Inner {
    calls: Vec<Call>,
    failures: HashMap<String, Error>,
    holds: HashMap<String, Arc<Hold>>,
    faults: Vec<String>,
    now: Time,
}

/// The script that all doubles of a machine follow.
pub struct Script {
    inner: Mutex<Inner>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                calls: Vec::new(),
                failures: HashMap::new(),
                holds: HashMap::new(),
                faults: Vec::new(),
                now: Time::now(),
            }),
        }
    }
}

impl Script {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A call of a port: written down, held and failed as the test wants.
    pub async fn step(&self, step: &str, subject: &str) -> Result<()> {
        let hold = {
            let mut inner = self.lock();
            inner.calls.push(Call {
                step: step.to_owned(),
                subject: subject.to_owned(),
            });
            inner.holds.remove(step)
        };
        if let Some(hold) = hold {
            hold.reached.notify_one();
            hold.go.notified().await;
        }
        match self.lock().failures.remove(step) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// The next call of this step fails.
    pub fn fail(&self, step: &str, error: Error) {
        self.lock().failures.insert(step.to_owned(), error);
    }

    /// The next call of this step waits to be let go.
    pub fn hold(&self, step: &str) -> Arc<Hold> {
        let hold = Arc::new(Hold::default());
        self.lock().holds.insert(step.to_owned(), hold.clone());
        hold
    }

    /// The steps that were made about something, in order.
    pub fn steps(&self, subject: &str) -> Vec<String> {
        let inner = self.lock();
        let about = inner.calls.iter().filter(|c| c.subject == subject);
        about.map(|c| c.step.clone()).collect()
    }

    /// All calls, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Forgets the calls made so far.
    pub fn forget(&self) {
        self.lock().calls.clear();
    }

    /// Notes that the agent broke a rule of a port; the test fails at its end.
    pub fn fault(&self, text: String) {
        self.lock().faults.push(text);
    }

    /// The rules that were broken.
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// The time as the machine tells it.
    pub fn now(&self) -> Time {
        self.lock().now
    }

    /// Moves the machine's time on.
    pub fn pass(&self, time: Duration) {
        let mut inner = self.lock();
        inner.now = inner.now.checked_add(time).unwrap();
    }
}
