//! Leaving a cluster, and unlocking a manager.

use std::time::Duration;

use tripod_model::node::Node;
use tripod_model::{Error, Result};

use super::{Engine, LOCKED, NOT_MEMBER, Phase};
use crate::ca;
use crate::link::message::Call;
use crate::manager::Manager;

/// How long the cluster may take to take notice of a node that leaves.
const FAREWELL: Duration = Duration::from_secs(5);
const MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. ";
const LAST: &str = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this \
                    message. ";
const UNKNOWN: &str = "Doing so may lose the consensus of your cluster. ";
const RESTORE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with \
                       `--force-new-cluster`. Use `--force` to suppress this message.";

impl Engine {
    /// Leaves the cluster and forgets it. The caller ends the node's pods.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] in no cluster, and for a manager unless `force`.
    pub async fn swarm_leave(&self, force: bool) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => return Err(Error::unavailable(NOT_MEMBER)),
            Phase::Locked(_) if !force => return Err(Error::unavailable(LOCKED)),
            Phase::Waiting(..) if !force => {
                return Err(Error::unavailable(format_args!("{MANAGER}{UNKNOWN}{RESTORE}")));
            }
            Phase::Active(manager) if !force => return Err(refusal(manager)),
            _ => {}
        }
        self.say_farewell().await;
        self.stop().await;
        self.0.paths.forget()?;
        self.set(Phase::Inactive);
        Ok(())
    }

    /// Tells the cluster, which goes on without this node. A cluster that does not answer notices by itself.
    async fn say_farewell(&self) {
        let manager = self.manager().ok();
        if let Some(manager) = &manager
            && manager
                .standings()
                .is_ok_and(|(reachable, unreachable)| reachable + unreachable < 2)
        {
            return;
        }
        if let Err(error) = tokio::time::timeout(FAREWELL, self.call_leader(Call::Leave))
            .await
            .unwrap_or_else(|_| Err(Error::timeout("no answer")))
        {
            tracing::warn!(%error, "the cluster does not know that this node has left");
        }
    }

    /// Unlocks a manager after a restart.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Conflict`] when it is not locked, [`tripod_model::ErrorKind::Invalid`] for a wrong
    /// key.
    pub async fn swarm_unlock(&self, key: &str) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let standing = match &*self.phase() {
            Phase::Locked(standing) => standing.clone(),
            Phase::Inactive | Phase::Pending => return Err(Error::unavailable(NOT_MEMBER)),
            _ => return Err(Error::conflict("swarm is not locked")),
        };
        let key = ca::parse_unlock_key(key)?;
        self.resume(standing, Some(key)).await?;
        match &*self.phase() {
            Phase::Locked(_) => Err(Error::invalid(
                "swarm could not be unlocked: invalid key provided",
            )),
            _ => Ok(()),
        }
    }
}

/// Why a manager does not leave unless it is forced to.
fn refusal(manager: &Manager) -> Error {
    let rest = match manager.standings() {
        Ok((1, 0)) => return Error::unavailable(format_args!("{MANAGER}{}", LAST.trim_end())),
        Ok((reachable, unreachable)) if reachable <= unreachable + 2 => format!(
            "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. ",
            reachable.saturating_sub(1),
            reachable + unreachable
        ),
        Ok(_) => String::new(),
        Err(_) => UNKNOWN.to_owned(),
    };
    Error::unavailable(format_args!("{MANAGER}{rest}{RESTORE}"))
}

impl Manager {
    /// How many managers answer, and how many do not.
    pub(crate) fn standings(&self) -> Result<(usize, usize)> {
        let nodes: Vec<Node> = self.db().snapshot().list(None)?;
        let managers: Vec<_> = nodes.iter().filter_map(|n| n.status.manager.as_ref()).collect();
        let reachable = managers.iter().filter(|m| m.reachable).count();
        Ok((reachable, managers.len() - reachable))
    }
}
