//! The servers: configuration, start, and when they serve.

use super::Sync;
use crate::BenchError;
use crate::competitors::peers::fleet::Fleet;
use crate::competitors::peers::{make_directory, write_file};
use crate::supervise::free_ports;
use crate::target::Place;
use async_nats::jetstream;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A cluster without a leader does not answer: it is asked again after this.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

pub fn program() -> PathBuf {
    super::installed()
}

/// Starts the nodes of a run. Gives their ports for clients.
pub async fn start(place: &Place, sync: Sync) -> Result<(Fleet, Vec<u16>), BenchError> {
    // Three for clients and three for each other; a single node needs one of them.
    let ports: [u16; 6] = free_ports()?;
    let count = place.nodes.count();
    let (clients, routes) = (&ports[..count], &ports[3..3 + count]);
    let mut fleet = Fleet::default();
    for index in 0..count {
        let name = format!("nats-{}", index + 1);
        let store = make_directory(&place.directory, &name)?;
        let text = configuration(index, clients, routes, &store, sync);
        let file = write_file(&place.directory, &format!("{name}.conf"), &text)?;
        let log = place.directory.join(format!("{name}.log"));
        fleet.add(name, log, move || {
            let mut command = Command::new(program());
            command.arg("--config").arg(&file);
            command
        });
    }
    launch(&mut fleet, clients).await?;
    Ok((fleet, clients.to_vec()))
}

/// Starts all servers and waits until they serve: those of a cluster need each other for that.
pub async fn launch(fleet: &mut Fleet, ports: &[u16]) -> Result<(), BenchError> {
    for index in 0..fleet.len() {
        fleet.launch(index)?;
    }
    for (index, port) in ports.iter().enumerate() {
        fleet.wait_ready(index, || serves(*port)).await?;
    }
    Ok(())
}

/// Whether JetStream answers, which in a cluster needs its leader.
async fn serves(port: u16) -> bool {
    match super::connect(port).await {
        Ok(client) => {
            let context = jetstream::new(client);
            let answer = tokio::time::timeout(ANSWER_LIMIT, context.query_account()).await;
            answer.is_ok_and(|account| account.is_ok())
        }
        Err(_) => false,
    }
}

fn configuration(
    index: usize,
    clients: &[u16],
    routes: &[u16],
    store: &Path,
    sync: Sync,
) -> String {
    let name = format!("n{}", index + 1);
    let sync = match sync {
        Sync::Default => "",
        Sync::Always => "sync_interval: always",
    };
    let mut text = format!(
        "server_name: {name}\n\
         listen: \"127.0.0.1:{}\"\n\
         jetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n",
        clients[index],
        store.display(),
    );
    if routes.len() > 1 {
        let peers: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        write!(
            text,
            "cluster {{\n  name: bench\n  listen: \"127.0.0.1:{}\"\n  routes: [{}]\n}}\n",
            routes[index],
            peers.join(", "),
        )
        .expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_has_no_routes_and_three_have_each_other() {
        let store = Path::new("/data/n");
        let one = configuration(0, &[4000], &[5000], store, Sync::Default);
        assert!(
            !one.contains("cluster") && !one.contains("sync_interval"),
            "{one}"
        );
        let three = configuration(
            1,
            &[4000, 4001, 4002],
            &[5000, 5001, 5002],
            store,
            Sync::Always,
        );
        assert!(three.contains("sync_interval: always"), "{three}");
        assert!(three.contains("listen: \"127.0.0.1:4001\""), "{three}");
        assert!(three.contains("listen: \"127.0.0.1:5001\""), "{three}");
        assert!(three.contains("nats://127.0.0.1:5002"), "{three}");
    }
}
