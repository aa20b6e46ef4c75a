//! The first part of a node's start: who it is, and in which cluster.

use flotilla_model::format::FEATURE_LEVEL;
use flotilla_model::ids::DiskId;
use tokio::runtime::Handle;

use crate::config::ClusterConfig;
use crate::error::ClusterError;
use crate::forming::{Plan, PlannedNode};
use crate::identity::{ClusterId, Identity, Passport, PassportOffice, Standing};

pub(crate) async fn open_office(
    config: &ClusterConfig,
    runtime: &Handle,
) -> Result<PassportOffice, ClusterError> {
    let data_dir = config.data_dir.clone();
    runtime
        .spawn_blocking(move || PassportOffice::open(&data_dir))
        .await
        .map_err(|_| ClusterError::Stopped)?
}

/// How this node is presented to others.
pub(crate) fn presented(config: &ClusterConfig, disk: DiskId) -> Result<PlannedNode, ClusterError> {
    let address = match (&config.advertise, &config.listen) {
        (Some(address), _) => address.clone(),
        (None, Some(listener)) => listener
            .local_addr()
            .map_err(ClusterError::io("read the address of the cluster listener"))?
            .to_string(),
        (None, None) => String::new(),
    };
    Ok(PlannedNode {
        disk,
        name: config.node_name.clone(),
        address,
        zone: config.zone.clone(),
        feature_level_max: FEATURE_LEVEL,
    })
}

/// Makes a fresh node a cluster of its own.
pub(crate) async fn form_alone(
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
