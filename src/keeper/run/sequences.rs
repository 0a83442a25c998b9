//! One-time sequences: marks the current one as used and sends the listener the next.
#![forbid(unsafe_code)]

use super::Keeper;
use crate::ipc::ToListener;
use crate::keeper::doors::exhausted;
use crate::keeper::log::LogKind;
use crate::knock::Trigger;

impl Keeper {
    /// Marks the door's one-time sequence as used, on disk. Returns `false` if that fails; then the
    /// door must stay closed.
    pub(super) fn use_sequence(&mut self, index: usize) -> bool {
        let Some(door) = self.doors.get_mut(index) else {
            return false;
        };
        let Trigger::OneTime(list) = &mut door.trigger else {
            return true;
        };
        let Some(sequence) = &list.current else {
            return false;
        };
        match list.mark_used(sequence) {
            Ok(()) => true,
            Err(error) => {
                let text = format!(
                    "error while disabling used one time sequence for door {} --> disabling the \
                     door ({}: {})",
                    door.config.name,
                    list.path().to_string_lossy(),
                    error
                );
                list.current = None;
                door.generation += 1;
                let generation = door.generation;
                self.log.log(LogKind::Error, &text);
                self.send_sequence(index, generation);
                false
            }
        }
    }

    /// Sends the listener the door's next one-time sequence. Does nothing if the list is disabled
    /// because its last sequence could not be marked.
    pub(super) fn next_sequence(&mut self, index: usize) {
        let Some(door) = self.doors.get_mut(index) else {
            return;
        };
        let list = match &mut door.trigger {
            Trigger::OneTime(list) if list.current.is_some() => list,
            _ => return,
        };
        let name = &door.config.name;
        let mut problems = Vec::new();
        let next = list.next(&mut |problem| problems.push(problem));
        match &next {
            Ok(Some(sequence)) => {
                self.log.log(
                    LogKind::Debug,
                    &format_args!("new sequence for door {name}: {sequence}"),
                );
            }
            Ok(None) => problems.push(exhausted(name)),
            Err(error) => problems.push(format!(
                "error: {}: {} --> disabling the door {name}",
                list.path().to_string_lossy(),
                error
            )),
        }
        list.current = next.unwrap_or(None);
        door.generation += 1;
        let generation = door.generation;
        for problem in problems {
            self.log.log(LogKind::Error, &problem);
        }
        self.send_sequence(index, generation);
    }

    pub(super) fn send_sequence(&mut self, index: usize, generation: u32) {
        let (Some(listener), Some(door)) = (&self.listener, self.doors.get(index)) else {
            return;
        };
        let sequence = door.sequence().cloned();
        let record = ToListener::Sequence {
            door: index as u16,
            generation,
            sequence,
        };
        if listener.send(record).is_err() {
            self.listener_died("listener does not accept records");
        }
    }
}
