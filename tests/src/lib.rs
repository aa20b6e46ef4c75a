//! What the end-to-end tests share: the real server as a child process, its clients as processes of
//! the real SDKs, disks that fail, and the checks of what was promised.

pub mod admin;
pub mod checker;
pub mod cluster;
pub mod credentials;
pub mod disk_watch;
pub mod fault_tool;
pub mod history;
pub mod journal;
pub mod load;
pub mod lossyfs;
pub mod native;
pub mod python;
pub mod seed;
pub mod server;
pub mod signed;
pub mod tmpfs;
pub mod workdir;
pub mod workload;
