//! [`Packet`] over an XDP frame.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use lb_common::wire::checksum::Diff;
use lb_common::wire::{ETHERNET, Hook, Packet};

use crate::bytes;

pub(crate) struct XdpPacket {
    context: *mut xdp_md,
    data: usize,
    end: usize,
}

impl XdpPacket {
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        let mut packet = Self {
            context,
            data: 0,
            end: 0,
        };
        packet.refresh();
        packet
    }

    /// The length as a number: what it is worked out from would be kept instead, and with it the bounds that are learnt of it.
    #[inline(always)]
    pub(crate) fn len_now(&self) -> usize {
        let mut length = self.end - self.data;
        // SAFETY: it does nothing.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) length, options(nomem, nostack)) }
        length
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
    fn adjust_head(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is the program's own.
        let done = unsafe { bpf_xdp_adjust_head(self.context, by) };
        self.refresh();
        if done == 0 { Some(()) } else { None }
    }
}

impl Packet for XdpPacket {
    const HOOK: Hook = Hook::Xdp;

    #[inline(always)]
    fn look_again(&mut self) {
        self.refresh();
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        0
    }

    #[inline(always)]
    fn tagged(&self) -> bool {
        false
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
        self.store(offset, [byte])
    }

    #[inline(always)]
    fn store_uncovered_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        self.store_words(offset, words)
    }

    #[inline(always)]
    fn update_l3_checksum(&mut self, offset: usize, diff: Diff) -> Option<()> {
        let field = self.load(offset)?;
        self.store(offset, diff.apply(field))
    }

    #[inline(always)]
    fn update_l4_checksum(&mut self, offset: usize, pseudo: Diff, rest: Diff, udp: bool, _v6: bool) -> Option<()> {
        let field = self.load::<2>(offset)?;
        if udp && field == [0, 0] {
            return Some(());
        }
        let sum = pseudo.join(rest).apply(field);
        self.store(offset, if udp && sum == [0, 0] { [0xff, 0xff] } else { sum })
    }

    #[inline(always)]
    fn insert(&mut self, size: usize, _outer_v6: bool, tunnel: bool) -> Option<()> {
        self.adjust_head(-(size as i32))?;
        // What goes into the tunnel from XDP is dropped, or gets an Ethernet header of its own.
        if tunnel {
            return Some(());
        }
        let header = self.load::<ETHERNET>(size)?;
        self.store(0, header)
    }

    #[inline(always)]
    fn remove(&mut self, size: usize, _inner_v6: bool) -> Option<()> {
        let header = self.load::<ETHERNET>(0)?;
        self.adjust_head(size as i32)?;
        self.store(0, header)
    }

    #[inline(always)]
    fn remove_tag(&mut self) -> Option<()> {
        let macs = self.load::<12>(0)?;
        self.adjust_head(4)?;
        self.store(0, macs)
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        let by = len as i32 - self.len() as i32;
        if by > 0 {
            return None;
        }
        // SAFETY: the context is the program's own.
        let done = unsafe { bpf_xdp_adjust_tail(self.context, by) };
        self.refresh();
        if done == 0 { Some(()) } else { None }
    }
}
