//! `/api/v1/cluster` and `/api/v1/nodes`.

use actix_web::{HttpResponse, web};
use flotilla_broker::{BrokerError, NodeDetail};
use flotilla_model::ids::NodeId;
use serde::Deserialize;

use crate::error::AdminError;
use crate::handlers::health::readiness;
use crate::query::{NoQuery, NodePath};
use crate::state::Admin;
use crate::view::{ClusterView, ListView, NodeView, VerificationView, VerifyBegunView};

/// The cluster as this node knows it.
pub async fn get(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<ClusterView>, AdminError> {
    let detail = admin.broker()?.cluster_detail().await?;
    Ok(web::Json(ClusterView::of(detail, readiness(&admin).ready)))
}

/// The body of a change of replicas.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicasBody {
    replicas: u32,
}

/// Changes how many nodes keep each shard.
pub async fn set_replicas(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
    body: web::Json<ReplicasBody>,
) -> Result<HttpResponse, AdminError> {
    admin.broker()?.set_replicas(body.replicas).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Begins to compare the replicas of all shards.
pub async fn verify(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<HttpResponse, AdminError> {
    let run = admin.broker()?.verify_replicas()?;
    Ok(HttpResponse::Accepted().json(VerifyBegunView { run }))
}

/// What the last comparison found that this node was asked for.
pub async fn verification(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<VerificationView>, AdminError> {
    Ok(web::Json(admin.broker()?.verification()?.into()))
}

/// The nodes of the cluster.
pub async fn nodes(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<ListView<NodeView>>, AdminError> {
    Ok(web::Json(ListView::of(admin.broker()?.nodes())))
}

/// One node.
pub async fn node(
    admin: web::Data<Admin>,
    path: NodePath,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<NodeView>, AdminError> {
    let id = NodeId(path.into_inner());
    let nodes = admin.broker()?.nodes();
    let found = nodes.into_iter().find(|node| node.id == id);
    let found: NodeDetail = found.ok_or_else(|| BrokerError::NotFound {
        what: format!("node {id}"),
    })?;
    Ok(web::Json(found.into()))
}

/// Has a node's replicas moved to other nodes.
pub async fn drain(
    admin: web::Data<Admin>,
    path: NodePath,
    _query: web::Query<NoQuery>,
) -> Result<HttpResponse, AdminError> {
    admin
        .broker()?
        .drain_node(NodeId(path.into_inner()))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lets a drained node keep replicas again.
pub async fn undrain(
    admin: web::Data<Admin>,
    path: NodePath,
    _query: web::Query<NoQuery>,
) -> Result<HttpResponse, AdminError> {
    let node = NodeId(path.into_inner());
    admin.broker()?.undrain_node(node).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Takes a drained node out of the cluster, for ever.
pub async fn leave(
    admin: web::Data<Admin>,
    path: NodePath,
    _query: web::Query<NoQuery>,
) -> Result<HttpResponse, AdminError> {
    let node = NodeId(path.into_inner());
    admin.broker()?.remove_node(node).await?;
    Ok(HttpResponse::NoContent().finish())
}
