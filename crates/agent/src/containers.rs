//! Making containers, finding them, and their records.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tripod_model::container::{ContainerSpec, ContainerState};
use tripod_model::image::Image;
use tripod_model::network::Endpoint;
use tripod_model::{Error, Result, Time};

use crate::record::{ContainerRecord, Owner};
use crate::store::Table;
use crate::table::Container;
use crate::{Agent, merge, names};

/// What is needed to make a container.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// Name of the user's; one is made up when there is none.
    pub name: Option<String>,
    /// What to run; the image's configuration is merged in.
    pub spec: ContainerSpec,
    /// Who wants it.
    pub owner: Owner,
    /// Places in cluster networks, with addresses settled by the leader.
    pub endpoints: Vec<Endpoint>,
    /// The image, when the caller has looked it up already.
    pub image: Option<Arc<Image>>,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// 64 hex digits.
    pub id: String,
    /// What will not be honoured.
    pub warnings: Vec<String>,
}

impl Agent {
    /// Makes a container without starting it. Errors: no such image, name in use, a bad mount, an unknown network.
    pub async fn create_container(&self, request: CreateContainer) -> Result<Created> {
        let CreateContainer {
            name,
            mut spec,
            owner,
            endpoints,
            image,
        } = request;
        let image = match image {
            Some(image) => image,
            None => self.images().get(&spec.image).await?,
        };
        merge::with_image(&mut spec, &image)?;
        if spec.entrypoint.is_empty() && spec.command.is_empty() {
            return Err(Error::invalid("no command specified"));
        }
        let id = names::new_id();
        self.fill_defaults(&mut spec, &id)?;
        if !spec.storage_opt.is_empty() {
            return Err(Error::invalid(
                "--storage-opt is not supported: the writable layers of containers have no quota on this node",
            )
            .at("HostConfig.StorageOpt"));
        }
        let name = match name.filter(|n| !n.is_empty()) {
            Some(name) => names::check(&name)?.to_owned(),
            None => names::generate(|n| self.inner.table.is_taken(n)),
        };
        self.inner.table.reserve(&name, &id)?;
        let made = self
            .make_container(&id, &name, spec, owner, endpoints, image.manifest.clone())
            .await;
        if made.is_err() {
            self.inner.table.release(&name, &id);
        }
        made
    }

    async fn make_container(
        &self,
        id: &str,
        name: &str,
        mut spec: ContainerSpec,
        owner: Owner,
        endpoints: Vec<Endpoint>,
        manifest: Option<tripod_model::image::Descriptor>,
    ) -> Result<Created> {
        let endpoints = match endpoints.is_empty() {
            true => self.plan_endpoints(&mut spec).await?,
            false => endpoints,
        };
        self.resolve_volumes_from(&mut spec)?;
        // For the tag of log lines.
        spec.annotations
            .insert("tripod.dev/container-name".into(), name.to_owned());
        let dir = self.options().root.join("containers").join(id);
        std::fs::create_dir_all(&dir)?;
        let undo = |e: Error| {
            let _ = std::fs::remove_dir_all(&dir);
            e
        };
        let mounts = self.settle_mounts(id, &mut spec).await.map_err(undo)?;
        if let Err(e) = self.images().prepare(id, &spec.image_id).await {
            self.remove_anonymous(&mounts).await;
            return Err(undo(e));
        }
        let record = ContainerRecord {
            id: id.to_owned(),
            name: name.to_owned(),
            created: Time::now(),
            spec: Arc::new(spec),
            manifest,
            owner,
            state: ContainerState::default(),
            run: 0,
            wanted: false,
            resume: false,
            endpoints,
            ports: Vec::new(),
            mounts,
            dir: dir.to_string_lossy().into_owned(),
            warnings: Vec::new(),
        };
        if let Err(e) = self.fill_volumes(&record).await {
            self.discard_container_files(&record).await;
            return Err(e);
        }
        self.inner.store.put(Table::Containers, id, &record).await?;
        let record = Arc::new(record);
        self.inner
            .table
            .insert(Arc::new(Container::new((*record).clone())));
        self.container_event(&record, "create", &[]);
        Ok(Created {
            id: id.to_owned(),
            warnings: Vec::new(),
        })
    }

    fn fill_defaults(&self, spec: &mut ContainerSpec, id: &str) -> Result<()> {
        if spec.hostname.is_empty() {
            use tripod_model::container::NamespaceMode;
            let of_host = spec.network.mode == "host" || spec.security.uts == NamespaceMode::Host;
            spec.hostname = if of_host {
                self.options().hostname.clone()
            } else {
                tripod_model::id::short(id).to_owned()
            };
        }
        if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
            return Err(Error::invalid(format_args!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                spec.working_dir
            ))
            .at("WorkingDir"));
        }
        Ok(())
    }

    /// The container that a name, identifier or prefix leads to.
    pub fn container(&self, reference: &str) -> Result<Arc<ContainerRecord>> {
        Ok(self.inner.table.find(reference)?.get())
    }

    /// All containers, in the order of their identifiers.
    pub fn containers(&self) -> Vec<Arc<ContainerRecord>> {
        self.inner.table.all().iter().map(|c| c.get()).collect()
    }

    /// The container's record and every later one; the channel closes when it is removed.
    pub fn watch_container(&self, reference: &str) -> Result<watch::Receiver<Arc<ContainerRecord>>> {
        Ok(self.inner.table.find(reference)?.record.subscribe())
    }

    /// Gives a container another name.
    pub async fn rename_container(&self, reference: &str, name: &str) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let new = names::check(name)?.to_owned();
        let old = container.get();
        if old.name == new {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.inner.table.reserve(&new, &old.id)?;
        let record = container.modify(|r| {
            r.name.clone_from(&new);
            for name in r.endpoints.iter_mut().flat_map(|e| &mut e.names) {
                if *name == old.name {
                    name.clone_from(&new);
                }
            }
        });
        self.inner.table.release(&old.name, &old.id);
        self.inner
            .store
            .put(Table::Containers, &record.id, &*record)
            .await?;
        self.refresh_names(&record).await?;
        self.container_event(&record, "rename", &[("oldName", format!("/{}", old.name))]);
        Ok(())
    }

    /// Publishes an event of a container, with its name, image and labels.
    pub(crate) fn container_event(&self, record: &ContainerRecord, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> = record.spec.labels.clone();
        attributes.insert("name".into(), record.name.clone());
        attributes.insert("image".into(), record.spec.image.clone());
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.inner
            .events
            .emit("container", action, &record.id, attributes);
    }

    /// Stores a record that can be found out again (running state).
    pub(crate) fn save_soon(&self, record: &ContainerRecord) {
        self.inner.store.put_soon(Table::Containers, &record.id, record);
    }
}
