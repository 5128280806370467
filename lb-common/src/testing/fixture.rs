//! [`Fixture`]: a world, packets in, and for each its verdict, the packet out and what the tables hold then.

use std::boxed::Box;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::packet::MemoryPacket;
use super::tables::MemoryTables;
use super::world::{NOW, World};
use crate::abi::{NAMESPACE_NODE, program};
use crate::pipeline::{Work, errors, host, node, workload};
use crate::tables::{Env, Tables as _};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::Packet;

/// A program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Node interface, XDP.
    XdpNode,
    /// Node interface, tc ingress.
    TcNode,
    /// Workload interface, tc ingress.
    FromWorkload,
    /// Workload interface, tc egress.
    ToWorkload,
    /// Loopback interface, tc egress.
    FromHost,
}

impl Entry {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::XdpNode,
        Self::TcNode,
        Self::FromWorkload,
        Self::ToWorkload,
        Self::FromHost,
    ];

    /// Its name in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::XdpNode => program::XDP_NODE,
            Self::TcNode => program::TC_NODE,
            Self::FromWorkload => program::FROM_WORKLOAD,
            Self::ToWorkload => program::TO_WORKLOAD,
            Self::FromHost => program::FROM_HOST,
        }
    }
}

/// What a program is given.
#[derive(Clone, Debug)]
pub struct Input {
    /// Which one.
    pub entry: Entry,
    /// On which interface.
    pub ifindex: u32,
    /// In which network namespace.
    pub namespace: u64,
    /// The frame.
    pub frame: Vec<u8>,
    /// Payload of each segment of a buffer that carries several, else 0.
    pub segment: usize,
    /// A VLAN tag travels beside the frame.
    pub side_tag: bool,
}

impl Input {
    /// Name in the object of the program that is given this.
    pub const fn program(&self) -> &'static str {
        match self.entry {
            Entry::FromWorkload if self.namespace != NAMESPACE_NODE => program::FROM_OVERLAY,
            entry => entry.program(),
        }
    }
}

/// What a program does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Its verdict.
    pub verdict: Verdict,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Runs the pure pipeline, and counts as the programs do.
pub fn run(tables: &MemoryTables, input: &Input, now: u32) -> Output {
    if input.entry == Entry::XdpNode {
        return run_on::<true>(tables, input, now);
    }
    run_on::<false>(tables, input, now)
}

fn run_on<const XDP: bool>(tables: &MemoryTables, input: &Input, now: u32) -> Output {
    let tunnel_port = tables.settings().map_or(0, |settings| settings.tunnel_port);
    let packet = MemoryPacket::<XDP, false>::new(&input.frame)
        .side_tagged(input.side_tag)
        .segmented(input.segment)
        .pulled(tunnel_port);
    let env = Env {
        now,
        ifindex: input.ifindex,
        namespace: input.namespace,
    };
    let (mut verdict, mut packet, mut length) = pipeline(packet, tables, &env, input.entry);
    // Where a program jumps, nothing goes along but the packet.
    if input.entry != Entry::XdpNode && verdict.is_for_errors() {
        packet = packet.pulled(tunnel_port);
        (verdict, length) = about_error(&mut packet, tables, &env, input.entry);
    } else if !matches!(input.entry, Entry::XdpNode | Entry::FromHost) && verdict.is_for_fragments() {
        let (fragments, left, before) = pipeline(packet.fragments().pulled(tunnel_port), tables, &env, input.entry);
        (verdict, packet, length) = (fragments, left.whole(), before);
    }
    let quiet = matches!(input.entry, Entry::ToWorkload | Entry::FromHost);
    if !quiet || verdict.action != Action::Pass {
        tables.count(verdict.reason, length);
    }
    Output {
        verdict,
        frame: packet.bytes().to_vec(),
    }
}

/// Runs one program: verdict, packet, and how long that was before.
fn pipeline<P: Packet>(mut packet: P, tables: &MemoryTables, env: &Env, entry: Entry) -> (Verdict, P, usize) {
    let mut work = Work::default();
    let length = packet.len();
    let verdict = match entry {
        Entry::XdpNode | Entry::TcNode => node::ingress(&mut packet, tables, env, &mut work),
        Entry::FromWorkload => workload::from(&mut packet, tables, env, &mut work),
        Entry::ToWorkload => workload::to(&mut packet, tables, env, &mut work),
        Entry::FromHost => host::egress(&mut packet, tables, env, &mut work),
    };
    (verdict, packet, length)
}

/// Runs the program for ICMP errors: verdict, and how long the packet was before.
fn about_error<P: Packet>(packet: &mut P, tables: &MemoryTables, env: &Env, entry: Entry) -> (Verdict, usize) {
    let mut work = Work::default();
    let length = packet.len();
    let verdict = match entry {
        Entry::XdpNode | Entry::TcNode => errors::node(packet, tables, env, &mut work),
        Entry::FromWorkload => errors::from(packet, tables, env, &mut work),
        Entry::ToWorkload => errors::to(packet, tables, env, &mut work),
        Entry::FromHost => errors::host(packet, tables, env, &mut work),
    };
    (verdict, length)
}

type Check = Box<dyn Fn(&MemoryTables)>;

/// One packet.
pub struct Step {
    /// What goes in.
    pub input: Input,
    action: Action,
    reason: Reason,
    out_ifindex: u32,
    frame: Option<Vec<u8>>,
    check: Option<Check>,
}

impl Step {
    /// A frame to a program on an interface.
    pub fn new(entry: Entry, ifindex: u32, frame: Vec<u8>) -> Self {
        Self {
            input: Input {
                entry,
                ifindex,
                namespace: NAMESPACE_NODE,
                frame,
                segment: 0,
                side_tag: false,
            },
            action: Action::Pass,
            reason: Reason::PassNotService,
            out_ifindex: 0,
            frame: None,
            check: None,
        }
    }

    /// In another network namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: u64) -> Self {
        self.input.namespace = namespace;
        self
    }

    /// In a buffer of several segments.
    #[must_use]
    pub fn segmented(mut self, size: usize) -> Self {
        self.input.segment = size;
        self
    }

    /// With a tag beside the frame.
    #[must_use]
    pub fn side_tagged(mut self) -> Self {
        self.input.side_tag = true;
        self
    }

    /// It is passed as it came.
    #[must_use]
    pub fn passes(mut self, reason: Reason) -> Self {
        (self.action, self.reason) = (Action::Pass, reason);
        self.frame = Some(self.input.frame.clone());
        self
    }

    /// It is dropped; whatever is left of it is nobody's concern.
    #[must_use]
    pub fn drops(mut self, reason: Reason) -> Self {
        (self.action, self.reason) = (Action::Drop, reason);
        self
    }

    /// It goes back where it came from, as this.
    #[must_use]
    pub fn transmits(mut self, reason: Reason, frame: Vec<u8>) -> Self {
        (self.action, self.reason, self.frame) = (Action::Transmit, reason, Some(frame));
        self
    }

    /// The stack carries it on, as this.
    #[must_use]
    pub fn continues(mut self, reason: Reason, frame: Vec<u8>) -> Self {
        (self.action, self.reason, self.frame) = (Action::Continue, reason, Some(frame));
        self
    }

    /// It goes this way, rewritten as depends on the time.
    #[must_use]
    pub fn sends(mut self, action: Action, reason: Reason, ifindex: u32) -> Self {
        (self.action, self.reason, self.out_ifindex) = (action, reason, ifindex);
        self
    }

    /// It leaves by another interface, as this.
    #[must_use]
    pub fn redirects(mut self, action: Action, reason: Reason, ifindex: u32, frame: Vec<u8>) -> Self {
        (self.action, self.reason, self.frame) = (action, reason, Some(frame));
        self.out_ifindex = ifindex;
        self
    }

    /// What the tables hold afterwards.
    #[must_use]
    pub fn then(mut self, check: impl Fn(&MemoryTables) + 'static) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Compares an outcome with what is expected.
    ///
    /// # Panics
    /// If they differ, with both.
    pub fn check(&self, name: &str, output: &Output, tables: &MemoryTables) {
        let expected = Verdict {
            action: self.action,
            reason: self.reason,
            ifindex: self.out_ifindex,
        };
        assert_eq!(output.verdict, expected, "{name}: verdict");
        if let Some(frame) = &self.frame {
            assert!(
                *frame == output.frame,
                "{name}: frame\n     in {}\nexpected {}\n    got {}",
                hex(&self.input.frame),
                hex(frame),
                hex(&output.frame)
            );
        }
        if let Some(check) = &self.check {
            check(tables);
        }
    }
}

/// A behaviour of the packet path.
pub struct Fixture {
    /// Unique; topic first.
    pub name: String,
    /// What is promised.
    pub why: &'static str,
    /// Tables before the first packet.
    pub world: World,
    /// Packets, in order.
    pub steps: Vec<Step>,
}

impl Fixture {
    /// Without packets yet.
    pub fn new(name: impl Into<String>, why: &'static str, world: World) -> Self {
        Self {
            name: name.into(),
            why,
            world,
            steps: Vec::new(),
        }
    }

    /// One more packet.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Runs every step on the pure pipeline.
    ///
    /// # Panics
    /// At the first difference.
    pub fn run(&self) {
        self.run_in(&self.world.clone());
    }

    /// As [`Fixture::run`], in a world of the caller's.
    ///
    /// # Panics
    /// At the first difference.
    pub fn run_in(&self, world: &World) {
        for (index, step) in self.steps.iter().enumerate() {
            let output = run(&world.tables, &step.input, NOW + index as u32);
            let name = format!("{} (step {}; {})", self.name, index + 1, self.why);
            step.check(&name, &output, &world.tables);
            assert_eq!(world.tables.unnoted(), [], "{name}: nobody looks for these");
        }
    }
}

/// For messages.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
