//! Writes a configuration as a file: the commented default, and the effective one with its origins.

use toml::{Table, Value};

use super::settings::FieldDoc;
use super::{Admin, Config, Datapath, Dns, Loaded, Log, Metrics, Node, Origin, Paths, Provider, Stream, Timeouts};

struct Section {
    path: &'static str,
    doc: &'static [&'static str],
    fields: &'static [FieldDoc],
}

/// In the order in which they are printed.
const SECTIONS: &[Section] = &[
    Section {
        path: "node",
        doc: Node::DOC,
        fields: Node::FIELDS,
    },
    Section {
        path: "paths",
        doc: Paths::DOC,
        fields: Paths::FIELDS,
    },
    Section {
        path: "provider",
        doc: Provider::DOC,
        fields: Provider::FIELDS,
    },
    Section {
        path: "datapath",
        doc: Datapath::DOC,
        fields: Datapath::FIELDS,
    },
    Section {
        path: "datapath.timeouts",
        doc: Timeouts::DOC,
        fields: Timeouts::FIELDS,
    },
    Section {
        path: "stream",
        doc: Stream::DOC,
        fields: Stream::FIELDS,
    },
    Section {
        path: "dns",
        doc: Dns::DOC,
        fields: Dns::FIELDS,
    },
    Section {
        path: "metrics",
        doc: Metrics::DOC,
        fields: Metrics::FIELDS,
    },
    Section {
        path: "admin",
        doc: Admin::DOC,
        fields: Admin::FIELDS,
    },
    Section {
        path: "log",
        doc: Log::DOC,
        fields: Log::FIELDS,
    },
];

const HEADER: &str = "\
# Configuration of lb-agent. Every value below is the default; an empty file means the same.
# A variable LB_SECTION__KEY in the environment goes before this file, `--set section.key=value` before both.
# `lb-agent config check` reads it, `lb-agent config show --origin` says which layer set what.
";

const WORKLOADS: &str = "\
# Interfaces of this node that lead to workloads of one network; once for each pattern. The first match decides.
# [[workload]]
# interface = \"veth-web*\"
# network = \"shop\"
";

/// The default configuration with a comment for every setting. It reads back as the default.
pub fn default_file() -> String {
    let defaults = table_of(&Config::default());
    let mut out = String::from(HEADER);
    for section in SECTIONS {
        if section.path == "dns" {
            out.push('\n');
            out.push_str(WORKLOADS);
        }
        out.push('\n');
        comment(section.doc, &mut out);
        out.push_str(&format!("[{}]\n", section.path));
        for (field, value) in values(section, &defaults) {
            comment(field.doc, &mut out);
            out.push_str(&format!("{} = {value}\n", field.name));
        }
    }
    out
}

/// The configuration in force, if asked with the layer that set each value as a comment behind it.
pub fn effective(loaded: &Loaded, with_origins: bool) -> String {
    let table = table_of(&loaded.config);
    let mut out = String::new();
    let origin = |field: String| match with_origins {
        true => format!("  # {}", loaded.origins.get(&field).unwrap_or(&Origin::Default)),
        false => String::new(),
    };
    for (index, section) in SECTIONS.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { "\n" });
        out.push_str(&format!("[{}]\n", section.path));
        for (field, value) in values(section, &table) {
            let name = field.name;
            out.push_str(&format!(
                "{name} = {value}{}\n",
                origin(format!("{}.{name}", section.path))
            ));
        }
    }
    for (index, workload) in loaded.config.workload.iter().enumerate() {
        let interface = Value::String(workload.interface.to_string());
        let network = Value::String(workload.network.clone());
        out.push_str("\n[[workload]]\n");
        out.push_str(&format!(
            "interface = {interface}{}\n",
            origin(format!("workload[{index}].interface"))
        ));
        out.push_str(&format!(
            "network = {network}{}\n",
            origin(format!("workload[{index}].network"))
        ));
    }
    out
}

fn table_of(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_default()
}

fn values<'a>(section: &'a Section, table: &'a Table) -> impl Iterator<Item = (&'a FieldDoc, &'a Value)> {
    let section_table = section
        .path
        .split('.')
        .try_fold(table, |table, key| table.get(key)?.as_table());
    section.fields.iter().filter_map(move |field| {
        let value = section_table?.get(field.name)?;
        (!value.is_table()).then_some((field, value))
    })
}

fn comment(lines: &[&str], out: &mut String) {
    for line in lines {
        out.push_str(&format!("# {}\n", line.trim()));
    }
}
