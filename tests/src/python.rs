//! Processes of the real SDKs, each in the environment that `scripts/test-deps.sh` made for it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A pinned release of the kubemq SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    V1_1_0,
    V2_4_0,
    V3_6_0,
    V4_1_5,
}

impl Sdk {
    pub fn version(self) -> &'static str {
        match self {
            Sdk::V1_1_0 => "1.1.0",
            Sdk::V2_4_0 => "2.4.0",
            Sdk::V3_6_0 => "3.6.0",
            Sdk::V4_1_5 => "4.1.5",
        }
    }

    fn python(self) -> PathBuf {
        let environment = format!("../.local/venv-{}", self.version());
        let python = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(environment)
            .join("bin/python");
        assert!(
            python.exists(),
            "{} is missing: run scripts/test-deps.sh",
            python.display()
        );
        python
    }

    /// A Python process of this release, in the folder of the Python tests.
    pub fn command(self) -> Command {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(self.python());
        command
            .current_dir(project.join("sdk"))
            // 1.1.0 takes local times for those of UTC.
            .env("TZ", "UTC")
            // Kept out of the sources, and kept: most of a short process's time would go to compile the SDK.
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .env("PYTHONPYCACHEPREFIX", project.join("../.local/pycache"))
            .env("PYTHONUNBUFFERED", "1");
        command
    }
}

/// Runs one file of the Python tests against a server; fails with pytest's output.
pub fn run_pytest(sdk: Sdk, file: &str, address: &str, environment: &[(&str, &str)]) {
    let output = sdk
        .command()
        .args([
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "--durations=3",
            "-p",
            "no:cacheprovider",
            file,
        ])
        .env("FLOTILLA_ADDRESS", address)
        .envs(environment.iter().copied())
        .output()
        .expect("pytest runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{file} with kubemq {}: {}\n{text}\n{errors}",
        sdk.version(),
        output.status
    );
    println!("{file} with kubemq {}\n{text}", sdk.version());
}

/// Runs a script of the load folder to its end, and gives what it printed.
pub fn run_script(sdk: Sdk, name: &str, arguments: &[String]) -> String {
    let output = sdk
        .command()
        .arg(load_script(name))
        .args(arguments)
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}\n{text}\n{errors}",
        output.status
    );
    text
}

fn load_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("load")
        .join(name)
}

/// A load script that runs until its standard input is closed, so that it never outlives the test.
pub struct Script {
    name: String,
    child: Child,
    log_path: PathBuf,
}

impl Script {
    pub fn start(sdk: Sdk, name: &str, arguments: &[String], log_path: &Path) -> io::Result<Self> {
        let log = File::create(log_path)?;
        let child = sdk
            .command()
            .arg(load_script(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log_path: log_path.to_owned(),
        })
    }

    /// Tells it to finish what it is doing and to end.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end; panics with what it printed when it failed or took too long.
    pub fn finish(mut self, limit: Duration) {
        self.stop();
        let status = crate::server::wait(&mut self.child, limit).expect("waiting for a child");
        let log = std::fs::read_to_string(&self.log_path).unwrap_or_default();
        match status {
            Some(status) if status.success() => {}
            Some(status) => panic!("{} ended with {status}:\n{log}", self.name),
            None => panic!("{} still runs after {limit:?}:\n{log}", self.name),
        }
    }

    /// Panics with what it printed when it has ended by itself.
    pub fn expect_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("asking for a child's state") {
            let log = std::fs::read_to_string(&self.log_path).unwrap_or_default();
            panic!("{} ended early with {status}:\n{log}", self.name);
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
