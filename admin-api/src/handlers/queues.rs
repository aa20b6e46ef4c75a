//! `/api/v1/queues`.

use actix_web::{HttpResponse, web};
use flotilla_model::name::Kind;

use crate::error::AdminError;
use crate::query::{NamePath, NamespaceQuery, PageQuery};
use crate::settings::QueueSettingsBody;
use crate::state::Admin;
use crate::view::{PageView, QueueSummaryView, QueueView};

/// A page of queues with their counts.
pub async fn list(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<QueueSummaryView>>, AdminError> {
    let limit = query.limit()?;
    let query = query.into_inner();
    let page = admin
        .broker()?
        .list(Kind::Queue, query.after, limit)
        .await?;
    Ok(web::Json(PageView::of(page, query.namespace.as_deref())))
}

/// One queue.
pub async fn get(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<web::Json<QueueView>, AdminError> {
    let name = query.name(Kind::Queue, &path)?;
    Ok(web::Json(admin.broker()?.queue(&name).await?.into()))
}

/// Creates a queue or replaces its settings.
pub async fn put(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
    body: web::Json<QueueSettingsBody>,
) -> Result<web::Json<QueueView>, AdminError> {
    let name = query.name(Kind::Queue, &path)?;
    let settings = body
        .into_inner()
        .resolve(&name, &admin.config().queue_defaults)?;
    let broker = admin.broker()?;
    broker.configure_queue(name.clone(), settings).await?;
    Ok(web::Json(broker.queue(&name).await?.into()))
}

/// Deletes a queue with all it holds.
pub async fn delete(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<HttpResponse, AdminError> {
    let name = query.name(Kind::Queue, &path)?;
    admin.broker()?.delete(name).await?;
    Ok(HttpResponse::NoContent().finish())
}
