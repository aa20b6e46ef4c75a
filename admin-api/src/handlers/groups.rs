//! `/api/v1/topics/{name}/groups`: the durable cursors of a topic.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use flotilla_broker::Start;
use flotilla_model::ids::{Offset, WallTime};
use flotilla_model::name::Kind;
use serde::Deserialize;

use crate::error::AdminError;
use crate::query::{GroupPath, NamePath, NamespaceQuery};
use crate::state::Admin;
use crate::view::{GroupView, ListView};

/// Body of a reset: exactly one of the fields says where the group goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ResetBody {
    /// `"first"`, `"last"` or `"new"`.
    To(ResetPlace),
    /// The next offset to read.
    Offset(u64),
    /// The first message stored at or after this time, in ms since the Unix epoch.
    TimeMs(u64),
    /// The first message stored at or after now minus this.
    AgoMs(u64),
}

/// A place that needs no number.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetPlace {
    /// The oldest message kept.
    First,
    /// The last stored message.
    Last,
    /// Only what comes from now on.
    New,
}

impl ResetBody {
    fn start(&self) -> Result<Start, AdminError> {
        Ok(match self {
            Self::To(ResetPlace::First) => Start::First,
            Self::To(ResetPlace::Last) => Start::Last,
            Self::To(ResetPlace::New) => Start::NewOnly,
            Self::Offset(0) => {
                return Err(AdminError::Invalid {
                    what: "offset is 0; the first offset of a topic is 1".to_owned(),
                });
            }
            Self::Offset(offset) => Start::Offset(Offset(*offset)),
            Self::TimeMs(ms) => {
                let ns = ms
                    .checked_mul(1_000_000)
                    .ok_or_else(|| AdminError::Invalid {
                        what: format!(
                            "time_ms is {ms}, at most {} is allowed",
                            u64::MAX / 1_000_000
                        ),
                    })?;
                Start::Wall(WallTime(ns))
            }
            Self::AgoMs(ms) => Start::Ago(Duration::from_millis(*ms)),
        })
    }
}

/// The groups of a topic, with their lag.
pub async fn list(
    admin: web::Data<Admin>,
    path: NamePath,
    query: web::Query<NamespaceQuery>,
) -> Result<web::Json<ListView<GroupView>>, AdminError> {
    let topic = query.name(Kind::Topic, &path)?;
    let groups = admin.broker()?.groups(&topic).await?;
    Ok(web::Json(ListView::of(groups)))
}

/// Moves a group to another place of its topic.
pub async fn reset(
    admin: web::Data<Admin>,
    path: GroupPath,
    query: web::Query<NamespaceQuery>,
    body: web::Json<ResetBody>,
) -> Result<HttpResponse, AdminError> {
    let (topic, group) = path.into_inner();
    let topic = query.name(Kind::Topic, &topic)?;
    let start = body.start()?;
    admin.broker()?.reset_group(&topic, &group, start).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Forgets a group.
pub async fn delete(
    admin: web::Data<Admin>,
    path: GroupPath,
    query: web::Query<NamespaceQuery>,
) -> Result<HttpResponse, AdminError> {
    let (topic, group) = path.into_inner();
    let topic = query.name(Kind::Topic, &topic)?;
    admin.broker()?.delete_group(&topic, &group).await?;
    Ok(HttpResponse::NoContent().finish())
}
