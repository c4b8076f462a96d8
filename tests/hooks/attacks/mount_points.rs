//! Mount points that are missing in a container, and users who choose where they are created. Engine
//! and hooks create them with the same code, and are attacked by the same table.

use super::*;
use crate::support::hostile::{give, snapshot};
use door::image_with_mpi;

/// Ways to a mount point at a path of the user's choice: a mount of the user's, by the engine, and
/// `BIND_MOUNTS` of the site, by `mpi_hook`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Engine,
    Hook,
}

/// The mount of `shared/deep/file` of the host in the container, at the same path.
fn option(maker: Maker, file: &Path) -> String {
    match maker {
        Maker::Engine => bind(file, file),
        Maker::Hook => "--mpi".to_owned(),
    }
}

fn bind(source: &Path, destination: &Path) -> String {
    format!("--mount=type=bind,source={},destination={}", source.display(), destination.display())
}

/// An installation with the file `shared/deep/file` of root's, which `mpi_hook` shares, and an image
/// for each target of a link in place of `shared`.
fn scene(runtime: Runtime, targets: &[(&str, &str)]) -> (Installation, PathBuf) {
    let installation = Installation::new().runtime(runtime);
    let file = installation.path("shared/deep/file");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "as it was").unwrap();
    let hooks = serde_json::json!({"prestart": [{
        "path": installation.prefix().join("bin/mpi_hook"),
        "env": [
            format!("MPI_LIBS={}", installation.path("libmpi.so.12.1.0").display()),
            format!("BIND_MOUNTS={}", file.display()),
        ],
    }]});
    let root = image_with_mpi(&installation);
    let alice = &installation.alice;
    installation.forge(alice, &root, "bb", "{}");
    let shared = root.join(installation.path("shared").strip_prefix("/").unwrap());
    fs::create_dir_all(shared.parent().unwrap()).unwrap();
    for (name, target) in targets {
        fs::remove_file(&shared).ok();
        symlink(target, &shared).unwrap();
        installation.forge(alice, &root, name, "{}");
    }
    (installation.set("OCIHooks", &hooks.to_string()), file)
}

#[test]
fn no_mount_point_is_made_where_its_user_could_not_make_it() {
    for runtime in Runtime::ALL {
        let (installation, file) = scene(runtime, &[]);
        let (alice, shared) = (&installation.alice, installation.path("shared"));
        let directories = ["roots", "bobs", "hers"].map(|name| installation.path(name));
        let [roots, bobs, hers] = &directories;
        directories.iter().for_each(|path| fs::create_dir(path).unwrap());
        give(bobs, &installation.bob);
        give(hers, alice);
        for maker in [Maker::Engine, Maker::Hook] {
            let option = option(maker, &file);
            let run = |more: &[&str]| {
                // A directory that is mounted comes first: the mount point is in it.
                let args = [&["run"], more, &[option.as_str(), "load/library/bb", "true"]];
                installation.sarus(alice, &args.concat())
            };
            for directory in [roots, bobs] {
                let before = snapshot(directory);
                let error = run(&[&bind(directory, &shared)]).fails(125);
                assert!(error.contains("Permission denied"), "{maker:?} {runtime:?}: {error}");
                assert_eq!(snapshot(directory), before, "{maker:?} {runtime:?}");
            }
            run(&[&bind(hers, &shared)]).succeeds();
            for made in ["deep", "deep/file"] {
                let status = fs::metadata(hers.join(made)).unwrap();
                assert_eq!((status.uid(), status.gid()), (alice.uid, alice.gid), "{maker:?}");
            }
            fs::remove_dir_all(hers.join("deep")).unwrap();
            // Nothing of the host's is there.
            run(&[]).succeeds();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
    }
}

#[test]
fn no_link_of_an_image_leads_a_mount_point_to_a_reserved_path() {
    let targets = [
        ("dev", "/dev/null"),
        ("shm", "/dev/shm"),
        ("proc", "/proc"),
        ("sys", "../../../../../../../../sys/kernel"),
        ("ssh", "/opt/sarus/openssh"),
    ];
    for runtime in Runtime::ALL {
        let (installation, file) = scene(runtime, &targets);
        for maker in [Maker::Engine, Maker::Hook] {
            for (name, target) in targets {
                let image = format!("load/library/{name}");
                let args = ["run", &option(maker, &file), &image, "true"];
                let error = installation.sarus(&installation.alice, &args).fails(125);
                // A link to a path that does not exist leads nowhere, and is not replaced.
                let refusals = ["is reserved for the container itself", "File exists"];
                let is_refused = refusals.iter().any(|text| error.contains(text))
                    || (name == "dev" && error.contains("Not a directory"));
                assert!(is_refused, "{maker:?} {runtime:?} {target}: {error}");
            }
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "as it was");
    }
}

/// With `st_dev` for the criterion, root would create the mount point in the directory of the host.
#[test]
fn a_directory_of_the_host_is_not_the_containers_own_on_the_same_file_system() {
    let mut scene = Scene::new();
    let roots = scene.installation.path("roots");
    fs::create_dir(&roots).unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_eq!(device(&roots), device(&scene.path("")));
    let treasure = scene.treasure.clone();
    fs::create_dir_all(scene.path(treasure.strip_prefix("/").unwrap().to_str().unwrap())).unwrap();
    let env = scene.bundle.config["hooks"]["prestart"][0]["env"].as_array_mut().unwrap();
    env.retain(|variable| !variable.as_str().unwrap().starts_with("BIND_MOUNTS="));
    env.push(format!("BIND_MOUNTS={}", treasure.join("file").display()).into());
    scene.bundle.config["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": treasure, "type": "bind", "source": roots, "options": ["rbind"],
    }));
    scene.refused("cannot create file: Permission denied");
    assert_eq!(fs::read_dir(&roots).unwrap().count(), 0);
}
