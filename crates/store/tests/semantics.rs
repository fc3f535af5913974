//! What each part of a transaction, a list and a watch means, by example.

use tripod_store::{
    Change, Claim, Continue, Expected, Gone, History, HistoryLimits, Key, ListQuery, State, Txn, TxnError,
    WatchFilter,
};

fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

fn json(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","uid":"u-{name}"}},"spec":{{}}}}"#
    )
}

fn claim(value: &str) -> Claim {
    Claim {
        index: "pods#spec.name".into(),
        value: value.into(),
    }
}

fn run(state: &mut State, txn: Txn) -> Result<u64, TxnError> {
    state.apply(&[txn]).results.remove(0).map(|ok| ok.revision)
}

#[test]
fn the_revision_is_spliced_into_the_bytes() {
    let cases = [
        (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"1"}}"#),
        (
            r#"{"metadata":{ "name":"a"}}"#,
            r#"{"metadata":{"resourceVersion":"1", "name":"a"}}"#,
        ),
        (
            r#"{"spec":{"metadata":{"resourceVersion":"9"}},"metadata":{"name":"a","resourceVersion":"77"},"x":1}"#,
            r#"{"spec":{"metadata":{"resourceVersion":"9"}},"metadata":{"name":"a","resourceVersion":"1"},"x":1}"#,
        ),
        (
            r#"{"metadata":{"resourceVersion":""}}"#,
            r#"{"metadata":{"resourceVersion":"1"}}"#,
        ),
    ];
    for (before, after) in cases {
        let mut state = State::new();
        run(&mut state, Txn::new().put(key("a"), before)).unwrap();
        assert_eq!(state.get(&key("a")).unwrap().bytes, after);
    }
}

#[test]
fn bytes_that_are_not_the_object_change_nothing() {
    let mut state = State::new();
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"metadata":null}"#,
        r#"{"metadata":{"name":"b"}}"#,
        r#"{"metadata":{"namespace":"other"}}"#,
        r#"{"metadata":{"resourceVersion":null}}"#,
        r#"{"metadata":{"labels":{"a\u0000":"b"}}}"#,
        r#"{"metadata":{"name":"a","name":"a"}}"#,
        r#"{"metadata":{}} trailing"#,
    ] {
        let error = run(&mut state, Txn::new().put(key("a"), bad.to_owned())).unwrap_err();
        assert!(matches!(error, TxnError::Invalid { op: 0, .. }), "{bad}: {error}");
    }
    assert_eq!((state.revision(), state.len()), (0, 0));
}

#[test]
fn metadata_is_indexed() {
    let mut state = State::new();
    let bytes = r#"{"metadata":{"name":"a","uid":"u1","labels":{"b":"2","a":"1","":""},
        "ownerReferences":[{"apiVersion":"v1","kind":"X","name":"o","uid":"o1"}]}}"#;
    run(&mut state, Txn::new().put(key("a"), bytes)).unwrap();
    let object = state.get(&key("a")).unwrap();
    assert_eq!(&*object.uid, "u1");
    assert_eq!(
        object.labels.iter().collect::<Vec<_>>(),
        [("", ""), ("a", "1"), ("b", "2")]
    );
    assert_eq!(object.labels.get("b"), Some("2"));
    assert_eq!(
        state.dependents("o1").map(|o| o.key.clone()).collect::<Vec<_>>(),
        [key("a")]
    );
    run(&mut state, Txn::new().put(key("a"), json("a"))).unwrap();
    assert_eq!(state.dependents("o1").count(), 0);
}

#[test]
fn preconditions() {
    let mut state = State::new();
    let create = || Txn::new().create(key("a"), json("a"), vec![]);
    assert_eq!(run(&mut state, create()), Ok(1));
    assert_eq!(
        run(&mut state, create()),
        Err(TxnError::Conflict {
            check: 0,
            key: key("a"),
            expected: Expected::Absent,
            actual: Some(1)
        })
    );
    assert_eq!(
        run(&mut state, Txn::new().update(key("a"), 1, json("a"), vec![])),
        Ok(2)
    );
    let stale = run(&mut state, Txn::new().update(key("a"), 1, json("a"), vec![])).unwrap_err();
    assert_eq!(
        stale.to_string(),
        "pods default/a: expected revision 1, found revision 2"
    );
    for expected in [Expected::Exists, Expected::Revision(0), Expected::Uid("".into())] {
        let error = run(&mut state, Txn::new().check(key("b"), expected).delete(key("a"))).unwrap_err();
        assert!(matches!(error, TxnError::Conflict { actual: None, .. }));
    }
    assert!(
        run(
            &mut state,
            Txn::new()
                .check(key("a"), Expected::Uid("other".into()))
                .delete(key("a"))
        )
        .is_err()
    );
    assert_eq!(
        run(
            &mut state,
            Txn::new()
                .check(key("a"), Expected::Uid("u-a".into()))
                .delete(key("a"))
        ),
        Ok(3)
    );
    assert_eq!(
        run(&mut state, Txn::new().delete(key("a"))),
        Ok(3),
        "nothing to remove is no write"
    );
}

#[test]
fn a_transaction_happens_whole_or_not_at_all() {
    let mut state = State::new();
    run(
        &mut state,
        Txn::new().put_unique(key("holder"), json("holder"), vec![claim("web")]),
    )
    .unwrap();
    let applied = state.apply(&[Txn::new()
        .put_unique(key("a"), json("a"), vec![claim("api")])
        .delete(key("holder"))
        .put(key("b"), "not json")]);
    assert!(matches!(applied.results[0], Err(TxnError::Invalid { op: 2, .. })));
    assert!(applied.events.is_empty());
    assert_eq!((state.revision(), state.len()), (1, 1));
    assert_eq!(
        state.by_unique("pods#spec.name", "web").unwrap().key,
        key("holder")
    );
    assert!(state.by_unique("pods#spec.name", "api").is_none());
}

#[test]
fn unique_values() {
    let mut state = State::new();
    run(
        &mut state,
        Txn::new().put_unique(key("a"), json("a"), vec![claim("web")]),
    )
    .unwrap();
    let taken = run(
        &mut state,
        Txn::new().put_unique(key("b"), json("b"), vec![claim("web")]),
    )
    .unwrap_err();
    assert_eq!(
        taken,
        TxnError::UniqueTaken {
            op: 0,
            index: "pods#spec.name".into(),
            value: "web".into(),
            holder: key("a")
        }
    );
    // The holder may keep it, give it up, or hand it over within one transaction.
    run(
        &mut state,
        Txn::new().put_unique(key("a"), json("a"), vec![claim("web")]),
    )
    .unwrap();
    run(
        &mut state,
        Txn::new()
            .put_unique(key("a"), json("a"), vec![claim("old")])
            .put_unique(key("b"), json("b"), vec![claim("web")]),
    )
    .unwrap();
    assert_eq!(state.by_unique("pods#spec.name", "web").unwrap().key, key("b"));
    run(&mut state, Txn::new().delete(key("b"))).unwrap();
    assert!(state.by_unique("pods#spec.name", "web").is_none());
}

#[test]
fn pages_cover_a_list_once() {
    let mut state = State::new();
    for (namespace, name) in [
        ("b", "x"),
        ("a", "y"),
        ("a", "system:z"),
        ("a-b", "x"),
        ("c", "x"),
    ] {
        run(
            &mut state,
            Txn::new().put(Key::new("roles", namespace, name), r#"{"metadata":{}}"#),
        )
        .unwrap();
    }
    let keys = |limit| {
        let (mut keys, mut after): (Vec<String>, Option<Continue>) = (vec![], None);
        loop {
            let list = state.list(&ListQuery::new("roles").page(limit, after.as_ref()));
            keys.extend(
                list.items
                    .iter()
                    .map(|o| format!("{}/{}", o.key.namespace, o.key.name)),
            );
            match list.next {
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => return keys,
            }
        }
    };
    let all = ["a/system:z", "a/y", "a-b/x", "b/x", "c/x"];
    for limit in 0..7 {
        assert_eq!(keys(limit), all);
    }
    let names = |ns| state.list(&ListQuery::new("roles").namespace(ns)).items.len();
    assert_eq!((names("a"), names("a-b"), names("b"), names("")), (2, 1, 1, 0));
    let filter = |o: &tripod_store::StoredObject| &*o.key.name == "x";
    let list = state.list(&ListQuery::new("roles").filter(&filter).page(3, None));
    assert_eq!((list.items.len(), list.next), (3, None));
    assert_eq!(state.iter(&"roles".into(), Some("a")).count(), 2);
    assert_eq!(state.iter(&"roles".into(), None).count(), 5);
}

#[test]
fn a_clone_is_a_snapshot() {
    let mut state = State::new();
    run(&mut state, Txn::new().put(key("a"), json("a"))).unwrap();
    let before = state.clone();
    run(&mut state, Txn::new().delete(key("a")).put(key("b"), json("b"))).unwrap();
    assert!(before.get(&key("a")).is_some() && before.get(&key("b")).is_none());
    assert_eq!((before.revision(), state.revision()), (1, 3));
}

#[test]
fn history_forgets_and_says_so() {
    let mut state = State::new();
    let mut history = History::new(
        0,
        HistoryLimits {
            events: 3,
            bytes: 1 << 20,
        },
    );
    for i in 0..5 {
        for event in state.apply(&[Txn::new().put(key("a"), json("a"))]).events {
            assert_eq!(
                event.change,
                if i == 0 { Change::Added } else { Change::Modified }
            );
            history.push(event);
        }
    }
    let all = WatchFilter::all();
    assert_eq!(history.watch_from(1, &all), Err(Gone { asked: 1, oldest: 2 }));
    assert_eq!(history.watch_from(2, &all).unwrap().len(), 3);
    assert_eq!(history.watch_from(5, &all).unwrap().len(), 0);
    assert_eq!(history.watch_from(99, &all).unwrap().len(), 0);
    assert_eq!(history.watch_page(2, &all, 2).unwrap().1, 4);
    assert_eq!(
        history.watch_page(2, &WatchFilter::kinds(["nodes"]), 2).unwrap(),
        (vec![], 5)
    );
    assert_eq!(
        history
            .watch_from(2, &WatchFilter::all().namespace("other"))
            .unwrap(),
        vec![]
    );
}

#[test]
fn history_is_bounded_in_bytes() {
    let mut state = State::new();
    let mut history = History::new(
        0,
        HistoryLimits {
            events: 1000,
            bytes: 20_000,
        },
    );
    let big = format!(r#"{{"metadata":{{}},"data":"{}"}}"#, "x".repeat(5000));
    for _ in 0..20 {
        state
            .apply(&[Txn::new().put(key("a"), big.clone())])
            .events
            .into_iter()
            .for_each(|e| history.push(e));
    }
    assert!(
        (2..=4).contains(&(history.last() - history.oldest())),
        "{history:?}"
    );
}

#[test]
fn a_kind_is_listed_as_it_was() {
    let mut state = State::new();
    let mut history = History::new(0, HistoryLimits::default());
    let mut write = |state: &mut State, txn: Txn| {
        let applied = state.apply(&[txn]);
        applied.events.into_iter().for_each(|event| history.push(event));
        history.watch_from(0, &WatchFilter::kinds(["pods"])).unwrap()
    };
    write(&mut state, Txn::new().put(key("stays"), json("stays")));
    write(&mut state, Txn::new().put(key("goes"), json("goes")));
    let then = state.clone();
    write(&mut state, Txn::new().put(key("comes"), json("comes")));
    write(&mut state, Txn::new().put(key("stays"), json("stays")));
    write(&mut state, Txn::new().put(Key::new("roles", "a", "x"), json("x")));
    write(&mut state, Txn::new().delete(key("goes")));
    let events = write(&mut state, Txn::new().put(key("goes"), json("goes")));
    let after: Vec<_> = events
        .into_iter()
        .filter(|e| e.revision > then.revision())
        .collect();
    let past = state.rewound(&"pods".into(), then.revision(), &after);
    let (past, then) = (
        past.list(&ListQuery::new("pods")),
        then.list(&ListQuery::new("pods")),
    );
    assert_eq!((past.revision, past.items), (then.revision, then.items));
}
