//! [`Packet`] over a tc packet buffer.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_pull_data,
    bpf_skb_store_bytes, bpf_skb_vlan_pop,
};
use lb_common::abi::SETTING_L4_CSUM_IPV6;
use lb_common::wire::checksum::Diff;
use lb_common::wire::reach::{self, HEADERS};
use lb_common::wire::{Hook, Packet, ethertype};

use crate::{bytes, maps};

/// `BPF_F_IPV6` of `bpf_l4_csum_replace`: the address change is IPv6's, whose header has no sum of its own.
const BPF_F_IPV6: u64 = 1 << 7;
/// An IPv6 header is so much longer than an IPv4 header.
const IP_HEADERS_DIFFER: i32 = 20;

pub(crate) struct TcPacket<const FRAGMENTS: bool> {
    context: *mut __sk_buff,
    data: usize,
    end: usize,
}

impl<const FRAGMENTS: bool> TcPacket<FRAGMENTS> {
    #[inline(always)]
    pub(crate) fn new(context: *mut __sk_buff) -> Self {
        let mut packet = Self {
            context,
            data: 0,
            end: 0,
        };
        packet.refresh();
        packet.pull();
        // Also where nothing was pulled: what is known of the old bounds would have the verifier follow each case by itself.
        packet.refresh();
        packet
    }

    /// Brings the headers into reach, as far as there are any.
    #[inline(always)]
    fn pull(&self) {
        let wanted = if self.len() < HEADERS { self.len() } else { HEADERS };
        if self.data + wanted <= self.end {
            return;
        }
        let tunnel_port = maps::settings.get(0).map_or(0, |settings| settings.tunnel_port);
        if !reach::suffices(self, tunnel_port) {
            // SAFETY: the context is the program's own. What could not be pulled fails its bounds check later.
            unsafe { bpf_skb_pull_data(self.context, wanted as u32) };
        }
    }

    #[inline(always)]
    fn refresh(&mut self) {
        // SAFETY: the kernel passes a valid context.
        unsafe {
            self.data = (*self.context).data as usize;
            self.end = (*self.context).data_end as usize;
        }
    }

    #[inline(always)]
    fn done(&mut self, code: i64) -> Option<()> {
        self.refresh();
        if code == 0 { Some(()) } else { None }
    }
}

impl<const FRAGMENTS: bool> Packet for TcPacket<FRAGMENTS> {
    const FRAGMENTS: bool = FRAGMENTS;
    const HOOK: Hook = Hook::Tc;

    #[inline(always)]
    fn look_again(&mut self) {
        self.refresh();
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).len as usize }
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).gso_size as usize }
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).vlan_present != 0 }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        bytes::load(self.data, self.end, offset)
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        bytes::load_words(self.data, self.end, offset)
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        bytes::store_words(self.data, self.end, offset, words)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        bytes::store(self.data, self.end, offset, value)
    }

    #[inline(always)]
    fn store_uncovered(&mut self, offset: usize, byte: u8) -> Option<()> {
        let value = [byte];
        // SAFETY: the context is the program's own, the byte is on the stack.
        let code = unsafe {
            bpf_skb_store_bytes(
                self.context,
                offset as u32,
                value.as_ptr().cast(),
                1,
                BPF_F_RECOMPUTE_CSUM as u64,
            )
        };
        self.done(code)
    }

    #[inline(always)]
    fn store_uncovered_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        // SAFETY: the context is the program's own, the words are on the stack.
        let code = unsafe {
            bpf_skb_store_bytes(
                self.context,
                offset as u32,
                words.as_ptr().cast(),
                4 * N as u32,
                BPF_F_RECOMPUTE_CSUM as u64,
            )
        };
        self.done(code)
    }

    #[inline(always)]
    fn update_l3_checksum(&mut self, offset: usize, diff: Diff) -> Option<()> {
        let field = self.load(offset)?;
        self.store(offset, diff.apply(field))
    }

    #[inline(always)]
    fn update_l4_checksum(&mut self, offset: usize, pseudo: Diff, rest: Diff, udp: bool, v6: bool) -> Option<()> {
        let zero = if udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        if pseudo != Diff::ZERO {
            let v6 = if v6 { ipv6_flag() } else { 0 };
            let flags = BPF_F_PSEUDO_HDR as u64 | zero | v6;
            // SAFETY: the context is the program's own.
            let code = unsafe { bpf_l4_csum_replace(self.context, offset as u32, 0, pseudo.sum() as u64, flags) };
            self.done(code)?;
        }
        if rest.fold() != 0xffff && rest.fold() != 0 {
            // SAFETY: the context is the program's own.
            let code = unsafe { bpf_l4_csum_replace(self.context, offset as u32, 0, rest.sum() as u64, zero) };
            self.done(code)?;
        }
        Some(())
    }

    #[inline(always)]
    fn insert(&mut self, size: usize, outer_v6: bool, tunnel: bool) -> Option<()> {
        let flags = if tunnel {
            let l3 = if outer_v6 {
                BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
            } else {
                BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
            };
            // Segment sizes were agreed on in the handshake, with the tunnel's headers in mind.
            (l3 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO) as u64
        } else {
            0
        };
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_skb_adjust_room(self.context, size as i32, BPF_ADJ_ROOM_MAC, flags) };
        self.done(code)
    }

    #[inline(always)]
    fn remove(&mut self, size: usize, inner_v6: bool) -> Option<()> {
        let outer_v6 = self.load_u16(12)? == ethertype::IPV6;
        let mut size = size as i32;
        if outer_v6 != inner_v6 {
            // Tells the kernel of the other family, at the price of the difference between two IP headers. The flags of
            // `bpf_skb_adjust_room` that do it alone came with 6.3.
            let protocol = if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
            // SAFETY: the context is the program's own.
            let code = unsafe { bpf_skb_change_proto(self.context, protocol.to_be(), 0) };
            self.done(code)?;
            size += if inner_v6 {
                IP_HEADERS_DIFFER
            } else {
                -IP_HEADERS_DIFFER
            };
        }
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_skb_adjust_room(self.context, -size, BPF_ADJ_ROOM_MAC, flags) };
        self.done(code)
    }

    #[inline(always)]
    fn remove_tag(&mut self) -> Option<()> {
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_skb_vlan_pop(self.context) };
        self.done(code)
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        if len > self.len() {
            return None;
        }
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_skb_change_tail(self.context, len as u32, 0) };
        self.done(code)
    }
}

#[inline(always)]
fn ipv6_flag() -> u64 {
    match maps::settings.get(0) {
        Some(settings) if settings.flags & SETTING_L4_CSUM_IPV6 != 0 => BPF_F_IPV6,
        _ => 0,
    }
}
