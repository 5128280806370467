//! The archive is read back with the same means that a reader of it has: paths and digests.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;
use tar::Archive;

use super::image::{File, Image, sha256, write};

fn image() -> Image<'static> {
    Image {
        name: "lb-agent:0.1.0",
        architecture: "amd64",
        version: "0.1.0",
        entrypoint: &["/usr/bin/lb-agent"],
        command: &["run"],
        environment: &["PATH=/usr/bin"],
        directories: &["/run/lb"],
        files: &[
            File {
                path: "/usr/bin/lb-agent",
                mode: 0o755,
                content: b"program",
            },
            File {
                path: "/etc/lb/agent.toml",
                mode: 0o644,
                content: b"[node]\n",
            },
        ],
    }
}

fn archive(image: &Image<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(image, &mut bytes).unwrap();
    bytes
}

/// By path: mode, owner and time together, and content.
type Entries = BTreeMap<String, ((u32, u64, u64), Vec<u8>)>;

fn entries(bytes: &[u8]) -> Entries {
    let mut archive = Archive::new(bytes);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        let facts = (
            header.mode().unwrap(),
            header.uid().unwrap() + header.gid().unwrap(),
            header.mtime().unwrap(),
        );
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(
            found.insert(path.clone(), (facts, content)).is_none(),
            "{path} stands twice"
        );
    }
    found
}

fn json(entries: &Entries, path: &str) -> Value {
    serde_json::from_slice(&entries.get(path).unwrap_or_else(|| panic!("no {path}")).1).unwrap()
}

#[test]
fn docker_finds_config_and_layer_by_the_paths_of_the_manifest() {
    let entries = entries(&archive(&image()));
    let manifest = json(&entries, "manifest.json");
    assert_eq!(manifest.as_array().unwrap().len(), 1);
    assert_eq!(manifest[0]["RepoTags"][0], "lb-agent:0.1.0");
    let config = json(&entries, manifest[0]["Config"].as_str().unwrap());
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/lb-agent");
    assert_eq!(config["config"]["Cmd"][0], "run");
    assert_eq!(config["architecture"], "amd64");
    // Docker compares this with what it unpacked.
    let layer = &entries[manifest[0]["Layers"][0].as_str().unwrap()].1;
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", sha256(layer)),
        "{config:#}"
    );
}

#[test]
fn the_layout_of_oci_leads_to_the_same_blobs_and_every_digest_is_right() {
    let entries = entries(&archive(&image()));
    assert_eq!(json(&entries, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let content = |descriptor: &Value| {
        let (_, digest) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
        let content = &entries[&format!("blobs/sha256/{digest}")].1;
        assert_eq!(sha256(content), digest);
        assert_eq!(descriptor["size"], content.len());
        content
    };
    let manifest: Value = serde_json::from_slice(content(&json(&entries, "index.json")["manifests"][0])).unwrap();
    let docker = json(&entries, "manifest.json");
    let config = content(&manifest["config"]);
    assert_eq!(config, &entries[docker[0]["Config"].as_str().unwrap()].1);
    let layer = content(&manifest["layers"][0]);
    assert_eq!(layer, &entries[docker[0]["Layers"][0].as_str().unwrap()].1);
}

#[test]
fn the_layer_holds_the_files_under_their_directories_and_roots_alone() {
    let outer = entries(&archive(&image()));
    let path = json(&outer, "manifest.json")[0]["Layers"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let layer = &outer[&path].1;
    let inner = entries(layer);
    let modes: Vec<_> = inner.iter().map(|(path, (facts, _))| (path.as_str(), *facts)).collect();
    assert_eq!(
        modes,
        [
            ("etc", (0o755, 0, 0)),
            ("etc/lb", (0o755, 0, 0)),
            ("etc/lb/agent.toml", (0o644, 0, 0)),
            ("run", (0o755, 0, 0)),
            ("run/lb", (0o755, 0, 0)),
            ("usr", (0o755, 0, 0)),
            ("usr/bin", (0o755, 0, 0)),
            ("usr/bin/lb-agent", (0o755, 0, 0)),
        ]
    );
    assert_eq!(inner["usr/bin/lb-agent"].1, b"program");
    // What is unpacked in order finds its directory.
    let mut seen = std::collections::BTreeSet::new();
    for entry in Archive::new(&layer[..]).entries().unwrap() {
        let path = entry.unwrap().path().unwrap().into_owned();
        let parent = path.parent().unwrap();
        assert!(
            parent.as_os_str().is_empty() || seen.contains(parent),
            "{}",
            path.display()
        );
        seen.insert(path);
    }
}

#[test]
fn equal_files_make_equal_archives() {
    assert_eq!(archive(&image()), archive(&image()));
    let other = Image {
        version: "0.2.0",
        ..image()
    };
    assert_ne!(archive(&image()), archive(&other));
}
