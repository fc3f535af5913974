//! Memory of the program that it need not hold: its own code, and what was freed.
//!
//! Code that ran once, at start or for a rare call, stays mapped in the process and counts as resident, though nobody
//! needs it: of this program that is most of what is resident when it is idle. The pages are those of a file, so letting
//! go of them costs nothing but a short fault for each that is needed again.

#![allow(unsafe_code)]

use std::io;

/// A mapping of a file that holds nothing of this process's own.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
}

/// Unmaps the pages of code and constants of all files mapped into this process; each comes back when it is used.
///
/// # Errors
/// When the list of mappings cannot be read.
pub fn let_go_of_code() -> io::Result<()> {
    for m in clean(&std::fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: the mapping is of a file, cannot be written and has no page that differs from the file, so every page
        // that is dropped is read again as it was. A mapping that is gone by now makes the call fail, which changes
        // nothing.
        unsafe { libc::madvise(m.start as *mut libc::c_void, m.end - m.start, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Gives memory that was freed back to the kernel. What many objects or long answers took stays with the allocator
/// otherwise, and counts as resident, until it is used again. Takes some milliseconds per hundred megabytes.
pub fn give_back_freed() {
    // SAFETY: it takes the allocator's own locks and touches nothing that is in use. That there was nothing to give back
    // (its result) needs no answer.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Mappings of files without write permission and without anonymous pages (those of relocated data, say).
fn clean(smaps: &str) -> Vec<Mapping> {
    let mut all = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(m) = head(line) {
            current = m;
        } else if line.split_whitespace().take(2).eq(["Anonymous:", "0"])
            && let Some(m) = current.take()
        {
            all.push(m);
        }
    }
    all
}

/// The first line of a mapping (`None` for other lines); `Some(None)` for one that is not to be touched.
fn head(line: &str) -> Option<Option<Mapping>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |s| usize::from_str_radix(s, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let permissions = fields.next()?;
    let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let plain = permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p');
    Some((is_file && plain).then_some(Mapping { start, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_pages_of_files() {
        let smaps = "\
1000-2000 r-xp 00000000 fe:00 1 /usr/bin/x
Rss:                   4 kB
Anonymous:             0 kB
2000-3000 r--p 00001000 fe:00 1 /usr/bin/x
Anonymous:             4 kB
3000-4000 rw-p 00002000 fe:00 1 /usr/bin/x
Anonymous:             0 kB
4000-5000 r--p 00000000 00:00 0
Anonymous:             0 kB
5000-6000 r--s 00000000 fe:00 2 /data/store
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";
        let one = Mapping {
            start: 0x1000,
            end: 0x2000,
        };
        assert_eq!(clean(smaps), [one]);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn freed_memory_goes_back() {
        let anonymous = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        // Small pieces with one that is kept at their end, so that the heap cannot simply become shorter.
        let mut pieces: Vec<Vec<u8>> = (0..32_000).map(|_| vec![1; 1024]).collect();
        let kept = pieces.split_off(31_999);
        drop(pieces);
        let before = anonymous();
        give_back_freed();
        let after = anonymous();
        assert!(after + 16_000 < before, "{before} kB, then {after} kB");
        drop(kept);
    }

    #[test]
    fn the_program_goes_on() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|l| l.starts_with("RssFile:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        let_go_of_code().unwrap();
        assert!(resident() < before);
    }
}
