//! Names inside sandboxes, asked by the C library and by datagrams of our own.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tripod_agent::ports::{Net, SandboxDns};
use tripod_model::network::NameRecord;

use crate::host::{bridge, endpoint, inside, on_host};

fn ask(ns: &Path, name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>) {
    let name = Name::from_utf8(name).unwrap();
    inside(ns, move || {
        let mut q = Message::query();
        q.add_query(Query::query(name, kind));
        let s = UdpSocket::bind("0.0.0.0:0").unwrap();
        s.connect("127.0.0.11:53").unwrap();
        s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        s.send(&q.to_vec().unwrap()).unwrap();
        let mut buf = [0; 4096];
        let n = s.recv(&mut buf).unwrap();
        let m = Message::from_vec(&buf[..n]).unwrap();
        assert_eq!(m.metadata.id, q.metadata.id);
        (
            m.metadata.response_code,
            m.answers.into_iter().map(|r| r.data).collect(),
        )
    })
}

fn addresses(ns: &Path, name: &str) -> Vec<String> {
    ask(ns, name, RecordType::A)
        .1
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn names_are_scoped() {
    on_host(|host| async move {
        let net = host.open();
        let (a, b) = (bridge("a", "172.20.0.0/16"), bridge("b", "172.21.0.0/16"));
        net.ensure_network(&a).await.unwrap();
        net.ensure_network(&b).await.unwrap();
        let dns = SandboxDns {
            embedded: true,
            upstream: vec!["192.0.2.1".parse().unwrap()],
        };
        let e1 = endpoint(&a, "1", 2, "eth0");
        let s1 = net
            .create_sandbox_with("one", &dns, std::slice::from_ref(&e1))
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("two", &dns, &[endpoint(&b, "2", 2, "eth0")])
            .await
            .unwrap();
        net.create_sandbox_with("three", &dns, &[endpoint(&a, "3", 3, "eth0")])
            .await
            .unwrap();

        assert_eq!(addresses(&s1, "C3."), ["172.20.0.3"]);
        assert_eq!(addresses(&s1, "c3.neta"), ["172.20.0.3"]);
        // Another network's names are not known; the upstream (nobody there) refuses at once.
        assert_eq!(ask(&s2, "c3", RecordType::A), (ResponseCode::ServFail, vec![]));
        assert_eq!(ask(&s1, "c3", RecordType::AAAA), (ResponseCode::NoError, vec![]));
        assert_eq!(
            ask(&s1, "nobody.neta", RecordType::A),
            (ResponseCode::NXDomain, vec![])
        );
        let ptr = ask(&s1, "3.0.20.172.in-addr.arpa", RecordType::PTR).1;
        assert_eq!(ptr[0].to_string(), "c3.neta.");

        let record = |name: &str, last: &[u8]| NameRecord {
            name: name.into(),
            addresses: last.iter().map(|l| [172, 20, 0, *l].into()).collect(),
            owner: "x".into(),
            reverse: false,
        };
        net.set_names(&a.id, &[record("web", &[9]), record("tasks.web", &[7, 8])])
            .await
            .unwrap();
        assert_eq!(addresses(&s1, "web"), ["172.20.0.9"]);
        let (first, second) = (addresses(&s1, "tasks.web"), addresses(&s1, "tasks.web"));
        assert_eq!(first.len(), 2);
        assert_ne!(first, second, "rotated");
        net.set_names(&a.id, &[]).await.unwrap();
        assert_eq!(ask(&s1, "tasks.web", RecordType::A).0, ResponseCode::NXDomain);

        // Connected later: names of that network too.
        let e = endpoint(&b, "4", 4, "eth1");
        net.connect("one", &e).await.unwrap();
        assert_eq!(addresses(&s1, "c2"), ["172.21.0.2"]);
        assert_eq!(addresses(&s2, "c4"), ["172.21.0.4"]);
        net.disconnect("one", &e).await.unwrap();
        assert_eq!(ask(&s2, "c4", RecordType::A).0, ResponseCode::ServFail);

        port_53_is_free(&s1);
        by_stream(&s1);

        // A daemon that went away and came back, without and with the sockets kept.
        drop(net);
        let net = host.open();
        net.ensure_network(&a).await.unwrap();
        net.adopt_sandbox("one", &dns, std::slice::from_ref(&e1), &[])
            .await
            .unwrap();
        assert_eq!(addresses(&s1, "c1"), ["172.20.0.2"]);
        let kept = net.take_fds().unwrap();
        assert_eq!(kept.len(), 2);
        drop(net);
        let net = host.open();
        net.restore_fds(kept);
        net.ensure_network(&a).await.unwrap();
        net.adopt_sandbox("one", &dns, &[e1], &[]).await.unwrap();
        assert_eq!(addresses(&s1, "c1"), ["172.20.0.2"]);
    });
}

/// A server of the container's own on port 53 gets the port and is reached by its own addresses.
fn port_53_is_free(ns: &Path) {
    inside(ns, || {
        let own = UdpSocket::bind("0.0.0.0:53").unwrap();
        let _tcp = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.send_to(b"x", "127.0.0.1:53").unwrap();
        own.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut buf = [0; 8];
        assert_eq!(own.recv(&mut buf).unwrap(), 1);
    });
    assert_eq!(addresses(ns, "c1"), ["172.20.0.2"]);
}

fn by_stream(ns: &Path) {
    use std::io::{Read, Write};
    inside(ns, || {
        let mut q = Message::query();
        q.add_query(Query::query(Name::from_utf8("c1").unwrap(), RecordType::A));
        let q = q.to_vec().unwrap();
        let mut s = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
        s.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        s.write_all(&u16::try_from(q.len()).unwrap().to_be_bytes())
            .unwrap();
        s.write_all(&q).unwrap();
        let mut len = [0; 2];
        s.read_exact(&mut len).unwrap();
        let mut m = vec![0; usize::from(u16::from_be_bytes(len))];
        s.read_exact(&mut m).unwrap();
        assert_eq!(
            Message::from_vec(&m).unwrap().answers[0].data.to_string(),
            "172.20.0.2"
        );
    });
}
