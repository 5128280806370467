//! What becomes of a packet, and why: the one table of reasons behind the counters, the metrics, `lbctl` and the docs.

macro_rules! reasons {
    ($($name:ident = $code:literal $kind:ident $text:literal $help:literal;)*) => {
        /// Why a packet was forwarded, answered, passed to the kernel's own stack, or dropped.
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason { $(#[doc = $help] $name = $code),* }

        impl Reason {
            /// Every reason, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Label of the metric, column of `lbctl`.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text),* } }

            /// One sentence for the docs.
            pub const fn help(self) -> &'static str { match self { $(Self::$name => $help),* } }

            /// Which way the packet went.
            // A call would cost the stack of the programs 32 bytes on kernels that round frames up.
            #[inline(always)]
            pub const fn kind(self) -> Kind { match self { $(Self::$name => Kind::$kind),* } }

            /// Index into `counters`.
            pub const fn code(self) -> u8 { self as u8 }
        }
    };
}

/// The ways a packet can go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Rewritten and sent on.
    Forward,
    /// Turned into an answer to its sender.
    Answer,
    /// Left to the kernel's stack.
    Pass,
    /// Discarded.
    Drop,
}

impl Kind {
    /// Label of the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Answer => "answer",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

reasons! {
    ForwardLocal = 1 Forward "forward_local" "To a backend on this node.";
    ForwardTunnel = 2 Forward "forward_tunnel" "To a backend on another node, through the tunnel.";
    ForwardNetwork = 3 Forward "forward_network" "VIP translated to a backend, carried on by the network itself, or sent to the backend's node at once.";
    ReplyDirect = 4 Forward "reply_direct" "Reply of a backend on this node, translated back and sent to the client.";
    ReplyTunnel = 5 Forward "reply_tunnel" "Reply of a backend on this node, translated back and sent to the entry node.";
    ReplyFromTunnel = 6 Forward "reply_from_tunnel" "Reply that came through the tunnel, sent to the client.";
    ReplyVip = 7 Forward "reply_vip" "Reply inside a network, translated back to the VIP.";
    Hairpin = 8 Forward "hairpin" "A backend spoke to its own service and was chosen itself.";
    ReplyRetry = 9 Forward "reply_retry" "A backend refused a connection that another one may take: the client is made to ask again.";
    ErrorToBackend = 10 Forward "error_to_backend" "ICMP error about a reply, translated and sent on to the backend.";
    ErrorToClient = 11 Forward "error_to_client" "ICMP error about a client's packet, translated and sent on to the client.";

    AnswerArp = 12 Answer "answer_arp" "ARP or neighbour solicitation for a VIP.";
    AnswerEcho = 13 Answer "answer_echo" "Echo request to a VIP.";
    ResetNoBackend = 14 Answer "reset_no_backend" "TCP to a service without a backend: RST.";
    UnreachableNoBackend = 15 Answer "unreachable_no_backend" "UDP to a service without a backend: ICMP port unreachable.";
    ResetBackendGone = 16 Answer "reset_backend_gone" "TCP flow whose backend was removed: RST.";
    ResetUnknownFlow = 17 Answer "reset_unknown_flow" "TCP segment of a flow that is not known (expired, or never was): RST.";
    ResetNoPort = 18 Answer "reset_no_port" "TCP to a port that the VIP does not serve: RST.";
    UnreachableNoPort = 19 Answer "unreachable_no_port" "UDP to a port that the VIP does not serve: ICMP port unreachable.";
    AnswerTooBig = 20 Answer "answer_too_big" "Does not fit the tunnel and may not be fragmented: ICMP fragmentation needed, packet too big.";

    PassNotService = 24 Pass "not_a_service" "No frontend and no flow.";
    PassProtocol = 25 Pass "protocol" "Not IPv4 or IPv6, or neither TCP nor UDP.";
    PassOptions = 26 Pass "ip_options" "IPv4 options or IPv6 extension headers.";
    PassFragment = 27 Pass "fragment" "A fragment of no service that is known, or whose first one was not seen. XDP leaves all of them to tc.";
    PassPartialChecksum = 28 Pass "partial_checksum" "XDP: the checksum is not filled in yet; tc finishes it.";
    PassToTc = 29 Pass "to_tc" "XDP: a service's packet that only tc can deliver.";
    PassUnresolved = 30 Pass "unresolved" "XDP: the next hop's MAC is not known yet; tc resolves it.";
    PassVlan = 31 Pass "vlan" "XDP: a tagged frame of a service; tc finishes it.";
    PassInterface = 32 Pass "interface" "The interface is not in the tables.";
    PassNetwork = 33 Pass "network_reply" "Reply inside a network, translated where the client receives it.";
    PassMalformed = 34 Pass "malformed" "Headers that are truncated, contradict themselves, or name a sender that nobody is.";
    PassIcmpError = 35 Pass "icmp_error" "ICMP error about a packet of no flow. XDP leaves all of them to tc.";
    PassPathMtu = 36 Pass "path_mtu" "ICMP error: the way to another node is narrower than the tunnel. Remembered, and left to the kernel's stack.";
    PassTunnelError = 37 Pass "tunnel_error" "ICMP error, other than too big, about a packet of the tunnel: on its way to another node something refuses or loses it. Left to the kernel's stack.";

    DropFlowTableFull = 41 Drop "flow_table_full" "No room for a new flow.";
    DropTtl = 42 Drop "ttl_exceeded" "TTL or hop limit used up.";
    DropNoRoute = 43 Drop "no_route" "The kernel has no route to the destination.";
    DropTunnelSource = 44 Drop "tunnel_source" "Tunnel packet from an address that is no node's, or from a workload.";
    DropTunnelMalformed = 45 Drop "tunnel_malformed" "Tunnel packet with unknown framing.";
    DropTunnelBackend = 46 Drop "tunnel_backend" "Tunnel packet for a backend that this node does not have.";
    DropTunnelFrontend = 47 Drop "tunnel_frontend" "Tunnel packet for a frontend that its sender does not have.";
    DropNoTunnel = 48 Drop "no_tunnel" "The backend's node has no usable tunnel address.";
    DropBackendGone = 49 Drop "backend_gone" "Packet from or to a backend that was removed.";
    DropPortCollision = 50 Drop "port_collision" "No free source port to keep two flows apart at one backend.";
    DropRewrite = 51 Drop "rewrite_failed" "The kernel refused to change the packet.";
    DropTooBig = 52 Drop "too_big" "Does not fit the path after encapsulation.";
    DropForgedSource = 53 Drop "forged_source" "The client's address is of the masquerade range or this node's own, but the packet did not begin here.";
    DropSourceDenied = 54 Drop "source_denied" "The service does not answer clients with this address.";
    DropFragment = 55 Drop "fragment_without_first" "A fragment of a service's packet whose first one was not seen, or was refused.";
    DropFragmentEarly = 56 Drop "fragment_before_first" "A fragment of a service's packet that came before the first one, and was left to the node's own stack, which has no use for it. Counted when the first one comes, which says whose it was.";
}

/// What is done with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Leave it to the kernel's stack, as it is (XDP_PASS, TCX_NEXT).
    Pass,
    /// Discard it.
    Drop,
    /// Send it back out of the interface it came from; the Ethernet header is complete.
    Transmit,
    /// Send it out of `ifindex`; the Ethernet header is complete.
    Redirect,
    /// Send it out of `ifindex`; the kernel resolves the next hop and writes the Ethernet header (tc only).
    RedirectNeighbour,
    /// Deliver it to the far end of the veth `ifindex` (tc ingress only); the Ethernet header is complete.
    RedirectPeer,
    /// Deliver it to the node itself, as if it came from the loopback interface `ifindex` (tc only); the Ethernet header is
    /// complete.
    DeliverHost,
    /// Rewritten, and the stack carries it on.
    Continue,
}

/// What the program returns. Flat, because the verifier refuses to return what one variant of an enum leaves unset.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What is done with the packet.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Interface of the redirects, else 0.
    pub ifindex: u32,
}

macro_rules! constructors {
    ($($name:ident $action:ident;)*) => {
        $(#[doc = concat!("[`Action::", stringify!($action), "`].")]
        #[inline(always)]
        pub const fn $name(reason: Reason) -> Self {
            Self { action: Action::$action, reason, ifindex: 0 }
        })*
    };
}

impl Verdict {
    constructors! {
        pass Pass;
        drop Drop;
        transmit Transmit;
        continue_ Continue;
    }

    /// Whether the packet is left to what looks at ICMP errors: on tc, a program of its own.
    #[inline(always)]
    pub const fn is_for_errors(self) -> bool {
        matches!(self.reason, Reason::PassIcmpError)
    }

    /// Whether the packet is left to what puts fragments together with their ports: on tc, a program of its own.
    #[inline(always)]
    pub const fn is_for_fragments(self) -> bool {
        matches!(self.reason, Reason::PassFragment)
    }

    /// One of the redirects.
    #[inline(always)]
    pub const fn redirect(action: Action, reason: Reason, ifindex: u32) -> Self {
        Self {
            action,
            reason,
            ifindex,
        }
    }
}
