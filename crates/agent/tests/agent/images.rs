//! Images from other nodes of the cluster: when they are asked for, and what becomes of the task.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tripod_agent::ClusterImages;
use tripod_agent::ports::BoxRead;
use tripod_model::image::ImageOffer;
use tripod_model::pod::Pod;
use tripod_model::reference::Reference;
use tripod_model::session::Assignment;
use tripod_model::swarm::TaskState;
use tripod_model::{Error, Result};

use crate::support::*;

/// Nodes that have one image, or cannot be asked.
struct Others {
    has: Option<&'static str>,
    fails: bool,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl ClusterImages for Others {
    async fn find(&self, name: &Reference) -> Result<Option<ImageOffer>> {
        self.asked.lock().unwrap().push(name.familiar());
        if self.fails {
            return Err(Error::unavailable("nobody answers"));
        }
        let offer = || ImageOffer {
            id: "sha256:there".into(),
            ..ImageOffer::default()
        };
        Ok((self.has == Some(name.familiar().as_str())).then(offer))
    }

    async fn content(&self, _: &str, _: &str, _: u64) -> Result<(u64, BoxRead)> {
        Err(Error::internal("not asked of the double"))
    }
}

/// The last report of a task of this image, and what the other nodes were asked for.
fn outcome(image: &str, others: Others) -> (TaskState, String, Vec<String>, usize) {
    let w = World::new();
    let others = Arc::new(others);
    w.life(async |agent| {
        agent.set_cluster_images(others.clone());
        in_session(&agent, async |session| {
            let mut pod: Pod = task("t1", Some("10.0.1.7/24"));
            pod.extension.swarm.as_mut().unwrap().template.container.image = image.into();
            session.assign(Assignment {
                revision: 1,
                full: true,
                pods: vec![Arc::new(pod.clone())],
                networks: vec![overlay()],
                ..Assignment::default()
            });
            let report = tokio::select! {
                report = session.until_state(&pod, TaskState::Running) => report,
                report = session.until_state(&pod, TaskState::Rejected) => report,
            };
            let calls = w.script.calls();
            let taken = calls
                .iter()
                .filter(|c| format!("{c:?}").contains("images.take_over"))
                .count();
            let asked = others.asked.lock().unwrap().clone();
            (report.state, report.error, asked, taken)
        })
        .await
    })
}

#[test]
fn what_no_registry_has_comes_from_a_node_that_has_it() {
    let others = |has, fails| Others {
        has,
        fails,
        asked: Mutex::default(),
    };
    let (state, error, asked, taken) = outcome("there:1", others(Some("there:1"), false));
    assert_eq!((state, error.as_str()), (TaskState::Running, ""));
    assert_eq!(asked, ["there:1"]);
    assert_eq!(taken, 1);

    // Pinned, and only the name is known.
    let pinned = format!("there:1@sha256:{}", "0".repeat(64));
    let (state, _, asked, _) = outcome(&pinned, others(Some("there:1"), false));
    assert_eq!((state, asked.len()), (TaskState::Running, 2));

    let (state, error, ..) = outcome("nowhere:1", others(None, false));
    assert_eq!(
        (state, error.as_str()),
        (
            TaskState::Rejected,
            "No such image: nowhere:1: pull access denied"
        )
    );
    let (state, error, ..) = outcome("nowhere:1", others(None, true));
    assert_eq!(state, TaskState::Rejected);
    assert_eq!(
        error,
        "No such image: nowhere:1: pull access denied; nor can it be had from another node: nobody answers"
    );
}
