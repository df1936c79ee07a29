//! The certificates of a pool: who its pods are to each other, and what publishers see. Pure.

use super::plan::{INGEST, ORIGIN, TRANSCODER, origin_name};
use super::podspec::{Folder, FolderOf};
use crate::trust::{Usage, Wanted};
use kube::{Resource, ResourceExt};
use lectern_crds::{OriginTlsSpec, RtmpsSpec, StreamPool};
use lectern_podkit::tls::PeerRole;
use url::Url;

/// The folder that a pod finds its certificate for its peers in.
pub const PEER_FOLDER: &str = "/tls/peer";
/// The folder that a shard finds the certificate for publishers in.
pub const RTMPS_FOLDER: &str = "/tls/rtmps";
/// The folder that an origin finds the certificate for players and CDNs in.
pub const HTTPS_FOLDER: &str = "/tls/https";

/// The Secret of the certificate that pods of `component` show to their peers.
fn peer_secret(component: &str, pool: &str) -> String {
    format!("lectern-{component}-{pool}-tls")
}

/// The Secret of the certificate that publishers see: the pool's own, or the one that the operator makes.
fn rtmps_secret(rtmps: &RtmpsSpec, pool: &str) -> String {
    rtmps.secret_name.clone().unwrap_or_else(|| format!("lectern-rtmps-{pool}-tls"))
}

/// The Secret of the certificate that players and CDNs see: the pool's own, or the one that the operator makes.
fn https_secret(tls: &OriginTlsSpec, pool: &str) -> String {
    tls.secret_name.clone().unwrap_or_else(|| format!("lectern-https-{pool}-tls"))
}

/// The host of a URL that was checked at admission; one that got past it is nothing to make a certificate for.
pub fn host(url: &str) -> Option<String> {
    Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned))
}

/// The certificates that the operator issues for the pool.
pub fn certificates(pool: &StreamPool, namespace: &str) -> Vec<Wanted> {
    let name = pool.name_any();
    let wanted = |secret, dns_names, usage| Wanted {
        namespace: namespace.to_owned(),
        secret,
        dns_names,
        usage,
        owner: pool.controller_owner_ref(&()),
    };
    let peer = |component, role: PeerRole| wanted(peer_secret(component, &name), vec![role.dns_name(&name)], Usage::Peer);
    let mut certificates = vec![peer(INGEST, PeerRole::Ingest), peer(TRANSCODER, PeerRole::Transcoder), peer(ORIGIN, PeerRole::Origin)];
    if let Some(rtmps) = &pool.spec.ingest.rtmps
        && rtmps.secret_name.is_none()
    {
        let shards = if pool.spec.ingest.per_shard { pool.spec.ingest.shards } else { 1 };
        let hosts: Vec<_> = (0..shards).filter_map(|nth| host(&pool.spec.ingest.url_of(&format!("shard-{nth}")))).collect();
        if !hosts.is_empty() {
            certificates.push(wanted(rtmps_secret(rtmps, &name), hosts, Usage::Server));
        }
    }
    if let Some(tls) = &pool.spec.origin.tls
        && tls.secret_name.is_none()
    {
        // A cache in the cluster asks for the Service.
        let service = origin_name(&name);
        let inside = [service.clone(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
        let names = host(&pool.spec.origin.public_url).into_iter().chain(inside).collect();
        certificates.push(wanted(https_secret(tls, &name), names, Usage::Server));
    }
    certificates
}

/// Where pods of `component` find their certificate for peers. The kubelet holds a pod back until it is there.
pub fn peer_folder(component: &str, pool: &str) -> Folder {
    Folder { volume: "peer-tls", of: FolderOf::Secret(peer_secret(component, pool)), path: PEER_FOLDER, optional: false }
}

/// Where shards find the certificate for publishers. Optional: while it is missing, shards take publishers in the clear, relay
/// and feed.
pub fn rtmps_folder(rtmps: &RtmpsSpec, pool: &str) -> Folder {
    Folder { volume: "rtmps-tls", of: FolderOf::Secret(rtmps_secret(rtmps, pool)), path: RTMPS_FOLDER, optional: true }
}

/// Where origins find the certificate for players and CDNs. Optional: while it is missing, they serve in the clear.
pub fn https_folder(tls: &OriginTlsSpec, pool: &str) -> Folder {
    Folder { volume: "https-tls", of: FolderOf::Secret(https_secret(tls, pool)), path: HTTPS_FOLDER, optional: true }
}
