//! Addresses, names and ports of containers, and networks that come and go while they run.

use tripod_agent::{RemoveOptions, StopOptions};
use tripod_model::ErrorKind::{Conflict, Forbidden, Invalid, NotFound};
use tripod_model::container::ContainerStatus::{Created, Exited, Running};
use tripod_model::{Error, ErrorKind};

use crate::support::*;

const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    volumes: false,
};

#[test]
fn a_container_can_live_in_the_network_of_another() {
    let w = World::new();
    w.life(async |agent| {
        let web = create(&agent, "web", publish(spec(), 80)).await.unwrap();
        let mut guest = spec();
        guest.network.mode = "container:web".into();
        let guest = create(&agent, "guest", guest).await.unwrap();
        let text = refused(agent.start_container(&guest).await, Conflict);
        assert!(text.contains("non running container"), "{text}");
        assert_eq!(w.images.mounted(&guest), Some(false));
        agent.start_container(&web).await.unwrap();
        agent.start_container(&guest).await.unwrap();
        let netns = |id: &str| w.runtime.requests(id).remove(0).netns;
        assert_eq!(netns(&guest), netns(&web));
        assert!(w.net.sandbox(&guest).is_none());
        refused(
            agent.connect_network("bridge", connect("guest", None)).await,
            Conflict,
        );
        // The guest leaves: the house stays.
        agent.remove_container(&guest, FORCE).await.unwrap();
        assert_eq!(w.net.sandbox(&web).unwrap().ports[0].host_port, 80);

        let mut orphan = spec();
        orphan.network.mode = "container:nobody".into();
        refused(create(&agent, "orphan", orphan).await, NotFound);
    });
}

#[test]
fn host_and_none_have_no_addresses() {
    let w = World::new();
    w.life(async |agent| {
        let mut host = spec();
        host.network.mode = "host".into();
        let host = run(&agent, "host", host).await;
        assert!(w.runtime.requests(&host)[0].netns.is_none());
        assert_eq!(agent.container(&host).unwrap().spec.hostname, "host");
        let mut none = spec();
        none.network.mode = "none".into();
        let none = run(&agent, "none", none).await;
        assert!(w.net.sandbox(&none).unwrap().endpoints.is_empty());
        refused(
            agent.connect_network("host", connect("none", None)).await,
            Forbidden,
        );
        refused(
            agent.connect_network("bridge", connect("host", None)).await,
            Forbidden,
        );
        // The first real network of a container without any is its way out.
        network(&agent, "front", "10.1.0.0/24").await;
        agent
            .connect_network("front", connect("none", None))
            .await
            .unwrap();
        let endpoints = w.net.sandbox(&none).unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        assert!(endpoints[0].default_route);
        agent.remove_container(&none, FORCE).await.unwrap();
        w.assert_down(&none);
    });
}

#[test]
fn addresses_are_unique_fixed_where_asked_and_not_reused_at_once() {
    let w = World::new();
    w.life(async |agent| {
        network(&agent, "front", "10.1.0.0/29").await;
        let fixed = run(&agent, "fixed", spec_on("front", Some("10.1.0.3"))).await;
        assert_eq!(address(&agent, &fixed), "10.1.0.3");
        let first = run(&agent, "first", spec_on("front", None)).await;
        let second = run(&agent, "second", spec_on("front", None)).await;
        assert_eq!(address(&agent, &first), "10.1.0.2");
        assert_eq!(address(&agent, &second), "10.1.0.4");
        // Taken, the gateway's, outside.
        let twin = create(&agent, "twin", spec_on("front", Some("10.1.0.3")))
            .await
            .unwrap();
        let text = refused(agent.start_container(&twin).await, Forbidden);
        assert!(text.contains("Address already in use"), "{text}");
        assert_eq!(status(&agent, &twin), Created);
        let gateway = create(&agent, "gateway", spec_on("front", Some("10.1.0.1")))
            .await
            .unwrap();
        refused(agent.start_container(&gateway).await, Forbidden);
        refused(
            create(&agent, "outside", spec_on("front", Some("10.9.0.3"))).await,
            Invalid,
        );
        refused(
            create(&agent, "bridge", spec_on("bridge", Some("172.18.0.9"))).await,
            Invalid,
        );

        // An address that became free is the last to be given out again.
        agent.remove_container(&first, FORCE).await.unwrap();
        let third = run(&agent, "third", spec_on("front", None)).await;
        let fourth = run(&agent, "fourth", spec_on("front", None)).await;
        let fifth = run(&agent, "fifth", spec_on("front", None)).await;
        assert_eq!(
            [&third, &fourth, &fifth].map(|id| address(&agent, id)),
            ["10.1.0.5", "10.1.0.6", "10.1.0.2"]
        );
        let sixth = create(&agent, "sixth", spec_on("front", None)).await.unwrap();
        let text = refused(agent.start_container(&sixth).await, Forbidden);
        assert!(text.contains("no available IPv4 addresses"), "{text}");
        // A stop gives the address back; the fixed one is had again at the next start.
        agent
            .stop_container(&fixed, StopOptions::default())
            .await
            .unwrap();
        agent.start_container(&fixed).await.unwrap();
        assert_eq!(address(&agent, &fixed), "10.1.0.3");
        agent
            .stop_container(&fifth, StopOptions::default())
            .await
            .unwrap();
        agent.start_container(&sixth).await.unwrap();
        assert_eq!(address(&agent, &sixth), "10.1.0.2");
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected_at_once() {
    let w = World::new();
    w.life(async |agent| {
        let front = network(&agent, "front", "10.1.0.0/24").await;
        let back = network(&agent, "back", "10.2.0.0/24").await;
        let web = run(&agent, "web", spec_on("front", None)).await;
        agent
            .connect_network("back", connect("web", Some("10.2.0.7")))
            .await
            .unwrap();
        let endpoints = w.net.sandbox(&web).unwrap().endpoints;
        let seen: Vec<_> = endpoints
            .iter()
            .map(|e| (e.interface.as_str(), e.ipv4.unwrap().to_string(), e.default_route))
            .collect();
        assert_eq!(
            seen,
            [
                ("eth0", "10.1.0.2/24".to_owned(), true),
                ("eth1", "10.2.0.7/24".to_owned(), false)
            ]
        );
        assert_eq!(w.net.names(&back.id)["web"], "10.2.0.7");
        refused(
            agent.connect_network("back", connect("web", None)).await,
            Forbidden,
        );
        refused(
            agent.connect_network("nowhere", connect("web", None)).await,
            NotFound,
        );
        refused(agent.remove_network("back").await, Forbidden);

        agent.disconnect_network("front", "web", false).await.unwrap();
        assert_eq!(w.net.sandbox(&web).unwrap().endpoints.len(), 1);
        assert!(w.net.names(&front.id).is_empty());
        refused(agent.disconnect_network("front", "web", false).await, Forbidden);
        // The free interface is taken again, the address is free for others.
        agent
            .connect_network("front", connect("web", None))
            .await
            .unwrap();
        let endpoints = w.net.sandbox(&web).unwrap().endpoints;
        assert_eq!(endpoints[1].interface, "eth0");
        let other = run(&agent, "other", spec_on("front", Some("10.1.0.2"))).await;
        assert_eq!(status(&agent, &other), Running);

        // All of it holds at the next start.
        agent
            .restart_container(&web, StopOptions::default())
            .await
            .unwrap();
        assert_eq!(w.net.sandbox(&web).unwrap().endpoints.len(), 2);
        assert_eq!(w.net.names(&back.id)["web"], "10.2.0.7");
    });
}

#[test]
fn a_stopped_container_is_connected_at_its_next_start() {
    let w = World::new();
    w.life(async |agent| {
        network(&agent, "front", "10.1.0.0/24").await;
        network(&agent, "back", "10.2.0.0/24").await;
        let web = create(&agent, "web", spec_on("front", None)).await.unwrap();
        agent.connect_network("back", connect("web", None)).await.unwrap();
        agent.disconnect_network("front", "web", false).await.unwrap();
        assert!(!w.script.steps(&web).contains(&"net.connect".to_owned()));
        agent.start_container(&web).await.unwrap();
        let endpoints = w.net.sandbox(&web).unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        assert_eq!(endpoints[0].network_name, "back");
        agent.stop_container(&web, StopOptions::default()).await.unwrap();
        // A network that only stopped containers are in can be removed; they do not start without it.
        agent.remove_network("back").await.unwrap();
        refused(agent.start_container(&web).await, NotFound);
        assert_eq!(status(&agent, &web), Exited);
        w.assert_down(&web);
        agent
            .disconnect_network("back", "nobody", true)
            .await
            .unwrap_err();
    });
}

#[test]
fn a_failed_connect_changes_nothing() {
    let w = World::new();
    w.life(async |agent| {
        network(&agent, "front", "10.1.0.0/24").await;
        network(&agent, "back", "10.2.0.0/24").await;
        let web = run(&agent, "web", spec_on("front", None)).await;
        w.script.fail("net.connect", Error::internal("no luck"));
        let wish = connect("web", Some("10.2.0.7"));
        refused(agent.connect_network("back", wish).await, ErrorKind::Internal);
        assert_eq!(agent.container(&web).unwrap().endpoints.len(), 1);
        let other = run(&agent, "other", spec_on("back", Some("10.2.0.7"))).await;
        assert_eq!(status(&agent, &other), Running);
        w.script.fail("net.disconnect", Error::internal("no luck"));
        agent.disconnect_network("front", "web", false).await.unwrap_err();
        assert_eq!(agent.container(&web).unwrap().endpoints.len(), 1);
        agent.remove_container(&web, FORCE).await.unwrap();
        agent.remove_network("front").await.unwrap();
    });
}

#[test]
fn ports_are_taken_from_ranges_and_all_that_are_exposed_can_be_published() {
    let w = World::new();
    w.images.add(
        "shop",
        tripod_model::image::ImageConfig {
            cmd: vec!["serve".into()],
            exposed_ports: vec!["80/tcp".into(), "53/udp".into()],
            ..Default::default()
        },
    );
    w.life(async |agent| {
        let ranged = || {
            let mut spec = publish(spec(), 8000);
            spec.network.port_bindings[0].host_port_end = 8001;
            spec
        };
        let first = run(&agent, "first", ranged()).await;
        let second = run(&agent, "second", ranged()).await;
        let port = |id: &str| agent.container(id).unwrap().ports[0].host_port;
        assert_eq!((port(&first), port(&second)), (8000, 8001));
        let third = create(&agent, "third", ranged()).await.unwrap();
        let text = refused(agent.start_container(&third).await, Conflict);
        assert!(
            text.contains("driver failed programming external connectivity"),
            "{text}"
        );
        w.assert_down(&third);
        let mut all = spec();
        all.image = "shop".into();
        all.network.publish_all = true;
        let all = run(&agent, "all", all).await;
        let ports = agent.container(&all).unwrap().ports.clone();
        assert_eq!(ports.len(), 2);
        assert!(ports.iter().all(|p| p.host_port >= 32768));
    });
}
