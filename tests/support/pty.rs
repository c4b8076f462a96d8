//! A terminal with a shell on it, as a person at a keyboard has it.

#![allow(unsafe_code, reason = "the standard library makes no terminals")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use super::{Installation, User, processes_of};

/// A shell on a terminal. What it shows is collected.
pub struct Shell {
    keyboard: File,
    shown: Arc<Mutex<String>>,
    child: Child,
    uid: u32,
}

impl Shell {
    /// An interactive bash of `user`, on a terminal of 24 lines with 80 letters.
    pub fn start(installation: &Installation, user: &User) -> Self {
        let master = open("/dev/ptmx");
        let (mut number, unlock) = (0_u32, 0_u32);
        // SAFETY: the kernel reads and writes one number each.
        unsafe {
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock);
            libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number);
        }
        let device = format!("/dev/pts/{number}");
        let slave = open(&device);
        // As the one who logs in owns it.
        std::os::unix::fs::chown(device, Some(user.uid), None).unwrap();
        let bash = installation.as_user(user, "bash", ["--norc", "--noprofile", "-i"]);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(bash.get_program()).args(bash.get_args());
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("PS1", "READY> ");
        command.current_dir(bash.get_current_dir().unwrap());
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, collected) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                collected.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let this = Self { keyboard: master, shown, child, uid: user.uid };
        this.resize(24, 80);
        this.wait_for("READY> ");
        this
    }

    /// Types `keys`, and forgets what was shown before.
    pub fn types(&mut self, keys: &str) -> &Self {
        self.shown.lock().unwrap().clear();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Types a line, and gives what is shown until it has done its work.
    pub fn runs(&mut self, line: &str) -> String {
        // What is typed is shown too, and shall not look like what is waited for.
        self.types(&format!("{line}; echo E''ND\n")).wait_for("END\r\n")
    }

    /// Waits until `text` was shown since the last key; all that was shown.
    pub fn wait_for(&self, text: &str) -> String {
        // crun makes the terminal raw while the program starts: until then, it adds a return.
        let shown = || self.shown.lock().unwrap().replace("\r\r\n", "\r\n");
        let start = std::time::Instant::now();
        while !shown().contains(text) {
            assert!(start.elapsed().as_secs() < 20, "no {text:?} in {:?}", shown());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        shown()
    }

    /// Makes the terminal's window larger or smaller.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel reads one `winsize`.
        unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }

    /// How the terminal behaves, as stty(1) tells it, but for its size.
    pub fn modes(&mut self) -> String {
        let shown = self.runs("stty -a");
        shown.split_once("intr =").unwrap().1.to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Whatever a failed test left.
        for (pid, _) in processes_of(self.uid) {
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().ok();
        }
        self.child.wait().ok();
    }
}

fn open(path: &str) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap()
}
