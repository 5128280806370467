//! Signals, readiness and systemd notification.
