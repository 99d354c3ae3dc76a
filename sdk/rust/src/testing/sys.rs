//! The kernel's functions, answered by the fake host of this thread. Signatures as `wit-bindgen` makes them.

use std::cell::RefCell;

use super::host::Host;

thread_local! {
    /// The host of the harness that is running a handler; between them, one that nobody looks at.
    static HOST: RefCell<Host> = RefCell::default();
}

/// Runs with the host of this thread.
fn host<T>(run: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(run)
}

/// Makes a host the one of this thread until this is dropped, also by a panic.
pub(super) struct Entered<'a>(&'a mut Host);

impl<'a> Entered<'a> {
    pub(super) fn new(entering: &'a mut Host) -> Self {
        host(|host| std::mem::swap(host, entering));
        Self(entering)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        host(|host| std::mem::swap(host, self.0));
    }
}

pub(crate) mod bus {
    use super::host;
    use crate::bindings::astrid::kernel::bus::{Answer, PublishError, ReplyError, RequestError, SubscribeError};
    use crate::bindings::astrid::kernel::types::{Problem, ReplyTo};
    use crate::body::Body;

    fn body(content_type: &str, bytes: &[u8]) -> Body {
        Body::new(content_type.to_owned(), bytes)
    }

    pub(crate) fn publish(topic: &str, content_type: &str, bytes: &[u8]) -> Result<u32, PublishError> {
        host(|host| host.publish(topic, body(content_type, bytes)))
    }

    pub(crate) fn publish_once(id: &str, topic: &str, content_type: &str, bytes: &[u8]) -> Result<u32, PublishError> {
        host(|host| host.publish_once(id, topic, body(content_type, bytes)))
    }

    pub(crate) fn ask(
        topic: &str,
        content_type: &str,
        bytes: &[u8],
        timeout_ms: Option<u32>,
    ) -> Result<u32, PublishError> {
        host(|host| host.ask(topic, body(content_type, bytes), timeout_ms))
    }

    pub(crate) fn reply(to: ReplyTo, content_type: &str, bytes: &[u8]) -> Result<u32, ReplyError> {
        host(|host| host.reply(to, body(content_type, bytes)))
    }

    pub(crate) fn refuse(to: ReplyTo, problem: &Problem) -> Result<u32, ReplyError> {
        host(|host| host.refuse(to, problem.clone()))
    }

    pub(crate) fn request(
        topic: &str,
        content_type: &str,
        bytes: &[u8],
        _: Option<u32>,
    ) -> Result<Answer, RequestError> {
        let body = body(content_type, bytes);
        let mut responder = host(|host| host.responder(topic, &body))?;
        // The test's code runs without the host, which it may use itself.
        let answer = (responder.answer)(&body);
        host(|host| host.return_responder(responder));
        match answer {
            Ok(body) => Ok(Answer {
                content_type: body.content_type.into_owned(),
                body: body.bytes,
            }),
            Err(problem) => Err(RequestError::Refused((&problem).into())),
        }
    }

    pub(crate) fn emit(topic: &str, content_type: &str, bytes: &[u8]) -> Result<(), PublishError> {
        host(|host| host.emit(topic, body(content_type, bytes)))
    }

    pub(crate) fn subscribe(pattern: &str) -> Result<(), SubscribeError> {
        host(|host| host.subscribe(pattern))
    }

    pub(crate) fn unsubscribe(pattern: &str) -> bool {
        host(|host| host.unsubscribe(pattern))
    }
}

pub(crate) mod kv {
    use super::host;
    use crate::bindings::astrid::kernel::kv::{KvError, Page};

    pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        host(|host| host.kv_get(key))
    }

    pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<(), KvError> {
        host(|host| host.kv_write(key, Some(value)))
    }

    pub(crate) fn delete(key: &[u8]) -> Result<(), KvError> {
        host(|host| host.kv_write(key, None))
    }

    pub(crate) fn compare_and_swap(key: &[u8], expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, KvError> {
        host(|host| host.kv_swap(key, expected, value))
    }

    pub(crate) fn scan(start: &[u8], end: Option<&[u8]>, limit: u32, backwards: bool) -> Result<Page, KvError> {
        host(|host| host.kv_scan(start, end, limit, backwards))
    }
}

pub(crate) mod actor {
    use super::host;
    use crate::bindings::astrid::kernel::actor::ActorError;

    pub(crate) fn pin() -> Result<(), ActorError> {
        host(|host| host.pin(true))
    }

    pub(crate) fn unpin() -> Result<(), ActorError> {
        host(|host| host.pin(false))
    }
}

pub(crate) mod log {
    use super::host;
    use crate::bindings::astrid::kernel::log::Level;

    pub(crate) fn write(level: Level, message: &str, fields: &[(String, String)]) {
        host(|host| host.log(level, message, fields));
    }
}

pub(crate) mod clock {
    use super::host;

    pub(crate) fn wall_ms() -> u64 {
        host(|host| host.wall_ms())
    }

    pub(crate) fn monotonic_ns() -> u64 {
        host(|host| host.monotonic_ns())
    }
}

pub(crate) mod random {
    use super::host;
    use crate::bindings::astrid::kernel::random::RandomError;

    pub(crate) fn bytes(count: u32) -> Result<Vec<u8>, RandomError> {
        host(|host| host.random_bytes(count))
    }

    pub(crate) fn number() -> u64 {
        host(|host| host.random())
    }
}

pub(crate) mod timer {
    use super::host;
    use crate::bindings::astrid::kernel::timer::{Armed, TimerError};
    use crate::bindings::astrid::kernel::types::PortId;

    pub(crate) fn set(after_ms: u64, every_ms: Option<u64>, tag: &str) -> Result<PortId, TimerError> {
        host(|host| host.set_timer(after_ms, every_ms, tag, false))
    }

    pub(crate) fn set_durable(after_ms: u64, every_ms: Option<u64>, tag: &str) -> Result<PortId, TimerError> {
        host(|host| host.set_timer(after_ms, every_ms, tag, true))
    }

    pub(crate) fn list_set() -> Vec<Armed> {
        host(|host| host.list_timers())
    }

    pub(crate) fn cancel(timer: PortId) -> bool {
        host(|host| host.cancel_timer(timer))
    }
}

pub(crate) mod port {
    use super::host;
    use crate::bindings::astrid::kernel::port::PortError;
    use crate::bindings::astrid::kernel::types::PortId;

    pub(crate) fn write(port: PortId, bytes: &[u8]) -> Result<u32, PortError> {
        host(|host| host.write(port, bytes))
    }

    pub(crate) fn close(port: PortId) -> Result<u32, PortError> {
        host(|host| host.close(port))
    }
}

pub(crate) mod connection {
    use super::host;
    use crate::bindings::astrid::kernel::connection::{AuthenticateError, PeerError, PeerInfo};

    pub(crate) fn peer() -> Result<PeerInfo, PeerError> {
        host(|host| host.peer())
    }

    pub(crate) fn challenge(claim: &str) -> Result<Vec<u8>, AuthenticateError> {
        host(|host| host.challenge(claim))
    }

    pub(crate) fn authenticate(credential: &[u8]) -> Result<String, AuthenticateError> {
        host(|host| host.authenticate(credential))
    }
}

pub(crate) mod child {
    use super::host;
    use crate::bindings::astrid::kernel::child::{ChildError, Reach, Signal, SpawnError, Spec, TailError, Usage};
    use crate::bindings::astrid::kernel::types::PortId;

    pub(crate) fn spawn(spec: &Spec) -> Result<PortId, SpawnError> {
        host(|host| host.spawn(spec))
    }

    pub(crate) fn send_signal(child: PortId, signal: Signal, reach: Reach) -> Result<u32, ChildError> {
        host(|host| host.signal(child, signal, reach))
    }

    pub(crate) fn write(child: PortId, bytes: &[u8]) -> Result<u32, ChildError> {
        host(|host| host.write_input(child, bytes))
    }

    pub(crate) fn close_input(child: PortId) -> Result<u32, ChildError> {
        host(|host| host.close_input(child))
    }

    pub(crate) fn measure(child: PortId) -> Result<Usage, ChildError> {
        host(|host| host.measure(child))
    }

    pub(crate) fn tail(name: &str, lines: u32) -> Result<Vec<u8>, TailError> {
        host(|host| host.tail(name, lines))
    }

    pub(crate) fn log_path(name: &str) -> Result<String, TailError> {
        host(|host| host.log_path(name))
    }
}

pub(crate) mod document {
    use super::host;
    use crate::bindings::astrid::kernel::document::DocumentError;

    pub(crate) fn read(name: &str) -> Result<Option<String>, DocumentError> {
        host(|host| host.read_document(name))
    }

    pub(crate) fn replace(name: &str, was: Option<&str>, text: &str) -> Result<(), DocumentError> {
        host(|host| host.replace_document(name, was, text))
    }
}

pub(crate) mod fs {
    use super::host;
    use crate::bindings::astrid::kernel::fs::{Entry, Expected, FsError, Meta, OpenOptions};
    use crate::bindings::astrid::kernel::types::PortId;

    /// A handle, by its number; closed when it is dropped.
    #[derive(Debug)]
    pub(crate) struct File(u64);

    impl File {
        pub(crate) fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>, FsError> {
            host(|host| host.fs_read(self.0, offset, length))
        }

        pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
            host(|host| host.fs_write(self.0, offset, bytes))
        }

        pub(crate) fn stat(&self) -> Result<Meta, FsError> {
            host(|host| host.fs_stat_open(self.0))
        }

        pub(crate) fn set_length(&self, length: u64) -> Result<(), FsError> {
            host(|host| host.fs_set_length(self.0, length))
        }

        pub(crate) fn sync(&self) -> Result<(), FsError> {
            host(|host| host.fs_sync(self.0))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            host(|host| host.fs_close(self.0));
        }
    }

    /// As [`File`].
    #[derive(Debug)]
    pub(crate) struct Dir(u64);

    impl Dir {
        pub(crate) fn next(&self, max: u32) -> Result<Vec<Entry>, FsError> {
            host(|host| host.fs_next(self.0, max))
        }

        pub(crate) fn passed_over(&self) -> u64 {
            host(|host| host.fs_passed_over(self.0))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            host(|host| host.fs_close(self.0));
        }
    }

    pub(crate) fn open(path: &str, options: OpenOptions) -> Result<File, FsError> {
        host(|host| host.fs_open(path, options)).map(File)
    }

    pub(crate) fn open_dir(path: &str, after: Option<&str>) -> Result<Dir, FsError> {
        host(|host| host.fs_open_dir(path, after)).map(Dir)
    }

    pub(crate) fn stat(path: &str, follow: bool) -> Result<Meta, FsError> {
        host(|host| host.fs_stat(path, follow))
    }

    pub(crate) fn hash(path: &str) -> Result<String, FsError> {
        host(|host| host.fs_hash(path))
    }

    pub(crate) fn replace(path: &str, bytes: &[u8], expected: &Expected) -> Result<String, FsError> {
        host(|host| host.fs_replace(path, bytes, expected))
    }

    pub(crate) fn make_dir(path: &str, parents: bool) -> Result<(), FsError> {
        host(|host| host.fs_make_dir(path, parents))
    }

    pub(crate) fn remove(path: &str, recursive: bool) -> Result<(), FsError> {
        host(|host| host.fs_remove(path, recursive))
    }

    pub(crate) fn rename(source: &str, target: &str, overwrite: bool) -> Result<(), FsError> {
        host(|host| host.fs_rename(source, target, overwrite))
    }

    pub(crate) fn read_link(path: &str) -> Result<String, FsError> {
        host(|host| host.fs_read_link(path))
    }

    pub(crate) fn make_link(path: &str, target: &str) -> Result<(), FsError> {
        host(|host| host.fs_make_link(path, target))
    }

    pub(crate) fn set_modified(path: &str, modified_ms: i64) -> Result<(), FsError> {
        host(|host| host.fs_set_modified(path, modified_ms))
    }

    pub(crate) fn set_mode(path: &str, mode: u32) -> Result<(), FsError> {
        host(|host| host.fs_set_mode(path, mode))
    }

    pub(crate) fn watch(path: &str) -> Result<PortId, FsError> {
        host(|host| host.fs_watch(path))
    }

    pub(crate) fn unwatch(watch: PortId) -> bool {
        host(|host| host.fs_unwatch(watch))
    }
}

pub(crate) mod blob {
    use super::host;
    use crate::bindings::astrid::kernel::blob::{BlobError, Progress};

    pub(crate) fn begin(size: u64, expected: Option<&str>) -> Result<u64, BlobError> {
        host(|host| host.blob_begin(size, expected))
    }

    pub(crate) fn append(upload: u64, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        host(|host| host.blob_append(upload, offset, bytes))
    }

    pub(crate) fn status(upload: u64) -> Result<Progress, BlobError> {
        host(|host| host.blob_status(upload))
    }

    pub(crate) fn finish(upload: u64) -> Result<String, BlobError> {
        host(|host| host.blob_finish(upload))
    }

    pub(crate) fn abort(upload: u64) -> Result<(), BlobError> {
        host(|host| host.blob_abort(upload))
    }

    pub(crate) fn size(address: &str) -> Result<u64, BlobError> {
        host(|host| host.blob_size(address))
    }

    pub(crate) fn read(address: &str, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        host(|host| host.blob_read(address, offset, length))
    }

    pub(crate) fn release(address: &str) -> Result<(), BlobError> {
        host(|host| host.blob_release(address))
    }
}
