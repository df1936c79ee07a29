//! Lectern's operator: placement, provisioning and status of live streams.
//!
//! Two controllers (StreamPool and LiveStream), one task that keeps RouteSlices, and the endpoint that pods report to.
//! The controllers run in the leader only; the other replica hears the same reports, stands in for a leader that is gone, and waits for the Lease.
//!
//! # RBAC
//! What the operator's ServiceAccount needs, and nothing else.
//!
//! ClusterRole:
//!
//! | group | resource | verbs |
//! |---|---|---|
//! | `lectern.video` | `livestreams` | get, list, watch, patch (finalizers) |
//! | `lectern.video` | `livestreams/status`, `streampools/status` | get, patch |
//! | `lectern.video` | `livestreams/finalizers`, `streampools/finalizers` | update (owner references with blockOwnerDeletion) |
//! | `lectern.video` | `streampools`, `encodingladders` | get, list, watch |
//! | *core* | `secrets` | get, create, patch (stream keys and cameras' passwords, in the streams' namespaces; never listed or watched) |
//! | *core* | `namespaces` | get (their labels, by which a pool's tenants are known) |
//! | *core* | `nodes` | get (their labels, by which the zones of shards are known) |
//! | `events.k8s.io` | `events` | create |
//!
//! Role in the operator's namespace:
//!
//! | group | resource | verbs |
//! |---|---|---|
//! | `lectern.video` | `routeslices` | get, list, watch, create, patch, delete |
//! | `apps` | `statefulsets`, `deployments` | get, list, watch, create, patch |
//! | *core* | `services` | get, list, watch, create, patch, delete |
//! | *core* | `pods` | get, list, watch, create, patch, delete |
//! | *core* | `pods/status` | patch (of nodes that are gone) |
//! | *core* | `secrets` | get, create, patch (the CA, the gateway's certificate, the pools' Secrets of cameras and of viewing keys) |
//! | `policy` | `poddisruptionbudgets` | get, list, watch, create, patch |
//! | `autoscaling` | `horizontalpodautoscalers` | get, create, patch, delete |
//! | `coordination.k8s.io` | `leases` | get, create, update |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod apply;
pub mod args;
pub mod backoff;
pub mod check;
pub mod cloud;
pub mod conditions;
pub mod context;
pub mod controllers;
pub mod events;
pub mod first_pass;
pub mod leader;
pub mod lost_nodes;
pub mod metrics;
pub mod placement;
pub mod pool;
pub mod redrive;
pub mod release;
pub mod reports;
pub mod routes;
pub mod standby;
pub mod stores;
pub mod stream;
pub mod trust;
pub mod view_link;
pub mod wakes;

/// The field manager of everything that the operator applies, and the name of its Lease and Service.
pub const MANAGER: &str = "lectern-operator";

/// The operators' pods, as the chart labels them.
pub const OPERATORS: &str = "app.kubernetes.io/name=lectern,app.kubernetes.io/component=operator";
