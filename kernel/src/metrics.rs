//! What the daemon counts, and how it is fetched (K18). All names are here.
//!
//! A count is one relaxed addition to a plain integer, whether anybody fetches it or not. Every metric exists, at
//! zero, from the start; labels are only ever from the closed sets below, so that nothing a guest or peer says can
//! make a series.
//!
//! The exporter exists only when the configuration names an address. It answers when asked and otherwise sleeps. It
//! speaks just enough HTTP to be scraped: `GET /metrics` in the Prometheus text format, one answer a connection.
//!
//! Deliberately absent: histograms of what nobody measures yet, and authentication, which is why the address must be
//! of this machine.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::config::MetricsConfig;

/// A number that only grows, or a level that also falls. Wraps at 2^64.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// That many more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// One less; for gauges.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Values of a label, and the name that none of them has.
const FAULTS: [&str; 5] = ["trap", "fuel", "memory", "time", "start"];
const SOURCES: [&str; 3] = ["embedded", "cache", "compiled"];

/// Defines [`Metrics`]: its fields, and for each the line that describes it.
macro_rules! metrics {
    ($($field:ident: $kind:literal, $name:literal, $help:literal;)*) => {
        /// All counts of a daemon, shared by whoever counts.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: Count,)*
            faults: [Count; FAULTS.len()],
            loads: [Count; SOURCES.len()],
        }

        impl Metrics {
            /// All of them in the Prometheus text format (version 0.0.4).
            #[must_use]
            pub fn render(&self) -> String {
                let mut text = String::with_capacity(4 << 10);
                $(
                    describe(&mut text, $name, $kind, $help);
                    sample(&mut text, $name, None, &self.$field);
                )*
                let labelled: [(_, _, _, &[&str], &[Count]); 2] = [
                    ("astrid_capsule_faults_total", "Ends of an actor's generation, by cause.", "fault", &FAULTS, &self.faults),
                    ("astrid_capsule_loads_total", "Components loaded, by where their code came from.", "source", &SOURCES, &self.loads),
                ];
                for (name, help, label, values, counts) in labelled {
                    describe(&mut text, name, "counter", help);
                    for (value, count) in values.iter().zip(counts) {
                        sample(&mut text, name, Some((label, value)), count);
                    }
                }
                text
            }
        }
    };
}

metrics! {
    bus_published: "counter", "astrid_bus_published_messages_total", "Messages said by anybody.";
    bus_delivered: "counter", "astrid_bus_delivered_messages_total", "Messages put into a receiver's queue, once for each receiver.";
    bus_refused: "counter", "astrid_bus_refused_messages_total", "Messages not let through by a full queue.";
    connections_open: "gauge", "astrid_port_open_connections", "Connections of all sockets.";
    connections_refused: "counter", "astrid_port_refused_connections_total", "Connections turned away by a cap.";
    connections_unauthenticated: "counter", "astrid_port_unauthenticated_connections_total", "Connections closed because they did not complete the handshake.";
    child_output: "counter", "astrid_child_output_bytes_total", "Bytes that children wrote to their outputs.";
    child_output_lost: "counter", "astrid_child_output_lost_bytes_total", "Bytes of those that a log file could not take.";
    child_log_rotations: "counter", "astrid_child_log_rotations_total", "Log files of children that were put aside.";
    blobs_kept: "counter", "astrid_blob_kept_total", "Blobs that principals gave to the content store.";
    blobs_kept_bytes: "counter", "astrid_blob_kept_bytes_total", "Bytes of those.";
    blobs_released: "counter", "astrid_blob_released_total", "Blobs that principals gave up.";
    blobs_corrupted: "counter", "astrid_blob_corrupted_total", "Blobs that were found spoilt on the disk.";
    actors_live: "gauge", "astrid_capsule_live_actors", "Actors with an instance.";
    actors_evicted: "counter", "astrid_capsule_evicted_actors_total", "Actors whose instance was given up because they were idle or others needed the room.";
    capsule_handled: "counter", "astrid_capsule_handled_messages_total", "Messages handled with a commit.";
    capsule_rolled_back: "counter", "astrid_capsule_rolled_back_messages_total", "Messages whose handling was undone at the capsule's own wish.";
    capsule_dead: "counter", "astrid_capsule_dead_messages_total", "Messages given up because they failed their receiver twice.";
    authority_denied: "counter", "astrid_authority_denied_requests_total", "Things that the gate denied to capsules and connections.";
    quota_refused: "counter", "astrid_ledger_refused_requests_total", "Things that were over a quota.";
    audit_entries: "counter", "astrid_audit_entries_total", "Entries of the audit log that are on disk.";
    audit_seals: "counter", "astrid_audit_seals_total", "Signatures of the audit log, each with one wait for the disk.";
    audit_refused: "counter", "astrid_audit_refused_entries_total", "Entries that could not be recorded, so that what they were about did not happen.";
    store_commits: "counter", "astrid_store_sealed_commits_total", "Commits that are on disk, since the daemon started.";
    store_failures: "counter", "astrid_store_failures_total", "Times that the store failed, and was opened again.";
    capsule_fuel: "counter", "astrid_capsule_used_fuel_units_total", "Fuel that guests used.";
}

impl Metrics {
    /// Faults of that cause: `trap`, `fuel`, `memory`, `time` or `start`. An unknown one counts as a trap.
    pub fn capsule_faults(&self, fault: &str) -> &Count {
        &self.faults[FAULTS.iter().position(|name| *name == fault).unwrap_or(0)]
    }

    /// Loads of code from there: `embedded`, `cache` or `compiled`. An unknown one counts as compiled.
    pub fn capsule_loads(&self, source: &str) -> &Count {
        &self.loads[SOURCES
            .iter()
            .position(|name| *name == source)
            .unwrap_or(SOURCES.len() - 1)]
    }
}

fn describe(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, label: Option<(&str, &str)>, count: &Count) {
    let _ = match label {
        None => writeln!(text, "{name} {}", count.get()),
        Some((label, value)) => writeln!(text, "{name}{{{label}=\"{value}\"}} {}", count.get()),
    };
}

/// Scrapes at once; one scraper needs one.
const SCRAPES_MAX: usize = 4;

/// Bytes of a request's head.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// How long one scrape may take.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(5);

/// Why metrics cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("metrics cannot be served on {address}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl MetricsError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        "choose another port in [metrics] listen of etc/astrid.toml, or remove it".to_owned()
    }
}

/// Serves metrics until it is dropped.
#[derive(Debug)]
pub struct Exporter {
    /// The address, with the port that was given when the configuration said 0.
    pub address: SocketAddr,
    serving: AbortHandle,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Begins to serve metrics, if the configuration says where. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`MetricsError::Bind`]
pub fn export(config: &MetricsConfig, metrics: &Arc<Metrics>) -> Result<Option<Exporter>, MetricsError> {
    let Some(address) = config.listen else { return Ok(None) };
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    };
    let (listener, address) = bind().map_err(|source| MetricsError::Bind { address, source })?;
    let serving = tokio::spawn(serve(listener, Arc::clone(metrics))).abort_handle();
    Ok(Some(Exporter { address, serving }))
}

async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(Semaphore::new(SCRAPES_MAX));
    // Dropped with this future, which ends what it answers.
    let mut scrapes = JoinSet::new();
    loop {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while scrapes.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = Arc::clone(&metrics);
                scrapes.spawn(async move {
                    // Who does not finish in time is cut off, and asks again.
                    let _ = tokio::time::timeout(SCRAPE_TIME_MAX, scrape(stream, &metrics)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Most likely out of descriptors; at once, it would be the same.
                tracing::warn!(%error, "a scrape was not accepted");
                tokio::time::sleep(SCRAPE_TIME_MAX).await;
            }
        }
    }
}

async fn scrape(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    answer(&mut stream, metrics).await?;
    stream.shutdown().await
}

/// Reads the head of one request and answers it.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), metrics: &Metrics) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX {
            return respond(stream, "431 Request Header Fields Too Large", "").await;
        }
        if stream.take(REQUEST_BYTES_MAX as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match first.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] {
        [b"GET", b"/metrics", _] => respond(stream, "200 OK", &metrics.render()).await,
        [b"GET", ..] => respond(stream, "404 Not Found", "").await,
        _ => respond(stream, "405 Method Not Allowed", "").await,
    }
}

async fn respond(stream: &mut (impl AsyncWrite + Unpin), status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashSet;

    use super::*;

    /// What `promtool check metrics` would say, as far as it concerns names: K18.
    #[test]
    fn names_follow_the_rules_and_all_are_there_at_zero() {
        let text = Metrics::default().render();
        let mut kinds = std::collections::HashMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(kinds.insert(name, kind), None, "{name} twice");
            assert!(
                name.starts_with("astrid_") && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        }
        let mut series = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (id, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(id), "{id} twice");
            assert_eq!(value, "0", "{id}");
            assert!(
                kinds.contains_key(id.split('{').next().unwrap()),
                "{id} is not described"
            );
        }
        assert_eq!(text.matches("# HELP ").count(), kinds.len());
        assert_eq!(series.len(), kinds.len() - 2 + FAULTS.len() + SOURCES.len());
    }

    #[test]
    fn counts_are_shown() {
        let metrics = Metrics::default();
        metrics.bus_published.add(3);
        metrics.actors_live.increment();
        metrics.actors_live.increment();
        metrics.actors_live.decrement();
        metrics.capsule_faults("memory").increment();
        metrics.capsule_faults("\" 1\n").increment();
        let text = metrics.render();
        for line in [
            "astrid_bus_published_messages_total 3",
            "astrid_capsule_live_actors 1",
            "astrid_capsule_faults_total{fault=\"memory\"} 1",
            "astrid_capsule_faults_total{fault=\"trap\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn they_are_fetched_where_it_is_configured_and_only_there() {
        let metrics = Arc::new(Metrics::default());
        assert!(export(&MetricsConfig { listen: None }, &metrics).unwrap().is_none());

        let config = MetricsConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
        };
        let exporter = export(&config, &metrics).unwrap().unwrap();
        metrics.bus_refused.add(7);
        let answer = ask(exporter.address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("astrid_bus_refused_messages_total 7\n"), "{body}");
        assert!(
            ask(exporter.address, b"GET / HTTP/1.1\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 404 ")
        );
        assert!(
            ask(exporter.address, b"POST /metrics HTTP/1.1\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 405 ")
        );

        let taken = MetricsConfig {
            listen: Some(exporter.address),
        };
        assert!(matches!(export(&taken, &metrics), Err(MetricsError::Bind { .. })));
        let address = exporter.address;
        drop(exporter);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_cut() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(&vec![b'x'; 2 * REQUEST_BYTES_MAX]).await.unwrap();
        answer(&mut server, &Metrics::default()).await.unwrap();
        drop(server);
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
        // One that hangs up in the middle is nobody's error.
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"GET /met").await.unwrap();
        drop(client);
        answer(&mut server, &Metrics::default()).await.unwrap();
    }
}
