//! QueuesInfo: figures of queues, of all or of those that are named.

use std::collections::BTreeSet;

use flotilla_broker::{BrokerError, QueueSpan};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::Status;

use super::apart::apart;
use super::context::Context;
use super::convert::id_or_new;
use super::error::RequestError;
use super::protocol::{QueueInfo, QueuesInfo, QueuesInfoRequest, QueuesInfoResponse};
use super::validate;
use crate::access::Action;

/// Queues of one answer at most: each is a question to the node that leads it.
const QUEUES_MAX: usize = 10_000;
const TOO_MANY: RequestError = RequestError::QueuesAsked {
    allowed: QUEUES_MAX,
};
/// Questions at a time.
const QUESTIONS_MAX: usize = 32;
/// Names that are listed at a time.
const PAGE_ITEMS: u32 = 1_000;
/// These requests do not say which client sends them.
const NO_CLIENT: &str = "";

/// Answers with the figures of the queues, by name.
pub async fn answer(
    context: &Context,
    request: QueuesInfoRequest,
) -> Result<QueuesInfoResponse, Status> {
    validate::id("request id", &request.request_id)?;
    let queues = context.until_ending(queues(context, &request)).await??;
    Ok(QueuesInfoResponse {
        ref_request_id: id_or_new(request.request_id),
        info: Some(sum(queues)),
    })
}

async fn queues(
    context: &Context,
    request: &QueuesInfoRequest,
) -> Result<Vec<QueueInfo>, RequestError> {
    let names = if request.queue_name.is_empty() {
        every_name(context).await?
    } else {
        let names = named(&request.queue_name)?.into_iter();
        names
            .map(|name| context.allowed(NO_CLIENT, Action::Read, name))
            .collect::<Result<_, _>>()?
    };
    if names.len() > QUEUES_MAX {
        return Err(TOO_MANY);
    }
    let allowed = context.config.response_bytes_max;
    let mut found = futures::stream::iter(names)
        .map(|name| one(context, name))
        .buffered(QUESTIONS_MAX);
    let (mut queues, mut bytes) = (Vec::new(), 0);
    while let Some(queue) = found.try_next().await? {
        let Some(queue) = queue else { continue };
        bytes += queue.encoded_len();
        if bytes > allowed && !queues.is_empty() {
            return Err(RequestError::QueuesBytes { allowed });
        }
        queues.push(queue);
    }
    Ok(queues)
}

/// The names between the semicolons. Names that are given again count as well: each takes work.
fn named(names: &str) -> Result<BTreeSet<Name>, RequestError> {
    let given = || {
        names
            .split(';')
            .map(str::trim)
            .filter(|name| !name.is_empty())
    };
    if given().nth(QUEUES_MAX).is_some() {
        return Err(TOO_MANY);
    }
    given().map(validate::queue_name).collect()
}

async fn every_name(context: &Context) -> Result<BTreeSet<Name>, RequestError> {
    let mut names = BTreeSet::new();
    let mut after = None;
    loop {
        let page = context.broker.list(Kind::Queue, after, PAGE_ITEMS).await?;
        let (caller, items) = (context.caller.clone(), page.items);
        // Many names times many rules take a while.
        let pick = move || {
            let of_this_protocol = items
                .into_iter()
                .map(|found| found.name)
                .filter(|name| name.namespace() == DEFAULT_NAMESPACE)
                .filter(|name| caller.may(NO_CLIENT, Action::Read, name));
            of_this_protocol.collect::<Vec<_>>()
        };
        names.extend(apart(pick).await);
        after = page.next;
        if after.is_none() || names.len() > QUEUES_MAX {
            return Ok(names);
        }
    }
}

/// A queue that nobody has used has no figures.
async fn one(context: &Context, name: Name) -> Result<Option<QueueInfo>, RequestError> {
    match context.broker.queue_span(&name).await {
        Ok(span) => Ok(Some(figures(&span))),
        Err(BrokerError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn figures(span: &QueueSpan) -> QueueInfo {
    let detail = &span.detail;
    QueueInfo {
        name: detail.name.text().to_owned(),
        messages: number(detail.messages),
        bytes: number(detail.bytes),
        first_sequence: span.first.map_or(0, |first| number(first.0)),
        last_sequence: number(detail.next.0.saturating_sub(1)),
        sent: number(detail.enqueued_total),
        delivered: number(detail.delivered_total),
        waiting: number(detail.available),
        subscribers: number(detail.subscriber_count),
    }
}

fn number(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

fn sum(queues: Vec<QueueInfo>) -> QueuesInfo {
    let total =
        |figure: fn(&QueueInfo) -> i64| queues.iter().map(figure).fold(0, i64::saturating_add);
    QueuesInfo {
        total_queue: i32::try_from(queues.len()).unwrap_or(i32::MAX),
        sent: total(|queue| queue.sent),
        delivered: total(|queue| queue.delivered),
        waiting: total(|queue| queue.waiting),
        queues,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_between_semicolons_and_each_counts_once() {
        let names = named("b; a;;b;").unwrap();
        let texts: Vec<&str> = names.iter().map(Name::text).collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(named("a;b c"), Err(RequestError::QueueName));
    }

    #[test]
    fn more_names_than_are_answered_are_refused_before_any_is_looked_at() {
        let names = |count: usize| "a;".repeat(count);
        assert_eq!(named(&names(QUEUES_MAX)).unwrap().len(), 1);
        let unlooked_at = format!("not a name;{}", names(QUEUES_MAX));
        let refused = named(&unlooked_at).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "more than 10000 queues are asked for: name fewer of them"
        );
    }

    #[test]
    fn sums_are_over_the_queues_that_are_told() {
        let queue = |sent, delivered, waiting| QueueInfo {
            sent,
            delivered,
            waiting,
            ..QueueInfo::default()
        };
        let info = sum(vec![queue(3, 2, 1), queue(i64::MAX, 5, 7)]);
        let sums = (info.sent, info.delivered, info.waiting);
        assert_eq!(sums, (i64::MAX, 7, 8));
        assert_eq!((info.total_queue, info.queues.len()), (2, 2));
        assert_eq!(sum(Vec::new()), QueuesInfo::default());
    }
}
