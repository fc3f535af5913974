//! Volumes that are images: their files as the image has them, for reading.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tripod_model::k8s_openapi::api::core::v1::Container;

use super::actions::{StartOrder, Waits};
use super::desc::{Desc, Role};
use crate::Agent;

/// What the snapshots of a pod's image volumes are called: no identifier of a container.
pub(crate) fn snapshot(uid: &str, volume: &str) -> String {
    format!("volume-{uid}-{volume}")
}

impl Agent {
    /// Makes the images ready that a container mounts; where their files are, by name of the volume.
    pub(super) async fn image_volumes(
        &self,
        order: &StartOrder,
        c: &Desc,
    ) -> Result<BTreeMap<String, PathBuf>, Waits> {
        let mut paths = BTreeMap::new();
        for volume in order.desc.spec.volumes.iter().flatten() {
            let mut mounts = c.container.volume_mounts.iter().flatten();
            let Some(source) = volume.image.as_ref() else {
                continue;
            };
            if !mounts.any(|m| m.name == volume.name) {
                continue;
            }
            // Pulled as the image of a container is, and told of as that.
            let wanted = Desc {
                role: Role::Regular,
                container: Container {
                    name: c.name().to_owned(),
                    image: source.reference.clone(),
                    image_pull_policy: source.pull_policy.clone(),
                    ..Container::default()
                },
                ext: Default::default(),
                target: None,
            };
            let image = self
                .pod_image(&order.desc, &wanted, &order.inputs, &order.notify)
                .await?;
            let uid = order.desc.uid();
            let name = snapshot(uid, &volume.name);
            let made = async {
                // Remembered first, so that it is found when the pod goes.
                std::fs::create_dir_all(self.pod_dir(uid).join("images").join(&volume.name))?;
                self.images().prepare(&name, &image.id).await?;
                self.images().mount(&name).await
            };
            let root = made.await.map_err(|e: tripod_model::Error| {
                let text = format!("failed to mount image volume \"{}\": {}", volume.name, e.message);
                order.notify.warn(c, "Failed", &format!("Error: {text}"));
                Waits::image("ImageVolumeMountFailed", text)
            })?;
            paths.insert(volume.name.clone(), root.path);
        }
        Ok(paths)
    }

    /// Lets the images go that a pod mounted.
    pub(super) async fn drop_image_volumes(&self, uid: &str) {
        for entry in std::fs::read_dir(self.pod_dir(uid).join("images"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = snapshot(uid, &entry.file_name().to_string_lossy());
            let gone = match self.images().unmount(&name).await {
                Ok(()) => self.images().discard(&name).await,
                error => error,
            };
            if let Err(e) = gone {
                tracing::warn!("{name} stays: {e}");
            }
        }
    }
}
