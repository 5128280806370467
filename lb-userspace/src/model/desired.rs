//! [`Desired`]: what the tables of this node should hold, by name; numbers come later, in `plan::ids`.
