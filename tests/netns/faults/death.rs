//! An agent that dies at a place of one's choice, upgrades that do not matter, and changes that it has to write.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use lb_tests::cluster::{Cluster, Deployed, Node, Port, Published, Service};
use lb_userspace::datapath::view::View;
use lb_userspace::fault::Point;

use super::patience;

/// What a plan of every phase needs, each time another: a service that comes while one goes, a backend that drains while
/// another is back, an interface that comes while one goes.
pub(super) fn change_something(cluster: &Cluster, shift: &Deployed<'_>, number: usize) {
    let backends = shift.document().backend;
    let edit = cluster.edit(|document| {
        document.service.retain(|service| !service.name.starts_with("passing"));
        document.service.push(Service {
            name: format!("passing{number}"),
            network: "shop".into(),
            mode: "vip",
            vip: vec!["10.1.0.250".parse().unwrap()],
            ports: vec![Port {
                port: 1000 + number as u16,
                target: 9,
                protocol: "tcp",
                published: Some(Published::On(10_000 + number as u16)),
            }],
            backend: backends.clone(),
            ..Service::default()
        });
        for (index, backend) in document.service(shift.name()).backend.iter_mut().enumerate() {
            backend.state = if index % 2 == number % 2 { "ready" } else { "draining" };
        }
    });
    edit.unwrap();
    let node = cluster.node(0).netns();
    if number > 0 {
        node.ip(&format!("link del shop9{}", number - 1)).unwrap();
    }
    node.ip(&format!(
        "link add shop9{number} type veth peer name far{number}\nlink set shop9{number} up"
    ))
    .unwrap();
}

/// Starts the agent so that it dies at `point`, and sees to it that it does.
#[track_caller]
pub(super) fn die_at(node: &Node, point: Point, variables: &[(&'static str, String)]) {
    let mut agent = node.agent();
    let mut variables = variables.to_vec();
    variables.push(("LB_FAULT", point.name()));
    agent.set_environment(&variables);
    agent.spawn(node.netns()).unwrap();
    let status = if matches!(point, Point::StopBegun | Point::StopEnded) {
        agent.wait_ready().unwrap();
        agent.stop().unwrap()
    } else {
        agent
            .wait_end(patience())
            .unwrap_or_else(|error| panic!("{} is never reached: {error}\n{}", point.name(), agent.log()))
    };
    assert_eq!(status.signal(), Some(9), "{}: {status}\n{}", point.name(), agent.log());
}

pub(super) fn start(node: &Node, variables: &[(&'static str, String)]) {
    node.agent().set_environment(variables);
    node.start_agent().unwrap();
}

/// The object with other instructions that do the same: of a small number, moving 32 bits is moving 64.
pub(super) fn another_build(directory: &Path) -> PathBuf {
    use object::{Object as _, ObjectSection as _, SectionKind};
    let mut bytes = lb_userspace::datapath::OBJECT.to_vec();
    let sections: Vec<_> = object::File::parse(&bytes[..])
        .expect("an object")
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range())
        .collect();
    let mut changed = 0;
    for (start, length) in sections {
        let code = &mut bytes[start as usize..(start + length) as usize];
        let mut wide = false;
        for instruction in code.chunks_exact_mut(8) {
            let first = instruction[0];
            let small = i32::from_le_bytes(instruction[4..8].try_into().expect("four bytes")) > 0;
            // BPF_ALU64 | BPF_MOV | BPF_K becomes BPF_ALU | BPF_MOV | BPF_K; the second half of a wide load is data.
            if !wide && first == 0xb7 && small {
                instruction[0] = 0xb4;
                changed += 1;
            }
            wide = !wide && first == 0x18;
        }
    }
    assert!(changed > 0, "nothing to change in the object");
    let path = directory.join("changed.o");
    std::fs::write(&path, bytes).expect("written");
    path
}

/// Tags of the programs that a node's packets meet: hashes of their instructions.
pub(super) fn tags(node: &Node) -> Vec<String> {
    let programs = View::find(node.bpffs()).unwrap().programs().unwrap();
    let links = programs.into_iter().filter(|program| program.hook.is_some());
    let mut tags: Vec<_> = links.map(|link| link.tag.expect("a tag")).collect();
    if tags.is_empty() {
        let filters = ["filter", "show", "dev", "eth0", "ingress"];
        let filters = node.netns().output("tc", &filters).unwrap();
        let words: Vec<_> = filters.split_whitespace().collect();
        tags = words
            .windows(2)
            .filter(|pair| pair[0] == "tag")
            .map(|pair| pair[1].to_owned())
            .collect();
    }
    assert!(!tags.is_empty(), "nothing is attached");
    tags.sort();
    tags.dedup();
    tags
}
