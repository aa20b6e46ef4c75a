//! The HTTP server around the routes.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::{Server, Service};
use actix_web::{App, HttpServer, web};
use rustls::ServerConfig;

use crate::routes;
use crate::state::Admin;

/// How long a request in progress may take after the server was asked to stop.
const STOP_GRACE_S: u64 = 2;
/// A client that does not finish its request head by then is cut off, or its TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this long; scrapers come every few seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Serves the interface on a listener, encrypted if there is something to do it with. Must be called within an actix `System`; the server runs
/// when it is awaited or spawned, and leaves signals to the caller.
pub fn serve(listener: TcpListener, admin: Admin, tls: Option<ServerConfig>) -> io::Result<Server> {
    let connections_max = admin.config().connections_max;
    let server = HttpServer::new(move || {
        let admin = admin.clone();
        let body_bytes_max = admin.config().body_bytes_max;
        let counted = admin.clone();
        App::new()
            .app_data(web::Data::new(admin))
            .wrap_fn(move |request, service| {
                let counted = counted.clone();
                let answer = service.call(request);
                async move {
                    let answer = answer.await;
                    let status = match &answer {
                        Ok(response) => response.status(),
                        Err(error) => error.as_response_error().status_code(),
                    };
                    counted.metrics().count_request(status.as_u16());
                    answer
                }
            })
            .configure(|service| routes::configure(service, body_bytes_max))
    })
    // Operators and scrapers are few: one worker costs least while nothing happens.
    .workers(1)
    .max_connections(connections_max)
    .client_request_timeout(HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(STOP_GRACE_S)
    .tls_handshake_timeout(HEAD_TIMEOUT)
    .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}
