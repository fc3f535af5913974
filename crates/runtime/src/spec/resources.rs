//! Limits as the OCI spec has them, for other OCI runtimes (the built-in one sets limits itself).

use serde_json::{Value, json};
use tripod_model::Result;
use tripod_model::container::Resources;

use crate::cgroup::Limits;

pub(super) fn render(r: &Resources, rules: &[String]) -> Result<Value> {
    let l = Limits::of(r)?;
    let mut out = json!({
        "memory": {"limit": l.memory, "reservation": l.memory_reservation, "swap": l.memory_swap,
            "swappiness": l.swappiness, "disableOOMKiller": l.oom_kill_disable.then_some(true)},
        "cpu": {"shares": l.cpu_shares, "quota": l.cpu_quota, "period": l.cpu_period,
            "cpus": (!l.cpus.is_empty()).then_some(&l.cpus), "mems": (!l.mems.is_empty()).then_some(&l.mems)},
        "pids": l.pids.map(|p| json!({"limit": p})),
        "blockIO": {"weight": l.blkio_weight},
    });
    let names = [
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ];
    for (name, (_, _, lines)) in names.iter().zip(&l.throttle) {
        let devices: Vec<Value> = lines.iter().filter_map(|line| throttle(line)).collect();
        if !devices.is_empty() {
            out["blockIO"][name] = json!(devices);
        }
    }
    out["devices"] = json!(
        std::iter::once(json!({"allow": false, "access": "rwm"}))
            .chain(rules.iter().filter_map(|r| rule(r)))
            .collect::<Vec<_>>()
    );
    Ok(without_nulls(out))
}

fn throttle(line: &str) -> Option<Value> {
    let (device, rate) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    Some(
        json!({"major": major.parse::<i64>().ok()?, "minor": minor.parse::<i64>().ok()?, "rate": rate.parse::<u64>().ok()?}),
    )
}

/// `c 1:3 rwm`, `a *:* rwm` or `a`.
fn rule(text: &str) -> Option<Value> {
    let mut f = text.split_whitespace();
    let kind = f.next()?;
    let (major, minor) = f.next().unwrap_or("*:*").split_once(':')?;
    let number = |n: &str| n.parse::<i64>().ok();
    Some(without_nulls(
        json!({"allow": true, "type": kind, "major": number(major), "minor": number(minor), "access": f.next().unwrap_or("rwm")}),
    ))
}

fn without_nulls(v: Value) -> Value {
    match v {
        Value::Object(o) => Value::Object(
            o.into_iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k, without_nulls(v)))
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_rules() {
        let r = Resources {
            memory: 1 << 20,
            pids_limit: Some(5),
            nano_cpus: 500_000_000,
            ..Resources::default()
        };
        let v = render(&r, &["c 1:3 rwm".into(), "c *:* m".into()]).unwrap();
        let parsed: oci_spec::runtime::LinuxResources = serde_json::from_value(v.clone()).unwrap();
        assert_eq!(parsed.memory().unwrap().limit(), Some(1 << 20));
        assert_eq!(v["cpu"], json!({"quota": 50_000, "period": 100_000}));
        assert_eq!(
            v["devices"][2],
            json!({"allow": true, "type": "c", "access": "m"})
        );
    }
}
