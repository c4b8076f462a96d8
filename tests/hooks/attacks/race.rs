//! Files of a user's that change while a hook works on them.

use super::*;
use crate::support::hostile::{Flipper, give};
use door::image_with_mpi;

/// Number of directories above the file that is shared: the longer the way, the longer the moment
/// between the first look at it and the mount.
const DEPTH: usize = 120;

/// Number of runs for each OCI runtime, at least the first, and on until success and refusal were seen.
/// A hook that does not check the file that it mounts on loses one of five.
const RUNS: std::ops::Range<usize> = 40..1000;

/// Makes the file `name` far below the directory `folder`.
fn bury(folder: &Path, name: &str) -> PathBuf {
    let deep = folder.join(std::iter::repeat_n("d", DEPTH).collect::<PathBuf>());
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(name), "as it was").unwrap();
    deep.join(name)
}

/// Lets `mpi_hook` share the host's file `shared`.
fn sharing(installation: Installation, shared: &Path) -> Installation {
    let hook = serde_json::json!({"prestart": [{
        "path": installation.prefix().join("bin/mpi_hook"),
        "env": [
            format!("MPI_LIBS={}", installation.path("libmpi.so.12.1.0").display()),
            format!("BIND_MOUNTS={}", shared.display()),
        ],
    }]});
    installation.set("OCIHooks", &hook.to_string())
}

#[test]
fn no_race_of_the_user_leads_a_shared_file_to_the_runtimes_own() {
    for runtime in Runtime::ALL {
        let installation = Installation::new().runtime(runtime);
        installation.forge(&installation.alice, &image_with_mpi(&installation), "bb", "{}");
        let folder = installation.path("shared");
        let shared = bury(&folder, "file");
        let installation = sharing(installation, &shared);
        // Her directory takes the place of all above the file.
        let alice = &installation.alice;
        let hers = installation.path("home/alice/shared");
        let file = bury(&hers, "file");
        let link = file.with_file_name("link");
        symlink("/dev/null", &link).unwrap();
        for path in [file.parent().unwrap(), &file, &link] {
            give(path, alice);
        }
        let flipper = Flipper::start(&installation, alice, &file, &link);

        let (source, destination) = (hers.display(), folder.display());
        let mount = format!("--mount=type=bind,source={source},destination={destination}");
        let look = "test -c /dev/null && echo intact || echo covered";
        // By the hook, and by the engine itself.
        let target = shared.display();
        let bind = format!("--mount=type=bind,source={target},destination={target}");
        for option in ["--mpi", &bind] {
            let args = ["run", &mount, option, "load/library/bb", "sh", "-c", look];
            let mut counts = [0; 2];
            while counts.iter().sum::<usize>() < RUNS.start || counts.contains(&0) {
                let output = installation.sarus(alice, &args);
                // The engine works before there is a /dev/null: to it the link is dangling.
                let refusals = [
                    "/dev/null is reserved for the container",
                    "was moved meanwhile",
                    "cannot create file: File exists",
                ];
                let is_refused = refusals.iter().any(|text| output.stderr.contains(text));
                let outcome = match (output.status, output.stdout.as_str()) {
                    (0, "intact\n") => 0,
                    (125, "") if is_refused => 1,
                    _ => panic!("{runtime:?} {option}: {output}"),
                };
                counts[outcome] += 1;
                assert!(counts.iter().sum::<usize>() < RUNS.end, "{runtime:?}: {counts:?}");
            }
        }
        drop(flipper);
        assert_eq!(fs::read_to_string(&shared).unwrap(), "as it was", "{runtime:?}");
    }
}
