//! Admin API on a Unix socket, and metrics and health over HTTP.
