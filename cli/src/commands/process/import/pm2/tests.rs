//! What is carried over from pm2, what is said about the rest, and what is refused.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn one(text: &str) -> (Definition, Vec<String>) {
    let mut imported = import(text, "x.json", Path::new("/app")).unwrap();
    let said = imported.remarks.iter().map(|remark| remark.key.clone()).collect();
    (imported.processes.remove(0), said)
}

#[test]
fn what_is_carried_over() {
    let text = r#"{"apps": [{"name": "API", "script": "./server.js", "args": "--port '80 81'", "node_args": ["--inspect"], "cwd": "srv",
        "instances": 2, "env": {"A": "1", "N": 5, "B": true}, "max_restarts": 7, "min_uptime": "10s", "restart_delay": 1500,
        "kill_timeout": 3000, "out_file": "/l", "error_file": "/l", "watch": false}]}"#;
    let imported = import(text, "x.json", Path::new("/app")).unwrap();
    let expected = r#"[[processes]]
name = "api"
command = "node"
args = ["--inspect", "/app/srv/server.js", "--port", "80 81"]
cwd = "/app/srv"
instances = 2
restart = "always"
max_restarts = 7
min_uptime = "10s"

[processes.env]
A = "1"
B = "true"
N = "5"

[processes.backoff]
policy = "fixed"
base = "1500ms"

[processes.stop]
timeout = "3s"

[processes.log]
merge = true
"#;
    assert_eq!(imported.to_toml().unwrap(), expected);
}

/// What cannot be carried over is said, key by key.
#[test]
fn what_is_not_carried_over() {
    let (definition, mut said) = one(
        r#"{"name": "w", "script": "w.py", "instances": "max", "exec_mode": "cluster", "env_production": {"A": 1}, "cron_restart": "0 0 * * *",
            "watch": ["src"], "max_memory_restart": "300M", "novel": 1, "autorestart": false, "merge_logs": true}"#,
    );
    assert_eq!(
        (definition.command.as_str(), definition.restart),
        ("python3", Some("never"))
    );
    assert_eq!(definition.args, ["/app/w.py"]);
    // How many cores there are decides whether there is more than one instance.
    said.retain(|key| key != "instance_var" && key != "exec_mode");
    assert_eq!(
        said,
        [
            "instances",
            "env_production",
            "merge_logs",
            "cron_restart",
            "max_memory_restart",
            "novel",
            "watch"
        ]
    );
}

#[test]
fn scripts_and_interpreters() {
    for (text, command, args) in [
        (r#"{"script": "npm", "args": ["start", 1]}"#, "npm", &["start", "1"][..]),
        (r#"{"script": "./bin/x"}"#, "/app/bin/x", &[]),
        (r#"{"script": "/opt/x.js", "interpreter": "none"}"#, "/opt/x.js", &[]),
        (r#"{"script": "x", "interpreter": "bash"}"#, "bash", &["/app/x"]),
        (r#"{"script": "a.sh"}"#, "bash", &["/app/a.sh"]),
    ] {
        let (definition, _) = one(text);
        assert_eq!(
            (definition.command.as_str(), definition.args.as_slice()),
            (command, &*args.iter().map(ToString::to_string).collect::<Vec<_>>())
        );
    }
}

#[test]
fn scripts_without_an_interpreter_are_said() {
    assert_eq!(one(r#"{"script": "x.ts"}"#).1, ["script"]);
    assert!(
        one(r#"{"script": "x.ts", "name": "x", "interpreter": "none"}"#)
            .1
            .is_empty()
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (text, part) in [
        ("3", "the document"),
        (r#"{"apps": 3}"#, "apps is neither"),
        (r#"{"apps": [3]}"#, "apps[0] is not an object"),
        ("{}", "apps[0].script is missing"),
        (r#"{"script": 3}"#, "apps[0].script is no text"),
        (r#"{"script": "a\u0000b"}"#, "holds a NUL"),
        (r#"{"script": "x", "args": "it's"}"#, "apps[0].args has a '"),
        (r#"{"script": "x", "args": [{}]}"#, "apps[0].args"),
        (r#"{"script": "x", "instances": 1e99}"#, "apps[0].instances"),
        (r#"{"script": "x", "instances": 5000}"#, "is more than 1000"),
        (r#"{"script": "x", "env": []}"#, "apps[0].env"),
        (r#"{"script": "x", "env": {"A=B": "1"}}"#, "apps[0].env"),
        (r#"{"script": "x", "min_uptime": "soon"}"#, "apps[0].min_uptime"),
        (r#"{"script": "x", "kill_timeout": -1}"#, "apps[0].kill_timeout"),
        (
            r#"{"script": "x", "restart_delay": "99999999999999999h"}"#,
            "apps[0].restart_delay",
        ),
        (r#"{"script": "x", "autorestart": "no"}"#, "apps[0].autorestart"),
        (r#"{"script": "x", "max_restarts": 5000000000}"#, "apps[0].max_restarts"),
    ] {
        let error = import(text, "x.json", Path::new("/")).unwrap_err().to_string();
        assert!(error.starts_with("x.json: ") && error.contains(part), "{text}: {error}");
    }
    // As few as there can be, and not fewer.
    assert_eq!(
        one(r#"{"script": "x", "instances": -9223372036854775808}"#).0.instances,
        None
    );
}
