//! Guards, topologies and servers for tests and demos that need real namespaces.
