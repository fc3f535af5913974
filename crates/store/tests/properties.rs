//! What holds for any sequence of transactions.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tripod_store::{
    Change, Claim, Expected, History, HistoryLimits, Key, KindId, Labels, ListQuery, Op, State, StoredObject,
    Txn, TxnError, WatchFilter,
};

const KINDS: [&str; 2] = ["pods", "nodes"];

fn keys() -> impl Strategy<Value = Key> {
    (0..2_usize, 0..2_u8, 0..4_u8)
        .prop_map(|(kind, ns, name)| Key::new(KINDS[kind], format!("ns{ns}"), format!("n{name}")))
}

fn expectations() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Absent),
        Just(Expected::Exists),
        (0..30_u64).prop_map(Expected::Revision),
        (0..3_u8).prop_map(|uid| Expected::Uid(format!("u{uid}").into())),
    ]
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    vec((0..2_u8, 0..3_u8), 0..2).prop_map(|claims| {
        let claim = |(index, value)| Claim {
            index: format!("i{index}").into(),
            value: format!("v{value}").into(),
        };
        claims.into_iter().map(claim).collect()
    })
}

fn ops() -> impl Strategy<Value = Op> {
    let put = (keys(), 0..3_u8, 0..4_u8, claims(), 0..20_u8).prop_map(|(key, uid, owner, unique, damage)| {
        let text = match damage {
            0 => "{".to_owned(),
            _ => format!(
                r#"{{"kind":"X","metadata":{{"labels":{{"a":"{owner}"}},"name":"{}","ownerReferences":[{{"uid":"o{owner}"}}],"uid":"u{uid}"}}}}"#,
                key.name
            ),
        };
        Op::Put { key, bytes: text.into(), unique }
    });
    prop_oneof![4 => put, 1 => keys().prop_map(|key| Op::Delete { key })]
}

fn txns() -> impl Strategy<Value = Txn> {
    let check =
        (keys(), expectations()).prop_map(|(key, expected)| tripod_store::Precondition { key, expected });
    (vec(check, 0..2), vec(ops(), 0..4)).prop_map(|(checks, ops)| Txn { checks, ops })
}

/// Everything a state holds, by way of its public face.
fn content(state: &State) -> Vec<StoredObject> {
    let kinds = KINDS.map(KindId::from);
    kinds
        .iter()
        .flat_map(|kind| state.iter(kind, None))
        .map(|o| (**o).clone())
        .collect()
}

/// What the indices say must follow from the objects.
fn check_indices(state: &State) {
    let objects = content(state);
    assert_eq!(state.len(), objects.len());
    for object in &objects {
        for claim in &object.claims {
            assert_eq!(
                state.by_unique(&claim.index, &claim.value).map(|o| &o.key),
                Some(&object.key)
            );
        }
    }
    let claimed = |index: &str, value: &str| {
        objects
            .iter()
            .any(|o| o.claims.iter().any(|c| &*c.index == index && &*c.value == value))
    };
    for (index, value) in (0..2).flat_map(|i| (0..3).map(move |v| (format!("i{i}"), format!("v{v}")))) {
        assert_eq!(state.by_unique(&index, &value).is_some(), claimed(&index, &value));
    }
    for owner in (0..4).map(|o| format!("o{o}")) {
        let owned = objects
            .iter()
            .filter(|o| o.owners.iter().any(|uid| **uid == *owner))
            .map(|o| &o.key);
        let mut owned: Vec<_> = owned.collect();
        owned.sort();
        assert_eq!(
            state.dependents(&owner).map(|o| &o.key).collect::<Vec<_>>(),
            owned
        );
    }
}

/// A second, obvious implementation of what a transaction means.
#[derive(Clone, Default)]
struct Model {
    revision: u64,
    /// Revision, uid and claims by key.
    objects: BTreeMap<Key, (u64, String, Vec<Claim>)>,
}

impl Model {
    fn apply(&mut self, txn: &Txn) -> bool {
        let holds = |check: &tripod_store::Precondition| match (&check.expected, self.objects.get(&check.key))
        {
            (Expected::Absent, found) => found.is_none(),
            (Expected::Exists, found) => found.is_some(),
            (Expected::Revision(r), found) => found.is_some_and(|o| o.0 == *r),
            (Expected::Uid(uid), found) => found.is_some_and(|o| *o.1 == **uid),
        };
        if !txn.checks.iter().all(holds) {
            return false;
        }
        let mut next = self.clone();
        for op in &txn.ops {
            match op {
                Op::Put { key, bytes, unique } => {
                    let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else {
                        return false;
                    };
                    let mut others = next.objects.iter().filter(|(k, _)| *k != key);
                    if others.any(|(_, (_, _, held))| unique.iter().any(|claim| held.contains(claim))) {
                        return false;
                    }
                    next.revision += 1;
                    let uid = json["metadata"]["uid"].as_str().unwrap_or("").to_owned();
                    next.objects
                        .insert(key.clone(), (next.revision, uid, unique.clone()));
                }
                Op::Delete { key } => next.revision += u64::from(next.objects.remove(key).is_some()),
            }
        }
        *self = next;
        true
    }
}

proptest! {
    #[test]
    fn replicas_agree(batch in vec(txns(), 0..12), cut in 0..12_usize) {
        let (mut one, mut two) = (State::new(), State::new());
        let whole = one.apply(&batch);
        // The other replica receives them encoded, and grouped into entries differently.
        let sent: Vec<Txn> = batch.iter().map(|txn| Txn::decode(&txn.encode()).unwrap()).collect();
        let cut = cut.min(sent.len());
        let (first, second) = (two.apply(&sent[..cut]), two.apply(&sent[cut..]));
        prop_assert_eq!(whole.results, [first.results, second.results].concat());
        prop_assert_eq!(whole.events, [first.events, second.events].concat());
        let bytes = |state: &State| { let mut out = Vec::new(); state.write_snapshot(&mut out).unwrap(); out };
        prop_assert_eq!(bytes(&one), bytes(&two));
    }

    #[test]
    fn transactions_mean_what_the_model_says(batch in vec(txns(), 0..12)) {
        let (mut state, mut model) = (State::new(), Model::default());
        for txn in &batch {
            let before = content(&state);
            let applied = state.apply(std::slice::from_ref(txn));
            let (happened, result) = (model.apply(txn), &applied.results[0]);
            prop_assert_eq!(happened, result.is_ok(), "{:?}", result);
            prop_assert_eq!(state.revision(), model.revision);
            if let Err(error) = result {
                prop_assert_eq!(before, content(&state));
                prop_assert!(applied.events.is_empty());
                if let TxnError::Conflict { key, actual, .. } = error {
                    prop_assert_eq!(*actual, state.get(key).map(|o| o.revision));
                }
            }
            let expected: BTreeMap<_, _> = model.objects.iter().map(|(k, o)| (k.clone(), o.0)).collect();
            let found: BTreeMap<_, _> = content(&state).into_iter().map(|o| (o.key, o.revision)).collect();
            prop_assert_eq!(found, expected);
            check_indices(&state);
        }
    }

    #[test]
    fn each_write_takes_the_next_revision(batch in vec(txns(), 0..12)) {
        let mut state = State::new();
        let applied = state.apply(&batch);
        let revisions: Vec<_> = applied.events.iter().map(|e| e.revision).collect();
        prop_assert_eq!(revisions, (1..=state.revision()).collect::<Vec<_>>());
        for event in &applied.events {
            let json: serde_json::Value = serde_json::from_slice(&event.object.bytes).unwrap();
            prop_assert_eq!(json["metadata"]["resourceVersion"].as_str(), Some(&*event.revision.to_string()));
            prop_assert_eq!(event.object.revision, event.revision);
        }
        let mut last = 0;
        for ok in applied.results.iter().flatten() {
            prop_assert!(ok.revision >= last);
            last = ok.revision;
            for object in ok.objects.iter().flatten() {
                prop_assert!(object.revision <= ok.revision);
            }
        }
    }

    /// A list at some revision, and the events after it, give the list now.
    #[test]
    fn a_watch_replays_the_difference_of_two_lists(before in vec(txns(), 0..8), after in vec(txns(), 0..8)) {
        let mut state = State::new();
        let mut history = History::new(0, HistoryLimits::default());
        state.apply(&before).events.into_iter().for_each(|e| history.push(e));
        let (listed, snapshot) = (state.list(&ListQuery::new("pods")), state.clone());
        state.apply(&after).events.into_iter().for_each(|e| history.push(e));
        let mut replayed: BTreeMap<_, _> = listed.items.iter().map(|o| (o.key.clone(), o.clone())).collect();
        for event in history.watch_from(listed.revision, &WatchFilter::kinds(["pods"])).unwrap() {
            let key = event.object.key.clone();
            prop_assert_eq!(replayed.get(&key), event.previous.as_ref());
            prop_assert_eq!(event.change == Change::Added, event.previous.is_none());
            match event.change {
                Change::Deleted => drop(replayed.remove(&key)),
                _ => drop(replayed.insert(key, event.object)),
            }
        }
        let now = state.list(&ListQuery::new("pods")).items;
        prop_assert_eq!(replayed.into_values().collect::<Vec<_>>(), now);
        prop_assert_eq!(snapshot.list(&ListQuery::new("pods")).items, listed.items);
    }

    #[test]
    fn a_snapshot_comes_back_whole(batch in vec(txns(), 0..12), next in vec(txns(), 0..4), damage in any::<(usize, u8)>()) {
        let mut state = State::new();
        state.apply(&batch);
        let mut bytes = Vec::new();
        state.write_snapshot(&mut bytes).unwrap();
        let mut read = State::read_snapshot(&bytes[..]).unwrap();
        prop_assert_eq!((content(&read), read.revision()), (content(&state), state.revision()));
        check_indices(&read);
        prop_assert_eq!(state.apply(&next).results, read.apply(&next).results);
        // Any damaged byte, and any missing end, is noticed.
        let at = damage.0 % bytes.len();
        prop_assert!(State::read_snapshot(&bytes[..at]).is_err());
        bytes[at] ^= damage.1.max(1);
        prop_assert!(State::read_snapshot(&bytes[..]).is_err());
    }

    #[test]
    fn pages_are_the_list(batch in vec(txns(), 0..12), limit in 1..5_usize) {
        let mut state = State::new();
        state.apply(&batch);
        let whole = state.list(&ListQuery::new("pods").namespace("ns1")).items;
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = state.list(&ListQuery::new("pods").namespace("ns1").page(limit, after.as_ref()));
            prop_assert!(page.items.len() <= limit);
            paged.extend(page.items);
            after = page.next;
            if after.is_none() { break }
        }
        prop_assert_eq!(paged, whole);
    }

    #[test]
    fn labels_come_back(labels in proptest::collection::btree_map("[a-z./-]{0,8}", "[ -~é]{0,8}", 0..6)) {
        let json = serde_json::json!({"metadata": {"name": "a", "labels": labels}}).to_string();
        let mut state = State::new();
        let key = Key::cluster("nodes", "a");
        state.apply(&[Txn::new().put(key.clone(), json)]);
        let stored: &Labels = &state.get(&key).unwrap().labels;
        let found: BTreeMap<String, String> = stored.iter().map(|(k, v)| (k.into(), v.into())).collect();
        prop_assert_eq!(found, labels);
    }
}
