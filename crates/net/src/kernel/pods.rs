//! The pods' network, which lives in the host's namespace, and the policies of pods.

use std::io;
use std::net::IpAddr;

use tripod_model::Result;
use tripod_model::network::NetworkSpec;
use tripod_model::network::fabric::DNS_OPTION;
use tripod_model::network::policy::Policies;

use super::networks::{Kind, Network};
use super::{Inner, failed, lock};
use crate::dns::Sockets;
use crate::ns;

impl Network {
    /// Where this node answers for the cluster's DNS.
    pub(super) fn dns_address(&self) -> Option<IpAddr> {
        self.spec.options.get(DNS_OPTION)?.parse().ok()
    }

    /// Whether this is the network of pods.
    pub(super) fn is_pods(&self) -> bool {
        matches!(self.kind, Kind::Pods)
    }
}

impl Inner {
    /// Prepares the host's namespace for pods.
    pub(super) fn ensure_pods(&self, spec: &NetworkSpec) -> Result<Kind> {
        if spec.subnets.iter().all(|s| s.gateway.is_none()) {
            return Err(tripod_model::Error::invalid(
                "the pods' network has no block of addresses for this node",
            ));
        }
        ns::within(&self.host_ns, || {
            // Pods answer processes that connected to 127.0.0.1; packets from elsewhere to it are dropped (`guard`).
            ns::sysctl("ipv4/conf/all/route_localnet", "1")
        })
        .map_err(failed("cannot prepare the host for pods"))?;
        Ok(Kind::Pods)
    }

    /// Answers for the cluster's DNS at its address, which the pods' tunnel has by now.
    pub(super) fn serve_cluster_names(&self, network: &Network) -> Result<()> {
        let Some(address) = network.dns_address() else {
            return Ok(());
        };
        if self.dns.serves_cluster(address) {
            return Ok(());
        }
        let sockets = ns::within(&self.host_ns, || Sockets::bound(address, 53)).map_err(|e| {
            let e: io::Error = e;
            failed::<io::Error>(format_args!("cannot answer for names at {address}:53"))(e)
        })?;
        self.dns.serve_cluster(address, sockets);
        Ok(())
    }

    pub(crate) fn set_policies(&self, policies: &Policies) -> Result<()> {
        let mut told = lock(&self.policies);
        self.table
            .change(|model, ops| ops.extend(told.change(policies, model)))
            .map_err(failed("cannot set the policies of pods"))
    }
}
