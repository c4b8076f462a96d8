//! How long a command takes until the OCI runtime that it starts runs: `bench-share COMMAND...`
//! prints the median of 100 runs in milliseconds, with the 10th and the 90th percentile.
//!
//! The runtime is this program too, under the name `runtime`: all it does is to tell the time.

use std::env::args_os;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos()
}

fn main() {
    let arrived = now();
    let words: Vec<_> = args_os().collect();
    if Path::new(&words[0]).ends_with("runtime") {
        println!("{arrived}");
        return;
    }
    let mut shares: Vec<u128> = (0..100)
        .map(|_| {
            let started = now();
            let output = Command::new(&words[1]).args(&words[2..]).output().expect("a command");
            let text = String::from_utf8_lossy(&output.stdout);
            let arrived: u128 = text.trim().parse().unwrap_or_else(|_| panic!("{output:?}"));
            arrived - started
        })
        .collect();
    shares.sort_unstable();
    let at = |tenth| shares[shares.len() * tenth / 10] as f64 / 1e6;
    println!("{:.2} [{:.2}-{:.2}]", at(5), at(1), at(9));
}
