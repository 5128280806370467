//! The pinned maps, read by the library and by `lbctl` without an agent. Needs root.

mod lbctl;
mod pinned;
mod view;
