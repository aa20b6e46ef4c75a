//! `/healthz`, `/readyz` and `/metrics`: answered while the node starts and stops, too.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use flotilla_broker::{Broker, BrokerError};
use tracing::error;

use crate::error::AdminError;
use crate::kubemq_metrics;
use crate::state::Admin;
use crate::view::{AliveView, ReadyView};

/// The labels of the listeners that clients of KubeMQ connect to.
const KUBEMQ_LISTENERS: [&str; 2] = ["kubemq", "kubemq_rest"];

/// Whether the process should be left alone; a starting node is alive.
pub async fn alive(admin: web::Data<Admin>) -> HttpResponse {
    let alive = admin
        .broker_started()
        .is_none_or(|broker| broker.health().alive);
    let mut response = if alive {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(AliveView { alive })
}

/// Whether the node takes requests, and why not.
pub async fn ready(admin: web::Data<Admin>) -> HttpResponse {
    let view = readiness(&admin);
    let mut response = if view.ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(view)
}

/// Everything in Prometheus text.
pub async fn metrics(admin: web::Data<Admin>) -> Result<HttpResponse, AdminError> {
    let ready = readiness(&admin).ready;
    let failed = |source: prometheus::Error| {
        error!(error = %source, "failed to write metrics");
        AdminError::Broker(BrokerError::Unavailable {
            reason: "the metrics could not be written".to_owned(),
        })
    };
    let mut text = admin.metrics().text(ready).map_err(failed)?;
    if let Some(broker) = admin.broker_started() {
        text.push_str(&broker.metrics_text());
        let clients = KUBEMQ_LISTENERS.map(|listener| broker.clients(listener));
        let node = &admin.config().node_name;
        let figures = broker.figures();
        text.push_str(&kubemq_metrics::text(node, &figures, clients.iter().sum()).map_err(failed)?);
    }
    Ok(HttpResponse::Ok()
        .insert_header(ContentType(
            "text/plain; version=0.0.4"
                .parse()
                .unwrap_or(actix_web::mime::TEXT_PLAIN),
        ))
        .body(text))
}

/// What the node itself and its broker say.
pub fn readiness(admin: &Admin) -> ReadyView {
    let health = admin.broker_started().map(Broker::health);
    let mut view = match health {
        Some(health) => ReadyView {
            ready: health.ready,
            reasons: health.reasons,
            shards: health.shards.into_iter().map(Into::into).collect(),
        },
        None => ReadyView {
            ready: false,
            reasons: Vec::new(),
            shards: Vec::new(),
        },
    };
    if let Some(reason) = admin.held_back() {
        view.ready = false;
        view.reasons.insert(0, reason);
    }
    view
}
