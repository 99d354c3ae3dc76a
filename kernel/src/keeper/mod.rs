//! stub
mod mark;
pub mod protocol;
mod tree;
pub use tree::{Usage, is_descendant, usage};

#[allow(missing_docs)]
pub enum Earlier {
    None,
    Swept(usize),
    Ending,
    Adopting(protocol::Connection),
}
#[allow(missing_docs)]
pub fn earlier(_: &crate::home::Home) -> std::io::Result<Earlier> {
    Ok(Earlier::None)
}
#[allow(missing_docs)]
pub fn start(
    _: &crate::home::Home,
    _: &std::path::Path,
    _: std::time::Duration,
) -> std::io::Result<(protocol::Connection, std::process::Child)> {
    Err(std::io::Error::other("stub"))
}
#[allow(missing_docs)]
pub fn wait_for_guard(_: std::process::Child, _: std::time::Duration) -> std::io::Result<()> {
    Ok(())
}
#[allow(missing_docs)]
pub fn sweep(home: &crate::home::Home) -> std::io::Result<usize> {
    Ok(mark::sweep(home))
}
