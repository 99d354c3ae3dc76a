//! The kernel in this process: bus, `handle`, activation.

use std::collections::VecDeque;
use std::sync::Arc;

use astrid_kernel::bus::Saying;
use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::message::{Body, ContentType, Source};
use astrid_tests::bed::{Bed, Settings, read_bundle};
use astrid_wire::Principal;
use astrid_wire::manifest::Time;

use crate::bare::BareCall;
use crate::{alone, line, median, pair, per_unit, runtime};

fn saying(principal: &Principal, body: &Body) -> Saying {
    Saying {
        principal: principal.clone(),
        source: Source::Kernel,
        body: body.clone(),
        public: false,
    }
}

fn body() -> Body {
    Body {
        content_type: ContentType::BYTES,
        bytes: vec![7_u8; 256].into(),
    }
}

pub fn run() {
    let runtime = runtime();
    bus(&runtime);
    handle(&runtime);
    activation(&runtime);
    beside_a_hog(&runtime);
}

/// Publish to a subscriber in this process, against a queue without a bus; and the same among 10,000 patterns.
fn bus(runtime: &tokio::runtime::Runtime) {
    const UNITS: u64 = 200_000;
    let bed = runtime.block_on(Bed::of(Vec::new(), Settings::default()));
    let (inbox, _heard) = bed.hear("bench.v1.*");
    let (who, body) = (Principal::default_owner(), body());
    let topic: astrid_wire::Topic = "bench.v1.topic".parse().unwrap();
    let publish = || {
        per_unit(UNITS, || {
            for _ in 0..UNITS {
                let say = bed.host.gate.kernel_says(topic.clone());
                bed.host.bus.publish(say, saying(&who, &body)).unwrap();
                std::hint::black_box(inbox.try_next());
            }
        })
    };
    let queue = || {
        let queue = parking_lot::Mutex::new(VecDeque::new());
        per_unit(UNITS, || {
            for _ in 0..UNITS {
                queue.lock().push_back(Arc::new((topic.clone(), saying(&who, &body))));
                std::hint::black_box(queue.lock().pop_front());
            }
        })
    };
    let (ours, limit) = pair(publish, queue);
    line(
        "bus: publish -> subscriber, one thread",
        ours,
        "a locked queue",
        limit,
        ">= 3 M/s (333 ns)",
    );
    let _many: Vec<_> = (0..10_000).map(|n| bed.hear(&format!("bench.v1.n{n}.*.x"))).collect();
    let (ours, limit) = pair(publish, || ours);
    line(
        "bus: the same beside 10,000 patterns",
        ours,
        "the line above",
        limit,
        "< 1.5x",
    );
}

/// Publish, `handle`, reply: gate and ledger on, opaque body.
fn handle(runtime: &tokio::runtime::Runtime) {
    const UNITS: u64 = 20_000;
    let bed = runtime.block_on(Bed::new(&["hello", "probe"]));
    let who = Principal::default_owner();
    let bare = tokio::sync::Mutex::new(runtime.block_on(BareCall::new()));
    let body = body();
    let ask = |topic: &'static str, body: Body| {
        let (bed, who) = (&bed, &who);
        let topic: astrid_wire::Topic = topic.parse().unwrap();
        move || {
            runtime.block_on(async {
                let began = std::time::Instant::now();
                for _ in 0..UNITS {
                    let say = bed.host.gate.kernel_says(topic.clone());
                    let outcome = bed
                        .host
                        .bus
                        .request(say, saying(who, &body), crate::PATIENCE)
                        .await
                        .unwrap();
                    assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
                }
                began.elapsed().as_secs_f64() * 1e9 / UNITS as f64
            })
        }
    };
    let call = || {
        runtime.block_on(async {
            let bytes = [7_u8; 256];
            let mut bare = bare.lock().await;
            let began = std::time::Instant::now();
            for _ in 0..UNITS {
                std::hint::black_box(bare.call(&bytes).await);
            }
            began.elapsed().as_secs_f64() * 1e9 / UNITS as f64
        })
    };
    let (ours, limit) = pair(ask("probe.v1.do.echo", body.clone()), call);
    line(
        "ask -> handle -> reply, 256 B opaque body",
        ours,
        "a component call with one host call",
        limit,
        "<= 3x, >= 300,000/s",
    );
    let json = Body::json(&serde_json::json!({"name": "somebody"}));
    let (ours, limit) = pair(ask("hello.v1.greet", json), call);
    line(
        "the same with JSON bodies, parsed and written",
        ours,
        "a component call with one host call",
        limit,
        "a line of its own",
    );
}

/// The first message of an actor that has no instance.
fn activation(runtime: &tokio::runtime::Runtime) {
    let bed = runtime.block_on(Bed::with(
        &["hello", "probe"],
        Settings {
            shards: 1,
            live_actors: 4000,
            ..Settings::default()
        },
    ));
    let body = body();
    let mut first = Vec::new();
    let mut again = Vec::new();
    for n in 0..1000 {
        let who = format!("p{n}");
        for figures in [&mut first, &mut again] {
            let began = std::time::Instant::now();
            let outcome = runtime.block_on(bed.ask_as(&who, "probe.v1.do.echo", body.clone()));
            assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
            figures.push(began.elapsed().as_secs_f64() * 1e9);
        }
    }
    let (first, again) = (median(first), median(again));
    line(
        "first message of an actor without an instance",
        first,
        "its second message",
        again,
        "<= 100 µs",
    );
    let before = rss_kib();
    drop(bed);
    alone(
        "memory with 1,000 live actors (whole process)",
        &format!("{} MiB", before / 1024),
        "<= 45 kB an actor",
    );
}

/// One principal's guest runs without end; another's message comes in between. A guest that runs gives way after a tick, so the fair share
/// of a message that needs less than one is to wait for one.
fn beside_a_hog(runtime: &tokio::runtime::Runtime) {
    const ASKS: usize = 1000;
    const TICK_NS: f64 = 1e6;
    let mut probe = read_bundle("probe");
    probe.manifest.runtime.timeout = Time(crate::PATIENCE);
    let bed = runtime.block_on(Bed::of(vec![read_bundle("hello"), probe], Settings::default()));
    let body = body();
    runtime.block_on(async {
        let _ = bed.ask_as("other", "probe.v1.do.echo", body.clone()).await;
        let (host, say) = (Arc::clone(&bed.host), bed.say("probe.v1.do.spin"));
        let hog: Principal = "hog".parse().unwrap();
        let spin =
            tokio::spawn(async move { host.bus.request(say, saying(&hog, &Body::EMPTY), crate::PATIENCE).await });
        let mut figures = Vec::with_capacity(ASKS);
        for n in 0..ASKS {
            let began = std::time::Instant::now();
            let outcome = bed.ask_as("other", "probe.v1.do.echo", body.clone()).await;
            assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
            // The first finds the hog not yet there.
            if n > 0 {
                figures.push(began.elapsed().as_secs_f64() * 1e9);
            }
        }
        spin.abort();
        figures.sort_by(f64::total_cmp);
        let p99 = figures[figures.len() * 99 / 100];
        line(
            "ask beside one hog, median",
            median(figures),
            "a tick, its fair share",
            TICK_NS,
            "",
        );
        line(
            "ask beside one hog, p99",
            p99,
            "a tick, its fair share",
            TICK_NS,
            "<= 2x",
        );
    });
}

/// Resident memory of this process.
pub fn rss_kib() -> u64 {
    status_kib("self")
}

/// Resident memory of a process.
pub fn status_kib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
