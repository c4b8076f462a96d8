//! Image files that are not what the kernel, or the host's other software, should believe; and that
//! all honest ones are accepted.

use super::*;
use sarus::squashfs::compression::Compressor;
use sarus::squashfs::validate;
use std::os::unix::fs::FileExt;

/// A user's directory with files that compress, that do not, that end in a fragment and that have
/// attributes.
fn files(installation: &Installation, name: &str) -> PathBuf {
    let root = installation.rootfs(name);
    fs::write(root.join("text"), "compress me ".repeat(100_000)).unwrap();
    fs::write(root.join("noise"), noise(700_000)).unwrap();
    symlink("text", root.join("link")).unwrap();
    root
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Packs `root` with mksquashfs(1) and these options, as an image of alice's that is to be run as
/// `load/library/NAME`.
fn pack(installation: &Installation, root: &Path, name: &str, options: &[&str]) -> PathBuf {
    let image = installation.forge_entry(&installation.alice, name, NO_META);
    let mut pack = Command::new("mksquashfs");
    pack.arg(root).arg(&image).args(["-noappend", "-quiet", "-no-progress"]).args(options);
    Output::of(&mut pack).succeeds();
    give(&image, &installation.alice);
    image
}

fn validated(image: &Path) -> Result<&'static str, String> {
    let file = fs::File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    validate::check(&|buffer, offset| file.read_exact_at(buffer, offset), size)
        .map(Compressor::name)
        .map_err(|error| error.to_string())
}

fn position(image: &[u8], field: usize) -> u64 {
    u64::from_le_bytes(image[field..field + 8].try_into().unwrap())
}

/// Bytes to put at some places.
type Patches<'a> = &'a [(usize, &'a [u8])];

/// The same image with other bytes at some places.
fn patched(image: &[u8], patches: Patches<'_>) -> Vec<u8> {
    let mut image = image.to_vec();
    for (at, bytes) in patches {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

#[test]
fn forged_superblocks_and_tables_are_refused_before_the_kernel_sees_them() {
    let installation = Installation::new();
    let root = files(&installation, "rootfs");
    let path = pack(&installation, &root, "forged", &[]);
    run(&installation, &["load/library/forged", "true"]).succeeds();
    let good = fs::read(&path).unwrap();
    // Fields of the superblock with positions of tables, and the position of an index.
    let (ids, inodes, export) = (position(&good, 48), position(&good, 64), position(&good, 88));
    let first_id = position(&good, ids as usize);
    // The size of the export table's index for all these inodes; it begins before the file does.
    let monster = first_id.wrapping_sub(0xffff_ffff_u64.div_ceil(1024) * 8).to_le_bytes();
    let export_end = (position(&good, export as usize) - 2).to_le_bytes();
    let huge = u64::MAX.to_le_bytes();
    let beyond = (good.len() as u64 * 2).to_le_bytes();
    let cases: &[(&str, Patches<'_>)] = &[
        ("inodes that the kernel would allocate 32 MiB for", &[(4, &[0xff; 4]), (88, &monster)]),
        ("inodes", &[(4, &[0xff, 0xff, 0, 0])]),
        ("fragments", &[(16, &[0xff; 4])]),
        ("ids", &[(26, &[0xff, 0xff])]),
        ("no ids", &[(26, &[0, 0])]),
        ("block size", &[(12, &[0, 0, 0, 0x80])]),
        ("block logarithm", &[(22, &[31, 0])]),
        ("flags", &[(24, &[0xff, 0xff])]),
        ("compressor", &[(20, &[9, 0])]),
        ("version", &[(28, &[4, 0, 1, 0])]),
        ("root inode", &[(32, &huge)]),
        ("bytes used", &[(40, &beyond)]),
        ("negative size", &[(40, &huge)]),
        ("id table", &[(48, &beyond)]),
        ("attributes", &[(56, &[0; 8])]),
        ("inode table", &[(64, &beyond)]),
        ("directory table", &[(72, &inodes.to_le_bytes())]),
        ("fragment table", &[(80, &beyond)]),
        ("export table", &[(88, &beyond)]),
        ("pointer of the id table", &[(ids as usize, &huge)]),
        ("pointer of the export table", &[(export as usize, &export_end)]),
        ("header of the inode table", &[(inodes as usize, &[0xff, 0x7f])]),
        ("header of an id block", &[(first_id as usize, &[0xff, 0xff])]),
    ];
    for (name, patches) in cases {
        fs::write(&path, patched(&good, patches)).unwrap();
        let text = run(&installation, &["load/library/forged", "true"]).fails(125);
        let start = "sarus: cannot use the image load/library/forged:latest: invalid squashfs ";
        assert!(text.starts_with(start), "{name}: {text}");
        assert!(text.contains("hint: remove the image with 'sarus rmi'"), "{name}: {text}");
    }
    // What is small otherwise.
    let small = installation.path("small");
    fs::create_dir(&small).unwrap();
    let path = pack(&installation, &small, "monster", &["-no-xattrs"]);
    let good = fs::read(&path).unwrap();
    assert!(good.len() <= 8192, "{}", good.len());
    let first_id = position(&good, position(&good, 48) as usize);
    let monster = first_id.wrapping_sub(0xffff_ffff_u64.div_ceil(1024) * 8).to_le_bytes();
    fs::write(&path, patched(&good, &[(4, &[0xff; 4]), (88, &monster)])).unwrap();
    let text = run(&installation, &["load/library/monster", "true"]).fails(125);
    assert!(text.contains("export table: 4294967295 entries"), "{text}");
}

/// What libblkid, which udev asks, takes a file for.
fn believed(image: &Path) -> String {
    let probe = ["--probe", "--output", "value", "--match-tag", "TYPE"];
    Output::of(Command::new("blkid").args(probe).arg(image)).stdout.trim().to_owned()
}

/// The checksum of LVM's labels: CRC-32 with a start of its own.
fn lvm_checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0xedb8_8320,
        })
    })
}

#[test]
fn an_image_that_passes_for_a_disk_of_the_host_is_refused() {
    let installation = Installation::new();
    // The only file of this size is stored as it is, from byte 96 on.
    let image_with = |name: &str, size: usize, patches: Patches<'_>| {
        let root = installation.path(&format!("rootfs-{name}"));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("a"), vec![b'x'; size]).unwrap();
        let path = pack(&installation, &root, name, &["-noI", "-noD", "-noF"]);
        let good = fs::read(&path).unwrap();
        assert_eq!(&good[512..520], b"xxxxxxxx");
        validated(&path).unwrap();
        fs::write(&path, patched(&good, patches)).unwrap();
        path
    };
    let mut label = vec![0; 512];
    label[..16].copy_from_slice(b"LABELONE\x01\0\0\0\0\0\0\0");
    label[20..32].copy_from_slice(b"\x20\0\0\0LVM2 001");
    label[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
    let checksum = lvm_checksum(&label[20..]).to_le_bytes();
    label[16..20].copy_from_slice(&checksum);
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"SKUL\xba\xbe\0\x02");
    header[256..264].copy_from_slice(&0x4000_u64.to_be_bytes());
    let zeros = [0; 1024];
    let magic = [0x53, 0xef];
    let uuid = [7; 16];
    let system_v = [0x20, 0x7e, 0x18, 0xfd];
    let ufs = [0x19, 0x01, 0x54, 0x19];
    let vmfs = [0x0d, 0xd0, 0x01, 0xc0];
    let cases: [(&str, usize, Patches<'_>, &str, &str); 8] = [
        ("lvm", 4 << 20, &[(512, &label)], "LVM2_member", "LVM2"),
        ("luks", 4 << 20, &[(0x4000, &header)], "crypto_LUKS", "LUKS"),
        ("vmfs", 4 << 20, &[(1 << 20, &vmfs)], "VMFS_volume_member", "VMFS"),
        // On a small device the first file system that is found is believed.
        ("ext", 64 << 10, &[(1024, &zeros), (1080, &magic), (1128, &uuid)], "ext2", "ext2"),
        ("swap", 64 << 10, &[(1024, &[1, 0, 0, 0, 9]), (4086, b"SWAPSPACE2")], "swap", "swap"),
        // A label is all that System V and Xenix have.
        ("sysv", 64 << 10, &[(952, b"home\0"), (1016, &system_v)], "sysv", "System V"),
        ("xenix", 64 << 10, &[(1656, b"home\0"), (2048, b"+UD")], "xenix", "Xenix"),
        ("ufs", 64 << 10, &[(0x55c, &ufs)], "ufs", "UFS"),
    ];
    for (name, size, patches, found, signature) in cases {
        let path = image_with(name, size, patches);
        assert_eq!(believed(&path), found);
        let text = run(&installation, &[&format!("load/library/{name}"), "true"]).fails(125);
        assert!(text.contains(&format!("has the signature of {signature}")), "{text}");
    }
    // FileVault 2 has "CS" and the number 1 where squashfs has the position of the export table, which
    // follows all data. Only libblkid 2.39 and later know it.
    let path = image_with("fvault", 64 << 10, &[]);
    let missing = 0x15343 - position(&fs::read(&path).unwrap(), 88) as usize;
    let path = image_with("fvault", (64 << 10) + missing, &[(8, &[1, 0, 16, 0])]);
    assert_eq!(position(&fs::read(&path).unwrap(), 88), 0x15343);
    let text = run(&installation, &["load/library/fvault", "true"]).fails(125);
    assert!(text.contains("has the signature of FileVault 2"), "{text}");
}

#[test]
fn images_of_other_users_and_on_fuse_are_refused() {
    let installation = Installation::new();
    let (alice, bob) = (&installation.alice, &installation.bob);
    let root = installation.rootfs("rootfs");
    let path = installation.forge(alice, &root, "bb", NO_META);
    let image = "load/library/bb";
    give(&path, &User::root());
    run(&installation, &[image, "true"]).succeeds();
    give(&path, bob);
    let text = run(&installation, &[image, "true"]).fails(125);
    let expected = format!("it belongs to uid {}, neither to you nor to root", bob.uid);
    assert!(text.contains(&expected) && text.contains("hint: import it yourself"), "{text}");
    give(&path, alice);
    run(&installation, &[image, "true"]).succeeds();

    let folder = path.parent().unwrap();
    let real = installation.path("home/alice/real");
    fs::rename(folder, &real).unwrap();
    fs::create_dir(folder).unwrap();
    give(folder, alice);
    // As one of the user's own, who may open /dev/fuse on machines with udev.
    let visible = ["-o", "allow_other"];
    Output::of(Command::new("bindfs").args(visible).args([&real, folder])).succeeds();
    let text = run(&installation, &[image, "true"]).fails(125);
    assert!(text.contains("it is on a FUSE file system"), "{text}");
    assert!(text.contains("hint: import it into a repository on another file system"), "{text}");
    Output::of(Command::new("umount").arg(folder)).succeeds();
    fs::remove_dir(folder).unwrap();
    fs::rename(&real, folder).unwrap();
    run(&installation, &[image, "true"]).succeeds();
}

#[test]
fn compressors_that_the_site_does_not_accept_are_refused() {
    let installation = Installation::new();
    let root = installation.rootfs("rootfs");
    for compressor in ["lzo", "xz"] {
        pack(&installation, &root, compressor, &["-comp", compressor]);
        let image = format!("load/library/{compressor}");
        let text = run(&installation, &[&image, "true"]).fails(125);
        let expected = format!("this site does not accept {compressor} compression");
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains("; the site accepts zstd, gzip, lz4"), "{text}");
    }
    let installation = installation.set("squashfsAcceptedCompressions", r#"["xz", "lzo"]"#);
    for compressor in ["lzo", "xz"] {
        // The kernel may still not know it.
        let output = run(&installation, &[&format!("load/library/{compressor}"), "true"]);
        assert!(!output.stderr.contains("does not accept"), "{output}");
        let unknown = output.stderr.contains("if this kernel cannot read that");
        assert!(output.status == 0 || (output.status == 125 && unknown), "{output}");
    }
    pack(&installation, &root, "gzip", &["-comp", "gzip"]);
    let text = run(&installation, &["load/library/gzip", "true"]).fails(125);
    assert!(text.contains("does not accept gzip compression"), "{text}");
}

#[test]
fn what_honest_programs_write_is_accepted() {
    let installation = Installation::new();
    let root = files(&installation, "rootfs");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("text"), "user.note", b"some text", flags).unwrap();
    let path = installation.path("image");
    let accepted = |root: &Path, options: &[&str]| {
        let mut pack = Command::new("mksquashfs");
        pack.arg(root).arg(&path).args(["-noappend", "-quiet", "-no-progress"]).args(options);
        Output::of(&mut pack).succeeds();
        validated(&path).unwrap_or_else(|error| panic!("{options:?}: {error}"))
    };
    for compressor in ["gzip", "lzo", "xz", "lz4", "zstd"] {
        for block in ["4K", "128K", "1M"] {
            let used = accepted(&root, &["-comp", compressor, "-b", block]);
            assert_eq!(used, compressor);
        }
    }
    for options in [
        &["-no-exports"][..],
        &["-no-xattrs"],
        &["-no-exports", "-no-xattrs", "-no-fragments"],
        &["-tailends"],
        &["-no-duplicates", "-no-sparse"],
        &["-noI", "-noD", "-noF", "-noX", "-noId"],
        &["-all-root", "-comp", "gzip", "-Xcompression-level", "3"],
        &["-comp", "zstd", "-Xcompression-level", "15"],
        &["-comp", "xz", "-Xbcj", "x86", "-Xdict-size", "50%"],
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "lzo", "-Xalgorithm", "lzo1x_1"],
    ] {
        accepted(&root, options);
    }
    // Appended to.
    let mut append = Command::new("mksquashfs");
    append.arg(root.join("bin")).arg(&path).args(["-quiet", "-no-progress"]);
    Output::of(&mut append).succeeds();
    validated(&path).unwrap();
    let empty = installation.path("empty");
    fs::create_dir(&empty).unwrap();
    accepted(&empty, &[]);
    accepted(&empty, &["-no-exports", "-no-xattrs", "-no-fragments", "-comp", "zstd"]);
    let archive = installation.archive(&Image::busybox());
    let mut other = installation.as_user(&User::root(), "tar2sqfs", ["--quiet", "--force"]);
    other.arg(&path).stdin(fs::File::open(&archive).unwrap());
    Output::of(&mut other).succeeds();
    validated(&path).unwrap();
    // And our own.
    for compression in ["zstd", "gzip", "lz4", "none"] {
        let option = format!("--compression={compression}");
        let load = ["load", &option, archive.to_str().unwrap(), compression];
        installation.sarus(&installation.alice, &load).succeeds();
        let image = format!("load/library/{compression}");
        run(&installation, &[&image, "true"]).succeeds();
    }
}

#[test]
fn an_image_of_a_hundred_thousand_files_is_accepted() {
    let installation = Installation::new();
    let root = installation.rootfs("rootfs");
    for folder in 0..100 {
        let folder = root.join(format!("many/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..1000 {
            fs::write(folder.join(format!("file-{file}")), file.to_string()).unwrap();
        }
    }
    for compressor in ["gzip", "zstd"] {
        let path = pack(&installation, &root, compressor, &["-comp", compressor]);
        assert_eq!(validated(&path).unwrap(), compressor);
        let image = format!("load/library/{compressor}");
        let text = run(&installation, &[&image, "cat", "/many/99/file-999"]).succeeds();
        assert_eq!(text, "999");
    }
}

/// Runs `image` as alice, and tells the most memory that the engine had, in KiB, and what came of
/// it.
fn peak(installation: &Installation, image: &str) -> (u64, Output) {
    let report = installation.path("home/alice/peak");
    let mut measured =
        installation.as_user(&installation.alice, "time", ["--format=%M", "--output"]);
    measured.arg(&report).arg(installation.prefix().join("bin/sarus")).args(["run", image, "true"]);
    let output = Output::of(&mut measured);
    let text = fs::read_to_string(&report).unwrap();
    (text.lines().last().unwrap().parse().unwrap(), output)
}

#[test]
fn hostile_indexes_and_metadata_take_little_memory() {
    let installation = Installation::with_busybox(Runtime::Runc);
    let index = installation.repository(&installation.alice).join("metadata.json");
    let meta = index.with_file_name("images/load/library/bb/latest.meta");
    let good = fs::read_to_string(&index).unwrap();
    let repeated = |start: &str, part: &str, end: &str, size: usize| {
        format!("{start}{}{end}", part.repeat((size - 100) / part.len()))
    };
    let nested = format!("{}0{},", r#"{"":"#.repeat(5), "}".repeat(5));
    for size in [600 << 10, 4 << 20, 8 << 20, 16 << 20] {
        for part in [r#"{"":0},"#, "0,", "[],", r#""","#, &nested, "[[[[[[[[", r#"{"":"#] {
            let text = repeated(r#"{"images":["#, part, "0]}", size);
            fs::write(&index, text).unwrap();
            let (peak, output) = peak(&installation, IMAGE);
            output.fails(125);
            assert!(peak < 100 << 10, "index of {size} with {part}: {peak} KiB");
        }
        let text = repeated(r#"{"images":[""#, "x", r#""]}"#, size);
        fs::write(&index, text).unwrap();
        let (peak, output) = peak(&installation, IMAGE);
        output.fails(125);
        assert!(peak < 100 << 10, "index of {size} with a text: {peak} KiB");
    }
    fs::write(&index, &good).unwrap();
    for size in [60 << 10, 4 << 20, 8 << 20] {
        for (start, part, end) in [
            (r#"{"Env":["#, r#""","#, r#"""]}"#),
            (r#"{"Env":["#, r#""A=1","#, r#"""]}"#),
            (r#"{"Labels":{"#, r#""":"","#, r#""":""}}"#),
            (r#"{"Other":["#, r#"{"":0},"#, "0]}"),
            (r#"{"Other":"#, "[", "]"),
        ] {
            fs::write(&meta, repeated(start, part, end, size)).unwrap();
            let (peak, output) = peak(&installation, IMAGE);
            assert!([0, 125].contains(&output.status), "{output}");
            assert!(peak < 100 << 10, "metadata of {size} with {part}: {peak} KiB");
        }
    }
    // A large repository is no attack.
    fs::write(&meta, "{}").unwrap();
    let (before, _) = good.rsplit_once("]}").unwrap();
    let filler = r#",{"uniqueKey":"a/b/c/d","server":"a","namespace":"b","image":"c","tag":"d",
        "digest":"","imagePath":"/x","metadataPath":"/y","datasize":"1B","created":""}"#;
    fs::write(&index, format!("{before}{}]}}", filler.repeat(8000))).unwrap();
    let (peak, output) = peak(&installation, IMAGE);
    output.succeeds();
    assert!(peak < 100 << 10, "a large repository: {peak} KiB");
}
