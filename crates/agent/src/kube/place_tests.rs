//! Tests of where the parts of a pod are placed.

use serde_json::{Value, json};
use tripod_model::session::NodeSettings;

use super::super::desc::tests::pod;
use super::*;

const HOST: &str = "nameserver 192.0.2.1\nsearch example.com\noptions timeout:1\n";

fn node() -> NodeSettings {
    NodeSettings {
        dns: vec!["10.96.0.10".parse().unwrap()],
        ..NodeSettings::default()
    }
}

fn resolv(mut spec: Value) -> String {
    spec["containers"] = json!([]);
    render_resolv_conf(&pod(spec, json!({})), &node(), HOST)
}

#[test]
fn resolvers_follow_the_policy() {
    let cluster = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local example.com\n\
                   options ndots:5\n";
    assert_eq!(resolv(json!({})), cluster);
    assert_eq!(resolv(json!({"hostNetwork": true})), HOST);
    assert_eq!(
        resolv(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})),
        cluster
    );
    assert_eq!(resolv(json!({"dnsPolicy": "Default"})), HOST);
    let own = json!({"nameservers": ["1.2.3.4"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
    assert_eq!(
        resolv(json!({"dnsPolicy": "None", "dnsConfig": own})),
        "nameserver 1.2.3.4\nsearch x.y\noptions ndots:2 edns0\n"
    );
}

#[test]
fn hosts_have_names() {
    let names = |mut spec: Value| {
        spec["containers"] = json!([]);
        let desc = pod(spec, json!({}));
        let names = HostNames::of(&desc, &node(), "node1");
        let addresses = Addresses {
            pod: vec!["10.244.0.5".parse().unwrap()],
            host: Vec::new(),
        };
        (names.hostname.clone(), hosts(&desc, &names, &addresses))
    };
    let (name, text) = names(json!({}));
    assert_eq!(name, "p");
    assert!(text.starts_with("# Kubernetes-managed hosts file.\n"));
    assert!(text.contains("10.244.0.5\tp\n"));
    let (name, text) = names(json!({"hostname": "h", "subdomain": "s",
        "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a", "b"]}]}));
    assert_eq!(name, "h");
    assert!(text.contains("10.244.0.5\th.s.ns.svc.cluster.local\th\n"));
    assert!(text.ends_with("# Entries added by HostAliases.\n1.1.1.1\ta\tb\n"));
    let (name, _) = names(json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}));
    assert_eq!(name, "h.s.ns.svc.cluster.local");
    assert_eq!(names(json!({"hostNetwork": true})).0, "node1");
}
