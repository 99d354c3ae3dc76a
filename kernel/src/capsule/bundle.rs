//! A bundle: what a `.capsule` file is. One WebAssembly component whose two custom sections say what it is:
//! `astrid:manifest` (the text of `Capsule.toml`) and `astrid:describe` (the JSON that `describe` gave when the
//! bundle was made). Nothing is unpacked, and the hash of the file is the hash of everything that is in it.
//!
//! Reading one looks at its outline only: sections, imports, exports. Code is validated when it is compiled, in a
//! process of its own ([`super::aot`]).
//!
//! The imports are held against the manifest here: a component that does not say in its manifest that it sets timers
//! cannot even import them, so what an operator reads in the manifest is all it could do.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use astrid_wire::control;
use astrid_wire::describe::{DESCRIPTION_BYTES_MAX, DescribeError, Description};
use astrid_wire::manifest::{DOCUMENT_BYTES_MAX, Manifest, ManifestError};
use bytes::Bytes;
use wasmparser::{Chunk, ComponentTypeRef, Encoding, Parser, Payload};

/// Most bytes of a bundle: several times the largest guest that is known to run (an embedded interpreter).
pub const BUNDLE_BYTES_MAX: usize = 64 << 20;

/// Most imports and exports of a component, each. The kernel offers ten.
const NAMES_MAX: usize = 64;

/// Most sections at the top of a component. What compilers make has some dozens.
const SECTIONS_MAX: usize = 10_000;

/// The section with the text of `Capsule.toml`.
pub const MANIFEST_SECTION: &str = "astrid:manifest";

/// The section with the JSON of `describe`.
pub const DESCRIBE_SECTION: &str = "astrid:describe";

/// What every capsule exports.
const EXPORTS: [&str; 2] = ["describe", "handle"];

/// What a capsule exports besides if it guards topics.
const GUARD_EXPORT: &str = "guard";

/// The package whose interfaces a component may import, and the version that is offered.
const PACKAGE: &str = "astrid:kernel/";
const PACKAGE_VERSION: semver::Version = semver::Version::new(0, 1, 0);

/// Interfaces of the package, and the capability that importing one needs.
const INTERFACES: [(&str, Option<&str>); 14] = [
    ("types", None),
    ("bus", None),
    ("log", None),
    ("clock", None),
    ("random", None),
    ("timer", Some("timer")),
    ("port", Some("listen")),
    ("connection", Some("listen")),
    ("child", Some("child")),
    ("document", Some("document")),
    ("fs", Some("fs")),
    ("kv", Some("kv")),
    ("blob", Some("kv")),
    ("actor", Some("pin")),
];

/// Why bytes are not a bundle. Whoever made it is to blame.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BundleError {
    /// Over [`BUNDLE_BYTES_MAX`].
    #[error("it has {bytes} bytes, the limit is {BUNDLE_BYTES_MAX}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A core module, as compilers leave it.
    #[error("it is a core WebAssembly module, not a component")]
    NotAComponent,
    /// Not WebAssembly, or cut short.
    #[error("it is not a WebAssembly component: {reason} (at byte {offset})")]
    Malformed {
        /// What the parser says.
        reason: String,
        /// Where.
        offset: u64,
    },
    /// More of something than anything real has.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A section of ours is not there.
    #[error("it has no section `{0}`")]
    Missing(&'static str),
    /// A section of ours is there twice.
    #[error("it has the section `{0}` twice")]
    Twice(&'static str),
    /// The manifest is not text.
    #[error("its manifest is not UTF-8 text")]
    NotText,
    /// The manifest is wrong.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// The description is wrong.
    #[error("{reason}")]
    Description {
        /// What is wrong with it.
        reason: String,
    },
    /// It does not export what a capsule exports.
    #[error("it does not export the function `{0}`")]
    NoExport(&'static str),
    /// It guards by its manifest, and has nothing to be asked.
    #[error("its manifest has `capabilities.guard`, but it does not export the function `guard`")]
    NoGuard,
    /// It could be asked, and its manifest does not say about what.
    #[error("it exports the function `guard`, but its manifest does not have `capabilities.guard`")]
    GuardNotAsked,
    /// It imports what the kernel does not offer.
    #[error("it imports `{name}`, which the kernel does not offer")]
    UnknownImport {
        /// The import's name.
        name: String,
    },
    /// It imports what its manifest does not ask for.
    #[error("it imports `{name}`, but its manifest does not have `capabilities.{capability}`")]
    NotAsked {
        /// The import's name.
        name: String,
        /// What the manifest would have to say.
        capability: &'static str,
    },
}

impl BundleError {
    /// What its maker could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            BundleError::NotAComponent | BundleError::Missing(_) | BundleError::NoExport(_) => {
                Some("make bundles with `astrid capsule build`".to_owned())
            }
            BundleError::NoGuard => {
                Some("put `#[guard]` on a function of the capsule, or take the line out".to_owned())
            }
            BundleError::GuardNotAsked => Some(
                "add `guard = { allow = [\"TOPIC\"], reason = \"...\" }` under [capabilities], or take `#[guard]` out"
                    .to_owned(),
            ),
            BundleError::Manifest(error) => error.hint().map(str::to_owned),
            BundleError::UnknownImport { name } if name.starts_with("wasi:") => {
                Some("build for wasm32-unknown-unknown; there is no WASI here".to_owned())
            }
            BundleError::UnknownImport { name } if name.starts_with(PACKAGE) => Some(format!(
                "this kernel offers astrid:kernel@{PACKAGE_VERSION}; build against that"
            )),
            BundleError::NotAsked { capability, .. } => Some(format!(
                "add `[capabilities.{capability}]` with a reason, or do not use it"
            )),
            _ => None,
        }
    }
}

impl From<DescribeError> for BundleError {
    fn from(error: DescribeError) -> BundleError {
        BundleError::Description {
            reason: error.to_string(),
        }
    }
}

/// Where a bundle was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the binary.
    Embedded,
    /// A file in a directory named for development.
    Directory(PathBuf),
    /// A file in the home's `capsules/`.
    Home(PathBuf),
}

impl Origin {
    /// As status reports it.
    #[must_use]
    pub const fn kind(&self) -> control::Origin {
        match self {
            Origin::Embedded => control::Origin::Embedded,
            Origin::Directory(_) => control::Origin::Directory,
            Origin::Home(_) => control::Origin::Home,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Embedded => f.write_str("built in"),
            Origin::Directory(path) | Origin::Home(path) => path.display().fmt(f),
        }
    }
}

/// A bundle whose outline was read and checked. Cheap to clone but for the manifest.
#[derive(Clone)]
pub struct Bundle {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The same, as it was written.
    pub manifest_text: String,
    /// Its topics and their schemas.
    pub description: Description,
    /// The whole file.
    pub component: Bytes,
    /// BLAKE3 of the file.
    pub hash: blake3::Hash,
    /// Where it was found.
    pub origin: Origin,
    /// Its compiled form for the least processor supported, when it came with one. Only ever from this binary.
    pub precompiled: Option<&'static [u8]>,
    /// Names of what the component imports.
    imports: BTreeSet<String>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("name", &self.manifest.name())
            .field("version", &self.manifest.package.version)
            .field("hash", &self.hash)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads a bundle's outline, manifest and description, and checks that it exports what a capsule exports and
    /// imports no more than its manifest asks for.
    ///
    /// # Errors
    ///
    /// Anything that [`BundleError`] names.
    pub fn parse(component: Bytes, origin: Origin) -> Result<Bundle, BundleError> {
        let outline = outline(&component)?;
        let text = outline.manifest.ok_or(BundleError::Missing(MANIFEST_SECTION))?;
        let manifest_text = std::str::from_utf8(text).map_err(|_| BundleError::NotText)?.to_owned();
        let manifest = Manifest::parse(&manifest_text, "Capsule.toml")?;
        let description = Description::parse(outline.describe.ok_or(BundleError::Missing(DESCRIBE_SECTION))?)?;
        if let Some(missing) = EXPORTS.into_iter().find(|name| !outline.exports.contains(*name)) {
            return Err(BundleError::NoExport(missing));
        }
        match (
            manifest.capabilities.guard.is_some(),
            outline.exports.contains(GUARD_EXPORT),
        ) {
            (true, false) => return Err(BundleError::NoGuard),
            (false, true) => return Err(BundleError::GuardNotAsked),
            _ => {}
        }
        check_imports(&outline.imports, &manifest)?;
        let (hash, imports) = (blake3::hash(&component), outline.imports);
        Ok(Bundle {
            manifest,
            manifest_text,
            description,
            component,
            hash,
            origin,
            precompiled: None,
            imports,
        })
    }

    /// The capsule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.manifest.name()
    }

    /// Names of what the component imports, as `astrid:kernel/bus@0.1.0`.
    pub fn imports(&self) -> impl Iterator<Item = &str> {
        self.imports.iter().map(String::as_str)
    }

    /// The bundle with its compiled form, which must be what [`super::aot::precompile`] made of this very component.
    #[must_use]
    pub(super) fn with_precompiled(mut self, code: Option<&'static [u8]>) -> Bundle {
        self.precompiled = code;
        self
    }
}

/// Makes a bundle of a component, its manifest and its description. Both are checked; what the sections of an earlier
/// bundle said is not allowed to stay.
///
/// # Errors
///
/// The component has those sections already, or the result is not a bundle.
pub fn assemble(component: &[u8], manifest_text: &str, describe_json: &str) -> Result<Vec<u8>, BundleError> {
    let mut bundle = component.to_vec();
    append_section(&mut bundle, MANIFEST_SECTION, manifest_text.as_bytes());
    append_section(&mut bundle, DESCRIBE_SECTION, describe_json.as_bytes());
    let bundle = Bytes::from(bundle);
    Bundle::parse(bundle.clone(), Origin::Embedded)?;
    Ok(bundle.into())
}

/// Appends a custom section: id 0, the length of the rest, the length of the name, the name, the content.
fn append_section(wasm: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut named = Vec::with_capacity(name.len() + 1);
    leb128(&mut named, name.len());
    named.extend_from_slice(name.as_bytes());
    wasm.push(0);
    leb128(wasm, named.len() + content.len());
    wasm.extend_from_slice(&named);
    wasm.extend_from_slice(content);
}

/// Appends a number as WebAssembly writes unsigned ones: seven bits a byte, the lowest first.
fn leb128(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// What stands at the top of a component.
#[derive(Default)]
struct Outline<'a> {
    manifest: Option<&'a [u8]>,
    describe: Option<&'a [u8]>,
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl From<wasmparser::BinaryReaderError> for BundleError {
    fn from(error: wasmparser::BinaryReaderError) -> BundleError {
        BundleError::Malformed {
            reason: error.message().to_owned(),
            offset: error.offset(),
        }
    }
}

/// Reads the sections at the top; what is nested in them is skipped.
fn outline(component: &[u8]) -> Result<Outline<'_>, BundleError> {
    if component.len() > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { bytes: component.len() });
    }
    let mut outline = Outline::default();
    let mut parser = Parser::new(0);
    let mut rest = component;
    let mut sections = 0;
    loop {
        let (consumed, payload) = match parser.parse(rest, true)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            // Not said for whole input; treated as what it would mean.
            Chunk::NeedMoreData(_) => {
                return Err(BundleError::Malformed {
                    reason: "unexpected end".to_owned(),
                    offset: component.len() as u64,
                });
            }
        };
        let mut skip = 0;
        match payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } => return Err(BundleError::NotAComponent),
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                // A length that does not fit points behind the end, as any that is too long does.
                skip = usize::try_from(unchecked_range.end - unchecked_range.start).unwrap_or(usize::MAX);
            }
            Payload::CustomSection(section) => {
                let (slot, name, limit) = match section.name() {
                    MANIFEST_SECTION => (&mut outline.manifest, MANIFEST_SECTION, DOCUMENT_BYTES_MAX),
                    DESCRIBE_SECTION => (&mut outline.describe, DESCRIBE_SECTION, DESCRIPTION_BYTES_MAX),
                    _ => (&mut None, "", usize::MAX),
                };
                if section.data().len() > limit {
                    return Err(BundleError::TooMany {
                        what: "bytes in a section of ours",
                        limit,
                    });
                }
                if slot.replace(section.data()).is_some() {
                    return Err(BundleError::Twice(name));
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import?;
                    // A type by itself gives no access to anything.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        add_name(&mut outline.imports, &import.name.full_name(), "imports")?;
                    }
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    let is_function = export.kind == wasmparser::ComponentExternalKind::Func
                        || matches!(export.ty, Some(ComponentTypeRef::Func(_)));
                    if is_function {
                        add_name(&mut outline.exports, &export.name.full_name(), "exports")?;
                    }
                }
            }
            Payload::End(_) => return Ok(outline),
            _ => {}
        }
        sections += 1;
        if sections > SECTIONS_MAX {
            return Err(BundleError::TooMany {
                what: "sections",
                limit: SECTIONS_MAX,
            });
        }
        rest = rest
            .get(consumed.saturating_add(skip)..)
            .ok_or_else(|| BundleError::Malformed {
                reason: "unexpected end".to_owned(),
                offset: component.len() as u64,
            })?;
    }
}

fn add_name(names: &mut BTreeSet<String>, name: &str, what: &'static str) -> Result<(), BundleError> {
    names.insert(name.to_owned());
    if names.len() > NAMES_MAX {
        return Err(BundleError::TooMany { what, limit: NAMES_MAX });
    }
    Ok(())
}

/// That everything a component imports is offered, and asked for in its manifest.
fn check_imports(imports: &BTreeSet<String>, manifest: &Manifest) -> Result<(), BundleError> {
    for name in imports {
        let Some(needed) = capability(name) else {
            return Err(BundleError::UnknownImport { name: name.clone() });
        };
        let asked = match needed {
            Some("timer") => manifest.capabilities.timer.is_some(),
            // A watch of files is a port, too, and ends by `port.close`.
            Some("listen") if name.starts_with("astrid:kernel/port@") && manifest.capabilities.fs.is_some() => true,
            Some("listen") => manifest.capabilities.listen.is_some(),
            Some("child") => manifest.capabilities.child.is_some(),
            Some("document") => manifest.capabilities.document.is_some(),
            Some("fs") => manifest.capabilities.fs.is_some(),
            Some("kv") => manifest.capabilities.kv.is_some(),
            Some("pin") => manifest.capabilities.pin.is_some(),
            _ => true,
        };
        if let (Some(capability), false) = (needed, asked) {
            return Err(BundleError::NotAsked {
                name: name.clone(),
                capability,
            });
        }
    }
    Ok(())
}

/// The capability that an import needs, if any; nothing for what is not offered.
fn capability(import: &str) -> Option<Option<&'static str>> {
    let (interface, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let version: semver::Version = version.parse().ok()?;
    // Within a minor version of 0.x nothing breaks; a guest built against a later patch may miss what it added.
    let offered = (version.major, version.minor) == (PACKAGE_VERSION.major, PACKAGE_VERSION.minor)
        && version <= PACKAGE_VERSION
        && version.pre.is_empty();
    let (_, needed) = INTERFACES.iter().find(|(name, _)| *name == interface)?;
    offered.then_some(*needed)
}

#[cfg(test)]
pub(super) mod tests;
