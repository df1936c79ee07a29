//! Pods with the certificates of neighbouring steps of a CA's rotation, over real sockets; and CAs that others have made.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use ca::empty_folder;
use jiff::Timestamp;
use lectern_operator::trust::authority::Authority;
use lectern_operator::trust::rotation::{Held, Rotation};
use lectern_operator::trust::{Usage, Wanted, leaf};
use lectern_podkit::tls::{PeerRole, PeerTls, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Not an expectation of speed: a test that hangs must end, too.
async fn guarded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("hung")
}

/// The files that a pod finds for `name` where the CA is as `held` says.
fn mounted(held: &Held, name: &str, usage: Usage) -> PathBuf {
    let wanted = Wanted { namespace: "lectern".into(), secret: "s".into(), dns_names: vec![name.into()], usage, owner: None };
    let secret = leaf::renewed(None, &wanted, held, Timestamp::now()).unwrap().unwrap();
    let folder = empty_folder();
    for (file, bytes) in secret.data.unwrap() {
        std::fs::write(folder.join(file), bytes.0).unwrap();
    }
    folder
}

async fn peer(held: &Held, role: PeerRole) -> PeerTls {
    PeerTls::load(&mounted(held, &role.dns_name("default"), Usage::Peer), "default").await.unwrap()
}

/// Whether a transcoder gets a byte from a shard and the shard one from the transcoder.
async fn meet(shard: &PeerTls, transcoder: &PeerTls) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = async {
        let mut stream = shard.accept(listener.accept().await.unwrap().0, PeerRole::Transcoder).await.map_err(io::Error::other)?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    let dial = async {
        let mut stream = transcoder.connect(&address, PeerRole::Ingest).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let (served, dialled) = guarded(async { tokio::join!(serve, dial) }).await;
    served.is_ok() && dialled.is_ok()
}

/// A rotation's lines.
fn lines() -> [Held; 4] {
    let authority = || Authority::generate(Timestamp::now()).unwrap();
    let steady = Held { issuing: authority(), rotation: Rotation::Steady };
    let trusted = steady.clone().trusting(authority());
    let left = trusted.clone().using();
    let over = left.clone().forgetting();
    [steady, trusted, left, over]
}

#[tokio::test]
async fn pods_that_are_a_step_apart_accept_each_other_at_both_ends() {
    let mut pods = Vec::new();
    for held in lines() {
        pods.push((peer(&held, PeerRole::Ingest).await, peer(&held, PeerRole::Transcoder).await));
    }
    for (at, (shard, _)) in pods.iter().enumerate() {
        for (other, (_, transcoder)) in pods.iter().enumerate() {
            // Two steps apart they do not: that is what the pause between the steps is for.
            assert_eq!(meet(shard, transcoder).await, at.abs_diff(other) < 2, "a shard at {at}, a transcoder at {other}");
        }
    }
}

#[tokio::test]
async fn a_connection_outlives_every_step() {
    let [steady, trusted, left, over] = lines();
    let folder = mounted(&steady, &PeerRole::Ingest.dns_name("default"), Usage::Peer);
    let (mut shard, transcoder) = (PeerTls::load(&folder, "default").await.unwrap(), peer(&steady, PeerRole::Transcoder).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accept = async { shard.accept(listener.accept().await.unwrap().0, PeerRole::Transcoder).await };
    let (accepted, connected) = guarded(async { tokio::join!(accept, transcoder.connect(&address, PeerRole::Ingest)) }).await;
    let (mut server, mut client) = (accepted.unwrap(), connected.unwrap());
    for held in [trusted, left, over] {
        let next = mounted(&held, &PeerRole::Ingest.dns_name("default"), Usage::Peer);
        for file in ["tls.key", "tls.crt", "ca.crt"] {
            std::fs::rename(next.join(file), folder.join(file)).unwrap();
        }
        guarded(shard.renewed()).await;
        guarded(async {
            client.write_u8(7).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), 7);
        })
        .await;
    }
    assert!(!meet(&shard, &transcoder).await, "only who is there stays");
}

/// What cert-manager writes unless told otherwise: RSA, its key in PKCS#1.
#[tokio::test]
async fn a_ca_of_cert_managers_issues_certificates() {
    let read = |file: &str| std::fs::read_to_string(format!("tests/given/{file}")).unwrap();
    let given = Authority::read(read("ca.crt"), read("ca.key")).unwrap();
    let held = Held { issuing: given, rotation: Rotation::Steady };
    assert!(meet(&peer(&held, PeerRole::Ingest).await, &peer(&held, PeerRole::Transcoder).await).await);
}

/// A CA below a school's own.
struct School {
    root: String,
    above: Issuer<'static, KeyPair>,
}

impl School {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = Self::params("School");
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, above: Issuer::new(params, key) }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn authority(&self, name: &str) -> Held {
        self.authority_of(name, KeyPair::generate().unwrap())
    }

    fn authority_of(&self, name: &str, key: KeyPair) -> Held {
        let chain = Self::params(name).signed_by(&key, &self.above).unwrap().pem();
        Held { issuing: Authority::read(chain, key.serialize_pem()).unwrap(), rotation: Rotation::Steady }
    }
}

#[tokio::test]
async fn who_trusts_the_schools_own_ca_trusts_servers_of_the_one_below_it() {
    let school = School::new();
    let server = ServerTls::load(&mounted(&school.authority("Lectern"), "localhost", Usage::Server)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(school.root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let serve = async { server.accept(listener.accept().await.unwrap().0).await };
    let dial = async { client.connect(ServerName::try_from("localhost").unwrap(), TcpStream::connect(address).await?).await };
    let (served, dialled) = guarded(async { tokio::join!(serve, dial) }).await;
    served.unwrap();
    dialled.unwrap();
}

#[tokio::test]
async fn pods_trust_their_own_ca_and_no_other_of_the_schools() {
    let school = School::new();
    let (ours, other) = (school.authority("Lectern"), school.authority("Canteen"));
    let shard = peer(&ours, PeerRole::Ingest).await;
    assert!(meet(&shard, &peer(&ours, PeerRole::Transcoder).await).await);
    assert!(!meet(&shard, &peer(&other, PeerRole::Transcoder).await).await);
}

/// As cert-manager renews a CA whose `rotationPolicy` is `Never`.
#[tokio::test]
async fn a_ca_that_is_renewed_with_its_name_and_its_key_takes_the_place_of_the_one_before() {
    let (school, key) = (School::new(), KeyPair::generate().unwrap().serialize_pem());
    let made = || school.authority_of("Lectern", KeyPair::from_pem(&key).unwrap());
    let (old, new) = (made(), made().issuing);
    assert_ne!(old.issuing.anchor(), new.anchor(), "another certificate of the same key");
    let trusted = old.clone().trusting(new);
    let left = trusted.clone().using();
    let mut pods = Vec::new();
    for held in [&old, &trusted, &left, &left.clone().forgetting()] {
        pods.push((peer(held, PeerRole::Ingest).await, peer(held, PeerRole::Transcoder).await));
    }
    for (shard, transcoder) in pods.windows(2).flat_map(|pair| [(&pair[0].0, &pair[1].1), (&pair[1].0, &pair[0].1)]) {
        assert!(meet(shard, transcoder).await);
    }
}
