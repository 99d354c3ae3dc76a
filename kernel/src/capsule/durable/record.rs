//! The forms of what is kept, as bytes on disk: protobuf messages, so that a field can be added and an older row still be read.

use astrid_wire::{Principal, Topic};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::bus::message::{Body, ContentType, Kind, Message, MessageId, PortId, Source};

/// A row that cannot be read: it was not written by this program, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the store is not what this program writes")]
pub struct Unreadable;

/// A message that waits to be handled, or was given up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageRecord {
    /// Of its identity.
    #[prost(fixed64, tag = "1")]
    pub boot: u64,
    /// Of its identity.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Where it was published.
    #[prost(string, tag = "3")]
    pub topic: String,
    /// On whose behalf.
    #[prost(string, tag = "4")]
    pub principal: String,
    /// Which capsule sent it; empty: the kernel, or a port.
    #[prost(string, tag = "5")]
    pub capsule: String,
    /// Which port of the receiver sent it; 0: none.
    #[prost(uint64, tag = "6")]
    pub port: PortId,
    /// Of its body.
    #[prost(string, tag = "7")]
    pub content_type: String,
    /// What it says.
    #[prost(bytes = "bytes", tag = "8")]
    pub body: Bytes,
    /// Whether every principal may hear it.
    #[prost(bool, tag = "9")]
    pub public: bool,
    /// Times that handling it was begun and failed.
    #[prost(uint32, tag = "10")]
    pub attempts: u32,
    /// Of those, the faults.
    #[prost(uint32, tag = "11")]
    pub faults: u32,
}

/// A message that was given up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeadRecord {
    /// The message.
    #[prost(message, required, tag = "1")]
    pub message: MessageRecord,
    /// Why, for programs: a problem code.
    #[prost(string, tag = "2")]
    pub code: String,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// When, in milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub died_at_ms: u64,
}

/// A durable timer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimerRecord {
    /// When it fires next, in milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub due_ms: u64,
    /// Milliseconds of its period; 0: it fires once.
    #[prost(uint64, tag = "2")]
    pub every_ms: u64,
    /// What its owner calls it.
    #[prost(string, tag = "3")]
    pub tag: String,
    /// Whose it is.
    #[prost(string, tag = "4")]
    pub principal: String,
}

/// An ask of a durable handling, whose outcome was not handled yet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskRecord {
    /// Where it is asked.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// On whose behalf.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// Of its body.
    #[prost(string, tag = "3")]
    pub content_type: String,
    /// What it says.
    #[prost(bytes = "bytes", tag = "4")]
    pub body: Bytes,
    /// How long it waits, from each time that it is asked, in milliseconds.
    #[prost(uint64, tag = "5")]
    pub timeout_ms: u64,
}

/// What a capsule hears durably.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscriptionsRecord {
    /// Version of the capsule.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Whether each principal has an actor of it.
    #[prost(bool, tag = "2")]
    pub principal_scope: bool,
    /// How many system actors it has.
    #[prost(uint32, tag = "3")]
    pub instances: u32,
    /// Its durable subscriptions.
    #[prost(message, repeated, tag = "4")]
    pub lanes: Vec<LaneRecord>,
}

/// One durable subscription.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LaneRecord {
    /// What is heard.
    #[prost(string, tag = "1")]
    pub pattern: String,
    /// Messages that may wait.
    #[prost(uint32, tag = "2")]
    pub capacity: u32,
}

impl MessageRecord {
    /// A message's form.
    pub fn of(message: &Message) -> Self {
        let (capsule, port) = match &message.source {
            Source::Kernel => (String::new(), 0),
            Source::Capsule(name) => (name.to_string(), 0),
            Source::Port(port) => (String::new(), *port),
        };
        Self {
            boot: message.id.boot,
            sequence: message.id.sequence,
            topic: message.topic.as_str().to_owned(),
            principal: message.principal.as_str().to_owned(),
            capsule,
            port,
            content_type: message.body.content_type.as_str().to_owned(),
            body: message.body.bytes.clone(),
            public: message.public,
            attempts: 0,
            faults: 0,
        }
    }

    /// The message.
    ///
    /// # Errors
    /// A field is not what it should be.
    pub fn message(&self) -> Result<Message, Unreadable> {
        let source = match (self.capsule.as_str(), self.port) {
            ("", 0) => Source::Kernel,
            ("", port) => Source::Port(port),
            (name, _) => Source::Capsule(name.into()),
        };
        Ok(Message {
            id: MessageId {
                boot: self.boot,
                sequence: self.sequence,
            },
            kind: Kind::Event,
            topic: topic(&self.topic)?,
            principal: principal(&self.principal)?,
            source,
            body: body(&self.content_type, &self.body)?,
            deadline: None,
            public: self.public,
        })
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are not one.
    pub fn read(bytes: Bytes) -> Result<Self, Unreadable> {
        Self::decode(bytes).map_err(|_| Unreadable)
    }
}

/// A topic that was kept.
///
/// # Errors
/// It is none.
pub fn topic(text: &str) -> Result<Topic, Unreadable> {
    text.parse().map_err(|_| Unreadable)
}

/// A principal that was kept.
///
/// # Errors
/// It is none.
pub fn principal(text: &str) -> Result<Principal, Unreadable> {
    Principal::stamped(text).map_err(|_| Unreadable)
}

/// A body that was kept.
///
/// # Errors
/// Its content type is none.
pub fn body(content_type: &str, bytes: &Bytes) -> Result<Body, Unreadable> {
    Ok(Body {
        content_type: ContentType::parse(content_type).ok_or(Unreadable)?,
        bytes: bytes.clone(),
    })
}

/// Bytes of an inbox key: a row number, which orders, and how much its body weighs.
const INBOX_KEY_BYTES: usize = 12;

/// The key of a message in its receiver's inbox.
pub fn inbox_key(row: u64, body_bytes: usize) -> Bytes {
    let mut key = BytesMut::with_capacity(INBOX_KEY_BYTES);
    key.put_u64(row);
    key.put_u32(u32::try_from(body_bytes).unwrap_or(u32::MAX));
    key.freeze()
}

/// The row number and the weight in an inbox key.
///
/// # Errors
/// It is no inbox key.
pub fn read_inbox_key(key: &[u8]) -> Result<(u64, u32), Unreadable> {
    let (row, weight) = key.split_at_checked(8).ok_or(Unreadable)?;
    let row = row.try_into().map(u64::from_be_bytes).map_err(|_| Unreadable)?;
    let weight = weight.try_into().map(u32::from_be_bytes).map_err(|_| Unreadable)?;
    Ok((row, weight))
}

/// The key of anything that has one number.
pub fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number in such a key.
///
/// # Errors
/// It is no such key.
pub fn read_number_key(key: &[u8]) -> Result<u64, Unreadable> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        for source in [Source::Kernel, Source::Capsule("notes".into()), Source::Port(7)] {
            let message = Message {
                id: MessageId {
                    boot: u64::MAX,
                    sequence: 3,
                },
                kind: Kind::Event,
                topic: "a.v1.b".parse().unwrap(),
                principal: Principal::default_owner(),
                source,
                body: Body::json(&serde_json::json!({ "a": 1 })),
                deadline: None,
                public: true,
            };
            let bytes = MessageRecord::of(&message).to_bytes();
            let back = MessageRecord::read(bytes).unwrap().message().unwrap();
            assert_eq!(format!("{message:?}"), format!("{back:?}"));
            assert_eq!(message.body.bytes, back.body.bytes);
        }
        assert_eq!(MessageRecord::read(Bytes::from_static(b"\xff\xff")), Err(Unreadable));
        assert_eq!(MessageRecord::default().message().unwrap_err(), Unreadable);
    }

    #[test]
    fn keys_order_as_numbers() {
        assert!(inbox_key(255, 9) < inbox_key(256, 1));
        assert_eq!(read_inbox_key(&inbox_key(7, 12)), Ok((7, 12)));
        assert_eq!(read_number_key(&number_key(9)), Ok(9));
        assert_eq!(read_inbox_key(b"x"), Err(Unreadable));
    }
}
