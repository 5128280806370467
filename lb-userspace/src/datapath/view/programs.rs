//! Lists the pinned programs and links: what is attached where, and what it costs.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_prog_info;
use lb_common::abi::NAMESPACE_NODE;

use super::super::layout;
use super::sys::{self, LinkTarget};

/// A pinned program, or a pinned link and the program behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Path of the pin below the pin directory, as `links/tcx_ingress-eth0`.
    pub pin: String,
    /// Name of the program, if it may be known.
    pub name: Option<String>,
    /// The kernel's id, if it may be known.
    pub id: Option<u32>,
    /// Hash of the instructions, hexadecimal.
    pub tag: Option<String>,
    /// `xdp`, `tcx_ingress`, `tcx_egress`; none for a program that is only pinned.
    pub hook: Option<String>,
    /// Interface index; none for a program that is only pinned, 0 for a link whose interface is gone.
    pub ifindex: Option<u32>,
    /// Network namespace of the interface, as [`lb_common::abi::InterfaceKey::namespace`] has it.
    pub namespace: u64,
    /// Name of the interface, if it is in this network namespace.
    pub interface: Option<String>,
    /// Times that it ran, if the kernel counts (`kernel.bpf_stats_enabled`).
    pub run_count: Option<u64>,
    /// Nanoseconds that it ran, if the kernel counts.
    pub run_time_ns: Option<u64>,
    /// Why something is not known.
    pub note: Option<String>,
}

/// Every pin in `links` and `programs` below `directory`.
pub(super) fn list(directory: &Path) -> io::Result<Vec<ProgramInfo>> {
    let mut all = Vec::new();
    for folder in ["links", "programs"] {
        for path in pins(&directory.join(folder))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut program = ProgramInfo {
                pin: format!("{folder}/{name}"),
                ..Default::default()
            };
            let outcome = if folder == "links" {
                link(&path, &mut program)
            } else {
                pinned(&path, &mut program)
            };
            if let Err(e) = outcome {
                program.note = Some(e.to_string());
            }
            all.push(program);
        }
    }
    Ok(all)
}

fn pins(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths: Vec<_> = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn pinned(path: &Path, program: &mut ProgramInfo) -> io::Result<()> {
    describe(&sys::open_pin(path, sys::READ_WRITE)?, program)
}

fn link(path: &Path, program: &mut ProgramInfo) -> io::Result<()> {
    let fd = sys::open_pin(path, sys::READ_WRITE)?;
    let info = sys::link_info(fd.as_fd())?;
    program.id = Some(info.prog_id);
    let (hook, ifindex) = match sys::link_target(&info) {
        LinkTarget::Xdp { ifindex } => ("xdp", ifindex),
        LinkTarget::Tcx { ifindex, ingress: true } => ("tcx_ingress", ifindex),
        LinkTarget::Tcx {
            ifindex,
            ingress: false,
        } => ("tcx_egress", ifindex),
        LinkTarget::Other => return Ok(()),
    };
    program.hook = Some(hook.into());
    program.ifindex = Some(ifindex);
    let pin = path.file_name().and_then(|name| layout::parse_link(name.to_str()?));
    program.namespace = pin.map_or(NAMESPACE_NODE, |(_, interface)| interface.namespace);
    program.interface = interface_name(ifindex).filter(|_| program.namespace == NAMESPACE_NODE);
    describe(&sys::program_by_id(info.prog_id)?, program)
}

fn describe(fd: &OwnedFd, program: &mut ProgramInfo) -> io::Result<()> {
    let info: bpf_prog_info = sys::program_info(fd.as_fd())?;
    program.name = Some(text(&info.name));
    program.id = Some(info.id);
    program.tag = Some(info.tag.iter().map(|b| format!("{b:02x}")).collect());
    if info.run_cnt > 0 {
        program.run_count = Some(info.run_cnt);
        program.run_time_ns = Some(info.run_time_ns);
    }
    Ok(())
}

fn text(name: &[c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn interface_name(ifindex: u32) -> Option<String> {
    if ifindex == 0 {
        return None;
    }
    Some(
        nix::net::if_::if_indextoname(ifindex)
            .ok()?
            .to_string_lossy()
            .into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
    use lb_common::testing::skip::{current_test, skip};
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::datapath::view::sys::testing::{create_link, load_program, pin};

    struct Mounted(tempfile::TempDir);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
        }
    }

    /// In a thread with a network namespace of its own, whose loopback has index 1.
    #[test]
    fn pinned_programs_and_links_are_described() {
        let thread = std::thread::Builder::new().name(current_test());
        let run = thread.spawn(|| {
            let folder = Mounted(tempfile::tempdir().unwrap());
            let prepared = unshare(CloneFlags::CLONE_NEWNET).and_then(|()| {
                mount(
                    Some("bpf"),
                    folder.0.path(),
                    Some("bpf"),
                    MsFlags::empty(),
                    None::<&str>,
                )
            });
            if let Err(e) = prepared {
                skip(&format!("needs root for a namespace and a bpffs: {e}"));
                return;
            }
            let root = folder.0.path();
            assert_eq!(list(root).unwrap(), []);
            for name in ["links", "programs"] {
                std::fs::create_dir(root.join(name)).unwrap();
            }
            let xdp = load_program(bpf_prog_type::BPF_PROG_TYPE_XDP as u32, "xdp_test").unwrap();
            let tc = load_program(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32, "tc_test").unwrap();
            pin(&xdp, &root.join("programs/xdp_test"));
            let (skb_mode, ifindex) = (2, 1);
            let link = create_link(&xdp, ifindex, bpf_attach_type::BPF_XDP as u32, skb_mode).unwrap();
            pin(&link, &root.join("links/xdp-1"));
            let ingress = create_link(&tc, ifindex, bpf_attach_type::BPF_TCX_INGRESS as u32, 0);
            let tcx = ingress.is_ok();
            if let Ok(link) = ingress {
                pin(&link, &root.join("links/tcx_ingress-1"));
                let link = create_link(&tc, ifindex, bpf_attach_type::BPF_TCX_EGRESS as u32, 0).unwrap();
                pin(&link, &root.join("links/tcx_egress-1"));
            }
            let all = list(root).unwrap();
            let of = |pin: &str| all.iter().find(|p| p.pin == pin).unwrap();
            let link = of("links/xdp-1");
            assert_eq!(
                (link.hook.as_deref(), link.ifindex, link.interface.as_deref()),
                (Some("xdp"), Some(1), Some("lo"))
            );
            let program = of("programs/xdp_test");
            assert_eq!(
                (program.name.as_deref(), &program.hook, program.ifindex),
                (Some("xdp_test"), &None, None)
            );
            assert_eq!(
                (&link.name, link.id, &link.tag),
                (&program.name, program.id, &program.tag)
            );
            assert_eq!(program.tag.as_ref().unwrap().len(), 16);
            if tcx {
                assert_eq!(of("links/tcx_ingress-1").hook.as_deref(), Some("tcx_ingress"));
                assert_eq!(of("links/tcx_egress-1").hook.as_deref(), Some("tcx_egress"));
            }
        });
        run.unwrap().join().unwrap();
    }
}
