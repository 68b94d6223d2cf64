//! Where a connection to a peer starts.

use serde::Deserialize;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use tokio::net::{TcpSocket, TcpStream};

/// Longest name of a network interface, in bytes.
const INTERFACE_MAX: usize = libc::IFNAMSIZ - 1;

/// An address of this node, or a network interface, that connections start from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum From {
    /// This address.
    Address(IpAddr),
    /// Whatever address this interface has; nothing leaves by another one, whatever the routes say.
    Interface(String),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let ok = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        match (1..=INTERFACE_MAX).contains(&text.len()) && text.chars().all(ok) {
            true => Ok(Self::Interface(text.to_owned())),
            false => Err(format!(
                "`{text}` is neither an address nor a network interface"
            )),
        }
    }
}

impl TryFrom<String> for From {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// Connects, from there if somewhere is named.
pub(super) async fn connect_tcp(address: SocketAddr, from: Option<&From>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    match from {
        None => {}
        Some(From::Address(local)) => socket.bind(SocketAddr::new(*local, 0))?,
        Some(From::Interface(name)) => socket.bind_device(Some(name.as_bytes()))?,
    }
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_start_where_they_are_told_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let from: From = "127.0.0.9".parse().unwrap();
        let _near = connect_tcp(address, Some(&from)).await.unwrap();
        let (_far, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), "127.0.0.9".parse::<IpAddr>().unwrap());
        let other_family: From = "::1".parse().unwrap();
        assert!(connect_tcp(address, Some(&other_family)).await.is_err());
        let nowhere = From::Interface("no-such-link".into());
        assert!(connect_tcp(address, Some(&nowhere)).await.is_err());
    }
}
