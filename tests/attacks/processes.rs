//! Processes and their descriptors.

use super::*;

#[test]
fn standard_streams_stay_their_owners() {
    for runtime in Runtime::ALL {
        let installation = with_busybox(runtime);
        let alice = &installation.alice;
        let canary = canary(&installation);
        let sarus = installation.prefix().join("bin/sarus");
        let log = installation.path("log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
        let before = snapshot(&canary);
        for options in ["", "--init", "-w /tmp", "--init -w /tmp"] {
            let script = format!(
                "exec {} run {options} {IMAGE} cat <{}/hosts 2>>{}",
                sarus.display(),
                canary.display(),
                log.display()
            );
            let output = Output::of(&mut installation.as_user(alice, "sh", ["-c", &script]));
            assert_eq!(output.succeeds(), "the hosts of root\n", "{runtime:?}");
            assert_eq!(snapshot(&canary), before, "{runtime:?} {options}");
            assert_eq!(fs::metadata(&log).unwrap().uid(), 0, "{runtime:?} {options}");
        }
        assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
    }
}
