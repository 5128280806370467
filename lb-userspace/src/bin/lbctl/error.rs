//! Failures as text or JSON, and their exit codes.

use lb_userspace::admin::api::{Code, Error, ErrorBody};

/// The exit code that scripts may rely on.
pub(crate) fn exit_code(code: Code) -> u8 {
    match code {
        Code::Internal => 1,
        Code::Usage => 2,
        Code::Unavailable => 3,
        Code::PermissionDenied => 4,
        Code::NotFound | Code::Ambiguous => 5,
        Code::Version => 6,
    }
}

/// For standard error.
pub(crate) fn render(error: &Error, json: bool) -> String {
    if json {
        let body = ErrorBody { error: error.clone() };
        return serde_json::to_string(&body).unwrap_or_default() + "\n";
    }
    let mut text = format!("error: {}\n", error.message);
    if let Some(hint) = &error.hint {
        text += &format!("  hint: {hint}\n");
    }
    text
}
