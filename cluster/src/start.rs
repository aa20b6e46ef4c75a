//! The first part of a node's start: who it is, how others reach it, and in which cluster it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_model::ids::{DiskId, NodeId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ClusterConfig;
use crate::error::ClusterError;
use crate::forming::{Board, Forming, FormingService, Plan, PlannedNode, Terms, check_standing};
use crate::identity::{ClusterId, Identity, Passport, PassportOffice, Standing};
use crate::membership::Roster;
use crate::net::{LinkVersions, Links, LocalIdentity, ServiceId};

/// Before the level is noted again that could not be.
const NOTE_PAUSE: Duration = Duration::from_secs(1);

/// A node that is a member of a cluster. Nothing of it runs yet but its links.
pub(crate) struct Member {
    pub office: PassportOffice,
    pub identity: Identity,
    /// How it is presented to others.
    pub me: PlannedNode,
    pub links: Links,
    pub forming: FormingService,
    /// Where peers are, as far as that was told before any metadata is here.
    pub addresses: BTreeMap<NodeId, String>,
    pub reachable: Reachable,
}

/// A node's links are open as long as this lives.
pub(crate) struct Reachable {
    links: Links,
    listening: Option<JoinHandle<()>>,
    /// Who the node is to its peers.
    identity: watch::Sender<LocalIdentity>,
}

impl Drop for Reachable {
    fn drop(&mut self) {
        if let Some(task) = self.listening.take() {
            task.abort();
        }
        self.links.close();
    }
}

impl Reachable {
    fn open(
        config: &ClusterConfig,
        runtime: &Handle,
        passport: &Passport,
    ) -> Result<Self, ClusterError> {
        let identity = watch::Sender::new(local_identity(passport));
        let links = Links::new(
            runtime.clone(),
            config.network.clone(),
            identity.subscribe(),
        );
        links.set_snapshot_rate(config.checkpoint.snapshot_bytes_per_second);
        let listening = match &config.listen {
            Some(listener) => {
                let listener = listener.clone();
                let links = links.clone();
                Some(runtime.spawn(async move {
                    let never = std::future::pending::<()>();
                    if let Err(error) = links.serve(&*listener, never).await {
                        tracing::error!(%error, "no other node can reach this one");
                    }
                }))
            }
            None => None,
        };
        Ok(Self {
            links,
            listening,
            identity,
        })
    }
}

fn local_identity(passport: &Passport) -> LocalIdentity {
    let identity = passport.identity();
    LocalIdentity {
        cluster: identity.as_ref().map(|identity| identity.cluster),
        node: identity.map_or(NodeId(0), |identity| identity.node),
        incarnation: passport.incarnation,
        versions: LinkVersions::default(),
    }
}

/// Opens the data directory and becomes a member of a cluster, for as long as that takes.
pub(crate) async fn become_member(
    config: &ClusterConfig,
    runtime: &Handle,
) -> Result<Member, ClusterError> {
    let office = open_office(config, runtime).await?;
    let passport = office.passport();
    check_level(
        "the data directory",
        passport.feature_level,
        config.level_max(),
    )?;
    let me = presented(config, passport.disk)?;
    let reachable = Reachable::open(config, runtime, &passport)?;
    let links = reachable.links.clone();
    let terms = Terms {
        expect: config.expect,
        shards: config.shards,
        replicas: config.replicas,
    };
    let board = Board::default();
    let service = FormingService::new(office.clone(), me.clone(), terms, board.clone());
    links.register(ServiceId::FORMING, Arc::new(service.clone()));
    let (identity, addresses) = match passport.identity() {
        Some(identity) => {
            check_standing(&links, &config.seeds, service.greeting(), identity.cluster).await?;
            (identity, BTreeMap::new())
        }
        None if config.seeds.is_empty() => (form_alone(config, &office).await?, BTreeMap::new()),
        None => {
            let forming = Forming {
                office: office.clone(),
                me: me.clone(),
                terms,
                seeds: config.seeds.clone(),
                board,
                ask: Arc::new(links.clone()),
                progress: config.progress.clone(),
            };
            forming.run().await?
        }
    };
    reachable
        .identity
        .send_replace(local_identity(&office.passport()));
    let addresses = match office.passport().standing {
        Standing::Member {
            plan: Some(plan), ..
        } => plan.addresses(),
        _ => addresses,
    };
    links.set_addresses(addresses.clone());
    Ok(Member {
        office,
        identity,
        me,
        links,
        forming: service,
        addresses,
        reachable,
    })
}

/// Refuses what is of a later level than this node follows.
pub(crate) fn check_level(what: &str, needed: u16, known: u16) -> Result<(), ClusterError> {
    if needed <= known {
        return Ok(());
    }
    Err(ClusterError::FeatureLevel {
        what: what.to_owned(),
        needed,
        known,
    })
}

async fn open_office(
    config: &ClusterConfig,
    runtime: &Handle,
) -> Result<PassportOffice, ClusterError> {
    let (data_dir, disk) = (config.data_dir.clone(), config.disk.clone());
    runtime
        .spawn_blocking(move || PassportOffice::open(&data_dir, disk.as_ref()))
        .await
        .map_err(|_| ClusterError::Stopped)?
}

/// How this node is presented to others.
fn presented(config: &ClusterConfig, disk: DiskId) -> Result<PlannedNode, ClusterError> {
    let address = match (&config.advertise, &config.listen) {
        (Some(address), _) => address.clone(),
        (None, Some(listener)) => listener
            .address()
            .map_err(ClusterError::io("read the address of the cluster listener"))?,
        (None, None) => String::new(),
    };
    Ok(PlannedNode {
        disk,
        name: config.node_name.clone(),
        address,
        zone: config.zone.clone(),
        feature_level_max: config.level_max(),
    })
}

/// Makes a fresh node a cluster of its own.
async fn form_alone(
    config: &ClusterConfig,
    office: &PassportOffice,
) -> Result<Identity, ClusterError> {
    let me = presented(config, office.passport().disk)?;
    let (shards, replicas) = (config.shards, config.replicas);
    let form = move |present: &Passport| {
        if present.standing != Standing::Fresh {
            return None;
        }
        let disk = me.disk;
        let plan = Plan::alone(ClusterId(rand::random()), me, shards, replicas);
        let standing = plan.membership(disk)?;
        Some(Passport {
            standing,
            ..present.clone()
        })
    };
    let (passport, _) = office.update(form).await?;
    passport.identity().ok_or_else(|| ClusterError::Identity {
        what: "this node is promised to a cluster that is not formed yet: start it with its seeds"
            .to_owned(),
    })
}

/// Keeps on disk what level the cluster has, from when it is known: a start with an older build ends at
/// once then, instead of at the first entry that it does not know. To be aborted with the node.
pub(crate) async fn note_level(office: PassportOffice, roster: Arc<Roster>) {
    let mut view = roster.watch();
    let mut noted = office.passport().feature_level;
    loop {
        let level = view.borrow_and_update().cluster.feature_level;
        if level > noted {
            let note = move |present: &Passport| {
                Some(Passport {
                    feature_level: present.feature_level.max(level),
                    ..present.clone()
                })
            };
            match office.update(note).await {
                Ok(_) => noted = level,
                Err(error) => {
                    tracing::warn!(%error, level, "the cluster's feature level could not be noted");
                    tokio::time::sleep(NOTE_PAUSE).await;
                    continue;
                }
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// From now on a data directory without a log is not this node any more.
pub(crate) async fn note_log(office: &PassportOffice) -> Result<(), ClusterError> {
    let note = |present: &Passport| {
        Some(Passport {
            has_log: true,
            ..present.clone()
        })
    };
    office.update(note).await?;
    Ok(())
}
