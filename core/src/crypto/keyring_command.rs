//! Reads the keyring from the output of `watchllm_keys.master_key_command`, e.g. a Vault, KMS or
//! Secret Manager client. Runs inside a PostgreSQL backend: one thread, poll with a deadline, no
//! signal handler touched. Such clients print tokens on stderr, so it is discarded
//! (docs/architecture.md#crypto).

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use zeroize::Zeroizing;

use super::keyring::{Keyring, KeyringError, MAX_SOURCE_BYTES};

/// How often to check whether a command has ended that closed its output. It usually ends at once.
const END_CHECK: Duration = Duration::from_millis(5);
/// How long one wait for output lasts before the caller gets its turn for other work.
const SLICE: Duration = Duration::from_millis(10);

/// How long the command may go on: until a deadline, and while `meanwhile` allows it. `meanwhile`
/// is called every few milliseconds.
struct Patience<'a> {
    deadline: Instant,
    meanwhile: &'a mut dyn FnMut() -> bool,
}

impl Patience<'_> {
    /// The next slice of waiting. An error when the time is up or the caller wants to stop.
    fn next(&mut self, slice: Duration) -> Result<Duration, KeyringError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(KeyringError::CommandTimedOut);
        }
        if (self.meanwhile)() { Ok(left.min(slice)) } else { Err(KeyringError::CommandStopped) }
    }
}

impl Keyring {
    /// Runs `/bin/sh -c command` and parses what it prints, within `timeout` and 64 KiB. The exit
    /// status must be 0. All processes it started are ended with it, unless one moved to a process
    /// group of its own. `meanwhile` is called every few milliseconds, to do other work. The
    /// command is ended as soon as `meanwhile` answers false.
    pub fn run_command(
        command: &str,
        timeout: Duration,
        meanwhile: &mut dyn FnMut() -> bool,
    ) -> Result<Keyring, KeyringError> {
        // A timeout beyond what the clock can hold becomes a year.
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(31_536_000));
        let patience = &mut Patience { deadline, meanwhile };
        let mut running = Running { shell: start(command).map_err(not_run)?, reaped: false };
        let output = running.output(patience)?;
        let status = running.end(patience)?;
        match status.code() {
            Some(0) => Keyring::parse(&output),
            Some(code) => Err(KeyringError::CommandFailed(code)),
            None => Err(KeyringError::CommandKilled),
        }
    }
}

fn not_run(error: io::Error) -> KeyringError {
    KeyringError::CommandNotRun(error.kind())
}

/// Starts the shell in a process group of its own, so that it can be ended with all its children.
/// PostgreSQL's backends change SIGPIPE and the signal mask. The standard library sets both back to
/// their defaults.
fn start(command: &str) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// A started command. Whichever way a function leaves, its process group is killed and the shell
/// reaped.
struct Running {
    shell: Child,
    /// After reaping, the process id may belong to another process: it must never be killed again.
    reaped: bool,
}

impl Running {
    /// Reads standard output to its end. The buffer never grows, so no unwiped copy is left behind.
    fn output(&mut self, patience: &mut Patience) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let mut bytes = Zeroizing::new(vec![0u8; MAX_SOURCE_BYTES + 1]);
        let mut length = 0;
        // `take` closes the pipe when this returns, so that the command does not wait to write.
        let Some(mut stdout) = self.shell.stdout.take() else {
            return Err(KeyringError::CommandNotRun(io::ErrorKind::BrokenPipe));
        };
        while length < bytes.len() {
            wait_readable(&stdout, patience)?;
            match stdout.read(&mut bytes[length..]) {
                Ok(0) => {
                    bytes.truncate(length);
                    return Ok(bytes);
                }
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(not_run(error)),
            }
        }
        Err(KeyringError::TooLong)
    }

    /// Waits for the shell to end, kills the processes it left behind, and tells how it ended.
    fn end(&mut self, patience: &mut Patience) -> Result<ExitStatus, KeyringError> {
        while !self.has_ended()? {
            std::thread::sleep(patience.next(END_CHECK)?);
        }
        self.kill_and_reap().map_err(not_run)
    }

    /// Checks whether the shell has ended, without reaping it.
    fn has_ended(&self) -> Result<bool, KeyringError> {
        let Some(pid) = self.pid() else {
            return Ok(true);
        };
        match waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
        ) {
            Ok(ended) => Ok(ended.is_some()),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(not_run(error.into())),
        }
    }

    /// Kills the group, then reaps the shell. Until the shell is reaped, nobody else can get its
    /// process id or its group's. A shell that ended by itself keeps its exit status.
    fn kill_and_reap(&mut self) -> io::Result<ExitStatus> {
        if let (Some(pid), false) = (self.pid(), self.reaped) {
            // Fails only where no process is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.reaped = true;
        self.shell.wait()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.kill_and_reap();
        }
    }
}

/// Waits until there is something to read, or the end of the output. A signal (PostgreSQL's latch)
/// only interrupts the wait.
fn wait_readable(stdout: &ChildStdout, patience: &mut Patience) -> Result<(), KeyringError> {
    loop {
        let slice =
            Timespec::try_from(patience.next(SLICE)?).map_err(|_| KeyringError::CommandTimedOut)?;
        match poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&slice)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(not_run(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn run(command: &str, timeout: Duration) -> Result<Vec<u32>, KeyringError> {
        Keyring::run_command(command, timeout, &mut || true).map(|keyring| keyring.versions())
    }

    #[test]
    fn a_caller_that_must_leave_ends_the_command() {
        let mut slices = 0;
        let mut meanwhile = || {
            slices += 1;
            slices < 3
        };
        let started = Instant::now();
        assert!(matches!(
            Keyring::run_command("sleep 30", LONG, &mut meanwhile),
            Err(KeyringError::CommandStopped)
        ));
        assert!(slices == 3 && started.elapsed() < LONG);
    }

    fn secret() -> String {
        "k".repeat(32)
    }

    #[test]
    fn what_it_prints_is_the_keyring() {
        assert_eq!(run(&format!("printf '1:%s\\n2:%s' {0} {0}", secret()), LONG), Ok(vec![1, 2]));
        assert_eq!(run("true", LONG), Err(KeyringError::Empty));
    }

    #[test]
    fn a_failure_is_told_by_its_exit_status_alone() {
        let error =
            run(&format!("echo 1:{}; echo oops >&2; exit 3", secret()), LONG).expect_err("refused");
        assert_eq!(error, KeyringError::CommandFailed(3));
        assert_eq!(error.to_string(), "the keyring command ended with exit status 3");
        assert_eq!(run("/no/such/client", LONG), Err(KeyringError::CommandFailed(127)));
        assert_eq!(run("kill -9 $$", LONG), Err(KeyringError::CommandKilled));
    }

    #[test]
    fn one_that_hangs_is_ended_with_its_children() {
        let (started, marker) = (Instant::now(), format!("30.{}", std::process::id()));
        let commands = [
            format!("sleep {marker}; true"),
            format!("exec >&-; sleep {marker}; true"),
            // the shell has ended, its child holds the output open
            format!("sleep {marker} & true"),
        ];
        for command in commands {
            assert_eq!(
                run(&command, Duration::from_millis(200)),
                Err(KeyringError::CommandTimedOut)
            );
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_gone(&marker);
    }

    #[test]
    fn children_left_behind_do_not_stay() {
        let marker = format!("31.{}", std::process::id());
        assert_eq!(run(&format!("sleep {marker} >&- & echo 1:{}", secret()), LONG), Ok(vec![1]));
        assert_gone(&marker);
    }

    #[test]
    fn output_without_end_is_refused() {
        let started = Instant::now();
        assert_eq!(run("yes '# comment'", LONG), Err(KeyringError::TooLong));
        assert_eq!(run("head -c 65537 /dev/zero", LONG), Err(KeyringError::TooLong));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn no_time_and_endless_time_are_both_understood() {
        assert_eq!(run("true", Duration::ZERO), Err(KeyringError::CommandTimedOut));
        assert_eq!(run(&format!("echo 1:{}", secret()), Duration::MAX), Ok(vec![1]));
    }

    #[test]
    fn it_reads_nothing_and_inherits_the_environment() {
        assert_eq!(run("cat", LONG), Err(KeyringError::Empty));
        assert_eq!(run(&format!("test -n \"$PATH\" && echo 1:{}", secret()), LONG), Ok(vec![1]));
    }

    /// Fails if a process with this argument still runs. A killed process may take a moment to
    /// disappear.
    fn assert_gone(argument: &str) {
        let runs = || {
            let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
            processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()).any(
                |line| {
                    line.starts_with(b"sleep\0")
                        && String::from_utf8_lossy(&line).contains(argument)
                },
            )
        };
        let deadline = Instant::now() + Duration::from_secs(3);
        while runs() && Instant::now() < deadline {
            std::thread::sleep(END_CHECK);
        }
        assert!(!runs());
    }
}
