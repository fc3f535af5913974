//! Tests of the rendering of frontends.

use tripod_model::network::{PortProtocol, PublishedPort, ServicePort};

use super::*;

fn backend(last: u8, terminating: bool) -> Backend {
    Backend {
        terminating,
        ..Backend::new([10, 0, 0, last].into(), "", "")
    }
}

fn frontend(id: &str, vip: u8, backends: Vec<Backend>) -> Frontend {
    Frontend {
        id: id.into(),
        network_id: "n".into(),
        vip: Some([10, 0, 0, vip].into()),
        ports: FrontendPorts::All,
        backends,
        ..Frontend::default()
    }
}

fn change(model: &mut Model, before: &[&Frontend], now: &[&Frontend], kept: &[&Frontend]) -> Vec<Op> {
    let shared = |a| kept.iter().any(|f| eligible(&f.backends).contains(&a));
    desired(now).replace(desired(before), shared, model)
}

#[test]
fn stopping_backends_serve_only_alone() {
    let ip = |l: u8| Ipv4Addr::new(10, 0, 0, l);
    for (backends, want) in [
        (vec![backend(1, false), backend(2, true)], vec![ip(1)]),
        (vec![backend(1, true), backend(2, true)], vec![ip(1), ip(2)]),
        (
            vec![backend(3, false), backend(1, false), backend(3, false)],
            vec![ip(1), ip(3)],
        ),
        (vec![], vec![]),
    ] {
        assert_eq!(eligible(&backends), want);
    }
}

#[test]
fn an_address_leads_to_its_chain() {
    let mut m = Model::default();
    let f = frontend("a", 2, vec![backend(11, false), backend(12, false)]);
    let ops = change(&mut m, &[], &[&f], &[]);
    let all = vec![Ipv4Addr::new(10, 0, 0, 11), Ipv4Addr::new(10, 0, 0, 12)];
    assert_eq!(ops[0], Op::Chain("v-10.0.0.2".into()));
    assert_eq!(
        ops[1],
        Op::Rule(
            "v-10.0.0.2".into(),
            vec![Expr::Random(0, all), Expr::Dnat(0, None)]
        )
    );
    assert!(m.has(VIPS, &[10, 0, 0, 2]));
    assert!(m.has(SELF, &[10, 0, 0, 11, 10, 0, 0, 11]));
    // Nothing changed: nothing to do. One backend less: the rule in place, and its pair out.
    assert!(change(&mut m, &[&f], &[&f], &[]).is_empty());
    let less = frontend("a", 2, vec![backend(11, false)]);
    let ops = change(&mut m, &[&f], &[&less], &[]);
    assert_eq!(ops[0], Op::Flush("v-10.0.0.2".into()));
    assert_eq!(ops.len(), 3, "{ops:?}");
    assert!(!m.has(SELF, &[10, 0, 0, 12, 10, 0, 0, 12]));
    change(&mut m, &[&less], &[], &[]);
    assert!(m.whole().is_empty(), "{:?}", m.whole());
}

#[test]
fn shared_backends_stay() {
    let mut m = Model::default();
    let (a, b) = (
        frontend("a", 2, vec![backend(11, false)]),
        frontend("b", 3, vec![backend(11, false)]),
    );
    change(&mut m, &[], &[&a, &b], &[]);
    change(&mut m, &[&a], &[], &[&b]);
    assert!(m.has(SELF, &[10, 0, 0, 11, 10, 0, 0, 11]));
    assert!(!m.has(VIPS, &[10, 0, 0, 2]));
}

#[test]
fn nobody_serving_is_refused() {
    let mut m = Model::default();
    let mut f = frontend("a", 2, vec![]);
    f.published.push(PublishedPort {
        host_ip: Ipv4Addr::UNSPECIFIED.into(),
        host_port: 8080,
        target_port: 80,
        protocol: PortProtocol::Tcp,
    });
    change(&mut m, &[], &[&f], &[]);
    assert!(m.has(NO_VIPS, &[10, 0, 0, 2]));
    assert!(m.has(NO_PORTS, &[6, 0, 0, 0, 0x1f, 0x90, 0, 0]));
    let mut serving = f.clone();
    serving.backends.push(backend(11, false));
    change(&mut m, &[&f], &[&serving], &[]);
    assert!(!m.has(NO_VIPS, &[10, 0, 0, 2]));
    assert!(m.has(PORTS, &[6, 0, 0, 0, 0x1f, 0x90, 0, 0]));
}

#[test]
fn single_ports_and_affinity() {
    let mut m = Model::default();
    let mut f = frontend("a", 2, vec![backend(11, false), backend(12, false)]);
    f.ports = FrontendPorts::Some(vec![ServicePort {
        port: 80,
        target_port: 8080,
        protocol: PortProtocol::Tcp,
    }]);
    f.affinity_seconds = 10;
    let ops = change(&mut m, &[], &[&f], &[]);
    assert_eq!(ops[0], Op::Chain("s-10.0.0.2-tcp-80".into()));
    let Op::Rule(_, rule) = &ops[1] else {
        panic!("{ops:?}")
    };
    assert!(
        matches!(
            rule[..],
            [Expr::BySource(0, _), Expr::Load(1, _), Expr::Dnat(0, Some(1))]
        ),
        "{rule:?}"
    );
    assert!(!m.has(VIPS, &[10, 0, 0, 2]));
    assert!(m.has(SERVICES, &[10, 0, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0]));
}
