//! Whether a node that comes back still belongs where its seeds are.

use std::time::Duration;

use futures::future::join_all;

use super::message::{Answer, Claim, Greeting, Question, decode, encode};
use super::runner::Ask;
use crate::error::ClusterError;
use crate::identity::ClusterId;

/// For all seeds together: most of the time they are only starting, too.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Refuses to start a node of one cluster among the seeds of another, and one that was removed. Seeds that
/// do not answer say nothing against it.
pub(crate) async fn check_standing(
    ask: &dyn Ask,
    seeds: &[String],
    me: Greeting,
    cluster: ClusterId,
) -> Result<(), ClusterError> {
    let disk = me.node.disk;
    let Ok(question) = encode(&Question::Greet(me)) else {
        return Ok(());
    };
    let asked = join_all(seeds.iter().map(|seed| {
        let question = question.clone();
        async move {
            let answer = ask.ask(seed.clone(), question, CHECK_TIMEOUT).await.ok()?;
            Some((seed, decode::<Answer>(&answer).ok()?))
        }
    }));
    let Ok(answers) = tokio::time::timeout(CHECK_TIMEOUT, asked).await else {
        return Ok(());
    };
    let mut complaint = None;
    for (seed, answer) in answers.into_iter().flatten() {
        match answer {
            // A seed may be this node itself, which knows nothing better than it does.
            Answer::Greeting(Greeting { node, .. }) if node.disk == disk => {}
            Answer::Greeting(Greeting {
                claim: Claim::Member { cluster: other, .. },
                ..
            }) => {
                if other == cluster {
                    return Ok(());
                }
                complaint = Some(format!(
                    "the data directory belongs to a node of cluster {cluster}, and the seed {seed} is of \
                     cluster {other}: use the seeds of its own cluster, or an empty directory to join that one"
                ));
            }
            Answer::Refused(reason) => {
                complaint = Some(format!("{seed} refuses this node: {reason}"))
            }
            _ => {}
        }
    }
    match complaint {
        Some(what) => Err(ClusterError::Identity { what }),
        None => Ok(()),
    }
}
