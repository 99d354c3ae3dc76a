//! In which order capsules start, and which cannot (architecture: contracts between capsules).
//!
//! A capsule starts after everything that exports what it imports, so that the first request it sends finds somebody.
//! Uplinks (`scope = "connection"`) come first and import nothing, so that a client gets in whatever else fails. Then
//! level by level: all of a level can start at once.
//!
//! What cannot start is kept out with its reason, and what needs it with it; the rest starts. The plan is a function
//! of the set of bundles: the order in which they were found does not matter.
//!
//! An optional import orders like any other when somebody serves it: blocking requests go along imports, and in a
//! cycle they would wait for each other.
//!
//! Deliberately absent: a choice between two exporters of one interface. Nobody has stated one, so who imports it
//! without `many` is kept out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use astrid_wire::manifest::Scope;
use semver::{Version, VersionReq};

use super::bundle::Bundle;

/// Why a capsule is kept out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was made for other kernels.
    #[error("it works with kernel {wanted}; this is {found}")]
    Kernel {
        /// What its manifest says.
        wanted: VersionReq,
        /// This kernel.
        found: Version,
    },
    /// There are two of that name.
    #[error("there is another capsule of this name")]
    Twice,
    /// An uplink that imports.
    #[error("it serves connections, so it starts first and may not import (`{interface}`)")]
    UplinkImports {
        /// The first import.
        interface: String,
    },
    /// Nobody exports what it imports.
    #[error("nobody exports `{interface}` {wanted}{}", others(.found))]
    Missing {
        /// The interface.
        interface: String,
        /// Versions that would do.
        wanted: VersionReq,
        /// Versions that there are.
        found: Vec<String>,
    },
    /// More than one exports what it imports.
    #[error("`{interface}` is exported by {}; import it with `many = true`, or remove all but one", listed(.exporters))]
    Ambiguous {
        /// The interface.
        interface: String,
        /// Capsules that export it.
        exporters: Vec<String>,
    },
    /// Who exports what it imports is kept out.
    #[error("it needs `{interface}` of {}, kept out", listed(.exporters))]
    Needs {
        /// The interface.
        interface: String,
        /// Capsules that would export it.
        exporters: Vec<String>,
    },
    /// It imports, through others, from itself.
    #[error("imports go in a circle: {}", .path.join(" -> "))]
    Cycle {
        /// From it, along imports, back to it.
        path: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn others(found: &[String]) -> String {
    if found.is_empty() {
        String::new()
    } else {
        format!("; there is {}", found.join(", "))
    }
}

/// A capsule that is kept out.
#[derive(Debug)]
pub struct Refused {
    /// The capsule.
    pub bundle: Bundle,
    /// Why.
    pub reason: Refusal,
}

/// What starts when, and what does not.
#[derive(Debug)]
pub struct Plan {
    /// First the uplinks, be there any or not; then capsules whose imports are all served by earlier levels. In the
    /// order of names.
    pub levels: Vec<Vec<Bundle>>,
    /// What is kept out, in the order of names.
    pub refused: Vec<Refused>,
}

/// The version that manifests are held against.
fn kernel_version() -> Version {
    // A constant in the form that it is parsed from; 0.0.0 would only refuse.
    env!("CARGO_PKG_VERSION").parse().unwrap_or(Version::new(0, 0, 0))
}

/// Orders the capsules that can start.
#[must_use]
pub fn plan(bundles: Vec<Bundle>) -> Plan {
    let mut refused = Vec::new();
    let mut all: BTreeMap<String, Bundle> = BTreeMap::new();
    for bundle in bundles {
        if all.contains_key(bundle.name()) {
            refused.push(Refused {
                bundle,
                reason: Refusal::Twice,
            });
        } else {
            all.insert(bundle.name().to_owned(), bundle);
        }
    }

    let mut graph = Graph {
        all: &all,
        exporters: BTreeMap::new(),
        kept_out: BTreeMap::new(),
    };
    for bundle in all.values() {
        for interface in bundle.manifest.exports.keys() {
            graph.exporters.entry(interface.as_str()).or_default().push(bundle);
        }
    }
    graph.keep_out(Graph::alone);
    // Each round keeps somebody out or is the last; a circle is only looked for among those that could start otherwise.
    while graph.keep_out(Graph::unserved) || graph.keep_out(Graph::circular) {}

    let levels = graph.levels();
    let mut kept_out = graph.kept_out;
    let mut ordered: Vec<Vec<Bundle>> = vec![Vec::new(); levels.values().max().map_or(1, |deepest| deepest + 1)];
    for (name, bundle) in all {
        match (kept_out.remove(&name), levels.get(&name)) {
            (Some(reason), _) => refused.push(Refused { bundle, reason }),
            (None, level) => ordered[level.copied().unwrap_or(0)].push(bundle),
        }
    }
    refused.sort_by(|a, b| a.bundle.name().cmp(b.bundle.name()));
    Plan {
        levels: ordered,
        refused,
    }
}

struct Graph<'a> {
    all: &'a BTreeMap<String, Bundle>,
    /// By interface, whatever the version.
    exporters: BTreeMap<&'a str, Vec<&'a Bundle>>,
    kept_out: BTreeMap<String, Refusal>,
}

impl<'a> Graph<'a> {
    /// Asks of every capsule that is still in whether there is a reason against it, and keeps those out for which
    /// there is. All are asked before any is kept out, so that the order of asking does not matter. False when nobody
    /// was.
    fn keep_out(&mut self, reason: fn(&Graph<'a>, &'a Bundle) -> Option<Refusal>) -> bool {
        let found: Vec<_> = self
            .all
            .iter()
            .filter(|(name, _)| self.is_in(name))
            .filter_map(|(name, bundle)| Some((name.clone(), reason(self, bundle)?)))
            .collect();
        let any = !found.is_empty();
        self.kept_out.extend(found);
        any
    }

    fn is_in(&self, name: &str) -> bool {
        !self.kept_out.contains_key(name)
    }

    /// Reasons that are a capsule's own.
    fn alone(&self, bundle: &'a Bundle) -> Option<Refusal> {
        let manifest = &bundle.manifest;
        let (wanted, found) = (&manifest.package.kernel, kernel_version());
        if !wanted.matches(&found) {
            return Some(Refusal::Kernel {
                wanted: wanted.clone(),
                found,
            });
        }
        let uplink = manifest.runtime.scope == Scope::Connection;
        let first = manifest.imports.keys().next().filter(|_| uplink)?;
        Some(Refusal::UplinkImports {
            interface: first.to_string(),
        })
    }

    fn exporters(&self, interface: &str) -> &[&'a Bundle] {
        self.exporters.get(interface).map_or(&[], Vec::as_slice)
    }

    /// Capsules that export an interface in a version that will do, kept out or not.
    fn serving(&self, interface: &str, wanted: &VersionReq) -> Vec<&'a Bundle> {
        let will_do = |bundle: &&Bundle| {
            bundle
                .manifest
                .exports
                .get(interface)
                .is_some_and(|version| version.satisfies(wanted))
        };
        self.exporters(interface).iter().copied().filter(will_do).collect()
    }

    /// Reasons that lie in who serves its imports.
    fn unserved(&self, bundle: &'a Bundle) -> Option<Refusal> {
        bundle.manifest.imports.iter().find_map(|(interface, import)| {
            let (interface, wanted) = (interface.as_str(), &import.version);
            let (in_, out): (Vec<_>, Vec<_>) = self
                .serving(interface, wanted)
                .into_iter()
                .partition(|exporter| self.is_in(exporter.name()));
            let names = |bundles: Vec<&Bundle>| bundles.into_iter().map(|b| b.name().to_owned()).collect::<Vec<_>>();
            match in_.len() {
                0 if import.optional => None,
                0 if out.is_empty() => {
                    let version = |b: &Bundle| b.manifest.exports.get(interface).map(ToString::to_string);
                    let found: BTreeSet<String> =
                        self.exporters(interface).iter().copied().filter_map(version).collect();
                    let found = found.into_iter().collect();
                    Some(Refusal::Missing {
                        interface: interface.to_owned(),
                        wanted: wanted.clone(),
                        found,
                    })
                }
                0 => Some(Refusal::Needs {
                    interface: interface.to_owned(),
                    exporters: names(out),
                }),
                1 => None,
                _ if import.many => None,
                _ => Some(Refusal::Ambiguous {
                    interface: interface.to_owned(),
                    exporters: names(in_),
                }),
            }
        })
    }

    /// Who has to start before this one. A manifest that imports what it exports is no manifest, so never itself.
    fn before(&self, bundle: &'a Bundle) -> BTreeSet<&'a str> {
        let mut before = BTreeSet::new();
        for (interface, import) in &bundle.manifest.imports {
            for exporter in self.serving(interface.as_str(), &import.version) {
                if self.is_in(exporter.name()) {
                    before.insert(exporter.name());
                }
            }
        }
        before
    }

    /// The shortest way along imports from a capsule back to it.
    fn circular(&self, bundle: &'a Bundle) -> Option<Refusal> {
        let start = bundle.name();
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(name) = queue.pop_front() {
            for next in self.all.get(name).map(|bundle| self.before(bundle)).unwrap_or_default() {
                if next == start {
                    let mut path = vec![start.to_owned(), name.to_owned()];
                    let mut at = name;
                    while let Some(previous) = came_from.get(at) {
                        path.push((*previous).to_owned());
                        at = previous;
                    }
                    path.reverse();
                    return Some(Refusal::Cycle { path });
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, name);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// The level of each capsule that is in: 0 for uplinks, else one more than the deepest of those before it. There
    /// are no circles any more.
    fn levels(&self) -> BTreeMap<String, usize> {
        let mut waiting: BTreeMap<&str, BTreeSet<&str>> = self
            .all
            .iter()
            .filter(|(name, _)| self.is_in(name))
            .map(|(name, bundle)| (name.as_str(), self.before(bundle)))
            .collect();
        let is_uplink = |name: &str| {
            self.all
                .get(name)
                .is_some_and(|b| b.manifest.runtime.scope == Scope::Connection)
        };
        let mut levels = BTreeMap::new();
        for level in 0.. {
            let free = |name: &str, before: &BTreeSet<&str>| match level {
                0 => is_uplink(name),
                _ => before.iter().all(|other| levels.contains_key(*other)),
            };
            let now: Vec<&str> = waiting
                .iter()
                .filter(|(name, before)| free(name, before))
                .map(|(name, _)| *name)
                .collect();
            if now.is_empty() && level > 0 {
                break;
            }
            for name in now {
                waiting.remove(name);
                levels.insert(name.to_owned(), level);
            }
        }
        levels
    }
}

#[cfg(test)]
mod tests;
