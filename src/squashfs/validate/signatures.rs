//! Signatures of other formats that programs on the host look for when a loop device appears.
//!
//! udev lets libblkid probe the device, and mdadm, LVM, bcache, btrfs, ZFS and others act on the
//! result or probe on their own. squashfs leaves everything but its first 96 bytes to the writer of
//! the image, so the image can be a physical volume of LVM at the same time, or have the UUID of the
//! host's root file system.
//!
//! libblkid reports the first RAID, LVM or LUKS signature whatever else is there. Of several file
//! systems it reports none, but on a device of at most 1440 KiB it reports the first, and squashfs
//! comes late in its list. So an image is refused if libblkid could report any of these formats, by
//! conditions no stricter than libblkid's.
//!
//! Not in the tables, since no valid squashfs superblock can have them: XFS, NTFS, LUKS 1 and LVM 1
//! start with another magic number, the sector size of FAT lies in the block size, and the names of
//! BeFS, APFS and Oracle ASM lie in the offset of the root inode, which would be too large. Also not
//! in the tables: formats with neither UUID nor label that nothing acts on, such as Minix, and
//! firmware RAID formats that only dmraid knows. A label alone does harm, since it becomes a name in
//! /dev/disk/by-label.
//!
//! An honest image has such bytes by chance, or as an uncompressed disk image at exactly the wrong
//! place. Images that we write hold no data in their first [`RESERVED`] bytes, and signatures after
//! these have at least 4 bytes. Should one appear by chance all the same, the import fails, which
//! validates the image that it has written, and not the run.

use super::File;
use crate::error::{Error, Result};

/// Bytes at the start of an image that hold no data of users, so that no signature appears in them
/// by chance: up to the end of the superblock of btrfs.
pub const RESERVED: u64 = 68 << 10;

/// Bytes at the end of the file that are read at once.
const TAIL: u64 = 8 << 10;

/// Position of a signature.
#[derive(Clone, Copy)]
enum Position {
    /// Bytes from the start.
    Start(u32),
    /// A unit, and bytes before the end, which is first rounded down to a multiple of the unit.
    End(u32, u32),
}
use Position::{End, Start};

/// Name of a format, position and bytes of its signature.
type Signature = (&'static str, Position, &'static [u8]);

/// Formats with a fixed signature.
const SIGNATURES: &[Signature] = &[
    // The label contains the number of its sector; sector 0 holds the squashfs superblock.
    ("LVM2", Start(0x200), b"LABELONE\x01\0\0\0\0\0\0\0"),
    ("LVM2", Start(0x400), b"LABELONE\x02\0\0\0\0\0\0\0"),
    ("LVM2", Start(0x600), b"LABELONE\x03\0\0\0\0\0\0\0"),
    // Metadata versions 1.2, 1.0 and 0.90; version 1.1 would overlap the squashfs superblock.
    ("MD RAID", Start(0x1000), b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    ("MD RAID", End(0x1000, 0x2000), b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    ("MD RAID", End(0x10000, 0x10000), b"\xfc\x4e\x2b\xa9\0\0\0\0"),
    ("MD RAID", End(0x10000, 0x10000), b"\xa9\x2b\x4e\xfc\0\0\0\0"),
    ("Intel RAID", End(0x200, 0x400), b"Intel Raid ISM C"),
    ("DDF RAID", End(0x200, 0x200), b"\xde\x11\xde\x11"),
    ("DDF RAID", End(0x200, 0x200), b"\x11\xde\x11\xde"),
    ("DDF RAID", End(0x200, 0x20200), b"\xde\x11\xde\x11"),
    ("DDF RAID", End(0x200, 0x20200), b"\x11\xde\x11\xde"),
    ("DRBD", End(0x200, 0xfc4), b"\x83\x74\x02\x6b"),
    ("DRBD", End(0x200, 0xfc4), b"\x83\x74\x02\x6c"),
    ("DRBD", End(0x200, 0xfec), b"\x83\x74\x02\x6d"),
    ("bcache", Start(0x1018), b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("bcachefs", Start(0x1018), b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    ("Stratis", Start(0x204), b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("Stratis", Start(0x1204), b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("btrfs", Start(0x10040), b"_BHRfS_M"),
    ("F2FS", Start(0x400), b"\x10\x20\xf5\xf2"),
    ("EROFS", Start(0x400), b"\xe2\xe1\xf5\xe0"),
    ("VxFS", Start(0x400), b"\xf5\xfc\x01\xa5"),
    ("VxFS", Start(0x400), b"\xa5\x01\xfc\xf5"),
    // Signature and version.
    ("HFS+", Start(0x400), b"H+\0\x04"),
    ("HFS+", Start(0x400), b"HX\0\x05"),
    ("OCFS2", Start(0x400), b"OCFSV2"),
    ("OCFS2", Start(0x800), b"OCFSV2"),
    ("OCFS2", Start(0x1000), b"OCFSV2"),
    ("OCFS2", Start(0x2000), b"OCFSV2"),
    ("NetWare", Start(0x1000), b"SPB005"),
    ("ReiserFS", Start(0x2034), b"ReIsEr"),
    ("ReiserFS", Start(0x10034), b"ReIsEr"),
    ("ReiserFS", Start(0x10014), b"ReIsEr"),
    ("Reiser4", Start(0x10000), b"ReIsEr4"),
    ("GFS", Start(0x10000), b"\x01\x16\x19\x70\0\0\0\x01"),
    ("ScoutFS", Start(0x10004), b"\x8b\x42\x3c\x10"),
    ("VMFS", Start(0x10_0000), b"\x0d\xd0\x01\xc0"),
    ("JFS", Start(0x8000), b"JFS1"),
    ("HPFS", Start(0x2000), b"\x49\xe8\x95\xf9"),
    // Volume descriptors from sector 16 on; the first may have any of these identifiers.
    ("ISO 9660", Start(0x8001), b"CD001"),
    ("High Sierra", Start(0x8009), b"CDROM"),
    ("UDF", Start(0x8001), b"BEA01"),
    ("UDF", Start(0x8001), b"BOOT2"),
    ("UDF", Start(0x8001), b"CDW02"),
    ("UDF", Start(0x8001), b"NSR0"),
    ("UDF", Start(0x8001), b"TEA01"),
    ("GPT", Start(0x200), b"EFI PART"),
    ("GPT", Start(0x1000), b"EFI PART"),
    ("GPT", End(0x200, 0x200), b"EFI PART"),
];

/// Signatures of swap space and of suspended systems. They lie at the end of the first page, whose
/// size depends on the machine.
const SWAP: [&[u8]; 6] =
    [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
/// Page sizes in bytes.
const PAGES: [u32; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// Signature of the second header of LUKS 2, which is valid without the first one.
const LUKS: &[u8] = b"SKUL\xba\xbe\0\x02";
/// Base-2 logarithms of the positions of the second header: 16 KiB to 4 MiB.
const LUKS_HEADERS: std::ops::RangeInclusive<u32> = 14..=22;

/// Size in bytes of each of the four labels of ZFS, two at the start and two at the end.
const ZFS_LABEL: u32 = 256 << 10;

/// Name of a format, its positions and its magic numbers.
type Variants = (&'static str, &'static [Position], &'static [&'static [u8]]);

/// Formats with one of several magic numbers, such as in both byte orders, at one of several
/// positions.
const VARIANTS: &[Variants] = &[
    // Magic number of the embedded checksum: the last 40 bytes of the first half of a label, which
    // is ignored without it.
    (
        "ZFS",
        &[
            Start(ZFS_LABEL / 2 - 40),
            Start(ZFS_LABEL / 2 * 3 - 40),
            End(ZFS_LABEL, ZFS_LABEL / 2 + 40),
            End(ZFS_LABEL, ZFS_LABEL / 2 * 3 + 40),
        ],
        &[b"\x11\x7a\x0c\xb1\x7a\xda\x10\x02", b"\x02\x10\xda\x7a\xb1\x0c\x7a\x11"],
    ),
    (
        "UFS",
        &[Start(0x55c), Start(0x255c), Start(0x1055c), Start(0x4055c)],
        &[
            b"\x54\x19\x01\0",
            b"\0\x01\x19\x54",
            b"\x19\x01\x54\x19",
            b"\x19\x54\x01\x19",
            // With large files, long names, more security or more than 4 GB.
            b"\x12\x56\x19\0",
            b"\0\x19\x56\x12",
            b"\x14\x50\x09\0",
            b"\0\x09\x50\x14",
            b"\x95\x21\x61\0",
            b"\0\x61\x21\x95",
            b"\x94\x19\x23\x05",
            b"\x05\x23\x19\x94",
        ],
    ),
    // 504 bytes into the superblock, 512 bytes into block 0, 9, 15 or 18 of 1 KiB.
    (
        "System V",
        &[Start(0x3f8), Start(0x27f8), Start(0x3ff8), Start(0x4bf8)],
        &[b"\x20\x7e\x18\xfd", b"\xfd\x18\x7e\x20"],
    ),
    ("Xenix", &[Start(0x800)], &[b"\x2b\x55\x44", b"\x44\x55\x2b"]),
];

/// Refuses an image that has the signature of another format.
pub fn check(file: &File<'_>) -> Result<()> {
    let probe = Probe::read(file)?;
    for (name, at, bytes) in SIGNATURES {
        if probe.has(*at, bytes) {
            return Err(found(name));
        }
    }
    if PAGES.iter().any(|page| SWAP.iter().any(|name| probe.has(Start(page - 10), name))) {
        return Err(found("swap space"));
    }
    if LUKS_HEADERS.into_iter().any(|power| probe.has(Start(1 << power), LUKS)) {
        return Err(found("LUKS"));
    }
    for (name, positions, magics) in VARIANTS {
        if positions.iter().any(|at| magics.iter().any(|magic| probe.has(*at, magic))) {
            return Err(found(name));
        }
    }
    for (name, is_there) in [
        ("ext2, ext3 or ext4", probe.is_ext()),
        ("HFS", probe.is_hfs()),
        ("FileVault 2", probe.is_file_vault()),
        ("a partition table", probe.is_partitioned()),
    ] {
        if is_there {
            return Err(found(name));
        }
    }
    Ok(())
}

fn found(name: &str) -> Error {
    Error::new(format!("the image has the signature of {name}, which the host could act on"))
}

/// The parts of a file in which most signatures lie.
struct Probe<'a> {
    file: &'a File<'a>,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Position of `tail`.
    tail_start: u64,
    /// Size of the loop device in bytes: the file's, rounded down to whole sectors.
    size: u64,
}

impl<'a> Probe<'a> {
    fn read(file: &'a File<'a>) -> Result<Self> {
        let size = file.size & !511;
        let read = |at: u64, length: u64| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            file.fill(&mut bytes, at).map(|()| bytes)
        };
        let tail_start = size.saturating_sub(TAIL);
        let head = read(0, size.min(RESERVED))?;
        let tail = read(tail_start, size - tail_start)?;
        Ok(Self { file, head, tail, tail_start, size })
    }

    /// Returns whether the image has `bytes`, at most 16, at `position`. Bytes that cannot be read
    /// are not there: the file was truncated meanwhile, and the kernel will not find them either.
    fn has(&self, position: Position, bytes: &[u8]) -> bool {
        let position = match position {
            Start(start) => Some(u64::from(start)),
            End(unit, back) => (self.size & !(u64::from(unit) - 1)).checked_sub(back.into()),
        };
        let Some(position) = position else { return false };
        if position + bytes.len() as u64 > self.size {
            return false;
        }
        if let Some(found) = slice(&self.head, 0, position, bytes.len()) {
            return found == bytes;
        }
        if let Some(found) = slice(&self.tail, self.tail_start, position, bytes.len()) {
            return found == bytes;
        }
        let mut found = [0; 16];
        let found = found.get_mut(..bytes.len()).unwrap_or_default();
        self.file.fill(found, position).is_ok() && found == bytes
    }

    fn byte(&self, at: usize) -> u8 {
        self.head.get(at).copied().unwrap_or_default()
    }

    /// ext2, ext3 and ext4: two bytes are all that libblkid asks for. So one of 65,536 images with
    /// random data at that position, which images of ours do not have, is refused by chance.
    fn is_ext(&self) -> bool {
        self.has(Start(0x438), b"\x53\xef")
    }

    /// HFS: two bytes, and a big-endian block size that is a multiple of 512.
    fn is_hfs(&self) -> bool {
        self.has(Start(0x400), b"BD") && self.byte(0x416) & 1 == 0 && self.byte(0x417) == 0
    }

    /// FileVault 2: version 1 in the modification time of squashfs, `CS` and checksum algorithm 1 in
    /// the position of its export table.
    fn is_file_vault(&self) -> bool {
        self.has(Start(8), b"\x01\0") && self.has(Start(88), b"CS\x01\0\0\0")
    }

    /// A partition table (MBR): two bytes at its end, and four entries that are each marked active or
    /// inactive. At least one has a type, or nothing acts on the table.
    fn is_partitioned(&self) -> bool {
        let entries = [446, 462, 478, 494];
        self.has(Start(0x1fe), b"\x55\xaa")
            && entries.iter().all(|at| matches!(self.byte(*at), 0 | 0x80))
            && entries.iter().any(|at| self.byte(at + 4) != 0)
    }
}

/// The `length` bytes at `position` of a file, if `bytes`, which is the part from `start` on, has
/// them.
fn slice(bytes: &[u8], start: u64, position: u64, length: usize) -> Option<&[u8]> {
    let at = usize::try_from(position.checked_sub(start)?).ok()?;
    bytes.get(at..at.checked_add(length)?)
}
