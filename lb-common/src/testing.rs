//! In-memory packets and tables, and the fixtures that every executor runs.
