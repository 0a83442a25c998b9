//! Settings that stay the same across reloads, and loading of the config.
#![forbid(unsafe_code)]

use super::config_file::{self, mode_advice};
use super::doors::{self, DoorRuntime};
use super::secure_open;
use super::state::Instance;
use crate::capture::interfaces::{Interfaces, Selector};
use crate::cli::{self, KnockdArgs};
use crate::config::{self, Config, Options};
use crate::sys::file;
use crate::sys::netlink::Netlink;
use std::path::{Path, PathBuf};

/// The PID file, if neither config nor command line names one.
const PID_FILE: &str = "/var/run/knockd.pid";

/// The interface, if neither config nor command line names one.
const INTERFACE: &str = "eth0";

/// Settings that stay the same across reloads: the command line and where it was entered.
pub struct Settings {
    /// The command line.
    pub args: KnockdArgs,
    /// The config file as the user wrote it, for messages.
    pub config: PathBuf,
    /// The directory at which relative paths start. The daemon later changes its own to `/`.
    pub directory: PathBuf,
    /// Identifies this daemon. The same for every spelling of the config's path.
    pub(crate) instance: Instance,
}

impl Settings {
    /// Creates the settings of this command line, entered in the current working directory.
    pub fn new(args: KnockdArgs) -> Settings {
        let config = args.config.clone().unwrap_or_else(|| {
            let program = file::link(Path::new("/proc/self/exe")).unwrap_or_default();
            cli::default_config(&program, |path| file::find(path).is_ok())
        });
        let directory =
            file::link(Path::new("/proc/self/cwd")).unwrap_or_else(|_| PathBuf::from("/"));
        let path = directory.join(&config);
        let path = secure_open::canonical(&path).unwrap_or(path);
        Settings {
            instance: Instance::new(&path, args.interface.as_deref()),
            args,
            config,
            directory,
        }
    }

    /// Returns the absolute path of the config file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join(&self.config)
    }

    /// Returns `-i`, the config's `Interface`, or eth0; see [`load`](Self::load).
    pub fn interface<'a>(&'a self, options: &'a Options) -> &'a str {
        let named = self
            .args
            .interface
            .as_deref()
            .or(options.interface.as_deref());
        named.unwrap_or(INTERFACE)
    }

    /// Returns the absolute path of `StateDir`.
    pub fn state_dir(&self, options: &Options) -> PathBuf {
        self.directory.join(&options.state_dir)
    }

    /// Returns the config's `LogFile`, or `-g`.
    pub(super) fn log_file(&self, options: &Options) -> Option<PathBuf> {
        let named = options
            .log_file
            .as_deref()
            .or(self.args.log_file.as_deref());
        let named = named.filter(|path| !path.as_os_str().is_empty());
        named.map(|path| self.directory.join(path))
    }

    /// Returns the config's `PidFile`, or `-p`.
    pub(super) fn pid_file(&self, options: &Options) -> PathBuf {
        let named = options
            .pid_file
            .as_deref()
            .or(self.args.pid_file.as_deref());
        let named = named.filter(|path| !path.as_os_str().is_empty());
        self.directory.join(named.unwrap_or(Path::new(PID_FILE)))
    }

    /// Reads the config. `trace` receives the lines for `-D`. The error is a message for the user.
    pub(crate) fn parse(&self, trace: &mut dyn FnMut(&str)) -> Result<Config, String> {
        let text = match config_file::read(&self.config_path()) {
            Ok(text) => text,
            Err(mut error) => {
                error.path.clone_from(&self.config);
                return Err(error.to_string());
            }
        };
        let mut config = match config::parse_beside(&text, self.args.interface.is_some(), trace) {
            Ok(config) => config,
            Err(problem) => return Err(problem.show(&self.config)),
        };
        if self.args.strict {
            config.options.apply_strict_preset();
        }
        // A user who can write this file decides what root runs. Other advice is only for --check.
        if let Ok(found) = file::find(&self.config_path())
            && (self.args.check || found.mode & 0o022 != 0 || !secure_open::is_trusted(found.user))
        {
            let advice = mode_advice(found.mode, found.user, "its commands run as root");
            config.warnings.extend(advice);
        }
        Selector::list(self.interface(&config.options))?;
        Ok(config)
    }

    /// Reads the config and the first lines of its one-time lists. Returns the config without its
    /// doors, and the doors. Uses `auto` if no interface is named and eth0 does not exist. `trace`
    /// receives the lines for `-D`, `report` the errors in single lines of the lists. The error is
    /// a message for the user.
    pub fn load(
        &self,
        trace: &mut dyn FnMut(&str),
        report: &mut dyn FnMut(String),
    ) -> Result<(Config, Vec<DoorRuntime>), String> {
        let mut config = self.parse(trace)?;
        let interface = &mut config.options.interface;
        if self.args.interface.is_none() && interface.is_none() && !interface_exists(INTERFACE) {
            report("warning: no interface is named and there is no eth0: using auto".to_string());
            *interface = Some("auto".to_string());
        }
        let doors = std::mem::take(&mut config.doors);
        let doors = doors::open(doors, &self.directory, &config.options, trace, report)?;
        Ok((config, doors))
    }
}

/// Returns whether such an interface exists, or `true` if that cannot be determined.
fn interface_exists(name: &str) -> bool {
    let interfaces = Netlink::ask().and_then(|netlink| Interfaces::read(&netlink, false));
    interfaces.map_or(true, |all| all.links.iter().any(|link| link.name == name))
}
