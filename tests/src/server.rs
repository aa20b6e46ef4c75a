//! The real server as a child process.
//!
//! It is started with a data directory and the environment's settings only, and is ready when it
//! has printed so. Its output goes to a file in the test's work directory.

use crate::cluster::namespace::Namespace;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a start may take, also one that recovers a log.
const START_SECONDS_MAX: u64 = 120;
/// What its log says before the words of a panic.
const PANICKED: &str = "panic: ";
/// What the server promises for a graceful end.
pub const SHUTDOWN_SECONDS_MAX: u64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "could not run {}: build it with `cargo build -p flotilla-daemon`",
        .binary.display()
    )]
    Spawn {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the server ended with {status} before it was ready, its log:\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("the server was not ready after {START_SECONDS_MAX} s, its log:\n{log}")]
    NotReady { log: String },
    #[error("a thread of the server, or of one before it, has panicked, its log:\n{log}")]
    Panicked { log: String },
    #[error("the server did not end within {seconds} s after SIGTERM, its log:\n{log}")]
    NotStopped { seconds: u64, log: String },
    #[error("could not work with the server process: {0}")]
    Process(#[from] io::Error),
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    environment: BTreeMap<OsString, OsString>,
    arguments: Vec<OsString>,
    log_path: PathBuf,
    namespace: Option<Arc<Namespace>>,
}

impl Options {
    /// KubeMQ and admin on free ports, every other listener off.
    pub fn new(data_dir: &Path, log_path: &Path) -> Self {
        let options = Self {
            environment: BTreeMap::new(),
            arguments: vec!["serve".into()],
            log_path: log_path.to_owned(),
            namespace: None,
        };
        options
            .set("FLOTILLA_NODE_DATA_DIR", data_dir.as_os_str())
            .set("FLOTILLA_LISTEN_KUBEMQ", "127.0.0.1:0")
            .set("FLOTILLA_LISTEN_ADMIN", "127.0.0.1:0")
            .set("FLOTILLA_LISTEN_KUBEMQ_REST", "")
            .set("FLOTILLA_LISTEN_LONELYPS", "")
            .set("FLOTILLA_LISTEN_MESSAGEDB", "")
            .set("FLOTILLA_LISTEN_CLUSTER", "")
    }

    /// Sets an environment variable of the server.
    pub fn set(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    /// Adds a command line argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it in another network.
    pub fn namespace(mut self, namespace: Arc<Namespace>) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The program alone, without arguments or settings.
    pub fn program(&self) -> Command {
        Command::new(binary())
    }

    /// The program with its environment, for a test that runs it by itself.
    pub fn command(&self) -> Command {
        let mut command = self.program();
        command.args(&self.arguments).stdin(Stdio::null());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("FLOTILLA_") {
                command.env_remove(key);
            }
        }
        command.envs(&self.environment);
        if let Some(namespace) = &self.namespace {
            namespace.hold(&mut command);
        }
        go_first(&mut command);
        command
    }

    /// Everything that servers with this log file have printed.
    pub fn log(&self) -> String {
        read_log(&self.log_path)
    }

    /// Starts the server and waits until it serves.
    pub fn start(&self) -> Result<Server, ServerError> {
        let (mut server, lines) = self.launch()?;
        server.wait_until_ready(&lines)?;
        Ok(server)
    }

    /// Starts the server and does not wait: it may be anywhere in its recovery.
    pub fn start_unready(&self) -> Result<Server, ServerError> {
        Ok(self.launch()?.0)
    }

    fn launch(&self) -> Result<(Server, Receiver<String>), ServerError> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path)?;
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .map_err(|source| ServerError::Spawn {
                binary: binary(),
                source,
            })?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no standard output"))?;
        let server = Server {
            child,
            log_path: self.log_path.clone(),
            listeners: BTreeMap::new(),
        };
        Ok((server, follow(stdout, log)))
    }
}

/// Gives the program the processors before the tests and their clients, where tests may: the nodes of a
/// cluster have one machine together, which other tests load too, and must not look dead to each other.
fn go_first(command: &mut Command) {
    const NICE: libc::c_int = -10;
    // SAFETY: a system call is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Only root may: whoever is not has the priority of all others.
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
            Ok(())
        });
    }
}

/// The binary under test: the one built beside the running test, or the one that `FLOTILLA_TEST_BINARY`
/// names.
fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("FLOTILLA_TEST_BINARY") {
        return binary.into();
    }
    let test = std::env::current_exe().expect("a running test knows its own path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests run in PROFILE/deps of the target folder");
    profile.join("flotilla")
}

/// Copies what the server prints to its log, and hands the lines out.
fn follow(stdout: ChildStdout, mut log: File) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Err(error) = writeln!(log, "{line}") {
                eprintln!("could not write the server's log: {error}");
            }
            // Nobody listens any more once the server is ready: then only the log is left.
            let _ = sender.send(line);
        }
    });
    lines
}

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    log_path: PathBuf,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Server {
    fn wait_until_ready(&mut self, lines: &Receiver<String>) -> Result<(), ServerError> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(line) => self.note_listener(&line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ServerError::NotReady { log: self.log() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(ServerError::Ended {
                        status,
                        log: self.log(),
                    });
                }
            }
        }
    }

    /// Takes in a line such as `listening kubemq 127.0.0.1:50000`.
    fn note_listener(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if let (Some("listening"), Some(name), Some(address)) =
            (words.next(), words.next(), words.next())
            && let Ok(address) = address.parse()
        {
            self.listeners.insert(name.to_owned(), address);
        }
    }

    fn listener(&self, name: &str) -> SocketAddr {
        match self.listeners.get(name) {
            Some(address) => *address,
            None => panic!(
                "the server printed no address of {name}, its log:\n{}",
                self.log()
            ),
        }
    }

    pub fn kubemq(&self) -> SocketAddr {
        self.listener("kubemq")
    }

    /// REST and WebSocket, if the options switch them on.
    pub fn kubemq_rest(&self) -> SocketAddr {
        self.listener("kubemq_rest")
    }

    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far, also by earlier servers with the same log file.
    pub fn log(&self) -> String {
        read_log(&self.log_path)
    }

    /// Ends it without warning, and waits until it is gone.
    pub fn kill(mut self) -> Result<(), ServerError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in the middle of whatever it does, until it is let go on.
    pub fn freeze(&self) -> io::Result<()> {
        signal(&self.child, libc::SIGSTOP)
    }

    /// Lets a frozen one go on as if nothing had been.
    pub fn unfreeze(&self) -> io::Result<()> {
        signal(&self.child, libc::SIGCONT)
    }

    /// Whether it has not ended by itself; its exit status is left for whoever waits for it.
    pub fn is_running(&self) -> io::Result<bool> {
        // SAFETY: all zeros is a valid siginfo, and the child has not been waited for, so its id is
        // not another process's.
        let (result, process) = unsafe {
            let mut information: libc::siginfo_t = std::mem::zeroed();
            let result = libc::waitid(
                libc::P_PID,
                self.child.id(),
                &mut information,
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            );
            (result, information.si_pid())
        };
        match result {
            0 => Ok(process == 0),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks it to end, and waits as long as a graceful end may take.
    pub fn terminate(mut self) -> Result<ExitStatus, ServerError> {
        self.signal_termination()?;
        match wait(&mut self.child, Duration::from_secs(SHUTDOWN_SECONDS_MAX))? {
            // Clients might only see that a connection broke.
            Some(_) if self.log().contains(PANICKED) => {
                Err(ServerError::Panicked { log: self.log() })
            }
            Some(status) => Ok(status),
            None => Err(ServerError::NotStopped {
                seconds: SHUTDOWN_SECONDS_MAX,
                log: self.log(),
            }),
        }
    }

    /// Asks it to end and comes back at once.
    pub fn signal_termination(&self) -> io::Result<()> {
        signal(&self.child, libc::SIGTERM)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| format!("(the log could not be read: {error})"))
}

fn signal(child: &Child, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the child has not been waited for, so its id is not another process's.
    match unsafe { libc::kill(child.id() as libc::pid_t, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a child with a deadline; none if it still runs then.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    // SAFETY: the child has not been waited for, so its id is not another process's.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) } as i32;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut poll = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `poll` is one entry, and the descriptor is closed nowhere else.
    unsafe {
        libc::poll(&mut poll, 1, limit.as_millis() as i32);
        libc::close(descriptor);
    }
    child.try_wait()
}

/// A port that nothing listens on, outside the range that outgoing connections take theirs from: so
/// a server can come back on the port it had.
pub fn free_port() -> u16 {
    use rand::Rng;
    (0..1000)
        .map(|_| rand::rng().random_range(20_000..30_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 1,000 ports is free")
}
