//! Merges the layers of the configuration and remembers which of them set what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;
use super::check::check;
use super::document::{Document, Fault, nearest};

/// Which layer set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The file, on this line.
    File(usize),
    /// This variable of the environment.
    Environment(String),
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "file, line {line}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::CommandLine => f.write_str("--set"),
        }
    }
}

/// A configuration that can be used, and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Checked and complete.
    pub config: Config,
    /// By field path, as `datapath.xdp`; a field that is not here has its default.
    pub origins: BTreeMap<String, Origin>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}{}", path.display(), missing_hint(error))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Its content, or another layer's, is wrong; at least one fault.
    #[error("{}", list(.0))]
    Invalid(Vec<Fault>),
}

fn missing_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "\n  = help: `lb-agent config default` prints one to start from",
        _ => "",
    }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

impl From<Box<Fault>> for ConfigError {
    fn from(fault: Box<Fault>) -> Self {
        Self::from(*fault)
    }
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self::Invalid(vec![fault])
    }
}

/// Reads a file and lays the process's environment and the `--set` arguments (`section.key=value`) over it.
///
/// # Errors
/// The file cannot be read, or a layer is wrong; all faults that can be found at once are listed.
pub fn load(path: &Path, sets: &[String]) -> Result<Loaded, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::Read {
        path: path.into(),
        error,
    })?;
    let name = path.display().to_string();
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    load_from(Document::from_bytes(&name, &bytes)?, environment, sets)
}

/// As [`load`], with the file's content and the environment given.
///
/// # Errors
/// As [`load`].
pub fn load_from(
    document: Document<'_>,
    environment: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Loaded, ConfigError> {
    let defaults = Table::try_from(Config::default()).map_err(|e| Fault::new(document.name, "", e.to_string()))?;
    let file: Config = document.parse()?;
    let mut merged = Table::try_from(file).map_err(|e| Fault::new(document.name, "", e.to_string()))?;
    let mut origins: BTreeMap<String, Origin> = document
        .fields()
        .into_iter()
        .map(|(field, line)| (field, Origin::File(line)))
        .collect();

    let mut variables: Vec<_> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((field_of(&name)?, name, value)))
        .collect();
    variables.sort();
    let mut layers = Vec::new();
    for (field, name, value) in variables {
        layers.push((field, value, format!("environment {name}"), Origin::Environment(name)));
    }
    for set in sets {
        let source = format!("--set {set}");
        let Some((field, value)) = set.split_once('=') else {
            let hint = Some("write --set section.key=value, as in --set datapath.xdp=off".into());
            return Err(Fault::new(source, "", "no `=`").with_hint(hint).into());
        };
        layers.push((field.trim().to_owned(), value.to_owned(), source, Origin::CommandLine));
    }

    let mut faults = Vec::new();
    for (field, text, source, origin) in layers {
        match overlay(&defaults, &field, &text) {
            Ok(value) => {
                insert(&mut merged, &field, value);
                origins.retain(|known, _| !known.starts_with(&format!("{field}[")));
                origins.insert(field, origin);
            }
            Err((message, hint)) => faults.push(Fault::new(source, field, message).with_hint(hint)),
        }
    }
    if !faults.is_empty() {
        return Err(ConfigError::Invalid(faults));
    }

    let mut config: Config = merged
        .try_into()
        .map_err(|e: toml::de::Error| Fault::new(document.name, "", e.message()))?;
    complete(&mut config);
    let (outside, inside): (Vec<_>, Vec<_>) = check(&config).into_iter().partition(|problem| {
        matches!(
            origins.get(&problem.field),
            Some(Origin::Environment(_) | Origin::CommandLine)
        )
    });
    let mut faults = document.faults(inside);
    for problem in outside {
        let source = origins.get(&problem.field).map(Origin::to_string).unwrap_or_default();
        faults.push(Fault::new(source, problem.field, problem.message).with_hint(problem.hint));
    }
    if faults.is_empty() {
        Ok(Loaded { config, origins })
    } else {
        Err(ConfigError::Invalid(faults))
    }
}

/// Fills in what an empty value stands for.
fn complete(config: &mut Config) {
    if config.node.name.is_empty() {
        config.node.name = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default();
    }
    if config.admin.socket.as_os_str().is_empty() {
        config.admin.socket = config.paths.run.join("admin.sock");
    }
    if config.stream.state_file.as_os_str().is_empty() {
        config.stream.state_file = config.paths.run.join("snapshot");
    }
}

/// `LB_DATAPATH__TUNNEL_PORT` sets `datapath.tunnel_port`. Variables without `__` are somebody else's.
fn field_of(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("LB_")?;
    rest.contains("__").then(|| rest.to_lowercase().replace("__", "."))
}

type Refusal = (String, Option<String>);

/// The value that a layer's text stands for, checked by reading it as the only setting of a configuration.
fn overlay(defaults: &Table, field: &str, text: &str) -> Result<Value, Refusal> {
    let Some(default) = lookup(defaults, field) else {
        let known = fields(defaults, "");
        let hint = nearest(field, known.iter().map(String::as_str)).map(|name| format!("did you mean `{name}`?"));
        let hint = hint.or_else(|| Some("`lb-agent config default` prints every setting".into()));
        return Err((format!("unknown setting `{field}`"), hint));
    };
    let literal = || {
        toml::from_str::<Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
    };
    let value = match default {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Array(_) => match literal() {
            Some(array @ Value::Array(_)) => array,
            _ => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::String(item.to_owned()))
                    .collect(),
            ),
        },
        Value::Table(_) => {
            return Err((
                format!("`{field}` is a section"),
                Some(format!("set one of its keys, as in {field}.KEY")),
            ));
        }
        _ => literal().unwrap_or_else(|| Value::String(text.to_owned())),
    };
    let mut alone = Table::new();
    insert(&mut alone, field, value.clone());
    match alone.try_into::<Config>() {
        Ok(_) => Ok(value),
        Err(error) => Err((error.message().trim().replace('\n', "; "), None)),
    }
}

fn lookup<'a>(table: &'a Table, field: &str) -> Option<&'a Value> {
    match field.split_once('.') {
        None => table.get(field),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

fn insert(table: &mut Table, field: &str, value: Value) {
    match field.split_once('.') {
        None => {
            table.insert(field.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn fields(table: &Table, prefix: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (key, value) in table {
        let field = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(inner) => out.extend(fields(inner, &field)),
            _ => out.push(field),
        }
    }
    out
}
