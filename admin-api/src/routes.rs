//! The list of routes: the only one, from which the server and the check of the OpenAPI document
//! are both made.

use actix_web::http::Method;
use actix_web::{HttpRequest, Route, error, web};

use crate::error::AdminError;
use crate::handlers::objects::{self, Queues, Topics};
use crate::handlers::{cluster, groups, health, node, stats};

/// The hand-written OpenAPI document; a test holds it against [`RESOURCES`].
pub const OPENAPI: &str = include_str!("openapi.json");

/// A path and what can be done with it.
pub struct Resource {
    /// As the OpenAPI document writes it.
    pub path: &'static str,
    /// What can be done with it.
    pub methods: &'static [(Method, MakeRoute)],
}

/// Makes the route to a handler: actix needs a new one for each of its workers.
type MakeRoute = fn() -> Route;

/// Every path of the interface.
pub const RESOURCES: &[Resource] = &[
    Resource {
        path: "/healthz",
        methods: &[(Method::GET, || web::get().to(health::alive))],
    },
    Resource {
        path: "/readyz",
        methods: &[(Method::GET, || web::get().to(health::ready))],
    },
    Resource {
        path: "/metrics",
        methods: &[(Method::GET, || web::get().to(health::metrics))],
    },
    Resource {
        path: "/health",
        methods: &[(Method::GET, || web::get().to(stats::health))],
    },
    Resource {
        path: "/ready",
        methods: &[(Method::GET, || web::get().to(stats::ready))],
    },
    Resource {
        path: "/v1/stats/queues",
        methods: &[(Method::GET, || web::get().to(stats::queues))],
    },
    Resource {
        path: "/v1/stats/events_stores",
        methods: &[(Method::GET, || web::get().to(stats::events_stores))],
    },
    Resource {
        path: "/v1/stats/channels",
        methods: &[(Method::GET, || web::get().to(stats::channels))],
    },
    Resource {
        path: "/v1/stats/clients",
        methods: &[(Method::GET, || web::get().to(stats::clients))],
    },
    Resource {
        path: "/api/v1/topics",
        methods: &[(Method::GET, || web::get().to(objects::list::<Topics>))],
    },
    Resource {
        path: "/api/v1/topics/{name}",
        methods: &[
            (Method::GET, || web::get().to(objects::get::<Topics>)),
            (Method::PUT, || web::put().to(objects::put::<Topics>)),
            (Method::DELETE, || {
                web::delete().to(objects::delete::<Topics>)
            }),
        ],
    },
    Resource {
        path: "/api/v1/topics/{name}/groups",
        methods: &[(Method::GET, || web::get().to(groups::list))],
    },
    Resource {
        path: "/api/v1/topics/{name}/groups/{group}",
        methods: &[(Method::DELETE, || web::delete().to(groups::delete))],
    },
    Resource {
        path: "/api/v1/topics/{name}/groups/{group}/reset",
        methods: &[(Method::POST, || web::post().to(groups::reset))],
    },
    Resource {
        path: "/api/v1/queues",
        methods: &[(Method::GET, || web::get().to(objects::list::<Queues>))],
    },
    Resource {
        path: "/api/v1/queues/{name}",
        methods: &[
            (Method::GET, || web::get().to(objects::get::<Queues>)),
            (Method::PUT, || web::put().to(objects::put::<Queues>)),
            (Method::DELETE, || {
                web::delete().to(objects::delete::<Queues>)
            }),
        ],
    },
    Resource {
        path: "/api/v1/cluster",
        methods: &[(Method::GET, || web::get().to(cluster::get))],
    },
    Resource {
        path: "/api/v1/cluster/replicas",
        methods: &[(Method::PUT, || web::put().to(cluster::set_replicas))],
    },
    Resource {
        path: "/api/v1/cluster/verify",
        methods: &[
            (Method::GET, || web::get().to(cluster::verification)),
            (Method::POST, || web::post().to(cluster::verify)),
        ],
    },
    Resource {
        path: "/api/v1/nodes",
        methods: &[(Method::GET, || web::get().to(cluster::nodes))],
    },
    Resource {
        path: "/api/v1/nodes/{id}",
        methods: &[(Method::GET, || web::get().to(cluster::node))],
    },
    Resource {
        path: "/api/v1/nodes/{id}/drain",
        methods: &[(Method::POST, || web::post().to(cluster::drain))],
    },
    Resource {
        path: "/api/v1/nodes/{id}/undrain",
        methods: &[(Method::POST, || web::post().to(cluster::undrain))],
    },
    Resource {
        path: "/api/v1/nodes/{id}/leave",
        methods: &[(Method::POST, || web::post().to(cluster::leave))],
    },
    Resource {
        path: "/api/v1/damage",
        methods: &[(Method::GET, || web::get().to(node::damage))],
    },
    Resource {
        path: "/api/v1/openapi.json",
        methods: &[(Method::GET, || web::get().to(node::openapi))],
    },
];

/// Puts every route into an application, with errors of the frame as ours.
pub fn configure(service: &mut web::ServiceConfig, body_bytes_max: usize) {
    service
        .app_data(json_config(body_bytes_max))
        .app_data(web::QueryConfig::default().error_handler(|problem, _| invalid(&problem)))
        .app_data(web::PathConfig::default().error_handler(|problem, _| invalid(&problem)));
    for resource in RESOURCES {
        let mut wanted = web::resource(resource.path);
        for (_, route) in resource.methods {
            wanted = wanted.route(route());
        }
        let methods: Vec<_> = resource.methods.iter().map(|(m, _)| m.as_str()).collect();
        let allowed = methods.join(", ");
        service.service(wanted.default_service(web::to(move |request: HttpRequest| {
            let error = AdminError::Method {
                method: request.method().to_string(),
                allowed: allowed.clone(),
            };
            async move { Err::<actix_web::HttpResponse, _>(error) }
        })));
    }
    service.default_service(web::to(|request: HttpRequest| async move {
        Err::<actix_web::HttpResponse, _>(AdminError::NoRoute {
            path: request.path().to_owned(),
        })
    }));
}

fn json_config(body_bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default()
        .limit(body_bytes_max)
        .error_handler(move |problem, _| match problem {
            error::JsonPayloadError::Overflow { .. }
            | error::JsonPayloadError::OverflowKnownLength { .. } => AdminError::BodyTooLarge {
                allowed: body_bytes_max,
            }
            .into(),
            error::JsonPayloadError::ContentType => AdminError::Invalid {
                what: "the request must have a body of content-type application/json".to_owned(),
            }
            .into(),
            problem => invalid(&problem),
        })
}

fn invalid(problem: &dyn std::fmt::Display) -> actix_web::Error {
    AdminError::Invalid {
        what: problem.to_string(),
    }
    .into()
}
