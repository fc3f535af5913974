//! What the manager said that pods refer to, for all pods of the node; and tokens, asked for when needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use tripod_model::session::{
    ClaimVolume, ConfigData, InputKey, NamespaceServices, NodeSettings, PodInput, Token, TokenRequest,
};
use tripod_model::{Error, Result, Time};

use crate::pods::Session;

/// The inputs of a session; shared by its pods.
pub(crate) struct Inputs {
    session: Arc<dyn Session>,
    known: RwLock<BTreeMap<InputKey, Arc<PodInput>>>,
    node: RwLock<Arc<NodeSettings>>,
    /// Counts changes.
    version: watch::Sender<u64>,
    tokens: Mutex<HashMap<TokenKey, (Token, Time)>>,
    /// Pods whose network policies are not in force yet.
    waiting: watch::Sender<BTreeSet<String>>,
}

/// How long a pod waits for its network policies before it is tried anew.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

type TokenKey = (String, String, Vec<String>, Option<i64>);

impl Inputs {
    pub(crate) fn new(session: Arc<dyn Session>) -> Self {
        Self {
            session,
            known: RwLock::default(),
            node: RwLock::default(),
            version: watch::Sender::new(0),
            tokens: Mutex::default(),
            waiting: watch::Sender::default(),
        }
    }

    /// Takes over what an assignment says. With `full`, what it does not name is gone.
    pub(crate) fn apply(
        &self,
        full: bool,
        inputs: Vec<Arc<PodInput>>,
        removed: &[InputKey],
        node: Option<Arc<NodeSettings>>,
    ) {
        if !full && inputs.is_empty() && removed.is_empty() && node.is_none() {
            return;
        }
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if full {
                known.clear();
            }
            for key in removed {
                known.remove(key);
            }
            known.extend(inputs.into_iter().map(|i| (i.key(), i)));
        }
        if let Some(node) = node {
            *self.node.write().unwrap_or_else(PoisonError::into_inner) = node;
        }
        self.version.send_modify(|v| *v += 1);
    }

    /// Takes over which pods wait for their network policies; those of the others are in force.
    pub(crate) fn set_waiting(&self, pods: BTreeSet<String>) {
        self.waiting.send_replace(pods);
    }

    /// Waits until the network policies of a pod are in force.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when they still are not after a while.
    pub(super) async fn policies_hold(&self, uid: &str) -> Result<()> {
        let mut waiting = self.waiting.subscribe();
        let settled = waiting.wait_for(|pods| !pods.contains(uid));
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::unavailable(
                "the network policies of the pod are not in force yet",
            )),
        }
    }

    /// Told of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn get(&self, key: &InputKey) -> Option<Arc<PodInput>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(super) fn node(&self) -> Arc<NodeSettings> {
        self.node.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigData> {
        match &*self.get(&InputKey::ConfigMap(namespace.into(), name.into()))? {
            PodInput::ConfigMap(data) => Some(data.clone()),
            _ => None,
        }
    }

    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<ConfigData> {
        match &*self.get(&InputKey::Secret(namespace.into(), name.into()))? {
            PodInput::Secret(data) => Some(data.clone()),
            _ => None,
        }
    }

    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<ClaimVolume> {
        match &*self.get(&InputKey::Claim(namespace.into(), name.into()))? {
            PodInput::Claim(claim) => Some(claim.clone()),
            _ => None,
        }
    }

    pub(super) fn services(&self, namespace: &str) -> NamespaceServices {
        let found = self.get(&InputKey::Services(namespace.into()));
        match found.as_deref() {
            Some(PodInput::Services(services)) => services.clone(),
            _ => NamespaceServices::default(),
        }
    }

    /// Name of the OCI runtime of a runtime class.
    pub(super) fn handler(&self, class: &str) -> Option<String> {
        match &*self.get(&InputKey::RuntimeClass(class.into()))? {
            PodInput::RuntimeClass { handler, .. } => Some(handler.clone()),
            _ => None,
        }
    }

    /// A token that holds for a good while yet: the one that is known, or a new one.
    pub(super) async fn token(&self, request: TokenRequest) -> Result<Token> {
        let key = (
            request.pod_uid.clone(),
            request.service_account.clone(),
            request.audiences.clone(),
            request.expiration_seconds,
        );
        let now = Time::now();
        {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|_, (token, _)| token.expires_at > now);
            if let Some((token, _)) = tokens.get(&key).filter(|(_, renewal)| *renewal > now) {
                return Ok(token.clone());
            }
        }
        let token = self.session.token(request).await.map_err(|e| Error {
            message: format!("failed to fetch token: {}", e.message),
            ..e
        })?;
        let renewal = renewal(now, token.expires_at);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key, (token.clone(), renewal));
        Ok(token)
    }
}

/// When a token is to be replaced: after four fifths of its life, at most a day.
pub(super) fn renewal(now: Time, expires: Time) -> Time {
    let life = expires.as_second().saturating_sub(now.as_second());
    let wait = (life / 5 * 4).clamp(0, 24 * 3600);
    now.saturating_add(jiff::SignedDuration::from_secs(wait))
        .unwrap_or(Time::MAX)
}
