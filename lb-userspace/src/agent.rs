//! Wires the parts of the agent together.
