//! What every answer of a service has to be: its backends see the client itself, and get equal shares.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use crate::client::{Answer, Connection, PATIENCE, Udp};
use crate::require;

/// Asks over a new TCP connection, and sees to it that the backend sees the caller's own address and port.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::ask`].
///
/// # Panics
/// If it sees another.
pub fn ask_seen(target: SocketAddr) -> io::Result<Answer> {
    let mut connection = Connection::open(target)?;
    let own = connection.local_address()?;
    Ok(seen(connection.ask()?, own, target))
}

/// As [`ask_seen`], over UDP.
///
/// # Errors
/// As [`Udp::open`] and [`Udp::ask`].
///
/// # Panics
/// As [`ask_seen`].
pub fn ask_udp_seen(target: SocketAddr) -> io::Result<Answer> {
    let socket = Udp::open(target)?;
    let own = socket.local_address()?;
    Ok(seen(socket.ask(PATIENCE * require::slowness())?, own, target))
}

fn seen(answer: Answer, own: SocketAddr, target: SocketAddr) -> Answer {
    assert_eq!(
        answer.peer, own,
        "{} sees another client than the one that asks {target}",
        answer.backend
    );
    answer
}

/// Every backend answered, as often as every other, give or take one, and nobody else did.
///
/// # Panics
/// If not; the message holds who answered.
#[track_caller]
pub fn assert_even(counts: &BTreeMap<String, usize>, backends: &[String]) {
    let mut expected = backends.to_vec();
    expected.sort();
    assert_eq!(
        counts.keys().cloned().collect::<Vec<_>>(),
        expected,
        "who answered: {counts:?}"
    );
    let (min, max) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(max - min <= 1, "not even: {counts:?}");
}
