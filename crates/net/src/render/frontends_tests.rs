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
    let context = Context {
        node: "here",
        far: &|_, a| a.octets()[0] != 10,
    };
    let shared = |a| {
        kept.iter()
            .any(|f| eligible(&f.backends, None).contains(&(a, None)))
    };
    desired(now, &context).replace(desired(before, &context), shared, model)
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
        let want: Vec<Goal> = want.into_iter().map(|a| (a, None)).collect();
        assert_eq!(eligible(&backends, None), want);
    }
}

#[test]
fn an_address_leads_to_its_chain() {
    let mut m = Model::default();
    let f = frontend("a", 2, vec![backend(11, false), backend(12, false)]);
    let ops = change(&mut m, &[], &[&f], &[]);
    let all = vec![vec![10, 0, 0, 11], vec![10, 0, 0, 12]];
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
    let rules: Vec<&Vec<Expr>> = ops
        .iter()
        .filter_map(|o| match o {
            Op::Rule(_, r) => Some(r),
            _ => None,
        })
        .collect();
    // Where the client was last, if that still serves; else anywhere; and something at all events.
    assert!(
        matches!(
            rules[0][..],
            [
                Expr::Saddr(0),
                Expr::Load(1, _),
                Expr::Map(AFFINITY, 0, 4),
                Expr::OneOf(4, _),
                Expr::Remember(AFFINITY, 0, 4, 10_000),
                Expr::Dnat(4, Some(5))
            ]
        ),
        "{rules:?}"
    );
    assert!(rules[1].contains(&Expr::Random(
        4,
        vec![
            vec![10, 0, 0, 11, 0x1f, 0x90, 0, 0],
            vec![10, 0, 0, 12, 0x1f, 0x90, 0, 0]
        ]
    )));
    assert_eq!(rules.len(), 3);
    assert!(!m.has(VIPS, &[10, 0, 0, 2]));
    assert!(m.has(SERVICES, &[10, 0, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0]));
}

fn service(backends: Vec<Backend>) -> Frontend {
    Frontend {
        ports: FrontendPorts::Some(vec![ServicePort {
            port: 80,
            target_port: 8080,
            protocol: PortProtocol::Tcp,
        }]),
        ..frontend("a", 2, backends)
    }
}

fn on(node: &str, b: Backend) -> Backend {
    Backend {
        node: node.into(),
        ..b
    }
}

fn rules_of<'a>(ops: &'a [Op], chain: &str) -> Vec<&'a Vec<Expr>> {
    ops.iter()
        .filter_map(|o| match o {
            Op::Rule(c, r) if c == chain => Some(r),
            _ => None,
        })
        .collect()
}

#[test]
fn backends_have_ports_of_their_own() {
    let mut m = Model::default();
    let mut f = service(vec![backend(11, false), backend(12, false)]);
    f.backends[1].port = Some(9090);
    let ops = change(&mut m, &[], &[&f], &[]);
    let want = vec![
        vec![10, 0, 0, 11, 0x1f, 0x90, 0, 0],
        vec![10, 0, 0, 12, 0x23, 0x82, 0, 0],
    ];
    assert_eq!(
        *rules_of(&ops, "s-10.0.0.2-tcp-80")[0],
        vec![Expr::Random(0, want), Expr::Dnat(0, Some(1))]
    );
}

#[test]
fn local_policies() {
    let drop = vec![Expr::Verdict(Verdict::Drop)];
    let mut f = service(vec![
        on("here", backend(11, false)),
        on("there", backend(12, false)),
    ]);
    f.internal_local = true;
    let mut m = Model::default();
    let ops = change(&mut m, &[], &[&f], &[]);
    let only = vec![vec![10, 0, 0, 11, 0x1f, 0x90, 0, 0]];
    assert_eq!(
        rules_of(&ops, "s-10.0.0.2-tcp-80"),
        [&vec![Expr::Random(0, only), Expr::Dnat(0, Some(1))]]
    );
    // Elsewhere only: dropped. Nowhere: refused.
    f.backends.remove(0);
    let ops = change(&mut Model::default(), &[], &[&f], &[]);
    assert_eq!(rules_of(&ops, "s-10.0.0.2-tcp-80"), [&drop]);
    f.backends.clear();
    let mut m = Model::default();
    change(&mut m, &[], &[&f], &[]);
    assert!(m.has(NO_SERVICES, &[10, 0, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0]));

    // From outside to this node's only; from inside to all.
    let mut f = service(vec![on("there", backend(12, false))]);
    f.external_local = true;
    f.external_ips = vec![[198, 51, 100, 1].into()];
    f.published.push(PublishedPort {
        host_ip: Ipv4Addr::UNSPECIFIED.into(),
        host_port: 30080,
        target_port: 8080,
        protocol: PortProtocol::Tcp,
    });
    let ops = change(&mut Model::default(), &[], &[&f], &[]);
    for chain in ["e-198.51.100.1-tcp-80", "p-tcp-30080"] {
        let rules = rules_of(&ops, chain);
        let goto = Expr::Verdict(Verdict::Goto("s-10.0.0.2-tcp-80".into()));
        assert_eq!(rules.len(), 3, "{chain}: {rules:?}");
        assert!(rules[0].contains(&goto) && rules[1].contains(&goto));
        assert_eq!(*rules[2], drop);
    }
}

#[test]
fn load_balancers_know_their_clients() {
    let mut f = service(vec![backend(11, false)]);
    f.load_balancer_ips = vec![[198, 51, 100, 1].into()];
    f.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
    let ops = change(&mut Model::default(), &[], &[&f], &[]);
    let rules = rules_of(&ops, "e-198.51.100.1-tcp-80");
    assert_eq!(
        rules[0][..3],
        [
            Expr::Saddr(0),
            Expr::Mask(0, [255, 255, 255, 0]),
            Expr::Eq(0, vec![203, 0, 113, 0])
        ]
    );
    assert_eq!(*rules[1], vec![Expr::Verdict(Verdict::Drop)]);
    assert_eq!(rules_of(&ops, "e-198.51.100.1-tcp-80-in").len(), 1);
}

#[test]
fn hosts_are_no_members_of_the_network() {
    let mut f = service(vec![backend(11, false)]);
    f.backends[0].address = [192, 0, 2, 2].into();
    let mut m = Model::default();
    change(&mut m, &[], &[&f], &[]);
    assert!(m.has(FAR, &[192, 0, 2, 2]));
    assert!(!m.has(SELF, &[192, 0, 2, 2, 192, 0, 2, 2]));
}
