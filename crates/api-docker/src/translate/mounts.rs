//! Binds, mounts and tmpfs: three ways to say the same.

use std::collections::BTreeSet;

use tripod_agent::clean_path;
use tripod_model::container::{Mount, MountKind, MountOrigin};
use tripod_model::{Error, Result};

use crate::wire::Set;
use crate::wire::host_config::{self as wire, HostConfig};

/// All mounts of a request, in the order in which they are mounted.
pub(crate) fn mounts(host: &HostConfig, volumes: &Set) -> Result<Vec<Mount>> {
    let mut out = Vec::new();
    let mut targets = BTreeSet::new();
    let mut add = |m: Mount| -> Result<()> {
        if !targets.insert(clean_path(&m.target)) {
            return Err(Error::invalid(format_args!(
                "Duplicate mount point: {}",
                m.target
            )));
        }
        out.push(m);
        Ok(())
    };
    for text in &host.binds {
        add(bind(text, &host.volume_driver)?)?;
    }
    for m in &host.mounts {
        add(mount(m)?)?;
    }
    for (target, options) in &host.tmpfs {
        add(tmpfs(target, options)?)?;
    }
    for target in volumes.keys() {
        check_target(target, || format!("invalid volume specification: '{target}'"))?;
    }
    Ok(out)
}

/// The target must be absolute and not the root.
fn check_target(target: &str, text: impl Fn() -> String) -> Result<()> {
    if !target.starts_with('/') {
        return Err(Error::invalid(format_args!(
            "{}: invalid mount path: '{target}' mount path must be absolute",
            text()
        )));
    }
    if clean_path(target) == "/" {
        return Err(Error::invalid(format_args!(
            "{}: invalid specification: destination can't be '/'",
            text()
        )));
    }
    Ok(())
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// `SOURCE:TARGET[:OPTIONS]`, or a target alone.
fn bind(text: &str, driver: &str) -> Result<Mount> {
    let bad =
        || Error::invalid(format_args!("invalid volume specification: '{text}'")).at("HostConfig.Binds");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] if !target.is_empty() => ("", *target, ""),
        [source, target] if !source.is_empty() => (*source, *target, ""),
        [source, target, mode] if !source.is_empty() => (*source, *target, *mode),
        _ => return Err(bad()),
    };
    let whole = || format!("invalid volume specification: '{text}'");
    check_target(target, whole)?;
    let mut m = Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        mode: mode.to_owned(),
        create_source: true,
        origin: MountOrigin::Binds,
        ..Mount::default()
    };
    let is_path = source.starts_with('/');
    if is_path {
        m.source = clean_path(source);
    } else {
        if !source.is_empty() && !is_volume_name(source) {
            return Err(Error::invalid(format_args!(
                "create {source}: \"{source}\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        m.kind = MountKind::Volume;
        m.anonymous = source.is_empty();
        m.create_source = false;
        m.driver = driver.to_owned();
    }
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        match word {
            "rw" => m.read_only = false,
            "ro" => m.read_only = true,
            "z" | "Z" | "cached" | "delegated" | "consistent" | "default" => {}
            "nocopy" if !is_path => m.no_copy = true,
            word if PROPAGATIONS.contains(&word) && is_path => m.propagation = word.to_owned(),
            _ => return Err(Error::invalid(format_args!("invalid mode: {mode}")).at("HostConfig.Binds")),
        }
    }
    Ok(m)
}

fn is_volume_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// `HostConfig.Mounts`.
pub(crate) fn mount(wire: &wire::Mount) -> Result<Mount> {
    let bad = |text: String| {
        Error::invalid(format_args!(
            "invalid mount config for type \"{}\": {text}",
            wire.r#type
        ))
        .at("HostConfig.Mounts")
    };
    if wire.target.is_empty() {
        return Err(bad("field Target must not be empty".into()));
    }
    if !wire.target.starts_with('/') {
        return Err(bad(format!(
            "invalid mount path: '{}' mount path must be absolute",
            wire.target
        )));
    }
    if clean_path(&wire.target) == "/" {
        return Err(bad("invalid specification: destination can't be '/'".into()));
    }
    let mut m = Mount {
        source: wire.source.clone(),
        target: wire.target.clone(),
        read_only: wire.read_only,
        origin: MountOrigin::Mounts,
        ..Mount::default()
    };
    let foreign = |present: bool, name: &str| match present {
        true => Err(bad(format!("field {name} must not be specified"))),
        false => Ok(()),
    };
    let kind = wire.r#type.to_ascii_lowercase();
    foreign(wire.bind_options.is_some() && kind != "bind", "BindOptions")?;
    foreign(wire.volume_options.is_some() && kind != "volume", "VolumeOptions")?;
    foreign(wire.tmpfs_options.is_some() && kind != "tmpfs", "TmpfsOptions")?;
    foreign(wire.image_options.is_some() && kind != "image", "ImageOptions")?;
    match kind.as_str() {
        "bind" => bind_mount(&mut m, wire, bad)?,
        "volume" => volume_mount(&mut m, wire, bad)?,
        "tmpfs" => {
            foreign(!wire.source.is_empty(), "Source")?;
            m.kind = MountKind::Tmpfs;
            if let Some(o) = &wire.tmpfs_options {
                if o.size_bytes < 0 {
                    return Err(bad("tmpfs size must not be negative".into()));
                }
                m.tmpfs_size = o.size_bytes;
                m.tmpfs_mode = o.mode;
                m.tmpfs_options = o.options.iter().map(|pair| pair.join("=")).collect();
            }
        }
        "image" => {
            if wire.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            m.kind = MountKind::Image;
            m.read_only = true;
            m.subpath = wire
                .image_options
                .as_ref()
                .map(|o| o.subpath.clone())
                .unwrap_or_default();
        }
        _ => return Err(bad("mount type unknown".into())),
    }
    Ok(m)
}

fn bind_mount(m: &mut Mount, wire: &wire::Mount, bad: impl Fn(String) -> Error) -> Result<()> {
    if wire.source.is_empty() {
        return Err(bad("field Source must not be empty".into()));
    }
    if !wire.source.starts_with('/') {
        return Err(bad(format!(
            "invalid mount path: '{}' mount path must be absolute",
            wire.source
        )));
    }
    m.source = clean_path(&wire.source);
    if let Some(o) = &wire.bind_options {
        if !o.propagation.is_empty() && !PROPAGATIONS.contains(&o.propagation.as_str()) {
            return Err(bad(format!("invalid propagation mode: {}", o.propagation)));
        }
        m.propagation.clone_from(&o.propagation);
        m.non_recursive = o.non_recursive;
        m.create_source = o.create_mountpoint;
    }
    if !m.create_source && !std::path::Path::new(&m.source).exists() {
        return Err(bad(format!("bind source path does not exist: {}", m.source)));
    }
    Ok(())
}

fn volume_mount(m: &mut Mount, wire: &wire::Mount, bad: impl Fn(String) -> Error) -> Result<()> {
    m.kind = MountKind::Volume;
    m.anonymous = wire.source.is_empty();
    if !m.anonymous && !is_volume_name(&wire.source) {
        return Err(bad(format!("invalid volume name: {}", wire.source)));
    }
    if wire.source.is_empty() && wire.read_only {
        return Err(bad(
            "must not set ReadOnly mode when using anonymous volumes".into()
        ));
    }
    if let Some(o) = &wire.volume_options {
        if !o.subpath.is_empty() && (o.subpath.starts_with('/') || o.subpath.split('/').any(|p| p == "..")) {
            return Err(bad("subpath must be a relative path within the volume".into()));
        }
        m.no_copy = o.no_copy;
        m.subpath.clone_from(&o.subpath);
        m.volume_labels.clone_from(&o.labels);
        if let Some(driver) = &o.driver_config {
            m.driver.clone_from(&driver.name);
            m.driver_opts.clone_from(&driver.options);
        }
    }
    Ok(())
}

/// An entry of `HostConfig.Tmpfs`.
fn tmpfs(target: &str, options: &str) -> Result<Mount> {
    check_target(target, || format!("invalid tmpfs specification: '{target}'"))?;
    let mut m = Mount {
        kind: MountKind::Tmpfs,
        target: target.to_owned(),
        mode: options.to_owned(),
        origin: MountOrigin::Tmpfs,
        ..Mount::default()
    };
    for word in options.split(',').filter(|w| !w.is_empty()) {
        let bad = || Error::invalid(format_args!("invalid tmpfs option: \"{word}\"")).at("HostConfig.Tmpfs");
        match word.split_once('=') {
            Some(("size", v)) => m.tmpfs_size = size(v).ok_or_else(bad)?,
            Some(("mode", v)) => m.tmpfs_mode = u32::from_str_radix(v, 8).map_err(|_| bad())?,
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) => {
                m.tmpfs_options.push(word.to_owned());
            }
            None if word == "ro" => m.read_only = true,
            None if TMPFS_FLAGS.contains(&word) => m.tmpfs_options.push(word.to_owned()),
            _ => return Err(bad()),
        }
    }
    Ok(m)
}

const TMPFS_FLAGS: [&str; 26] = [
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
];

/// `64m`, `1g`, `4096`.
fn size(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => return None,
    };
    digits
        .parse::<i64>()
        .ok()?
        .checked_mul(1 << shift)
        .filter(|n| *n >= 0)
}

/// The mounts back in the fields that they came from.
pub(crate) fn show(mounts: &[Mount], host: &mut HostConfig) {
    for m in mounts {
        match m.origin {
            MountOrigin::Binds => {
                let tail = if m.mode.is_empty() {
                    String::new()
                } else {
                    format!(":{}", m.mode)
                };
                let source = if m.anonymous {
                    String::new()
                } else {
                    format!("{}:", m.source)
                };
                host.binds.push(format!("{source}{}{tail}", m.target));
            }
            MountOrigin::Tmpfs => drop(host.tmpfs.insert(m.target.clone(), m.mode.clone())),
            MountOrigin::Mounts => host.mounts.push(show_mount(m)),
            MountOrigin::Image | MountOrigin::VolumesFrom => {}
        }
    }
}

fn show_mount(m: &Mount) -> wire::Mount {
    let mut out = wire::Mount {
        r#type: kind(m.kind).into(),
        source: if m.anonymous {
            String::new()
        } else {
            m.source.clone()
        },
        target: m.target.clone(),
        read_only: m.read_only && m.kind != MountKind::Image,
        ..wire::Mount::default()
    };
    match m.kind {
        MountKind::Bind => {
            let options = wire::BindOptions {
                propagation: m.propagation.clone(),
                non_recursive: m.non_recursive,
                create_mountpoint: m.create_source,
                ..wire::BindOptions::default()
            };
            out.bind_options = (options != wire::BindOptions::default()).then_some(options);
        }
        MountKind::Volume => {
            let has_driver = !m.driver.is_empty() || !m.driver_opts.is_empty();
            let driver = wire::DriverConfig {
                name: m.driver.clone(),
                options: m.driver_opts.clone(),
            };
            out.volume_options = Some(wire::VolumeOptions {
                no_copy: m.no_copy,
                labels: m.volume_labels.clone(),
                subpath: m.subpath.clone(),
                driver_config: has_driver.then_some(driver),
            });
        }
        MountKind::Tmpfs => {
            let options = m
                .tmpfs_options
                .iter()
                .map(|o| o.splitn(2, '=').map(str::to_owned).collect())
                .collect();
            out.tmpfs_options = Some(wire::TmpfsOptions {
                size_bytes: m.tmpfs_size,
                mode: m.tmpfs_mode,
                options,
            });
        }
        MountKind::Image => {
            out.image_options = Some(wire::ImageOptions {
                subpath: m.subpath.clone(),
            });
        }
    }
    out
}

/// The word of the API for a kind of mount.
pub(crate) fn kind(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn binds(list: &[&str]) -> Result<Vec<Mount>> {
        let host = HostConfig {
            binds: list.iter().map(|s| (*s).to_owned()).collect(),
            ..HostConfig::default()
        };
        mounts(&host, &Set::new())
    }

    #[test]
    fn binds_and_volumes() {
        let all = binds(&["/tmp:/a:ro", "data:/b", "/c", "/x/../y/:/d:rshared,z"]).unwrap();
        assert_eq!((all[0].kind, all[0].read_only), (MountKind::Bind, true));
        assert_eq!((all[1].kind, all[1].source.as_str()), (MountKind::Volume, "data"));
        assert!(all[2].anonymous);
        assert_eq!(
            (all[3].source.as_str(), all[3].propagation.as_str()),
            ("/y", "rshared")
        );
        let mut host = HostConfig::default();
        show(&all, &mut host);
        assert_eq!(host.binds, ["/tmp:/a:ro", "data:/b", "/c", "/y:/d:rshared,z"]);
    }

    #[test]
    fn bad_binds() {
        for list in [
            &[""][..],
            &["a:b:c:d"],
            &["/tmp:rel"],
            &["/tmp:/"],
            &["/tmp:/a:nope"],
            &["../x:/a"],
            &["/a:/t", "/b:/t/"],
        ] {
            assert!(binds(list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn tmpfs_options() {
        let host = HostConfig {
            tmpfs: BTreeMap::from([("/t".into(), "size=64m,mode=1770,noexec,uid=5".into())]),
            ..HostConfig::default()
        };
        let m = &mounts(&host, &Set::new()).unwrap()[0];
        assert_eq!((m.tmpfs_size, m.tmpfs_mode), (64 << 20, 0o1770));
        assert_eq!(m.tmpfs_options, ["noexec", "uid=5"]);
        assert!(tmpfs("/t", "size=x").is_err());
        assert!(tmpfs("/t", "nonsense").is_err());
    }

    #[test]
    fn mount_objects() {
        let m = |json: &str| mount(&crate::decode::decode::<wire::Mount>(json.as_bytes()).unwrap());
        assert!(m(r#"{"Type":"bind","Source":"/tmp","Target":"/a"}"#).is_ok());
        assert!(
            m(r#"{"Type":"volume","Source":"v1","Target":"/a","VolumeOptions":{"NoCopy":true}}"#)
                .unwrap()
                .no_copy
        );
        for bad in [
            r#"{"Type":"bind","Source":"/no/such/path/here","Target":"/a"}"#,
            r#"{"Type":"bind","Source":"rel","Target":"/a"}"#,
            r#"{"Type":"bind","Target":"/a"}"#,
            r#"{"Type":"volume","Target":""}"#,
            r#"{"Type":"volume","Source":"v1","Target":"rel"}"#,
            r#"{"Type":"volume","Source":"v1","Target":"/a","TmpfsOptions":{}}"#,
            r#"{"Type":"tmpfs","Source":"x","Target":"/a"}"#,
            r#"{"Type":"odd","Target":"/a"}"#,
        ] {
            let e = m(bad).unwrap_err();
            assert!(
                e.message.starts_with("invalid mount config for type"),
                "{bad}: {e}"
            );
        }
    }
}
