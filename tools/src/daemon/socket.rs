//! Where the control socket comes from: made here, or passed by the service manager, who listens while no daemon runs and starts
//! one for whoever connects (`volmgrd.socket`). A passed one stays when the daemon ends.

use super::StartError;
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// A control socket that the service manager has passed.
#[derive(Debug)]
pub struct Passed {
    socket: Socket,
    /// Where clients connect to.
    pub path: PathBuf,
}

impl Passed {
    /// The one that has been passed, or `None`. To be called before the process opens anything.
    pub fn take() -> Result<Option<Self>, StartError> {
        let descriptors = super::sys::take_passed_descriptors()
            .map_err(|error| StartError::Passed(error.to_string()))?;
        Self::among(descriptors)
    }

    fn among(descriptors: Vec<OwnedFd>) -> Result<Option<Self>, StartError> {
        let refused = |why: &str| Err(StartError::Passed(why.to_owned()));
        let count = descriptors.len();
        let Some(descriptor) = descriptors.into_iter().next() else {
            return Ok(None);
        };
        if count > 1 {
            return refused("more than one, and only the control socket can be one");
        }
        let socket = Socket::from(descriptor);
        let known = |error: io::Error| StartError::Passed(error.to_string());
        if socket.domain().map_err(known)? != Domain::UNIX
            || socket.r#type().map_err(known)? != Type::STREAM
            || !socket.is_listener().map_err(known)?
        {
            return refused("it is not a Unix stream socket that listens");
        }
        let address = socket.local_addr().map_err(known)?;
        let Some(path) = address.as_pathname().map(Path::to_owned) else {
            return refused("it has no path, and clients connect to a path");
        };
        Ok(Some(Passed { socket, path }))
    }

    /// To accept clients on.
    pub fn listener(self) -> Result<UnixListener, StartError> {
        let failed = |error: io::Error| StartError::Passed(error.to_string());
        self.socket.set_nonblocking(true).map_err(failed)?;
        let descriptor = OwnedFd::from(self.socket);
        UnixListener::from_std(descriptor.into()).map_err(failed)
    }
}

/// Makes the runtime directory and the socket (mode 0600); takes the place of a dead socket.
pub fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |source: io::Error| StartError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
    }
    remove_dead(path)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener.map_err(failed)
}

/// Removes a socket that nobody listens on; refuses what is no socket or is alive.
pub fn remove_dead(path: &Path) -> Result<(), StartError> {
    match std::fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(StartError::Socket {
                path: path.to_owned(),
                source: io::Error::other("is there and is not a socket"),
            });
        }
        Ok(_) => {}
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(StartError::SocketInUse {
            path: path.to_owned(),
        });
    }
    std::fs::remove_file(path).map_err(|source| StartError::Socket {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as StdListener;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn refused(descriptors: Vec<OwnedFd>) -> String {
        Passed::among(descriptors).unwrap_err().to_string()
    }

    #[test]
    fn what_is_passed_must_be_one_socket_that_listens_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = || StdListener::bind(&path).unwrap();
        assert!(Passed::among(Vec::new()).unwrap().is_none());
        let first: OwnedFd = listener().into();
        let second = first.try_clone().unwrap();
        assert!(refused(vec![first, second]).contains("more than one"));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(refused(vec![stream.into()]).contains("not a Unix stream socket that listens"));
        let datagrams = UnixDatagram::bind(folder.path().join("datagrams")).unwrap();
        assert!(refused(vec![datagrams.into()]).contains("not a Unix stream"));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(refused(vec![tcp.into()]).contains("not a Unix stream"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(refused(vec![file.into()]).contains("socket"));
        std::fs::remove_file(&path).unwrap();
        let passed = Passed::among(vec![listener().into()]).unwrap().unwrap();
        assert_eq!(passed.path, path);
    }
}
