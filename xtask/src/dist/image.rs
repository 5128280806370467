//! The container image as one tar archive, which `docker load` takes of any age: the layout of OCI (`index.json`, blobs
//! by digest) and beside it the `manifest.json` that Docker before 25 reads, both about the same blobs.
//!
//! Made without Docker, and of equal files always equal to the byte: nothing in it has a time or an owner.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// What the specification wants where there is no time to tell.
const CREATED: &str = "1970-01-01T00:00:00Z";
const BLOBS: &str = "blobs/sha256";

/// A file of the image.
#[derive(Clone, Debug)]
pub(crate) struct File<'a> {
    /// Absolute.
    pub(crate) path: &'a str,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) content: &'a [u8],
}

/// An image of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Image<'a> {
    /// `name:tag`, under which it is found once it is loaded.
    pub(crate) name: &'a str,
    /// As Docker says it: `amd64`, `arm64`.
    pub(crate) architecture: &'a str,
    pub(crate) version: &'a str,
    pub(crate) entrypoint: &'a [&'a str],
    pub(crate) command: &'a [&'a str],
    /// `NAME=value`.
    pub(crate) environment: &'a [&'a str],
    /// Empty directories, absolute: where something is to be mounted.
    pub(crate) directories: &'a [&'a str],
    pub(crate) files: &'a [File<'a>],
}

/// Writes the archive.
///
/// # Errors
/// What writing says, or a path does not fit a tar archive.
pub(crate) fn write(image: &Image<'_>, to: impl Write) -> io::Result<()> {
    let layer = layer(image.directories, image.files)?;
    let config = json!({
        "architecture": image.architecture,
        "os": "linux",
        "created": CREATED,
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": image.environment,
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": image.name.split(':').next(),
                "org.opencontainers.image.version": image.version,
            },
        },
        // Not compressed, so that its digest is that of the blob.
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask dist" }],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{}", image.name),
        "org.opencontainers.image.ref.name": image.name.split(':').nth(1),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let docker = json!([{
        "Config": blob(&config),
        "RepoTags": [image.name],
        "Layers": [blob(&layer)],
    }]);

    let mut archive = Builder::new(to);
    for directory in ["blobs", BLOBS] {
        add(&mut archive, directory, 0o755, None)?;
    }
    for content in [&config, &layer, &manifest] {
        add(&mut archive, blob(content), 0o644, Some(content))?;
    }
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    for (name, value) in [("index.json", index), ("manifest.json", docker), ("oci-layout", layout)] {
        add(&mut archive, name, 0o644, Some(value.to_string().as_bytes()))?;
    }
    archive.into_inner()?.flush()
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

fn blob(content: &[u8]) -> String {
    format!("{BLOBS}/{}", sha256(content))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

/// The file system of the image; every directory stands before what is in it.
fn layer(directories: &[&str], files: &[File<'_>]) -> io::Result<Vec<u8>> {
    let parents = files.iter().filter_map(|file| Path::new(file.path).parent());
    let all: BTreeSet<&Path> = directories
        .iter()
        .map(Path::new)
        .chain(parents)
        .flat_map(Path::ancestors)
        .filter(|path| path.parent().is_some())
        .collect();
    let mut archive = Builder::new(Vec::new());
    for directory in all {
        add(&mut archive, inside(directory), 0o755, None)?;
    }
    for file in files {
        add(
            &mut archive,
            inside(Path::new(file.path)),
            file.mode,
            Some(file.content),
        )?;
    }
    archive.into_inner()
}

/// As a layer has it: relative to the root.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// A file, or a directory if there is no content.
fn add(archive: &mut Builder<impl Write>, path: impl AsRef<Path>, mode: u32, content: Option<&[u8]>) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(if content.is_some() {
        EntryType::Regular
    } else {
        EntryType::Directory
    });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let content = content.unwrap_or_default();
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}
