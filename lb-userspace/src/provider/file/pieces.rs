//! The document in force in pieces, so that a change costs what it changes, not what there is.
//!
//! It only says yes: whatever is wrong or unusual about a document or a change makes it `None`, and the document is read
//! as a whole, which says what and where.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::claims::Claims;
use super::cut::{Kind, cut};
use super::document::{Cluster, Network, Node, Published, Service};
use super::ports::{self, Wanted};
use super::services;
use super::validate::{self, Known, Problems};
use crate::model::snapshot::{self, Protocol, Snapshot};

/// A document of so many pieces that shrinks to a quarter is read anew, which takes no room for what it was.
const LARGE: usize = 1000;

/// A change of a text: `new` in the place of `old` bytes at `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: usize,
    pub(super) old: usize,
    pub(super) new: Vec<u8>,
}

/// All pieces of a valid document.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Bytes before the first piece.
    head: usize,
    pieces: Vec<Piece>,
    nodes: Vec<Node>,
    networks: Vec<Network>,
    network_ids: Vec<u32>,
    claims: Claims,
    tunnel_port: u16,
}

#[derive(Clone, Debug)]
struct Piece {
    length: usize,
    /// `None`: a node or a network.
    service: Option<Made>,
}

/// What was made of a service.
#[derive(Clone, Debug)]
struct Made {
    service: Arc<snapshot::Service>,
    /// Indexes of ports that are published wherever there is room.
    automatic: Box<[usize]>,
}

impl Pieces {
    /// Those of a whole document.
    pub(super) fn read(bytes: &[u8], tunnel_port: u16) -> Option<(Self, Snapshot)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let cuts = cut(text)?;
        let first = cuts.first()?.1.start;
        let (mut nodes, mut networks) = (Vec::new(), Vec::new());
        for (kind, range) in cuts.iter().filter(|(kind, _)| *kind != Kind::Service) {
            let part: Cluster = toml::from_str(&text[range.clone()]).ok()?;
            nodes.extend(part.node);
            networks.extend(part.network);
            debug_assert!(part.service.is_empty(), "{kind:?}");
        }
        let mut problems = Problems::default();
        validate::nodes(&nodes, &mut problems);
        let network_ids = validate::networks(&networks, &mut problems);
        if !problems.0.is_empty() {
            return None;
        }
        let known = known_of(&nodes, &networks);
        let mut pieces = Vec::with_capacity(cuts.len());
        for (kind, range) in cuts {
            let length = range.len();
            let service = match kind {
                Kind::Service => Some(make(&text[range], &known, tunnel_port)?),
                Kind::Node | Kind::Network => None,
            };
            pieces.push(Piece { length, service });
        }
        let mut read = Self {
            head: first,
            pieces: Vec::new(),
            claims: Claims::new(
                nodes.iter().map(|node| node.name.as_str()),
                networks.iter().map(|network| network.name.as_str()),
                (tunnel_port, Protocol::Udp),
            ),
            nodes,
            networks,
            network_ids,
            tunnel_port,
        };
        if !read.take(&pieces) {
            return None;
        }
        read.pieces = pieces;
        read.give_ports()?;
        let snapshot = read.snapshot();
        Some((read, snapshot))
    }

    /// Follows a change of `text`, of which these are the pieces. `None`: these are as before, and it has to be read anew.
    pub(super) fn change(&mut self, text: &[u8], edit: &Edit) -> Option<Snapshot> {
        let end = edit.at + edit.old;
        // From the piece in which it begins (what comes at the very beginning of one belongs to the one before), to the last
        // whose successor does not begin right where it ends.
        let (mut first, mut start) = (0, 0);
        let mut at = self.head;
        for (index, piece) in self.pieces.iter().enumerate() {
            if at >= edit.at {
                break;
            }
            (first, start) = (index, at);
            at += piece.length;
        }
        if first == 0 {
            start = 0;
        }
        let (mut last, mut stop) = (self.pieces.len(), text.len());
        let mut at = text.len();
        for (index, piece) in self.pieces.iter().enumerate().rev() {
            at -= piece.length;
            if at <= end || index <= first {
                break;
            }
            (last, stop) = (index, at);
        }
        let changed = [&text[start..edit.at], &edit.new, &text[end..stop]].concat();
        let changed = std::str::from_utf8(&changed).ok()?;
        let old_head = if first == 0 { self.head } else { 0 };
        let mut known_texts: HashMap<&[u8], Made> = HashMap::new();
        let gone = self.pieces[first..last].to_vec();
        let mut at = start + old_head;
        for piece in &gone {
            known_texts.insert(&text[at..at + piece.length], piece.service.clone()?);
            at += piece.length;
        }
        let cuts = cut(changed)?;
        let head = cuts.first().map(|(_, range)| range.start);
        // Without a piece left, what was before it would belong to the one before.
        let head = head.filter(|head| first == 0 || *head == 0)?;
        if self.pieces.len() > LARGE && (self.pieces.len() - gone.len() + cuts.len()) * 4 < self.pieces.len() {
            return None;
        }
        let known = known_of(&self.nodes, &self.networks);
        let mut made = Vec::with_capacity(cuts.len());
        for (kind, range) in cuts {
            let text = &changed[range.clone()];
            if kind != Kind::Service {
                return None;
            }
            let service = match known_texts.get(text.as_bytes()) {
                Some(same) => same.clone(),
                None => make(text, &known, self.tunnel_port)?,
            };
            made.push(Piece {
                length: range.len(),
                service: Some(service),
            });
        }
        self.give_back(&gone);
        if !self.take(&made) {
            let taken = self.take(&gone);
            debug_assert!(taken, "it had all this");
            return None;
        }
        let count = made.len();
        let gone: Vec<_> = self.pieces.splice(first..last, made).collect();
        let before = self.head;
        self.head = if first == 0 { head } else { before };
        if self.give_ports().is_none() {
            let made: Vec<_> = self.pieces.splice(first..first + count, gone.iter().cloned()).collect();
            self.head = before;
            self.give_back(&made);
            let taken = self.take(&gone);
            debug_assert!(taken, "it had all this");
            return None;
        }
        Some(self.snapshot())
    }

    /// Takes what the services of `pieces` need, or nothing.
    fn take(&mut self, pieces: &[Piece]) -> bool {
        for (index, piece) in pieces.iter().enumerate() {
            let Some(Made { service, automatic }) = &piece.service else {
                continue;
            };
            if !self.claims.take(service, automatic) {
                self.give_back(&pieces[..index]);
                return false;
            }
        }
        true
    }

    fn give_back(&mut self, pieces: &[Piece]) {
        for Made { service, automatic } in pieces.iter().filter_map(|piece| piece.service.as_ref()) {
            self.claims.give_back(service, automatic);
        }
    }

    /// Finds a port for everything that is published wherever there is room.
    fn give_ports(&mut self) -> Option<()> {
        let mut wanted = Vec::new();
        let mut places = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let Some(Made { service, automatic }) = &piece.service else {
                continue;
            };
            for &item in automatic {
                wanted.push(Wanted {
                    network: &service.network,
                    service: &service.name,
                    port: service.ports[item].port,
                    protocol: service.ports[item].protocol,
                });
                places.push((index, item));
            }
        }
        if wanted.is_empty() {
            return Some(());
        }
        let reserved: BTreeSet<_> = self.claims.ports().collect();
        let given: Vec<u16> = ports::assign(&wanted, &reserved).into_iter().collect::<Option<_>>()?;
        for ((index, item), port) in places.into_iter().zip(given) {
            let port = Some(port);
            let service = &mut self.pieces[index].service.as_mut()?.service;
            if service.ports[item].published != port {
                Arc::make_mut(service).ports[item].published = port;
            }
        }
        Some(())
    }

    fn snapshot(&self) -> Snapshot {
        let services = self.pieces.iter().filter_map(|piece| piece.service.as_ref());
        Snapshot {
            generation: 0,
            nodes: validate::snapshot_nodes(&self.nodes),
            networks: validate::snapshot_networks(&self.networks, &self.network_ids),
            services: services.map(|made| Arc::clone(&made.service)).collect(),
        }
    }
}

fn known_of<'a>(nodes: &'a [Node], networks: &'a [Network]) -> Known<'a> {
    Known::new(nodes, networks, validate::nodes(nodes, &mut Problems::default()))
}

/// The service of which a piece speaks, if nothing is wrong with it by itself.
fn make(text: &str, known: &Known<'_>, tunnel_port: u16) -> Option<Made> {
    let part: Cluster = toml::from_str(text).ok()?;
    let [service] = &part.service[..] else { return None };
    let mut problems = Problems::default();
    let published = services::check(std::slice::from_ref(service), known, tunnel_port, &mut problems);
    if !problems.0.is_empty() {
        return None;
    }
    let mut made = services::build(std::slice::from_ref(service), &published);
    Some(Made {
        service: Arc::new(made.pop()?),
        automatic: automatic(service),
    })
}

fn automatic(service: &Service) -> Box<[usize]> {
    let ports = service.ports.iter().enumerate();
    let automatic = ports.filter(|(_, port)| port.published == Published::Auto);
    automatic.map(|(index, _)| index).collect()
}
