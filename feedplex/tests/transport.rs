//! Who gets a connection and who does not.

mod support;

use feedplex::identity::Fingerprint;
use feedplex::transport::{Security, SocketOptions, TransportError, connect, tls};
use std::time::{Duration, Instant};
use support::{MAGIC, PATIENCE, acceptor, identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_peer_that_is_not_known_is_refused_and_both_sides_say_so() {
    let (client, server) = (identity(), identity());
    let acceptor = acceptor(&server, &[identity().fingerprint()], true);
    let (listener, address) = listener().await;
    let config = tls::client_config(&client, server.fingerprint()).unwrap();
    let (security, options) = (Security::Tls(config), SocketOptions::default());
    let (accepted, connected) = tokio::join!(
        async {
            let (tcp, from) = listener.accept().await.unwrap();
            acceptor.accept::<8>(tcp, from).await
        },
        connect(address, None, &security, &options, PATIENCE),
    );
    match accepted {
        Err(TransportError::UnknownPeer(found)) => assert_eq!(found, client.fingerprint()),
        other => panic!("{other:?}"),
    }
    let refused = connected.unwrap_err();
    assert!(
        matches!(refused, TransportError::RefusedByPeer),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_with_another_key_is_not_talked_to() {
    let (client, server) = (identity(), identity());
    let acceptor = acceptor(&server, &[client.fingerprint()], true);
    let (listener, address) = listener().await;
    let pinned = Fingerprint::from_bytes([7; 32]);
    let config = tls::client_config(&client, pinned).unwrap();
    let (security, options) = (Security::Tls(config), SocketOptions::default());
    let (accepted, connected) = tokio::join!(
        async {
            let (tcp, from) = listener.accept().await.unwrap();
            acceptor.accept::<8>(tcp, from).await
        },
        connect(address, None, &security, &options, PATIENCE),
    );
    assert!(accepted.is_err());
    match connected.unwrap_err() {
        TransportError::WrongPeer { expected, found } => {
            assert_eq!((expected, found), (pinned, server.fingerprint()));
        }
        other => panic!("{other:?}"),
    }
}

/// What the acceptor says to a client that sends these bytes, and what the client then reads.
async fn after_sending(bytes: &[u8], plaintext: bool) -> (TransportError, Vec<u8>) {
    let server = identity();
    let acceptor = acceptor(&server, &[], plaintext);
    let (listener, address) = listener().await;
    let client = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset says "closed", too.
        let _ = tcp.read_to_end(&mut answer).await;
        answer
    };
    let server = async {
        let (tcp, from) = listener.accept().await.unwrap();
        acceptor.accept::<12>(tcp, from).await.unwrap_err()
    };
    tokio::join!(server, client)
}

#[tokio::test]
async fn a_web_scanner_is_shown_the_door() {
    for plaintext in [false, true] {
        let (error, answer) = after_sending(b"GET / HTTP/1.1\r\n\r\n", plaintext).await;
        assert!(matches!(&error, TransportError::NotAFeed(head) if head == b"GET / HT"));
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn plaintext_needs_to_be_allowed() {
    let (error, _) = after_sending(&[MAGIC, *b"restrest"].concat(), false).await;
    assert!(matches!(error, TransportError::PlaintextRefused));
}

#[tokio::test]
async fn tls_garbage_is_refused() {
    let (error, _) = after_sending(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5, 6], true).await;
    assert!(matches!(error, TransportError::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn silence_and_half_a_preamble_time_out() {
    for sent in [&b""[..], &MAGIC] {
        let start = Instant::now();
        let (error, _) = after_sending(sent, true).await;
        assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn strangers_are_counted() {
    let server = identity();
    let acceptor = acceptor(&server, &[], true);
    let (listener, address) = listener().await;
    let silent = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let mut accepted = Vec::new();
    for _ in &silent {
        let (tcp, from) = listener.accept().await.unwrap();
        accepted.push(acceptor.accept::<8>(tcp, from));
    }
    let third = accepted.pop().unwrap();
    let second = accepted.pop().unwrap();
    let first = accepted.pop().unwrap();
    let (first, second, third) = tokio::join!(first, second, third);
    assert!(matches!(first, Err(TransportError::Timeout { .. })));
    assert!(matches!(second, Err(TransportError::Timeout { .. })));
    assert!(matches!(third, Err(TransportError::TooManyPending(2))));
}

#[tokio::test]
async fn plaintext_goes_in_both_directions_and_keeps_the_preamble_apart() {
    let server = identity();
    let acceptor = acceptor(&server, &[], true);
    let (listener, address) = listener().await;
    let client = async {
        let options = SocketOptions::default();
        let mut connection = connect(address, None, &Security::Plaintext, &options, PATIENCE)
            .await
            .unwrap();
        assert_eq!(connection.peer(), None);
        connection.write_all(&MAGIC).await.unwrap();
        connection.write_all(b"12ping").await.unwrap();
        let mut answer = [0; 4];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
    };
    let server = async {
        let (tcp, from) = listener.accept().await.unwrap();
        let accepted = acceptor.accept::<10>(tcp, from).await.unwrap();
        assert_eq!(&accepted.preamble[..8], &MAGIC);
        assert_eq!(&accepted.preamble[8..], b"12");
        let mut connection = accepted.connection;
        let mut question = [0; 4];
        connection.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"ping");
        connection.write_all(b"pong").await.unwrap();
    };
    tokio::join!(client, server);
}

#[tokio::test]
async fn nobody_there_is_an_error_in_time() {
    let (listener, address) = listener().await;
    drop(listener);
    let options = SocketOptions::default();
    let error = connect(address, None, &Security::Plaintext, &options, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::Io { .. }), "{error:?}");
}
