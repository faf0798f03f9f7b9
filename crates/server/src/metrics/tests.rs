use super::exposition::Dialect;
use super::*;
use crate::record::Record;
use eleven_semantics::{Fields, Known};

fn exchange(site: &'static str, handler: &'static str, status: u16) -> Exchange<'static> {
    Exchange { site, handler, status, received_bytes: 100, sent_bytes: 1000, ..Exchange::default() }
}

/// What scrapers read: two workers added up, and every family with its type before its samples.
#[tokio::test(start_paused = true)]
async fn workers_are_added_up() {
    let metrics = Metrics::default();
    let (one, two) = (metrics.recorder(), metrics.recorder());
    for (recorder, count) in [(&one, 3), (&two, 2)] {
        for _ in 0..count {
            recorder.accepted();
            recorder.count(&exchange("a.example", "files", 200));
        }
    }
    one.count(&Exchange { refused: Some("rate"), ..exchange("a.example", "files", 429) });
    two.count(&Exchange { cache: "HIT", ..exchange("b.example", "proxy", 200) });
    two.count(&Exchange { cache: "MISS", cache_reason: "uri-miss", ..exchange("b.example", "proxy", 502) });
    let record = |us| Record { method: b"GET", target: b"/x?secret=1", duration_us: us, ..Record::default() };
    one.sample(&record(50), "echo", 1);
    one.sample(&record(100_000), "echo", 16);
    one.publish([5, 4, 3, 2, 1, 0, 7], (6, 4));
    two.closed("peer-closed");
    two.handshake(Ok(()));
    two.handshake(Err("timeout"));
    metrics.reloaded(true);
    metrics.reloaded(false);
    let text = metrics.exposition(Dialect::Prometheus);
    for line in [
        "eleven_requests_total{site=\"a.example\",handler=\"files\",class=\"2xx\"} 5",
        "eleven_requests_total{site=\"a.example\",handler=\"files\",class=\"4xx\"} 1",
        "eleven_requests_total{site=\"b.example\",handler=\"proxy\",class=\"5xx\"} 1",
        "eleven_received_bytes_total{site=\"a.example\",handler=\"files\"} 600",
        "eleven_sent_bytes_total{site=\"b.example\",handler=\"proxy\"} 2000",
        "eleven_refusals_total{reason=\"rate\"} 1",
        "eleven_request_duration_seconds_bucket{site=\"\",handler=\"echo\",le=\"0.000064\"} 1",
        "eleven_request_duration_seconds_bucket{site=\"\",handler=\"echo\",le=\"0.131072\"} 17",
        "eleven_request_duration_seconds_bucket{site=\"\",handler=\"echo\",le=\"+Inf\"} 17",
        "eleven_request_duration_seconds_count{site=\"\",handler=\"echo\"} 17",
        "eleven_connections_accepted_total 5",
        "eleven_connections{state=\"tunnel\"} 7",
        "eleven_connections_closed_total{reason=\"peer-closed\"} 1",
        "eleven_tls_handshakes_total 1",
        "eleven_tls_handshakes_failed_total{reason=\"timeout\"} 1",
        "eleven_cache_requests_total{verdict=\"HIT\"} 1",
        "eleven_cache_forwards_total{reason=\"uri-miss\"} 1",
        "eleven_reloads_total{result=\"taken\"} 1",
        "eleven_reloads_total{result=\"refused\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    check(&text, Dialect::Prometheus);
    let text = metrics.exposition(Dialect::OpenMetrics);
    check(&text, Dialect::OpenMetrics);
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE eleven_requests counter\n"));
    assert!(!text.contains("secret"));
}

/// A reader of the format that knows nothing of the writer.
fn check(text: &str, dialect: Dialect) {
    let mut families: Vec<(&str, &str)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(!families.iter().any(|(known, _)| *known == name), "{name} twice");
            families.push((name, kind));
        } else if !line.starts_with("# HELP ") {
            let end = line.find(['{', ' ']).unwrap();
            let (name, value) = (&line[..end], line.rsplit(' ').next().unwrap());
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (family, kind) = families.last().unwrap();
            let expected = match (*kind, dialect) {
                ("counter", Dialect::OpenMetrics) => vec![format!("{family}_total")],
                ("histogram", _) => {
                    ["_bucket", "_sum", "_count"].map(|suffix| format!("{family}{suffix}")).to_vec()
                }
                _ => vec![(*family).to_owned()],
            };
            assert!(expected.iter().any(|allowed| allowed == name), "{line} in {family}");
            assert!(seen.insert(line[..line.len() - value.len()].to_owned()), "{line} twice");
        }
    }
    assert!(families.len() > 20);
}

#[test]
fn openmetrics_is_for_those_that_ask_for_it() {
    for (accept, expected) in [
        (None, Dialect::Prometheus),
        (Some("*/*"), Dialect::Prometheus),
        (Some("text/plain;version=0.0.4"), Dialect::Prometheus),
        (Some("application/openmetrics-text;q=0, text/plain"), Dialect::Prometheus),
        (Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"), Dialect::OpenMetrics),
        (Some("text/html, Application/OpenMetrics-Text"), Dialect::OpenMetrics),
    ] {
        let mut fields = Fields::new();
        if let Some(accept) = accept {
            fields.push(Known::Accept, accept).unwrap();
        }
        assert_eq!(Dialect::of(&fields), expected, "{accept:?}");
    }
}

/// Labels are bounded whatever happens, and say nothing that would end a line early (faults L01, L04).
/// Fault L09.
#[test]
fn labels_are_bounded_and_escaped() {
    let metrics = Metrics::default();
    let recorder = metrics.recorder();
    for n in 0..10_000 {
        let site = format!("s{n}.example");
        recorder.count(&Exchange { site: &site, status: 200, ..Exchange::default() });
    }
    recorder.count(&Exchange { site: "\"}\n# x \\", status: 200, ..Exchange::default() });
    let sums = metrics.sum_series();
    assert_eq!(sums.len(), SERIES_MAX + 1);
    assert_eq!(sums.values().map(|sum| sum.classes[2]).sum::<u64>(), 10_001);
    let other = Metrics::default();
    other.recorder().count(&Exchange { site: "\"}\n# x \\", status: 200, ..Exchange::default() });
    let text = other.exposition(Dialect::Prometheus);
    assert!(text.contains("{site=\"\\\"}\\n# x \\\\\",handler=\"\",class=\"2xx\"} 1\n"), "{text}");
    check(&text, Dialect::Prometheus);
}

/// With little traffic every exchange is timed; with much, one stands for others, and none is lost in the sum.
#[test]
fn samples_stand_for_all() {
    let metrics = Metrics::default();
    let recorder = metrics.recorder();
    assert_eq!((0..10).map(|_| recorder.weigh(1)).sum::<u32>(), 10);
    let (few, many) = (EXACT_A_TICK, 100_000);
    assert!((0..few).all(|_| recorder.weigh(2) == 1));
    let weights: Vec<u32> = (few..many).map(|_| recorder.weigh(2)).collect();
    assert_eq!(weights.iter().sum::<u32>(), many - few);
    assert_eq!(weights.iter().filter(|&&weight| weight > 0).count() as u32, (many - few) / SPARSE);
    assert_eq!(recorder.weigh(3), 1);
}

/// A flood of refusals is counted in full and remembered in part; what is remembered has no query (fault L05).
#[test]
fn refusals_are_remembered_in_part() {
    let metrics = Metrics::default();
    let recorder = metrics.recorder();
    for n in 0..1000 {
        if n % 100 == 0 {
            recorder.weigh(n);
        }
        let target = format!("/{n}?token=abc");
        let record = Record {
            method: b"GET",
            target: target.as_bytes(),
            refused: Some("rate"),
            status: 429,
            time_unix_ms: n as i64,
            ..Record::default()
        };
        recorder.count(&Exchange { status: 429, refused: Some("rate"), ..Exchange::default() });
        recorder.sample(&record, "", 0);
    }
    let status = metrics.status();
    assert_eq!(status["refusals"]["reasons"]["rate"], 1000);
    let last = status["refusals"]["last"].as_array().unwrap();
    assert_eq!(last.len(), 24);
    assert_eq!((&last[0]["target"], &last[0]["status"]), (&"/907".into(), &429.into()));
    assert!(!status.to_string().contains("token"));
    assert_eq!(status["busiest"].as_array().unwrap().len(), 0);
}

/// Rates and percentiles of the last seconds, and a history that does not grow.
#[tokio::test(start_paused = true)]
async fn history_is_of_the_last_minutes() {
    let metrics = Metrics::default();
    let recorder = metrics.recorder();
    assert!(metrics.status()["recent"].is_null());
    for second in 0..HISTORY_SECONDS as u64 + 50 {
        metrics.note_second();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..=second % 2 {
            recorder.count(&exchange("", "files", 200));
            let record = Record { method: b"GET", target: b"/", duration_us: 1000, ..Record::default() };
            recorder.sample(&record, "files", 1);
        }
    }
    let status = metrics.status();
    let history = status["history"].as_array().unwrap();
    assert_eq!(history.len(), HISTORY_SECONDS);
    assert_eq!(history[0]["classes"][2].as_u64().unwrap() + history[1]["classes"][2].as_u64().unwrap(), 3);
    assert_eq!(status["recent"]["requests_per_s"], 1.5);
    assert_eq!(status["recent"]["p50_us"], 1024);
    assert_eq!(status["point"], history[HISTORY_SECONDS - 1]);
    assert_eq!(status["busiest"][0]["path"], "/");
    assert!(metrics.status_now().get("history").is_none());
}

/// What the certificates and the process have to say.
#[tokio::test(start_paused = true)]
async fn certificates_with_days_left() {
    clock::set_unix_seconds(1_000_000);
    let metrics = Metrics::default();
    let info = |days: i64| CertificateInfo {
        names: vec!["a.example".into()],
        not_after_unix_s: 1_000_000 + days * 86_400 + 5,
        ocsp_until_unix_s: (days > 0).then_some(Some(1_000_600)),
    };
    metrics.set_certificates(vec![info(30), info(-2)]);
    let status = metrics.status();
    clock::unset();
    assert_eq!(status["certificates"][0]["ocsp"]["stapled_until_unix_s"], 1_000_600);
    assert!(status["certificates"][1]["ocsp"].is_null());
    let text = metrics.exposition(Dialect::Prometheus);
    assert!(text.contains("eleven_certificate_ocsp_until_seconds{name=\"a.example\"} 1000600\n"), "{text}");
    let left = |n: usize| status["certificates"][n]["days_left"].as_i64();
    assert_eq!((left(0), left(1)), (Some(30), Some(-2)));
    assert!(status["process"]["resident_bytes"].as_u64().unwrap() > 0);
}

/// Servers are told apart by name, over all gateways, and go on counting after a reload.
#[test]
fn servers_keep_their_counts_over_a_reload() {
    use crate::proxy::upstream::ServerPlan;
    let plan = |hosts: &[&str]| {
        let servers = hosts.iter().map(|host| ServerPlan::tcp(host, 80)).collect();
        Arc::new(GatewayPlan::new(servers, "test"))
    };
    let metrics = Metrics::default();
    let (one, two) = (plan(&["a", "b"]), plan(&["b"]));
    one.shared[1].asked.fetch_add(5, Ordering::Relaxed);
    two.shared[0].asked.fetch_add(2, Ordering::Relaxed);
    two.shared[0].healthy.store(false, Ordering::Relaxed);
    let ejection = crate::proxy::upstream::Ejection { failures: 1, ..Default::default() };
    one.shared[0].failed(&ejection, true, eleven_net::clock::now());
    metrics.set_sources(Sources { gateways: vec![one.clone(), two], ..Sources::default() });
    let text = metrics.exposition(Dialect::Prometheus);
    for line in [
        "eleven_upstream_requests_total{upstream=\"http://a:80\"} 0",
        "eleven_upstream_requests_total{upstream=\"http://b:80\"} 7",
        "eleven_upstream_healthy{upstream=\"http://a:80\"} 1",
        "eleven_upstream_healthy{upstream=\"http://b:80\"} 0",
        "eleven_upstream_ejected{upstream=\"http://a:80\"} 1",
        "eleven_upstream_ejected{upstream=\"http://b:80\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    // The same plan again, then another one.
    metrics.set_sources(Sources { gateways: vec![one.clone()], ..Sources::default() });
    assert_eq!(metrics.status()["upstreams"][1]["requests"], 7);
    metrics.set_sources(Sources { gateways: vec![plan(&["b", "c"])], ..Sources::default() });
    let upstreams = &metrics.status()["upstreams"];
    assert_eq!((&upstreams[0]["requests"], &upstreams[1]["requests"]), (&7.into(), &0.into()));
}
