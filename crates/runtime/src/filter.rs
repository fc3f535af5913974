//! System call filters: a seccomp profile of the OCI specification, compiled to the program that the kernel runs.
//!
//! Compiling costs milliseconds, and most containers have the same profile: the daemon does it once and keeps the
//! program, in a file named after its content; the process that is to be filtered only loads it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::MemfdFlags;
use serde_json::Value;
use tripod_model::{Error, Result};

/// Profiles remembered; a machine has few different ones.
const KEPT: usize = 64;
/// Bytes before the program in a filter's file: the flags of `seccomp(2)`, little-endian.
const FLAGS: usize = 4;
/// Bytes of one instruction (`struct sock_filter`).
const INSTRUCTION: usize = 8;

/// Compiled profiles.
pub(crate) struct Filters {
    dir: PathBuf,
    /// Files by the text of their profile.
    known: Mutex<HashMap<String, PathBuf>>,
}

impl Filters {
    /// Filters in files of this directory, which is made when the first one is needed and does not outlive the machine.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            known: Mutex::default(),
        }
    }

    /// The file with a profile's flags and program. `None` for a profile that is null.
    pub(crate) fn compiled(&self, profile: &Value) -> Result<Option<PathBuf>> {
        if profile.is_null() {
            return Ok(None);
        }
        let text = profile.to_string();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known.get(&text) {
            return Ok(Some(path.clone()));
        }
        let parsed: LinuxSeccomp =
            serde_json::from_value(profile.clone()).map_err(|e| bad(format!("seccomp profile: {e}")))?;
        let path = self.write(&compile(&parsed)?)?;
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(text, path.clone());
        Ok(Some(path))
    }

    /// Whole or not at all: processes of an earlier daemon's containers may read the file at this moment.
    fn write(&self, program: &[u8]) -> Result<PathBuf> {
        let digest = ring::digest::digest(&ring::digest::SHA256, program);
        let path = self.dir.join(hex::encode(digest));
        let draft = path.with_extension("new");
        std::fs::create_dir_all(&self.dir)?;
        std::fs::write(&draft, program)?;
        std::fs::rename(&draft, &path)?;
        Ok(path)
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::invalid(why.into()).at("HostConfig.SecurityOpt")
}

/// Flags and program of a profile.
fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let fault = |e: libseccomp::error::SeccompError| Error::internal(format!("seccomp: {e}"));
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(fault)?;
    for arch in profile.architectures().iter().flatten() {
        let name = serde_json::to_value(arch)?;
        let name = name.as_str().unwrap_or_default();
        let arch: ScmpArch = name
            .parse()
            .map_err(|_| bad(format!("seccomp profile: unknown architecture {name}")))?;
        context.add_arch(arch).map_err(fault)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let wanted = action(rule.action(), rule.errno_ret())?;
        // The library refuses rules that say what holds anyway.
        if wanted != default {
            add(&mut context, rule, wanted).map_err(fault)?;
        }
    }
    let mut file =
        File::from(rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    file.write_all(&flags(profile).to_le_bytes())?;
    context.export_bpf(&file).map_err(fault)?;
    let mut out = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut out)?;
    Ok(out)
}

fn add(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    wanted: ScmpAction,
) -> std::result::Result<(), libseccomp::error::SeccompError> {
    let compare: Vec<ScmpArgCompare> = rule
        .args()
        .iter()
        .flatten()
        .map(|a| {
            ScmpArgCompare::new(
                a.index() as u32,
                operator(a.op(), a.value_two().unwrap_or(0)),
                a.value(),
            )
        })
        .collect();
    let indexes: std::collections::HashSet<_> = rule.args().iter().flatten().map(|a| a.index()).collect();
    for name in rule.names() {
        // Profiles name calls of all kernels and architectures; those unknown here cannot be made either.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        if indexes.len() == compare.len() {
            context.add_rule_conditional(wanted, call, &compare)?;
        } else {
            // Two conditions on one argument cannot be in one rule: each becomes a rule of its own, as in runc.
            for c in &compare {
                context.add_rule_conditional(wanted, call, std::slice::from_ref(c))?;
            }
        }
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let errno = errno.and_then(|e| i32::try_from(e).ok()).unwrap_or(libc::EPERM);
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActNotify => {
            return Err(bad(
                "seccomp profile: SCMP_ACT_NOTIFY needs an agent, which this runtime does not serve",
            ));
        }
    })
}

fn operator(op: LinuxSeccompOperator, second: u64) -> ScmpCompareOp {
    match op {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(second),
    }
}

/// Flags for `seccomp(2)`. The others concern threads, of which there is one, and agents.
fn flags(profile: &LinuxSeccomp) -> u32 {
    let bit = |f: &LinuxSeccompFilterFlag| match f {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
        _ => 0,
    };
    profile.flags().iter().flatten().map(bit).fold(0, |a, b| a | b)
}

/// Puts this process under a filter, given the content of its file. Needs CAP_SYS_ADMIN or `no_new_privs`.
pub(crate) fn load(file: &[u8]) -> io::Result<()> {
    let (Some((flags, program)), true) = (file.split_at_checked(FLAGS), cfg!(target_endian = "little"))
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let flags = u32::from_le_bytes(flags.try_into().map_err(|_| io::ErrorKind::InvalidData)?);
    let mut instructions: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|i| libc::sock_filter {
            code: u16::from_le_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_le_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidData)?,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live until the call returns; the kernel checks and copies them.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    if r == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_profile_is_compiled_once() {
        let dir = tempfile::tempdir().unwrap();
        let filters = Filters::new(dir.path().join("filters"));
        let profile = crate::spec::seccomp::default_profile(0);
        let path = filters.compiled(&profile).unwrap().unwrap();
        let file = std::fs::read(&path).unwrap();
        assert_eq!((file.len() - FLAGS) % INSTRUCTION, 0);
        assert!(file.len() > 1000);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(filters.compiled(&profile).unwrap(), Some(path.clone()));
        assert!(!path.exists());
        // Another daemon comes to the same name.
        assert_eq!(
            Filters::new(dir.path().join("filters"))
                .compiled(&profile)
                .unwrap(),
            Some(path)
        );
        assert!(filters.compiled(&Value::Null).unwrap().is_none());
    }

    fn compiled(profile: &Value) -> Result<Vec<u8>> {
        compile(&serde_json::from_value(profile.clone())?)
    }

    #[test]
    fn flags_and_conditions() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "architectures": ["SCMP_ARCH_NATIVE"],
            "syscalls": [
                {"names": ["personality", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]},
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            ],
        });
        let file = compiled(&profile).unwrap();
        assert_eq!(
            file[..FLAGS],
            (libc::SECCOMP_FILTER_FLAG_LOG as u32).to_le_bytes()
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for profile in [
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONE"]}),
            json!({"defaultAction": "nonsense"}),
        ] {
            let e = Filters::new("/nowhere".into()).compiled(&profile).unwrap_err();
            assert!(e.message.contains("seccomp"), "{}", e.message);
        }
    }

    #[test]
    fn a_filter_acts_on_the_process_that_loads_it() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}],
        });
        let file = compiled(&profile).unwrap();
        // SAFETY: the child only makes system calls and leaves by `_exit`.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let loaded = nix::sys::prctl::set_no_new_privs().is_ok() && load(&file).is_ok();
                // SAFETY: a plain system call, whose error is the answer; leaves without exit handlers.
                unsafe {
                    let r = libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0);
                    let refused = r == -1 && *libc::__errno_location() == 71;
                    libc::_exit(i32::from(!(loaded && refused)))
                }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }
}
