//! Legacy links: another container's variables in a container's environment.

use std::sync::Arc;

use tripod_model::container::ContainerSpec;
use tripod_model::{Error, Result};

use crate::Agent;
use crate::record::ContainerRecord;
use crate::store::Table;

/// Target and alias of a link, `container:alias`; a name alone is its own alias.
fn parts(link: &str) -> (&str, &str) {
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    let last = |text: &'_ str| text.rfind('/').map_or(0, |i| i + 1);
    (target.trim_start_matches('/'), &alias[last(alias)..])
}

/// The variables that a link gives, as Docker names them.
fn variables(own_name: &str, alias: &str, other: &ContainerRecord) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut all = vec![format!("{prefix}_NAME=/{own_name}/{alias}")];
    if let Some(net) = other.endpoints.iter().find_map(|e| e.ipv4) {
        let address = net.addr();
        let mut ports = other.spec.exposed_ports.clone();
        ports.sort_unstable_by_key(|p| (p.port, p.protocol.to_string()));
        for (i, p) in ports.iter().enumerate() {
            let (port, word) = (p.port, p.protocol.to_string());
            let of = format!("{prefix}_PORT_{port}_{}", word.to_uppercase());
            let url = format!("{word}://{address}:{port}");
            if i == 0 {
                all.push(format!("{prefix}_PORT={url}"));
            }
            all.push(format!("{of}={url}"));
            all.push(format!("{of}_ADDR={address}"));
            all.push(format!("{of}_PORT={port}"));
            all.push(format!("{of}_PROTO={word}"));
        }
    }
    let own = other.spec.env.iter().filter(|e| {
        e.split_once('=')
            .is_some_and(|(name, _)| !matches!(name, "HOME" | "PATH"))
    });
    all.extend(own.map(|e| format!("{prefix}_ENV_{e}")));
    all
}

impl Agent {
    /// What is started: the container's own specification, with the variables of its links before its own.
    pub(crate) fn with_link_variables(&self, record: &ContainerRecord) -> Arc<ContainerSpec> {
        let mut env = Vec::new();
        for link in &record.spec.network.links {
            let (target, alias) = parts(link);
            if let Ok(other) = self.container(target) {
                env.extend(variables(&record.name, alias, &other));
            }
        }
        if env.is_empty() {
            return record.spec.clone();
        }
        let mut spec = (*record.spec).clone();
        env.append(&mut spec.env);
        spec.env = env;
        Arc::new(spec)
    }

    /// Takes a link away; the containers stay.
    pub async fn remove_link(&self, reference: &str, alias: &str) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let is_it = |link: &String| parts(link).1 == alias;
        if !container.get().spec.network.links.iter().any(is_it) {
            return Err(Error::not_found(format_args!(
                "Cannot get parent /{reference} for link /{reference}/{alias}"
            )));
        }
        let record = container.modify(|r| {
            Arc::make_mut(&mut r.spec).network.links.retain(|l| !is_it(l));
        });
        self.inner
            .store
            .put(Table::Containers, &record.id, &*record)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_split() {
        assert_eq!(parts("db"), ("db", "db"));
        assert_eq!(parts("db:alias"), ("db", "alias"));
        assert_eq!(parts("/db:/web/alias"), ("db", "alias"));
    }
}
