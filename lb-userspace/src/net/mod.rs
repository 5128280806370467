//! Links, addresses and routes of this node.
