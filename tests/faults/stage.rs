//! One daemon of a story: its directory, its board, its output, and what it has opened.

use crate::board::{Board, Fault, Kind};
use crate::lab::{CLIENT, Daemon, Home, OTHER, ROUTER, Scene, daemon_binary, knock_binary, packet};
use crate::library::preload;
use crate::subject::{End, Subject, has_ended, processes_in};
use std::cell::Cell;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// From the call until the daemon listens or has reported why it cannot.
const START: Duration = Duration::from_secs(15);
/// Knocks until a door opens. In the meantime a listener may have to be restarted.
const OPEN: Duration = Duration::from_secs(6);
/// From a deadline to the end of the stop command.
const SLACK: Duration = Duration::from_secs(5);
/// From SIGTERM to the exit.
const END: Duration = Duration::from_secs(12);
/// The commands' timeout.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The keeper's descriptors: standard streams, log, instance directory and its lock, the empty
/// directories for the listener and the lookup process, both ends of the self-pipe, listener socket
/// and its packet socket, control socket.
const DESCRIPTORS: usize = 13;

/// A log line with one of these texts admits that a door may be open, and until when.
const ADMISSIONS: &[&str] = &["did not end in time", "will stay open", "may still be open"];

/// The keeper was killed, as the fault intended.
pub struct Killed;

/// The outcome of a start.
#[derive(PartialEq, Eq)]
pub enum Start {
    Listening,
    /// It refused to start and printed this reason.
    Refused(String),
}

/// A directory with a config, on one network.
pub struct Stage<'a> {
    pub scene: &'a Scene,
    pub home: Home,
    pub board: Board,
    syslog: Option<UnixDatagram>,
    /// Where the current daemon's part of the log file begins.
    log_start: Cell<usize>,
    kill: bool,
}

/// Each note contains what the command sees of the preloaded library, which must be nothing.
const CONFIG: &str = "
[SSH]
    sequence = 7000,8000:udp,9000
    tcpflags = syn
    start_command = echo start$LD_PRELOAD >> @HOME@/notes.%IP%; mktemp @HOME@/rules/%IP%.XXXXXX > /dev/null
    cmd_timeout = 1
    stop_command = echo stop$LD_PRELOAD >> @HOME@/notes.%IP%; for rule in @HOME@/rules/%IP%.*; do rm $rule; exit; done
[Slow]
    sequence = 7100,8100:udp,9100
    tcpflags = syn
    start_command = mktemp @HOME@/rules/slow.XXXXXX > /dev/null; sleep 30
    cmd_timeout = 1
    stop_command = rm @HOME@/rules/slow.*
[Once]
    one_time_sequences = @HOME@/list
    tcpflags = syn
    command = grep -c '^#' @HOME@/list >> @HOME@/once
";

/// The one-time sequences. Each has two ports derived from its number.
const LIST: [u16; 4] = [1001, 2001, 3001, 4001];

pub const SSH: &[&str] = &["7000", "8000:udp", "9000"];
pub const SLOW: &[&str] = &["7100", "8100:udp", "9100"];

impl<'a> Stage<'a> {
    pub fn new(scene: &'a Scene, fault: Option<Fault>) -> Stage<'a> {
        Stage::with(scene, fault, "")
    }

    /// Adds a syslog daemon. A daemon started with `-d` sees it as /dev/log.
    pub fn with_syslog(scene: &'a Scene, fault: Option<Fault>) -> Stage<'a> {
        let mut stage = Stage::with(scene, fault, "UseSyslog");
        fs::create_dir(stage.home.path("dev")).expect("directory");
        let syslog = UnixDatagram::bind(stage.home.path("dev/log")).expect("socket");
        syslog.set_nonblocking(true).expect("socket");
        stage.syslog = Some(syslog);
        stage
    }

    fn with(scene: &'a Scene, fault: Option<Fault>, options: &str) -> Stage<'a> {
        let home = Home::new();
        let rule = home.path("rules/ban").display().to_string();
        let options = format!(
            "{options}\nLogFile = {}\nPidFile = {}
            Tripwire = 20-29
            TripwireHits = 2
            BanTime = 1
            BanCommand = mktemp {rule}.XXXXXX > /dev/null
            UnbanCommand = rm {rule}.*",
            home.path("log").display(),
            home.path("pid").display()
        );
        home.config_with_options(&options, CONFIG);
        let list = LIST.map(|port| format!("{port}:tcp,{}:udp\n", port + 1));
        home.write("list", &list.concat());
        fs::create_dir(home.path("rules")).expect("directory");
        Stage {
            scene,
            board: Board::create(&home.path("board"), fault).expect("board"),
            home,
            syslog: None,
            log_start: Cell::new(0),
            kill: fault.is_some_and(|fault| fault.kind == Kind::Kill),
        }
    }

    /// Starts the daemon. `faulty` injects the fault into it.
    pub fn spawn(&self, arguments: &[&str], faulty: bool) -> Subject {
        self.log_start.set(self.home.read("log").len());
        let detaches = arguments.contains(&"-d");
        let mut command = match detaches && self.syslog.is_some() {
            true => self.with_dev_log(),
            false => Command::new(daemon_binary()),
        };
        command
            .args(["-v", "-i", "wan0", "-c"])
            .arg(self.home.path("knockd.conf"))
            .args(arguments);
        if faulty {
            preload(&mut command, &self.home.path("board"));
        }
        let called = self.scene.router.enter(|| Daemon::run(command));
        Subject::new(called, detaches)
    }

    /// A shell that becomes the daemon, with its own /dev.
    fn with_dev_log(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-ec"])
            .arg("mknod -m 666 dev/null c 1 3; mknod -m 666 dev/urandom c 1 9; mount --bind dev /dev; cd /; exec \"$0\" \"$@\"")
            .arg(daemon_binary())
            .current_dir(&self.home);
        command
    }

    /// Sends a request to the daemon.
    pub fn ask(&self, arguments: &[&str], faulty: bool) -> Output {
        let mut command = Command::new(daemon_binary());
        command
            .args(arguments)
            .arg("-c")
            .arg(self.home.path("knockd.conf"));
        if faulty {
            preload(&mut command, &self.home.path("board"));
        }
        command.output().expect("knockd")
    }

    /// Knocks at SSH with the real client, into which the fault is injected.
    pub fn client(&self) -> Output {
        let mut command = Command::new(knock_binary());
        command.args(["-d", "20", ROUTER]).args(SSH);
        preload(&mut command, &self.home.path("board"));
        let knock = || command.output().expect("knock");
        self.scene.wan.enter(knock)
    }

    /// Starts a daemon without a fault, which must succeed.
    pub fn start_without_fault(&self) -> Subject {
        let mut daemon = self.spawn(&[], false);
        match self.await_start(&mut daemon) {
            Ok(Start::Listening) => daemon,
            Ok(Start::Refused(why)) => panic!("the next start was refused: {why}"),
            Err(Killed) => panic!("the next start was killed"),
        }
    }

    /// Waits until it listens or has refused to start with a proper message.
    pub fn await_start(&self, daemon: &mut Subject) -> Result<Start, Killed> {
        let end = Instant::now() + START;
        loop {
            let detached = daemon.detached(&self.scene.router, "knockd.conf");
            let ready = ["listening on ", "starting up, waiting for "];
            let is_ready = || ready.iter().any(|words| self.said(daemon, words));
            if detached || daemon.exit_code_is_known() && is_ready() {
                return Ok(Start::Listening);
            }
            if let Some(end) = daemon.ended() {
                // It may have gone into the background since the last check.
                if daemon.detached(&self.scene.router, "knockd.conf") {
                    return Ok(Start::Listening);
                }
                self.check_killed(end)?;
                let why = self.await_errors(daemon);
                assert_eq!(end.code, Some(1), "a start that failed");
                assert!(!why.trim().is_empty(), "refused without an error message");
                return Ok(Start::Refused(why));
            }
            assert!(Instant::now() < end, "neither listens nor refuses to start");
            pause();
        }
    }

    fn check_killed(&self, end: End) -> Result<(), Killed> {
        if self.kill && self.board.fired() && end.killed {
            return Err(Killed);
        }
        Ok(())
    }

    /// The thread that reads its standard error can lag behind.
    fn await_errors(&self, daemon: &Subject) -> String {
        let end = Instant::now() + Duration::from_millis(500);
        while daemon.called.errors().is_empty() && Instant::now() < end {
            pause();
        }
        daemon.called.errors()
    }

    /// Waits for a condition during which the daemon must stay alive.
    pub fn await_alive(
        &self,
        daemon: &mut Subject,
        limit: Duration,
        what: &str,
        mut is: impl FnMut(&Subject) -> bool,
    ) -> Result<(), Killed> {
        let end = Instant::now() + limit;
        while !is(daemon) {
            self.read_syslog();
            if let Some(end) = daemon.ended() {
                self.check_killed(end)?;
                panic!("the daemon ended ({end:?}) before {what}");
            }
            assert!(Instant::now() < end, "timed out after {limit:?}: {what}");
            pause();
        }
        Ok(())
    }

    /// Drains the syslog socket.
    fn read_syslog(&self) {
        let mut buffer = [0; 2000];
        while let Some(Ok(_)) = self.syslog.as_ref().map(|syslog| syslog.recv(&mut buffer)) {}
    }

    /// Whether the daemon has printed or logged `text` anywhere.
    pub fn said(&self, daemon: &Subject, text: &str) -> bool {
        self.times_said(daemon, text) > 0
    }

    fn times_said(&self, daemon: &Subject, text: &str) -> usize {
        let log = self.home.read("log");
        let log = log.get(self.log_start.get()..).unwrap_or_default();
        daemon.called.count(text).max(log.matches(text).count())
    }

    /// Sends one knock from `source`.
    pub fn knock(&self, source: &str, steps: &[&str]) {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        for step in steps {
            let packet = match step.strip_suffix(":udp") {
                Some(port) => packet::udp(source, ROUTER, port.parse().expect("port")),
                None => {
                    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                    packet::syn(source, ROUTER, step.parse().expect("port"), number)
                }
            };
            self.scene.wire.send(&packet);
            // Keeps the steps from being reordered.
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    /// Knocks until the condition holds. A single knock may be lost, but the daemon must keep
    /// listening.
    fn knock_until(
        &self,
        daemon: &mut Subject,
        what: &str,
        mut knock: impl FnMut(),
        mut is: impl FnMut(&Subject) -> bool,
    ) -> Result<(), Killed> {
        let mut next = Instant::now();
        self.await_alive(daemon, OPEN, what, |daemon| {
            if is(daemon) {
                return true;
            }
            if next <= Instant::now() {
                knock();
                next = Instant::now() + Duration::from_millis(400);
            }
            false
        })
    }

    /// Opens SSH for the client while another source sends half a knock.
    pub fn open(&self, daemon: &mut Subject) -> Result<(), Killed> {
        self.knock(OTHER, &SSH[..2]);
        self.knock_until(
            daemon,
            "an open door",
            || self.knock(CLIENT, SSH),
            |_| self.rules(CLIENT) > 0,
        )
    }

    /// Gets a source banned.
    pub fn ban(&self, daemon: &mut Subject) -> Result<(), Killed> {
        self.knock_until(
            daemon,
            "a ban",
            || self.knock("203.0.113.5", &["20", "21"]),
            |_| self.rules("ban") > 0,
        )
    }

    /// Opens a door with a slow start command.
    pub fn open_slow(&self, daemon: &mut Subject) -> Result<(), Killed> {
        self.knock_until(
            daemon,
            "a slow door",
            || self.knock(CLIENT, SLOW),
            |_| self.rules("slow") > 0,
        )
    }

    /// Waits until no door is open.
    pub fn await_closed(&self, daemon: &mut Subject) -> Result<(), Killed> {
        self.await_alive(daemon, TIMEOUT + SLACK, "a closed door", |daemon| {
            self.rules("") == 0 || ADMISSIONS.iter().any(|words| self.said(daemon, words))
        })
    }

    /// Uses a one-time sequence twice. The second time must not open anything. The daemon may have
    /// disabled the door.
    pub fn open_once(&self, daemon: &mut Subject) -> Result<(), Killed> {
        let knock = |port: u16| {
            self.knock(CLIENT, &[&port.to_string(), &format!("{}:udp", port + 1)]);
        };
        let before = self.uses();
        let due = || {
            let unused = |port: &&u16| self.home.read("list").contains(&format!("{port}:"));
            LIST.iter().find(unused).copied()
        };
        let first = due();
        self.knock_until(
            daemon,
            "a one-time door",
            || knock(due().expect("an unused sequence")),
            |daemon| self.uses() > before || self.said(daemon, "disabling the door"),
        )?;
        first.into_iter().for_each(knock);
        self.fence(daemon)?;
        assert!(self.uses() <= self.marks(), "a sequence opened twice");
        if self.said(daemon, "error while disabling used one time sequence") {
            assert_eq!(
                self.uses(),
                before,
                "opened before the line was marked on disk"
            );
        }
        Ok(())
    }

    fn marks(&self) -> usize {
        self.home.read("list").matches('#').count()
    }

    fn uses(&self) -> usize {
        self.home.read("once").lines().count()
    }

    /// Waits until the daemon has handled every packet sent before.
    fn fence(&self, daemon: &mut Subject) -> Result<(), Killed> {
        let opened = |daemon: &Subject| self.times_said(daemon, "fence: OPEN SESAME");
        let before = opened(daemon);
        self.knock_until(
            daemon,
            "the fence",
            || self.knock(CLIENT, &["9:udp"]),
            |daemon| opened(daemon) > before,
        )
    }

    /// The number of rules whose name starts with `name`.
    pub fn rules(&self, name: &str) -> usize {
        let entries = fs::read_dir(self.home.path("rules")).expect("rules");
        let matching = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(name);
        entries.flatten().filter(matching).count()
    }

    /// How often SSH's commands ran for the client.
    pub fn notes(&self, word: &str) -> usize {
        let notes = self.home.read(&format!("notes.{CLIENT}"));
        notes.lines().filter(|&line| line == word).count()
    }

    /// Sends SIGTERM and waits for the exit.
    pub fn end(&self, daemon: &mut Subject) -> Result<(), Killed> {
        assert_eq!(self.zombies(daemon), 0, "zombies");
        self.check_descriptors(daemon);
        daemon.signal(libc::SIGTERM);
        let end = Instant::now() + END;
        let how = loop {
            if let Some(how) = daemon.ended() {
                break how;
            }
            assert!(Instant::now() < end, "SIGTERM did not end the daemon");
            pause();
        };
        self.check_killed(how)?;
        if daemon.exit_code_is_known() {
            assert_eq!(how.code, Some(libc::SIGTERM), "the exit code");
        }
        Ok(())
    }

    /// Checks that the daemon leaks no descriptors. Those of a starting process close within a
    /// moment.
    fn check_descriptors(&self, daemon: &Subject) {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let directory = fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
            let open = directory.map_or(0, Iterator::count);
            // With -d also syslog and the lookup process.
            let most = DESCRIPTORS + if daemon.exit_code_is_known() { 0 } else { 2 };
            if open <= most {
                return;
            }
            assert!(Instant::now() < end, "{open} descriptors are open");
            pause();
        }
    }

    /// Zombie children of the daemon that it does not reap.
    fn zombies(&self, daemon: &Subject) -> usize {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let children = crate::lab::children(daemon.pid());
            let dead = children.into_iter().filter(|pid| has_ended(*pid)).count();
            if dead == 0 || Instant::now() > end {
                return dead;
            }
            pause();
        }
    }

    /// Checks what must hold after every exit. `errors` is the daemon's stderr. `killed` says that
    /// it did not exit properly, so commands and open doors can remain until the next start.
    pub fn check_end(&self, killed: bool, errors: &str) {
        if !killed {
            self.await_no_processes();
        }
        if killed || self.rules("") > 0 {
            let log = self.home.read("log");
            let is_admitted = |words: &&&str| errors.contains(**words) || log.contains(**words);
            assert!(
                killed || ADMISSIONS.iter().any(|words| is_admitted(&words)),
                "{} doors stay open without a log line that says so",
                self.rules("")
            );
            let mut daemon = self.start_without_fault();
            let unharmed = self
                .await_closed(&mut daemon)
                .and_then(|()| self.end(&mut daemon));
            assert!(unharmed.is_ok(), "killed");
            assert_eq!(self.rules(""), 0, "open after the next start");
            self.await_no_processes();
        }
        assert_eq!(
            self.home.read(&format!("notes.{OTHER}")),
            "",
            "half a knock opened"
        );
        let notes = self.home.read(&format!("notes.{CLIENT}"));
        assert!(
            !notes.contains('/'),
            "commands inherit the library: {notes}"
        );
        let marks: Vec<u32> = self
            .home
            .read("once")
            .lines()
            .map(|line| line.parse().expect("a number"))
            .collect();
        // A command that had to wait can have seen more.
        let marked = (1..)
            .zip(&marks)
            .all(|(use_number, marks)| use_number <= *marks);
        assert!(marked, "opened before the line was marked: {marks:?}");
        assert!(!self.board.panicked(), "a process panicked");
    }

    /// Waits until no process is left on the router.
    fn await_no_processes(&self) {
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            let left = processes_in(&self.scene.router);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "processes were left behind: {left:?}");
            pause();
        }
    }
}

/// The pause between two checks.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
