//! Tests of the cluster's DNS against the specification's tables.

use tripod_model::network::PortProtocol;

use super::*;

fn port(name: &str, port: u16) -> NamedPort {
    NamedPort {
        name: name.into(),
        protocol: PortProtocol::Tcp,
        port,
    }
}

fn endpoint(last: u8, hostname: &str) -> NamedEndpoint {
    NamedEndpoint {
        address: [10, 244, 1, last].into(),
        hostname: hostname.into(),
        ports: vec![port("http", 8080)],
    }
}

fn cluster() -> Cluster {
    let service = |name: &str, target| {
        Arc::new(ServiceNames {
            namespace: "default".into(),
            name: name.into(),
            target,
        })
    };
    Cluster::new(&ClusterNames {
        domain: "cluster.local".into(),
        namespaces: vec!["default".into(), "empty".into()],
        services: vec![
            service(
                "web",
                NameTarget::Addresses {
                    addresses: vec![[10, 96, 0, 7].into()],
                    ports: vec![port("http", 80), port("", 81)],
                },
            ),
            service(
                "db",
                NameTarget::Endpoints(vec![endpoint(5, "db-0"), endpoint(6, "")]),
            ),
            service("none", NameTarget::Endpoints(vec![])),
            service("away", NameTarget::Name("example.org".into())),
        ],
    })
}

fn ask(c: &Cluster, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    let r = c.look_up(&Name::from_utf8(name).unwrap(), kind)?;
    assert_eq!(r.authority.len(), usize::from(r.answers.is_empty()), "{name}");
    let mut all: Vec<String> = r.answers.iter().map(|r| r.data.to_string()).collect();
    all.sort();
    Some((r.code, all))
}

#[test]
fn records_of_the_specification() {
    let c = cluster();
    let some = |all: &[&str]| {
        Some((
            ResponseCode::NoError,
            all.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(),
        ))
    };
    let missing = || Some((ResponseCode::NXDomain, Vec::new()));
    use RecordType as T;
    for (name, kind, want) in [
        ("web.default.svc.cluster.local.", T::A, some(&["10.96.0.7"])),
        ("WEB.Default.svc.Cluster.local.", T::A, some(&["10.96.0.7"])),
        ("web.default.svc.cluster.local.", T::AAAA, some(&[])),
        ("web.default.svc.cluster.local.", T::MX, some(&[])),
        ("gone.default.svc.cluster.local.", T::A, missing()),
        ("web.other.svc.cluster.local.", T::A, missing()),
        ("default.svc.cluster.local.", T::A, some(&[])),
        ("empty.svc.cluster.local.", T::A, some(&[])),
        ("other.svc.cluster.local.", T::A, missing()),
        ("svc.cluster.local.", T::A, some(&[])),
        ("x.cluster.local.", T::A, missing()),
        (
            "db.default.svc.cluster.local.",
            T::A,
            some(&["10.244.1.5", "10.244.1.6"]),
        ),
        ("db-0.db.default.svc.cluster.local.", T::A, some(&["10.244.1.5"])),
        (
            "10-244-1-6.db.default.svc.cluster.local.",
            T::A,
            some(&["10.244.1.6"]),
        ),
        ("db-1.db.default.svc.cluster.local.", T::A, missing()),
        ("none.default.svc.cluster.local.", T::A, missing()),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            T::SRV,
            some(&["0 100 80 web.default.svc.cluster.local."]),
        ),
        (
            "_http._tcp.db.default.svc.cluster.local.",
            T::SRV,
            some(&[
                "0 50 8080 10-244-1-6.db.default.svc.cluster.local.",
                "0 50 8080 db-0.db.default.svc.cluster.local.",
            ]),
        ),
        ("_http._udp.web.default.svc.cluster.local.", T::SRV, missing()),
        ("_._tcp.web.default.svc.cluster.local.", T::SRV, missing()),
        ("_tcp.web.default.svc.cluster.local.", T::SRV, some(&[])),
        ("away.default.svc.cluster.local.", T::A, some(&["example.org."])),
        ("10-1-2-3.default.pod.cluster.local.", T::A, some(&["10.1.2.3"])),
        ("10-1-2.default.pod.cluster.local.", T::A, missing()),
        ("10-1-2-3.other.pod.cluster.local.", T::A, missing()),
        (
            "7.0.96.10.in-addr.arpa.",
            T::PTR,
            some(&["web.default.svc.cluster.local."]),
        ),
        (
            "5.1.244.10.in-addr.arpa.",
            T::PTR,
            some(&["db-0.db.default.svc.cluster.local."]),
        ),
        ("9.9.9.10.in-addr.arpa.", T::PTR, None),
        ("dns-version.cluster.local.", T::TXT, some(&["1.1.0"])),
        ("web.", T::A, None),
        ("notcluster.local.", T::A, None),
        ("example.org.", T::A, None),
    ] {
        assert_eq!(ask(&c, name, kind), want, "{name} {kind}");
    }
}

#[test]
fn targets_come_with_their_addresses() {
    let c = cluster();
    let name = Name::from_utf8("_http._tcp.db.default.svc.cluster.local.").unwrap();
    let r = c.look_up(&name, RecordType::SRV).unwrap();
    assert_eq!(r.additionals.len(), 2);
}
