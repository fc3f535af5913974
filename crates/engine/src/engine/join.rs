//! Joining a cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tripod_model::node::NodeRole;
use tripod_model::{Error, ErrorKind, Result};

use super::{Engine, LOCKED, MEMBER, Phase};
use crate::ca;
use crate::link::message::{Answer, Call, Joined, Joining};
use crate::link::tls::Tls;
use crate::link::{self, pool};
use crate::paths::{Credentials, Standing};
use crate::request::{Addresses, JoinRequest, RemoteManager, SWARM_PORT, parse_addr};

/// How long a join may take before it is left to go on by itself.
const JOINED: Duration = Duration::from_secs(20);
const LATER: &str = "Timeout was reached before node joined. The attempt to join the swarm will continue in the \
                     background. Use the \"docker info\" command to see the current swarm status of your node.";

impl Engine {
    /// Joins a cluster, as what the token says.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when this daemon is in one already or no manager answers,
    /// [`tripod_model::ErrorKind::Invalid`] for the token and for addresses.
    pub async fn swarm_join(&self, request: JoinRequest) -> Result<()> {
        let changing = self.0.changing.lock().await;
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => {}
            Phase::Locked(_) => return Err(Error::unavailable(LOCKED)),
            _ => return Err(Error::unavailable(MEMBER)),
        }
        let addresses = Addresses::of(
            &request.listen_addr,
            &request.advertise_addr,
            self.0.options.node_listen,
        )?;
        let digest = ca::token_fingerprint(request.join_token.trim())?.to_owned();
        if request.remote_addrs.is_empty() {
            return Err(Error::invalid("at least 1 RemoteAddr is required to join"));
        }
        self.set(Phase::Pending);
        self.0.session.send_replace(false);
        let outcome = match self.enter(&request, &addresses, &digest).await {
            Ok(standing) => self.resume(standing, None).await,
            Err(e) => Err(e),
        };
        if let Err(e) = outcome {
            self.stop().await;
            let _ = self.0.paths.forget();
            self.set(Phase::Inactive);
            return Err(e);
        }
        drop(changing);
        self.arrived().await
    }

    /// Waits until this node has its session, and as a manager its place in the group.
    async fn arrived(&self) -> Result<()> {
        let mut session = self.0.session.subscribe();
        let mut failures = self.0.failure.subscribe();
        failures.borrow_and_update();
        let arrive = async {
            // An error means that the engine is gone.
            let _ = session.wait_for(|there| *there).await;
            let mut serving = self.0.serving.subscribe();
            let _ = serving.wait_for(|serving| *serving).await;
        };
        tokio::select! {
            arrived = tokio::time::timeout(JOINED, arrive) => arrived.map_err(|_| Error::timeout(LATER)),
            Ok(()) = failures.changed() => {
                let failure = failures.borrow().clone();
                let _changing = self.0.changing.lock().await;
                // The cluster was asked and does not want it: it is left again.
                let _ = self.call_leader(Call::Leave).await;
                self.stop().await;
                self.0.paths.forget()?;
                self.set(Phase::Inactive);
                Err(failure.unwrap_or_else(|| Error::internal("the node could not join")))
            }
        }
    }

    /// A manager that joins is not taken into the group, for a reason that will not go away.
    pub(super) fn note_failure(&self, error: Error) {
        if !matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unavailable) {
            self.0.failure.send_replace(Some(error));
        }
    }

    /// Becomes a member: certificate and standing are on the disk when this returns.
    async fn enter(&self, request: &JoinRequest, addresses: &Addresses, digest: &str) -> Result<Standing> {
        let (key, csr) = ca::request()?;
        let advertise = addresses.advertise.filter(|_| !request.advertise_addr.is_empty());
        let joining = Joining {
            token: request.join_token.trim().to_owned(),
            csr,
            availability: request.availability,
            description: self.0.options.description.clone(),
            address: advertise.map_or_else(String::new, |a| a.ip().to_string()),
        };
        let mut last = Error::unavailable("no manager was named");
        for remote in &request.remote_addrs {
            let remote = with_port(remote);
            match ask(&remote, digest, &joining).await {
                Ok(joined) => return self.keep(request, addresses, &remote, joined, key),
                Err(e) if e.kind == ErrorKind::Unavailable => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    fn keep(
        &self,
        request: &JoinRequest,
        addresses: &Addresses,
        remote: &str,
        joined: Joined,
        key: String,
    ) -> Result<Standing> {
        let seen: IpAddr = joined.address.parse().map_err(Error::internal)?;
        let port = addresses.advertise.map_or(addresses.listen.port(), |a| a.port());
        let advertise = SocketAddr::new(seen, port);
        let data_path_addr = match request.data_path_addr.as_str() {
            "" => advertise.ip(),
            text => parse_addr(text, 0, "DataPathAddr")?.ip(),
        };
        let credentials = Credentials {
            roots: joined.certificate.roots.clone(),
            chain: joined.certificate.chain.clone(),
            key,
        };
        let lock = Self::lock_of(&joined.certificate.unlock_key)?;
        let mut managers = joined.managers;
        if managers.is_empty() {
            managers.push(RemoteManager {
                node_id: String::new(),
                addr: remote.to_owned(),
            });
        }
        let standing = Standing {
            format: 1,
            node_id: joined.node_id,
            node_name: joined.node_name,
            cluster_id: joined.cluster_id,
            role: joined.certificate.role,
            raft_id: match joined.certificate.role {
                NodeRole::Manager => rand::random::<u64>().max(1),
                NodeRole::Worker => 0,
            },
            managers,
            listen_addr: addresses.listen.to_string(),
            advertise_addr: advertise.to_string(),
            data_path_addr,
        };
        self.0.paths.forget()?;
        self.0.paths.write_credentials(&credentials, lock.as_ref())?;
        self.0.paths.write_standing(&standing)?;
        Ok(standing)
    }
}

/// Asks one manager: for its root, which the token must name, then to be taken in.
async fn ask(remote: &str, digest: &str, joining: &Joining) -> Result<Joined> {
    let root = match link::ask_as_stranger(remote, Tls::stranger(None)?, Call::Root).await? {
        Answer::Root(root) => root,
        _ => return Err(Error::internal("an answer to another question")),
    };
    if ca::fingerprint(&root) != digest {
        return Err(Error::invalid(format_args!(
            "remote CA does not match fingerprint. Expected: {digest}"
        )));
    }
    let call = Call::Join(Box::new(joining.clone()));
    match link::ask_as_stranger(remote, Tls::stranger(Some(&root))?, call).await? {
        Answer::Joined(joined) => Ok(*joined),
        _ => Err(Error::internal("an answer to another question")),
    }
}

fn with_port(remote: &str) -> String {
    let has_port = remote.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    match has_port {
        true => remote.to_owned(),
        false if pool::ip_of(remote).is_none() && remote.parse::<std::net::Ipv6Addr>().is_ok() => {
            format!("[{remote}]:{SWARM_PORT}")
        }
        false => format!("{remote}:{SWARM_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_added() {
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:2377");
        assert_eq!(with_port("10.0.0.1:99"), "10.0.0.1:99");
        assert_eq!(with_port("fd00::1"), "[fd00::1]:2377");
        assert_eq!(with_port("[fd00::1]:5"), "[fd00::1]:5");
        assert_eq!(with_port("host"), "host:2377");
    }
}
