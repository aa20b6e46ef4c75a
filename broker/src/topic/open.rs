//! Finding the place where a subscription begins.

use flotilla_model::command::Command;
use flotilla_model::ids::{ObjectId, Offset, WallTime};
use flotilla_model::name::Name;
use flotilla_model::outcome::Outcome;
use flotilla_model::query;

use crate::api::topic::Start;
use crate::convert::unexpected;
use crate::core::{Core, check_label};
use crate::fault::Fault;
use crate::ingress::Work;
use crate::topic::reader::Position;

/// Where a subscription may begin.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The topic's incarnation, if it exists.
    pub object: Option<ObjectId>,
    /// The offset after the last message.
    pub end: Offset,
    /// By the wish of the request.
    pub start: Offset,
    /// By the durable cursor.
    pub cursor: Option<Position>,
}

/// Looks up the topic, and opens the durable cursor if one is named.
pub(crate) async fn open(
    core: &Core,
    topic: &Name,
    start: Start,
    cursor: Option<&str>,
) -> Result<Opened, Fault> {
    let mut opened = resolve(core, topic, start).await?;
    if let Some(cursor) = cursor {
        check_label("cursor", cursor)?;
        let command = Command::OpenCursor {
            topic: topic.clone(),
            cursor: cursor.to_owned(),
            start: opened.start,
        };
        let (_, ingress) = core.shard_for(topic);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        match reply.outcome(0)?.0 {
            Outcome::CursorOpened {
                low_water, settled, ..
            } => opened.cursor = Some((*low_water, settled.clone())),
            other => return Err(unexpected(other).into()),
        }
    }
    Ok(opened)
}

/// The offset that a start position means now.
pub(crate) async fn resolve(core: &Core, topic: &Name, start: Start) -> Result<Opened, Fault> {
    let (shard, _) = core.shard_for(topic);
    // Another node may lead already, and know of later messages than this one.
    core.confirm_leadership(shard).await?;
    let since = match start {
        Start::Wall(wall) => Some(wall),
        Start::Ago(ago) => {
            let now = shard.wall_at(shard.now());
            let ago_ns = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
            Some(WallTime(now.0.saturating_sub(ago_ns)))
        }
        _ => None,
    };
    let found = shard
        .read(|records| {
            let Some(info) = query::topic_info(records, topic)? else {
                return Ok(None);
            };
            let at_wall = match since {
                Some(wall) => query::topic_offset_at_wall(records, info.object, wall)?,
                None => None,
            };
            Ok(Some((info.object, info.first, info.next, at_wall)))
        })
        .await?;
    let (object, first, end, at_wall) = match found {
        Some((object, first, next, at_wall)) => (Some(object), first, next, at_wall),
        None => (None, Offset::FIRST, Offset::FIRST, None),
    };
    let start = match start {
        Start::NewOnly => end,
        Start::First => first,
        Start::Last if end > first => Offset(end.0 - 1),
        Start::Last => end,
        Start::Offset(offset) => offset.max(Offset::FIRST),
        Start::Wall(_) | Start::Ago(_) => at_wall.unwrap_or(end),
    };
    Ok(Opened {
        object,
        end,
        start,
        cursor: None,
    })
}
