//! `flotilla health`: asks a running node whether it serves, for container probes and scripts.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::error::DaemonError;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks `url` (`http://host:port`) for `/readyz`. The answer's body if the node is ready.
pub fn ask(url: &str, timeout: Duration) -> Result<String, DaemonError> {
    let fail = |problem: String| DaemonError::Health {
        url: url.to_owned(),
        problem,
    };
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'))
        .ok_or_else(|| fail("must have the form http://host:port".to_owned()))?;
    let answer = exchange(authority, timeout).map_err(|error| fail(error.to_string()))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| fail("the answer is not HTTP".to_owned()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.trim().to_owned()),
        _ => Err(fail(format!("not ready, status {status}: {}", body.trim()))),
    }
}

fn exchange(authority: &str, timeout: Duration) -> std::io::Result<String> {
    let mut last_error =
        std::io::Error::new(std::io::ErrorKind::NotFound, "the host name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return ask_on(stream, authority, timeout),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn ask_on(mut stream: TcpStream, authority: &str, timeout: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers one connection with these bytes.
    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /readyz "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn a_ready_node_gives_its_answer() {
        let url = answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n{\"ready\":true}");
        assert_eq!(
            ask(&url, Duration::from_secs(5)).unwrap(),
            "{\"ready\":true}"
        );
    }

    #[test]
    fn a_node_that_is_not_ready_is_an_error_with_its_reason() {
        let url = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nstarting");
        let error = ask(&url, Duration::from_secs(5)).unwrap_err().to_string();
        assert!(
            error.contains("503") && error.contains("starting"),
            "{error}"
        );
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_url() {
        for url in ["", "127.0.0.1:1", "https://x:1", "http://", "http://a/b"] {
            let error = ask(url, Duration::from_millis(100)).unwrap_err();
            assert!(error.to_string().starts_with(url), "{error}");
        }
        let url = answering("hello");
        assert!(ask(&url, Duration::from_secs(5)).is_err());
    }
}
