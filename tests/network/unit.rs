//! The shipped systemd unit under a real systemd that runs as process 1 in its own namespaces.

use crate::Test;
use crate::lab::{
    self, CLIENT, Daemon, ROUTER, Scene, children, daemon_binary, find, signal, wait_for,
    wait_within,
};
use crate::lease::{STEPS, await_notes, door, notes, rules};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("unit_is_correct", unit_is_correct),
    (
        "unit_starts_reloads_and_stops",
        unit_starts_reloads_and_stops,
    ),
    ("unit_restarts_after_a_kill", unit_restarts_after_a_kill),
    ("unit_refuses_a_broken_config", unit_refuses_a_broken_config),
    ("hardened_unit_is_safer", hardened_unit_is_safer),
    (
        "hardened_unit_opens_and_closes",
        hardened_unit_opens_and_closes,
    ),
];

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/systemd/knockd.service");
const HARDENED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/files/systemd/knockd.service.d/hardened.conf"
);
const BOOT: &str = include_str!("boot.sh");
const SYSTEMD: &str = "/lib/systemd/systemd";

/// Why the unit cannot be tested here; `None` if it can.
pub fn missing() -> Option<String> {
    if !Path::new(SYSTEMD).exists() || find("systemd-analyze").is_none() {
        return Some("systemd is not installed".to_string());
    }
    let Some(group) = cgroup2() else {
        return Some("no cgroup2 is mounted".to_string());
    };
    lab::stale(&group)
        .iter()
        .for_each(|group| remove_groups(group));
    let probe = group.join(format!("kt-{}-probe", std::process::id()));
    if let Err(error) = fs::create_dir(&probe) {
        return Some(format!(
            "no cgroup can be made below {}: {error}",
            group.display()
        ));
    }
    let _ = fs::remove_dir(&probe);
    let overlay = "t=$(mktemp -d) && mount -t tmpfs tmpfs $t && mkdir $t/u $t/w $t/r \
        && mount -t overlay o -o lowerdir=/,upperdir=$t/u,workdir=$t/w $t/r; e=$?; umount -R $t; rmdir $t; exit $e";
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", overlay])
        .output();
    match done {
        Ok(output) if output.status.success() => None,
        _ => Some("no overlay of / can be mounted".to_string()),
    }
}

/// The mount point of cgroup2.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(PathBuf::from(line.split(' ').nth(1)?))
}

/// Removes a cgroup and those below it, innermost first, as far as they are empty.
fn remove_groups(group: &Path) {
    let _ = Command::new("find")
        .arg(group)
        .args(["-depth", "-type", "d", "-delete"])
        .output();
}

/// A copy of the unit for systemd-analyze. The program that it starts must exist, and any program
/// will do.
fn copy_of_unit(scene: &Scene) -> PathBuf {
    let text = fs::read_to_string(UNIT)
        .expect("unit")
        .replace("/usr/sbin/knockd ", "/bin/true ");
    scene.home.write("knockd.service", &text)
}

/// systemd knows each line of the drop-in and rates the unit better with it.
fn hardened_unit_is_safer() {
    let scene = Scene::new();
    let unit = copy_of_unit(&scene);
    let directory = scene.home.path("knockd.service.d");
    fs::create_dir(&directory).expect("directory");
    fs::copy(HARDENED, directory.join("hardened.conf")).expect("copy");
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let path = format!("{}:", unit.parent().expect("directory").display());
        command.env("SYSTEMD_UNIT_PATH", path);
        command
            .args(args)
            .arg(&unit)
            .output()
            .expect("systemd-analyze")
    };
    let output = analyze(&["verify", "--man=no", "--recursive-errors=no"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && !said.contains("knockd"),
        "{said}"
    );
    // In tenths. The unit alone has 95.
    let output = analyze(&["security", "--offline=true", "--threshold=39"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("Overall exposure level"), "{said}");
}

fn hardened_unit_opens_and_closes() {
    let scene = Scene::new();
    // It has a private /tmp, so nothing is noted there.
    let config = "[SSH]
        sequence = 7000,8000:udp,9000
        tcpflags = syn
        cmd_timeout = 2
        start_command = iptables -w -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
        stop_command = iptables -w -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n";
    let machine = Machine::boot_hardened(&scene, config, "-i wan0", Some(HARDENED));
    let main = machine.await_main("0");
    for _ in 0..2 {
        open(&scene);
        wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
        machine.systemctl("reload knockd").expect("reload");
    }
    assert_eq!(machine.property("MainPID"), main);
    machine.systemctl("stop knockd").expect("stop");
    assert_eq!(machine.property("Result"), "success");
}

fn unit_is_correct() {
    let scene = Scene::new();
    let copy = copy_of_unit(&scene);
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&copy)
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && !said.contains("knockd.service"),
        "{said}"
    );
}

/// A machine with systemd, booted in the router's network namespace.
struct Machine {
    systemd: Daemon,
    group: PathBuf,
    console: PathBuf,
}

impl Machine {
    /// Boots with this `/etc/knockd.conf`. `options` is KNOCKD_OPTS in /etc/default/knockd; if
    /// empty, that file does not exist.
    fn boot(scene: &Scene, config: &str, options: &str) -> Machine {
        Machine::boot_hardened(scene, config, options, None)
    }

    /// Like [`Machine::boot`], with this drop-in for the unit.
    fn boot_hardened(scene: &Scene, config: &str, options: &str, drop_in: Option<&str>) -> Machine {
        let home: &Path = scene.home.as_ref();
        let config = config.replace("@HOME@", &home.display().to_string());
        scene.home.write("unit.conf", &config);
        scene.home.write("boot.sh", BOOT);
        let name = home.file_name().expect("name");
        let group = cgroup2().expect("cgroup2").join(name);
        fs::create_dir(&group).expect("cgroup");
        let mut inside = scene.router.command("unshare");
        inside.args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--ipc",
            "--uts",
            "--cgroup",
            "sh",
        ]);
        inside
            .arg(scene.home.path("boot.sh"))
            .arg(home)
            .arg(daemon_binary())
            .arg(UNIT);
        inside.arg(scene.home.path("unit.conf")).arg(options);
        inside.args(drop_in);
        // Enter the cgroup first, because `ip netns exec` mounts another /sys without cgroups.
        let mut command = Command::new("sh");
        command
            .args(["-ec", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""])
            .arg(&group);
        command.arg(inside.get_program()).args(inside.get_args());
        let console = scene.home.path("console");
        let machine = Machine {
            systemd: Daemon::run(command),
            group,
            console,
        };
        // A whole machine boots in parallel with all other tests.
        let timeout = Duration::from_secs(60);
        let pause = Duration::from_millis(100);
        wait_within(timeout, pause, "a reply from systemd", || {
            let known = machine
                .systemctl("is-system-running")
                .is_ok_and(|state| state != "offline");
            known.then_some(())
        });
        machine
    }

    /// Runs systemctl inside. Returns its output, on failure as the error.
    fn systemctl(&self, arguments: &str) -> Result<String, String> {
        let process1 = *children(self.systemd.pid())
            .first()
            .ok_or("no process 1 yet")?;
        let output = Command::new("timeout")
            .args([
                "30",
                "nsenter",
                "-p",
                "-m",
                "-r",
                "-t",
                &process1.to_string(),
                "systemctl",
            ])
            .args(arguments.split(' '))
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
        match output.status.success() || !said.is_empty() {
            true => Ok(said),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn property(&self, name: &str) -> String {
        self.systemctl(&format!("show knockd --value -p {name}"))
            .expect(name)
    }

    /// Waits until the main process of the unit is not `last` and returns its PID inside the
    /// machine.
    fn await_main(&self, last: &str) -> String {
        wait_for("a running unit", || {
            let pid = self.property("MainPID");
            (self.property("ActiveState") == "active" && pid != last && pid != "0").then_some(pid)
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read_to_string(&self.console).unwrap_or_default();
            let ask = |what| self.systemctl(what).unwrap_or_else(|error| error);
            let (status, last) = (ask("status knockd"), ask("show knockd -p ExecMainStatus"));
            eprintln!("{status}\n{last}\n{console}");
        }
        // Killing process 1 kills all of its processes, after which the cgroups can be removed.
        for pid in children(self.systemd.pid()) {
            signal(pid, libc::SIGKILL);
        }
        let _ = self.systemd.wait();
        for _ in 0..100 {
            remove_groups(&self.group);
            if !self.group.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.group.display());
    }
}

/// Knocks until there is a rule: the unit is active before the daemon listens, and its log is not
/// visible here.
fn open(scene: &Scene) {
    wait_for("an open door", || {
        scene.knock(ROUTER, STEPS);
        (rules(scene) > 0).then_some(())
    });
}

fn unit_starts_reloads_and_stops() {
    let scene = Scene::new();
    scene
        .router
        .run(&format!("ip route add default via {CLIENT}"));
    // Without options, the config specifies the interface.
    let config = format!("[options]\nInterface = wan0\n{}", door(600));
    let machine = Machine::boot(&scene, &config, "");
    let main = machine.await_main("0");
    open(&scene);

    let home: &Path = scene.home.as_ref();
    let inside = format!("{}/boot/root/etc/knockd.conf", home.display());
    let process1 = children(machine.systemd.pid())[0];
    let new = format!(
        "[options]\nInterface = wan0\n[New]\nsequence = 4000:udp\ncommand = echo new >> {}/notes\n",
        home.display()
    );
    fs::write(format!("/proc/{process1}/root/etc/knockd.conf"), new)
        .unwrap_or_else(|error| panic!("{inside}: {error}"));
    machine.systemctl("reload knockd").expect("reload");
    wait_for("the new door", || {
        scene.knock(ROUTER, &["4000:udp"]);
        (notes(&scene, "new") > 0).then_some(())
    });
    assert_eq!(
        machine.property("MainPID"),
        main,
        "a reload must not restart the daemon"
    );

    // A stop runs the stop command and is not a failure.
    machine.systemctl("stop knockd").expect("stop");
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.property("Result"), "success");
    await_notes(&scene, "stop", 1);
    assert_eq!(rules(&scene), 0);
    machine.systemctl("start knockd").expect("start");
    machine.await_main(&main);
}

fn unit_restarts_after_a_kill() {
    let scene = Scene::new();
    let machine = Machine::boot(&scene, &door(4), "-i wan0");
    let first = machine.await_main("0");
    open(&scene);
    machine
        .systemctl("kill --kill-who=main --signal=KILL knockd")
        .expect("kill");
    let second = machine.await_main(&first);
    assert_eq!(machine.property("NRestarts"), "1");
    // The journal of leases has survived.
    wait_for("a closed door", || (rules(&scene) == 0).then_some(()));
    // The note is written after the rule.
    wait_for("the note", || (notes(&scene, "stop") >= 1).then_some(()));
    open(&scene);
    assert_eq!(machine.property("MainPID"), second);
}

/// A start or reload with an invalid config fails with a message. There is no retry until the user
/// acts.
fn unit_refuses_a_broken_config() {
    let scene = Scene::new();
    let machine = Machine::boot(&scene, &door(600), "-i wan0");
    let main = machine.await_main("0");
    let process1 = children(machine.systemd.pid())[0];
    let config = PathBuf::from(format!("/proc/{process1}/root/etc/knockd.conf"));
    fs::write(&config, "[SSH]\nsequence = none\n").expect("config");
    let fails = |what: &str| {
        let error = machine.systemctl(what).expect_err(what);
        assert!(error.contains("knockd.service"), "{what}: {error}");
    };
    fails("reload knockd");
    assert_eq!(
        machine.property("MainPID"),
        main,
        "the old config must stay in effect"
    );
    fails("restart knockd");
    assert_eq!(machine.property("ActiveState"), "failed");
    assert_eq!(machine.property("NRestarts"), "0");
    let console = fs::read_to_string(&machine.console).expect("console");
    assert!(!console.contains("Scheduled restart"), "{console}");
    fs::write(&config, door(600)).expect("config");
    machine.systemctl("restart knockd").expect("restart");
    machine.await_main(&main);

    // What a crash leaves open closes nevertheless.
    open(&scene);
    fs::write(&config, "[SSH]\nsequence = none\n").expect("config");
    machine
        .systemctl("kill --kill-who=main --signal=KILL knockd")
        .expect("kill");
    wait_for("a failed unit", || {
        (machine.property("ActiveState") == "failed").then_some(())
    });
    assert_eq!(rules(&scene), 0);
}
