//! Programs under supervision: how fast they start and come back, and what they cost at rest.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use astrid_tests::daemon::Astrid;
use astrid_tests::herd::{kill, parent};

use crate::{ROUNDS, alone, line, median};

/// Programs that are started at once, and then left alone.
const MANY: usize = 1_000;

/// How long they are left alone.
const REST: Duration = Duration::from_secs(10);

/// What programs are kept from, and how that is said.
const SANDBOXES: [(&str, &str); 5] = [
    ("", "\"home\""),
    (", sandbox none", "\"none\""),
    (", sandbox project", "\"project\""),
    (", sandbox sealed", "\"sealed\""),
    (
        ", sandbox project with a network of its own",
        "{ profile = \"project\", network = \"loopback\" }",
    ),
];

pub fn run() {
    for (name, sandbox) in SANDBOXES {
        respawn(name, sandbox);
    }
    many();
}

/// From the end of a program to the first line of the next one, without a pause in between; beside a shell that this process starts.
fn respawn(name: &str, sandbox: &str) {
    let astrid = Astrid::started();
    let pipe = astrid.scratch().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Held open for both directions: nobody waits for anybody, and there is no end between two writers.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut lines = BufReader::new(reader).lines().map(|line| line.unwrap());
    let script = format!("echo $$ >{}; exec sleep 1000000", pipe.display());
    let definition = format!(
        "[[processes]]\nname = \"crash\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\nrestart = \"always\"\n\
         cwd = \"{}\"\nsandbox = {sandbox}\nmax_restarts = 1000\nmin_uptime = \"1ms\"\nbackoff = {{ policy = \"fixed\", base = \"0s\" }}\n",
        astrid.scratch().display()
    );
    apply(&astrid, &definition);
    let mut pid: u32 = lines.next().unwrap().parse().unwrap();
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS * 3 {
        let began = Instant::now();
        kill(pid);
        pid = lines.next().unwrap().parse().unwrap();
        ours.push(began.elapsed().as_secs_f64() * 1e9);

        let began = Instant::now();
        let mut shell = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        lines.next().unwrap();
        limit.push(began.elapsed().as_secs_f64() * 1e9);
        end(&mut shell);
    }
    line(
        &format!("crash to respawn, no back-off (until its first line){name}"),
        median(ours),
        "fork and exec of the same shell",
        median(limit),
        "<= 5 ms",
    );
}

fn apply(astrid: &Astrid, definition: &str) {
    let file = astrid.scratch().join("programs.toml");
    fs::write(&file, definition).unwrap();
    let _ = astrid.run(&["process", "apply", file.to_str().unwrap()]).ok();
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn many() {
    let mut bare: Vec<Child> = Vec::new();
    let began = Instant::now();
    for _ in 0..MANY {
        let mut sleep = Command::new("sleep");
        sleep
            .arg("1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        bare.push(sleep.spawn().unwrap());
    }
    let limit = began.elapsed().as_secs_f64() * 1e9;
    bare.iter_mut().for_each(end);

    let astrid = Astrid::started();
    let definition =
        format!("[[processes]]\nname = \"many\"\ncommand = \"sleep\"\nargs = [\"1000000\"]\ninstances = {MANY}\n");
    let began = Instant::now();
    apply(&astrid, &definition);
    // Answered when all of them run.
    let _ = astrid.run(&["process", "start", "--all"]).ok();
    let ours = began.elapsed().as_secs_f64() * 1e9;
    line(
        "1,000 programs started, until all run",
        ours,
        "fork and exec of 1,000 `sleep`",
        limit,
        "<= 3 s",
    );

    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    let keeper = u32::try_from(status["children"]["keeper_pid"].as_u64().unwrap()).unwrap();
    let parts = [astrid.pid(), keeper, parent(keeper).unwrap()];
    let before: u64 = parts.iter().map(|pid| cpu_ms(*pid)).sum();
    std::thread::sleep(REST);
    let used = parts.iter().map(|pid| cpu_ms(*pid)).sum::<u64>() - before;
    let share = used as f64 / REST.as_millis() as f64 * 100.0;
    alone(
        "1,000 programs at rest: processor time of a core",
        &format!("{share:.2} %"),
        "< 1 %",
    );
    let rss: Vec<String> = parts.iter().map(|pid| format!("{}", rss_mib(*pid))).collect();
    alone(
        "1,000 programs at rest: RSS of daemon + keeper + guard",
        &format!("{} MiB", rss.join("+")),
        "",
    );
    let began = Instant::now();
    let _ = astrid.run(&["stop"]).ok();
    alone(
        "stop of the daemon with 1,000 programs",
        &format!("{:.0} ms", began.elapsed().as_secs_f64() * 1e3),
        "",
    );
}

fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Ticks of 10 ms.
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

fn rss_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
