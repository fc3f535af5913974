//! Sockets: bound, with the rights they must have, and removed at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::Address;

/// A bound socket, with TLS or without.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "removes the file when it is dropped")] SocketFile,
    ),
}

/// Removes the socket's file when the listener goes, if it still is this listener's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).ok() == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::symlink_metadata(path)?.ino())
}

/// A connection in the clear.
pub(crate) enum Stream {
    Tcp(TcpStream, std::net::SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Binds an address. A unix socket gets mode 0660 and the group `docker` where there is one; a file left by a
    /// process that is gone is replaced, one that is served is an error.
    pub async fn bind(address: &Address, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp { host, port } => Socket::Tcp(TcpListener::bind((host.as_str(), *port)).await?),
            Address::Unix(path) => bind_unix(path).await?,
        };
        Ok(Self { socket, tls })
    }

    /// A socket that was bound elsewhere and does not block. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn of(socket: std::net::TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        let socket = Socket::Tcp(TcpListener::from_std(socket)?);
        Ok(Self { socket, tls })
    }

    /// The address bound, for TCP (port 0 was replaced by the real one).
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(l) => l.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(l) => {
                let (stream, peer) = l.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream, peer))
            }
            Socket::Unix(l, _) => Ok(Stream::Unix(l.accept().await?.0)),
        }
    }
}

/// Binds under another name, sets the rights, then moves it to its place: nobody can connect in between, and what
/// a dead process left is replaced.
async fn bind_unix(path: &Path) -> io::Result<Socket> {
    match std::fs::symlink_metadata(path) {
        Ok(m) if !m.file_type().is_socket() => {
            let text = format!("{} exists and is not a socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            let text = format!("another process serves {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        _ => {}
    }
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let temporary = parent.join(format!(".{:x}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    let placed = (|| {
        std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o660))?;
        if let Some(gid) = group_id("docker") {
            // Only root may give a file to a group it is not in; without that the socket stays the user's own.
            let _ = chown(&temporary, None, Some(gid));
        }
        std::fs::rename(&temporary, path)?;
        inode(path)
    })();
    match placed {
        Ok(inode) => Ok(Socket::Unix(
            listener,
            SocketFile {
                path: path.to_owned(),
                inode,
            },
        )),
        Err(e) => {
            let _ = std::fs::remove_file(&temporary);
            Err(e)
        }
    }
}

/// The number of a group of `/etc/group`.
fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}
