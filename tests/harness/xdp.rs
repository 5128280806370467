//! An XDP program that passes everything. A veth end with it receives by NAPI, which is what the other end needs to
//! transmit or redirect into it from XDP; a network card needs nothing of the kind.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use crate::netns::Netns;

/// `r0 = 2 (XDP_PASS); exit`.
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Attaches the program to an interface, in the driver, for as long as what is returned lives.
///
/// # Errors
/// Without BPF, or if the driver has no XDP.
pub fn pass(netns: &Netns, interface: &str) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(&elf()?)?;
    let program: &mut Xdp = ebpf.program_mut("pass").context("program")?.try_into()?;
    program.load()?;
    netns
        .run(|| program.attach(interface, XdpMode::Driver))
        .with_context(|| format!("attach XDP to {interface} in {}", netns.name()))?;
    Ok(ebpf)
}

/// The program as an object file.
fn elf() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Text).to_vec();
    let section = object.add_section(segment, b"xdp".to_vec(), SectionKind::Text);
    object.append_section_data(section, &PASS, 8);
    object.add_symbol(Symbol {
        name: b"pass".to_vec(),
        value: 0,
        size: PASS.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
