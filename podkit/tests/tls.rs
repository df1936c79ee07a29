//! TLS from folders: who is let in, and what happens when the files change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/ca.rs"]
mod ca;

use ca::{Ca, empty_folder};
use lectern_podkit::health::Readiness;
use lectern_podkit::tls::{PeerRefused, PeerRole, PeerStream, PeerTls, PeerTlsArgs, ServerTls, TlsError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

const INGEST: &str = "ingest.default.lectern.internal";
const TRANSCODER: &str = "transcoder.default.lectern.internal";

/// Not an expectation of speed: a test that hangs must end, too.
async fn guarded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("hung")
}

async fn peer(ca: &Ca, name: &str) -> PeerTls {
    PeerTls::load(&ca.folder(name), "default").await.unwrap()
}

/// What both ends say of a connection of `client` to a shard, `server`, that serves transcoders. Each end writes a byte
/// and reads one: a client learns only then whether its certificate was good (TLS 1.3, RFC 8446 §4.4.2.4).
async fn meet(server: &PeerTls, client: &PeerTls) -> (Result<PeerStream, PeerRefused>, io::Result<PeerStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = async {
        let mut stream = server.accept(listener.accept().await.unwrap().0, PeerRole::Transcoder).await?;
        echo(&mut stream).await.map_err(PeerRefused::Handshake)?;
        Ok(stream)
    };
    let dial = async {
        let mut stream = client.connect(&address, PeerRole::Ingest).await?;
        say(&mut stream).await?;
        Ok(stream)
    };
    guarded(async { tokio::join!(serve, dial) }).await
}

async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let byte = stream.read_u8().await?;
    stream.write_u8(byte).await?;
    stream.flush().await
}

async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_u8(7).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        7 => Ok(()),
        other => Err(io::Error::other(format!("no echo: {other}"))),
    }
}

#[tokio::test]
async fn peers_of_the_right_roles_meet() {
    let ca = Ca::new();
    let (server, client) = meet(&peer(&ca, INGEST).await, &peer(&ca, TRANSCODER).await).await;
    assert!(matches!(server.unwrap(), PeerStream::Tls(_)));
    assert!(matches!(client.unwrap(), PeerStream::Tls(_)));
}

#[tokio::test]
async fn a_peer_of_another_role_or_pool_is_not_let_in() {
    let ca = Ca::new();
    let shard = peer(&ca, INGEST).await;
    for wrong in [INGEST, "transcoder.other.lectern.internal", "operator.lectern.internal"] {
        let (server, client) = meet(&shard, &peer(&ca, wrong).await).await;
        let error = server.unwrap_err();
        assert!(matches!(error, PeerRefused::Role(_)), "{wrong}: {error}");
        assert!(error.to_string().contains(TRANSCODER), "it says what was expected: {error}");
        assert!(client.is_err());
    }
}

#[tokio::test]
async fn a_server_of_another_role_is_not_believed() {
    let ca = Ca::new();
    let (server, client) = meet(&peer(&ca, TRANSCODER).await, &peer(&ca, TRANSCODER).await).await;
    let error = client.unwrap_err();
    assert!(error.to_string().contains(INGEST), "{error}");
    assert!(server.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_worth_nothing() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (server, client) = meet(&peer(&ours, INGEST).await, &peer(&theirs, TRANSCODER).await).await;
    assert!(server.is_err() && client.is_err());

    // The server trusts whoever it is, the client does not.
    let trusting = ours.folder(INGEST);
    std::fs::write(trusting.join("ca.crt"), theirs.pem()).unwrap();
    let trusting = PeerTls::load(&trusting, "default").await.unwrap();
    let (_, client) = meet(&trusting, &peer(&theirs, TRANSCODER).await).await;
    assert!(client.unwrap_err().to_string().contains("invalid peer certificate"));
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_told_that_it_needs_one() {
    let ca = Ca::new();
    let shard = peer(&ca, INGEST).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async { shard.accept(listener.accept().await.unwrap().0, PeerRole::Transcoder).await };
    let dial = async { say(&mut browser(&ca, INGEST, address).await?).await };
    let (server, client) = guarded(async { tokio::join!(serve, dial) }).await;
    assert!(matches!(server.unwrap_err(), PeerRefused::Handshake(_)));
    let error = client.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn a_peer_in_the_clear_is_not_let_in_by_one_with_tls() {
    let ca = Ca::new();
    let (server, client) = meet(&peer(&ca, INGEST).await, &PeerTls::plain()).await;
    assert!(matches!(server.unwrap_err(), PeerRefused::Handshake(_)));
    assert!(client.is_err());
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_open_ones_live_on() {
    let (old, new) = (Ca::new(), Ca::new());
    let (folder, client) = (old.folder(INGEST), peer(&old, TRANSCODER).await);
    let mut server = PeerTls::load(&folder, "default").await.unwrap();
    let (open_server, open_client) = meet(&server, &client).await;
    let (mut open_server, mut open_client) = (open_server.unwrap(), open_client.unwrap());

    new.issue(&folder, INGEST);
    guarded(server.renewed()).await;
    let (refused, _) = meet(&server, &client).await;
    assert!(refused.is_err(), "the old CA counts no more");
    let (accepted, _) = meet(&server, &peer(&new, TRANSCODER).await).await;
    accepted.unwrap();
    let (echoed, said) = guarded(async { tokio::join!(echo(&mut open_server), say(&mut open_client)) }).await;
    echoed.unwrap();
    said.unwrap();
}

#[tokio::test]
async fn a_broken_certificate_is_passed_over_until_a_good_one_comes() {
    let ca = Ca::new();
    let folder = ca.folder("localhost");
    let mut server = ServerTls::load(&folder).await.unwrap();
    std::fs::write(folder.join("tls.crt"), "not a certificate").unwrap();
    // The key of another certificate: neither is usable until both are there.
    let other = ca.folder("localhost");
    std::fs::copy(other.join("tls.key"), folder.join("tls.key")).unwrap();
    a_round_of_reading().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async { echo(&mut server.accept(listener.accept().await.unwrap().0).await?).await };
    let dial = async { say(&mut browser(&ca, "localhost", address).await?).await };
    let (server_end, client_end) = guarded(async { tokio::join!(serve, dial) }).await;
    server_end.unwrap();
    client_end.unwrap();

    std::fs::copy(other.join("tls.crt"), folder.join("tls.crt")).unwrap();
    guarded(server.renewed()).await;
    let serve = async { echo(&mut server.accept(listener.accept().await.unwrap().0).await?).await };
    let dial = async {
        let mut stream = browser(&ca, "localhost", address).await?;
        say(&mut stream).await?;
        Ok::<_, io::Error>(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
    };
    let (server_end, shown) = guarded(async { tokio::join!(serve, dial) }).await;
    server_end.unwrap();
    assert_eq!(Some(shown.unwrap()), leaf(&other));
}

#[tokio::test]
async fn a_pod_waits_for_its_certificate_and_says_so() {
    let (ca, folder, readiness) = (Ca::new(), empty_folder(), Readiness::default());
    let args = PeerTlsArgs { peer_tls_dir: Some(folder.clone()) };
    let (saying, told) = (readiness.clone(), folder.clone());
    let opened = tokio::spawn(async move { args.when_there("default", &saying).await });
    guarded(async {
        while !readiness.obstacle().is_some_and(|obstacle| obstacle.contains("tls.crt") && obstacle.contains(told.to_str().unwrap())) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ca.issue(&folder, TRANSCODER);
    let (server, client) = meet(&peer(&ca, INGEST).await, &guarded(opened).await.unwrap()).await;
    server.unwrap();
    client.unwrap();
}

#[tokio::test]
async fn files_that_are_no_identity_are_refused_by_name() {
    let ca = Ca::new();
    assert!(matches!(PeerTls::load(&empty_folder(), "default").await, Err(TlsError::Missing("tls.crt"))));
    let folder = ca.folder(INGEST);
    std::fs::remove_file(folder.join("ca.crt")).unwrap();
    assert!(matches!(PeerTls::load(&folder, "default").await, Err(TlsError::Missing("ca.crt"))));
    std::fs::write(folder.join("ca.crt"), "").unwrap();
    assert!(matches!(PeerTls::load(&folder, "default").await, Err(TlsError::Empty("ca.crt"))));
    let folder = ca.folder(INGEST);
    std::fs::copy(ca.folder(INGEST).join("tls.key"), folder.join("tls.key")).unwrap();
    assert!(matches!(PeerTls::load(&folder, "default").await, Err(TlsError::Unusable(_))));
}

/// Returns when every folder that was followed before has been read once more: all are read equally often, and another
/// folder's changes have been seen twice meanwhile.
async fn a_round_of_reading() {
    let ca = Ca::new();
    let folder = ca.folder("localhost");
    let mut witness = ServerTls::load(&folder).await.unwrap();
    for _ in 0..2 {
        ca.issue(&folder, "localhost");
        guarded(witness.renewed()).await;
    }
}

/// A client that trusts `ca` and shows no certificate.
async fn browser(ca: &Ca, name: &str, address: std::net::SocketAddr) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// The folder's certificate, if it is one.
fn leaf(folder: &std::path::Path) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_file(folder.join("tls.crt")).ok()
}
