//! A call of an operation: who calls, from where, and what every handler needs.

use std::sync::Arc;

use tripod_engine::{Db, Manager, Snapshot, Stored};
use tripod_model::Time;

use crate::door::Settings;
use crate::fault::Fault;

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) arn: String,
    /// `AIDA…`, or `AROA…:session`.
    pub(crate) id: String,
    /// Name of the user, when it is one.
    pub(crate) user: Option<String>,
    /// Access key.
    pub(crate) key: String,
}

/// A call. Clones are the same.
#[derive(Clone)]
pub(crate) struct Call(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) manager: Arc<Manager>,
    pub(crate) settings: Settings,
    pub(crate) region: String,
    pub(crate) principal: Principal,
    pub(crate) operation: String,
    pub(crate) service: String,
    /// Address from which the call comes.
    pub(crate) source: Option<std::net::IpAddr>,
}

impl std::ops::Deref for Call {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Call {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn db(&self) -> &Db {
        self.manager.db()
    }

    pub(crate) fn state(&self) -> Snapshot {
        self.db().snapshot()
    }

    pub(crate) fn now(&self) -> Time {
        Time::now()
    }

    pub(crate) fn account(&self) -> &str {
        &self.settings.account
    }

    /// `arn:aws:SERVICE:REGION:ACCOUNT:REST`.
    pub(crate) fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.account())
    }

    /// Changes an object.
    pub(crate) async fn edit<K: Stored, T>(
        &self,
        namespace: &str,
        name: &str,
        missing: impl Fn() -> Fault,
        change: impl Fn(&mut K) -> Result<T, Fault> + Send + Sync,
    ) -> Result<(K, T), Fault> {
        let changed = self.db().modify(namespace, name, change).await?;
        changed.ok_or_else(missing)
    }

    /// Makes an object; `taken` when there is one of that name.
    pub(crate) async fn create<K: Stored>(&self, object: &K, taken: impl Fn() -> Fault) -> Result<K, Fault> {
        self.db().create(object).await.map_err(|e| match e.kind {
            tripod_model::ErrorKind::AlreadyExists => taken(),
            _ => e.into(),
        })
    }

    /// Removes an object if it is (still) there.
    pub(crate) async fn remove<K: Stored>(&self, object: &K) -> Result<(), Fault> {
        loop {
            let meta = object.meta();
            let Some(now) = self.state().get::<K>(&meta.namespace, &meta.name)? else {
                return Ok(());
            };
            match self.db().delete(&now).await {
                Err(e) if e.kind == tripod_model::ErrorKind::OutOfSequence => {}
                other => return Ok(other?),
            }
        }
    }
}
