//! Answers service names from the desired state and forwards the rest.
