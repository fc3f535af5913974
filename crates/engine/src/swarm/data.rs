//! Secrets and configs: both are named bytes that cannot be changed but for their labels.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tripod_model::data::{ConfigMap, SWARM_DATA_KEY, Secret, SwarmData};
use tripod_model::object::NAME_ANNOTATION;
use tripod_model::swarm::NAMESPACE;
use tripod_model::{Error, Result, Time};
use tripod_raft::RaftError;
use tripod_store::{Txn, TxnError};

use super::filters::Filters;
use super::find::find;
use super::services::{Used, users};
use crate::db::{CONFIG_NAMES, SECRET_NAMES, Snapshot, Stored, TypedTxn, stored, to_error};
use crate::manager::Manager;
use crate::new_id;
use crate::swarm::cluster::meta;

/// What the two kinds differ in.
trait Data: Stored {
    const WHAT: &'static str;
    const NAMES: &'static str;
    /// Bytes from which on it is too large.
    const LIMIT: usize;
    fn new(name: &str, swarm: SwarmData, data: &[u8]) -> Self;
    fn swarm_mut(&mut self) -> &mut SwarmData;
    fn swarm(&self) -> Option<&SwarmData>;
    fn used_in(used: &Used) -> &std::collections::BTreeSet<String>;
    fn parent_name(&self) -> &str {
        self.meta().display_name()
    }
}

impl Data for Secret {
    const WHAT: &'static str = "secret";
    const NAMES: &'static str = SECRET_NAMES;
    const LIMIT: usize = 500 * 1024;
    fn new(name: &str, swarm: SwarmData, data: &[u8]) -> Self {
        let metadata = named(name);
        let data = BTreeMap::from([(SWARM_DATA_KEY.to_owned(), STANDARD.encode(data))]);
        Self {
            metadata,
            type_: "Opaque".into(),
            data,
            immutable: Some(true),
            swarm: Some(swarm),
        }
    }
    fn swarm_mut(&mut self) -> &mut SwarmData {
        self.swarm.get_or_insert_default()
    }
    fn swarm(&self) -> Option<&SwarmData> {
        self.swarm.as_ref()
    }
    fn used_in(used: &Used) -> &std::collections::BTreeSet<String> {
        &used.secrets
    }
}

impl Data for ConfigMap {
    const WHAT: &'static str = "config";
    const NAMES: &'static str = CONFIG_NAMES;
    const LIMIT: usize = 1000 * 1024;
    fn new(name: &str, swarm: SwarmData, data: &[u8]) -> Self {
        let binary_data = BTreeMap::from([(SWARM_DATA_KEY.to_owned(), STANDARD.encode(data))]);
        Self {
            metadata: named(name),
            data: BTreeMap::new(),
            binary_data,
            immutable: Some(true),
            swarm: Some(swarm),
        }
    }
    fn swarm_mut(&mut self) -> &mut SwarmData {
        self.swarm.get_or_insert_default()
    }
    fn swarm(&self) -> Option<&SwarmData> {
        self.swarm.as_ref()
    }
    fn used_in(used: &Used) -> &std::collections::BTreeSet<String> {
        &used.configs
    }
}

fn named(name: &str) -> tripod_model::object::ObjectMeta {
    let mut metadata = meta(new_id(), Time::now());
    metadata.namespace = NAMESPACE.into();
    metadata
        .annotations
        .insert(NAME_ANNOTATION.into(), name.to_owned());
    metadata
}

/// The bytes of a secret of Swarm's; empty when they are an external driver's.
pub(crate) fn secret_bytes(secret: &Secret) -> Vec<u8> {
    decode(secret.data.get(SWARM_DATA_KEY))
}

/// The bytes of a config of Swarm's.
pub(crate) fn config_bytes(config: &ConfigMap) -> Vec<u8> {
    decode(config.binary_data.get(SWARM_DATA_KEY))
}

fn decode(text: Option<&String>) -> Vec<u8> {
    text.and_then(|t| STANDARD.decode(t).ok()).unwrap_or_default()
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("name must be provided"));
    }
    let word = |c: u8| c.is_ascii_alphanumeric();
    let bytes = name.as_bytes();
    let fits = (1..=64).contains(&bytes.len())
        && bytes.iter().all(|&c| word(c) || matches!(c, b'-' | b'_' | b'.'))
        && bytes.first().is_some_and(|&c| word(c))
        && bytes.last().is_some_and(|&c| word(c));
    if fits {
        return Ok(());
    }
    Err(Error::invalid(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    ))
}

impl Manager {
    /// Creates a secret and returns it.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for names and sizes, [`tripod_model::ErrorKind::AlreadyExists`].
    pub async fn secret_create(&self, name: &str, swarm: SwarmData, data: &[u8]) -> Result<Secret> {
        self.data_create(name, swarm, data).await
    }

    /// Creates a config and returns it.
    ///
    /// # Errors
    /// As [`Manager::secret_create`].
    pub async fn config_create(&self, name: &str, swarm: SwarmData, data: &[u8]) -> Result<ConfigMap> {
        self.data_create(name, swarm, data).await
    }

    /// A secret by identifier, name or beginning of the identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
    pub fn secret(&self, id: &str) -> Result<Secret> {
        self.data_get(id)
    }

    /// A config by identifier, name or beginning of the identifier.
    ///
    /// # Errors
    /// As [`Manager::secret`].
    pub fn config(&self, id: &str) -> Result<ConfigMap> {
        self.data_get(id)
    }

    /// Secrets. Filters: `id`, `name`, `names`, `label`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for other filters.
    pub fn secrets(&self, filters: &Filters) -> Result<Vec<Secret>> {
        self.data_list(filters)
    }

    /// Configs. Filters: `id`, `name`, `names`, `label`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for other filters.
    pub fn configs(&self, filters: &Filters) -> Result<Vec<ConfigMap>> {
        self.data_list(filters)
    }

    /// Changes a secret's labels; name and (if given) bytes must be what they are.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::OutOfSequence`] unless it is at `version`.
    pub async fn secret_update(
        &self,
        id: &str,
        version: u64,
        name: &str,
        swarm: SwarmData,
        data: Option<&[u8]>,
    ) -> Result<Secret> {
        let secret: Secret = self.data_get(id)?;
        let same = data.is_none_or(|d| d.is_empty() || d == secret_bytes(&secret));
        self.data_update(secret, version, name, swarm, same).await
    }

    /// Changes a config's labels; name and (if given) bytes must be what they are.
    ///
    /// # Errors
    /// As [`Manager::secret_update`].
    pub async fn config_update(
        &self,
        id: &str,
        version: u64,
        name: &str,
        swarm: SwarmData,
        data: Option<&[u8]>,
    ) -> Result<ConfigMap> {
        let config: ConfigMap = self.data_get(id)?;
        let same = data.is_none_or(|d| d.is_empty() || d == config_bytes(&config));
        self.data_update(config, version, name, swarm, same).await
    }

    /// Removes a secret that no service uses.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`]; [`tripod_model::ErrorKind::Invalid`] when it is in use.
    pub async fn secret_remove(&self, id: &str) -> Result<()> {
        self.data_remove::<Secret>(id).await
    }

    /// Removes a config that no service uses.
    ///
    /// # Errors
    /// As [`Manager::secret_remove`].
    pub async fn config_remove(&self, id: &str) -> Result<()> {
        self.data_remove::<ConfigMap>(id).await
    }

    async fn data_create<D: Data>(&self, name: &str, mut swarm: SwarmData, data: &[u8]) -> Result<D> {
        check_name(name)?;
        if !swarm.driver.is_empty() {
            return Err(Error::not_implemented(
                "external secret drivers are not implemented",
            ));
        }
        if !matches!(swarm.templating.as_str(), "" | "golang") {
            let text = format!("unsupported templating driver: {}", swarm.templating);
            return Err(Error::invalid(text));
        }
        if data.is_empty() || data.len() > D::LIMIT {
            let (what, limit) = (D::WHAT, D::LIMIT);
            let text = format!("{what} data must be larger than 0 and less than {limit} bytes");
            return Err(Error::invalid(text));
        }
        swarm.updated_at = Some(Time::now());
        let object = D::new(name, swarm, data);
        match self.db().try_submit(Txn::new().insert(&object)).await {
            Ok(ok) => stored(ok),
            Err(RaftError::Rejected(TxnError::UniqueTaken { .. })) => Err(Error::already_exists(
                format_args!("{} {name} already exists", D::WHAT),
            )),
            Err(e) => Err(to_error(e)),
        }
    }

    fn data_get<D: Data>(&self, id: &str) -> Result<D> {
        let found: D = find(&self.db().snapshot(), NAMESPACE, D::NAMES, D::WHAT, id)?;
        match found.swarm() {
            Some(_) => Ok(found),
            None => Err(Error::not_found(format_args!("{} {id} not found", D::WHAT))),
        }
    }

    fn data_list<D: Data>(&self, filters: &Filters) -> Result<Vec<D>> {
        filters.known(&["id", "name", "names", "label"])?;
        let mut all = self.db().snapshot().list::<D>(Some(NAMESPACE))?;
        all.retain(|d| {
            d.swarm().is_some_and(|swarm| {
                filters.prefix("id", &d.meta().name)
                    && filters.prefix("name", d.parent_name())
                    && filters.any("names", |n| n == d.parent_name())
                    && filters.labels("label", &swarm.labels)
            })
        });
        Ok(all)
    }

    async fn data_update<D: Data>(
        &self,
        mut object: D,
        version: u64,
        name: &str,
        swarm: SwarmData,
        same_bytes: bool,
    ) -> Result<D> {
        if object.meta().revision() != version {
            return Err(Error::out_of_sequence("update out of sequence"));
        }
        let same_templating = object.swarm().is_some_and(|s| s.templating == swarm.templating);
        if object.parent_name() != name || !same_bytes || !same_templating {
            return Err(Error::invalid("only updates to Labels are allowed"));
        }
        let kept = object.swarm_mut();
        kept.labels = swarm.labels;
        kept.updated_at = Some(Time::now());
        self.db().update(&object).await
    }

    async fn data_remove<D: Data>(&self, id: &str) -> Result<()> {
        // No service may begin to use it between the look and the removal.
        let _one = self.references().write().await;
        let state: Snapshot = self.db().snapshot();
        let object: D = self.data_get(id)?;
        let users = users(&state, |used| D::used_in(used).contains(&object.meta().name))?;
        if !users.is_empty() {
            let services: Vec<&str> = users.keys().map(String::as_str).collect();
            let word = if services.len() == 1 {
                "service"
            } else {
                "services"
            };
            let text = format!(
                "{} '{}' is in use by the following {word}: {}",
                D::WHAT,
                object.parent_name(),
                services.join(", ")
            );
            return Err(Error::invalid(text));
        }
        match self.db().try_submit(Txn::new().remove(&object)).await {
            Ok(_) => Ok(()),
            Err(RaftError::Rejected(TxnError::Conflict { actual: None, .. })) => {
                Err(Error::not_found(format_args!("{} {id} not found", D::WHAT)))
            }
            Err(e) => Err(to_error(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a.b-c_d", "9", &"x".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
