//! The process: command, environment, identity, capabilities, limits.

use serde_json::{Value, json};
use tripod_agent::ports::ExecRequest;
use tripod_model::container::{ContainerSpec, Ulimit};
use tripod_model::{Error, Result};

use super::user::Identity;
use super::{Host, caps, in_container};

/// What a process finds in `PATH` when nobody says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of resource limits as `--ulimit` takes them.
const LIMITS: [(&str, &str); 15] = [
    ("as", "RLIMIT_AS"),
    ("core", "RLIMIT_CORE"),
    ("cpu", "RLIMIT_CPU"),
    ("data", "RLIMIT_DATA"),
    ("fsize", "RLIMIT_FSIZE"),
    ("locks", "RLIMIT_LOCKS"),
    ("memlock", "RLIMIT_MEMLOCK"),
    ("msgqueue", "RLIMIT_MSGQUEUE"),
    ("nice", "RLIMIT_NICE"),
    ("nofile", "RLIMIT_NOFILE"),
    ("nproc", "RLIMIT_NPROC"),
    ("rss", "RLIMIT_RSS"),
    ("rtprio", "RLIMIT_RTPRIO"),
    ("rttime", "RLIMIT_RTTIME"),
    ("sigpending", "RLIMIT_SIGPENDING"),
];

pub(super) fn render(
    spec: &ContainerSpec,
    host: &Host,
    who: &Identity,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let args: Vec<&String> = spec.entrypoint.iter().chain(&spec.command).collect();
    if args.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    let mut process = json!({
        "terminal": spec.tty,
        "user": user(who),
        "args": args,
        "env": environment(spec, who),
        "cwd": in_container(&spec.working_dir),
        "capabilities": capabilities(spec, host, who)?,
        "rlimits": limits(&spec.resources.ulimits, host, warnings)?,
        "oomScoreAdj": oom_score(spec.security.oom_score_adj, host, warnings),
    });
    if spec.tty
        && let Some((height, width)) = spec.console_size
    {
        process["consoleSize"] = json!({"height": height, "width": width});
    }
    // Absent is not the same as false for every runtime: with the field, some load the filter after privileges are gone.
    if spec.security.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = spec
        .security
        .apparmor
        .as_deref()
        .filter(|p| *p != "unconfined" && !p.is_empty())
    {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

fn user(who: &Identity) -> Value {
    let mut groups = vec![who.gid];
    groups.extend(who.groups.iter().filter(|g| **g != who.gid));
    json!({"uid": who.uid, "gid": who.gid, "additionalGids": groups})
}

/// `PATH`, `HOSTNAME`, `TERM`, then the user's; a later setting of a name replaces an earlier one in its place.
fn environment(spec: &ContainerSpec, who: &Identity) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={}", spec.hostname)];
    if spec.tty {
        env.push("TERM=xterm".into());
    }
    merge(&mut env, &spec.env);
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", who.home));
    }
    env
}

fn merge(env: &mut Vec<String>, more: &[String]) {
    for e in more {
        let name = e.split('=').next().unwrap_or(e);
        let same = |x: &String| x.split('=').next() == Some(name);
        match (env.iter().position(same), e.contains('=')) {
            (Some(i), true) => env[i].clone_from(e),
            // A name alone takes the variable away.
            (Some(i), false) => {
                env.remove(i);
            }
            (None, true) => env.push(e.clone()),
            (None, false) => {}
        }
    }
}

/// The five sets, limited to what the daemon has. A user other than root gets none that act until a file with
/// capabilities is executed, as the kernel would have it.
fn capabilities(spec: &ContainerSpec, host: &Host, who: &Identity) -> Result<Value> {
    let s = &spec.security;
    let set = caps::effective(s.privileged, &s.cap_add, &s.cap_drop)? & host.bounding;
    Ok(capability_sets(set, who.uid))
}

fn capability_sets(set: caps::Set, uid: u32) -> Value {
    let names = caps::names(set);
    let acting = if uid == 0 { names.clone() } else { Vec::new() };
    json!({"bounding": names, "permitted": acting, "effective": acting, "inheritable": [], "ambient": []})
}

fn limits(ulimits: &[Ulimit], host: &Host, warnings: &mut Vec<String>) -> Result<Vec<Value>> {
    ulimits
        .iter()
        .map(|u| {
            let name = LIMITS
                .iter()
                .find(|(n, _)| *n == u.name)
                .map(|(_, l)| *l)
                .ok_or_else(|| {
                    Error::invalid(format!("invalid ulimit type: {}", u.name)).at("HostConfig.Ulimits")
                })?;
            let value = |v: i64| if v < 0 { u64::MAX } else { v as u64 };
            let (mut soft, mut hard) = (value(u.soft), value(u.hard));
            if soft > hard {
                return Err(Error::invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
                )));
            }
            if let Some((_, most)) = host.hard_limits.iter().find(|(n, m)| *n == name && hard > *m) {
                warnings.push(format!(
                    "ulimit {}: this daemon may not raise its hard limit; {most} is used instead of {}",
                    u.name, u.hard
                ));
                hard = *most;
                soft = soft.min(hard);
            }
            Ok(json!({"type": name, "soft": soft, "hard": hard}))
        })
        .collect()
}

fn oom_score(wanted: i64, host: &Host, warnings: &mut Vec<String>) -> i64 {
    let can_lower = host.bounding & 1 << caps::bit("SYS_RESOURCE").unwrap_or(0) != 0;
    if wanted < host.oom_score_adj && !can_lower {
        if wanted != 0 {
            warnings.push(format!(
                "oom-score-adj: this daemon may not lower it; {} is used instead of {wanted}",
                host.oom_score_adj
            ));
        }
        return host.oom_score_adj;
    }
    wanted
}

/// The process of an exec, made from that of its container.
pub(crate) fn exec_process(
    base: &Value,
    request: &ExecRequest,
    who: Option<&Identity>,
    bounding: caps::Set,
) -> Result<Value> {
    if request.command.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    let mut p = base.clone();
    p["args"] = json!(request.command);
    p["terminal"] = json!(request.tty);
    if !request.working_dir.is_empty() {
        p["cwd"] = json!(in_container(&request.working_dir));
    }
    let mut env: Vec<String> = serde_json::from_value(p["env"].clone())?;
    let had_term = env.iter().any(|e| e.starts_with("TERM="));
    if request.tty && !had_term {
        env.push("TERM=xterm".into());
    }
    if let Some(who) = who {
        p["user"] = user(who);
        env.retain(|e| !e.starts_with("HOME="));
        env.push(format!("HOME={}", who.home));
    }
    merge(&mut env, &request.env);
    p["env"] = json!(env);
    let uid = p["user"]["uid"].as_u64().unwrap_or(0) as u32;
    if request.privileged {
        p["capabilities"] = capability_sets(caps::all() & bounding, uid);
        if let Some(o) = p.as_object_mut() {
            o.remove("apparmorProfile");
        }
    } else if who.is_some() {
        let names: Vec<String> = serde_json::from_value(p["capabilities"]["bounding"].clone())?;
        let set = names
            .iter()
            .filter_map(|n| caps::bit(n))
            .fold(0, |m, b| m | 1 << b);
        p["capabilities"] = capability_sets(set, uid);
    }
    Ok(p)
}

#[cfg(test)]
mod tests {
    use super::super::tests::host;
    use super::*;

    #[test]
    fn environment_in_dockers_order() {
        let spec = ContainerSpec {
            hostname: "h".into(),
            tty: true,
            env: vec!["A=1".into(), "PATH=/x".into(), "A=2".into(), "TERM".into()],
            ..ContainerSpec::default()
        };
        let who = Identity {
            home: "/root".into(),
            ..Identity::default()
        };
        assert_eq!(
            environment(&spec, &who),
            ["PATH=/x", "HOSTNAME=h", "A=2", "HOME=/root"]
        );
    }

    #[test]
    fn what_cannot_be_had_is_clamped_and_told() {
        let mut h = host();
        h.bounding &= !(1 << caps::bit("SYS_RESOURCE").unwrap());
        let mut w = Vec::new();
        let u = Ulimit {
            name: "nofile".into(),
            soft: 1 << 20,
            hard: -1,
        };
        let l = limits(&[u], &h, &mut w).unwrap();
        assert_eq!(
            (l[0]["soft"].as_u64(), l[0]["hard"].as_u64()),
            (Some(20_000), Some(20_000))
        );
        assert_eq!(oom_score(-500, &h, &mut w), 0);
        assert_eq!(w.len(), 2);
        assert!(
            limits(
                &[Ulimit {
                    name: "nope".into(),
                    soft: 1,
                    hard: 1
                }],
                &h,
                &mut w
            )
            .is_err()
        );
    }

    #[test]
    fn execs_inherit_and_override() {
        let base = json!({"args": ["a"], "env": ["PATH=/bin", "HOME=/root"], "cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": [], "ambient": []}});
        let r = ExecRequest {
            command: vec!["b".into()],
            tty: true,
            env: vec!["X=1".into()],
            ..ExecRequest::default()
        };
        let who = Identity {
            uid: 5,
            gid: 6,
            home: "/h".into(),
            ..Identity::default()
        };
        let p = exec_process(&base, &r, Some(&who), caps::all()).unwrap();
        assert_eq!(p["env"], json!(["PATH=/bin", "TERM=xterm", "HOME=/h", "X=1"]));
        assert_eq!(p["capabilities"]["effective"], json!([]));
        assert_eq!(p["capabilities"]["bounding"], json!(["CAP_KILL"]));
        let p = exec_process(
            &base,
            &ExecRequest {
                privileged: true,
                ..r
            },
            None,
            caps::all(),
        )
        .unwrap();
        assert_eq!(p["capabilities"]["effective"].as_array().unwrap().len(), 41);
        assert!(exec_process(&base, &ExecRequest::default(), None, 0).is_err());
    }
}
