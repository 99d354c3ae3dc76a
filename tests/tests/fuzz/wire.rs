//! Targets that need only what is shared with clients and guests. They are compiled into `tests/fuzz` too, where coverage guides them.

use std::fmt::Debug;

use astrid_wire::authority::{Action, Capability, GroupsFile, Profile, is_resource};
use astrid_wire::control::Verb;
use astrid_wire::control::admin::{
    Admin, AgentCreate, AgentModify, Change, GroupCreate, GroupModify, Named, NamedGroup, Page, Question, QuotaSet,
    UsageGet,
};
use astrid_wire::control::audit::{Nothing, Prune};
use astrid_wire::control::workspace;
use astrid_wire::envelope::{decode_client, decode_server};
use astrid_wire::frame::{FrameDecoder, HEADER_BYTES, encode};
use astrid_wire::manifest::{Manifest, ManifestError};
use astrid_wire::{Pattern, Topic};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of an error at most: what is wrong, and a piece of what was written.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// Matching by its definition: recursion over segments.
fn naive(pattern: &[&str], resource: &[&str]) -> bool {
    match (pattern, resource) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, resource @ ..]) => naive(pattern, resource),
        ([mine, pattern @ ..], [theirs, resource @ ..]) => mine == theirs && naive(pattern, resource),
        _ => false,
    }
}

fn naive_matches(pattern: &str, resource: &str) -> bool {
    let cut = |text: &'_ str| -> Vec<String> {
        match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(str::to_owned).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        }
    };
    let (mine, theirs) = (cut(pattern), cut(resource));
    let (mine, theirs): (Vec<&str>, Vec<&str>) = (
        mine.iter().map(String::as_str).collect(),
        theirs.iter().map(String::as_str).collect(),
    );
    pattern.starts_with('/') == resource.starts_with('/') && naive(&mine, &theirs)
}

/// Input: a capability, and on the next lines another one and a resource.
pub(crate) fn capability(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let (one, other, asked) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or("a.b"),
    );
    let one = match one.parse::<Capability>() {
        Ok(capability) => {
            assert_eq!(capability.to_string(), one, "it is written as it was read");
            let json = serde_json::to_string(&capability).expect("JSON");
            assert_eq!(serde_json::from_str::<Capability>(&json).expect("the same"), capability);
            assert!(capability.covers(&capability) && Capability::Everything.covers(&capability));
            capability
        }
        Err(error) => {
            let says = error.to_string();
            assert!(
                says.len() < ERROR_BYTES_MAX && !says.chars().any(char::is_control),
                "{says:?}"
            );
            return;
        }
    };
    let expected = is_resource(asked)
        && match one.resource() {
            Some(set) => naive_matches(set.as_str(), asked),
            None => true,
        };
    for action in Action::ALL {
        let about = one.action().is_none_or(|mine| mine == action);
        assert_eq!(one.allows(action, Some(asked)), about && expected, "{action}");
    }
    if let Ok(other) = other.parse::<Capability>() {
        for action in Action::ALL {
            if one.covers(&other) && other.allows(action, Some(asked)) {
                assert!(one.allows(action, Some(asked)), "it covers the other");
            }
        }
        if one.covers(&other) && other.covers(&one) {
            assert_eq!(one.action(), other.action());
        }
    }
    if let (Ok(pattern), Ok(topic)) = (one.to_string().parse::<Pattern>(), asked.parse::<Topic>()) {
        assert_eq!(pattern.matches(&topic), naive_matches(pattern.as_str(), topic.as_str()));
    }
}

fn located(text: &str, error: &toml::de::Error) {
    let error = ManifestError::from_toml(text, "x.toml", error);
    let lines = text.split('\n').count();
    match error.place() {
        Some((line, column)) => assert!((1..=lines).contains(&line) && column > 0, "{error}"),
        None => panic!("it does not say where: {error}"),
    }
}

fn document<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match toml::from_str::<T>(&text) {
        Ok(value) => {
            let written = toml::to_string(&value).expect("what was read can be written");
            assert_eq!(toml::from_str::<T>(&written).expect("and read"), value, "{written}");
        }
        Err(error) => located(&text, &error),
    }
}

/// Input: `etc/profiles/NAME.toml`.
pub(crate) fn profile(bytes: &[u8]) {
    document::<Profile>(bytes);
}

/// Input: `etc/groups.toml`.
pub(crate) fn groups(bytes: &[u8]) {
    document::<GroupsFile>(bytes);
}

fn body<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    match serde_json::from_slice::<T>(bytes) {
        Ok(value) => {
            let written = serde_json::to_vec(&value).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<T>(&written).expect("and read"), value);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Limits are any JSON until the kernel makes a quota of them, and a number that no limit can be may be rounded on its way.
fn quota(bytes: &[u8]) {
    let Ok(set) = serde_json::from_slice::<QuotaSet>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&set).expect("what was read can be written");
    let again = serde_json::from_slice::<QuotaSet>(&written).expect("and read");
    assert!(again.name == set.name && again.limits.keys().eq(set.limits.keys()));
}

/// Input: what comes after `astrid.v1.admin.`, and on the lines after it the body.
pub(crate) fn admin(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (verb, rest) = bytes.split_at(end);
    let topic = format!("astrid.v1.admin.{}", String::from_utf8_lossy(verb));
    let asked = topic.parse::<Topic>().ok().and_then(|topic| Admin::of(&topic));
    if let Some(admin) = asked {
        assert_eq!(admin.topic(), topic);
        let verb = Verb::of(&topic.parse().expect("a topic")).expect("a verb");
        assert_eq!(
            (verb, verb.name(), verb.operator_only()),
            (Verb::Admin(admin), admin.verb(), true)
        );
    }
    match asked {
        Some(Admin::AgentCreate) => body::<AgentCreate>(rest),
        Some(Admin::AgentModify) => body::<AgentModify>(rest),
        Some(Admin::AgentDelete | Admin::AgentEnable | Admin::AgentDisable | Admin::QuotaGet) => body::<Named>(rest),
        Some(Admin::AgentList | Admin::GroupList) => body::<Page>(rest),
        Some(Admin::GroupCreate) => body::<GroupCreate>(rest),
        Some(Admin::GroupModify) => body::<GroupModify>(rest),
        Some(Admin::GroupDelete) => body::<NamedGroup>(rest),
        Some(Admin::CapsGrant | Admin::CapsRevoke) => body::<Change>(rest),
        Some(Admin::CapsCheck | Admin::CapsExplain) => body::<Question>(rest),
        Some(Admin::QuotaSet) => quota(rest),
        Some(Admin::UsageGet) => body::<UsageGet>(rest),
        Some(Admin::UsageWatch | Admin::AuditStats | Admin::AuditVerify | Admin::AuditRotate) => body::<Nothing>(rest),
        Some(Admin::AuditPrune) => body::<Prune>(rest),
        Some(Admin::WorkspaceAttach) => body::<workspace::Attach>(rest),
        Some(Admin::WorkspaceDetach) => body::<workspace::Detach>(rest),
        Some(Admin::WorkspaceList) => body::<workspace::List>(rest),
        Some(Admin::WorkspaceDiff) => body::<workspace::Diff>(rest),
        Some(Admin::WorkspaceCommit) => body::<workspace::Commit>(rest),
        Some(Admin::WorkspaceRollback) => body::<workspace::Rollback>(rest),
        Some(Admin::WorkspaceSnapshot) => body::<workspace::Snapshot>(rest),
        None => assert!(Admin::ALL.iter().all(|admin| admin.topic() != topic)),
    }
}

/// Frames, in pieces and at once: the same payloads, and then the same error.
fn frames(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let cut = |piece: usize| {
        let mut decoder = FrameDecoder::new();
        let mut payloads = Vec::new();
        let mut failed = None;
        for piece in bytes.chunks(piece.max(1)) {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(payload)) => payloads.push(payload.to_vec()),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next(), Err(error), "it stays failed");
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        (payloads, failed)
    };
    let (payloads, failed) = cut(piece);
    assert_eq!((&payloads, failed), (&cut(bytes.len()).0, cut(bytes.len()).1));
    let written: Vec<u8> = payloads.iter().flat_map(|payload| encode(payload)).collect();
    assert!(bytes.starts_with(&written), "they are what was sent");
    payloads
}

/// Input: how many bytes arrive at once, and the bytes of a stream; each payload, and the stream itself, is an envelope of either side.
pub(crate) fn envelope(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else {
        return;
    };
    let mut payloads = frames(stream, usize::from(*piece));
    payloads.push(stream.to_vec());
    for payload in payloads {
        let sent = payload.len();
        match decode_client(payload.clone().into()) {
            Ok(frame) => {
                let again = frame.clone().into_frame();
                assert!(again.len() <= sent + HEADER_BYTES + 16, "it does not grow");
                assert_eq!(decode_client(again[HEADER_BYTES..].to_vec().into()), Ok(frame));
            }
            Err(error) => assert!(error.to_string().len() < ERROR_BYTES_MAX),
        }
        match decode_server(payload.into()) {
            Ok(frame) => {
                let again = frame.clone().into_frame();
                assert_eq!(decode_server(again[HEADER_BYTES..].to_vec().into()), Ok(frame));
            }
            Err(error) => assert!(error.to_string().len() < ERROR_BYTES_MAX),
        }
    }
}

/// Input: `Capsule.toml`.
pub(crate) fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Manifest::parse(&text, "Capsule.toml") {
        Ok(manifest) => {
            let written = toml::to_string(&manifest).expect("what was read can be written");
            assert_eq!(Manifest::parse(&written, "again").expect("and read"), manifest);
        }
        Err(error) => assert!(error.to_string().starts_with("Capsule.toml"), "{error}"),
    }
}
