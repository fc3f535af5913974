//! Tests of the answers to questions.

use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use tripod_model::network::{Endpoint, NameRecord};

use super::*;

fn endpoint(network: &str, ip: [u8; 4], names: &[&str], links: &[&str]) -> Endpoint {
    Endpoint {
        id: "e".into(),
        network_id: format!("id-{network}"),
        network_name: network.into(),
        ipv4: Some(ipnet::IpNet::new(ip.into(), 24).unwrap()),
        ipv6: None,
        gateway: None,
        gateway6: None,
        mac: String::new(),
        interface: "eth0".into(),
        default_route: true,
        names: names.iter().map(|n| (*n).into()).collect(),
        aliases: Vec::new(),
        links: links.iter().map(|n| (*n).into()).collect(),
        fixed_ipv4: false,
        fixed_ipv6: false,
        driver_opts: Default::default(),
        gw_priority: 0,
    }
}

fn zones() -> Zones {
    let mut z = Zones::default();
    z.connected(
        "one",
        &[endpoint(
            "front",
            [10, 0, 0, 1],
            &["web", "0123456789ab"],
            &["db:mysql"],
        )],
        true,
    );
    z.connected(
        "two",
        &[
            endpoint("front", [10, 0, 0, 2], &["DB"], &[]),
            endpoint("back", [10, 0, 1, 2], &["db"], &[]),
        ],
        true,
    );
    z.connected(
        "three",
        &[endpoint("back", [10, 0, 1, 3], &["worker"], &[])],
        false,
    );
    z
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut m = Message::query();
    m.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    m.to_vec().unwrap()
}

fn ask(z: &Zones, who: &str, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    match answer(&Asker::Sandbox(z, who), &query(name, kind), true) {
        Outcome::Reply(r) => {
            let m = Message::from_vec(&r).unwrap();
            Some((
                m.metadata.response_code,
                m.answers.iter().map(|r| r.data.to_string()).collect(),
            ))
        }
        Outcome::Forward => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_those_of_the_askers_networks() {
    let z = zones();
    let ok = |a: &[&str]| {
        Some((
            ResponseCode::NoError,
            a.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
        ))
    };
    for (who, name, kind, want) in [
        ("one", "db.", RecordType::A, ok(&["10.0.0.2"])),
        ("one", "Db.Front.", RecordType::A, ok(&["10.0.0.2"])),
        ("one", "db.back.", RecordType::A, None),
        ("one", "mysql.", RecordType::A, ok(&["10.0.0.2"])),
        ("two", "mysql.", RecordType::A, None),
        ("three", "db.", RecordType::A, ok(&["10.0.1.2"])),
        ("three", "web.", RecordType::A, None),
        ("two", "worker.", RecordType::AAAA, ok(&[])),
        ("two", "worker.", RecordType::MX, ok(&[])),
        (
            "one",
            "x.front.",
            RecordType::A,
            Some((ResponseCode::NXDomain, vec![])),
        ),
        (
            "one",
            "tasks.gone.",
            RecordType::A,
            Some((ResponseCode::NXDomain, vec![])),
        ),
        ("one", "example.org.", RecordType::A, None),
        (
            "one",
            "1.0.0.10.in-addr.arpa.",
            RecordType::PTR,
            ok(&["web.front."]),
        ),
        ("three", "1.0.0.10.in-addr.arpa.", RecordType::PTR, None),
        ("stranger", "web.", RecordType::A, None),
    ] {
        assert_eq!(ask(&z, who, name, kind), want, "{who} asks for {name} {kind}");
    }
}

#[test]
fn who_left_is_forgotten() {
    let mut z = zones();
    z.disconnected("two");
    assert_eq!(ask(&z, "one", "db.", RecordType::A), None);
    z.connected(
        "one",
        &[endpoint("front", [10, 0, 0, 1], &["renamed"], &[])],
        true,
    );
    assert_eq!(ask(&z, "one", "web.", RecordType::A), None);
    assert!(ask(&z, "one", "renamed.", RecordType::A).is_some());
}

#[test]
fn many_addresses_are_truncated_by_datagram_only() {
    let mut z = zones();
    let addresses = (0..100).map(|i| Ipv4Addr::new(10, 0, 0, i).into()).collect();
    let record = NameRecord {
        name: "many".into(),
        addresses,
        owner: String::new(),
        reverse: false,
    };
    z.set_names("id-front", &[record]);
    let q = query("many.", RecordType::A);
    let Outcome::Reply(r) = answer(&Asker::Sandbox(&z, "one"), &q, true) else {
        panic!()
    };
    let m = Message::from_vec(&r).unwrap();
    assert!(m.metadata.truncation && r.len() <= 512);
    let Outcome::Reply(r) = answer(&Asker::Sandbox(&z, "one"), &q, false) else {
        panic!()
    };
    let m = Message::from_vec(&r).unwrap();
    assert!(!m.metadata.truncation);
    assert_eq!(m.answers.len(), 100);
}

#[test]
fn nonsense_is_refused_or_ignored() {
    let z = zones();
    assert_eq!(answer(&Asker::Sandbox(&z, "one"), b"", true), Outcome::Ignore);
    assert_eq!(
        answer(&Asker::Sandbox(&z, "one"), &[0xff; 40], true),
        Outcome::Ignore
    );
    let mut cut = query("web.", RecordType::A);
    cut.truncate(15);
    let Outcome::Reply(r) = answer(&Asker::Sandbox(&z, "one"), &cut, true) else {
        panic!()
    };
    assert_eq!(
        Message::from_vec(&r).unwrap().metadata.response_code,
        ResponseCode::FormErr
    );
    let mut response = query("web.", RecordType::A);
    response[2] |= 0x80;
    assert_eq!(
        answer(&Asker::Sandbox(&z, "one"), &response, true),
        Outcome::Ignore
    );
}

#[test]
fn aliases_are_followed() {
    use tripod_model::network::names::{ClusterNames, NameTarget, ServiceNames};
    let service = |name: &str, target| {
        std::sync::Arc::new(ServiceNames {
            namespace: "d".into(),
            name: name.into(),
            target,
        })
    };
    let web = NameTarget::Addresses {
        addresses: vec![Ipv4Addr::new(10, 96, 0, 7).into()],
        ports: vec![],
    };
    let c = Cluster::new(&ClusterNames {
        domain: "cluster.local".into(),
        namespaces: vec![],
        services: vec![
            service("web", web),
            service("inside", NameTarget::Name("web.d.svc.cluster.local".into())),
            service("away", NameTarget::Name("example.org".into())),
        ],
    });
    let ask = |name: &str, kind| answer(&Asker::Pod(&c), &query(name, kind), true);
    let Outcome::Reply(r) = ask("inside.d.svc.cluster.local.", RecordType::A) else {
        panic!()
    };
    assert_eq!(Message::from_vec(&r).unwrap().answers.len(), 2);
    let Outcome::Follow { reply, query, limit } = ask("away.d.svc.cluster.local.", RecordType::A) else {
        panic!()
    };
    let asked = Message::from_vec(&query).unwrap();
    assert_eq!(asked.queries[0].name().to_utf8(), "example.org.");
    let mut theirs = Message::response(1, OpCode::Query);
    theirs.add_answer(Record::from_rdata(
        Name::from_utf8("example.org.").unwrap(),
        60,
        RData::A(A(Ipv4Addr::new(192, 0, 2, 9))),
    ));
    let whole = completed(&reply, &theirs.to_vec().unwrap(), limit).unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 2);
    // Who asks for the alias itself gets it.
    assert!(matches!(
        ask("away.d.svc.cluster.local.", RecordType::CNAME),
        Outcome::Reply(_)
    ));
}
