//! Pipelines over connections in memory.

use super::*;
use crate::transfer::{Content, Exchange};
use eleven_messaging::Config;
use eleven_net::Stream;
use eleven_net::memory::{Link, duplex};
use eleven_semantics::Method;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
struct Collected(Vec<(u16, String, bool)>);

impl Sink for Collected {
    fn head(&mut self, index: usize, head: &ResponseHead) -> Result<(), Failure> {
        assert_eq!(index, self.0.len());
        self.0.push((head.status.code(), String::new(), false));
        Ok(())
    }
    fn data(&mut self, index: usize, octets: &[u8]) -> Result<(), Failure> {
        self.0[index].1.push_str(&String::from_utf8_lossy(octets));
        Ok(())
    }
    fn end(&mut self, index: usize, _: Option<&Fields>) -> Result<(), Failure> {
        self.0[index].2 = true;
        Ok(())
    }
}

/// A connection that has answered once, to a server that answers `GET /N` with N, waits until `batch` requests are
/// there before it answers, and closes after `answers`.
async fn connection(seed: u64, batch: usize, answers: usize, peak: Rc<Cell<usize>>) -> Connection {
    let (client, server) = duplex(seed, Link::rough(), Link::rough());
    let mut server = Stream::Memory(Box::new(server));
    tokio::task::spawn_local(async move {
        let (mut text, mut octets, mut answered) = (String::new(), [0; 100], 0);
        let mut pending: VecDeque<String> = VecDeque::new();
        loop {
            let Ok(count @ 1..) = server.read(&mut octets).await else { return };
            text.push_str(std::str::from_utf8(&octets[..count]).unwrap());
            while let Some(at) = text.find("\r\n\r\n") {
                pending.push_back(text[5..text.find(" HTTP").unwrap()].to_owned());
                text.drain(..at + 4);
            }
            peak.set(peak.get().max(pending.len()));
            if answered > 0 && pending.len() < batch && answered + pending.len() < answers {
                continue;
            }
            while let Some(name) = pending.pop_front() {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                if answered == answers {
                    // In order: what was answered arrives, whatever else was asked.
                    let _ = server.shutdown_write().await;
                    while let Ok(1..) = server.read(&mut octets).await {}
                    return;
                }
                if server.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                answered += 1;
            }
        }
    });
    let stream = Stream::Memory(Box::new(client));
    let mut connection = Connection::new(stream, Arc::new(Config::default()), "h:80", None);
    let fields = Fields::new();
    assert!(!is_fit(&connection), "nothing is known of it yet");
    let request = Request::new(&Method::Get, b"/first", b"h", &fields);
    let mut exchange =
        Exchange::begin(&mut connection, &request, Content::None, Deadlines::default()).unwrap();
    exchange.head(|_| {}).await.unwrap();
    while exchange.data().await.unwrap().is_some() {}
    assert!(is_fit(&connection));
    connection
}

async fn run_to(
    seed: u64,
    count: usize,
    depth: usize,
    batch: usize,
    answers: usize,
) -> (Ended, Collected, usize, bool) {
    let peak = Rc::new(Cell::new(0));
    let mut connection = connection(seed, batch, answers, peak.clone()).await;
    let fields = Fields::new();
    let targets: Vec<String> = (0..count).map(|n| format!("/{n}")).collect();
    let requests: Vec<_> =
        targets.iter().map(|target| Request::new(&Method::Get, target.as_bytes(), b"h", &fields)).collect();
    let mut collected = Collected::default();
    let ended = run(&mut connection, &requests, depth, Deadlines::default(), &mut collected).await;
    (ended, collected, peak.get(), connection.is_reusable())
}

/// 9112-9.2-01, 9112-9.3.2-01: in order, several under way at once.
#[tokio::test(flavor = "local", start_paused = true)]
async fn answers_are_matched_in_order() {
    for seed in 0..20 {
        let (ended, collected, peak, reusable) = run_to(seed, 30, 5, 5, 1000).await;
        // The last ones are fewer than a batch: the server waits for more, and the deadline ends it.
        assert!(ended.answered == 30 || ended.answered == 25 || peak >= 5, "{ended:?}");
        for (index, (status, content, complete)) in collected.0.iter().enumerate().take(ended.answered) {
            assert_eq!((*status, content.as_str(), *complete), (200, index.to_string().as_str(), true));
        }
        assert_eq!(reusable, ended.failure.is_none());
    }
    let (ended, _, peak, reusable) = run_to(1, 30, 5, 1, 1000).await;
    assert!(ended.failure.is_none() && ended.answered == 30 && peak <= 5 && reusable);
}

/// 9112-9.3.2-03, 9112-9.6-08b: a server that closes early leaves a clean cut: what was answered, and what not.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_early_close_is_a_clean_cut() {
    for answers in 1..12 {
        let (ended, collected, _, reusable) = run_to(answers as u64, 12, 4, 1, answers).await;
        assert_eq!(ended.answered, answers - 1, "one answer was the first request's");
        assert!(ended.failure.is_some() && !reusable);
        assert!(collected.0.iter().take(ended.answered).all(|(_, _, complete)| *complete));
    }
}
