//! HTTPS over real sockets: the certificate is waited for, and renewed under way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use axum::Router;
use lectern_gateway_pod::https;
use lectern_podkit::health::Readiness;
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

fn write(folder: &Path) -> CertifiedKey<KeyPair> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    made
}

/// One request, with `trusted` as the only certificate that is believed; what comes back, or why nothing does.
fn ask(address: SocketAddr, trusted: &CertifiedKey<KeyPair>) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut tls = StreamOwned::new(client, socket);
    tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

async fn until_served(address: SocketAddr, trusted: CertifiedKey<KeyPair>) -> String {
    let trusted = Arc::new(trusted);
    let tries = async {
        loop {
            let trusted = trusted.clone();
            if let Ok(answer) = tokio::task::spawn_blocking(move || ask(address, &trusted)).await.unwrap() {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), tries).await.expect("served within 20 s")
}

#[tokio::test]
async fn the_gateway_waits_for_its_certificate_and_takes_up_a_new_one() {
    https::install_crypto();
    let folder = std::env::temp_dir().join(format!("lectern-https-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let router = Router::new().fallback(|| async { "hello" });
    let served = tokio::spawn(https::serve(address, folder.clone(), router, readiness.clone(), stop.clone()));

    sleep(Duration::from_millis(300)).await;
    let obstacle = readiness.obstacle().unwrap();
    assert!(obstacle.contains("tls.crt"), "{obstacle}");

    let first = write(&folder);
    let answer = until_served(address, first).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert_eq!(readiness.obstacle(), None);

    std::fs::write(folder.join("tls.crt"), "half a certifica").unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(TcpStream::connect(address).is_ok(), "a broken file must not stop the service");

    let second = write(&folder);
    assert!(until_served(address, second).await.ends_with("hello"));

    stop.cancel();
    timeout(Duration::from_secs(15), served).await.expect("stops").unwrap().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
