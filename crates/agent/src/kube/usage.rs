//! What pods take of their node's disk, and what is more than they may.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tripod_model::k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use tripod_model::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::desc::{Desc, PodDesc, Role};
use super::quantity::units;
use super::status::Verdict;
use super::track::Note;
use super::worker::Worker;
use crate::record::Owner;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);

/// Bytes that a pod takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Its emptyDir volumes on disk, by name.
    pub volumes: BTreeMap<String, u64>,
    /// Writable layers and logs of its containers, by name.
    pub containers: BTreeMap<String, u64>,
}

fn on_disk(desc: &PodDesc) -> impl Iterator<Item = (&str, &EmptyDirVolumeSource)> {
    let volumes = desc.spec.volumes.iter().flatten();
    volumes
        .filter_map(|v| Some((v.name.as_str(), v.empty_dir.as_ref()?)))
        .filter(|(_, e)| e.medium.as_deref().unwrap_or_default().is_empty())
}

fn limit(c: &Desc) -> Option<&Quantity> {
    let limits = c.container.resources.as_ref()?.limits.as_ref()?;
    limits.get("ephemeral-storage")
}

/// Whether there is anything that a pod could take too much of.
fn is_limited(desc: &PodDesc) -> bool {
    on_disk(desc).any(|(_, e)| e.size_limit.is_some()) || desc.containers.iter().any(|c| limit(c).is_some())
}

/// What a pod takes too much of, in the kubelet's words.
pub(super) fn excess(desc: &PodDesc, usage: &Usage) -> Option<String> {
    let bytes = |q: &Quantity| units(q).and_then(|n| u64::try_from(n).ok());
    for (name, volume) in on_disk(desc) {
        let used = usage.volumes.get(name).copied().unwrap_or(0);
        if let Some(limit) = &volume.size_limit
            && bytes(limit).is_some_and(|most| most > 0 && used > most)
        {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ",
                limit.0
            ));
        }
    }
    for c in desc.containers.iter().filter(|c| c.role != Role::Ephemeral) {
        let used = usage.containers.get(c.name()).copied().unwrap_or(0);
        if let Some(limit) = limit(c)
            && bytes(limit).is_some_and(|most| used > most)
        {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                c.name(),
                limit.0
            ));
        }
    }
    let regular: Vec<_> = desc.of_role(Role::Regular).map(limit).collect();
    let total: Option<u64> = regular.iter().map(|l| l.and_then(bytes)).sum();
    let used: u64 = usage.volumes.values().chain(usage.containers.values()).sum();
    total.filter(|most| used > *most).map(|most| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {most}. ")
    })
}

/// Bytes of a tree, links not followed.
fn size(path: &Path) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|e| size(&e.path())).sum::<u64>()
}

impl Worker {
    /// Looks now and then what the pod takes, where that has a limit.
    pub(super) fn watch_usage(&self) {
        if !is_limited(&self.desc) {
            return;
        }
        let (agent, desc, halt) = (self.agent.clone(), self.desc.clone(), self.halt.clone());
        let notes = self.notify.0.clone();
        tokio::spawn(async move {
            // The kernel tells nobody how a tree of files grows: it is looked at.
            while halt
                .run_until_cancelled(tokio::time::sleep(PERIOD))
                .await
                .is_some()
            {
                let usage = agent.pod_usage(&desc).await;
                if notes.send(Note::Used(usage)).is_err() {
                    return;
                }
            }
        });
    }

    /// A pod that takes too much goes at once.
    pub(super) fn used(&mut self, usage: &Usage) {
        if self.verdict.is_some() || self.over {
            return;
        }
        let Some(message) = excess(&self.desc, usage) else {
            return;
        };
        self.notify.warn_pod("Evicted", &message);
        self.verdict = Some(Verdict {
            reason: Verdict::EVICTED.into(),
            message,
        });
    }
}

impl crate::Agent {
    async fn pod_usage(&self, desc: &PodDesc) -> Usage {
        let volumes = self.pod_dir(desc.uid()).join("volumes");
        let dirs: Vec<(String, PathBuf)> = on_disk(desc)
            .map(|(name, _)| (name.to_owned(), volumes.join(name)))
            .collect();
        let logs = self.options().root.join("containers");
        let mut usage = Usage::default();
        let mut own = Vec::new();
        for record in self.containers() {
            let Owner::Pod { uid, container, .. } = &record.owner else {
                continue;
            };
            if uid == desc.uid() {
                let (layer, _) = self.images().container_size(&record.id).await.unwrap_or_default();
                *usage.containers.entry(container.clone()).or_default() += layer;
                own.push((container.clone(), logs.join(&record.id)));
            }
        }
        let looked = tokio::task::spawn_blocking(move || {
            for (name, dir) in dirs {
                usage.volumes.insert(name, size(&dir));
            }
            for (container, dir) in own {
                *usage.containers.entry(container).or_default() += size(&dir);
            }
            usage
        });
        looked.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desc::tests::pod;
    use super::*;

    #[test]
    fn too_much_is_told() {
        let desc = pod(
            json!({
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2Ki"}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
                "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "4Ki"}}}],
            }),
            json!({}),
        );
        assert!(is_limited(&desc));
        for (volume, container, want) in [
            (2048, 2048, ""),
            (
                2049,
                0,
                "Usage of EmptyDir volume \"v\" exceeds the limit \"2Ki\". ",
            ),
            (
                0,
                4097,
                "Container a exceeded its local ephemeral storage limit \"4Ki\". ",
            ),
            (
                2000,
                4000,
                "Pod ephemeral local storage usage exceeds the total limit of containers 4096. ",
            ),
        ] {
            let usage = Usage {
                volumes: [("v".to_owned(), volume)].into(),
                containers: [("a".to_owned(), container)].into(),
            };
            assert_eq!(excess(&desc, &usage).unwrap_or_default(), want);
        }
    }
}
