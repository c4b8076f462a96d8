//! What changes while the engine looks.

use super::*;

#[test]
fn no_race_of_the_user_shows_what_is_closed_to_them() {
    for runtime in Runtime::ALL {
        let installation = Installation::with_busybox(runtime);
        let alice = &installation.alice;
        installation.plant(&installation.bob, "home/bob/closed/open/file", "SECRET", 0o755);
        let closed = installation.path("home/bob/closed");
        give(&closed, &installation.bob);
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        let rooted = installation.path("rooted");
        fs::create_dir(&rooted).unwrap();
        let before = snapshot(&closed) + &snapshot(&rooted);
        installation.plant(alice, "home/alice/race/dir/file", "hers", 0o755);
        let race = installation.path("home/alice/race");
        give(&race, alice);
        // Links by the host's path and by the container's.
        symlink(closed.join("open"), race.join("link")).unwrap();
        give(&race.join("link"), alice);
        installation.plant(alice, "home/alice/inside/dir/file", "hers", 0o755);
        let inside = installation.path("home/alice/inside");
        give(&inside, alice);
        symlink("/bob/closed/open", inside.join("link")).unwrap();
        give(&inside.join("link"), alice);
        installation.plant(alice, "home/alice/make/dir/file", "hers", 0o755);
        let make = installation.path("home/alice/make");
        give(&make, alice);
        symlink("/all/rooted", make.join("link")).unwrap();
        give(&make.join("link"), alice);
        let flippers = [&race, &inside, &make].map(|place| {
            Flipper::start(&installation, alice, &place.join("dir"), &place.join("link"))
        });

        let all = bind(&installation.path(""), "/all");
        let bob = bind(&installation.path("home/bob"), "/bob");
        let source = bind(&race.join("dir"), "/m");
        let way = bind(&inside, "/m");
        let made = bind(&make, "/m");
        let data = bind(&installation.path("home/alice/data"), "/m/dir/new");
        fs::create_dir(installation.path("home/alice/data")).unwrap();
        let attacks: [&[&str]; 4] = [
            // The source of a mount.
            &[&source, IMAGE, "cat", "/m/file"],
            // The way to the working directory.
            &[&bob, &way, "-w", "/m/dir", IMAGE, "cat", "file"],
            // A destination below a mount, and a working directory that has to be made.
            &[&all, &made, &data, IMAGE, "cat", "/m/dir/file"],
            &[&all, &made, "-w", "/m/dir/work", IMAGE, "cat", "../file"],
        ];
        let mut hers = 0;
        for turn in 0..120 {
            let output = run(&installation, attacks[turn % attacks.len()]);
            let shown = format!("{}{}", output.stdout, output.stderr);
            assert!(!shown.contains("SECRET"), "{runtime:?} {turn}: {shown}");
            hers += usize::from(shown.contains("hers"));
        }
        // Else nothing was tried.
        assert!(hers > 5, "{runtime:?}: only {hers}");
        drop(flippers);
        assert_eq!(snapshot(&closed) + &snapshot(&rooted), before, "{runtime:?}");
    }
}
