//! Getting images: from what is here, from their registry, or from another node of the cluster that has them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tripod_model::image::{HeldImage, HeldImages, Image, ImageOffer, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result};

use crate::Agent;
use crate::ports::{BoxRead, Content, ProgressSink};

/// A registry that has not begun to answer for so long is not waited for where a node of the cluster has the image.
const SILENT: Duration = Duration::from_secs(5);
/// The step of a pull that shows that the registry has the image.
const FOUND: &str = "Pulling fs layer";

/// The images that other nodes of the cluster have.
#[async_trait]
pub trait ClusterImages: Send + Sync {
    /// An image by its name, `None` when no other node has it.
    async fn find(&self, name: &Reference) -> Result<Option<ImageOffer>>;
    /// Content of an image (by its identifier) from a byte on: bytes in all, and the rest of them.
    async fn content(&self, image: &str, digest: &str, from: u64) -> Result<(u64, BoxRead)>;
}

/// What is being fetched from other nodes.
#[derive(Default)]
pub(crate) struct Fetching {
    cluster: OnceLock<Arc<dyn ClusterImages>>,
    /// By image: one fetches it, others who need it wait.
    gates: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Fetching {
    fn gate(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(image).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::default();
        gates.insert(image.to_owned(), Arc::downgrade(&gate));
        gate
    }
}

/// The content of one image, by way of the cluster.
struct Elsewhere {
    cluster: Arc<dyn ClusterImages>,
    image: String,
}

#[async_trait]
impl Content for Elsewhere {
    async fn open(&self, digest: &str, from: u64) -> Result<(u64, BoxRead)> {
        self.cluster.content(&self.image, digest, from).await
    }
}

impl Agent {
    /// Lets pods take images from other nodes of the cluster.
    pub fn set_cluster_images(&self, cluster: Arc<dyn ClusterImages>) {
        // Set once, at start-up; a second call would be a mistake of the wiring and changes nothing.
        let _ = self.inner.fetching.cluster.set(cluster);
    }

    /// Tells which images are here, all at first and then what changed, until `tell` says that nobody listens.
    pub async fn tell_images(&self, tell: impl Fn(HeldImages) -> Result<()>) {
        use futures::StreamExt as _;
        let mut changes = self.images().events();
        let mut told = HashMap::new();
        loop {
            let now = match self.images().list().await {
                Ok(images) => images
                    .iter()
                    .map(|i| (i.id.clone(), HeldImage::from(&**i)))
                    .collect(),
                Err(e) => {
                    tracing::warn!("the cluster is not told of this node's images: {e}");
                    HashMap::new()
                }
            };
            let change = difference(&told, &now);
            told = now;
            let news = change != HeldImages::default();
            if news && tell(change).is_err() || changes.next().await.is_none() {
                return;
            }
        }
    }

    /// Makes sure that an image is here: what is pinned or loaded is taken, the rest is pulled, and what no registry
    /// has comes from a node that has it.
    pub(crate) async fn ensure_image(
        &self,
        name: &str,
        credentials: Option<RegistryAuth>,
    ) -> Result<Arc<Image>> {
        if let Ok(image) = self.images().get(name).await {
            return Ok(image);
        }
        let reference = Reference::parse(name)?;
        let pull = |progress| self.images().pull(&reference, false, None, credentials, progress);
        let pulled = self.pull_or_take_over(&reference, pull).await;
        let failure = match pulled {
            Ok(image) => return Ok(image),
            Err(e) => e,
        };
        // Pinned to a digest that nobody serves now: the tag may have been loaded.
        if reference.digest.is_some() && reference.tag.is_some() {
            let untagged = Reference {
                digest: None,
                ..reference.clone()
            };
            if let Ok(image) = self.images().get(&untagged.familiar()).await {
                return Ok(image);
            }
            if let Ok(Some(image)) = self.take_over(&untagged).await {
                return Ok(image);
            }
        }
        Err(Error::not_found(format_args!(
            "No such image: {}: {}",
            reference.familiar(),
            failure.message
        )))
    }

    /// Pulls an image; takes it over from another node when the registry does not have it, or says nothing.
    pub(crate) async fn pull_or_take_over<F>(
        &self,
        name: &Reference,
        pull: impl FnOnce(ProgressSink) -> F,
    ) -> Result<Arc<Image>>
    where
        F: Future<Output = Result<Arc<Image>>>,
    {
        let (progress, mut steps) = mpsc::unbounded_channel();
        let pulling = pull(progress);
        tokio::pin!(pulling);
        let found = async {
            while let Some(step) = steps.recv().await {
                if step.status == FOUND {
                    return;
                }
            }
            // The pull is at its end, and tells how that was.
            std::future::pending::<()>().await;
        };
        let pulled = tokio::select! {
            biased;
            pulled = &mut pulling => pulled,
            () = found => return pulling.await,
            () = tokio::time::sleep(SILENT) => match self.take_over(name).await {
                Ok(Some(image)) => return Ok(image),
                Ok(None) | Err(_) => pulling.await,
            },
        };
        let failure = match pulled {
            Ok(image) => return Ok(image),
            Err(e) => e,
        };
        match self.take_over(name).await {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err(failure),
            Err(e) => Err(Error {
                message: format!(
                    "{}; nor can it be had from another node: {}",
                    failure.message, e.message
                ),
                ..failure
            }),
        }
    }

    /// Takes an image over from a node of the cluster that has it; `None` when none has.
    pub(crate) async fn take_over(&self, name: &Reference) -> Result<Option<Arc<Image>>> {
        let Some(cluster) = self.inner.fetching.cluster.get() else {
            return Ok(None);
        };
        let Some(offer) = cluster.find(name).await? else {
            return Ok(None);
        };
        let gate = self.inner.fetching.gate(&offer.id);
        let _one = gate.lock().await;
        if let Ok(image) = self.images().get(&name.familiar()).await {
            return Ok(Some(image));
        }
        tracing::info!("{} is taken over from another node", name.familiar());
        let content = Arc::new(Elsewhere {
            cluster: cluster.clone(),
            image: offer.id.clone(),
        });
        let (progress, _) = mpsc::unbounded_channel();
        let image = self.images().take_over(&offer, name, content, progress).await?;
        Ok(Some(image))
    }
}

/// What to tell of a change.
fn difference(told: &HashMap<String, HeldImage>, now: &HashMap<String, HeldImage>) -> HeldImages {
    let mut held: Vec<HeldImage> = now
        .values()
        .filter(|image| told.get(&image.id) != Some(image))
        .cloned()
        .collect();
    held.sort_by(|a, b| a.id.cmp(&b.id));
    let mut gone: Vec<String> = told.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
    gone.sort();
    HeldImages { held, gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let image = |id: &str, name: &str| {
            let held = HeldImage {
                id: id.into(),
                names: vec![name.into()],
                ..HeldImage::default()
            };
            (id.to_owned(), held)
        };
        let before = HashMap::from([image("a", "a:1"), image("b", "b:1"), image("c", "c:1")]);
        let after = HashMap::from([image("a", "a:1"), image("b", "b:2"), image("d", "d:1")]);
        let change = difference(&before, &after);
        assert_eq!(
            change.held.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(),
            ["b", "d"]
        );
        assert_eq!(change.gone, ["c"]);
        assert_eq!(difference(&after, &after), HeldImages::default());
    }
}
