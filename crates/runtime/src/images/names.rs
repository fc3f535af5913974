//! Names come and go: tag, remove, prune, with Docker's rules and words.

use tripod_agent::ports::Removed;
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::digest::{self, short};
use super::index::{Index, has_digest};
use super::store::{Store, full_name};

/// Gives an image a further name.
pub(crate) fn tag(store: &Store, image: &str, name: &Reference, now: Time) -> Result<()> {
    if name.digest.is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    let id = store.get(image)?.id.clone();
    store.update(|i| {
        i.names.insert(name.to_string(), id.clone());
        if let Some(record) = i.images.get_mut(&id) {
            record.tagged = Some(now);
        }
        Ok(())
    })?;
    store.tell("tag", &id, &name.familiar());
    Ok(())
}

/// Who uses an image.
struct Holder {
    container: Option<String>,
    running: bool,
}

/// Takes a name, or an image with all its names, away.
pub(crate) fn remove(
    store: &Store,
    name: &str,
    force: bool,
    prune_parents: bool,
    in_use: &[String],
) -> Result<Vec<Removed>> {
    let id = store.get(name)?.id.clone();
    let holder = holder(store, &id, in_use);
    let mut events = Vec::new();
    let removed = store.update(|index| {
        let mut work = Removal {
            index,
            id: id.clone(),
            removed: Vec::new(),
            events: Vec::new(),
        };
        let by_name = work.name_given(name);
        let untagged_last = match by_name {
            Some(given) => work.remove_name(&given, force, holder.as_ref())?,
            None => {
                work.remove_by_id(force, holder.as_ref())?;
                Some(false)
            }
        };
        if let Some(quiet) = untagged_last {
            work.delete(force, quiet, prune_parents, holder.as_ref())?;
        }
        events = std::mem::take(&mut work.events);
        Ok(work.removed)
    })?;
    for (action, id, name) in events {
        store.tell(action, &id, &name);
    }
    store.sweep()?;
    Ok(removed)
}

fn holder(store: &Store, id: &str, in_use: &[String]) -> Option<Holder> {
    let own = store.snapshots.user_of(id);
    if let Some((container, running)) = own
        && in_use.iter().any(|held| held == id || *held == container)
    {
        return Some(Holder {
            container: Some(container),
            running,
        });
    }
    in_use.iter().any(|held| held == id).then_some(Holder {
        container: None,
        running: false,
    })
}

/// Removes images with all their names, as `docker image prune` does: the caller has chosen those not in use.
/// Gives what went and the bytes of the layers that nothing else has.
pub(crate) fn prune(store: &Store, image_ids: &[String]) -> Result<(Vec<Removed>, u64)> {
    let before: u64 = store.read(|i| i.layers.values().map(|l| l.size).sum());
    let mut removed = Vec::new();
    let mut events = Vec::new();
    store.update(|index| {
        for id in image_ids {
            if !index.images.contains_key(id) || store.snapshots.uses(id) {
                continue;
            }
            let mut work = Removal {
                index,
                id: id.clone(),
                removed: Vec::new(),
                events: Vec::new(),
            };
            work.untag_all();
            work.forget();
            removed.append(&mut work.removed);
            events.append(&mut work.events);
        }
        Ok(())
    })?;
    for (action, id, name) in events {
        store.tell(action, &id, &name);
    }
    store.sweep()?;
    let after: u64 = store.read(|i| i.layers.values().map(|l| l.size).sum());
    Ok((removed, before.saturating_sub(after)))
}

struct Removal<'a> {
    index: &'a mut Index,
    id: String,
    removed: Vec<Removed>,
    events: Vec<(&'static str, String, String)>,
}

impl Removal<'_> {
    /// The full name that the caller gave, unless it was an identifier.
    fn name_given(&self, name: &str) -> Option<String> {
        let full = full_name(&Reference::parse(name).ok()?);
        (self.index.names.get(&full) == Some(&self.id)).then_some(full)
    }

    fn names(&self) -> Vec<String> {
        self.index.names_of(&self.id).map(str::to_owned).collect()
    }

    /// One tag at most, and every digest in that one repository.
    fn is_single(&self) -> bool {
        let names = self.names();
        let tags: Vec<_> = names.iter().filter(|n| !has_digest(n)).collect();
        let mut repositories: Vec<_> = names.iter().map(|n| repository(n)).collect();
        repositories.dedup();
        names.len() <= 1 || (tags.len() <= 1 && repositories.len() == 1)
    }

    fn untag(&mut self, full: &str) {
        self.index.names.remove(full);
        let familiar = familiar(full);
        self.events.push(("untag", self.id.clone(), familiar.clone()));
        self.removed.push(Removed::Untagged(familiar));
    }

    fn untag_all(&mut self) {
        for name in self.names() {
            self.untag(&name);
        }
    }

    /// Takes a name away. `None` when others remain; else whether conflicts are to be passed over in silence.
    fn remove_name(&mut self, given: &str, force: bool, holder: Option<&Holder>) -> Result<Option<bool>> {
        if !force
            && self.is_single()
            && let Some(holder) = holder
        {
            let user = holder
                .container
                .as_deref()
                .map_or_else(String::new, |c| format!("container {} ", short(c)));
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference {:?} (must force) - {user}is using its referenced image {}",
                familiar(given),
                short(&self.id)
            )));
        }
        self.untag(given);
        if !has_digest(given) {
            let rest: Vec<_> = self
                .names()
                .into_iter()
                .filter(|n| repository(n) == repository(given))
                .collect();
            // Digests of a repository stay only as long as one of its tags does.
            if rest.iter().all(|n| has_digest(n)) {
                for name in rest {
                    self.untag(&name);
                }
            }
        }
        Ok(if self.names().is_empty() { Some(true) } else { None })
    }

    fn remove_by_id(&mut self, force: bool, holder: Option<&Holder>) -> Result<()> {
        if !self.is_single() && !force {
            return Err(self.conflict("must be forced", "image is referenced in multiple repositories"));
        }
        self.check(force, holder)?;
        self.untag_all();
        Ok(())
    }

    fn conflict(&self, how: &str, why: &str) -> Error {
        Error::conflict(format!(
            "conflict: unable to delete {} ({how}) - {why}",
            short(&self.id)
        ))
    }

    /// Whether something needs the image.
    fn check(&self, force: bool, holder: Option<&Holder>) -> Result<()> {
        if self
            .index
            .images
            .values()
            .any(|r| r.parent.as_deref() == Some(&*self.id))
        {
            return Err(self.conflict("cannot be forced", "image has dependent child images"));
        }
        let Some(holder) = holder else { return Ok(()) };
        let (state, how) = if holder.running {
            ("running", "cannot be forced")
        } else {
            ("stopped", "must be forced")
        };
        if holder.running || !force {
            let name = holder.container.as_deref().map(short).unwrap_or_default();
            let why = format!("image is being used by {state} container {name}");
            return Err(self.conflict(how, why.trim_end()));
        }
        Ok(())
    }

    fn delete(
        &mut self,
        force: bool,
        quiet: bool,
        prune_parents: bool,
        holder: Option<&Holder>,
    ) -> Result<()> {
        if let Err(conflict) = self.check(force, holder) {
            return if quiet { Ok(()) } else { Err(conflict) };
        }
        let parent = self.index.images.get(&self.id).and_then(|r| r.parent.clone());
        self.untag_all();
        self.forget();
        if let Some(parent) = parent.filter(|_| prune_parents)
            && self.index.images.contains_key(&parent)
            && self.index.names_of(&parent).next().is_none()
        {
            self.id = parent;
            return self.delete(false, true, true, None);
        }
        Ok(())
    }

    /// Forgets the image. Containers may still stand on its layers; the sweep that follows finds out.
    fn forget(&mut self) {
        let Some(record) = self.index.images.remove(&self.id) else {
            return;
        };
        self.removed.push(Removed::Deleted(self.id.clone()));
        self.events.push(("delete", self.id.clone(), self.id.clone()));
        let live = self.index.live_layers();
        let chain = chain_ids(&record.diff_ids);
        let gone = record
            .diff_ids
            .iter()
            .zip(chain)
            .rev()
            .filter(|(diff_id, _)| !live.contains(diff_id.as_str()));
        self.removed
            .extend(gone.map(|(_, chain)| Removed::Deleted(chain)));
        self.index.orphans.insert(self.id.clone(), record.diff_ids);
    }
}

/// Identifiers of the stacks of layers (OCI image spec, `ChainID`).
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match out.last() {
            None => diff_id.clone(),
            Some(below) => digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        out.push(next);
    }
    out
}

fn familiar(full: &str) -> String {
    full.parse::<Reference>()
        .map_or_else(|_| full.to_owned(), |r| r.familiar())
}

/// `domain/path` of a full name.
pub(crate) fn repository(full: &str) -> String {
    full.parse::<Reference>()
        .map_or_else(|_| full.to_owned(), |r| format!("{}/{}", r.domain, r.path))
}
