//! Seccomp profiles: the default one made from tables, and users' profiles in Docker's JSON form, narrowed to what
//! applies to a container's capabilities and this architecture.

use serde_json::{Value, json};
use tripod_model::container::ContainerSpec;
use tripod_model::{Error, Result};

use super::{Host, caps, syscalls};

/// Architectures whose calls a process may make, the native one first.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: [&str; 0] = [];

/// Go's name of this architecture, which profiles use.
#[cfg(target_arch = "x86_64")]
const GO_ARCH: &[&str] = &["amd64", "x86", "x32"];
#[cfg(target_arch = "aarch64")]
const GO_ARCH: &[&str] = &["arm64", "arm"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const GO_ARCH: &[&str] = &[];

/// `clone` flags that make namespaces; calls without them are allowed to everybody.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Address family of virtual machine sockets, which know no namespaces.
const AF_VSOCK: u64 = 40;
/// `personality` values that are harmless: Linux, 32-bit, with or without UNAME26, and the question.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile of a container, or null.
pub(crate) fn for_container(spec: &ContainerSpec, host: &Host) -> Result<Value> {
    let s = &spec.security;
    let set = caps::effective(s.privileged, &s.cap_add, &s.cap_drop)? & host.bounding;
    match s.seccomp.as_deref() {
        Some("unconfined") => Ok(Value::Null),
        _ if s.privileged => Ok(Value::Null),
        None | Some("builtin" | "") if !host.seccomp => Ok(Value::Null),
        None | Some("builtin" | "") => Ok(default_profile(set)),
        Some(_) if !host.seccomp => Err(Error::invalid(
            "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
        )),
        Some(profile) => users_profile(profile, set),
    }
}

fn names(list: &str) -> Vec<&str> {
    list.split_whitespace().collect()
}

/// Docker's default for a container with these capabilities.
pub(crate) fn default_profile(set: caps::Set) -> Value {
    let has = |c: &str| caps::bit(c).is_some_and(|b| set & 1 << b != 0);
    let mut allowed = names(syscalls::ALWAYS);
    allowed.extend(names(if cfg!(target_arch = "x86_64") {
        syscalls::X86
    } else {
        syscalls::ARM
    }));
    for (capability, list) in syscalls::BY_CAPABILITY {
        if has(capability) {
            allowed.extend(names(list));
        }
    }
    allowed.sort_unstable();
    allowed.dedup();
    let allow = |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args});
    let mut rules = vec![json!({"names": allowed, "action": "SCMP_ACT_ALLOW"})];
    for p in PERSONALITIES {
        rules.push(allow(
            "personality",
            json!([{"index": 0, "value": p, "op": "SCMP_CMP_EQ"}]),
        ));
    }
    rules.push(allow(
        "socket",
        json!([{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]),
    ));
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow(
            "clone",
            json!([{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
        ));
        // Its flags are behind a pointer: programs fall back to clone when they are told that it does not exist.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": ARCHITECTURES,
        "syscalls": rules,
    })
}

/// A profile in Docker's form: rules may name capabilities, architectures and kernels that they include or exclude.
fn users_profile(text: &str, set: caps::Set) -> Result<Value> {
    let bad = |why: &str| {
        Error::invalid(format!("Decoding seccomp profile failed: {why}")).at("HostConfig.SecurityOpt")
    };
    let profile: Value = serde_json::from_str(text).map_err(|e| bad(&e.to_string()))?;
    let action = profile["defaultAction"]
        .as_str()
        .ok_or_else(|| bad("defaultAction is missing"))?;
    let mut rules = Vec::new();
    for rule in profile["syscalls"].as_array().map_or(&[][..], Vec::as_slice) {
        if !applies(&rule["includes"], set, true) || !applies(&rule["excludes"], set, false) {
            continue;
        }
        let list = match (rule["name"].as_str(), rule["names"].as_array()) {
            (Some(_), Some(n)) if !n.is_empty() => {
                return Err(bad(
                    "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            (Some(n), _) => vec![json!(n)],
            (None, Some(n)) => n.clone(),
            (None, None) => continue,
        };
        let mut out = json!({"names": list, "action": rule["action"]});
        for key in ["errnoRet", "args"] {
            if !rule[key].is_null() && rule[key] != json!([]) {
                out[key] = rule[key].clone();
            }
        }
        rules.push(out);
    }
    let mut out =
        json!({"defaultAction": action, "syscalls": rules, "architectures": architectures(&profile)});
    for key in ["defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"] {
        if !profile[key].is_null() {
            out[key] = profile[key].clone();
        }
    }
    serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(out.clone())
        .map_err(|e| bad(&e.to_string()))?;
    Ok(out)
}

fn architectures(profile: &Value) -> Value {
    if let Some(list) = profile["architectures"].as_array().filter(|l| !l.is_empty()) {
        return json!(list);
    }
    let native = ARCHITECTURES.first().copied().unwrap_or_default();
    let map = profile["archMap"].as_array().map_or(&[][..], Vec::as_slice);
    match map.iter().find(|m| m["architecture"] == native) {
        Some(m) => {
            let mut all = vec![json!(native)];
            all.extend(m["subArchitectures"].as_array().into_iter().flatten().cloned());
            json!(all)
        }
        None => json!(ARCHITECTURES),
    }
}

/// Whether a filter lets a rule through. Of what a rule includes, all capabilities and one of the architectures must
/// be there; of what it excludes, none may.
fn applies(filter: &Value, set: caps::Set, include: bool) -> bool {
    let list = |key: &str| filter[key].as_array().map_or(&[][..], Vec::as_slice);
    let has_cap = |v: &Value| v.as_str().and_then(caps::bit).is_some_and(|b| set & 1 << b != 0);
    let is_arch = |v: &Value| v.as_str().is_some_and(|a| GO_ARCH.contains(&a));
    let kernel = filter["minKernel"]
        .as_str()
        .filter(|k| !k.is_empty())
        .map(kernel_at_least);
    if include {
        let arches = list("arches");
        list("caps").iter().all(has_cap)
            && (arches.is_empty() || arches.iter().any(is_arch))
            && kernel.unwrap_or(true)
    } else {
        !list("caps").iter().any(has_cap) && !list("arches").iter().any(is_arch) && !kernel.unwrap_or(false)
    }
}

fn kernel_at_least(wanted: &str) -> bool {
    let parse = |s: &str| {
        let mut parts = s.split(['.', '-']).map_while(|p| p.parse::<u32>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let uname = rustix::system::uname();
    parse(&uname.release().to_string_lossy()) >= parse(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value) -> Vec<String> {
        serde_json::from_value(profile["syscalls"][0]["names"].clone()).unwrap()
    }

    #[test]
    fn the_default_depends_on_capabilities() {
        let plain = default_profile(caps::effective(false, &[], &[]).unwrap());
        let _: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(plain.clone()).unwrap();
        let names = allowed(&plain);
        for n in ["read", "execve", "openat2", "chroot", "ptrace"] {
            assert!(names.iter().any(|x| x == n), "{n}");
        }
        for n in [
            "mount",
            "unshare",
            "bpf",
            "reboot",
            "keyctl",
            "add_key",
            "clone3",
            "io_uring_setup",
            "userfaultfd",
            "kexec_load",
        ] {
            assert!(!names.iter().any(|x| x == n), "{n}");
        }
        let admin = default_profile(caps::all());
        assert!(allowed(&admin).iter().any(|x| x == "mount"));
        let no_chroot = default_profile(0);
        assert!(!allowed(&no_chroot).iter().any(|x| x == "chroot"));
    }

    #[test]
    fn users_profiles_are_narrowed() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],"syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["chmod"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"name":"chown","action":"SCMP_ACT_ERRNO","includes":{"minKernel":"4.8"}},
            {"names":["stat"],"action":"SCMP_ACT_ERRNO","includes":{"arches":["s390x"]}}]}"#;
        let p = users_profile(text, 0).unwrap();
        let rules: Vec<_> = p["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["names"][0].as_str().unwrap())
            .collect();
        assert_eq!(rules, ["mkdir", "chown"]);
        assert_eq!(p["architectures"].as_array().unwrap().len(), 2);
        let admin = users_profile(text, caps::all()).unwrap();
        assert_eq!(admin["syscalls"][0]["names"][0], "chmod");
    }

    #[test]
    fn bad_profiles_are_refused() {
        for bad in ["{", "{}", r#"{"defaultAction":"NOPE"}"#] {
            let e = users_profile(bad, 0).unwrap_err();
            assert!(
                e.message.starts_with("Decoding seccomp profile failed"),
                "{}",
                e.message
            );
        }
    }
}
