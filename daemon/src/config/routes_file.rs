//! Routes of KubeMQ sends that are kept in a file of their own.

use std::fs::File;
use std::io::Read;

use flotilla_gateway::Routes;
use flotilla_storage::error_chain;

use super::checks::Problem;
use super::sections::Config;

const KEY: &str = "kubemq.routes_file";
/// A larger file is none of routes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads the file that `kubemq.routes_file` names, if it names one.
pub fn load(config: &mut Config) -> Result<(), Problem> {
    if config.kubemq_routes_file.as_os_str().is_empty() {
        return Ok(());
    }
    if !config.kubemq.routes.is_empty() {
        return Problem::at(
            KEY,
            "\"\", because kubemq.routes is set as well, and routes are in one place only",
        );
    }
    let routes =
        read(config).and_then(|text| Routes::from_json(&text).map_err(|error| error_chain(&error)));
    match routes {
        Ok(routes) => config.kubemq.routes = routes,
        Err(problem) => {
            return Problem::at(KEY, format!("the path of a file with routes ({problem})"));
        }
    }
    Ok(())
}

fn read(config: &Config) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = File::open(&config.kubemq_routes_file).map_err(cannot)?;
    let mut text = String::new();
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    limited.read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}
