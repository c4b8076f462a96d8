use super::*;
use std::thread;

/// A directory of the test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("barrier-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn barrier(&self, rank: u32, tasks: u32) -> Barrier {
        let task = Task { job: 1, step: 0, tasks, rank };
        Barrier::new(self.0.join(task.directory()), &task).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

const LONG: Option<Duration> = Some(Duration::from_secs(20));

#[test]
fn nobody_passes_before_the_last_has_come() {
    let place = Place::new("all");
    // Twice in the same step, and the second time over what the first left in a hurry.
    for round in 0..2 {
        let last = thread::scope(|scope| {
            let passed: Vec<_> = (0..4)
                .map(|rank| {
                    let barrier = place.barrier(rank, 5);
                    scope.spawn(move || {
                        barrier.pass(LONG).unwrap();
                        Instant::now()
                    })
                })
                .collect();
            sleep(Duration::from_millis(400));
            let last = Instant::now();
            place.barrier(4, 5).pass(LONG).unwrap();
            for thread in passed {
                assert!(thread.join().unwrap() > last, "round {round}");
            }
            last
        });
        assert!(last.elapsed() < Duration::from_secs(5));
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "round {round}");
    }
}

#[test]
fn what_a_crash_left_lets_nobody_pass_and_holds_nobody_up() {
    let place = Place::new("stale");
    // The files of tasks that were all killed just before they passed.
    let old: Vec<_> = (0..3).map(|rank| place.barrier(rank, 3)).collect();
    let round = &old[0].token;
    let tokens: BTreeMap<_, _> =
        (0..3).map(|rank| (rank, old[rank as usize].token.clone())).collect();
    old[0].write("round", round).unwrap();
    old[0].write("verdict", &verdict("go", &tokens)).unwrap();
    for barrier in &old {
        barrier.write(&arrival(barrier.rank), &arrival_text(round, &barrier.token)).unwrap();
        barrier.write(&departure(barrier.rank), &barrier.token).unwrap();
    }
    thread::scope(|scope| {
        for rank in 1..3 {
            let (leader_starts, barrier) = (Instant::now() + 3 * INTERVAL, place.barrier(rank, 3));
            scope.spawn(move || {
                barrier.pass(LONG).unwrap();
                assert!(Instant::now() > leader_starts, "rank {rank} believed an old verdict");
            });
        }
        sleep(4 * INTERVAL);
        place.barrier(0, 3).pass(LONG).unwrap();
    });
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn who_is_missing_is_named_to_all() {
    let place = Place::new("missing");
    let short = Some(Duration::from_secs(1));
    for (present, named) in [(vec![0, 1, 4], "2-3"), (vec![1, 3], "0, 2, 4"), (vec![0], "1-4")] {
        thread::scope(|scope| {
            for &rank in &present {
                let barrier = place.barrier(rank, 5);
                scope.spawn(move || {
                    let error = barrier.pass(short).unwrap_err().to_string();
                    let expected = format!("after 1 s these ranks have not arrived: {named}");
                    assert!(error.ends_with(&expected), "rank {rank}: {error}");
                });
            }
        });
    }
}

#[test]
fn ranks_are_told_in_ranges() {
    assert_eq!(ranges(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
    assert_eq!(ranges(&[]), "");
    let odd: Vec<_> = (0..100).map(|n| 2 * n).collect();
    assert!(ranges(&odd).ends_with("36, 38 and more"));
}

#[test]
fn a_verdict_is_for_those_whom_it_names() {
    let text = "go\n0 a\n1 b\n";
    assert_eq!(verdict_for(text, 1, "b"), Some("go"));
    for (rank, token) in [(1, "a"), (11, "b"), (2, "")] {
        assert_eq!(verdict_for(text, rank, token), None);
    }
    assert_eq!(verdict_for("", 0, ""), None);
}
