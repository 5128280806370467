//! Virtual addresses inside overlays, for who is on the same overlay alone.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lb_tests::client::{Udp, ask_udp, get, ping};
use lb_tests::swarm::{Network, Service, Swarm, Task};

use super::{ask_seen, ask_udp_seen, assert_even, balanced};

/// A service on `network`, with a task on every node, serving two ports that it does not publish.
fn global<'a>(swarm: &'a Swarm, name: &str, network: &Network<'_>) -> Service<'a> {
    swarm
        .service_running(
            name,
            &["--mode", "global", "--network", network.name()],
            &["serve", "--port", "80", "--port", "4711"],
        )
        .unwrap()
}

fn vip(service: &Service<'_>, network: &Network<'_>, port: u16) -> SocketAddr {
    (service.vip(network.id()).unwrap(), port).into()
}

#[test]
fn every_task_reaches_every_task_and_is_seen_with_its_own_address() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let (web, asking) = (global(&swarm, "web", &network), global(&swarm, "asking", &network));
    let (tasks, clients) = (
        swarm.wait_serving(&web, 3).unwrap(),
        swarm.wait_serving(&asking, 3).unwrap(),
    );
    // Ports are of no account: the task is asked at the one that the client names.
    for port in [80, 4711] {
        let target = vip(&web, &network, port);
        for client in &clients {
            let (tcp, udp) = client
                .within(&swarm, || {
                    let tcp: Vec<_> = (0..9).map(|_| ask_seen(target)).collect();
                    (tcp, (0..9).map(|_| ask_udp_seen(target)).collect::<Vec<_>>())
                })
                .unwrap();
            let own = client.address(network.name()).unwrap();
            for answer in tcp.iter().chain(&udp).flatten() {
                assert_eq!(answer.peer.ip(), own);
            }
            assert_even(tcp, &tasks);
            assert_even(udp, &tasks);
        }
    }
}

#[test]
fn a_task_reaches_its_own_service_and_itself() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let web = global(&swarm, "web", &network);
    let alone = swarm.service("alone", &["--network", network.name()]).unwrap();
    let tasks = swarm.wait_serving(&web, 3).unwrap();
    let single = swarm.wait_serving(&alone, 1).unwrap();
    let ask = |client: &Task, tasks: &[Task], target: SocketAddr| {
        let (tcp, udp) = client
            .within(&swarm, || {
                let tcp: Vec<_> = (0..6).map(|_| get(target)).collect();
                (tcp, (0..6).map(|_| ask_udp(target)).collect::<Vec<_>>())
            })
            .unwrap();
        assert_even(tcp, tasks);
        assert_even(udp, tasks);
    };
    for client in &tasks {
        ask(client, &tasks, vip(&web, &network, 80));
    }
    ask(&single[0], &single, vip(&alone, &network, 80));
}

#[test]
fn a_port_where_no_task_listens_is_refused_by_the_task_and_echo_is_answered() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm.service("web", &["--network", network.name()]).unwrap();
    let asking = global(&swarm, "asking", &network);
    swarm.wait_serving(&web, 1).unwrap();
    for client in swarm.wait_serving(&asking, 3).unwrap() {
        let target = vip(&web, &network, 81);
        let start = Instant::now();
        let (tcp, echo) = client
            .within(&swarm, || (get(target), ping(target.ip(), Duration::from_secs(2))))
            .unwrap();
        assert_eq!(tcp.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        echo.unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(900),
            "took {:?}",
            start.elapsed()
        );
    }
}

/// Whether a task gets anything from there by TCP, UDP and echo.
fn reached(swarm: &Swarm, client: &Task, target: SocketAddr) -> [bool; 3] {
    let reached = client.within(swarm, || {
        let tcp = TcpStream::connect_timeout(&target, Duration::from_millis(700));
        let udp = Udp::open(target).and_then(|socket| socket.ask(Duration::from_millis(300)));
        let echo = ping(target.ip(), Duration::from_millis(300));
        [tcp.is_ok(), udp.is_ok(), echo.is_ok()]
    });
    reached.unwrap()
}

#[test]
fn networks_are_kept_apart_and_a_service_may_be_on_two() {
    let Some(swarm) = balanced() else { return };
    let [shop, blog] = ["shop", "blog"].map(|name| swarm.network(name, &[]).unwrap());
    let both = swarm
        .service(
            "both",
            &["--mode", "global", "--network", shop.name(), "--network", blog.name()],
        )
        .unwrap();
    let (buyer, reader) = (global(&swarm, "buyer", &shop), global(&swarm, "reader", &blog));
    let tasks = swarm.wait_serving(&both, 3).unwrap();
    let (buyers, readers) = (
        swarm.wait_serving(&buyer, 3).unwrap(),
        swarm.wait_serving(&reader, 3).unwrap(),
    );
    for (clients, own, service, other, stranger) in [
        (&buyers, &shop, &buyer, &blog, &reader),
        (&readers, &blog, &reader, &shop, &buyer),
    ] {
        for client in clients {
            let target = vip(&both, own, 80);
            let answers = client.within(&swarm, || (0..6).map(|_| ask_seen(target)).collect());
            assert_even(answers.unwrap(), &tasks);
        }
        for name in [both.name(), service.name()] {
            clients[0].exec(&swarm, &["get", &format!("http://{name}/")]).unwrap();
        }
        std::thread::scope(|scope| {
            let targets = [vip(&both, other, 80), vip(stranger, other, 80)];
            let tries: Vec<_> = clients
                .iter()
                .flat_map(|client| targets.map(|target| (client, target)))
                .map(|(client, target)| {
                    let swarm: &Swarm = &swarm;
                    scope.spawn(move || reached(swarm, client, target))
                })
                .collect();
            for tried in tries {
                assert_eq!(tried.join().unwrap(), [false; 3], "{}", other.name());
            }
        });
        // Neither its names nor those of its tasks; once is enough, it takes its time.
        for name in [stranger.name().to_owned(), format!("tasks.{}", stranger.name())] {
            let error = clients[0].exec(&swarm, &["resolve", &name]).unwrap_err();
            assert!(format!("{error:#}").contains("look up"), "{error:#}");
        }
    }
}

#[test]
fn containers_of_no_service_are_clients_like_others() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &["--attachable"]).unwrap();
    let web = global(&swarm, "web", &network);
    let tasks = swarm.wait_serving(&web, 3).unwrap();
    let target = vip(&web, &network, 80);
    for node in swarm.nodes() {
        let container = node.container(&network).unwrap();
        // The agent learns of it by dockerd's event.
        let answered = lb_tests::swarm::wait_until("the VIP answers a new container", || {
            let answer = container.within(|| Udp::open(target)?.ask(Duration::from_millis(200)))?;
            Ok(answer.map_err(|error| error.to_string()))
        });
        answered.unwrap();
        let (tcp, udp) = container
            .within(|| {
                let tcp: Vec<_> = (0..9).map(|_| ask_seen(target)).collect();
                (tcp, (0..9).map(|_| ask_udp_seen(target)).collect::<Vec<_>>())
            })
            .unwrap();
        for answer in tcp.iter().chain(&udp).flatten() {
            assert_eq!(answer.peer.ip(), container.address());
        }
        assert_even(tcp, &tasks);
        assert_even(udp, &tasks);
        let body = container.exec(&["get", &format!("http://{}/", web.name())]).unwrap();
        assert!(body.starts_with(web.name()), "{body}");
    }
}
