//! What is saved of a failed test: logs, events, resources.

use crate::lab::Lab;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DynamicObject, ListParams, LogParams};
use kube::discovery::{ApiResource, Scope, verbs};
use kube::{Api, Discovery, ResourceExt as _};
use std::fmt::Write as _;
use std::path::Path;

/// Saves what there is; what cannot be had is noted in its place.
pub async fn save(lab: &Lab, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    note(&to.join("pods.txt"), pods(lab, to).await)?;
    note(&to.join("events.txt"), events(lab).await)?;
    note(&to.join("resources.yaml"), resources(lab).await)?;
    note(
        &to.join("objects.txt"),
        lab.storage.list("").await.map(|objects| lines(objects.iter().map(|(key, size)| format!("{size:>9} {key}")))),
    )?;
    Ok(())
}

fn note(path: &Path, found: Result<String>) -> Result<()> {
    Ok(std::fs::write(path, found.unwrap_or_else(|error| format!("cannot be had: {error:#}\n")))?)
}

fn lines(of: impl Iterator<Item = String>) -> String {
    of.fold(String::new(), |mut text, line| {
        text.push_str(&line);
        text.push('\n');
        text
    })
}

/// A table of all pods, and beside it the logs of all that are not Kubernetes' own.
async fn pods(lab: &Lab, to: &Path) -> Result<String> {
    let mut table = String::new();
    for pod in Api::<Pod>::all(lab.client.clone()).list(&ListParams::default()).await? {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let status = pod.status.unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
        let ready = containers.iter().filter(|container| container.ready).count();
        writeln!(table, "{namespace}/{name} {} ready {ready}/{} restarts {restarts}", status.phase.unwrap_or_default(), containers.len())?;
        if namespace.starts_with("kube-") || namespace == "local-path-storage" {
            continue;
        }
        let api = Api::<Pod>::namespaced(lab.client.clone(), &namespace);
        for container in &containers {
            for previous in [false, true].into_iter().filter(|previous| !previous || container.restart_count > 0) {
                let wanted = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    timestamps: true,
                    tail_lines: Some(20_000),
                    ..LogParams::default()
                };
                let log = api.logs(&name, &wanted).await.map_err(Into::into);
                note(&to.join(format!("{namespace}.{name}.{}{}.log", container.name, if previous { ".previous" } else { "" })), log)?;
            }
        }
    }
    Ok(table)
}

async fn events(lab: &Lab) -> Result<String> {
    let mut events = Api::<Event>::all(lab.client.clone()).list(&ListParams::default()).await?.items;
    let when = |event: &Event| {
        event.last_timestamp.as_ref().map(|t| t.0).or(event.event_time.as_ref().map(|t| t.0)).or(event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| t.0))
    };
    events.sort_by_key(when);
    Ok(lines(events.iter().map(|event| {
        let about = &event.involved_object;
        format!(
            "{} {} {}/{}/{} {}: {}",
            when(event).map_or_else(String::new, |time| time.to_string()),
            event.type_.as_deref().unwrap_or_default(),
            about.kind.as_deref().unwrap_or_default(),
            about.namespace.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        )
    })))
}

/// All of Lectern's own resources, whatever kinds there are.
async fn resources(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    let group = Discovery::new(lab.client.clone()).filter(&[lectern_crds::GROUP]).run().await?;
    for (resource, capabilities) in group.groups().flat_map(|group| group.recommended_resources()) {
        if !capabilities.supports_operation(verbs::LIST) || !matches!(capabilities.scope, Scope::Cluster | Scope::Namespaced) {
            continue;
        }
        let resource: ApiResource = resource;
        for mut object in Api::<DynamicObject>::all_with(lab.client.clone(), &resource).list(&ListParams::default()).await? {
            object.metadata.managed_fields = None;
            object
                .types
                .get_or_insert_with(|| kube::api::TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
            write!(text, "---\n{}", serde_yaml::to_string(&object)?)?;
        }
    }
    Ok(text)
}
