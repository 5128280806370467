//! Finds a service by what people type.

use crate::admin::api::{Code, Error, Service};

/// The service called `name`: `NAME`, `NETWORK/NAME`, a number, or the beginning of one name only.
///
/// # Errors
/// [`Code::NotFound`] with the nearest name as hint, [`Code::Ambiguous`] with the candidates.
pub fn find_service(services: Vec<Service>, name: &str) -> Result<Service, Error> {
    let full = |s: &Service| {
        format!(
            "{}/{}",
            s.network.as_deref().unwrap_or(""),
            s.name.as_deref().unwrap_or("")
        )
    };
    let matching = |test: &dyn Fn(&Service) -> bool| -> Vec<usize> {
        (0..services.len()).filter(|i| test(&services[*i])).collect()
    };
    let number = name.strip_prefix("id ").unwrap_or(name).parse::<u32>().ok();
    let mut found = matching(&|s| s.name.as_deref() == Some(name) || full(s) == name);
    if found.is_empty() {
        found = matching(&|s| number.is_some_and(|id| s.ids.contains(&id)));
    }
    if found.is_empty() && !name.is_empty() {
        found = matching(&|s| s.name.as_deref().is_some_and(|n| n.starts_with(name)) || full(s).starts_with(name));
    }
    match found.as_slice() {
        [one] => Ok(services.into_iter().nth(*one).unwrap_or_default()),
        [] => {
            let error = Error::new(Code::NotFound, format!("no service named {name:?}"));
            let names = services.iter().filter_map(|s| s.name.as_deref());
            let near = names
                .map(|n| (distance(n, name), n))
                .filter(|(d, n)| *d <= 1 + n.len() / 3)
                .min();
            Err(error.hint(match near {
                Some((_, near)) => format!("did you mean {near:?}? list with `lbctl service ls`"),
                None => "list with `lbctl service ls`".into(),
            }))
        }
        several => {
            let names: Vec<_> = several.iter().map(|i| full(&services[*i])).collect();
            Err(
                Error::new(Code::Ambiguous, format!("{name:?} is more than one service"))
                    .hint(format!("one of: {}", names.join(", "))),
            )
        }
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
