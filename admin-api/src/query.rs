//! What paths and queries carry: names, pages, namespaces.

use actix_web::web;
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};
use serde::Deserialize;

use crate::error::AdminError;

/// Most items of one page: bounds what an answer holds in memory.
pub const PAGE_ITEMS_MAX: u32 = 1_000;
/// Items of a page where the client does not say.
const PAGE_ITEMS: u32 = 100;

/// `?namespace=` of requests about one name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceQuery {
    namespace: Option<String>,
}

impl NamespaceQuery {
    /// The name that the path means in this namespace.
    pub fn name(&self, kind: Kind, text: &str) -> Result<Name, AdminError> {
        let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        Ok(Name::new(namespace, kind, text)?)
    }
}

/// `?after=&limit=&namespace=` of lists.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// What the page before gave as `next`.
    pub after: Option<String>,
    limit: Option<u32>,
    /// Only names of this namespace; all if it is missing.
    pub namespace: Option<String>,
}

impl PageQuery {
    /// The page's size, if it is one.
    pub fn limit(&self) -> Result<u32, AdminError> {
        self.limit_or(PAGE_ITEMS)
    }

    /// The same where the client gets another one if it does not say.
    pub fn limit_or(&self, items: u32) -> Result<u32, AdminError> {
        let limit = self.limit.unwrap_or(items);
        if !(1..=PAGE_ITEMS_MAX).contains(&limit) {
            return Err(AdminError::Invalid {
                what: format!("limit is {limit}, allowed are 1 to {PAGE_ITEMS_MAX}"),
            });
        }
        Ok(limit)
    }
}

/// Requests that take no query refuse one, so that a misspelt key is not passed over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// `{name}` in a path, decoded.
pub type NamePath = web::Path<String>;
/// `{id}` of a node in a path.
pub type NodePath = web::Path<u64>;
/// `{name}` and `{group}` in a path, decoded.
pub type GroupPath = web::Path<(String, String)>;
