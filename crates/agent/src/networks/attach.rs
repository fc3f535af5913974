//! Connecting and disconnecting containers, running or not.

use tripod_model::container::EndpointRequest;
use tripod_model::network::NetworkDriver;
use tripod_model::{Error, Result};

use super::endpoints::plan_endpoint;
use crate::Agent;
use crate::store::Table;

/// A wish to connect a container to a network.
#[derive(Debug, Clone, Default)]
pub struct ConnectRequest {
    /// Name or identifier of the container.
    pub container: String,
    /// How; its field `network` is ignored.
    pub endpoint: EndpointRequest,
}

impl Agent {
    /// Connects a container to a network, at once when it runs.
    pub async fn connect_network(&self, reference: &str, request: ConnectRequest) -> Result<()> {
        let spec = self.find_network(reference).await?;
        let container = self.inner.table.find(&request.container)?;
        let _busy = container.busy.lock().await;
        let record = container.get();
        if matches!(spec.driver, NetworkDriver::Host) || record.spec.network.mode == "host" {
            return Err(Error::forbidden(
                "container cannot be connected to host network or disconnected from it",
            ));
        }
        if record.spec.network.mode.starts_with("container:") {
            return Err(Error::conflict(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        if record.endpoints.iter().any(|e| e.network_id == spec.id) {
            return Err(Error::forbidden(format_args!(
                "endpoint with name {} already exists in network {}",
                record.name, spec.name
            )));
        }
        self.adopt_cluster_network(&spec);
        let mut endpoint = plan_endpoint(&spec, &request.endpoint)?;
        if record.is_running() {
            let index = free_interface(&record.endpoints);
            endpoint = self.settle_endpoint(&record, endpoint, index).await?;
            // A container without a way out (internal networks, none) has one now.
            endpoint.default_route =
                endpoint.gateway.is_some() && !record.endpoints.iter().any(|e| e.default_route);
            if let Err(e) = self.inner.ports.net.connect(&record.id, &endpoint).await {
                self.release_addresses(&record.owner, &[endpoint]).await;
                return Err(e);
            }
        }
        let record = container.modify(|r| {
            r.endpoints.retain(|e| e.network_name != "none");
            r.endpoints.push(endpoint);
        });
        self.inner
            .store
            .put(Table::Containers, &record.id, &*record)
            .await?;
        self.refresh_names(&record).await?;
        self.network_event(&spec, "connect", &[("container", record.id.clone())]);
        Ok(())
    }

    /// Disconnects a container from a network, at once when it runs.
    pub async fn disconnect_network(&self, reference: &str, container: &str, force: bool) -> Result<()> {
        let spec = self.network(reference)?;
        let container = match self.inner.table.find(container) {
            Ok(found) => found,
            Err(_) if force => return Ok(()),
            Err(e) => return Err(e),
        };
        let _busy = container.busy.lock().await;
        let record = container.get();
        if spec.driver == NetworkDriver::Host {
            return Err(Error::forbidden(
                "container cannot be disconnected from host network - container cannot be connected to host network or disconnected from it",
            ));
        }
        let Some(endpoint) = record.endpoints.iter().find(|e| e.network_id == spec.id).cloned() else {
            return Err(Error::forbidden(format_args!(
                "container {} is not connected to network {}",
                record.id, spec.name
            )));
        };
        if record.is_running() {
            self.inner.ports.net.disconnect(&record.id, &endpoint).await?;
            self.release_addresses(&record.owner, std::slice::from_ref(&endpoint))
                .await;
        }
        let record = container.modify(|r| r.endpoints.retain(|e| e.network_id != spec.id));
        self.inner
            .store
            .put(Table::Containers, &record.id, &*record)
            .await?;
        self.refresh_network_names(&spec.id).await?;
        self.network_event(&spec, "disconnect", &[("container", record.id.clone())]);
        Ok(())
    }
}

/// The lowest number of an `ethN` that is free.
fn free_interface(endpoints: &[tripod_model::network::Endpoint]) -> usize {
    (0..)
        .find(|n| !endpoints.iter().any(|e| e.interface == format!("eth{n}")))
        .unwrap_or(0)
}
