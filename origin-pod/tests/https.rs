//! HTTPS as a CDN asks for it: by HTTP/2 and by 1.1, through a certificate that is renewed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use axum::Router;
use bytes::Bytes;
use ca::{Ca, empty_folder};
use common::{Lab, prefix};
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lectern_origin_pod::https;
use lectern_podkit::CancellationToken;
use lectern_podkit::health::Readiness;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Not an expectation of speed: a test that hangs must end, too.
async fn guarded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("hung")
}

/// Serves `router` with the certificate in `folder`.
async fn served(folder: &Path, router: Router, readiness: Option<Readiness>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(https::serve(listener, folder.to_owned(), router, readiness, CancellationToken::new()));
    address
}

/// A client that trusts `ca` and speaks `protocol`.
async fn connect(address: SocketAddr, ca: &Ca, protocol: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).header("host", "localhost").body(Empty::new()).unwrap()
}

/// A connection of HTTP/2.
async fn second(stream: TlsStream<TcpStream>) -> http2::SendRequest<Empty<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn answer(sender: &mut http2::SendRequest<Empty<Bytes>>, path: &str) -> (Version, u16, Bytes) {
    let answer = sender.send_request(request(&format!("https://localhost{path}"))).await.unwrap();
    (answer.version(), answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes())
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn hello() -> Router {
    Router::new().fallback(|| async { "hello" })
}

#[tokio::test]
async fn a_playlist_is_served_over_http_2_and_over_1_1() {
    let (lab, ca) = (Lab::start().await, Ca::new());
    lab.store("live.m3u8", "#EXTM3U\n").await;
    let (address, path) = (served(&ca.folder("localhost"), lab.router.clone(), None).await, format!("/{}/live.m3u8", prefix()));
    let mut two = second(guarded(connect(address, &ca, "h2")).await.unwrap()).await;
    assert_eq!(guarded(answer(&mut two, &path)).await, (Version::HTTP_2, 200, "#EXTM3U\n".into()));

    let stream = guarded(connect(address, &ca, "http/1.1")).await.unwrap();
    let (mut one, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = guarded(one.send_request(request(&path))).await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_11, 200));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "#EXTM3U\n");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_who_comes_next_and_who_is_there_stays() {
    let (ca, folder) = (Ca::new(), empty_folder());
    ca.issue(&folder, "localhost");
    let address = served(&folder, hello(), None).await;
    let stream = guarded(connect(address, &ca, "h2")).await.unwrap();
    let (before, mut open) = (shown(&stream), second(stream).await);
    ca.issue(&folder, "localhost");
    let renewed = CertificateDer::from_pem_file(folder.join("tls.crt")).unwrap();
    assert_ne!(before, renewed);
    guarded(async {
        while shown(&connect(address, &ca, "h2").await.unwrap()) != renewed {
            tokio::time::sleep(Duration::from_millis(100)).await; // the folder is read every two seconds
        }
    })
    .await;
    assert_eq!(guarded(answer(&mut open, "/")).await, (Version::HTTP_2, 200, "hello".into()));
}

#[tokio::test]
async fn who_does_not_trust_the_ca_or_speaks_no_tls_gets_nothing() {
    let ca = Ca::new();
    let address = served(&ca.folder("localhost"), hello(), None).await;
    let refused = guarded(connect(address, &Ca::new(), "h2")).await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    let mut clear = TcpStream::connect(address).await.unwrap();
    clear.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = guarded(clear.read_to_end(&mut said)).await; // an alert, and the end
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // It goes on for others.
    let mut two = second(guarded(connect(address, &ca, "h2")).await.unwrap()).await;
    assert_eq!(guarded(answer(&mut two, "/")).await.1, 200);
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody() {
    let ca = Ca::new();
    let address = served(&ca.folder("localhost"), hello(), None).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut two = second(guarded(connect(address, &ca, "h2")).await.unwrap()).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), answer(&mut two, "/")).await.expect("it waits for them").1, 200);
}

#[tokio::test]
async fn an_origin_with_https_alone_is_ready_once_its_certificate_is_there() {
    let (ca, folder, readiness) = (Ca::new(), empty_folder(), Readiness::default());
    let address = served(&folder, hello(), Some(readiness.clone())).await;
    guarded(async {
        while !readiness.obstacle().is_some_and(|obstacle| obstacle.contains("tls.crt")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ca.issue(&folder, "localhost");
    let mut two = second(guarded(connect(address, &ca, "h2")).await.unwrap()).await;
    assert_eq!(guarded(answer(&mut two, "/")).await.1, 200, "who came before it waited");
    assert_eq!(readiness.obstacle(), None);
}
