//! Finding and executing the user's command, with the error texts that Docker's clients look for
//! (`executable file not found in $PATH` becomes exit code 127, `permission denied` 126).

use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Failure;

/// A command that was found, ready for `execve`.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    path: CString,
    argv: Vec<CString>,
    envp: Vec<CString>,
    name: String,
}

impl Command {
    /// Looks a command up in the `PATH` of its own environment, inside the root that the caller is in.
    pub(crate) fn find(args: &[String], env: &[String]) -> Result<Self, Failure> {
        let name = args
            .first()
            .ok_or_else(|| Failure::invalid("no command specified"))?;
        let path = lookup(name, env)?;
        let c = |s: &[u8]| {
            CString::new(s).map_err(|_| Failure::invalid(format!("exec: {name:?}: invalid argument")))
        };
        Ok(Self {
            path: c(path.as_os_str().as_bytes())?,
            argv: args.iter().map(|a| c(a.as_bytes())).collect::<Result<_, _>>()?,
            envp: env.iter().map(|a| c(a.as_bytes())).collect::<Result<_, _>>()?,
            name: path.display().to_string(),
        })
    }

    /// Becomes the command; returns only to tell why not.
    pub(crate) fn execute(&self) -> Failure {
        let r: nix::Result<Infallible> = nix::unistd::execve(&self.path, &self.argv, &self.envp);
        let e = r.err().unwrap_or(nix::Error::EINVAL);
        Failure::invalid(format!("exec {}: {}", self.name, e.desc().to_lowercase()))
    }
}

/// Go's `exec.LookPath` with the errors that runc shows.
fn lookup(name: &str, env: &[String]) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        let path = Path::new(name);
        return check(path).map(|()| path.to_owned()).map_err(|why| {
            let op = if why == "no such file or directory" || why == "not a directory" {
                "stat "
            } else {
                ""
            };
            let shown = if op.is_empty() {
                String::new()
            } else {
                format!("{op}{name}: ")
            };
            Failure::invalid(format!("exec: {name:?}: {shown}{why}"))
        });
    }
    let paths = env
        .iter()
        .rev()
        .find_map(|e| e.strip_prefix("PATH="))
        .unwrap_or("");
    let mut denied = false;
    for dir in paths.split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&path) {
            Ok(()) => return Ok(path),
            Err("permission denied") => denied = true,
            Err(_) => {}
        }
    }
    Err(Failure::invalid(if denied && !name.is_empty() {
        format!("exec: {name:?}: permission denied")
    } else {
        format!("exec: {name:?}: executable file not found in $PATH")
    }))
}

fn check(path: &Path) -> Result<(), &'static str> {
    let meta = std::fs::metadata(path).map_err(|e| match e.raw_os_error() {
        Some(libc::EACCES) => "permission denied",
        Some(libc::ENOTDIR) => "not a directory",
        Some(libc::ELOOP) => "too many levels of symbolic links",
        _ => "no such file or directory",
    })?;
    if meta.is_dir() {
        return Err("is a directory: permission denied");
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("permission denied");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(args: &[&str], path: &str) -> String {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        Command::find(&args, &[format!("PATH={path}")])
            .unwrap_err()
            .message
    }

    #[test]
    fn the_words_of_dockers_clients() {
        assert_eq!(
            error(&["nope"], "/usr/bin:/bin"),
            "exec: \"nope\": executable file not found in $PATH"
        );
        assert_eq!(
            error(&["/nope"], ""),
            "exec: \"/nope\": stat /nope: no such file or directory"
        );
        assert_eq!(
            error(&["/etc/passwd"], ""),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(
            error(&["/etc"], ""),
            "exec: \"/etc\": is a directory: permission denied"
        );
        assert_eq!(error(&["passwd"], "/etc"), "exec: \"passwd\": permission denied");
        assert_eq!(error(&[], ""), "no command specified");
    }

    #[test]
    fn the_last_path_counts() {
        let args = ["sh".to_owned()];
        assert!(Command::find(&args, &["PATH=/nope".into(), "PATH=/bin".into()]).is_ok());
    }
}
