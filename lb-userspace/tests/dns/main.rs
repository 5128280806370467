//! The DNS server over real sockets on loopback: clients in several networks, upstreams that behave and misbehave.

mod forwarding;
mod names;
mod scene;
mod sockets;
mod upstream;
