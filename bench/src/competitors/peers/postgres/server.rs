//! The server: a data folder of its own, and the user that it runs as.

use crate::BenchError;
use crate::competitors::peers::make_directory;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// It refuses to run as root: Debian's package makes this user.
const USER: &str = "postgres";
/// What the documentation recommends to change for much writing; all about durability stays as it is:
/// fsync, synchronous_commit and full_page_writes are on.
const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "wal_buffers=64MB",
];

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    user: u32,
    group: u32,
}

pub fn program(name: &str) -> PathBuf {
    super::programs().join(name)
}

/// Makes the data folder.
pub async fn initialise(directory: &Path) -> Result<PathBuf, BenchError> {
    let directory = std::path::absolute(directory).map_err(BenchError::io("find the folder"))?;
    let data = make_directory(&directory, "data")?;
    if let Some(identity) = other_identity()? {
        std::os::unix::fs::chown(&data, Some(identity.user), Some(identity.group))
            .map_err(BenchError::io(format!("give {} to {USER}", data.display())))?;
    }
    let mut command = command("initdb", &data)?;
    command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8"]);
    command.args(["--no-locale", "--pgdata"]).arg(&data);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(BenchError::client("run initdb"))?
        .map_err(BenchError::io("run initdb"))?;
    if output.status.success() {
        return Ok(data);
    }
    Err(BenchError::Refused {
        doing: "initdb".to_owned(),
        text: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// What starts it on a data folder.
pub fn launch(
    data: PathBuf,
    port: u16,
) -> Result<impl Fn() -> Command + Send + Sync + 'static, BenchError> {
    let identity = other_identity()?;
    Ok(move || {
        let mut command = prepared("postgres", &data, identity);
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
    })
}

fn command(name: &str, data: &Path) -> Result<Command, BenchError> {
    Ok(prepared(name, data, other_identity()?))
}

fn prepared(name: &str, data: &Path, identity: Option<Identity>) -> Command {
    let mut command = Command::new(program(name));
    // Where it may be, whoever it is.
    command.current_dir(data);
    if let Some(identity) = identity {
        command.gid(identity.group).uid(identity.user);
    }
    command
}

/// Who it has to run as, unless the bench itself may run it.
fn other_identity() -> Result<Option<Identity>, BenchError> {
    // SAFETY: geteuid touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(BenchError::io("read users"))?;
    match find_user(&users, USER) {
        Some(identity) => Ok(Some(identity)),
        None => Err(BenchError::NotInstalled {
            what: format!("the user {USER}"),
            hint: crate::competitors::peers::HINT,
        }),
    }
}

/// Finds a user in the text of `/etc/passwd`.
fn find_user(users: &str, name: &str) -> Option<Identity> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, user, group, ..] = fields[..] else {
            return None;
        };
        (found == name).then_some(())?;
        Some(Identity {
            user: user.parse().ok()?,
            group: group.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\n\
                     postgres2:x:7:8::/:/bin/sh\n\
                     postgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash\n";
        let expected = Identity {
            user: 101,
            group: 104,
        };
        assert_eq!(find_user(users, "postgres"), Some(expected));
        assert_eq!(find_user(users, "nobody"), None);
    }
}
