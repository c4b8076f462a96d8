//! The container stays in the cgroups of its caller, where the limits of the job hold.

use super::*;

/// A cgroup as a workload manager makes it for a job; removed when dropped.
struct Job(PathBuf);

impl Job {
    fn new() -> Self {
        // Of the second version, or of the hierarchy of one controller.
        let unified = Path::new("/sys/fs/cgroup");
        let has_one = unified.join("cgroup.procs").exists();
        let parent = if has_one { unified.to_owned() } else { unified.join("pids") };
        let path = parent.join(format!("job-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// What runs `command` in it.
    fn enter(&self, command: &Command) -> Output {
        let mut inside = Command::new("sh");
        let procs = self.0.join("cgroup.procs");
        inside.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(procs);
        inside.arg(command.get_program()).args(command.get_args());
        inside.current_dir(command.get_current_dir().unwrap());
        Output::of(&mut inside)
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn no_runtime_takes_the_container_out_of_the_cgroups_of_its_caller() {
    let job = Job::new();
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        for pid in ["--pid=host", "--pid=private"] {
            let args = ["run", pid, IMAGE, "cat", "/proc/self/cgroup"];
            let shown = job.enter(&installation.sarus_command(alice, &args)).succeeds();
            let inside = format!(":/{}", job.name());
            assert!(shown.contains(&inside), "{runtime:?} {pid}: {shown}");
        }
    }
    // One that puts it elsewhere, as runc does in version 2 of its own accord.
    let elsewhere = format!("elsewhere-{}", std::process::id());
    let installation = Installation::with_busybox(Runtime::Runc);
    let runc = installation.path("runc-elsewhere");
    let script = format!(
        "#!/bin/sh\nsed -i -e 's|\"cgroupsPath\":\"[^\"]*\",||' \
         -e 's|\"linux\":{{|&\"cgroupsPath\":\"/{elsewhere}\",|' config.json\nexec {} \"$@\"\n",
        Runtime::Runc.path().display()
    );
    fs::write(&runc, script).unwrap();
    fs::set_permissions(&runc, PermissionsExt::from_mode(0o755)).unwrap();
    let installation = installation.set("runcPath", &format!("\"{}\"", runc.display()));
    for pid in ["--pid=host", "--pid=private"] {
        let args = ["run", pid, IMAGE, "sh", "-c", "sleep 5; echo ran"];
        let output = job.enter(&installation.sarus_command(&installation.alice, &args));
        assert_eq!(output.stdout, "", "{pid}");
        let text = output.fails(125);
        assert!(text.contains("cannot run outside of the caller's cgroup"), "{pid}: {text}");
        wait_until("it is gone", || processes_of(installation.alice.uid).is_empty());
        // Nobody but this test knows that place.
        let find = ["/sys/fs/cgroup", "-depth", "-name", &elsewhere, "-exec", "rmdir", "{}", "+"];
        wait_until("it is empty", || Output::of(Command::new("find").args(find)).status == 0);
    }
}
