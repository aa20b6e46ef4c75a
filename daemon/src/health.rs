//! `flotilla health`: asks a running node whether it serves, for container probes and scripts.

use ureq::http::StatusCode;

use crate::admin_client::AdminClient;
use crate::error::DaemonError;

/// What the node says if it is ready; an error with its reasons if not.
pub fn ask(node: &AdminClient) -> Result<String, DaemonError> {
    let (status, body) = node.read("/readyz")?;
    let body = body.trim();
    match status {
        StatusCode::OK => Ok(body.to_owned()),
        _ => Err(node.fail(format!("not ready, status {}: {body}", status.as_u16()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_client::tests::answering;

    #[test]
    fn a_ready_node_gives_its_answer() {
        let node = answering(
            "GET /readyz ",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"ready\":true}\n",
        );
        assert_eq!(ask(&node).unwrap(), "{\"ready\":true}");
    }

    #[test]
    fn a_node_that_is_not_ready_is_an_error_with_its_reason() {
        let node = answering(
            "GET /readyz ",
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\nstarting",
        );
        let error = ask(&node).unwrap_err().to_string();
        assert!(
            error.contains("503") && error.contains("starting"),
            "{error}"
        );
    }
}
