//! `[feeds]` of the configuration file: how this node's feeds use the network.

use feedplex::transport::From;
use feedplex::transport::ktls::DEFAULT_KEY_BYTES;
use serde::Deserialize;
use std::net::SocketAddr;

/// Most bulk connections of one feed.
const BULK_STREAMS_MAX: u16 = 16;

/// `[feeds]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedsConfig {
    /// Connections for full sync and resync, besides the one for live writes. The source's number counts.
    pub bulk_streams: u16,
    /// Where connections to peers start: an address of this node, or the name of a network interface.
    pub from: Option<From>,
    /// The same for data streams, where they start elsewhere.
    pub data_from: Option<From>,
    /// More places where peers connect to, besides `listen`: addresses on the payload's own network.
    pub data_listen: Vec<SocketAddr>,
    /// Let the kernel make TLS records where it can.
    pub kernel_tls: bool,
    /// Bytes sent under one key of kernel TLS; then the connection is made anew.
    pub kernel_tls_key_bytes: u64,
}

impl Default for FeedsConfig {
    fn default() -> Self {
        Self {
            bulk_streams: 1,
            from: None,
            data_from: None,
            data_listen: Vec::new(),
            kernel_tls: true,
            kernel_tls_key_bytes: DEFAULT_KEY_BYTES,
        }
    }
}

impl FeedsConfig {
    /// Is every value one that can be worked with? Else what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=BULK_STREAMS_MAX).contains(&self.bulk_streams) {
            return Err(format!(
                "feeds.bulk_streams is {}, must be 1 to {BULK_STREAMS_MAX}",
                self.bulk_streams
            ));
        }
        // Less would be nothing but handshakes; more than the default is more than AES-GCM is good for.
        if !((1 << 20)..=DEFAULT_KEY_BYTES).contains(&self.kernel_tls_key_bytes) {
            return Err(format!(
                "feeds.kernel_tls_key_bytes is {}, must be {} to {DEFAULT_KEY_BYTES}",
                self.kernel_tls_key_bytes,
                1 << 20
            ));
        }
        Ok(())
    }

    /// Data streams of a feed whose source is here, the live stream included.
    pub fn streams(&self) -> u16 {
        self.bulk_streams + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FeedsConfig, String> {
        let config: FeedsConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn values_are_held_to_their_bounds() {
        assert_eq!(parse(""), Ok(FeedsConfig::default()));
        let config = parse(
            "bulk_streams = 4\nfrom = \"192.0.2.1\"\ndata_from = \"eth1\"\ndata_listen = [\"[2001:db8::1]:7750\"]\n\
             kernel_tls = false\nkernel_tls_key_bytes = 1048576\n",
        )
        .unwrap();
        assert_eq!(config.streams(), 5);
        assert_eq!(
            config.from,
            Some(From::Address("192.0.2.1".parse().unwrap()))
        );
        assert_eq!(config.data_from, Some(From::Interface("eth1".into())));
        for bad in [
            "bulk_streams = 0",
            "bulk_streams = 17",
            "kernel_tls_key_bytes = 4096",
            "kernel_tls_key_bytes = 68719476737",
            "data_listen = [\"eth1\"]",
            "data_from = \"a name that is too long for an interface\"",
            "from = \"\"",
            "stream = 1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
