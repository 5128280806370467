//! What is in the kernel: maps, their entries, programs.

use lb_userspace::admin::api::{MapEntry, MapStatus, Program};

use crate::output::{Context, View, bytes, count, dash};
use crate::table::Table;

impl View for MapStatus {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec!["NAME", "TYPE", ">ENTRIES", ">MAX", ">FILL", ">MEMORY"];
        if context.wide {
            columns.extend([">ID", ">KEY", ">VALUE"]);
        }
        let mut table = Table::new(&columns);
        for m in items {
            table.row([
                m.name.clone(),
                m.kind.clone(),
                m.entries.to_string(),
                m.max_entries.to_string(),
                format!("{}%", percent(m)),
                bytes(m.memory_bytes),
                m.id.to_string(),
                bytes(m.key_size.into()),
                bytes(m.value_size.into()),
            ]);
        }
        table
    }
}

/// Fill in whole percent, rounded up, so that only an empty map shows 0.
pub(crate) fn percent(map: &MapStatus) -> u64 {
    (map.entries * 100).div_ceil(u64::from(map.max_entries.max(1)))
}

impl View for MapEntry {
    fn name(&self) -> String {
        fields(&self.key)
    }

    fn table(items: &[Self], _context: &Context) -> Table {
        let mut table = Table::new(&["KEY", "VALUE"]);
        for entry in items {
            table.row([fields(&entry.key), fields(&entry.value)]);
        }
        table
    }
}

/// An object as `name=value name=value`.
fn fields(value: &serde_json::Value) -> String {
    let plain = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .map(|(name, v)| format!("{name}={}", plain(v)))
            .collect::<Vec<_>>()
            .join(" "),
        other => plain(other),
    }
}

impl View for Program {
    fn name(&self) -> String {
        self.pin.clone()
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec!["PIN", "NAME", ">ID", "HOOK", "INTERFACE", ">RUNS", ">NS/RUN"];
        if context.wide {
            columns.extend(["TAG", "NOTE"]);
        }
        let mut table = Table::new(&columns);
        for p in items {
            let interface = match (&p.interface, p.ifindex) {
                (Some(name), _) => name.clone(),
                (None, Some(0)) => "gone".into(),
                (None, Some(ifindex)) => format!("index {ifindex}"),
                (None, None) => "-".into(),
            };
            let per_run = p.run_count.zip(p.run_time_ns).map(|(n, ns)| ns / n.max(1));
            table.row([
                p.pin.clone(),
                dash(p.name.as_ref()),
                dash(p.id),
                dash(p.hook.as_ref()),
                interface,
                p.run_count.map_or_else(|| "-".into(), count),
                dash(per_run),
                dash(p.tag.as_ref()),
                dash(p.note.as_ref()),
            ]);
        }
        table
    }
}
