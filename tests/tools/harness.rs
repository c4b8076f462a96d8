//! The tools of the other tests keep their word.

use crate::support::{Image, Installation, Output, Runtime, processes_of};

#[test]
fn users_have_their_ids_and_groups_and_may_become_setuid() {
    for runtime in Runtime::ALL {
        let installation = Installation::new().runtime(runtime);
        let alice = &installation.alice;
        let ids = "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; pwd";
        let shown = Output::of(&mut installation.as_user(alice, "sh", ["-c", ids])).succeeds();
        let (uid, one, two) = (alice.uid, alice.groups[0], alice.groups[1]);
        let home = installation.path("home/alice");
        assert_eq!(
            shown,
            format!("{uid}\n{uid}\n{uid} {one} {two}\nNoNewPrivs:\t0\n{}\n", home.display())
        );
    }
}

#[test]
fn images_carry_the_configuration_that_was_asked_for() {
    let image = Image::busybox()
        .entrypoint(&["/bin/echo", "-n"])
        .cmd(&["two words"])
        .env("A=b c")
        .working_dir("/tmp")
        .label("site=here");
    for name in [
        format!("docker-archive:{}", image.docker_archive().display()),
        format!("oci-archive:{}", image.oci_archive().display()),
        format!("oci:{}", image.oci_layout().display()),
    ] {
        #[allow(clippy::disallowed_methods, reason = "tests start programs")]
        let mut skopeo = std::process::Command::new("skopeo");
        let config = Output::of(skopeo.args(["inspect", "--config", "--raw", &name])).succeeds();
        for part in [
            r#""Entrypoint":["/bin/echo","-n"]"#,
            r#""Cmd":["two words"]"#,
            r#""A=b c""#,
            r#""WorkingDir":"/tmp""#,
            r#""Labels":{"site":"here"}"#,
        ] {
            assert!(config.contains(part), "{part} is missing in {config}");
        }
    }
}

#[test]
fn a_process_is_seen_by_its_user() {
    let installation = Installation::new();
    let mut sleep = installation.as_user(&installation.bob, "sleep", ["60"]).spawn().unwrap();
    let is_sleeping = || {
        let processes = processes_of(installation.bob.uid);
        processes == [(sleep.id(), "sleep 60".to_owned())]
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_sleeping() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(is_sleeping());
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!(processes_of(installation.bob.uid), []);
}
