//! Images that want a hook to take memory until there is none.

use super::*;

/// A program that executes the hook in its place, and notes the most memory that it had, in KiB, and in
/// another file what it said.
fn measured(scene: &mut Scene) -> PathBuf {
    let source = r#"
        #include <stdio.h>
        #include <sys/resource.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(void) {
            int status;
            struct rusage usage;
            if (!freopen("LOG.text", "w", stderr)) return 6;
            if (!fork()) { execl("HOOK", "mpi_hook", NULL); _exit(9); }
            if (wait(&status) < 0 || getrusage(RUSAGE_CHILDREN, &usage)) return 8;
            FILE *file = fopen("LOG", "a");
            fprintf(file, "%ld\n", usage.ru_maxrss);
            return fclose(file) || !WIFEXITED(status) ? 7 : WEXITSTATUS(status);
        }"#;
    let log = scene.installation.path("memory");
    let hook = scene.installation.prefix().join("bin/mpi_hook");
    let source = source.replace("HOOK", hook.to_str().unwrap());
    let source = source.replace("LOG", log.to_str().unwrap());
    let program = scene.installation.compile("measured", &source);
    scene.bundle.config["hooks"]["prestart"][0]["path"] = program.to_str().unwrap().into();
    log
}

/// A cache that lists libmpi, and `count` names at `step` bytes each in one string of 4 KiB.
fn crowded(count: u32, step: u32) -> Vec<u8> {
    let mut bytes = cache(&[("libmpi.so.12", "/lib/libmpi.so.12")]);
    let shift = 24 * count;
    let strings = bytes.split_off(72);
    let base = 72 + shift + strings.len() as u32;
    bytes[20..24].copy_from_slice(&(count + 1).to_le_bytes());
    for at in [52, 56] {
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + shift;
        bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    }
    for number in 0..count {
        let name = base + number * step % 4000;
        bytes.extend([0x0303, name, name, 0, 0, 0].iter().flat_map(|one| one.to_le_bytes()));
    }
    bytes.extend(strings);
    // Names of a library that is never there, but seems to be wanted.
    bytes.extend([&b"/x".repeat(2040)[..], b"/libmpi.so.9\0"].concat());
    bytes
}

#[test]
fn no_cache_makes_a_hook_take_much_memory() {
    let mut scene = Scene::new();
    let log = measured(&mut scene);
    let path = scene.path("etc/ld.so.cache");
    for (count, step, why) in [
        (100_000, 0, "more than 32768 libraries"),
        (0, 0, ""),
        (16_000, 0, ""),
        (16_000, 2, "more than 64 libraries have the same name, as /x/x/"),
    ] {
        scene.lay_out();
        fs::write(&path, crowded(count, step)).unwrap();
        fs::remove_file(&log).ok();
        scene.run(|output| {
            let text = fs::read_to_string(&log).unwrap();
            let most: u64 = text.lines().map(|line| line.parse::<u64>().unwrap()).max().unwrap();
            assert!(most < 64 << 10, "{count} names, {step} apart: {most} KiB");
            assert_eq!(output.status == 0, why.is_empty(), "{output}");
            let said = fs::read_to_string(log.with_extension("text")).unwrap();
            assert!(said.contains(why), "{said}");
        });
    }
}
