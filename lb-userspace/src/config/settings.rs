//! How a section of the configuration is declared, and the types of its values.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A field's name and doc comment, for `config default`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldDoc {
    /// Key in the file.
    pub(super) name: &'static str,
    /// Lines of its doc comment.
    pub(super) doc: &'static [&'static str],
}

/// Declares one section: the struct, its default, and its documentation, from one source.
macro_rules! settings {
    ($(#[doc = $section_doc:literal])* $name:ident {
        $( $(#[doc = $doc:literal])* $(#[serde($($attribute:tt)*)])? $field:ident: $type:ty = $default:expr; )*
    }) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])* $(#[serde($($attribute)*)])? pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// Lines of the section's doc comment.
            pub(super) const DOC: &'static [&'static str] = &[$($section_doc),*];
            /// Its fields in the order in which they are declared.
            pub(super) const FIELDS: &'static [crate::config::settings::FieldDoc] = &[
                $( crate::config::settings::FieldDoc { name: stringify!($field), doc: &[$($doc),*] } ),*
            ];
        }
    };
}
pub(super) use settings;

/// Names of interfaces: `*` stands for any characters, `?` for one, `[ab]` for one of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceGlob(glob::Pattern);

impl InterfaceGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The pattern is empty or not well formed.
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("an interface name must not be empty".into());
        }
        glob::Pattern::new(pattern)
            .map(Self)
            .map_err(|error| format!("not an interface pattern: {}", error.msg))
    }

    /// Whether an interface of this name is meant.
    pub fn matches(&self, interface: &str) -> bool {
        self.0.matches(interface)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for InterfaceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for InterfaceGlob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for InterfaceGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Permission bits of a file, written in octal as a string: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is not a file mode; write permission bits in octal, as in \"0660\""
            ))),
        }
    }
}

/// Durations in the file are strings with a unit, as `"30s"` and `"2h 5m"`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration; write a number and a unit, as in \"30s\" or \"2h 5m\""
            ))
        })
    }
}

/// As [`duration`], for fields that may be absent.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Present(#[serde(with = "super::duration")] Duration);
        Present::deserialize(deserializer).map(|present| Some(present.0))
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an address or a list of addresses, each in quotes")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) if one.is_empty() => Vec::new(),
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// `"ADDRESS:PORT"`, or a list of them; an empty string is an empty list.
pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let parse = |text: String| {
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not an address with a port; write \"10.0.0.1:53\" or \"[fd00::1]:53\""
            ))
        })
    };
    OneOrMany::deserialize(deserializer)?
        .into_vec()
        .into_iter()
        .map(parse)
        .collect()
}

/// As [`listen`]; the port may be left out and is then 53.
pub(super) fn upstreams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let parse = |text: String| {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
            .map_err(|_| {
                serde::de::Error::custom(format!(
                    "`{text}` is not an address; write \"9.9.9.9\", \"9.9.9.9:53\" or \"[2620:fe::fe]:53\""
                ))
            })
    };
    OneOrMany::deserialize(deserializer)?
        .into_vec()
        .into_iter()
        .map(parse)
        .collect()
}

/// An IPv4 subnet, `"ADDRESS/LENGTH"`.
pub(super) fn subnet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Net, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is not an IPv4 subnet; write an address and a length, as in \"198.18.0.0/16\""
        ))
    })
}
