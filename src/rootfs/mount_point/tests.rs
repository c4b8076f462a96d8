use super::*;
use crate::rootfs::root_dir::open_directory;
use std::fs;
use std::os::unix::fs::symlink;

/// The root directory of a container, in the temporary directory.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mount-point-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        for directory in ["dev", "proc", "usr/lib", "home"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        for (name, target) in
            [("todev", "/dev"), ("up", "../../../.."), ("lib", "usr/lib"), ("dangling", "/none")]
        {
            symlink(target, path.join(name)).unwrap();
        }
        Self(path)
    }

    fn open(&self) -> OwnedFd {
        open_directory(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn creator(own: OwnedFd) -> Creator {
    Creator::new(vec![own], &User::caller().unwrap()).unwrap().for_user()
}

#[test]
fn a_path_is_checked_where_links_lead() {
    let scratch = Scratch::new("links");
    let root = scratch.open();
    for (path, real, is_reserved) in [
        ("/", "/", true),
        ("/up", "/", true),
        ("/up/up/todev", "/dev", true),
        ("/todev/null", "/dev/null", true),
        ("/todev/shm/x/y", "/dev/shm/x/y", true),
        ("/home/../proc/1", "/proc/1", true),
        ("/todev/infiniband", "/dev/infiniband", false),
        ("/lib/./x//y/", "/usr/lib/x/y", false),
        ("/lib/../lib", "/usr/lib", false),
        ("/dangling/x", "/dangling/x", false),
    ] {
        let point = MountPoint::find(&root, Path::new(path)).unwrap();
        assert_eq!(point.path(), Path::new(real), "{path}");
        assert_eq!(point.check_reserved().is_err(), is_reserved, "{path}");
    }
    MountPoint::find(&root, Path::new("/none/../dev")).unwrap_err();
    assert_eq!(fs::read_dir(scratch.0.join("usr/lib")).unwrap().count(), 0);
}

#[test]
fn missing_components_are_created_and_no_link_is_followed() {
    let scratch = Scratch::new("create");
    let (root, creator) = (scratch.open(), creator(scratch.open()));
    let create =
        |path: &str, kind| MountPoint::find(&root, Path::new(path)).unwrap().create(kind, &creator);
    create("/lib/a/file", FileType::RegularFile).unwrap();
    assert!(fs::symlink_metadata(scratch.0.join("usr/lib/a/file")).unwrap().is_file());
    create("/lib/a/b", FileType::Directory).unwrap();
    assert!(fs::symlink_metadata(scratch.0.join("usr/lib/a/b")).unwrap().is_dir());
    let error = create("/dangling/x", FileType::Directory).unwrap_err().to_string();
    assert_eq!(error, "cannot create dangling: File exists");
    MountPoint::find(&root, Path::new("/lib/a/file/x")).unwrap_err();
}

#[test]
fn a_directory_that_moves_after_the_check_is_refused() {
    let scratch = Scratch::new("moved");
    let (root, creator) = (scratch.open(), creator(scratch.open()));
    for path in ["/home/new", "/home"] {
        let point = MountPoint::find(&root, Path::new(path)).unwrap();
        fs::rename(scratch.0.join("home"), scratch.0.join("usr/moved")).unwrap();
        let error = point.create(FileType::Directory, &creator).unwrap_err().to_string();
        assert_eq!(error, format!("{path} was moved meanwhile"));
        fs::rename(scratch.0.join("usr/moved"), scratch.0.join("home")).unwrap();
    }
}

#[test]
fn source_and_mount_point_must_be_of_one_kind() {
    let scratch = Scratch::new("kinds");
    let (root, creator) = (scratch.open(), creator(scratch.open()));
    fs::write(scratch.0.join("file"), "").unwrap();
    let file = OwnedFd::from(fs::File::open(scratch.0.join("file")).unwrap());
    let mount = |source: &OwnedFd, path: &str| {
        MountPoint::find(&root, Path::new(path)).unwrap().create_for(source, &creator)
    };
    let error = mount(&root, "/file").unwrap_err().to_string();
    assert_eq!(error, "the source is a directory, the destination is not");
    let error = mount(&file, "/home").unwrap_err().to_string();
    assert_eq!(error, "the destination is a directory, the source is not");
    mount(&root, "/home").unwrap();
    mount(&file, "/new/file").unwrap();
    assert!(scratch.0.join("new/file").is_file());
}

#[test]
fn own_is_the_mount_and_not_what_is_mounted_below_it() {
    let creator = creator(open_directory(Path::new("/")).unwrap());
    assert!(creator.owns(open_directory(Path::new("/")).unwrap()).unwrap());
    assert!(!creator.owns(open_directory(Path::new("/proc")).unwrap()).unwrap());
}
