//! A way to an HTTP server that gives trouble when it is told to: away, slow, in error, or silent after the deed.

use crate::camera::this_machine;
use crate::lab::Lab;
use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is wrong with the server behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// All connections are broken, and each new one at once.
    Away,
    /// Each answer comes so much later than the deed.
    Slow(Duration),
    /// Of every three requests two are refused with 503.
    Errors,
    /// Writes are refused as by a bucket whose quota is used up.
    Full,
    /// All requests are refused as by a server that takes the credentials for expired.
    Expired,
    /// Every second request is carried out, and its connection breaks before the answer.
    AnswersLost,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    AnsweredAfter(Duration),
    Refused(Refusal),
    DoneInSilence,
}

/// A status, and S3's code of the error (S3 API reference, "Error responses").
type Refusal = (StatusCode, &'static str);

const BUSY: Refusal = (StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
/// Ceph's; AWS knows no full buckets.
const FULL: Refusal = (StatusCode::FORBIDDEN, "QuotaExceeded");
const EXPIRED: Refusal = (StatusCode::FORBIDDEN, "ExpiredToken");

impl Trouble {
    /// Of the `count`th request. By turns and not by lot, so that one run meets the same as the next.
    fn fate(self, count: u64, method: &Method) -> Fate {
        match self {
            Self::Slow(span) => Fate::AnsweredAfter(span),
            Self::Errors if !count.is_multiple_of(3) => Fate::Refused(BUSY),
            Self::Full if [Method::PUT, Method::POST].contains(method) => Fate::Refused(FULL),
            Self::Expired => Fate::Refused(EXPIRED),
            Self::AnswersLost if !count.is_multiple_of(2) => Fate::DoneInSilence,
            _ => Fate::Answered,
        }
    }
}

/// An HTTP proxy; gone when dropped, with all its connections.
pub struct HttpProxy {
    /// Where clients find it.
    pub address: SocketAddr,
    trouble: watch::Sender<Trouble>,
    spoilt: Arc<AtomicU64>,
    askers: Arc<Mutex<BTreeSet<String>>>,
}

/// What each connection has.
#[derive(Clone)]
struct Way {
    server: SocketAddr,
    trouble: watch::Receiver<Trouble>,
    count: Arc<AtomicU64>,
    spoilt: Arc<AtomicU64>,
    askers: Arc<Mutex<BTreeSet<String>>>,
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;

impl HttpProxy {
    /// To a port of this machine, at an address that pods reach.
    pub async fn to(lab: &Lab, port: u16) -> Result<Self> {
        Self::between(this_machine(lab).await?, (Ipv4Addr::LOCALHOST, port).into()).await
    }

    async fn between(here: IpAddr, server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((here, 0)).await.context("a port for clients")?;
        let (address, trouble, spoilt) = (listener.local_addr()?, watch::Sender::new(Trouble::None), Arc::default());
        let askers = Arc::<Mutex<BTreeSet<String>>>::default();
        let (trouble_seen, count) = (trouble.subscribe(), Arc::default());
        let way = Way { server, trouble: trouble_seen, count, spoilt: Arc::clone(&spoilt), askers: Arc::clone(&askers) };
        tokio::spawn(async move {
            let mut gone = way.trouble.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = async { while gone.changed().await.is_ok() {} } => return,
                };
                let Ok((client, _)) = accepted else { continue };
                tokio::spawn(serve(client, way.clone()));
            }
        });
        Ok(Self { address, trouble, spoilt, askers })
    }

    /// From now on.
    pub fn suffers(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    /// The access keys of those who have asked since the last call.
    pub fn askers(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.askers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests and connections came to harm so far.
    pub fn spoilt(&self) -> u64 {
        self.spoilt.load(Ordering::Relaxed)
    }
}

/// Until either side hangs up, an answer is kept back, or the server is away.
async fn serve(client: TcpStream, way: Way) {
    let mut trouble = way.trouble.clone();
    let spoilt = Arc::clone(&way.spoilt);
    let service = service_fn(move |request| answer(way.clone(), request));
    tokio::select! {
        biased;
        gone = trouble.wait_for(|trouble| *trouble == Trouble::Away) => {
            spoilt.fetch_add(u64::from(gone.is_ok()), Ordering::Relaxed);
        }
        // Broken connections are what this is for.
        _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service) => {}
    }
}

/// An error breaks the connection.
async fn answer(way: Way, request: Request<Incoming>) -> Result<Answer> {
    way.askers.lock().unwrap_or_else(PoisonError::into_inner).extend(access_key(&request));
    let trouble = *way.trouble.borrow();
    let fate = trouble.fate(way.count.fetch_add(1, Ordering::Relaxed), request.method());
    way.spoilt.fetch_add(u64::from(fate != Fate::Answered), Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes(); // an answer before the request's end would break the connection
    if let Fate::Refused((status, code)) = fate {
        let why = format!("<Error><Code>{code}</Code><Message>told to</Message></Error>");
        return Ok(Response::builder().status(status).body(Either::Right(Full::from(why)))?);
    }
    let server = TcpStream::connect(way.server).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(server)).await?;
    tokio::spawn(connection);
    let done = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    match fate {
        Fate::DoneInSilence => return Err(anyhow!("the answer is kept back")),
        Fate::AnsweredAfter(span) => tokio::time::sleep(span).await,
        Fate::Answered | Fate::Refused(_) => {}
    }
    Ok(done.map(Either::Left))
}

/// Of a request that is signed in its header (AWS Signature Version 4): `AWS4-HMAC-SHA256 Credential=KEY/20261127/…`.
fn access_key<B>(request: &Request<B>) -> Option<String> {
    let signed = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
    Some(signed.split_once("Credential=")?.1.split_once('/')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that counts what it is asked, behind a proxy.
    async fn counter() -> (HttpProxy, Arc<AtomicU64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (server, asked) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&asked);
        let app = axum::Router::new().fallback(async move |body: String| format!("{body} {}", count.fetch_add(1, Ordering::Relaxed)));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (HttpProxy::between(Ipv4Addr::LOCALHOST.into(), server).await.unwrap(), asked)
    }

    async fn put(proxy: &HttpProxy) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let answer = client.put(format!("http://{}/key", proxy.address)).body("number").send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    #[tokio::test]
    async fn what_is_done_and_not_answered_is_done() {
        let (proxy, asked) = counter().await;
        assert_eq!(put(&proxy).await, Some((200, "number 0".into())));
        proxy.suffers(Trouble::AnswersLost);
        assert_eq!(put(&proxy).await, None);
        assert_eq!(put(&proxy).await, Some((200, "number 2".into())));
        assert_eq!((asked.load(Ordering::Relaxed), proxy.spoilt()), (3, 1));
    }

    #[tokio::test]
    async fn what_is_refused_is_not_done() {
        let (proxy, asked) = counter().await;
        proxy.suffers(Trouble::Errors);
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(put(&proxy).await.map(|(status, _)| status));
        }
        assert_eq!(told, [Some(200), Some(503), Some(503), Some(200)]);
        proxy.suffers(Trouble::Away);
        assert_eq!(put(&proxy).await, None);
        proxy.suffers(Trouble::None);
        assert_eq!(put(&proxy).await, Some((200, "number 2".into())));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_full_bucket_can_be_read_and_not_written_to() {
        let (proxy, _) = counter().await;
        proxy.suffers(Trouble::Full);
        assert!(put(&proxy).await.is_some_and(|(status, why)| status == 403 && why.contains("QuotaExceeded")));
        assert!(reqwest::get(format!("http://{}/key", proxy.address)).await.unwrap().status().is_success());
        assert!(proxy.askers().is_empty(), "nobody has signed");
        let signed = reqwest::Client::new().get(format!("http://{}/key", proxy.address));
        signed
            .header("Authorization", "AWS4-HMAC-SHA256 Credential=me/20261127/eu/s3/aws4_request, SignedHeaders=host")
            .send()
            .await
            .unwrap();
        assert_eq!((proxy.askers(), proxy.askers()), (BTreeSet::from(["me".to_owned()]), BTreeSet::new()));
        proxy.suffers(Trouble::Expired);
        assert_eq!(reqwest::get(format!("http://{}/key", proxy.address)).await.unwrap().status(), 403);
    }
}
