//! `lectern-operator check`: what a person would look at after an installation, a line each.

use crate::MANAGER;
use axum::http::{Request, StatusCode, Uri};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::client::Body;
use kube::{Client, Config, ResourceExt};
use lectern_crds::{GROUP, StreamPool};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// One look, an API server that is asked again and again by the client included.
const CALL: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// A leader renews its Lease every other second, and is judged dead after ten.
const LEASE: Duration = Duration::from_secs(10);
/// What the API server has to serve, all of one version.
const KINDS: [&str; 4] = ["encodingladders", "livestreams", "routeslices", "streampools"];
const VERSION: &str = "v1alpha1";

/// What to look at beside the cluster's own.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The gateway's address: https://host:port. Without it, it is not asked.
    #[arg(long)]
    gateway: Option<Uri>,
    /// The CA that has to have signed the gateway's certificate. Without it the certificate is not verified.
    #[arg(long, requires = "gateway")]
    gateway_ca: Option<PathBuf>,
    /// Seconds that all of it may take to become so.
    #[arg(long, default_value_t = 60)]
    within: u64,
}

/// Something is not as it should be; what, has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the checks failed")]
pub struct CheckError(usize);

/// Looks until all is as it should be, or time is up, and prints a line for each thing looked at.
///
/// # Errors
/// How many are not as they should be.
pub async fn run(args: &CheckArgs, client: Client, namespace: &str) -> Result<(), CheckError> {
    let until = Instant::now() + Duration::from_secs(args.within);
    let mut told = vec![
        tell("resource types", until, async || served(&client).await).await,
        tell("leader", until, async || leader(&client, namespace).await).await,
        tell("pools", until, async || pools(&client).await).await,
    ];
    if let Some(address) = &args.gateway {
        told.push(tell("gateway", until, async || gateway(address, args.gateway_ca.as_ref()).await).await);
    }
    match told.iter().filter(|is_fine| !**is_fine).count() {
        0 => Ok(()),
        failed => Err(CheckError(failed)),
    }
}

/// Looks at one thing, until it is fine or `until`; prints what was seen last, and returns whether it is fine.
async fn tell(what: &str, until: Instant, look: impl AsyncFn() -> Result<String, String>) -> bool {
    loop {
        let seen = timeout(CALL + LEASE, look()).await.unwrap_or_else(|_| Err("no answer".into()));
        match seen {
            Ok(ref fine) => println!("ok      {what}: {fine}"),
            Err(_) if Instant::now() < until => {
                sleep(PAUSE).await;
                continue;
            }
            Err(ref wrong) => println!("FAILED  {what}: {wrong}"),
        }
        return seen.is_ok();
    }
}

async fn served(client: &Client) -> Result<String, String> {
    let found = client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await.map_err(text)?;
    let missing: Vec<_> = KINDS.into_iter().filter(|kind| !found.resources.iter().any(|resource| resource.name == *kind)).collect();
    match missing.as_slice() {
        [] => Ok(format!("{GROUP}/{VERSION} has {}", KINDS.join(", "))),
        missing => Err(format!("{GROUP}/{VERSION} lacks {}: upgrade the chart lectern-crds", missing.join(", "))),
    }
}

/// That somebody holds the Lease is not enough: it has to be renewed while we look, by whatever clock.
async fn leader(client: &Client, namespace: &str) -> Result<String, String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let first = leases.get(MANAGER).await.map_err(text)?;
    let holder = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let from = Instant::now();
    while from.elapsed() < LEASE {
        sleep(PAUSE / 2).await;
        let now = leases.get(MANAGER).await.map_err(text)?;
        match holder(&now) {
            Some(holder) if now.resource_version() != first.resource_version() => {
                return Ok(format!("{holder} leads, and renews its Lease"));
            }
            _ => {}
        }
    }
    Err(holder(&first)
        .map_or_else(|| "no operator leads".to_owned(), |holder| format!("{holder} leads, and has not renewed its Lease for {LEASE:?}")))
}

async fn pools(client: &Client) -> Result<String, String> {
    let found = Api::<StreamPool>::all(client.clone()).list(&ListParams::default()).await.map_err(text)?;
    verdict(&found.items)
}

/// A cluster without a pool is fine, and takes no lecture.
fn verdict(pools: &[StreamPool]) -> Result<String, String> {
    let said = |pool: &StreamPool| {
        let ready = pool.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready");
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        let words = ready.map_or("the operator has not said yet", |ready| ready.message.as_str());
        (is_ready, if is_ready { format!("{} is Ready", pool.name_any()) } else { format!("{}: {words}", pool.name_any()) })
    };
    let (ready, other): (Vec<_>, Vec<_>) = pools.iter().map(said).partition(|(is_ready, _)| *is_ready);
    let words = |of: &[(bool, String)]| of.iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>().join("; ");
    match (ready.as_slice(), other.as_slice()) {
        ([], []) => Ok("there is none yet: make one (samples/streampool.yaml), or no lecture finds a place".to_owned()),
        (ready, []) => Ok(words(ready)),
        (_, other) => Err(words(other)),
    }
}

/// It has to answer over TLS, and to ask for a key.
async fn gateway(address: &Uri, ca: Option<&PathBuf>) -> Result<String, String> {
    let mut config = Config::new(address.clone());
    config.root_cert_file = ca.cloned();
    config.accept_invalid_certs = ca.is_none();
    let client = Client::try_from(config).map_err(text)?;
    let request = Request::get("/v1/streams/none/watch").body(Body::empty()).map_err(text)?;
    let status = client.send(request).await.map_err(text)?.status();
    match (status, ca) {
        (StatusCode::UNAUTHORIZED, Some(_)) => Ok(format!("{address} answers, with a certificate of the operator's, and asks for a key")),
        (StatusCode::UNAUTHORIZED, None) => Ok(format!("{address} answers over TLS, and asks for a key; its certificate was not verified")),
        (other, _) => Err(format!("{address} answers {other} to who has no key")),
    }
}

/// An error with all its causes: what is wrong with a certificate is said by the innermost.
fn text(error: impl std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(name: &str, ready: Option<&str>) -> StreamPool {
        let mut pool: StreamPool = serde_yaml::from_str(include_str!("../tests/golden/pool.yaml")).unwrap();
        pool.metadata.name = Some(name.to_owned());
        pool.status = ready.map(|status| {
            let words = format!("is {status}");
            let ready =
                json!({ "type": "Ready", "status": status, "reason": "A", "message": words, "lastTransitionTime": "2027-01-15T08:00:00Z" });
            serde_json::from_value(json!({ "conditions": [ready] })).unwrap()
        });
        pool
    }

    #[test]
    fn a_pool_that_is_not_ready_is_what_is_told() {
        assert_eq!(verdict(&[pool("a", Some("True")), pool("b", Some("False"))]), Err("b: is False".into()));
        assert_eq!(verdict(&[pool("a", Some("True")), pool("b", None)]), Err("b: the operator has not said yet".into()));
        assert_eq!(verdict(&[pool("a", Some("True"))]), Ok("a is Ready".into()));
    }

    #[test]
    fn no_pool_is_no_failure() {
        assert!(verdict(&[]).is_ok_and(|words| words.starts_with("there is none yet")));
    }
}
