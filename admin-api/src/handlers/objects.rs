//! `/api/v1/topics` and `/api/v1/queues`: the same can be done with both.

use actix_web::{HttpResponse, web};
use flotilla_broker::{Broker, ObjectSummary};
use flotilla_model::name::{Kind, Name};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AdminError;
use crate::query::{NamePath, NamespaceQuery, PageQuery};
use crate::settings::{QueueSettingsBody, TopicSettingsBody};
use crate::state::Admin;
use crate::view::{PageView, QueueSummaryView, QueueView, TopicSummaryView, TopicView};

/// A kind of stored object, and its shapes in requests and answers.
pub trait Stored: 'static {
    const KIND: Kind;
    /// The body of a `PUT`.
    type Settings: DeserializeOwned;
    /// One of a list.
    type Summary: From<ObjectSummary> + Serialize;
    /// One alone.
    type View: Serialize;

    async fn read(broker: &Broker, name: &Name) -> Result<Self::View, AdminError>;

    /// Creates it, or replaces its settings.
    async fn configure(
        admin: &Admin,
        name: Name,
        settings: Self::Settings,
    ) -> Result<(), AdminError>;
}

pub struct Topics;

impl Stored for Topics {
    const KIND: Kind = Kind::Topic;
    type Settings = TopicSettingsBody;
    type Summary = TopicSummaryView;
    type View = TopicView;

    async fn read(broker: &Broker, name: &Name) -> Result<TopicView, AdminError> {
        Ok(broker.topic(name).await?.into())
    }

    async fn configure(
        admin: &Admin,
        name: Name,
        settings: TopicSettingsBody,
    ) -> Result<(), AdminError> {
        let settings = settings.resolve(&admin.config().topic_defaults)?;
        Ok(admin.broker()?.configure_topic(name, settings).await?)
    }
}

pub struct Queues;

impl Stored for Queues {
    const KIND: Kind = Kind::Queue;
    type Settings = QueueSettingsBody;
    type Summary = QueueSummaryView;
    type View = QueueView;

    async fn read(broker: &Broker, name: &Name) -> Result<QueueView, AdminError> {
        Ok(broker.queue(name).await?.into())
    }

    async fn configure(
        admin: &Admin,
        name: Name,
        settings: QueueSettingsBody,
    ) -> Result<(), AdminError> {
        let settings = settings.resolve(&name, &admin.config().queue_defaults)?;
        Ok(admin.broker()?.configure_queue(name, settings).await?)
    }
}

/// A page of them with their counts.
pub async fn list<S: Stored>(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<S::Summary>>, AdminError> {
    let limit = query.limit()?;
    let query = query.into_inner();
    let page = admin.broker()?.list(S::KIND, query.after, limit).await?;
    Ok(web::Json(PageView::of(page, query.namespace.as_deref())))
}

/// One of them.
pub async fn get<S: Stored>(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<web::Json<S::View>, AdminError> {
    let name = query.name(S::KIND, &path)?;
    Ok(web::Json(S::read(admin.broker()?, &name).await?))
}

/// Creates one or replaces its settings.
pub async fn put<S: Stored>(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
    body: web::Json<S::Settings>,
) -> Result<web::Json<S::View>, AdminError> {
    let name = query.name(S::KIND, &path)?;
    S::configure(&admin, name.clone(), body.into_inner()).await?;
    Ok(web::Json(S::read(admin.broker()?, &name).await?))
}

/// Deletes one with all it holds.
pub async fn delete<S: Stored>(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<HttpResponse, AdminError> {
    let name = query.name(S::KIND, &path)?;
    admin.broker()?.delete(name).await?;
    Ok(HttpResponse::NoContent().finish())
}
