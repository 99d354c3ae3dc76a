//! What a process is kept from, with everything decided.

use astrid_sdk::child::{self, Network, Sandbox, TMP, WORKSPACE};

use crate::definition::{Confinement, Definition, Given, Profile, Reachable, Workspace};

/// What follows from `sandbox` and `workspace` of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    kept: Kept,
    /// How it sees the workspace.
    workspace: Option<Workspace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Nothing,
    Home,
    All {
        profile: Option<Profile>,
        network: Reachable,
        read: Option<Vec<String>>,
        write: Option<Vec<String>>,
        best_effort: bool,
    },
}

impl Confined {
    /// What follows from a definition.
    pub fn of(definition: &Definition) -> Self {
        let workspace = definition.workspace;
        let place = match (workspace, &definition.cwd) {
            (Some(_), _) => WORKSPACE,
            (None, Some(cwd)) => cwd,
            (None, None) => "/",
        };
        let default = if workspace.is_some() {
            Profile::Project
        } else {
            Profile::Home
        };
        let kept = match &definition.sandbox {
            None => named(default, place),
            Some(Confinement::Named(profile)) => named(*profile, place),
            // What is said besides adds to what it would be without.
            Some(Confinement::Given(given)) => all(
                &Given {
                    profile: given.profile.or(workspace.map(|_| default)),
                    ..given.clone()
                },
                place,
            ),
        };
        Self { kept, workspace }
    }

    /// For the kernel.
    pub fn sandbox(&self) -> Sandbox {
        match &self.kept {
            Kept::Nothing => Sandbox::None,
            Kept::Home => Sandbox::Home,
            Kept::All {
                network,
                read,
                write,
                best_effort,
                ..
            } => Sandbox::Confined(child::Confinement {
                network: match network {
                    Reachable::None => Network::None,
                    Reachable::Local => Network::Local,
                    Reachable::Loopback => Network::Loopback,
                    Reachable::Full => Network::Full,
                },
                read: read.clone(),
                write: write.clone(),
                best_effort: *best_effort,
            }),
        }
    }

    /// For the kernel.
    pub fn workspace(&self) -> child::Workspace {
        match self.workspace {
            None => child::Workspace::None,
            Some(Workspace::Overlay) => child::Workspace::Overlay,
            Some(Workspace::Checkout(size)) => child::Workspace::Checkout(size.0),
        }
    }

    /// Whether it sees one.
    pub fn has_workspace(&self) -> bool {
        self.workspace.is_some()
    }

    /// For people: a name, or what it is given.
    pub fn shown(&self) -> String {
        let mut text = match &self.kept {
            Kept::Nothing => "none".to_owned(),
            Kept::Home => "home".to_owned(),
            Kept::All {
                profile,
                network,
                read,
                write,
                best_effort,
            } => {
                let mut parts = vec![profile.map_or("confined", Profile::as_str).to_owned()];
                parts.push(format!("network {}", network.as_str()));
                let lists = [("reads", read), ("writes", write)];
                let lists = lists.iter().filter_map(|(name, list)| Some((name, list.as_ref()?)));
                parts.extend(lists.map(|(name, list)| match list.is_empty() {
                    true => format!("{name} nothing"),
                    false => format!("{name} {}", list.join(" ")),
                }));
                parts.extend(best_effort.then(|| "best effort".to_owned()));
                parts.join(", ")
            }
        };
        match self.workspace {
            None => {}
            Some(Workspace::Overlay) => text.push_str(", workspace overlay"),
            Some(Workspace::Checkout(size)) => text.push_str(&format!(", workspace checkout of at most {size}")),
        }
        text
    }
}

fn named(profile: Profile, place: &str) -> Kept {
    match profile {
        Profile::None => Kept::Nothing,
        Profile::Home => Kept::Home,
        Profile::Project | Profile::Sealed => all(
            &Given {
                profile: Some(profile),
                ..Given::default()
            },
            place,
        ),
    }
}

fn all(given: &Given, place: &str) -> Kept {
    let profile = given.profile.filter(|profile| *profile != Profile::Home);
    let mut write = profile.map(|_| vec![place.to_owned(), TMP.to_owned()]);
    if let Some(more) = &given.write {
        write.get_or_insert_default().extend(more.iter().cloned());
    }
    Kept::All {
        profile,
        network: given.network.unwrap_or(match profile {
            Some(Profile::Sealed) => Reachable::None,
            _ => Reachable::Full,
        }),
        read: given.read.clone(),
        write,
        best_effort: given.best_effort.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn of(text: &str) -> Confined {
        let text = format!("name = \"x\"\ncommand = \"x\"\ncwd = \"/srv\"\n{text}");
        Confined::of(&toml::from_str(&text).unwrap())
    }

    /// A18: names stand for what they say, and what is said besides adds to it.
    #[test]
    fn sandboxes_as_they_are_shown() {
        for (text, shown) in [
            ("", "home"),
            ("sandbox = \"none\"", "none"),
            ("sandbox = \"project\"", "project, network full, writes /srv tmp://"),
            ("sandbox = \"sealed\"", "sealed, network none, writes /srv tmp://"),
            ("sandbox = { network = \"loopback\" }", "confined, network loopback"),
            (
                "sandbox = { profile = \"sealed\", write = [\"/a\"], read = [], best_effort = true }",
                "sealed, network none, reads nothing, writes /srv tmp:// /a, best effort",
            ),
            (
                "workspace = \"overlay\"",
                "project, network full, writes workspace:// tmp://, workspace overlay",
            ),
            (
                "workspace = \"overlay\"\nsandbox = { network = \"none\", best_effort = true }",
                "project, network none, writes workspace:// tmp://, best effort, workspace overlay",
            ),
            (
                "workspace = { checkout = \"2GiB\" }\nsandbox = \"home\"",
                "home, workspace checkout of at most 2GiB",
            ),
        ] {
            assert_eq!(of(text).shown(), shown);
        }
        assert!(matches!(of("sandbox = \"none\"").sandbox(), Sandbox::None));
    }
}
