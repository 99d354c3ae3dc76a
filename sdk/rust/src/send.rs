//! What is sent with options: asks, requests and timers. Each is made by a method of [`Context`](crate::Context).

use std::marker::PhantomData;
use std::time::Duration;

use crate::bindings::astrid::kernel::types::{CommandId, MessageId, PortId};
use crate::body::{Body, FromBody, Unserializable};
use crate::error::{RequestError, SendError, TimerError};
use crate::sys;

/// Milliseconds, rounded up, so that what is short does not become none.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn millis_u32(duration: Duration) -> u32 {
    u32::try_from(millis(duration)).unwrap_or(u32::MAX)
}

/// An ask that is not sent yet; see [`Context::ask`](crate::Context::ask).
#[must_use = "an ask goes out with `send`"]
#[derive(Debug)]
pub struct Ask<'a> {
    cause: MessageId,
    topic: &'a str,
    body: Result<Body, Unserializable>,
    timeout: Option<Duration>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(cause: MessageId, topic: &'a str, body: Result<Body, Unserializable>) -> Self {
        Self {
            cause,
            topic,
            body,
            timeout: None,
        }
    }

    /// How long to wait for the answer: 30 seconds when not said, at most 10 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Records the ask. The identity that is returned comes back with the answer.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn send(self) -> Result<CommandId, SendError> {
        let body = self.body?;
        let ordinal = sys::bus::ask(
            self.topic,
            &body.content_type,
            &body.bytes,
            self.timeout.map(millis_u32),
        )?;
        Ok(CommandId {
            cause: self.cause,
            ordinal,
        })
    }
}

/// A request that is not sent yet; see [`Context::request`](crate::Context::request).
#[must_use = "a request goes out with `send`"]
#[derive(Debug)]
pub struct Request<'a> {
    topic: &'a str,
    body: Result<Body, Unserializable>,
    timeout: Option<Duration>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(topic: &'a str, body: Result<Body, Unserializable>) -> Self {
        Self {
            topic,
            body,
            timeout: None,
        }
    }

    /// How long to wait: 30 seconds when not said, and never beyond the deadline of the message being handled.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits. [`Body`] takes the answer as it comes, any other type is read from JSON.
    ///
    /// # Errors
    /// Not sent, refused, not answered in time, or answered with something else.
    pub fn send<T: FromBody>(self) -> Result<T, RequestError> {
        T::from_body(self.send_body()?).map_err(RequestError::Unreadable)
    }

    fn send_body(self) -> Result<Body, RequestError> {
        let body = self.body.map_err(SendError::from)?;
        let answer = sys::bus::request(
            self.topic,
            &body.content_type,
            &body.bytes,
            self.timeout.map(millis_u32),
        )?;
        Ok(Body::new(answer.content_type, answer.body))
    }
}

/// A timer that is not set yet; see [`Context::timer`](crate::Context::timer).
#[must_use = "a timer begins with `set`"]
#[derive(Debug)]
pub struct Timer<'a> {
    after: Duration,
    every: Option<Duration>,
    durable: bool,
    tag: &'a str,
    context: PhantomData<&'a mut ()>,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(after: Duration) -> Self {
        Self {
            after,
            every: None,
            durable: false,
            tag: "",
            context: PhantomData,
        }
    }

    /// What the timer is for: chooses the `#[timer]` handler. At most 255 bytes.
    pub fn tag(mut self, tag: &'a str) -> Self {
        self.tag = tag;
        self
    }

    /// Fires again at this period, at least 10 ms.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    /// Outlives the instance, an eviction and the daemon: when it was due while no daemon ran, it fires once after the next start.
    /// A new instance finds it with [`Context::timers`](crate::Context::timers).
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Records the timer and returns its port, for [`Context::cancel`](crate::Context::cancel).
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn set(self) -> Result<PortId, TimerError> {
        let set = if self.durable {
            sys::timer::set_durable
        } else {
            sys::timer::set
        };
        Ok(set(millis(self.after), self.every.map(millis), self.tag)?)
    }
}
