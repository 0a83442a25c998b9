//! A second implementation of knockd 0.8's matching rule, small and slow, following its
//! specification. The two habits of 0.8 that this program does not share can be switched on and
//! off. The model thus predicts exactly what each program must log.

use crate::packet::{Packet, SERVER, SERVER_SECOND, SERVER6};
use std::net::IpAddr;

/// A door of a generated config.
#[derive(Clone, Debug, PartialEq)]
pub struct Door {
    pub name: String,
    /// Port, and whether it is UDP.
    pub steps: Vec<(u16, bool)>,
    pub set: u8,
    pub clear: u8,
    pub target: Option<IpAddr>,
    pub seq_timeout: u32,
    pub start: Option<String>,
    pub start_6: Option<String>,
    pub cmd_timeout: u32,
    pub stop: Option<String>,
    pub stop_6: Option<String>,
}

impl Door {
    fn fits_flags(&self, packet: &Packet) -> bool {
        packet
            .flags
            .is_none_or(|flags| flags & self.set == self.set && flags & self.clear == 0)
    }

    fn accepts(&self, destination: IpAddr) -> bool {
        let local = || {
            [SERVER, SERVER_SECOND, SERVER6]
                .iter()
                .any(|a| a.parse() == Ok(destination))
        };
        self.target
            .map_or_else(local, |target| target == destination)
    }

    fn wants(&self, packet: &Packet) -> bool {
        let step = (packet.port, packet.flags.is_none());
        self.accepts(packet.destination) && self.fits_flags(packet) && self.steps.contains(&step)
    }
}

/// What 0.8 does and this program does not.
#[derive(Clone, Copy)]
pub struct Habits {
    /// When the oldest attempt of all has ended, the others are forgotten (D-MAT-01).
    pub forgets: bool,
    /// The attempts that one packet advances are in the order of their creation instead of the
    /// config (D-MAT-08).
    pub creation_order: bool,
}

pub const ORIGINAL: Habits = Habits {
    forgets: true,
    creation_order: true,
};
pub const OURS: Habits = Habits {
    forgets: false,
    creation_order: false,
};

struct Attempt {
    door: usize,
    source: IpAddr,
    stage: usize,
    start: u32,
    over: bool,
}

/// The log: lines about knocks in order, lines about commands sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logged {
    pub knocks: Vec<String>,
    pub commands: Vec<String>,
}

/// Plays the packets, each with its second. An attempt that has timed out is reported with the next
/// packet.
pub fn play(doors: &[Door], packets: &[(u32, Packet)], habits: Habits) -> Logged {
    let mut logged = Logged::default();
    let mut attempts: Vec<Attempt> = Vec::new();
    for (now, packet) in packets {
        // The filter passes only packets that some door wants.
        if !doors.iter().any(|door| door.wants(packet)) {
            continue;
        }
        for attempt in attempts.iter_mut().filter(|attempt| !attempt.over) {
            let door = &doors[attempt.door];
            if now - attempt.start >= door.seq_timeout {
                attempt.over = true;
                let (who, name, stage) = (attempt.source, &door.name, attempt.stage);
                let line = format!("{who}: {name}: sequence timeout (stage {stage})");
                logged.knocks.push(line);
            }
        }
        if habits.forgets && attempts.first().is_some_and(|oldest| oldest.over) {
            attempts.clear();
        }
        attempts.retain(|attempt| !attempt.over);
        let is_found =
            |a: &Attempt| a.source == packet.source && doors[a.door].accepts(packet.destination);
        let mut found: Vec<usize> = (0..attempts.len())
            .filter(|&i| is_found(&attempts[i]))
            .collect();
        if found.is_empty() {
            let step = (packet.port, packet.flags.is_none());
            for (number, door) in doors.iter().enumerate() {
                let fits = door.fits_flags(packet) && door.accepts(packet.destination);
                if fits && door.steps[0] == step {
                    attempts.push(Attempt {
                        door: number,
                        source: packet.source,
                        stage: 0,
                        start: *now,
                        over: false,
                    });
                    let last = attempts.len() - 1;
                    advance(doors, &mut attempts[last], &mut logged);
                }
            }
            continue;
        }
        if !habits.creation_order {
            found.sort_by_key(|&i| attempts[i].door);
        }
        for index in found {
            let attempt = &mut attempts[index];
            let door = &doors[attempt.door];
            if !door.fits_flags(packet) {
                continue;
            }
            if door.steps[attempt.stage] == (packet.port, packet.flags.is_none()) {
                advance(doors, attempt, &mut logged);
            } else {
                attempt.over = true;
            }
        }
    }
    logged.commands.sort_unstable();
    logged
}

fn advance(doors: &[Door], attempt: &mut Attempt, logged: &mut Logged) {
    let door = &doors[attempt.door];
    let (who, name) = (attempt.source, &door.name);
    attempt.stage += 1;
    logged
        .knocks
        .push(format!("{who}: {name}: Stage {}", attempt.stage));
    if attempt.stage < door.steps.len() {
        return;
    }
    attempt.over = true;
    logged.knocks.push(format!("{who}: {name}: OPEN SESAME"));
    let pick = |v4: &Option<String>, v6: &Option<String>| match (who.is_ipv6(), v6) {
        (true, Some(command)) => Some(command.clone()),
        _ => v4.clone(),
    };
    let Some(start) = pick(&door.start, &door.start_6).filter(|command| !command.is_empty()) else {
        return;
    };
    let expand = |command: &str| command.replace("%IP%", &who.to_string());
    logged
        .commands
        .push(format!("{name}: running command: {}", expand(&start)));
    if let Some(stop) = pick(&door.stop, &door.stop_6) {
        logged
            .commands
            .push(format!("{who}: {name}: command timeout"));
        logged
            .commands
            .push(format!("{name}: running command: {}", expand(&stop)));
    }
}
