//! Bounded access to packet bytes, in the form that the verifier follows: `data + offset + N > end`.
//!
//! Bytes move in words. Headers behind an Ethernet header are aligned to two bytes only; the BPF backend turns a typed
//! access into one instruction whatever the address, and the kernel loads such a program only where the machine takes
//! misaligned accesses.

use core::mem::MaybeUninit;

/// Headers end before this. An offset that was kept in memory has no bounds in the verifier's eyes until it is masked.
const REACH: usize = 0x1ff;

/// Bytes asked for: of a single one the compiler would check `start >= end`, from which the verifier learns nothing. Every
/// header goes on behind its single bytes.
const fn room(n: usize) -> usize {
    if n < 2 { 2 } else { n }
}

#[inline(always)]
pub(crate) fn load<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    let start = data + (offset & REACH);
    if start + room(N) > end {
        return None;
    }
    let mut value = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the bytes lie between data and end, and all N of the value are written.
    unsafe {
        copy::<N>(start as *const u8, value.as_mut_ptr().cast());
        Some(value.assume_init())
    }
}

#[inline(always)]
pub(crate) fn store<const N: usize>(data: usize, end: usize, offset: usize, value: [u8; N]) -> Option<()> {
    let start = data + (offset & REACH);
    if start + room(N) > end {
        return None;
    }
    // SAFETY: the bytes lie between data and end.
    unsafe { copy::<N>(value.as_ptr(), start as *mut u8) };
    Some(())
}

#[inline(always)]
pub(crate) fn load_words<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u32; N]> {
    let start = data + (offset & REACH);
    if start + 4 * N > end {
        return None;
    }
    // SAFETY: the bytes lie between data and end.
    Some(unsafe { (start as *const [u32; N]).read() })
}

#[inline(always)]
pub(crate) fn store_words<const N: usize>(data: usize, end: usize, offset: usize, words: [u32; N]) -> Option<()> {
    let start = data + (offset & REACH);
    if start + 4 * N > end {
        return None;
    }
    // SAFETY: the bytes lie between data and end.
    unsafe { (start as *mut [u32; N]).write(words) };
    Some(())
}

/// Copies N bytes by the largest words that fit.
#[inline(always)]
unsafe fn copy<const N: usize>(from: *const u8, to: *mut u8) {
    let mut at = 0;
    // SAFETY: the caller's.
    unsafe {
        while at + 4 <= N {
            to.add(at).cast::<u32>().write(from.add(at).cast::<u32>().read());
            at += 4;
        }
        if at + 2 <= N {
            to.add(at).cast::<u16>().write(from.add(at).cast::<u16>().read());
            at += 2;
        }
        if at < N {
            *to.add(at) = *from.add(at);
        }
    }
}
