//! The log against a list in memory, through any sequence of operations and reopenings.

use std::path::Path;
use std::sync::Arc;

use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;

use crate::crypt::Keyring;
use crate::log::Log;
use crate::types::{Entry, LogId, Proposal, Vote};

#[derive(Clone, Debug)]
enum Step {
    /// Entries with bodies of these sizes, in one write.
    Append(Vec<usize>),
    /// Cut off the last entries.
    Truncate(usize),
    /// Give up the first entries.
    Purge(usize),
    /// Jump ahead, as after a snapshot from the leader.
    Skip(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(0..3000_usize, 1..6).prop_map(Step::Append),
        2 => (1..6_usize).prop_map(Step::Truncate),
        2 => (1..12_usize).prop_map(Step::Purge),
        1 => (1..5_u64).prop_map(Step::Skip),
        3 => Just(Step::Reopen),
    ]
}

fn open(dir: &Path) -> Log {
    let keyring = Arc::new(Keyring::open(dir, None).unwrap());
    Log::open(dir, 1, keyring, 8 << 10).unwrap()
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn body(entry: &Entry) -> (u64, u64, usize) {
    let EntryPayload::Normal(proposal) = &entry.payload else {
        panic!("no normal entry")
    };
    (entry.log_id.index, entry.log_id.leader_id.term, proposal.0.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_a_list(steps in proptest::collection::vec(steps(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        // (index, term, size) of what must be there; the index after the last; the last purged.
        let (mut model, mut next, mut purged): (Vec<(u64, u64, usize)>, u64, Option<LogId>) = (vec![], 0, None);
        // Each cut begins a new term, as it does in a cluster.
        let mut term = 1;
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let entries: Vec<Entry> = sizes.iter().enumerate().map(|(i, size)| Entry {
                        log_id: id(term, next + i as u64),
                        payload: EntryPayload::Normal(Proposal(vec![7; *size].into())),
                    }).collect();
                    model.extend(entries.iter().map(body));
                    next += sizes.len() as u64;
                    log.append(entries).unwrap();
                }
                Step::Truncate(count) => {
                    let keep = model.len().saturating_sub(count);
                    if let Some(first) = model.get(keep) {
                        next = first.0;
                        log.truncate(next).unwrap();
                        model.truncate(keep);
                        term += 1;
                    }
                }
                Step::Purge(count) => {
                    if let Some(last) = model.get(..count).and_then(<[_]>::last) {
                        purged = Some(id(last.1, last.0));
                        log.purge(purged.unwrap()).unwrap();
                        model.drain(..count);
                    }
                }
                Step::Skip(far) => {
                    purged = Some(id(term, next + far));
                    log.purge(purged.unwrap()).unwrap();
                    next += far + 1;
                    model.clear();
                }
                Step::Reopen => {
                    drop(log);
                    log = open(dir.path());
                }
            }
            let found: Vec<_> = log.read(..).unwrap().iter().map(body).collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(log.purged(), purged);
            prop_assert_eq!(log.last(), model.last().map(|m| id(m.1, m.0)).or(purged));
        }
    }
}

#[test]
fn a_leader_goes_on_with_its_term_only_while_its_machine_runs() {
    let dir = tempfile::tempdir().unwrap();
    let reboot = || {
        let path = dir.path().join("vote.json");
        let mut durable: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        durable["boot"] = "an earlier one".into();
        std::fs::write(&path, durable.to_string()).unwrap();
    };
    open(dir.path()).save_vote(Vote::new_committed(3, 1)).unwrap();
    assert_eq!(open(dir.path()).vote(), Some(Vote::new_committed(3, 1)));
    reboot();
    // It may have sent entries that it has lost since; it keeps its word, but has to be elected again.
    assert_eq!(open(dir.path()).vote(), Some(Vote::new(3, 1)));
    open(dir.path()).save_vote(Vote::new_committed(4, 2)).unwrap();
    reboot();
    assert_eq!(open(dir.path()).vote(), Some(Vote::new_committed(4, 2)));
}

#[tokio::test]
async fn the_entries_of_a_leader_with_others_are_flushed_beside() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let entry = |index| Entry {
        log_id: id(3, index),
        payload: EntryPayload::Normal(Proposal(vec![7; 500].into())),
    };
    log.append([entry(0)]).unwrap();
    assert_eq!(log.disk().until(), 1);
    log.save_vote(Vote::new_committed(3, 1)).unwrap();
    let way = log.disk().way();
    // Over the borders of segments, too.
    for index in 1..60 {
        log.append([entry(index)]).unwrap();
        assert!(log.disk().until() <= index + 1);
    }
    log.disk().holds(59).await.unwrap();
    drop(way);
    log.truncate(50).unwrap();
    assert_eq!(log.disk().until(), 50);
    log.append([entry(50)]).unwrap();
    assert_eq!(log.disk().until(), 51);
}

/// The next leader is answered for entries that are there already, without another write.
#[tokio::test]
async fn who_stops_leading_has_its_entries_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let way = log.disk().way();
    log.save_vote(Vote::new_committed(3, 1)).unwrap();
    log.append([Entry {
        log_id: id(3, 0),
        payload: EntryPayload::Blank,
    }])
    .unwrap();
    log.disk().holds(0).await.unwrap();
    // As if the disk were still busy with it.
    log.disk().set(0);
    log.save_vote(Vote::new_committed(4, 2)).unwrap();
    assert_eq!(log.disk().until(), 1);
    drop(way);
}
