//! A gateway in a simulated world: clients, gateway and servers on one thread, over links in memory that split, delay
//! and break, in paused time, all from one seed. What comes back and what reaches servers is read by a reader that
//! shares nothing with the product.

use super::*;
use crate::request::Local;
use crate::session::serve;
use crate::worker::Worker;
use eleven_net::PeerAddr;
use eleven_net::ledger::{Caps, Ledger};
use eleven_net::memory::{Link, MemoryStream, duplex};
use eleven_testkit::reader::Request as Asked;
use eleven_testkit::rng::{Rng, each_seed};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Cursor;
use tokio::time::Instant;

/// What a server does when it has got a request.
pub(super) struct Reply {
    pub(super) after: Duration,
    pub(super) octets: Vec<u8>,
    /// How long it rests before what comes then.
    pub(super) rest: Duration,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Keep,
    Close,
    Reset,
}

impl Reply {
    pub(super) fn now(octets: impl Into<Vec<u8>>) -> Reply {
        Reply { after: Duration::ZERO, octets: octets.into(), rest: Duration::ZERO, then: Then::Keep }
    }
}

/// What the server behind a port replies to a request.
pub(super) type Replies = Rc<dyn Fn(u16, &Asked) -> Reply>;

/// The servers: their links, what they do, and all they were sent, a connection each.
pub(super) struct World {
    pub(super) replies: Replies,
    pub(super) links: Box<dyn Fn() -> (Link, Link)>,
    pub(super) seed: Cell<u64>,
    pub(super) sent: RefCell<Vec<Rc<RefCell<Vec<u8>>>>>,
}

impl World {
    pub(super) fn new(replies: impl Fn(u16, &Asked) -> Reply + 'static) -> World {
        World {
            replies: Rc::new(replies),
            links: Box::new(|| (Link::default(), Link::default())),
            seed: Cell::new(1),
            sent: RefCell::default(),
        }
    }

    fn connect(&self, port: u16) -> Stream {
        let (forth, back) = (self.links)();
        self.seed.set(self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let (ours, theirs) = duplex(self.seed.get(), forth, back);
        let sent = Rc::new(RefCell::new(Vec::new()));
        self.sent.borrow_mut().push(Rc::clone(&sent));
        tokio::task::spawn_local(origin(theirs, port, Rc::clone(&self.replies), sent));
        Stream::Memory(Box::new(ours))
    }
}

/// The complete requests at the front of `bytes`.
pub(super) fn requests(bytes: &[u8]) -> Vec<Asked> {
    let mut reader = Reader::new(Cursor::new(bytes));
    std::iter::from_fn(|| reader.request().ok()).collect()
}

async fn origin(stream: MemoryStream, port: u16, replies: Replies, sent: Rc<RefCell<Vec<u8>>>) {
    let mut stream = Stream::Memory(Box::new(stream));
    let (mut answered, mut buffer) = (0, [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        sent.borrow_mut().extend_from_slice(&buffer[..count]);
        loop {
            let mut reader = Reader::new(Cursor::new(sent.borrow()[answered..].to_vec()));
            let Ok(request) = reader.request() else { break };
            answered = sent.borrow().len() - reader.rest().unwrap_or_default().len();
            let reply = replies(port, &request);
            tokio::time::sleep(reply.after).await;
            let written = stream.write_all(&reply.octets).await;
            tokio::time::sleep(reply.rest).await;
            match reply.then {
                Then::Keep if written.is_ok() => {}
                Then::Reset => return drop(stream.set_linger_reset()),
                Then::Keep | Then::Close => return,
            }
        }
    }
}

/// What a client got, and how it ended.
pub(super) struct Got {
    pub(super) octets: Vec<u8>,
    pub(super) reset: bool,
    pub(super) took: Duration,
}

/// Sends `octets` and reads all that comes, at the same time.
async fn talk(mut stream: MemoryStream, octets: Vec<u8>, half_close: bool) -> Got {
    let begun = Instant::now();
    let (mut sent, mut got, mut done_sending) = (0, Vec::new(), false);
    let mut buffer = [0; 4096];
    std::future::poll_fn(move |cx| {
        use std::io::ErrorKind::WouldBlock;
        while !done_sending {
            if sent == octets.len() {
                if half_close {
                    stream.shutdown_write();
                }
                done_sending = true;
                break;
            }
            match stream.try_write(&octets[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == WouldBlock => {
                    if stream.poll_write_ready(cx).is_pending() {
                        break;
                    }
                }
                Err(_) => done_sending = true,
            }
        }
        loop {
            let reset = match stream.try_read(&mut buffer) {
                Ok(0) => false,
                Ok(count) => {
                    got.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) if error.kind() == WouldBlock => {
                    std::task::ready!(stream.poll_read_ready(cx));
                    continue;
                }
                Err(_) => true,
            };
            let octets = std::mem::take(&mut got);
            return std::task::Poll::Ready(Got { octets, reset, took: begun.elapsed() });
        }
    })
    .await
}

/// Runs `world` in paused time: a gateway in front of it, and the clients, all at once.
pub(super) fn simulate(
    world: &Rc<World>,
    plan: GatewayPlan,
    clients: Vec<(Vec<u8>, Link, Link)>,
    half_close: bool,
) -> Vec<Got> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    let world = Rc::clone(world);
    runtime.block_on(async move {
        let network: Rc<dial::Network> = {
            let world = Rc::clone(&world);
            Rc::new(move |_, port| Ok(world.connect(port)))
        };
        let dialer = Dialer::in_memory(network, plan.dial.clone());
        let gateway = Gateway::with_dialer(Arc::new(plan), dialer);
        let ledger = Ledger::new(Caps { connections_max: 1_000_000, connections_per_address_max: 0 });
        let service = Rc::new(Service::single(Handler::Gateway(gateway)));
        let worker = Worker::new(
            service,
            Settings::default(),
            ledger.clone(),
            None,
            crate::metrics::Metrics::default().recorder(),
        );
        ledger.sweep();
        let sweeper = ledger.clone();
        tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
        let mut running = Vec::new();
        for (octets, forth, back) in clients {
            world.seed.set(world.seed.get().wrapping_add(7));
            let (client, server) = duplex(world.seed.get(), forth, back);
            let slot = ledger.enter(None).unwrap();
            let stream = Stream::Memory(Box::new(server));
            let served = tokio::task::spawn_local(serve(
                stream,
                PeerAddr::Memory,
                Local { port: 80, listener: None },
                slot,
                worker.clone(),
            ));
            running.push((served, tokio::task::spawn_local(talk(client, octets, half_close))));
        }
        let mut all = Vec::new();
        for (served, talking) in running {
            all.push(talking.await.unwrap());
            // Idle time-outs end every connection sooner or later.
            tokio::time::timeout(Duration::from_secs(600), served).await.expect("a session hangs").unwrap();
        }
        assert_eq!(ledger.count(), 0, "the places in the ledger were given back");
        all
    })
}

/// A plan for servers in memory.
pub(super) fn plan_of(servers: u16) -> GatewayPlan {
    plan(&(1..=servers).collect::<Vec<_>>())
}

// --- exchanges that tell their own answer ---

/// The content that a server owes for a request: what it was, and what came with it.
fn owed(asked: &Asked) -> Vec<u8> {
    let size: usize = asked.target.rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or(0);
    let sum = asked.body.iter().fold(7u32, |sum, &b| sum.wrapping_mul(31).wrapping_add(u32::from(b)));
    let mut content =
        format!("{} {} {} {sum:08x}\n", asked.method, asked.target, asked.body.len()).into_bytes();
    let seed = content.clone();
    content.extend(seed.iter().cycle().take(size));
    content
}

/// The answer in one of the framings there are, as the target asks: `/FRAMING/…/SIZE`.
fn answer(asked: &Asked) -> Reply {
    let content = owed(asked);
    let length = content.len();
    let chunked = |trailers: &str| {
        let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in content.chunks(777) {
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        out
    };
    let with_length =
        |start: &str| [format!("{start}Content-Length: {length}\r\n\r\n").as_bytes(), &content].concat();
    match asked.target.split('/').nth(1) {
        Some("chunked") => Reply::now(chunked("")),
        Some("trailers") => Reply::now(chunked("X-Sum: 1\r\n")),
        Some("hints") => {
            Reply::now(with_length("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"))
        }
        Some("close") => {
            Reply { then: Then::Close, ..Reply::now(with_length("HTTP/1.1 200 OK\r\nConnection: close\r\n")) }
        }
        Some("old") => {
            Reply { then: Then::Close, ..Reply::now([b"HTTP/1.0 200 OK\r\n\r\n", &content[..]].concat()) }
        }
        _ => Reply::now(with_length("HTTP/1.1 200 OK\r\n")),
    }
}

const FRAMINGS: [&str; 6] = ["length", "chunked", "trailers", "hints", "close", "old"];

/// A request, and what must come back.
struct Exchange {
    wire: Vec<u8>,
    method: &'static str,
    content: Vec<u8>,
}

fn any_exchange(rng: &mut Rng, framings: &[&str], number: usize) -> Exchange {
    let method = *rng.pick(&["GET", "GET", "HEAD", "PUT", "POST", "DELETE"]);
    let framing = *rng.pick(framings);
    let size = if rng.chance(1, 5) { rng.below(20_000) } else { rng.below(3000) };
    let target = format!("/{framing}/{number}-{}/{size}", rng.below(1 << 40));
    let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: sim\r\n").into_bytes();
    let mut asked = Asked { method: method.into(), target, ..Asked::default() };
    if matches!(method, "PUT" | "POST") {
        let size = if rng.chance(1, 5) { rng.below(20_000) } else { rng.below(1000) } as usize;
        asked.body = rng.bytes(size);
        if rng.chance(1, 2) {
            wire.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
            wire.extend_from_slice(&asked.body);
        } else {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in rng.pieces(&asked.body, 5000) {
                wire.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        }
    } else {
        wire.extend_from_slice(b"\r\n");
    }
    let content = if method == "HEAD" { Vec::new() } else { owed(&asked) };
    Exchange { wire, method, content }
}

fn weather(rng: &mut Rng) -> Link {
    let mut link = if rng.chance(3, 4) { Link::rough() } else { Link::default() };
    link.capacity_bytes = *rng.pick(&[100, 1000, 65_536]);
    if link.capacity_bytes >= 1000 && rng.chance(1, 2) {
        link.delay = (Duration::ZERO, Duration::from_millis(rng.between(1, 20)));
    }
    link
}

/// How often each request that is not idempotent was read whole by a server.
fn done(world: &World) -> HashMap<String, usize> {
    let mut done = HashMap::new();
    for sent in world.sent.borrow().iter() {
        for request in requests(&sent.borrow()).into_iter().filter(|request| request.method == "POST") {
            *done.entry(request.target).or_default() += 1;
        }
    }
    done
}

/// 9112-9.3.2-02b: over links that lose nothing every request is answered once, in order,
/// with what is owed for it, whatever the framings on either side, the splits and the delays.
#[test]
fn every_request_through_a_gateway_is_answered_in_order() {
    each_seed(40, |rng| {
        let world = {
            let weather = RefCell::new(Rng::new(rng.bits()));
            let mut world = World::new(|_, asked| answer(asked));
            world.links = Box::new(move || {
                let mut rng = weather.borrow_mut();
                (self::weather(&mut rng), self::weather(&mut rng))
            });
            world.seed.set(rng.bits());
            Rc::new(world)
        };
        let mut clients = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..rng.between(1, 4) {
            let exchanges: Vec<_> =
                (0..rng.between(1, 8) as usize).map(|number| any_exchange(rng, &FRAMINGS, number)).collect();
            let octets = exchanges.iter().flat_map(|exchange| exchange.wire.clone()).collect();
            clients.push((octets, weather(rng), weather(rng)));
            expected.push(exchanges);
        }
        let got = simulate(&world, plan_of(2), clients, rng.chance(1, 2));
        for (got, exchanges) in got.into_iter().zip(&expected) {
            let mut reader = Reader::new(Cursor::new(got.octets));
            for exchange in exchanges {
                let response = reader.response(exchange.method).unwrap();
                assert_eq!(response.status, 200, "{}", response.text());
                assert!(response.body == exchange.content, "the answer is not that of {}", exchange.method);
            }
            reader.end().unwrap();
        }
        assert!(done(&world).values().all(|&times| times == 1));
    });
}

/// 9112-6.3-08, 9112-8-R1, 9110-9.2.2-02; faults R11 to R14, R26: links to servers break at any octet. What a client is shown as
/// complete is what is owed; nothing that may not be repeated is done twice; what fails says so with 502 or 504.
/// Faults F43 and F47.
#[test]
fn broken_links_to_servers_corrupt_nothing() {
    let outcomes: [Cell<u32>; 3] = Default::default();
    each_seed(100, |rng| {
        let world = {
            let weather = RefCell::new(Rng::new(rng.bits()));
            let mut world = World::new(|_, asked| answer(asked));
            world.links = Box::new(move || {
                let mut rng = weather.borrow_mut();
                let (mut forth, mut back) = (self::weather(&mut rng), self::weather(&mut rng));
                let at = Some(rng.below(6000));
                match rng.below(8) {
                    0 => forth.reset_after_bytes = at,
                    1 => forth.end_after_bytes = at,
                    2 => back.reset_after_bytes = at,
                    3 => back.end_after_bytes = at,
                    _ => {}
                }
                (forth, back)
            });
            world.seed.set(rng.bits());
            Rc::new(world)
        };
        // A server of HTTP/1.0 may end a response by an end: nobody can know that it came too early.
        let framings = &FRAMINGS[..5];
        let exchanges: Vec<_> =
            (0..rng.between(1, 8) as usize).map(|number| any_exchange(rng, framings, number)).collect();
        let octets = exchanges.iter().flat_map(|exchange| exchange.wire.clone()).collect();
        let clients = vec![(octets, weather(rng), weather(rng))];
        let got = simulate(&world, plan_of(3), clients, false).remove(0);
        let mut reader = Reader::new(Cursor::new(got.octets));
        for exchange in &exchanges {
            match reader.response(exchange.method) {
                Ok(response) if response.status == 200 => {
                    assert!(
                        response.body == exchange.content,
                        "a broken answer to {} is shown as whole",
                        exchange.method
                    );
                    outcomes[0].set(outcomes[0].get() + 1);
                }
                Ok(response) => {
                    assert!(matches!(response.status, 400 | 502 | 504), "{}", response.status);
                    outcomes[1].set(outcomes[1].get() + 1);
                    if response.says_close() {
                        break;
                    }
                }
                Err(why) => {
                    assert!(!why.contains("invalid"), "{why}");
                    outcomes[2].set(outcomes[2].get() + 1);
                    break;
                }
            }
        }
        let done = done(&world);
        assert!(done.values().all(|&times| times == 1), "{done:?}");
    });
    if std::env::var_os("SEED").is_none() {
        assert!(outcomes.iter().all(|count| count.get() >= 10), "whole, refused, cut: {outcomes:?}");
    }
}

/// Invariant 9; faults S, F05, F06: links to clients break at any octet. What servers read is a prefix of what the client
/// sent, request for request, and no session is left behind.
#[test]
fn broken_links_to_clients_forward_nothing_odd() {
    each_seed(60, |rng| {
        let world = Rc::new(World::new(|_, asked| answer(asked)));
        world.seed.set(rng.bits());
        let exchanges: Vec<_> =
            (0..rng.between(1, 6) as usize).map(|number| any_exchange(rng, &FRAMINGS, number)).collect();
        let octets: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.wire.clone()).collect();
        let (mut forth, mut back) = (weather(rng), weather(rng));
        let at = Some(rng.below(octets.len() as u64 + 1));
        match rng.below(4) {
            0 => forth.reset_after_bytes = at,
            1 => forth.end_after_bytes = at,
            2 => back.reset_after_bytes = Some(rng.below(20_000)),
            _ => back.end_after_bytes = Some(rng.below(20_000)),
        }
        let sent = requests(&octets);
        simulate(&world, plan_of(2), vec![(octets, forth, back)], false);
        for got in world.sent.borrow().iter() {
            let got = got.borrow();
            for request in requests(&got) {
                let of_client = sent.iter().find(|sent| sent.target == request.target);
                let of_client = of_client.expect("a request that nobody sent");
                assert_eq!(request.method, of_client.method);
                assert!(request.body == of_client.body, "content of {} was changed", request.target);
            }
        }
        assert!(done(&world).values().all(|&times| times == 1));
    });
}

/// 9112-9.3.2-02a, 9112-9.3.2-02b: pipelined safe requests are asked of several servers at once, and answered in order
/// whoever is first; one that is not safe waits for those before it, and those behind it wait for it.
#[test]
fn pipelined_safe_requests_go_to_several_servers_at_once() {
    let log: Rc<RefCell<Vec<(String, u16, u64)>>> = Rc::default();
    let world = {
        let log = Rc::clone(&log);
        let begun = Cell::new(None::<Instant>);
        Rc::new(World::new(move |port, asked| {
            let since = begun.get().unwrap_or_else(Instant::now);
            begun.set(Some(since));
            log.borrow_mut().push((asked.target.clone(), port, since.elapsed().as_secs()));
            // The earlier a request, the later its answer: 6, 5, … seconds.
            let number: u64 = asked.target[1..].parse().unwrap();
            let octets =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", asked.target.len(), asked.target);
            Reply { after: Duration::from_secs(10 - number), ..Reply::now(octets) }
        }))
    };
    let get = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n");
    let post = |n: u32| format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let octets = [get(1), get(2), get(3), post(4), get(5), get(6)].concat().into_bytes();
    let got = simulate(&world, plan_of(3), vec![(octets, Link::default(), Link::default())], true).remove(0);
    let mut reader = Reader::new(Cursor::new(got.octets));
    for number in 1..=6 {
        assert_eq!(reader.response("GET").unwrap().text(), format!("/{number}"));
    }
    reader.end().unwrap();
    let log = log.borrow();
    let at = |number: u32| log.iter().find(|entry| entry.0 == format!("/{number}")).unwrap().2;
    let ports: std::collections::BTreeSet<u16> = log[..3].iter().map(|entry| entry.1).collect();
    assert_eq!(ports.len(), 3, "three servers at once: {log:?}");
    assert_eq!((at(1), at(2), at(3)), (0, 0, 0));
    assert_eq!(at(4), 9, "not before /1, /2 and /3 are answered");
    assert_eq!((at(5), at(6)), (15, 15), "not before /4 is answered");
    assert_eq!(got.took.as_secs(), 20);
}
