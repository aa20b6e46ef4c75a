//! Network namespaces without names: they are gone with the processes that use them, whatever
//! happens to the test.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A network of its own.
#[derive(Debug)]
pub struct Namespace {
    descriptor: File,
}

impl Namespace {
    /// Makes one. Needs root.
    pub fn new() -> io::Result<Self> {
        // Only a thread that lives in it can open a namespace without a name.
        std::thread::spawn(|| {
            enter_new()?;
            Ok(Self {
                descriptor: File::open("/proc/thread-self/ns/net")?,
            })
        })
        .join()
        .map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
    }

    /// Where other programs find it, as long as it lives.
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.descriptor.as_raw_fd()
        )
    }

    /// Makes the program start in it. The namespace must live until the program has been started.
    pub fn hold(&self, command: &mut Command) {
        enter_at_start(command, self.descriptor.as_raw_fd());
    }
}

/// Puts the calling thread into a new network, with all threads and processes that it starts.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: the network of this thread is no part of the memory.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn enter_at_start(command: &mut Command, descriptor: RawFd) {
    // SAFETY: a system call is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setns(descriptor, libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_starts_in_the_network_that_holds_it() {
        let namespace = Namespace::new().expect("namespaces need root");
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net");
        namespace.hold(&mut command);
        let inside = command.output().expect("readlink").stdout;
        let outside = std::fs::read_link("/proc/self/ns/net").expect("this one's network");
        assert_ne!(
            String::from_utf8_lossy(&inside).trim(),
            outside.to_string_lossy()
        );
    }
}
