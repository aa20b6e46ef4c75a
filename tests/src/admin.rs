//! Small requests to the admin port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A GET request: the status code and the body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request(address, "GET", path, WAIT_MAX)
}

/// A request without a body, answered soon or not at all.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    wait_max: Duration,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, wait_max)?;
    stream.set_read_timeout(Some(wait_max))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("not an HTTP answer: {answer:?}")))?;
    let code = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status code: {head:?}")))?;
    Ok((code, body.to_owned()))
}

/// The sum of a metric over all its series, zero if it has none.
pub fn metric(address: SocketAddr, name: &str) -> io::Result<f64> {
    let (code, text) = get(address, "/metrics")?;
    if code != 200 {
        return Err(io::Error::other(format!(
            "/metrics answered {code}: {text}"
        )));
    }
    Ok(sum_of_series(&text, name))
}

fn sum_of_series(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, _) = series.split_once('{').unwrap_or((series, ""));
            (series_name == name)
                .then(|| value.parse::<f64>().ok())
                .flatten()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_series_only() {
        let text = "# TYPE a gauge\na{shard=\"1\"} 2\na{shard=\"2\"} 3.5\nab 100\na_total 7\n";
        assert_eq!(sum_of_series(text, "a"), 5.5);
        assert_eq!(sum_of_series(text, "ab"), 100.0);
        assert_eq!(sum_of_series(text, "absent"), 0.0);
    }
}
