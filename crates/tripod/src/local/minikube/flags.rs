//! Options of `minikube start` that mean nothing here, or cannot be honoured: each by its name, so that scripts go on
//! working, and nobody believes what is not so.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::failure::Failure;

/// What becomes of an option.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It says what is so anyway, or changes nothing that can be seen.
    Silent,
    /// It has no effect; why is told.
    Note(&'static str),
    /// It cannot be had, but for these values.
    Refused(&'static [&'static str], &'static str),
}

use Fate::{Note, Refused, Silent};

const NODES: &str = "nodes are namespaces of this machine";
const VIRTUAL: &str = "there is no virtual machine";
const RUNTIME: &str = "the container runtime is tripod's own";
const LOADED: &str = "there is nothing to download";

/// Options with a value.
const VALUES: &[(&str, Fate)] = &[
    (
        "apiserver-ips",
        Note("the API's certificate has the addresses of its nodes"),
    ),
    (
        "apiserver-name",
        Note("the API's certificate has the names of its nodes"),
    ),
    (
        "apiserver-names",
        Note("the API's certificate has the names of its nodes"),
    ),
    ("apiserver-port", Note("the API answers on port 6443 of the node")),
    ("auto-pause-interval", Silent),
    ("base-image", Note(LOADED)),
    ("binary-mirror", Note(LOADED)),
    ("bootstrapper", Silent),
    ("cert-expiration", Note("certificates are renewed in time")),
    ("cri-socket", Note(RUNTIME)),
    ("disk-size", Note("a node has the disk of this machine")),
    (
        "dns-domain",
        Refused(&["cluster.local"], "the domain of the cluster is cluster.local"),
    ),
    ("docker-env", Note(RUNTIME)),
    ("docker-opt", Note(RUNTIME)),
    (
        "extra-config",
        Note("kubelet, API server, scheduler and controllers are one program, without such settings"),
    ),
    ("extra-disks", Refused(&["0"], NODES)),
    (
        "gpus",
        Refused(&[""], "devices of this machine are not led to nodes"),
    ),
    ("host-only-cidr", Note(VIRTUAL)),
    ("host-only-nic-type", Note(VIRTUAL)),
    ("hyperkit-vpnkit-sock", Note(VIRTUAL)),
    ("hyperkit-vsock-ports", Note(VIRTUAL)),
    ("hyperv-external-adapter", Note(VIRTUAL)),
    ("hyperv-virtual-switch", Note(VIRTUAL)),
    ("image-mirror-country", Note(LOADED)),
    ("image-repository", Note(LOADED)),
    ("iso-url", Note(LOADED)),
    ("kvm-gpu", Note(VIRTUAL)),
    ("kvm-hidden", Note(VIRTUAL)),
    ("kvm-network", Note(VIRTUAL)),
    ("kvm-numa-count", Note(VIRTUAL)),
    ("kvm-qemu-uri", Note(VIRTUAL)),
    (
        "listen-address",
        Note("nodes are reached at addresses of their own"),
    ),
    (
        "mount-9p-version",
        Note("what is mounted is the directory itself"),
    ),
    ("mount-gid", Note("what is mounted is the directory itself")),
    ("mount-ip", Silent),
    ("mount-msize", Silent),
    ("mount-options", Silent),
    ("mount-port", Silent),
    ("mount-type", Silent),
    ("mount-uid", Note("what is mounted is the directory itself")),
    ("nat-nic-type", Note(VIRTUAL)),
    ("network", Note("each cluster has a network of its own")),
    ("network-plugin", Note("the network between pods is tripod's own")),
    ("nfs-share", Refused(&[], NODES)),
    ("nfs-shares-root", Silent),
    ("qemu-firmware-path", Note(VIRTUAL)),
    (
        "registry-mirror",
        Refused(&[], "images are pulled from the registry of their name"),
    ),
    (
        "service-cluster-ip-range",
        Refused(
            &["10.96.0.0/12", "10.96.0.0/16"],
            "services have addresses of 10.96.0.0/16",
        ),
    ),
    ("socket-vmnet-client-path", Note(VIRTUAL)),
    ("socket-vmnet-path", Note(VIRTUAL)),
    ("ssh-ip-address", Note(NODES)),
    ("ssh-key", Note(NODES)),
    ("ssh-port", Note(NODES)),
    ("ssh-user", Note(NODES)),
    (
        "static-ip",
        Refused(
            &[],
            "a node gets an address of the cluster's network; see minikube ip",
        ),
    ),
    (
        "subnet",
        Refused(
            &[],
            "the network is the first free one of 192.168.49.0/24 and after",
        ),
    ),
    ("trace", Silent),
    ("uuid", Note(VIRTUAL)),
    ("vm-driver", Note(NODES)),
    ("wait-timeout", Silent),
];

/// Options that are on or off.
const SWITCHES: &[(&str, Fate)] = &[
    ("auto-update-drivers", Silent),
    ("cache-images", Silent),
    ("delete-on-failure", Silent),
    ("disable-driver-mounts", Silent),
    (
        "disable-metrics",
        Note("the use of nodes and pods is always told"),
    ),
    ("disable-optimizations", Silent),
    ("dns-proxy", Note(VIRTUAL)),
    ("embed-certs", Silent),
    ("enable-default-cni", Silent),
    ("force", Silent),
    ("force-systemd", Note("cgroups are used directly")),
    ("host-dns-resolver", Silent),
    ("install-addons", Silent),
    ("interactive", Silent),
    ("native-ssh", Silent),
    (
        "no-kubernetes",
        Refused(
            &["false"],
            "Kubernetes is part of tripod; the docker engine of a node needs no cluster: tripod daemon",
        ),
    ),
    ("no-vtx-check", Note(VIRTUAL)),
    ("preload", Silent),
    ("vm", Refused(&["false"], NODES)),
];

/// The options that were given, with their values.
#[derive(Debug, Default)]
pub(super) struct Others(Vec<(&'static str, String, Fate)>);

impl Others {
    /// Refuses what cannot be honoured, and returns a line for each option that has no effect.
    pub(super) fn judge(&self) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for (name, value, fate) in &self.0 {
            match fate {
                Silent => {}
                Note(why) => notes.push(format!("--{name} has no effect: {why}")),
                Refused(fine, _) if fine.contains(&value.as_str()) => {}
                Refused(_, why) => {
                    let text = format!("--{name}={value} cannot be had: {why}");
                    return Err(Failure::new("MK_USAGE", 14, text));
                }
            }
        }
        Ok(notes)
    }
}

fn all() -> impl Iterator<Item = (&'static str, Fate, bool)> {
    let values = VALUES.iter().map(|(name, fate)| (*name, *fate, false));
    values.chain(SWITCHES.iter().map(|(name, fate)| (*name, *fate, true)))
}

impl Args for Others {
    fn augment_args(command: Command) -> Command {
        all().fold(command, |command, (name, fate, switch)| {
            let arg = Arg::new(name).long(name).action(ArgAction::Append).hide(true);
            let arg = match fate {
                Note(why) | Refused(_, why) => arg.help(why),
                Silent => arg,
            };
            command.arg(match switch {
                true => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                false => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Others {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = all().filter_map(|(name, fate, _)| {
            let value = matches.get_many::<String>(name)?.next_back()?;
            Some((name, value.clone(), fate))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
