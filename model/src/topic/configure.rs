//! Setting how a topic keeps its messages.

use std::sync::Arc;

use super::retention;
use crate::key::Key;
use crate::name::{Kind, Name};
use crate::objects::{self, check_name};
use crate::outcome::Outcome;
use crate::overlay::Work;
use crate::records::NeedsKeys;
use crate::settings::TopicSettings;

/// Creates a topic or changes its settings. Stricter retention takes effect at once; a shorter idle
/// time of cursors when they move next, or when the time that was set before is over.
pub(crate) fn configure(
    work: &mut Work<'_>,
    name: &Name,
    settings: &TopicSettings,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check_name(name, Kind::Topic) {
        return Ok(Outcome::Refused(refusal));
    }
    let (object, mut topic) = objects::open_topic(work, name)?;
    topic.settings = Arc::new(settings.clone());
    retention::enforce(work, object, &mut topic)?;
    work.put(Key::Object(object), topic);
    Ok(Outcome::Done)
}
