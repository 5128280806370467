//! [`MapStatus`], [`MapEntry`], [`Program`] and [`Traffic`]: what the kernel holds and counts.

use serde::{Deserialize, Serialize};

/// Fill of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// The kernel's id.
    pub id: u32,
    /// `hash`, `array`, `percpu_array`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// In use.
    pub entries: u64,
    /// Most that fit.
    pub max_entries: u32,
    /// Kernel memory, bytes.
    pub memory_bytes: u64,
}

/// Packets that went one way for one reason. A packet that XDP leaves to tc counts at both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Name of the reason.
    pub reason: String,
    /// `forward`, `answer`, `pass`, `drop`.
    pub verdict: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came in.
    pub bytes: u64,
}

/// A pinned program, or a pinned link and the program behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Path of the pin below the pin directory.
    pub pin: String,
    /// Name of the program, if it may be known.
    pub name: Option<String>,
    /// The kernel's id, if it may be known.
    pub id: Option<u32>,
    /// Hash of the instructions, hexadecimal.
    pub tag: Option<String>,
    /// `xdp`, `tcx_ingress`, `tcx_egress`; none for a program that is only pinned.
    pub hook: Option<String>,
    /// Interface index; 0 for a link whose interface is gone.
    pub ifindex: Option<u32>,
    /// Name of the interface in the caller's network namespace.
    pub interface: Option<String>,
    /// Times that it ran, if the kernel counts (`kernel.bpf_stats_enabled`).
    pub run_count: Option<u64>,
    /// Nanoseconds that it ran, if the kernel counts.
    pub run_time_ns: Option<u64>,
    /// Why something is not known.
    pub note: Option<String>,
}

/// One entry of a map, field by field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapEntry {
    /// A number, a text, or an object.
    pub key: serde_json::Value,
    /// A number, or an object.
    pub value: serde_json::Value,
}
