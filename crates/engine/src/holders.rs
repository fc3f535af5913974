//! Which nodes have which images: told over their sessions and known only while those last, so that nothing of it is
//! in the log. Content goes from a node that has it to one that needs it by way of the leader, who has a connection to
//! every node.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tripod_model::image::{HeldImage, HeldImages, ImageOffer};
use tripod_model::node::NodeRole;
use tripod_model::pod::Pod;
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use crate::door::{Blob, serve};
use crate::engine::Engine;
use crate::link::message::{Answer, Asker, Call, Purpose, Wanted};
use crate::link::mux::Stream;
use crate::manager::Manager;
use crate::members::{denied, no_leader};

/// Streams of content that the leader passes on at a time; more wait for their turn.
const STREAMS: usize = 32;
/// How long a node waits for its turn before it is told to come again.
const TURN: Duration = Duration::from_secs(20);

/// Images by node, and nodes by what an image may be asked for: a name, a digest of a manifest, an identifier.
pub(crate) struct Holders {
    index: Mutex<Index>,
    streams: Arc<Semaphore>,
}

impl Default for Holders {
    fn default() -> Self {
        Self {
            index: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

#[derive(Default)]
struct Index {
    by_node: HashMap<String, HashMap<String, HeldImage>>,
    by_key: HashMap<String, BTreeSet<(String, String)>>,
}

/// What an image may be asked for.
fn keys(image: &HeldImage) -> impl Iterator<Item = &String> {
    let digests = [&image.id, &image.manifest];
    image.names.iter().chain(digests).filter(|key| !key.is_empty())
}

impl Index {
    fn insert(&mut self, node: &str, image: HeldImage) {
        self.remove(node, &image.id);
        for key in keys(&image) {
            let place = (node.to_owned(), image.id.clone());
            self.by_key.entry(key.clone()).or_default().insert(place);
        }
        self.by_node
            .entry(node.to_owned())
            .or_default()
            .insert(image.id.clone(), image);
    }

    fn remove(&mut self, node: &str, id: &str) {
        let Some(image) = self.by_node.get_mut(node).and_then(|images| images.remove(id)) else {
            return;
        };
        let place = (node.to_owned(), id.to_owned());
        for key in keys(&image) {
            if let Some(places) = self.by_key.get_mut(key) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
    }

    /// The image that a key leads to (the one tagged last, where nodes differ), and who has it.
    fn find(&self, key: &str, except: &str) -> Option<(String, Vec<String>)> {
        let places = self.by_key.get(key)?.iter().filter(|(node, _)| node != except);
        let tagged =
            |(node, id): &(String, String)| -> Option<Time> { self.by_node.get(node)?.get(id)?.tagged };
        let newest = places.clone().max_by_key(|place| tagged(place))?.1.clone();
        let nodes = places
            .filter(|(_, id)| *id == newest)
            .map(|(node, _)| node.clone());
        let nodes = nodes.collect();
        Some((newest, nodes))
    }

    /// All names of an image, on whichever node.
    fn names(&self, id: &str) -> BTreeSet<String> {
        let places = self.by_key.get(id).into_iter().flatten();
        let images = places.filter_map(|(node, id)| self.by_node.get(node)?.get(id));
        images.flat_map(|image| keys(image).cloned()).collect()
    }
}

impl Holders {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        *self.index() = Index::default();
    }

    pub(crate) fn forget(&self, node: &str) {
        let mut index = self.index();
        let ids: Vec<String> = index
            .by_node
            .get(node)
            .into_iter()
            .flat_map(|i| i.keys().cloned())
            .collect();
        for id in ids {
            index.remove(node, &id);
        }
        index.by_node.remove(node);
    }

    pub(crate) fn change(&self, node: &str, change: HeldImages) {
        let mut index = self.index();
        for id in &change.gone {
            index.remove(node, id);
        }
        for image in change.held {
            index.insert(node, image);
        }
    }
}

/// The words by which a name is looked up, the best first.
fn words(name: &Reference) -> Vec<String> {
    let tagged = || Reference {
        tag: Some(name.tag.clone().unwrap_or_else(|| "latest".into())),
        digest: None,
        ..name.clone()
    };
    match &name.digest {
        Some(digest) => {
            let named = Reference {
                tag: None,
                ..name.clone()
            };
            vec![named.familiar(), digest.clone()]
        }
        None => vec![tagged().familiar()],
    }
}

/// The images that a pod wants.
fn wanted_by(pod: &Pod) -> Vec<String> {
    let mut wanted: Vec<String> = pod
        .swarm()
        .map(|t| t.template.container.image.clone())
        .into_iter()
        .collect();
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = spec.get(list).and_then(|c| c.as_array()).into_iter().flatten();
        let images = containers.filter_map(|c| c.get("image")?.as_str());
        wanted.extend(images.map(str::to_owned));
    }
    wanted
}

impl Manager {
    /// Whether a node may have what these words stand for: managers may have all, workers what their pods want.
    fn may_have(&self, asker: &Asker, sought: &BTreeSet<String>) -> bool {
        asker.role == NodeRole::Manager
            || self.with_view(|view| {
                let Some(node) = view.node_by_id(&asker.node_id) else {
                    return false;
                };
                let wanted = view
                    .pods_of_node(&node.metadata.name)
                    .flat_map(|pod| wanted_by(pod));
                let mut names = wanted.filter_map(|image| Reference::parse(&image).ok());
                names.any(|name| {
                    let untagged = Reference {
                        digest: None,
                        ..name.clone()
                    };
                    let mut all = words(&name);
                    all.extend(words(&untagged));
                    all.iter().any(|word| sought.contains(word))
                })
            })
    }

    /// What is needed to take over an image that another node has; `None` when none has it, as far as is known.
    pub(crate) async fn find_image(&self, asker: &Asker, reference: &str) -> Result<Option<ImageOffer>> {
        let name = Reference::parse(reference)?;
        let sought = words(&name);
        if !self.may_have(asker, &sought.iter().cloned().collect()) {
            return Err(denied());
        }
        let found = {
            let index = self.sessions.holders.index();
            sought.iter().find_map(|word| index.find(word, &asker.node_id))
        };
        let Some((id, nodes)) = found else {
            return Ok(None);
        };
        let mut last = None;
        for node in self.in_order(nodes) {
            match self.door_by_id(&node) {
                Ok(door) => match door.image(&id).await {
                    Ok(offer) if offer.id == id => return Ok(Some(offer)),
                    Ok(_) => {}
                    Err(e) => last = Some(e),
                },
                Err(e) => last = Some(e),
            }
        }
        last.map_or(Ok(None), Err)
    }

    /// Content of an image, from any node that has it.
    async fn content(&self, wanted: &Wanted, asker: &Asker) -> Result<Blob> {
        let (names, nodes) = {
            let index = self.sessions.holders.index();
            let nodes = index.find(&wanted.image, &asker.node_id).map(|(_, nodes)| nodes);
            (index.names(&wanted.image), nodes)
        };
        if !self.may_have(asker, &names) {
            return Err(denied());
        }
        let mut last = Error::unavailable(format_args!(
            "no node that can be reached has image {}",
            wanted.image
        ));
        for node in self.in_order(nodes.unwrap_or_default()) {
            let opened = match self.door_by_id(&node) {
                Ok(door) => door.blob(&wanted.digest, wanted.from).await,
                Err(e) => Err(e),
            };
            match opened {
                Ok(blob) => return Ok(blob),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn door_by_id(&self, node_id: &str) -> Result<Arc<dyn crate::NodeDoor>> {
        self.door(&self.node(node_id)?.metadata.name)
    }

    /// This node first, from which content takes the shortest way; the others at random, so that all have their share.
    fn in_order(&self, mut nodes: Vec<String>) -> Vec<String> {
        for i in (1..nodes.len()).rev() {
            nodes.swap(i, rand::random_range(0..=i));
        }
        nodes.sort_by_key(|node| node != self.node_id());
        nodes
    }
}

impl Engine {
    /// What is needed to take over an image that another node has, by name; `None` when none has it.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when no manager answers.
    pub async fn find_image(&self, reference: &str) -> Result<Option<ImageOffer>> {
        let call = Call::Image {
            reference: reference.to_owned(),
        };
        match self.call_leader(call).await? {
            Answer::Image(found) => Ok(found.map(|offer| *offer)),
            _ => Err(Error::internal("an answer to another question")),
        }
    }

    /// Content of an image that another node has, from a byte on.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when neither a manager nor a node that has it can be reached.
    pub async fn image_content(&self, image: &str, digest: &str, from: u64) -> Result<Blob> {
        let wanted = Wanted {
            asker: None,
            image: image.to_owned(),
            digest: digest.to_owned(),
            from,
        };
        if let Ok(manager) = self.manager()
            && manager.leads()
        {
            return manager.content(&wanted, &self.own_asker()).await;
        }
        let mut last = no_leader();
        for address in self.manager_addresses() {
            let asked = async {
                let mut stream = self
                    .link()
                    .open(&address, &Purpose::Content(Box::new(wanted.clone())))
                    .await?;
                let size = serve::expect_blob(&mut stream).await?;
                Ok::<_, Error>(Blob {
                    size,
                    data: Box::pin(stream),
                })
            };
            match asked.await {
                Ok(blob) => return Ok(blob),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Sends content to a node, from wherever it is; a manager that does not lead has the leader do it.
    pub(crate) async fn serve_content(&self, asker: Asker, mut wanted: Wanted, mut stream: Stream) {
        let Ok(manager) = self.manager() else { return };
        let asker = match wanted.asker.take() {
            Some(first) if asker.role == NodeRole::Manager => first,
            _ => asker,
        };
        if manager.leads() {
            let turn = manager.sessions.holders.streams.clone().acquire_owned();
            let found = match tokio::time::timeout(TURN, turn).await {
                Ok(Ok(_turn)) => {
                    let found = manager.content(&wanted, &asker).await;
                    return told(serve::blob(found, stream).await);
                }
                _ => Err(Error::unavailable("too many nodes fetch images now")),
            };
            return told(serve::blob(found, stream).await);
        }
        let Some(leader) = manager.leader_address() else {
            return told(serve::blob(Err(no_leader()), stream).await);
        };
        wanted.asker = Some(asker);
        match self
            .link()
            .open(&leader, &Purpose::Content(Box::new(wanted)))
            .await
        {
            Ok(mut onward) => {
                // Either side may end it; that is how such streams end.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                let _ = stream.shutdown().await;
            }
            Err(e) => told(serve::blob(Err(e), stream).await),
        }
    }
}

fn told(sent: Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "content was not sent whole");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: &str, names: &[&str], tagged: i64) -> HeldImage {
        HeldImage {
            id: id.into(),
            manifest: format!("m{id}"),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            tagged: Time::from_second(tagged).ok(),
        }
    }

    fn tell(holders: &Holders, node: &str, held: Vec<HeldImage>, gone: &[&str]) {
        let gone = gone.iter().map(|id| (*id).to_owned()).collect();
        holders.change(node, HeldImages { held, gone });
    }

    #[test]
    fn holders_follow_what_nodes_tell() {
        let holders = Holders::default();
        let find = |key: &str, except: &str| holders.index().find(key, except);
        tell(&holders, "a", vec![held("1", &["app:1"], 10)], &[]);
        tell(
            &holders,
            "b",
            vec![held("1", &["app:1"], 20), held("2", &["app:2"], 30)],
            &[],
        );
        let both = Some(("1".to_owned(), vec!["a".to_owned(), "b".to_owned()]));
        for key in ["app:1", "1", "m1"] {
            assert_eq!(find(key, "c"), both, "{key}");
        }
        assert_eq!(find("app:1", "a").unwrap().1, ["b"], "not from who asks");
        // Another image under the name: the one tagged last.
        tell(&holders, "c", vec![held("3", &["app:1"], 40)], &[]);
        assert_eq!(find("app:1", ""), Some(("3".into(), vec!["c".into()])));
        // A name moves on, an image goes, a node goes.
        tell(&holders, "c", vec![held("3", &["app:3"], 50)], &[]);
        assert_eq!(find("app:1", ""), both);
        tell(&holders, "b", Vec::new(), &["1"]);
        assert_eq!(find("app:1", "").unwrap().1, ["a"]);
        holders.forget("a");
        assert_eq!(find("app:1", ""), None);
        holders.forget("b");
        holders.forget("c");
        assert!(holders.index().by_key.is_empty() && holders.index().by_node.is_empty());
    }

    #[test]
    fn names_lead_to_words() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, want) in [
            ("app", vec!["app:latest".to_owned()]),
            ("app:1", vec!["app:1".to_owned()]),
            ("r.example/app:1", vec!["r.example/app:1".to_owned()]),
            (
                &format!("app:1@{digest}"),
                vec![format!("app@{digest}"), digest.clone()],
            ),
        ] {
            assert_eq!(words(&Reference::parse(name).unwrap()), want, "{name}");
        }
    }
}
