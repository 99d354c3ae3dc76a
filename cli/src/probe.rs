//! One look at the health of a program: does its port accept, does its page answer (contract A12). Runs as a process of its own
//! (`astrid __probe`), so that an endpoint that hangs holds up nobody.
//!
//! Healthy is exit code 0 and unhealthy 1; one line on stdout says why. There is one deadline for all of it, resolving the name
//! included. Redirects are not followed: a health page that points elsewhere says nothing about this program. No TLS.

use std::io::Read as _;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::output::{Output, printable};

/// Most bytes of a page that are read: what it must contain is expected near its beginning.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Most addresses that are tried for one name.
const ADDRESSES_MAX: usize = 8;

/// What is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    probe: Probe,
}

#[derive(Debug, Subcommand)]
enum Probe {
    /// Healthy when the address accepts a connection
    Tcp {
        address: String,
        #[arg(long)]
        timeout_ms: u64,
    },
    /// Healthy when the page answers as expected
    Http {
        url: String,
        #[arg(long)]
        timeout_ms: u64,
        /// Statuses that are healthy, with commas [default: 200 to 299]
        #[arg(long, value_delimiter = ',')]
        status: Vec<u16>,
        /// Text that the page must contain
        #[arg(long, allow_hyphen_values = true)]
        body: Option<String>,
    },
}

/// Looks, and says what was seen.
pub(crate) fn main(args: Args) -> ExitCode {
    let timeout = Duration::from_millis(match &args.probe {
        Probe::Tcp { timeout_ms, .. } | Probe::Http { timeout_ms, .. } => *timeout_ms,
    });
    let (healthy, text) = match within(timeout, move || look(&args.probe, timeout)) {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    };
    // Fails only when nobody reads it.
    let _ = Output::bytes(format!("{}\n", printable(&text)).as_bytes());
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs it on a thread that is left behind when time is up: not everything it does can be told to stop.
fn within(timeout: Duration, look: impl FnOnce() -> Result<String, String> + Send + 'static) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(look()));
    match receiver.recv_timeout(timeout) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("no answer within {} ms", timeout.as_millis())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the probe itself failed".to_owned()),
    }
}

fn look(probe: &Probe, timeout: Duration) -> Result<String, String> {
    match probe {
        Probe::Tcp { address, .. } => tcp(address, timeout),
        Probe::Http { url, status, body, .. } => http(url, status, body.as_deref(), timeout),
    }
}

fn tcp(address: &str, timeout: Duration) -> Result<String, String> {
    let deadline = Instant::now() + timeout;
    let found = address
        .to_socket_addrs()
        .map_err(|error| format!("{address} is no address: {error}"))?;
    let mut last = format!("{address} has no address");
    for socket in found.take(ADDRESSES_MAX) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&socket, left) {
            Ok(_) => return Ok(format!("{socket} accepts connections")),
            Err(error) => last = format!("{socket} does not accept: {error}"),
        }
    }
    Err(last)
}

fn http(url: &str, statuses: &[u16], expected: Option<&str>, timeout: Duration) -> Result<String, String> {
    match url.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {}
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            return Err("https is not supported; ask the program itself over http, or use a script".to_owned());
        }
        _ => return Err(format!("{url} is no URL that begins with http://")),
    }
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("astrid-probe/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut response = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    let status = response.status().as_u16();
    let wanted = if statuses.is_empty() {
        (200..300).contains(&status)
    } else {
        statuses.contains(&status)
    };
    if !wanted {
        return Err(format!("{url} answers with status {status}"));
    }
    let Some(expected) = expected else {
        return Ok(format!("status {status}"));
    };
    let mut body = Vec::new();
    let page = response.body_mut().as_reader().take(BODY_BYTES_MAX);
    let read = { page }.read_to_end(&mut body);
    if contains(&body, expected.as_bytes()) {
        return Ok(format!("status {status}, with the expected text"));
    }
    match read {
        Err(error) => Err(format!("{url}: the page could not be read: {error}")),
        Ok(_) if body.len() as u64 == BODY_BYTES_MAX => Err(format!(
            "status {status}, but the expected text is not in the first {BODY_BYTES_MAX} bytes"
        )),
        Ok(_) => Err(format!("status {status}, but without the expected text")),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that gives each connection this answer.
    fn serving(answer: impl Fn(&mut TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                answer(&mut stream);
            }
        });
        format!("http://{address}/health")
    }

    fn page(status: &'static str, body: &'static str) -> String {
        serving(move |stream| {
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        })
    }

    /// A12: tcp.
    #[test]
    fn ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(tcp(&address, PATIENCE).unwrap().contains("accepts"));
        drop(listener);
        assert!(tcp(&address, PATIENCE).unwrap_err().contains("does not accept"));
        for bad in ["", "localhost", "127.0.0.1:99999", "a b:1"] {
            assert!(tcp(bad, PATIENCE).unwrap_err().contains("is no address"), "{bad}");
        }
    }

    /// A12: http with status and body.
    #[test]
    fn pages() {
        let good = page("200 OK", "all is well");
        assert_eq!(http(&good, &[], None, PATIENCE).unwrap(), "status 200");
        assert!(http(&good, &[200, 204], Some("is well"), PATIENCE).is_ok());
        assert!(
            http(&good, &[], Some("on fire"), PATIENCE)
                .unwrap_err()
                .contains("without the expected")
        );
        assert!(http(&good, &[204], None, PATIENCE).unwrap_err().contains("status 200"));
        let bad = page("503 Busy", "");
        assert!(http(&bad, &[], None, PATIENCE).unwrap_err().contains("status 503"));
        assert!(http(&bad, &[503], None, PATIENCE).is_ok());
        // A redirect is an answer like any other.
        assert!(
            http(&page("302 Found\r\nLocation: /x", ""), &[], None, PATIENCE)
                .unwrap_err()
                .contains("302")
        );
    }

    /// An endpoint that never ends its page is read up to a bound.
    #[test]
    fn a_page_without_end() {
        let endless = serving(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        assert!(http(&endless, &[], Some("y"), PATIENCE).unwrap_err().contains("65536"));
    }

    /// One deadline, whatever hangs: here a server that accepts and says nothing.
    #[test]
    fn a_server_that_hangs() {
        let (hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let url = serving(move |_| {
            let _ = held.lock().unwrap().recv();
        });
        let short = Duration::from_millis(50);
        assert!(
            within(short, move || http(&url, &[], None, PATIENCE))
                .unwrap_err()
                .contains("50 ms")
        );
        drop(hold);
    }

    #[test]
    fn what_is_no_http() {
        assert!(
            http("https://localhost/", &[], None, PATIENCE)
                .unwrap_err()
                .contains("https is not supported")
        );
        for bad in ["", "localhost", "ftp://x/", "http://", "http://[::1"] {
            assert!(http(bad, &[], None, PATIENCE).is_err(), "{bad}");
        }
    }
}
