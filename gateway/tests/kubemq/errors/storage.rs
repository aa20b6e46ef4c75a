//! Of storage that fails.

use std::sync::Arc;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::StreamRequestType as Type;
use flotilla_storage::testing::FaultyDisk;

use super::{E123, E130};
use crate::support::{Gateway, Transaction, a_message, fill, unique};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_refused_and_the_message_stays_in_hand() {
    let disk = FaultyDisk::new();
    let gateway = Gateway::over(KubemqConfig::default(), |cluster| {
        cluster.disk = Arc::new(disk.clone());
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let (mut transaction, message) = Transaction::holding(&mut client, &queue, 600).await;
    let sequence = message.attributes.unwrap().sequence;
    disk.die_at_step(0);
    for _ in 0..2 {
        let refused = transaction
            .ask(Type::AckMessage, |ack| ack.ref_sequence = sequence)
            .await;
        assert_eq!((refused.is_error, &refused.error[..]), (true, E123));
        let target = unique("target");
        let refused = transaction
            .ask(Type::ResendMessage, |resend| {
                resend.channel.clone_from(&target)
            })
            .await;
        assert_eq!((refused.is_error, &refused.error[..]), (true, E130));
        let refused = transaction
            .ask(Type::SendModifiedMessage, |modify| {
                modify.modified_message = Some(a_message(&target, 1));
            })
            .await;
        assert_eq!((refused.is_error, &refused.error[..]), (true, E130));
    }
}
