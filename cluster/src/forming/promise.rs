//! Promises to a plan, on disk before they are given.

use super::plan::Plan;
use crate::error::ClusterError;
use crate::identity::{ClusterId, Passport, PassportOffice, Standing};

/// Promises this node to a plan, if it is free. Answers whether it is promised to it now.
pub(super) async fn promise(office: &PassportOffice, plan: Plan) -> Result<bool, ClusterError> {
    let step = move |present: &Passport| match &present.standing {
        Standing::Fresh => Some(Passport {
            standing: Standing::Planned(plan),
            ..present.clone()
        }),
        Standing::Planned(known) if *known == plan => Some(present.clone()),
        Standing::Member { cluster, .. } if *cluster == plan.cluster => Some(present.clone()),
        Standing::Planned(_) | Standing::Member { .. } => None,
    };
    let (_, promised) = office.update(step).await?;
    Ok(promised)
}

/// Takes the promise to a plan back, if it still stands.
pub(super) async fn drop_plan(
    office: &PassportOffice,
    cluster: ClusterId,
    why: &str,
) -> Result<(), ClusterError> {
    tracing::warn!(%cluster, why, "the plan for a cluster is dropped");
    let step = move |present: &Passport| match &present.standing {
        Standing::Planned(plan) if plan.cluster == cluster => Some(Passport {
            standing: Standing::Fresh,
            ..present.clone()
        }),
        _ => None,
    };
    office.update(step).await?;
    Ok(())
}

/// The plan that a node is promised to.
pub(super) fn promised_to(passport: &Passport) -> Option<ClusterId> {
    match &passport.standing {
        Standing::Planned(plan) => Some(plan.cluster),
        Standing::Fresh | Standing::Member { .. } => None,
    }
}
