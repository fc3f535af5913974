//! New limits laid over those that a container has.

use tripod_agent::UpdateContainer;
use tripod_model::container::Resources;
use tripod_model::{Error, Result};

use super::{create, resources};
use crate::wire::container::UpdateBody;

/// What an update asks for; zero and empty leave what is.
pub(crate) fn update(old: &Resources, u: &UpdateBody, warnings: &mut Vec<String>) -> Result<UpdateContainer> {
    let mut new = old.clone();
    let set = |slot: &mut i64, value: i64| {
        if value != 0 {
            *slot = value;
        }
    };
    set(&mut new.memory, u.memory);
    set(&mut new.memory_swap, u.memory_swap);
    set(&mut new.memory_reservation, u.memory_reservation);
    set(&mut new.cpu_shares, u.cpu_shares);
    set(&mut new.cpu_period, u.cpu_period);
    set(&mut new.cpu_quota, u.cpu_quota);
    set(&mut new.cpu_realtime_period, u.cpu_realtime_period);
    set(&mut new.cpu_realtime_runtime, u.cpu_realtime_runtime);
    if u.nano_cpus != 0 {
        if old.cpu_period > 0 || old.cpu_quota > 0 {
            let which = if old.cpu_period > 0 {
                "CPU Period"
            } else {
                "CPU Quota"
            };
            return Err(Error::invalid(format_args!(
                "Conflicting options: Nano CPUs cannot be updated as {which} has already been set"
            )));
        }
        new.nano_cpus = u.nano_cpus;
    }
    if (u.cpu_period != 0 || u.cpu_quota != 0) && old.nano_cpus > 0 {
        return Err(Error::invalid(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ));
    }
    if u.blkio_weight != 0 {
        new.blkio_weight = u.blkio_weight;
    }
    for (slot, value) in [
        (&mut new.cpuset_cpus, &u.cpuset_cpus),
        (&mut new.cpuset_mems, &u.cpuset_mems),
    ] {
        if !value.is_empty() {
            slot.clone_from(value);
        }
    }
    if u.pids_limit.is_some() {
        new.pids_limit = u.pids_limit;
    }
    if u.memory > 0 && u.memory_swap == 0 && old.memory_swap > 0 && old.memory_swap < u.memory {
        return Err(Error::invalid(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        )
        .at("Memory"));
    }
    resources::check(&new, true, warnings)?;
    let restart = match u.restart_policy.name.as_str() {
        "" => None,
        _ => Some(create::restart_policy(&u.restart_policy)?),
    };
    Ok(UpdateContainer {
        resources: (new != *old).then_some(new),
        restart,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;

    #[test]
    fn only_what_is_named_changes() {
        let old = Resources {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            cpu_shares: 5,
            ..Resources::default()
        };
        let of = |json: &str| {
            update(
                &old,
                &decode::<UpdateBody>(json.as_bytes()).unwrap(),
                &mut Vec::new(),
            )
        };
        let new = of(r#"{"Memory":33554432,"PidsLimit":7}"#).unwrap();
        let r = new.resources.unwrap();
        assert_eq!((r.memory, r.cpu_shares, r.pids_limit), (32 << 20, 5, Some(7)));
        assert!(of("{}").unwrap().resources.is_none());
        assert!(of(r#"{"Memory":5}"#).is_err());
        assert!(
            of(r#"{"Memory":1073741824}"#)
                .unwrap_err()
                .message
                .contains("smaller than already set memoryswap")
        );
        assert!(of(r#"{"RestartPolicy":{"Name":"x"}}"#).is_err());
    }
}
