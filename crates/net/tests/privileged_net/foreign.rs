//! Beside a filter of another program that drops forwarded packets by default.

use tripod_agent::ports::{Net, PortRequest, SandboxDns};

use crate::host::{HOST, OUTSIDE, TestServer, bridge, endpoint, get, on_host, overlay, sh, tcp};

#[test]
fn dropping_filters_of_others_are_passed() {
    on_host(|host| async move {
        sh(
            "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
            add table inet firewall; add chain inet firewall f { type filter hook forward priority 10; policy drop; }'",
        );
        let before = sh("nft list ruleset");
        let net = host.open();
        let (b, o) = (bridge("a", "172.20.0.0/16"), overlay("b", "10.0.1.0/24"));
        net.ensure_network(&b).await.unwrap();
        net.ensure_network(&o).await.unwrap();
        let dns = SandboxDns::default();
        let e = endpoint(&b, "1", 2, "eth0");
        let s1 = net
            .create_sandbox_with("s1", &dns, std::slice::from_ref(&e))
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("s2", &dns, &[endpoint(&o, "2", 11, "eth0")])
            .await
            .unwrap();
        let _out = TestServer::start(&host.outside, 99, "out");
        let one = TestServer::start(&s1, 80, "one");
        let request = [PortRequest {
            port: tcp("0.0.0.0", 8080, 80),
            host_port_end: 0,
        }];
        net.publish("s1", &e, &request).await.unwrap();
        for s in [&s1, &s2] {
            assert_eq!(get(s, &format!("{OUTSIDE}:99")).unwrap(), format!("out {HOST}"));
        }
        let at = format!("{HOST}:8080");
        assert_eq!(get(&host.outside, &at).unwrap(), format!("one {OUTSIDE}"));
        get(&s2, "172.20.0.2:80").unwrap_err();

        // Again, after a restart: no rule twice. One lost meanwhile comes back.
        let rules = sh("nft list table ip filter; nft list table inet firewall");
        assert_eq!(rules.matches("tripod: br-").count(), 4, "{rules}");
        assert_eq!(rules.matches("tripod: tu-").count(), 4, "{rules}");
        sh("nft flush chain inet firewall f");
        get(&host.outside, &at).unwrap_err();
        drop(net);
        let net = host.open();
        net.ensure_network(&b).await.unwrap();
        net.ensure_network(&o).await.unwrap();
        // Those put in first are the same; the order of the others is that of the networks.
        assert_eq!(
            sh("nft list table ip filter; nft list table inet firewall"),
            rules
        );
        assert_eq!(get(&host.outside, &at).unwrap(), format!("one {OUTSIDE}"));

        drop(one);
        net.remove_sandbox("s1").await.unwrap();
        net.remove_network(&b.id).await.unwrap();
        let rules = sh("nft list ruleset");
        assert!(
            !rules.contains("tripod: br-") && rules.contains("tripod: tu-"),
            "{rules}"
        );
        net.withdraw().await.unwrap();
        assert_eq!(sh("nft list ruleset"), before);
    });
}
