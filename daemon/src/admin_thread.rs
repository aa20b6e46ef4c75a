//! The thread of the admin interface: actix's event loop is of one thread, and must not share one
//! with the multi-threaded runtime of the cluster and the gateways.

use std::io;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use actix_web::dev::ServerHandle;
use actix_web::rt::System;
use flotilla_admin_api::Admin;
use rustls::ServerConfig;
use tracing::error;

use crate::error::DaemonError;
use crate::node::EndReport;

/// The running interface.
pub struct AdminThread {
    server: ServerHandle,
    thread: thread::JoinHandle<()>,
}

impl AdminThread {
    /// Serves on a listener, at once. `end` is dropped when the server ends, asked or not.
    pub fn start(
        listener: TcpListener,
        admin: Admin,
        tls: Option<ServerConfig>,
        end: EndReport,
    ) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Runtime {
            action: "start the admin interface",
            source,
        };
        let (started, starting) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let reason = System::new().block_on(async move {
                    let server = match flotilla_admin_api::serve(listener, admin, tls) {
                        Ok(server) => server,
                        Err(error) => {
                            // The receiver waits for exactly this message.
                            let _ = started.send(Err(error));
                            return "it did not start".to_owned();
                        }
                    };
                    let _ = started.send(Ok(server.handle()));
                    match server.await {
                        Ok(()) => "it stopped".to_owned(),
                        Err(error) => error.to_string(),
                    }
                });
                end.because(reason);
            })
            .map_err(failed)?;
        let server = starting
            .recv()
            .map_err(|_| failed(io::Error::other("its thread ended at once")))?
            .map_err(failed)?;
        Ok(Self { server, thread })
    }

    /// Answers the requests that are in progress, then ends.
    pub async fn stop(self) {
        self.server.stop(true).await;
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            // The panic itself was logged by the hook.
            error!("the thread of the admin interface panicked");
        }
    }
}
