//! The other end of the tunnel.

use lb_common::testing::world::{Case, Place, World};

/// Node 2's world: the addresses of nodes 1 and 2 belong to each other, and the backend that node 1 calls its own is where
/// node 1's world has that of node 2.
pub(crate) fn mirrored(case: Case) -> World {
    let mut world = World::new();
    let tables = &mut world.tables;
    let (here, there) = (tables.nodes[&0], tables.nodes[&1]);
    tables.nodes.insert(
        0,
        lb_common::abi::Node {
            flags: here.flags,
            ..there
        },
    );
    tables.nodes.insert(
        1,
        lb_common::abi::Node {
            flags: there.flags,
            ..here
        },
    );
    let [one, two] = [1, 2].map(|n| case.node(n).into());
    let (a, b) = (tables.addresses[&one], tables.addresses[&two]);
    tables.addresses.insert(one, b);
    tables.addresses.insert(two, a);
    let id = case.backend_id(Place::Here);
    let backend = tables.backends.get_mut(&id).expect("a backend");
    backend.address = case.backend(Place::Node2).ip().into();
    backend.delivery = backend.address;
    let (address, network) = (backend.address, backend.network);
    let key = tables
        .local_backends
        .iter()
        .find(|(_, v)| **v == id)
        .map(|(k, _)| *k)
        .expect("its key");
    tables.local_backends.insert(
        lb_common::abi::EndpointKey {
            address,
            network,
            ..key
        },
        id,
    );
    // The way to the entry node is the way that node 2 is reached by in node 1's world.
    let mut path = *tables.paths.iter().find(|p| p.destination == two).expect("a path");
    path.destination = one;
    tables.paths.push(path);
    world
}
