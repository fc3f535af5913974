//! Device rules of cgroup version 2: a small program in the kernel that is asked for every use of a device.
//!
//! Version 2 has no control file for devices. The rules become instructions, loaded and attached to the cgroup with
//! `bpf(2)`; the program lives as long as the cgroup. Numbers and layouts are those of `linux/bpf.h`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use tripod_model::{Error, Result};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above are asked too, and each must agree.
const ALLOW_MULTI: u32 = 2;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers while the rules are gone through.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

fn load(to: u8, offset: i16) -> Instruction {
    instruction(0x61, to, CONTEXT, offset, 0)
}

fn and(register: u8, mask: i32) -> Instruction {
    instruction(0x54, register, 0, 0, mask)
}

fn unless_equal(register: u8, value: i32) -> Instruction {
    instruction(0x55, register, 0, 0, value)
}

/// Ends with this result: 1 allows, 0 refuses.
fn end(result: i32) -> [Instruction; 2] {
    [
        instruction(0xb7, RESULT, 0, 0, result),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// The program for rules such as `c 1:3 rwm`, all of which allow. What no rule allows is refused.
fn program(rules: &[String]) -> Option<Vec<Instruction>> {
    let mut all = vec![
        load(KIND, 0),
        and(KIND, 0xffff),
        load(ACCESS, 0),
        instruction(0x74, ACCESS, 0, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules {
        let start = all.len();
        condition(rule, &mut all)?;
        // A condition that does not hold leads past the end of its rule.
        let after = all.len() + 2;
        for (at, i) in all.iter_mut().enumerate().skip(start) {
            if matches!(i.code, 0x55 | 0x5d) {
                i.offset = i16::try_from(after - at - 1).ok()?;
            }
        }
        all.extend(end(1));
    }
    all.extend(end(0));
    Some(all)
}

/// What must hold for a rule, as jumps that are taken when it does not.
fn condition(rule: &str, all: &mut Vec<Instruction>) -> Option<()> {
    let mut words = rule.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    match kind {
        "b" => all.push(unless_equal(KIND, BLOCK)),
        "c" => all.push(unless_equal(KIND, CHARACTER)),
        _ => {}
    }
    let granted = access.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => MAKE,
            'r' => READ,
            _ => WRITE,
        }
    });
    if granted != MAKE | READ | WRITE {
        // All that is asked for must be among what is granted. The context has been read: its register is free.
        all.push(instruction(0xbc, CONTEXT, ACCESS, 0, 0));
        all.push(and(CONTEXT, granted));
        all.push(instruction(0x5d, CONTEXT, ACCESS, 0, 0));
    }
    let (major, minor) = numbers.split_once(':')?;
    for (register, number) in [(MAJOR, major), (MINOR, minor)] {
        if number != "*" {
            all.push(unless_equal(register, number.parse().ok()?));
        }
    }
    Some(())
}

/// Lets the processes of a cgroup (its directory below a mount of version 2) use these devices only.
pub(super) fn allow_devices(dir: &Path, rules: &[String]) -> Result<()> {
    let program = program(rules).ok_or_else(|| Error::internal(format!("device rules: {rules:?}")))?;
    let why = |what: &str| {
        let text = format!("device rules of cgroup {}: {what}", dir.display());
        move |e: io::Error| Error::internal(format!("{text}: {e}"))
    };
    let loaded = load_program(&program).map_err(why("the kernel refuses the program"))?;
    let cgroup = std::fs::File::open(dir).map_err(why("cannot open"))?;
    attach(&cgroup, &loaded).map_err(why("cannot attach the program"))
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[allow(unsafe_code)]
fn load_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the attributes have the layout of the kernel's union for this command, and point to memory that outlives
    // the call; the kernel copies it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[allow(unsafe_code)]
fn attach(cgroup: &std::fs::File, program: &OwnedFd) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the attributes have the layout of the kernel's union for this command; both descriptors are open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attributes,
            size_of::<Attach>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would: the few instructions that are made here.
    fn allows(rules: &[&str], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        let program = program(&rules).unwrap();
        let context = [access << 16 | kind, major, minor];
        let mut r = [0_i32; 16];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                0x61 => r[to] = context[usize::try_from(i.offset / 4).unwrap()],
                0x54 => r[to] &= i.immediate,
                0x74 => r[to] >>= i.immediate,
                0xbc => r[to] = r[from],
                0xb7 => r[to] = i.immediate,
                0x55 if r[to] != i.immediate => at += usize::try_from(i.offset).unwrap(),
                0x5d if r[to] != r[from] => at += usize::try_from(i.offset).unwrap(),
                0x55 | 0x5d => {}
                0x95 => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn rules_decide() {
        let rules = ["c *:* m", "c 1:3 rwm", "b 8:* r", "c 136:* rwm"];
        for (kind, access, major, minor, expected) in [
            (CHARACTER, READ | WRITE, 1, 3, true),
            (CHARACTER, READ, 1, 11, false),
            (CHARACTER, MAKE, 1, 11, true),
            (CHARACTER, MAKE | READ, 1, 11, false),
            (BLOCK, READ, 8, 1, true),
            (BLOCK, READ | WRITE, 8, 1, false),
            (BLOCK, READ, 1, 3, false),
            (CHARACTER, WRITE, 136, 9, true),
        ] {
            assert_eq!(
                allows(&rules, kind, access, major, minor),
                expected,
                "{kind} {access} {major}:{minor}"
            );
        }
        assert!(allows(&["a *:* rwm"], BLOCK, WRITE, 8, 0));
        assert!(!allows(&[], CHARACTER, READ, 1, 3));
    }
}
