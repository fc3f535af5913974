//! The store as the Kubernetes door uses it: objects as bytes, of any kind, with the store's own verdicts.

use std::sync::Arc;
use std::time::Duration;

use tripod_model::{Error, Result};
use tripod_raft::RaftError;
use tripod_store::{Gone, List, ListQuery, State, Txn, TxnError, TxnOk, WatchFilter};

use crate::ca::Authority;
use crate::db::to_error;
use crate::manager::Manager;

/// How long what the API server shows of itself, and what it gives to administrators, is valid: a year.
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a write of raw objects did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// The store judged it and refused.
    Refused(TxnError),
    /// Anything else, in the model's terms.
    Failed(Error),
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: String,
    /// Its key (PKCS#8).
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(…)")
    }
}

impl Manager {
    /// The objects as this manager knows them, at no cost.
    pub fn state(&self) -> Arc<State> {
        self.db().cluster().read()
    }

    /// Waits until the state here has reached a revision.
    ///
    /// # Errors
    /// When the store stops first.
    pub async fn revision_reached(&self, revision: u64) -> Result<()> {
        self.db()
            .cluster()
            .revision_reached(revision)
            .await
            .map_err(to_error)
    }

    /// Writes raw objects.
    ///
    /// # Errors
    /// The store's refusal, or why it could not be asked.
    pub async fn write(&self, txn: Txn) -> std::result::Result<TxnOk, WriteError> {
        self.db().try_submit(txn).await.map_err(|e| match e {
            RaftError::Rejected(e) => WriteError::Refused(e),
            e => WriteError::Failed(to_error(e)),
        })
    }

    /// One page of a list of raw objects.
    ///
    /// # Errors
    /// [`Gone`] when the list was begun too long ago.
    pub fn page(&self, query: &ListQuery<'_>) -> std::result::Result<List, Gone> {
        self.db().cluster().list(query).map_err(|e| match e {
            RaftError::Gone(gone) => gone,
            // Reading what is in memory fails in no other way.
            _ => Gone {
                asked: 0,
                oldest: self.state().revision(),
            },
        })
    }

    /// The first page of a list of raw objects as it was at an earlier revision.
    ///
    /// # Errors
    /// [`Gone`] when the changes since then are no longer remembered.
    pub fn page_at(&self, query: &ListQuery<'_>, revision: u64) -> std::result::Result<List, Gone> {
        self.db().cluster().list_at(query, revision).map_err(|e| match e {
            RaftError::Gone(gone) => gone,
            _ => Gone {
                asked: revision,
                oldest: self.state().revision(),
            },
        })
    }

    /// Follows raw objects after a revision.
    ///
    /// # Errors
    /// [`Gone`] when the changes since then are no longer remembered.
    pub fn watch(&self, filter: WatchFilter, revision: u64) -> std::result::Result<tripod_raft::Watch, Gone> {
        self.db().cluster().watch(filter, revision).map_err(|e| match e {
            RaftError::Gone(gone) => gone,
            _ => Gone {
                asked: revision,
                oldest: self.state().revision(),
            },
        })
    }

    /// PEM of the certificate of the cluster's authority.
    ///
    /// # Errors
    /// When the cluster's object cannot be read.
    pub fn authority_certificate(&self) -> Result<String> {
        Ok(self.swarm_inspect()?.status.ca_cert)
    }

    /// The address that others know this manager by, without its port.
    pub fn advertised(&self) -> String {
        crate::swarm::cluster::host_of(&self.standing().advertise_addr)
    }

    /// A certificate for a server of this manager under these names and addresses.
    ///
    /// # Errors
    /// When the authority cannot issue one.
    pub fn serving_certificate(&self, names: Vec<String>) -> Result<Certificate> {
        self.authority()?.issue_server("kube-apiserver", names, VALID)
    }

    /// A certificate of a user of the Kubernetes API.
    ///
    /// # Errors
    /// When the authority cannot issue one.
    pub fn user_certificate(&self, name: &str, groups: &[&str]) -> Result<Certificate> {
        self.authority()?.issue_client(name, groups, VALID)
    }

    /// A certificate (PEM) for what a request (PEM) asks: for a client, or for a server.
    ///
    /// # Errors
    /// When the request is none, or the authority cannot issue one.
    pub fn sign_certificate(&self, request: &str, server: bool, valid: Duration) -> Result<String> {
        self.authority()?.sign_client(request, server, valid)
    }

    fn authority(&self) -> Result<Authority> {
        let cluster = self.swarm_inspect()?;
        Ok(Authority {
            cert: cluster.status.ca_cert,
            key: cluster.status.ca_key,
        })
    }
}
