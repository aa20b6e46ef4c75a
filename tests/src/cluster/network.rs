//! One network namespace for each node and one for the clients, joined by a bridge, with links that
//! can be cut one way.
//!
//! ```text
//!   the test's namespace: clients, 10.77.0.254
//!     bridge --+-- veth -- node 1's namespace, 10.77.0.1
//!              +-- veth -- node 2's namespace, 10.77.0.2
//!              +-- ...
//! ```
//!
//! Every namespace knows the hardware addresses of all others by fixed entries. A cut from A to B
//! changes A's entry of B to an address that nobody has: what A sends to B vanishes on the bridge,
//! without an error, as with a broken wire, and B still reaches A. No packet filter is needed.

use super::namespace::{self, Namespace};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node by its number, from 1.
    Node(u32),
    /// Where the test and all clients are.
    Clients,
}

impl Place {
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.last_byte())
    }

    fn last_byte(self) -> u8 {
        match self {
            // At most NODES_MAX.
            Place::Node(number) => number as u8,
            Place::Clients => 254,
        }
    }

    fn hardware_address(self) -> String {
        format!("02:00:0a:4d:00:{:02x}", self.last_byte())
    }

    fn device(self) -> &'static str {
        match self {
            Place::Node(_) => "eth0",
            Place::Clients => "bridge0",
        }
    }
}

const NODES_MAX: u32 = 100;
/// Has no owner.
const NOWHERE: &str = "02:00:0a:4d:ff:ff";

/// The network of one test. The thread that makes it stays in it.
pub struct Network {
    nodes: Vec<Arc<Namespace>>,
    cuts: BTreeSet<(Place, Place)>,
}

impl Network {
    /// Puts this thread into a new network with that many nodes. Needs root.
    pub fn new(nodes: u32) -> Self {
        assert!(nodes <= NODES_MAX, "{nodes} nodes are too many");
        namespace::enter_new().expect("network namespaces need root");
        let nodes = (0..nodes)
            .map(|_| Arc::new(Namespace::new().expect("network namespaces need root")))
            .collect();
        let network = Self {
            nodes,
            cuts: BTreeSet::new(),
        };
        network.set_up();
        network
    }

    fn set_up(&self) {
        let places = self.places();
        let mut clients = String::new();
        // Writing to strings cannot fail.
        let _ = writeln!(clients, "link set lo up");
        let _ = writeln!(
            clients,
            "link add {} address {} type bridge",
            Place::Clients.device(),
            Place::Clients.hardware_address()
        );
        for (index, namespace) in self.nodes.iter().enumerate() {
            let place = Place::Node(index as u32 + 1);
            let _ = writeln!(
                clients,
                "link add port{index} type veth peer name {} address {} netns {}",
                place.device(),
                place.hardware_address(),
                namespace.path()
            );
            let _ = writeln!(
                clients,
                "link set port{index} master {} up",
                Place::Clients.device()
            );
        }
        for place in places.iter().copied() {
            let mut commands = if place == Place::Clients {
                std::mem::take(&mut clients)
            } else {
                "link set lo up\n".to_owned()
            };
            let device = place.device();
            let _ = writeln!(commands, "address add {}/24 dev {device}", place.address());
            let _ = writeln!(commands, "link set {device} up");
            for other in places.iter().copied().filter(|other| *other != place) {
                let _ = writeln!(commands, "{}", neighbour(place, other, false));
            }
            self.run(place, &commands);
        }
    }

    /// All nodes, after the clients.
    fn places(&self) -> Vec<Place> {
        let nodes = (1..=self.nodes.len() as u32).map(Place::Node);
        [Place::Clients].into_iter().chain(nodes).collect()
    }

    /// The namespace that a node's process starts in.
    pub fn namespace(&self, node: u32) -> &Arc<Namespace> {
        &self.nodes[node as usize - 1]
    }

    /// Lets nothing through from one place to the other; the way back stays.
    pub fn cut_one_way(&mut self, from: Place, to: Place) {
        if self.cuts.insert((from, to)) {
            self.run(from, &neighbour(from, to, true));
        }
    }

    /// Lets nothing through between two places.
    pub fn cut(&mut self, one: Place, other: Place) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts a node off from all other nodes; clients still reach it.
    pub fn isolate_from_nodes(&mut self, node: u32) {
        let node = Place::Node(node);
        for other in self.places() {
            if other != Place::Clients && other != node {
                self.cut(node, other);
            }
        }
    }

    /// Cuts a node off from everything.
    pub fn isolate(&mut self, node: u32) {
        self.isolate_from_nodes(node);
        self.cut(Place::Node(node), Place::Clients);
    }

    /// Takes all cuts back.
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.run(from, &neighbour(from, to, false));
        }
    }

    /// Runs lines of the `ip` program at a place.
    fn run(&self, place: Place, lines: &str) {
        let mut command = Command::new("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Place::Node(node) = place {
            self.namespace(node).hold(&mut command);
        }
        let mut child = command
            .spawn()
            .expect("`ip` of the package iproute2 is installed: run scripts/test-deps.sh");
        let mut input = child.stdin.take().expect("it was asked for");
        input
            .write_all(lines.as_bytes())
            .expect("`ip` reads what it is told");
        drop(input);
        let output = child.wait_with_output().expect("`ip` ends");
        assert!(
            output.status.success(),
            "`ip` at {place:?}: {}{}\nit was told:\n{lines}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

/// The line that tells a place how to reach another one, or not to.
fn neighbour(at: Place, other: Place, cut: bool) -> String {
    let hardware_address = if cut {
        NOWHERE.to_owned()
    } else {
        other.hardware_address()
    };
    format!(
        "neighbour replace {} lladdr {hardware_address} dev {} nud permanent",
        other.address(),
        at.device()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    const PORT: u16 = 7000;
    /// A retransmission of the kernel comes after 0.2 s.
    const SILENCE: Duration = Duration::from_millis(400);
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Calls a function in the namespace of a node.
    fn at<T: Send + 'static>(
        network: &Network,
        node: u32,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        use std::os::fd::AsRawFd;
        let namespace = std::fs::File::open(network.namespace(node).path()).expect("a namespace");
        std::thread::spawn(move || {
            // SAFETY: the network of this thread is no part of the memory.
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            function()
        })
        .join()
        .expect("the function does not panic")
    }

    fn listen(network: &Network, node: u32) -> TcpListener {
        let address = SocketAddr::from((Place::Node(node).address(), PORT));
        at(network, node, move || TcpListener::bind(address)).expect("a free port")
    }

    /// A first attempt may be lost while the bridge gets ready, and is repeated after a second.
    fn connect(network: &Network, from: Place, to: u32) -> std::io::Result<TcpStream> {
        connect_within(network, from, to, PATIENCE)
    }

    fn connect_within(
        network: &Network,
        from: Place,
        to: u32,
        wait: Duration,
    ) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from((Place::Node(to).address(), PORT));
        let connect = move || TcpStream::connect_timeout(&address, wait);
        match from {
            Place::Clients => connect(),
            Place::Node(node) => at(network, node, connect),
        }
    }

    /// Whether bytes sent on one end come out of the other in a while.
    fn arrives(mut from: &TcpStream, mut to: &TcpStream, wait: Duration) -> bool {
        from.write_all(b"x").expect("the buffer has room");
        to.set_read_timeout(Some(wait)).expect("a time");
        to.read(&mut [0; 1]).is_ok_and(|count| count == 1)
    }

    #[test]
    fn a_cut_stops_one_direction_of_what_is_connected_and_healing_lets_it_through() {
        let mut network = Network::new(2);
        let listener = listen(&network, 2);
        let there = connect(&network, Place::Node(1), 2).expect("a connection");
        let (here, _) = listener.accept().expect("a connection");
        assert!(arrives(&there, &here, PATIENCE) && arrives(&here, &there, PATIENCE));

        network.cut_one_way(Place::Node(1), Place::Node(2));
        assert!(
            !arrives(&there, &here, SILENCE),
            "node 1 still reaches node 2"
        );
        network.heal();
        assert!(arrives(&here, &there, PATIENCE), "not healed backwards");
        here.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut left = [0; 1];
        assert!((&here).read_exact(&mut left).is_ok(), "not healed");
    }

    #[test]
    fn a_node_cut_off_from_nodes_is_still_reached_by_clients() {
        let mut network = Network::new(3);
        let _listeners: Vec<TcpListener> = (1..=3).map(|node| listen(&network, node)).collect();
        network.isolate_from_nodes(2);
        assert!(connect_within(&network, Place::Node(1), 2, SILENCE).is_err());
        assert!(connect_within(&network, Place::Node(2), 3, SILENCE).is_err());
        assert!(connect(&network, Place::Node(1), 3).is_ok());
        assert!(connect(&network, Place::Clients, 2).is_ok());
        network.isolate(2);
        assert!(connect_within(&network, Place::Clients, 2, SILENCE).is_err());
        network.heal();
        let deadline = Instant::now() + PATIENCE;
        while connect_within(&network, Place::Node(1), 2, SILENCE).is_err() {
            assert!(Instant::now() < deadline, "not healed");
        }
    }

    #[test]
    fn networks_of_two_tests_do_not_meet() {
        let _one = Network::new(1);
        let other = std::thread::spawn(|| {
            let network = Network::new(1);
            let _listener = listen(&network, 1);
            connect(&network, Place::Clients, 1).map(drop)
        });
        let reached = other.join().expect("no panic");
        assert!(reached.is_ok(), "{reached:?}");
    }
}
