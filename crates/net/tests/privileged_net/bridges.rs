//! Local bridges and published ports.

use tripod_agent::ports::{Net, PortRequest, SandboxDns};
use tripod_model::ErrorKind;

use crate::host::{HOST, OUTSIDE, TestServer, bridge, endpoint, get, on_host, sh_in, tcp};

#[test]
fn bridge_networks() {
    on_host(|host| async move {
        let net = host.open();
        let (a, b) = (bridge("a", "172.20.0.0/16"), bridge("b", "172.21.0.0/16"));
        net.ensure_network(&a).await.unwrap();
        net.ensure_network(&b).await.unwrap();
        net.ensure_network(&a).await.unwrap();
        let dns = SandboxDns::default();
        let s1 = net
            .create_sandbox_with("one", &dns, &[endpoint(&a, "1", 2, "eth0")])
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("two", &dns, &[endpoint(&a, "2", 3, "eth0")])
            .await
            .unwrap();
        let s3 = net
            .create_sandbox_with("three", &dns, &[endpoint(&b, "3", 2, "eth0")])
            .await
            .unwrap();
        let _one = TestServer::start(&s1, 80, "one");
        let _three = TestServer::start(&s3, 80, "three");
        let _out = TestServer::start(&host.outside, 99, "out");
        assert!(
            net.wait_listening("one", &[80], std::time::Duration::from_secs(1))
                .await
        );
        assert!(
            !net.wait_listening("one", &[81], std::time::Duration::from_millis(10))
                .await
        );

        assert_eq!(get(&s2, "172.20.0.2:80").unwrap(), "one 172.20.0.3");
        assert_eq!(get(&host.ns, "172.20.0.2:80").unwrap(), "one 172.20.0.1");
        assert_eq!(
            get(&s1, &format!("{OUTSIDE}:99")).unwrap(),
            format!("out {HOST}"),
            "masqueraded"
        );
        // Networks are closed to each other, and to who comes from outside without a published port.
        get(&s2, "172.21.0.2:80").unwrap_err();
        get(&s3, "172.20.0.2:80").unwrap_err();
        sh_in(&host.outside, "ip route add 172.20.0.0/16 via 192.0.2.2");
        get(&host.outside, "172.20.0.2:80").unwrap_err();

        let request = |p| {
            [PortRequest {
                port: p,
                host_port_end: 0,
            }]
        };
        let ep = endpoint(&a, "1", 2, "eth0");
        let got = net
            .publish("one", &ep, &request(tcp("0.0.0.0", 8080, 80)))
            .await
            .unwrap();
        assert_eq!(got, [tcp("0.0.0.0", 8080, 80)]);
        assert_eq!(
            get(&host.outside, &format!("{HOST}:8080")).unwrap(),
            format!("one {OUTSIDE}")
        );
        assert_eq!(
            get(&host.ns, &format!("{HOST}:8080")).unwrap(),
            format!("one {HOST}")
        );
        assert_eq!(get(&host.ns, "127.0.0.1:8080").unwrap(), "one 172.20.0.1");
        assert_eq!(get(&host.ns, "172.20.0.1:8080").unwrap(), "one 172.20.0.1");
        // From sandboxes by the host's address: another network, the same network, itself.
        assert!(get(&s3, &format!("{HOST}:8080")).unwrap().starts_with("one "));
        assert!(get(&s2, &format!("{HOST}:8080")).unwrap().starts_with("one "));
        assert!(get(&s1, &format!("{HOST}:8080")).unwrap().starts_with("one "));
        assert!(get(&s1, "172.20.0.1:8080").unwrap().starts_with("one "));

        let ep3 = endpoint(&b, "3", 2, "eth0");
        let e = net
            .publish("three", &ep3, &request(tcp("0.0.0.0", 8080, 80)))
            .await
            .unwrap_err();
        assert_eq!(e.kind, ErrorKind::Conflict);
        assert_eq!(
            e.message,
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        let _ssh = TestServer::start(&host.ns, 22, "ssh");
        let e = net
            .publish("three", &ep3, &request(tcp("0.0.0.0", 22, 80)))
            .await
            .unwrap_err();
        assert_eq!(
            e.message,
            "failed to bind host port for 0.0.0.0:22:172.21.0.2:80/tcp: address already in use"
        );
        let free = net
            .publish("three", &ep3, &request(tcp("127.0.0.1", 0, 80)))
            .await
            .unwrap();
        assert!((32768..=60999).contains(&free[0].host_port));
        assert!(
            get(&host.ns, &format!("127.0.0.1:{}", free[0].host_port))
                .unwrap()
                .starts_with("three ")
        );
        get(&host.outside, &format!("{HOST}:{}", free[0].host_port)).unwrap_err();

        net.unpublish("one").await.unwrap();
        get(&host.outside, &format!("{HOST}:8080")).unwrap_err();
        net.publish("three", &ep3, &request(tcp("0.0.0.0", 8080, 80)))
            .await
            .unwrap();
        assert_eq!(
            get(&host.outside, &format!("{HOST}:8080")).unwrap(),
            format!("three {OUTSIDE}")
        );
    });
}
