//! Setting how a queue treats its messages.

use std::sync::Arc;

use super::open::OpenQueue;
use crate::name::{Kind, Name};
use crate::objects::check_name;
use crate::outcome::Outcome;
use crate::overlay::Work;
use crate::records::NeedsKeys;
use crate::settings::QueueSettings;

/// Creates a queue or changes its settings; messages that are there keep the expiry they have.
pub(crate) fn configure(
    work: &mut Work<'_>,
    name: &Name,
    settings: &QueueSettings,
) -> Result<Outcome, NeedsKeys> {
    let dead_letter = settings.dead_letter.as_ref();
    let checked = check_name(name, Kind::Queue)
        .and_then(|()| dead_letter.map_or(Ok(()), |to| check_name(to, Kind::Queue)));
    if let Err(refusal) = checked {
        return Ok(Outcome::Refused(refusal));
    }
    let mut queue = OpenQueue::by_name(work, name)?;
    queue.state.settings = Arc::new(settings.clone());
    queue.close(work)?;
    Ok(Outcome::Done)
}
