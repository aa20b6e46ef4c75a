//! The network as one life of a host sees it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use flotilla_cluster::{Listen, Network, Socket};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};

use super::pipe::End;
use super::wires::{Listener, Wires};

/// A host's network in one of its lives; dead, nothing goes in or out.
pub struct Port {
    wires: Wires,
    host: u32,
    address: String,
    is_dead: Arc<AtomicBool>,
}

impl fmt::Debug for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Port({})", self.address)
    }
}

impl Port {
    pub fn new(wires: &Wires, host: u32) -> Self {
        Self {
            wires: wires.clone(),
            host,
            address: Self::address_of(host),
            is_dead: Arc::default(),
        }
    }

    pub fn address_of(host: u32) -> String {
        format!("10.0.0.{host}:7600")
    }

    /// Ends the life: with resets, as when the process is killed, or in silence, as without power.
    pub fn die(&self, in_silence: bool) {
        self.is_dead.store(true, Ordering::SeqCst);
        match in_silence {
            true => self.wires.silence_host(self.host),
            false => self.wires.close_host(self.host),
        }
    }
}

impl Network for Port {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        let (wires, host, is_dead) = (self.wires.clone(), self.host, self.is_dead.clone());
        Box::pin(async move {
            let (there, back) = {
                let mut state = wires.lock();
                (state.latency(), state.latency())
            };
            tokio::time::sleep(there).await;
            let answer = if is_dead.load(Ordering::SeqCst) {
                None
            } else {
                reach(&wires, host, &address)
            };
            match answer {
                Some(answer) => {
                    tokio::time::sleep(back).await;
                    answer
                }
                // Silence, until the caller gives up.
                None => std::future::pending().await,
            }
        })
    }
}

/// Knocks at an address: in, refused, or no answer at all.
fn reach(wires: &Wires, host: u32, address: &str) -> Option<io::Result<Box<dyn Socket>>> {
    let mut state = wires.lock();
    let refused = || Some(Err(io::ErrorKind::ConnectionRefused.into()));
    let target = match state.listeners().get(address) {
        Some(listener) => listener.host,
        None => return refused(),
    };
    if state.is_cut(host, target) || state.is_cut(target, host) || state.is_refused() {
        return None;
    }
    let there = state.pipe(wires, host, target);
    let back = state.pipe(wires, target, host);
    let listener = state.listeners().get_mut(address)?;
    let far: Box<dyn Socket> = Box::new(End::new(there.clone(), back.clone()));
    listener.waiting.push_back(far);
    if let Some(waker) = listener.waker.take() {
        waker.wake();
    }
    Some(Ok(Box::new(End::new(back, there))))
}

impl Listen for Port {
    fn address(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }

    fn incoming(&self) -> io::Result<BoxStream<'static, io::Result<Box<dyn Socket>>>> {
        let (wires, address) = (self.wires.clone(), self.address.clone());
        let is_dead = self.is_dead.clone();
        if !is_dead.load(Ordering::SeqCst) {
            let listener = Listener {
                host: self.host,
                waiting: VecDeque::new(),
                waker: None,
            };
            let before = wires.lock().listeners().insert(address.clone(), listener);
            drop(before);
        }
        let accepted = stream::poll_fn(move |context| {
            let mut state = wires.lock();
            if is_dead.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
            let Some(listener) = state.listeners().get_mut(&address) else {
                return Poll::Pending;
            };
            match listener.waiting.pop_front() {
                Some(socket) => Poll::Ready(Some(Ok(socket))),
                None => {
                    listener.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        Ok(accepted.boxed())
    }
}
