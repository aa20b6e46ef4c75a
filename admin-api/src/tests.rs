//! The routes as they are served, while the node starts and for what is refused before any broker
//! is asked. What needs a broker is tested in `broker_test`.

use actix_web::http::StatusCode;
use actix_web::{App, test, web};
use flotilla_model::settings::{QueueSettings, TopicSettings};
use serde_json::Value;

use crate::routes;
use crate::state::{Admin, AdminConfig};

const BODY_BYTES_MAX: usize = 256;

fn starting() -> Admin {
    Admin::new(AdminConfig {
        version: "1.2.3".to_owned(),
        node_name: "node-1".to_owned(),
        body_bytes_max: BODY_BYTES_MAX,
        connections_max: 8,
        topic_defaults: TopicSettings::default(),
        queue_defaults: QueueSettings::default(),
    })
}

/// Sends a request to a node that is starting.
async fn ask(request: test::TestRequest) -> (StatusCode, String) {
    let app = test::init_service(
        App::new()
            .app_data(web::Data::new(starting()))
            .configure(|service| routes::configure(service, BODY_BYTES_MAX)),
    )
    .await;
    let response = test::call_service(&app, request.to_request()).await;
    let status = response.status();
    let body = test::read_body(response).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Sends a request and takes the error apart.
async fn refused(request: test::TestRequest) -> (StatusCode, String, String) {
    let (status, body) = ask(request).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

fn get(path: &str) -> test::TestRequest {
    test::TestRequest::get().uri(path)
}

fn put(path: &str, body: &str) -> test::TestRequest {
    test::TestRequest::put()
        .uri(path)
        .insert_header(("content-type", "application/json"))
        .set_payload(body.to_owned())
}

#[actix_web::test]
async fn a_starting_node_is_alive_but_not_ready() {
    assert_eq!(
        ask(get("/healthz")).await,
        (StatusCode::OK, r#"{"alive":true}"#.to_owned())
    );
    let (status, body) = ask(get("/readyz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("the node is starting"), "{body}");
    let (status, code, _) = refused(get("/api/v1/topics")).await;
    assert_eq!(
        (status, code.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "not_serving")
    );
}

#[actix_web::test]
async fn a_starting_node_has_metrics() {
    let (status, body) = ask(get("/metrics")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("flotilla_serving 0\n"), "{body}");
    assert!(
        body.contains("flotilla_info{version=\"1.2.3\"} 1"),
        "{body}"
    );
    assert!(body.contains("process_resident_memory_bytes "), "{body}");
}

#[actix_web::test]
async fn bad_requests_are_refused_before_the_broker_is_asked() {
    let long = format!("{{\"retention_ms\":{}1}}", " ".repeat(BODY_BYTES_MAX));
    let cases = [
        (get("/nowhere"), 404, "no_route", "/nowhere"),
        (get("/api/v1/topics/a/b"), 404, "no_route", "a/b"),
        (
            get("/api/v1/topics?limit=0"),
            400,
            "invalid_request",
            "1 to 1000",
        ),
        (
            get("/api/v1/topics?limit=1001"),
            400,
            "invalid_request",
            "1001",
        ),
        (
            get("/api/v1/topics?limit=x"),
            400,
            "invalid_request",
            "invalid digit",
        ),
        (
            get("/api/v1/topics?size=1"),
            400,
            "invalid_request",
            "`size`",
        ),
        (get("/api/v1/nodes?a=1"), 400, "invalid_request", "`a`"),
        (
            get("/api/v1/topics/a?namespace=A%20B"),
            400,
            "invalid_name",
            "A B",
        ),
        (
            put("/api/v1/topics/a", "{\"retention\":1}"),
            400,
            "invalid_request",
            "`retention`",
        ),
        (put("/api/v1/topics/a", "{"), 400, "invalid_request", "EOF"),
        (
            put("/api/v1/queues/a", "{\"messages_max\":0}"),
            400,
            "invalid_request",
            "messages_max",
        ),
        (put("/api/v1/queues/a", &long), 413, "too_large", "256"),
    ];
    for (request, status, code, word) in cases {
        let (got_status, got_code, message) = refused(request).await;
        assert_eq!(
            (got_status.as_u16(), got_code.as_str()),
            (status, code),
            "{message}"
        );
        assert!(message.contains(word), "{word:?} in {message:?}");
    }
}

#[actix_web::test]
async fn a_body_must_be_declared_as_json() {
    // A web page of another site can send plain text without asking, but not JSON.
    let request = test::TestRequest::post()
        .uri("/api/v1/topics/a/groups/g/reset")
        .insert_header(("content-type", "text/plain"))
        .set_payload(r#"{"to":"first"}"#);
    let (status, code, message) = refused(request).await;
    assert_eq!(
        (status, code.as_str()),
        (StatusCode::BAD_REQUEST, "invalid_request")
    );
    assert!(message.contains("application/json"), "{message}");
}

#[actix_web::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = test::init_service(
        App::new()
            .app_data(web::Data::new(starting()))
            .configure(|service| routes::configure(service, BODY_BYTES_MAX)),
    )
    .await;
    let request = test::TestRequest::post().uri("/api/v1/topics/a");
    let response = test::call_service(&app, request.to_request()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers().get("allow").unwrap(), "GET, PUT, DELETE");
}

#[actix_web::test]
async fn resets_name_exactly_one_place() {
    let reset = |body: &str| {
        test::TestRequest::post()
            .uri("/api/v1/topics/a/groups/g/reset")
            .insert_header(("content-type", "application/json"))
            .set_payload(body.to_owned())
    };
    for good in [
        r#"{"to":"first"}"#,
        r#"{"to":"new"}"#,
        r#"{"offset":1}"#,
        r#"{"time_ms":1700000000000}"#,
        r#"{"ago_ms":0}"#,
    ] {
        let (status, _, message) = refused(reset(good)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{good}: {message}");
    }
    for (bad, word) in [
        ("{}", "expected"),
        (r#"{"to":"middle"}"#, "middle"),
        (r#"{"offset":0}"#, "first offset"),
        (r#"{"offset":1,"to":"first"}"#, "expected"),
        (r#"{"time_ms":18446744073709551615}"#, "time_ms"),
        (r#"{"place":1}"#, "`place`"),
    ] {
        let (status, _, message) = refused(reset(bad)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {message}");
        assert!(message.contains(word), "{word:?} in {message:?}");
    }
}

#[actix_web::test]
async fn the_description_is_served() {
    let (status, body) = ask(get("/api/v1/openapi.json")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, routes::OPENAPI));
}
