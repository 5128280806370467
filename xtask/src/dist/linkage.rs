//! Whether a program needs anything of the system that it runs on but the kernel.

use anyhow::{Context as _, Result, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

/// # Errors
/// It asks for a loader or for libraries, or is no program for 64 bits.
pub(crate) fn ensure_static(bytes: &[u8]) -> Result<()> {
    let header = FileHeader64::<Endianness>::parse(bytes).context("no ELF program for 64 bits")?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, bytes)? {
        if segment.p_type(endian) == PT_INTERP {
            bail!("linked dynamically: it asks for a loader");
        }
        // A static program that can be loaded anywhere has this segment too.
        let dynamic = segment.dynamic(endian, bytes)?.unwrap_or_default();
        if dynamic.iter().any(|entry| entry.tag(endian) == DT_NEEDED) {
            bail!("linked dynamically: it asks for libraries");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test itself, which is linked as cargo links by default, without its segments of one type.
    fn without(segment_types: &[u32]) -> Vec<u8> {
        let path = std::env::current_exe().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let header = FileHeader64::<Endianness>::parse(&bytes[..]).unwrap();
        let endian = header.endian().unwrap();
        let first = usize::try_from(header.e_phoff(endian)).unwrap();
        let size = usize::from(header.e_phentsize(endian));
        let count = usize::from(header.e_phnum(endian));
        for at in (0..count).map(|index| first + index * size) {
            let kind = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            if segment_types.contains(&kind) {
                bytes[at..at + 4].fill(0);
            }
        }
        bytes
    }

    #[test]
    fn a_loader_or_libraries_are_found_out() {
        let said = |bytes: &[u8]| ensure_static(bytes).map_err(|error| error.to_string());
        let message = said(&without(&[])).unwrap_err();
        assert!(message.contains("a loader"), "{message}");
        let message = said(&without(&[PT_INTERP])).unwrap_err();
        assert!(message.contains("libraries"), "{message}");
        assert_eq!(said(&without(&[PT_INTERP, object::elf::PT_DYNAMIC])), Ok(()));
        let message = said(b"#!/bin/sh\n").unwrap_err();
        assert!(message.contains("no ELF program"), "{message}");
    }
}
