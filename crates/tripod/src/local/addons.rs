//! Add-ons: what other tools add to a cluster is built in here. All are on, but for the registry, which is opened when it
//! is asked for.

use serde_json::{Value, json};
use tripod_model::{Error, Result};

use super::cluster::Cluster;
use super::{commands, registry};
use crate::cli::{AddonsWhat, Output};

/// Names of add-ons and what they are.
const ADDONS: &[(&str, &str)] = &[
    ("dashboard", "the page of the command `dashboard`"),
    ("default-storageclass", "the class `standard`"),
    ("metrics-server", "`kubectl top` and autoscaling"),
    (
        "registry",
        "a registry on this machine whose images every node has",
    ),
    ("storage-provisioner", "volumes of the class `standard`"),
];

/// What is done with an add-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    On,
    Off,
}

/// Names of the add-ons, what each is, and whether it is on in this cluster.
pub(super) fn all(cluster: &Cluster) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    let registry = cluster.record.registry.is_some();
    ADDONS
        .iter()
        .map(move |(name, what)| (*name, *what, *name != "registry" || registry))
}

/// Switches an add-on; what is to be told.
///
/// # Errors
/// There is no such add-on, or it is built in and cannot be switched off.
pub(super) fn switch(cluster: &mut Cluster, name: &str, to: Switch) -> Result<String> {
    if !ADDONS.iter().any(|(n, _)| *n == name) {
        let names: Vec<&str> = ADDONS.iter().map(|(n, _)| *n).collect();
        let text = format!("there is no add-on \"{name}\"; there are {}", names.join(", "));
        return Err(Error::not_found(text));
    }
    match (name, to) {
        ("registry", Switch::On) => {
            let port = registry::enable(cluster, None)?;
            Ok(format!("The registry answers at localhost:{port}."))
        }
        ("registry", Switch::Off) => {
            registry::close(cluster)?;
            Ok("The registry is closed.".to_owned())
        }
        (_, Switch::On) => Ok(format!("The add-on {name} is built in: it is enabled.")),
        (_, Switch::Off) => Err(Error::invalid(format_args!(
            "the add-on {name} is built in and cannot be disabled"
        ))),
    }
}

/// `{"NAME": {"Profile": …, "Status": "enabled"}}`, as minikube prints it.
pub(super) fn as_json(cluster: &Cluster) -> Value {
    let shown = all(cluster).map(|(name, _, on)| {
        let status = if on { "enabled" } else { "disabled" };
        (
            name.to_owned(),
            json!({ "Profile": cluster.record.name, "Status": status }),
        )
    });
    Value::Object(shown.collect())
}

/// `tripod addons`.
pub(crate) fn addons(what: &AddonsWhat) -> Result<()> {
    match what {
        AddonsWhat::List { cluster, output } => {
            let cluster = commands::open(cluster)?;
            if *output == Output::Json {
                println!("{}", as_json(&cluster));
                return Ok(());
            }
            for (name, what, on) in all(&cluster) {
                println!("{name:21} {:9} {what}", if on { "enabled" } else { "disabled" });
            }
        }
        AddonsWhat::Enable { addon, cluster } => {
            println!("{}", switch(&mut commands::open(cluster)?, addon, Switch::On)?);
        }
        AddonsWhat::Disable { addon, cluster } => {
            println!("{}", switch(&mut commands::open(cluster)?, addon, Switch::Off)?);
        }
    }
    Ok(())
}
