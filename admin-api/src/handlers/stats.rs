//! `/health`, `/ready` and `/v1/stats`: the names that tools of KubeMQ ask for.
//!
//! They are shaped as those tools read them. What Flotilla does not know is left out.

use actix_web::{HttpResponse, web};
use flotilla_broker::{Broker, BrokerError, GroupDetail, ObjectSummary};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::AdminError;
use crate::handlers::health::readiness;
use crate::query::{NoQuery, PAGE_ITEMS_MAX, PageQuery};
use crate::state::Admin;
use crate::view::stats::{
    ChannelView, ChannelsView, ClientsView, HealthView, QueuesView, ReaderView, StatsView,
    StoredView,
};

/// Questions to nodes that lead shards at a time.
const QUESTIONS_MAX: usize = 32;

/// The patterns that channels belong to.
const PATTERNS: [(&str, Kind); 5] = [
    ("events", Kind::Signal),
    ("events_store", Kind::Topic),
    ("commands", Kind::Command),
    ("queries", Kind::Request),
    ("queues", Kind::Queue),
];

/// Whether the process should be left alone.
pub async fn health(admin: web::Data<Admin>) -> HttpResponse {
    if is_healthy(&admin) {
        HttpResponse::Ok().body("healthy")
    } else {
        HttpResponse::InternalServerError().body("not healthy")
    }
}

/// Whether the node takes requests.
pub async fn ready(admin: web::Data<Admin>) -> HttpResponse {
    let view = HealthView {
        is_healthy: is_healthy(&admin),
        is_ready: readiness(&admin).ready,
    };
    let mut response = if view.is_ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::InternalServerError()
    };
    response.json(view)
}

fn is_healthy(admin: &Admin) -> bool {
    let broker = admin.broker_started();
    broker.is_none_or(|broker| broker.health().alive)
}

/// A page of the queues.
pub async fn queues(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<StatsView<QueuesView>>, AdminError> {
    let broker = admin.broker()?;
    let (names, next) = names(broker, Kind::Queue, query.into_inner()).await?;
    let queues = stream::iter(names)
        .map(|name| async move { known(broker.queue_span(&name).await.map(StoredView::from)) })
        .buffered(QUESTIONS_MAX);
    let queues = told(queues).await?;
    Ok(stats(&admin, QueuesView::of(queues, next)))
}

/// A page of the Events Store channels, with those who have a place in them.
pub async fn events_stores(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<StatsView<QueuesView>>, AdminError> {
    let broker = admin.broker()?;
    let (names, next) = names(broker, Kind::Topic, query.into_inner()).await?;
    let topics = stream::iter(names)
        .map(|name| async move { known(topic(broker, &name).await) })
        .buffered(QUESTIONS_MAX);
    let topics = told(topics).await?;
    Ok(stats(&admin, QueuesView::of(topics, next)))
}

async fn topic(broker: &Broker, name: &Name) -> Result<StoredView, BrokerError> {
    let topic = broker.topic(name).await?;
    let readers = broker.groups(name).await?;
    Ok(StoredView::of_topic(&topic, &readers))
}

/// The channels of all patterns, at most one page of each.
pub async fn channels(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<StatsView<ChannelsView>>, AdminError> {
    let broker = admin.broker()?;
    let mut channels = Vec::new();
    for (pattern, kind) in PATTERNS {
        let page = broker.list(kind, None, PAGE_ITEMS_MAX).await?;
        let items = page.items.into_iter().filter(is_kubemq);
        channels.extend(items.map(|item| ChannelView::of(pattern, &item)));
    }
    Ok(stats(&admin, ChannelsView::of(channels)))
}

/// Those who have a place in the Events Store channels of a page.
pub async fn clients(
    admin: web::Data<Admin>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<StatsView<ClientsView>>, AdminError> {
    let broker = admin.broker()?;
    let (names, next) = names(broker, Kind::Topic, query.into_inner()).await?;
    let readers = stream::iter(names)
        .map(|name| async move { known(broker.groups(&name).await.map(|readers| (name, readers))) })
        .buffered(QUESTIONS_MAX);
    let readers: Vec<(Name, Vec<GroupDetail>)> = told(readers).await?;
    let clients = readers.iter().flat_map(|(name, readers)| {
        let of_topic = move |reader| ReaderView::of(Some(name.text()), reader);
        readers.iter().map(of_topic)
    });
    Ok(stats(&admin, ClientsView::of(clients.collect(), next)))
}

fn stats<T>(admin: &Admin, data: T) -> web::Json<StatsView<T>> {
    web::Json(StatsView::of(&admin.config().node_name, data))
}

/// The names of a page; a page is as long as it may be where nobody says how long.
async fn names(
    broker: &Broker,
    kind: Kind,
    query: PageQuery,
) -> Result<(Vec<Name>, Option<String>), AdminError> {
    let limit = query.limit_or(PAGE_ITEMS_MAX)?;
    let page = broker.list(kind, query.after, limit).await?;
    let namespace = query.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let names = page.items.into_iter().map(|item| item.name);
    let names = names.filter(|name| name.namespace() == namespace);
    Ok((names.collect(), page.next))
}

/// Channels of KubeMQ clients are all in one namespace.
fn is_kubemq(item: &ObjectSummary) -> bool {
    item.name.namespace() == DEFAULT_NAMESPACE
}

/// What was deleted since it was listed is not told of.
fn known<T>(found: Result<T, BrokerError>) -> Result<Option<T>, AdminError> {
    match found {
        Err(BrokerError::NotFound { .. }) => Ok(None),
        found => Ok(found.map(Some)?),
    }
}

async fn told<T>(
    found: impl futures::Stream<Item = Result<Option<T>, AdminError>>,
) -> Result<Vec<T>, AdminError> {
    found
        .try_filter_map(|found| async { Ok(found) })
        .try_collect()
        .await
}
