//! `/api/v1/topics`.

use actix_web::{HttpResponse, web};
use flotilla_model::name::Kind;

use crate::error::AdminError;
use crate::query::{NamePath, NamespaceQuery, PageQuery};
use crate::settings::TopicSettingsBody;
use crate::state::Admin;
use crate::view::{PageView, TopicSummaryView, TopicView};

/// A page of topics with their counts.
pub async fn list(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<TopicSummaryView>>, AdminError> {
    let limit = query.limit()?;
    let query = query.into_inner();
    let page = admin
        .broker()?
        .list(Kind::Topic, query.after, limit)
        .await?;
    Ok(web::Json(PageView::of(page, query.namespace.as_deref())))
}

/// One topic.
pub async fn get(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<web::Json<TopicView>, AdminError> {
    let name = query.name(Kind::Topic, &path)?;
    Ok(web::Json(admin.broker()?.topic(&name).await?.into()))
}

/// Creates a topic or replaces its settings.
pub async fn put(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
    body: web::Json<TopicSettingsBody>,
) -> Result<web::Json<TopicView>, AdminError> {
    let name = query.name(Kind::Topic, &path)?;
    let settings = body.into_inner().resolve(&admin.config().topic_defaults)?;
    let broker = admin.broker()?;
    broker.configure_topic(name.clone(), settings).await?;
    Ok(web::Json(broker.topic(&name).await?.into()))
}

/// Deletes a topic with all it holds.
pub async fn delete(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<HttpResponse, AdminError> {
    let name = query.name(Kind::Topic, &path)?;
    admin.broker()?.delete(name).await?;
    Ok(HttpResponse::NoContent().finish())
}
