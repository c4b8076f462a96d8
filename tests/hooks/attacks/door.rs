//! Processes of the user's in a container while root still works there: each would be a way in.

use super::*;
use crate::support::hostile::{give, wait_until};
use std::process::Stdio;

/// Looks again and again, as its caller, for a process whose root directory holds the file `argv[1]`.
const LOOKOUT: &str = r#"
    #include <ctype.h>
    #include <dirent.h>
    #include <stdio.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        setlinebuf(stdout);
        puts("ready");
        for (;;) {
            DIR *proc = opendir("/proc");
            struct dirent *entry;
            while ((entry = readdir(proc))) {
                char path[512];
                snprintf(path, sizeof path, "/proc/%s/root/%s", entry->d_name, argv[1]);
                if (isdigit(entry->d_name[0]) && !access(path, F_OK)) printf("found %s\n", path);
            }
            closedir(proc);
        }
    }"#;

/// The root file system of an image with an MPI, and the host's libraries that may take its place.
pub(super) fn image_with_mpi(installation: &Installation) -> PathBuf {
    let root = installation.rootfs("root");
    let libmpi = installation.path("libmpi.so.12.1.0");
    compile(&libmpi, "libmpi.so.12");
    compile(&installation.path("libnew.so.3.0"), "libnew-own.so.3");
    for folder in ["lib", "usr/lib", "etc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(&libmpi, root.join("lib/libmpi.so.12.0.1")).unwrap();
    symlink("libmpi.so.12.0.1", root.join("lib/libmpi.so.12")).unwrap();
    let bytes = cache(&[("libmpi.so.12", "/lib/libmpi.so.12")]);
    fs::write(root.join("etc/ld.so.cache"), bytes).unwrap();
    root
}

/// An image of alice's with a name that no other has, an MPI and three thousand libraries.
fn image_of_many_libraries(installation: &Installation, marker: &str) {
    let root = image_with_mpi(installation);
    for number in 0..3000 {
        let library = root.join(format!("usr/lib/lib{number}.so.1"));
        fs::copy(root.join("lib/libmpi.so.12"), library).unwrap();
    }
    fs::write(root.join(marker), "").unwrap();
    let alice = &installation.alice;
    Output::of(Command::new("chown").arg("-hR").arg(alice.uid.to_string()).arg(&root)).succeeds();
    installation.forge(alice, &root, "many", "{}");
}

#[test]
fn no_process_of_the_users_is_in_a_container_while_a_hook_works_there() {
    for runtime in Runtime::ALL {
        let installation = Installation::new().runtime(runtime);
        let marker = format!("marker-{}-{runtime:?}", std::process::id());
        image_of_many_libraries(&installation, &marker);
        let bin = installation.prefix().join("bin");
        let env = [
            "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
            format!("MPI_LIBS={}", installation.path("libmpi.so.12.1.0").display()),
            format!("MPI_DEPENDENCY_LIBS={}", installation.path("libnew.so.3.0").display()),
        ];
        // The last hook fails, so that the program, which is alice's, never starts.
        let hooks = serde_json::json!({"prestart": [
            {"path": bin.join("mpi_hook"), "env": env},
            {"path": bin.join("timestamp_hook"), "env": ["TIMESTAMP_HOOK_MESSAGE=MPI-is-there"]},
            {"path": "/bin/false"},
        ]});
        let installation = installation.set("OCIHooks", &hooks.to_string());
        let alice = &installation.alice;
        let lookout = installation.compile("lookout", LOOKOUT);
        let seen = installation.path("seen");
        fs::write(&seen, "").unwrap();
        give(&seen, alice);
        let mut command = installation.as_user(alice, &lookout, [&marker]);
        command.stdout(fs::File::options().append(true).open(&seen).unwrap()).stdin(Stdio::null());
        let mut lookout = command.spawn().unwrap();
        wait_until("the lookout is there", || fs::read_to_string(&seen).unwrap() == "ready\n");
        let log = installation.path("home/alice/times");
        for _ in 0..3 {
            let args = ["run", "--mpi", "load/library/many", "true"];
            let mut command = installation.sarus_command(alice, &args);
            Output::of(command.env("TIMESTAMP_HOOK_LOGFILE", &log)).fails(125);
        }
        lookout.kill().unwrap();
        lookout.wait().unwrap();
        let times = fs::read_to_string(log).unwrap();
        assert_eq!(times.matches("MPI-is-there").count(), 3, "{times}");
        assert_eq!(fs::read_to_string(&seen).unwrap(), "ready\n", "{runtime:?}");
    }
}
